//! `cluster.json`: where everything is.

use crate::{Probe, secrets};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Its name in the cluster's folder. It is there while everything serves.
pub const FILE: &str = "cluster.json";

/// What is in it. The first five are those of `dev.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Query API through the balancer.
    pub endpoint: String,
    /// "admin".
    pub username: String,
    /// Their password on a first install.
    pub password: String,
    /// Their API key.
    pub apikey: String,
    /// Their secret key.
    pub secretkey: String,
    /// gRPC through the balancer.
    pub grpc: String,
    /// Where agents dial.
    pub agents: String,
    /// The balancer's metrics.
    pub metrics: String,
    /// The balancer's page about itself.
    pub balancer: String,
    /// Query API of each gateway.
    pub gateways: Vec<String>,
    /// Database URL with the password.
    pub database: String,
    /// URLs of etcd's members.
    pub etcd: Vec<String>,
    /// Configuration file of all services.
    pub config: PathBuf,
    /// Whether each part has a network namespace.
    pub isolated: bool,
    /// For whoever draws accidents.
    pub seed: u64,
    /// How long the start took.
    pub start_millis: u64,
    /// The process that owns all others.
    pub supervisor: u32,
    /// All processes.
    pub parts: Vec<PartReport>,
}

/// One process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartReport {
    /// "orchestrator-1".
    pub name: String,
    /// "orchestrator".
    pub kind: String,
    /// None: it is dead at the moment.
    pub pid: Option<u32>,
    /// Where it listens.
    pub address: Option<SocketAddr>,
    /// How to find out whether it serves.
    pub probe: Probe,
    /// Its output.
    pub log: PathBuf,
}

impl Report {
    /// Reads the report of the cluster in `dir`; none when nothing serves there.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(dir: &Path) -> Result<Option<Report>> {
        let file = dir.join(FILE);
        match std::fs::read(&file) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| file.display().to_string())?)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| file.display().to_string()),
        }
    }

    /// Writes it, whole or not at all, for its owner alone.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        secrets::write_private(&dir.join(FILE), &serde_json::to_vec_pretty(self)?)
    }
}
