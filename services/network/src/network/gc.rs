//! The duty that shuts down networks in which nothing has run for a while.

use crate::network::shutdown::shut_down;
use crate::store::networks;
use crate::world::World;
use config::keys;
use contract::ApiError;
use coord::Term;
use events::{EventRecord, EventState, Record};
use std::sync::Arc;
use std::time::Duration;
use store::now_micros;
use tokio::time::Instant;

/// How often the interval is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Looks every `network.gc.interval` for networks that were idle for `network.gc.wait`.
pub async fn collect(world: Arc<World>, term: Term) {
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = term.lost() => return,
            // The setting may change while it waits.
            () = tokio::time::sleep(TICK) => {}
        }
        let interval = u64::try_from(world.node.settings.get(keys::NETWORK_GC_INTERVAL)).unwrap_or(600).max(1);
        if last.elapsed() < Duration::from_secs(interval) {
            continue;
        }
        last = Instant::now();
        let wait = world.node.settings.get(keys::NETWORK_GC_WAIT).max(0);
        if let Err(error) = sweep(&world, &term, now_micros() - wait.saturating_mul(1_000_000)).await {
            tracing::warn!(%error, "idle networks could not be looked for");
        }
    }
}

/// Shuts down what has been idle since `before`.
///
/// # Errors
/// Those of the database.
pub async fn sweep(world: &World, term: &Term, before: i64) -> Result<usize, ApiError> {
    let mut down = 0;
    for id in networks::idle(&world.node.db, before).await? {
        let Some(network) = networks::one(&world.node.db, id).await? else { continue };
        let shut = store::tx!(world.node.db, "network-gc", |tx| {
            term.fence(tx).await?;
            // A job at work on the network will be done with it later.
            jobs::free(tx, &[jobs::Claim::Exclusive(format!("network/{id}"))]).await?;
            if !shut_down(tx, id, network.specified_vlan).await? {
                return Err(ApiError::concurrent("the network is in use again".to_owned()));
            }
            let text = format!("Network {} was idle and has been shut down", network.title());
            let event = EventRecord::new(&rpc::cx::system_caller(), "ROUTER.DESTROY", EventState::Completed, text);
            events::record(tx, &[Record::Event(event.about("Network", &network.uuid).owned_by(&network.owner))])
                .await?;
            Ok(())
        })
        .await;
        world.changed(id);
        match shut {
            Ok(()) => down += 1,
            Err(error) if error.is_transient() => tracing::debug!(network = network.uuid, %error, "not idle"),
            Err(error) => return Err(error),
        }
    }
    if down > 0 {
        crate::router::clear_leftovers(&world.node).await?;
    }
    Ok(down)
}
