//! The configuration file of all services.

use crate::layout::Layout;
use anyhow::Result;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// One file serves all; what differs between replicas are flags.
#[derive(Serialize)]
struct File {
    common: Common,
    gateway: Gateway,
    agent: Agent,
}

#[derive(Serialize)]
struct Common {
    database: String,
    database_connections: u32,
    etcd: Vec<String>,
    etcd_lease_seconds: u32,
    master_key: PathBuf,
    admin_password_file: PathBuf,
    log: String,
    drain_seconds: u32,
}

#[derive(Serialize)]
struct Gateway {
    /// The balancer, which says whom it asks for.
    trusted_proxies: Vec<String>,
}

#[derive(Serialize)]
struct Agent {
    endpoints: Vec<SocketAddr>,
    token_file: PathBuf,
    state_dir: PathBuf,
    pool_dir: PathBuf,
    hypervisor: &'static str,
}

/// The text of the file.
pub(crate) fn text(dir: &Path, layout: &Layout, database: &str, etcd: &[String]) -> Result<String> {
    let file = File {
        common: Common {
            database: database.to_owned(),
            database_connections: 16,
            etcd: etcd.to_vec(),
            etcd_lease_seconds: 3,
            master_key: dir.join("master.key"),
            admin_password_file: dir.join(crate::start::ADMIN_PASSWORD),
            log: "info".to_owned(),
            drain_seconds: 2,
        },
        gateway: Gateway { trusted_proxies: vec![format!("{}/32", layout.front.api.ip())] },
        agent: Agent {
            endpoints: vec![layout.front.agents],
            token_file: dir.join(crate::start::AGENT_TOKEN),
            state_dir: dir.join("agent"),
            pool_dir: dir.join("pools"),
            hypervisor: "simulator",
        },
    };
    Ok(toml::to_string(&file)?)
}
