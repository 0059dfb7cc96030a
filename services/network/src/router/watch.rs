//! The safety net: routers that nobody works on, hosts that went away, and what is left on hosts.
//!
//! A router is on one host. It leaves one that is being emptied by being removed there first; it leaves a dead one because
//! nothing runs there any more. One on a silent host stays. A verdict "dead" may be wrong; then two run until the host is
//! back, with the same addresses, MACs and leases: guests may lose connections, but no address is given twice, since the
//! database gives them, and nothing is stored, since routers have no disk. The host drops its copy when it connects.

use crate::router::worker::execute;
use crate::store::zones::Standing;
use crate::store::{nics, routers, zones};
use crate::world::World;
use contract::ApiError;
use contract_agent::{RemoveRouter, command::Body};
use coord::{Notice, Term};
use node::Node;
use std::sync::Arc;
use std::time::Duration;
use store::now_micros;

/// The topic of "HOST/ROUTER": the host says that it has a router which the database doesn't know there, or lacks one.
const REPORTED: &str = "routers";
/// How often it looks without being asked.
const LOOK: Duration = Duration::from_secs(10);
/// A change that nobody has applied for so long has been forgotten by a replica that died.
const NEGLECTED: Duration = Duration::from_secs(5);
/// Removed interfaces are kept so long, for whoever reads them.
const KEEP_REMOVED: Duration = Duration::from_secs(120);

/// The duty: wakes workers for neglected routers, and clears leftovers.
pub async fn watch(world: Arc<World>, term: Term) {
    let mut placement = world.node.coord.subscribe("placement");
    let mut reported = world.node.coord.subscribe(REPORTED);
    loop {
        if let Err(error) = look(&world).await {
            tracing::warn!(%error, "routers could not be looked at");
        }
        let next = tokio::time::Instant::now() + LOOK;
        loop {
            tokio::select! {
                () = term.lost() => return,
                () = tokio::time::sleep_until(next) => break,
                notice = placement.next() => match notice {
                    // Many hosts at once.
                    Notice::Message(what) if what == "all" => break,
                    Notice::Message(what) => {
                        if let Some(host) = what.strip_prefix("host/").and_then(|id| id.parse().ok())
                            && let Err(error) = host_changed(&world, host).await
                        {
                            tracing::warn!(host, %error, "routers of a host could not be looked at");
                        }
                    }
                    Notice::Missed => break,
                },
                // What is missed is told again.
                notice = reported.next() => if let Notice::Message(what) = notice
                    && let Some((host, router)) = what.split_once('/')
                    && let Ok(host) = host.parse()
                    && let Err(error) = compare(&world, host, router).await
                {
                    tracing::warn!(host, router, %error, "what a host says of a router could not be followed");
                },
            }
        }
    }
}

async fn look(world: &World) -> Result<(), ApiError> {
    let db = &world.node.db;
    let before = now_micros() - i64::try_from(NEGLECTED.as_micros()).unwrap_or_default();
    for router in routers::neglected(db, before).await? {
        world.routers.check(router);
    }
    clear_leftovers(&world.node).await?;
    let before = now_micros() - i64::try_from(KEEP_REMOVED.as_micros()).unwrap_or_default();
    if nics::has_removed(db, before).await? {
        store::tx!(db, "purge-nics", |tx| nics::purge(tx, before).await).await?;
    }
    Ok(())
}

async fn host_changed(world: &World, host: i64) -> Result<(), ApiError> {
    for router in routers::on_host(&world.node.db, host).await? {
        world.routers.check(router);
    }
    clear_leftovers(&world.node).await
}

/// A host has a router that it shouldn't have, or lacks one: by what is so now, it is removed there or looked after.
async fn compare(world: &World, host: i64, uuid: &str) -> Result<(), ApiError> {
    let db = &world.node.db;
    if let Some(router) = routers::belongs(db, uuid, host).await? {
        world.routers.check(router);
        return Ok(());
    }
    if matches!(zones::standing(db, host).await?, Standing::Silent(_) | Standing::Gone) {
        return Ok(()); // it says it again once it is back
    }
    tracing::info!(host, router = uuid, "a host runs a router that is gone or elsewhere: it is removed there");
    execute(&world.node, host, Body::RemoveRouter(RemoveRouter { router_uuid: uuid.to_owned() })).await?;
    store::tx!(db, "stray-cleared", |tx| routers::forget_leftover(tx, uuid, host).await).await?;
    // It may have come here meanwhile.
    if let Some(router) = routers::belongs(db, uuid, host).await? {
        world.routers.check(router);
    }
    Ok(())
}

/// Removes from hosts the routers that are gone or elsewhere. What a host doesn't do now stays for the next time.
///
/// # Errors
/// Those of the database.
pub async fn clear_leftovers(node: &Node) -> Result<(), ApiError> {
    for (uuid, host, exists) in routers::leftovers(&node.db).await? {
        if exists {
            let body = Body::RemoveRouter(RemoveRouter { router_uuid: uuid.clone() });
            if let Err(error) = execute(node, host, body).await {
                tracing::debug!(host, router = uuid, %error, "a router that is gone could not be removed from its host now");
                continue;
            }
        }
        store::tx!(node.db, "leftover-cleared", |tx| routers::forget_leftover(tx, &uuid, host).await).await?;
    }
    Ok(())
}
