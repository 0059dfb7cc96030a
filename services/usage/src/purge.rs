//! Deletes events that are older than the installation wants to keep.

use crate::store;
use ::store::now_micros;
use config::keys;
use coord::Term;
use node::Node;
use std::time::Duration;

const DAY_MICROS: i64 = 86_400_000_000;

/// Purges every `event.purge.interval` seconds what is older than `event.purge.delay` days; 0 days: never.
pub(crate) async fn run(node: Node, term: Term) {
    let mut changes = node.settings.changes();
    loop {
        let days = node.settings.get(keys::EVENT_PURGE_DELAY);
        if days > 0 {
            purge(&node, &term, days).await;
        }
        let pause = u64::try_from(node.settings.get(keys::EVENT_PURGE_INTERVAL)).unwrap_or(0).max(1);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(pause)) => {}
            _ = changes.changed() => {} // the delay may have been lowered
        }
    }
}

async fn purge(node: &Node, term: &Term, days: i64) {
    let before = now_micros().saturating_sub(days.saturating_mul(DAY_MICROS));
    loop {
        match store::events::purge(&node.db, term, before).await {
            Ok(0) => return,
            Ok(purged) => tracing::info!(purged, "old events purged"),
            Err(error) => {
                tracing::warn!(%error, "events can't be purged now");
                return;
            }
        }
    }
}
