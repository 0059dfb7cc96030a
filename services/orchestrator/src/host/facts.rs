//! What a host says of itself when it connects: after an upgrade or a change of its hardware it isn't what it was.

use crate::store::hosts as rows;
use crate::world::World;
use contract::ApiError;
use contract_agent::HostFacts;
use hub::HostEvent;
use tokio::sync::broadcast::error::RecvError;

/// Follows the connections of this replica until the node stops.
pub fn start(world: &World) {
    let world = world.clone();
    world.node.clone().spawn("host-facts", async move {
        let mut news = world.hub.subscribe();
        loop {
            match news.recv().await {
                Ok(HostEvent::Up { host, facts }) => {
                    if let Err(error) = note(&world, host.0, &facts).await {
                        tracing::warn!(host = host.0, %error, "what a host says of itself can't be kept");
                    }
                }
                // What was missed is said again at the next connection.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
}

/// Keeps what differs. A host that is still being added is left to its addition.
async fn note(world: &World, id: i64, facts: &HostFacts) -> Result<(), ApiError> {
    let db = &world.node.db;
    let Some(host) = rows::find(db, id).await?.filter(|h| h.removed.is_none()) else { return Ok(()) };
    let Some(version) = &host.version else { return Ok(()) };
    let same = *version == facts.agent_version
        && host.hypervisor_version.as_deref().unwrap_or_default() == facts.hypervisor_version
        && host.cpu_cores == i64::from(facts.cpus)
        && host.cpu_mhz == i64::from(facts.cpu_mhz)
        && u64::try_from(host.memory).is_ok_and(|m| m == facts.memory_bytes.saturating_sub(facts.dom0_memory_bytes));
    if same {
        return Ok(());
    }
    ::store::tx!(db, "host-facts", |tx| rows::adopt(tx, id, facts).await).await?;
    world.host_changed(id);
    Ok(())
}
