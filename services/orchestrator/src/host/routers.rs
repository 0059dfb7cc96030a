//! Routers that hosts report and shouldn't have, or lack and should have: the network service is told, which alone decides
//! about routers. A host that was silent while its router was started elsewhere drops its copy by this, whatever was
//! forgotten meanwhile.

use crate::store::hosts as rows;
use crate::world::World;
use ::store::Db;
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
                        let routers = routers.iter().map(|router| router.router_uuid.clone()).collect();
                        // Most reports are about VMs.
                        if seen.get(&host.0).is_none_or(|before| before.wrong || before.routers != routers) {
                            let wrong = look(&world, host.0, &routers).await;
                            seen.insert(host.0, Seen { routers, wrong });
                        }
                    }
                    Some(HostEvent::Up { host, .. } | HostEvent::Lost { host, .. } | HostEvent::Down { host, .. }) => {
                        seen.remove(&host.0);
                    }
                    Some(_) => {}
                    None => return,
                },
                _ = again.tick() => {
                    for (host, seen) in seen.iter_mut().filter(|(_, seen)| seen.wrong) {
                        seen.wrong = look(&world, *host, &seen.routers).await;
                    }
                }
            }
        }
    });
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
