//! Routers that hosts report and shouldn't have, or lack and should have: the network service is told, which alone decides
//! about routers. A host that was silent while its router was started elsewhere drops its copy by this, whatever was
//! forgotten meanwhile. And passwords that guests took: routers that are made anew don't offer them again.

use crate::store::{hosts as rows, vms};
use crate::world::World;
use ::store::Db;
use contract_agent::{RouterApplied, TakenPassword};
use hub::HostEvent;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// The topic by which the network service hears "HOST/ROUTER".
const TOPIC: &str = "routers";
/// What stays wrong is told again this often.
const AGAIN: Duration = Duration::from_secs(10);

/// What a host reported last.
struct Seen {
    routers: BTreeSet<String>,
    wrong: bool,
    /// VMs and the ids of their passwords that were taken, and whether all of them are noted.
    taken: BTreeSet<(String, String)>,
    noted: bool,
}

/// Follows the reports that come to this replica until the node stops.
pub fn start(world: &World) {
    let world = world.clone();
    world.node.clone().spawn("host-routers", async move {
        let mut news = world.hub.news();
        let mut seen: BTreeMap<i64, Seen> = BTreeMap::new();
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = news.next() => match event {
                    Some(HostEvent::Report { host, routers, .. }) => {
                        let taken = taken(&routers);
                        let routers: BTreeSet<String> =
                            routers.iter().map(|router| router.router_uuid.clone()).collect();
                        // Most reports are about VMs.
                        let before = seen.remove(&host.0);
                        let right = before.as_ref().is_some_and(|seen| !seen.wrong && seen.routers == routers);
                        let wrong = !right && look(&world, host.0, &routers).await;
                        let noted = before.is_some_and(|seen| seen.noted && seen.taken == taken);
                        let noted = noted || note(&world, &taken).await;
                        seen.insert(host.0, Seen { routers, wrong, taken, noted });
                    }
                    Some(HostEvent::Up { host, .. } | HostEvent::Lost { host, .. } | HostEvent::Down { host, .. }) => {
                        seen.remove(&host.0);
                    }
                    Some(_) => {}
                    None => return,
                },
                _ = again.tick() => {
                    for (host, seen) in &mut seen {
                        seen.wrong = seen.wrong && look(&world, *host, &seen.routers).await;
                        seen.noted = seen.noted || note(&world, &seen.taken).await;
                    }
                }
            }
        }
    });
}

fn taken(routers: &[RouterApplied]) -> BTreeSet<(String, String)> {
    let pair = |taken: &TakenPassword| (taken.vm_uuid.clone(), taken.password_id.clone());
    routers.iter().flat_map(|router| &router.taken).map(pair).collect()
}

/// Notes which passwords were taken; gives whether it could.
async fn note(world: &World, taken: &BTreeSet<(String, String)>) -> bool {
    if taken.is_empty() {
        return true;
    }
    let noted = ::store::tx!(world.node.db, "passwords-taken", |tx| {
        for (vm, id) in taken {
            if vms::took_password(tx, vm, id).await? {
                tracing::debug!(vm, "the guest has its password");
            }
        }
        Ok::<_, ::store::Error>(())
    })
    .await;
    if let Err(error) = &noted {
        tracing::warn!(%error, "which passwords guests took can't be noted; it is tried again");
    }
    noted.is_ok()
}

/// Tells of what differs; gives whether anything does.
async fn look(world: &World, host: i64, reported: &BTreeSet<String>) -> bool {
    match differing(&world.node.db, host, reported).await {
        Ok(routers) => {
            for router in &routers {
                world.node.coord.publish(TOPIC, &format!("{host}/{router}"));
            }
            !routers.is_empty()
        }
        Err(error) => {
            tracing::warn!(host, %error, "a host's routers can't be compared; they are looked at again");
            true
        }
    }
}

async fn differing(db: &Db, host: i64, reported: &BTreeSet<String>) -> ::store::Result<Vec<String>> {
    let expected = rows::routers(db, host).await?;
    let strays = reported.iter().filter(|uuid| !expected.contains_key(*uuid)).cloned();
    // One that starts isn't there yet.
    let missing =
        expected.iter().filter(|(uuid, runs)| **runs && !reported.contains(*uuid)).map(|(uuid, _)| uuid.clone());
    Ok(strays.chain(missing).collect())
}
