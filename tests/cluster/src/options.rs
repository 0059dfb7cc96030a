//! What a cluster consists of.

use std::path::PathBuf;

/// What a cluster consists of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `arcus` binary: see [`arcus_binary`](crate::arcus_binary).
    pub arcus: PathBuf,
    /// Nodes of the database; 1: a single MariaDB.
    pub galera: usize,
    /// Members of etcd.
    pub etcd: usize,
    /// Replicas of each service.
    pub replicas: usize,
    /// Simulated hosts of the zone "cluster"; 0: no zone.
    pub hosts: usize,
    /// Each process in a network namespace of its own, which partitions need. Needs root.
    pub isolated: bool,
    /// Everything is kept there; what a former run left is used. Its path must be short, because sockets are in it, and
    /// each folder above it must let everybody through, because databases don't run as root.
    pub dir: PathBuf,
    /// The number that whoever runs the cluster draws its accidents from: kept in the report, for repeating a run.
    pub seed: u64,
    /// Whether a commit waits for the disk. Without, it survives killed processes, not a power cut.
    pub durable: bool,
}

impl Options {
    /// The whole: three nodes of each database, two replicas of each service, 100 hosts.
    ///
    /// # Errors
    /// When there is no `arcus` binary.
    pub fn new(dir: impl Into<PathBuf>) -> anyhow::Result<Options> {
        Ok(Options {
            arcus: crate::arcus_binary()?,
            galera: 3,
            etcd: 3,
            replicas: 2,
            hosts: 100,
            isolated: false,
            dir: dir.into(),
            seed: rand::random(),
            durable: false,
        })
    }

    /// The same with a single MariaDB and one etcd.
    ///
    /// # Errors
    /// As [`Options::new`].
    pub fn small(dir: impl Into<PathBuf>) -> anyhow::Result<Options> {
        Ok(Options { galera: 1, etcd: 1, ..Options::new(dir)? })
    }
}
