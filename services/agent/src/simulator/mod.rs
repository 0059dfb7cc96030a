//! Simulated hosts: a whole data centre in one process.
//!
//! VMs, disks and routers are entries of the state file, so they outlive the agent; only the fault "host dies" clears a
//! host. External addresses (NFS servers, gateways) are never dialled. Disks lie on pools, which all hosts of the process
//! see. The leases that say whose a VM is ([`crate::lease`]) lie in the pool folder, which other agents may share: their
//! hosts are then hosts with the same storage, whatever process or machine they are simulated by.

mod cd;
mod disks;
mod driver;
mod faults;
mod guest;
mod handle;
mod images;
mod inventory;
mod keeper;
mod leases;
mod migrate;
mod nics;
mod router;
mod scale;
mod screen;
mod state;
mod tamper;

pub use handle::{RouterView, SimulatorHandle, VmView};

pub(crate) use driver::Simulator;
