//! Keeps the index up to date: topic "placement" names hosts that changed; a slow re-read is the safety net.

use super::Index;
use coord::Notice;
use node::Node;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often everything is read anew.
const SAFETY_NET: Duration = Duration::from_secs(30);

/// Runs until the node stops.
pub async fn follow(node: Node, index: Index) {
    let mut news = node.coord.subscribe("placement");
    let mut all = true;
    loop {
        if all && let Err(e) = index.load(&node.db).await {
            tracing::warn!(error = %e, "the hosts could not be read; placement goes on with what it knows");
        }
        let notice = tokio::time::timeout(SAFETY_NET, news.next()).await;
        all = match notice {
            Err(_) | Ok(Notice::Missed) => true,
            Ok(Notice::Message(text)) => {
                let hosts: BTreeSet<i64> =
                    text.strip_prefix("host/").and_then(|n| n.parse().ok()).into_iter().collect();
                let hosts: Vec<i64> = hosts.into_iter().collect();
                if hosts.is_empty() { text == "all" } else { index.refresh(&node.db, &hosts).await.is_err() }
            }
        };
    }
}
