//! What an implementation of coordination does.

use crate::{CoordError, Member, Membership, Subscription};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

#[async_trait::async_trait]
pub(crate) trait Backend: Send + Sync {
    async fn join(&self, member: Member) -> Result<Membership, CoordError>;
    /// How long a lease lasts, while this process has none.
    fn without_lease(&self) -> Option<Duration>;
    fn members(&self) -> watch::Receiver<Arc<Vec<Member>>>;
    fn publish(&self, topic: &str, payload: &str);
    fn subscribe(&self, topic: &str) -> Subscription;
    /// Waits until `candidate` leads `duty`. Cancelling the call withdraws the candidature.
    async fn campaign(&self, duty: &str, candidate: &str) -> Result<Leadership, CoordError>;
    async fn depose(&self, duty: &str) -> Result<(), CoordError>;
}

/// A won election. Dropping it resigns.
pub(crate) struct Leadership {
    lost: CancellationToken,
    _resign: DropGuard,
}

impl Leadership {
    pub fn new(lost: CancellationToken, resign: CancellationToken) -> Leadership {
        Leadership { lost, _resign: resign.drop_guard() }
    }

    /// Fires when the lease is lost or the leader was deposed.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }
}
