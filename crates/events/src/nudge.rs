//! Waking the sequencer when a transaction with facts has committed.

use coord::Coord;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::sync::watch;

/// Topic: rows without a number may exist.
pub(crate) const WRITTEN: &str = "outbox";
/// Topic: rows have been numbered.
pub(crate) const NUMBERED: &str = "outbox/numbered";

/// Other processes are nudged at most this often.
const PAUSE: Duration = Duration::from_millis(50);

/// Counts commits of this process that wrote to an outbox.
static COMMITS: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::channel(0).0);

/// After a commit with facts.
pub(crate) fn committed() {
    COMMITS.send_modify(|n| *n = n.wrapping_add(1));
}

/// Commits of this process from now on.
pub(crate) fn commits() -> watch::Receiver<u64> {
    COMMITS.subscribe()
}

/// Tells the sequencer in another process that this one has committed facts. One task a process does it.
pub async fn forward(coord: Coord) {
    let mut commits = commits();
    while commits.changed().await.is_ok() {
        coord.publish(WRITTEN, "");
        tokio::time::sleep(PAUSE).await;
    }
}
