//! Arcus as it runs in production, on one machine: etcd, a Galera cluster, replicas of each service, an agent with
//! simulated hosts, a load balancer in front.
//!
//! [`Cluster`] owns all processes. It can kill, stop, pause, restart and (with [`Options::isolated`]) cut off each of
//! them, which is what tests of failures need. The binary `arcus-cluster` (`make cluster`) keeps one running and starts
//! again what dies.
//!
//! Names of parts: `etcd-1`…, `database-1`…, `identity-1`, `identity-2`, … for each of [`SERVICES`], `agent-1`,
//! `balancer`.

mod api;
mod balancer;
mod cluster;
mod config;
mod layout;
mod measure;
mod namespaces;
mod options;
mod part;
mod probe;
mod report;
mod secrets;
mod start;
mod supervise;
mod unit;

pub use api::Api;
pub use cluster::Cluster;
pub use measure::Memory;
pub use options::Options;
pub use part::{Kind, Part};
pub use probe::Probe;
pub use report::{FILE, PartReport, Report};
pub use start::Launch;

/// The services, each of which runs with [`Options::replicas`] replicas.
pub const SERVICES: [&str; 6] = ["identity", "orchestrator", "network", "storage", "usage", "gateway"];

/// The `arcus` binary for tests: `$ARCUS_BIN`, or the one that was built beside the running test.
///
/// # Errors
/// When there is none.
pub fn arcus_binary() -> anyhow::Result<std::path::PathBuf> {
    if let Some(path) = std::env::var_os("ARCUS_BIN") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe()?;
    // target/debug/arcus-cluster or target/debug/deps/the-test
    let found = exe.ancestors().skip(1).take(2).map(|dir| dir.join("arcus")).find(|path| path.is_file());
    found.ok_or_else(|| anyhow::anyhow!("no arcus beside {}: run `cargo build --bin arcus`", exe.display()))
}
