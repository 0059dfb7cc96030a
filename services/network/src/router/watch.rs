//! The safety net: routers that nobody works on, hosts that went away, and what is left on hosts.

use crate::router::worker::execute;
use crate::store::{nics, routers};
use crate::world::World;
use contract::ApiError;
use contract_agent::{RemoveRouter, command::Body};
use coord::{Notice, Term};
use node::Node;
use std::sync::Arc;
use std::time::Duration;
use store::now_micros;

/// How often it looks without being asked.
const LOOK: Duration = Duration::from_secs(10);
/// A change that nobody has applied for so long has been forgotten by a replica that died.
const NEGLECTED: Duration = Duration::from_secs(5);
/// Removed interfaces are kept so long, for whoever reads them.
const KEEP_REMOVED: Duration = Duration::from_secs(120);

/// The duty: wakes workers for neglected routers, and clears leftovers.
pub async fn watch(world: Arc<World>, term: Term) {
    let mut placement = world.node.coord.subscribe("placement");
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
                    Notice::Message(what) => {
                        if let Some(host) = what.strip_prefix("host/").and_then(|id| id.parse().ok())
                            && let Err(error) = host_changed(&world, host).await
                        {
                            tracing::warn!(host, %error, "routers of a host could not be looked at");
                        }
                    }
                    Notice::Missed => break,
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
