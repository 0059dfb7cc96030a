//! Hosts whose addition was cut off: a replica died between the row and the moment when it takes VMs.

use super::add::discard;
use crate::store::hosts;
use crate::world::World;
use ::store::now_micros;
use contract::ApiError;
use coord::Term;
use std::time::Duration;

/// How long an addition may take before it counts as cut off.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between looks.
const PAUSE: Duration = Duration::from_secs(60);

/// Removes what cut-off additions left, for as long as this replica leads.
pub fn start(world: &World) {
    let world = world.clone();
    world.node.clone().duty("half-made-hosts", move |term| {
        let world = world.clone();
        async move {
            loop {
                if let Err(error) = once(&world, &term, PATIENCE).await {
                    tracing::warn!(%error, "hosts whose addition was cut off can't be looked for");
                }
                tokio::select! {
                    () = term.lost() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    });
}

/// Removes hosts that were begun longer than `patience` ago and never let take VMs.
async fn once(world: &World, term: &Term, patience: Duration) -> Result<(), ApiError> {
    let db = &world.node.db;
    let before = now_micros() - i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
    for (id, uuid) in hosts::half_made(db, before).await? {
        tracing::warn!(host = uuid, "removing a host whose addition was cut off");
        ::store::tx!(db, "sweep-host", |tx| {
            term.fence(tx).await?;
            discard(tx, id, &uuid).await
        })
        .await?;
        world.host_changed(id);
    }
    Ok(())
}
