//! Simulated hosts: a whole data centre in one process.
//!
//! VMs, disks and routers are entries of the state file, so they outlive the agent; only the fault "host dies" clears a
//! host. External addresses (NFS servers, gateways) are never dialled. Disks and the leases that say whose a VM is lie on
//! pools, which all hosts of the process see.

mod disks;
mod driver;
mod faults;
mod handle;
mod router;
mod state;

pub use handle::{RouterView, SimulatorHandle, VmView};

pub(crate) use driver::Simulator;
