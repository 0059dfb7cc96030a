//! What the jobs of VMs work with.

use super::name_cache::NameCache;
use crate::placement::Index;
use contract::ApiError;
use contract_agent::{Command, Outcome, command};
use contract_identity::limits_client::LimitsClient;
use contract_network::attachments_client::AttachmentsClient;
use contract_storage::disks_client::DisksClient;
use hub::Hub;
use jobs::{Jobs, StepKey};
use model::HostId;
use node::Node;
use rpc::PeerChannel;
use std::time::Duration;

/// Longest that a host may take to start or stop a VM.
pub const HOST_DEADLINE: Duration = Duration::from_secs(90);

/// Handles that the jobs of VMs use.
#[derive(Clone)]
pub struct VmWorld {
    /// The service's surroundings.
    pub node: Node,
    /// Accepts jobs.
    pub jobs: Jobs,
    /// Connections with hosts.
    pub hub: Hub,
    /// Hosts in memory.
    pub index: Index,
    /// Names for answers.
    pub names: NameCache,
}

impl VmWorld {
    /// NICs of VMs.
    pub fn attachments(&self) -> AttachmentsClient<PeerChannel> {
        AttachmentsClient::new(self.node.peers.network())
    }

    /// Disks of VMs.
    pub fn disks(&self) -> DisksClient<PeerChannel> {
        DisksClient::new(self.node.peers.storage())
    }

    /// Resource limits.
    pub fn limits(&self) -> LimitsClient<PeerChannel> {
        LimitsClient::new(self.node.peers.identity())
    }

    /// Lets a host do `body`.
    pub async fn on_host(
        &self,
        host: i64,
        key: Option<&StepKey>,
        undo: bool,
        body: command::Body,
    ) -> Result<Outcome, ApiError> {
        self.hub.execute(HostId(host), key, undo, Command { body: Some(body) }, HOST_DEADLINE).await
    }
}
