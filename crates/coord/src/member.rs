//! Replicas as others see them.

use serde::{Deserialize, Serialize};
use tokio_util::sync::{CancellationToken, DropGuard};

/// One running replica of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Unique per incarnation: a restart is another member.
    pub id: String,
    /// Its service, "network".
    pub service: String,
    /// Version of the program.
    pub version: String,
    /// Where its gRPC port is, for other processes.
    pub address: Option<String>,
    /// Kinds of jobs that it can run, `kind@version`.
    pub kinds: Vec<String>,
    /// Hash of the commands that it offers.
    pub commands_hash: String,
}

/// A membership under way; dropping it leaves.
#[derive(Debug)]
pub struct Membership {
    id: String,
    lost: CancellationToken,
    _leave: DropGuard,
}

impl Membership {
    /// `lost` fires when the lease is lost; `leave` is fired by dropping the membership.
    pub(crate) fn new(id: String, lost: CancellationToken, leave: CancellationToken) -> Membership {
        Membership { id, lost, _leave: leave.drop_guard() }
    }

    /// The member's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits until the lease is lost: others may take this replica for dead from then on.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}
