//! Tells operators that the database cluster has changed: the node in use failed and another is used, or the first is used
//! again (OPS-148). One replica's duty, which sees what all see: they prefer the same nodes in the same order.

use ::store::NodeInUse;
use coord::Term;
use events::{EventRecord, EventState, Record};
use node::Node;
use std::time::Duration;

/// The type of the alert's event (enums.json, AlertType 14).
const ALERT: &str = "ALERT.MANAGEMENT";
/// Between tries to tell.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows the node in use while leading.
pub async fn watch(node: Node, term: Term) {
    let mut in_use = node.db.node();
    let mut known = in_use.borrow_and_update().address.clone();
    while in_use.changed().await.is_ok() {
        let now = in_use.borrow_and_update().clone();
        // Without any node there is nowhere to write that; the next one tells.
        if now.address.is_none() || now.address == known {
            continue;
        }
        tracing::warn!(before = known, now = now.address, reason = now.reason, "another database node is in use");
        tell(&node, &term, known.as_deref(), &now).await;
        known = now.address;
    }
    // An embedded database has one node for ever.
    std::future::pending::<()>().await;
}

async fn tell(node: &Node, term: &Term, before: Option<&str>, now: &NodeInUse) {
    let text = format!(
        "Database node {} is used instead of {}: {}",
        now.address.as_deref().unwrap_or_default(),
        before.unwrap_or("none"),
        now.reason
    );
    let event =
        EventRecord::new(&rpc::cx::system_caller(), ALERT, EventState::Completed, text).about("Database", "nodes");
    loop {
        let told = ::store::tx!(node.db, "database-alert", |tx| {
            term.fence(tx).await?;
            events::record(tx, &[Record::Event(event.clone())]).await?;
            Ok::<_, contract::ApiError>(())
        })
        .await;
        match told {
            Ok(()) => return,
            Err(_) if term.is_lost() => return,
            Err(error) => tracing::warn!(%error, "the change of the database node can't be recorded yet"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
