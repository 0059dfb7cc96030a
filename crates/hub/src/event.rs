//! What happens to hosts.

use contract_agent::{HostFacts, RouterApplied, VmState};
use model::HostId;
use std::sync::Arc;

/// News of a host. Hints: they are heard only at the replica that noticed, and may be lost; the database decides.
#[derive(Clone, Debug)]
pub enum HostEvent {
    /// It connected.
    Up {
        /// The host.
        host: HostId,
        /// What it says of itself.
        facts: HostFacts,
    },
    /// Its line is gone; it may be back in a moment.
    Lost {
        /// The host.
        host: HostId,
        /// Why, for people.
        reason: String,
    },
    /// An agent stayed outside: it and this control plane are too far apart to understand each other.
    Misfit {
        /// The UUIDs of the hosts that it stands for.
        hosts: Vec<String>,
        /// Whether they are simulated.
        simulated: bool,
        /// The agent's version.
        version: String,
        /// Why, for people.
        reason: String,
    },
    /// It is known to be off.
    Down {
        /// The host.
        host: HostId,
        /// Why, for people.
        reason: String,
    },
    /// A VM changed its power state by itself.
    Vm {
        /// The host.
        host: HostId,
        /// The VM as the host sees it.
        state: VmState,
    },
    /// All that the host runs.
    Report {
        /// The host.
        host: HostId,
        /// Its VMs.
        vms: Arc<Vec<VmState>>,
        /// Its routers.
        routers: Arc<Vec<RouterApplied>>,
    },
}
