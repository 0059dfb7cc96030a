//! The file that a replica in production is started with, and what overrides it: first flags, then the environment.

use crate::kvm_settings::KvmTable;
use crate::limits::{self, LimitsTable};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The whole file. One may serve all replicas of an installation: each reads `[common]` and its own table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What all processes share.
    pub common: Common,
    /// The gateway.
    pub gateway: Table,
    /// Identity.
    pub identity: Table,
    /// The orchestrator.
    pub orchestrator: Table,
    /// Network.
    pub network: Table,
    /// Storage.
    pub storage: Table,
    /// Usage.
    pub usage: Table,
    /// Agents.
    pub agent: AgentTable,
}

/// `[common]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Common {
    /// `mysql://user:password@host:port,host:port/name`: the first well node of those is used.
    pub database: Option<String>,
    /// File that holds that URL, to keep the password out of this file.
    pub database_file: Option<PathBuf>,
    /// Most connections of a process with the database.
    pub database_connections: u32,
    /// etcd's URLs.
    pub etcd: Vec<String>,
    /// What the keys in etcd begin with: installations that share an etcd differ in it.
    pub etcd_prefix: String,
    /// How long a replica may be silent before the others take over.
    pub etcd_lease_seconds: u64,
    /// The master key of secrets at rest; made on a first start.
    pub master_key: PathBuf,
    /// File with the password of the user admin on a first install.
    pub admin_password_file: Option<PathBuf>,
    /// What is logged.
    pub log: String,
    /// Log lines as JSON.
    pub log_json: bool,
    /// OTLP collector (gRPC URL).
    pub otlp: Option<String>,
    /// How long a replica that is to end goes on serving while it says that it isn't ready.
    pub drain_seconds: f64,
    /// How long requests and steps under way may then take to end.
    pub stop_seconds: u64,
}

impl Default for Common {
    fn default() -> Self {
        Common {
            database: None,
            database_file: None,
            database_connections: 16,
            etcd: Vec::new(),
            etcd_prefix: "/arcus".into(),
            etcd_lease_seconds: 5,
            master_key: "/etc/arcus/master.key".into(),
            admin_password_file: None,
            log: "info".into(),
            log_json: false,
            otlp: None,
            drain_seconds: 2.0,
            stop_seconds: 25,
        }
    }
}

/// A service's table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Table {
    /// gRPC with mTLS; at the gateway: the query API. Port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// Only the gateway: the gRPC port of clients.
    pub grpc: Option<SocketAddr>,
    /// Only the orchestrator: the port that agents dial.
    pub agents: Option<SocketAddr>,
    /// Only the orchestrator: the number of this installation's region, from 1. Set on the first start, it can't be changed; none: 1.
    pub region: Option<i64>,
    /// `/metrics`, `/healthz`, `/readyz`.
    pub metrics: Option<SocketAddr>,
    /// `host:port` that the other services dial; none: the address listened on.
    pub advertise: Option<String>,
    /// Only the gateway: certificate chain and key (PEM files) of the query API and the gRPC port.
    pub tls_certificate: Option<PathBuf>,
    /// See `tls_certificate`.
    pub tls_key: Option<PathBuf>,
    /// Only the gateway: proxies that say for whom they ask (`X-Forwarded-For`).
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Only the gateway: the folder of noVNC, for the consoles of VMs; none: where Debian's package puts it.
    pub console_assets: Option<PathBuf>,
    /// Only the gateway: what it refuses.
    pub limits: Option<LimitsTable>,
}

/// `[agent]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentTable {
    /// Addresses of the orchestrator's port for agents, `host:port`.
    pub endpoints: Vec<String>,
    /// File with the enrolment token.
    pub token_file: Option<PathBuf>,
    /// Holds the agent's state, key and certificate.
    pub state_dir: PathBuf,
    /// Pools that simulated hosts share, also with other agents.
    pub pool_dir: Option<PathBuf>,
    /// The lease time of pools that have none yet: how long a host may not reach its VMs' leases before it pauses them.
    pub lease_millis: u64,
    /// How often simulated guests write to their disks; 0: they don't.
    pub guest_writes_millis: u64,
    /// What it drives.
    pub hypervisor: String,
    /// For people.
    pub name: Option<String>,
    /// What a KVM host is set to.
    pub kvm: KvmTable,
}

impl Default for AgentTable {
    fn default() -> Self {
        AgentTable {
            endpoints: Vec::new(),
            token_file: None,
            state_dir: "/var/lib/arcus/agent".into(),
            pool_dir: None,
            lease_millis: 10_000,
            guest_writes_millis: 0,
            hypervisor: "simulator".into(),
            name: None,
            kvm: KvmTable::default(),
        }
    }
}

/// Flags that all processes in production have.
#[derive(Args, Clone, Debug, Default)]
pub struct CommonArgs {
    /// The TOML file (docs/guides/configuration.md).
    #[arg(long, env = "ARCUS_CONFIG")]
    pub config: Option<PathBuf>,
    /// Database URL.
    #[arg(long, env = "ARCUS_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// etcd's URLs.
    #[arg(long, env = "ARCUS_ETCD", value_delimiter = ',')]
    etcd: Vec<String>,
    /// File of the master key.
    #[arg(long, env = "ARCUS_MASTER_KEY")]
    master_key: Option<PathBuf>,
    /// What is logged, "info,arcus_network=debug".
    #[arg(long, env = "ARCUS_LOG")]
    log: Option<String>,
    /// Log lines as JSON.
    #[arg(long, env = "ARCUS_LOG_JSON")]
    log_json: bool,
    /// OTLP collector (gRPC URL).
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp: Option<String>,
    /// Writes the process id there.
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
}

/// Flags of a service.
#[derive(Args, Clone, Debug, Default)]
pub struct ServiceArgs {
    /// Those of all processes.
    #[command(flatten)]
    pub common: CommonArgs,
    /// gRPC with mTLS; at the gateway: the query API.
    #[arg(long, env = "ARCUS_LISTEN")]
    listen: Option<SocketAddr>,
    /// The gateway's gRPC port.
    #[arg(long, env = "ARCUS_GRPC_LISTEN")]
    grpc_listen: Option<SocketAddr>,
    /// The orchestrator's port for agents.
    #[arg(long, env = "ARCUS_AGENTS_LISTEN")]
    agents_listen: Option<SocketAddr>,
    /// The orchestrator's: the number of this installation's region, on a first start.
    #[arg(short, long, env = "ARCUS_REGION")]
    region: Option<i64>,
    /// Metrics and health.
    #[arg(long, env = "ARCUS_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// What the other services dial.
    #[arg(long, env = "ARCUS_ADVERTISE")]
    advertise: Option<String>,
    /// File with the password of the user admin on a first install.
    #[arg(long, env = "ARCUS_ADMIN_PASSWORD_FILE")]
    admin_password_file: Option<PathBuf>,
}

impl CommonArgs {
    /// The file with the flags' changes.
    ///
    /// # Errors
    /// When the file can't be read or says something unknown.
    pub fn settings(&self) -> Result<Settings> {
        let mut settings = match &self.config {
            None => Settings::default(),
            Some(path) => read(path)?,
        };
        let common = &mut settings.common;
        if let Some(file) = &common.database_file {
            ensure!(common.database.is_none(), "database and database_file are both set");
            let text = std::fs::read_to_string(file).with_context(|| format!("database_file {}", file.display()))?;
            common.database = Some(text.trim().to_owned());
        }
        replace(&mut common.database, &self.database);
        if !self.etcd.is_empty() {
            common.etcd.clone_from(&self.etcd);
        }
        if let Some(path) = &self.master_key {
            common.master_key.clone_from(path);
        }
        if let Some(log) = &self.log {
            common.log.clone_from(log);
        }
        common.log_json |= self.log_json;
        replace(&mut common.otlp, &self.otlp);
        Ok(settings)
    }
}

impl ServiceArgs {
    /// The common part and the table of `service`, with the flags' changes.
    ///
    /// # Errors
    /// As [`CommonArgs::settings`].
    pub fn settings(&self, service: &str) -> Result<(Common, Table)> {
        let settings = self.common.settings()?;
        settings.check()?;
        let mut table = match service {
            "gateway" => settings.gateway,
            "identity" => settings.identity,
            "orchestrator" => settings.orchestrator,
            "network" => settings.network,
            "storage" => settings.storage,
            _ => settings.usage,
        };
        let mut common = settings.common;
        replace(&mut table.listen, &self.listen);
        replace(&mut table.grpc, &self.grpc_listen);
        replace(&mut table.agents, &self.agents_listen);
        replace(&mut table.region, &self.region);
        replace(&mut table.metrics, &self.metrics_listen);
        replace(&mut table.advertise, &self.advertise);
        replace(&mut common.admin_password_file, &self.admin_password_file);
        Ok((common, table))
    }
}

impl Settings {
    /// Whether what is set can be, as far as one key tells it.
    fn check(&self) -> Result<()> {
        let others = [&self.identity, &self.orchestrator, &self.network, &self.storage, &self.usage];
        for (name, table) in ["identity", "orchestrator", "network", "storage", "usage"].into_iter().zip(others) {
            ensure!(table.limits.is_none(), "[{name}.limits]: only the gateway has limits");
        }
        self.gateway.limits.clone().unwrap_or_default().limits().map(drop)
    }
}

impl Table {
    /// What the gateway refuses, in this process.
    ///
    /// # Errors
    /// The key whose value can't be.
    pub fn limits(&self) -> Result<gateway::Limits> {
        let mut limits = self.limits.clone().unwrap_or_default().limits_within(limits::open_files())?;
        limits.trusted_proxies.clone_from(&self.trusted_proxies);
        Ok(limits)
    }
}

impl Common {
    /// The database's URL.
    ///
    /// # Errors
    /// When none is set.
    pub fn database(&self) -> Result<&str> {
        self.database
            .as_deref()
            .context("no database: set database or database_file under [common], --database or ARCUS_DATABASE")
    }

    /// How long to go on serving after the signal.
    pub fn drain(&self) -> Duration {
        Duration::try_from_secs_f64(self.drain_seconds).unwrap_or_default()
    }
}

fn read(path: &Path) -> Result<Settings> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    // The error shows the line it is about: with a password in it, that line mustn't reach a log.
    toml::from_str(&text).map_err(|e| {
        let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        anyhow::anyhow!("{} line {line}: {}", path.display(), e.message())
    })
}

fn replace<T: Clone>(value: &mut Option<T>, by: &Option<T>) {
    if by.is_some() {
        value.clone_from(by);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that can't go on has failed
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("arcus.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn a_region_is_named_by_its_number() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: ServiceArgs,
        }
        let line = <Line as clap::Parser>::parse_from(["arcus", "-r", "5"]);
        assert_eq!(line.args.settings("orchestrator").unwrap().1.region, Some(5));
        assert_eq!(ServiceArgs::default().settings("orchestrator").unwrap().1.region, None);
    }

    #[test]
    fn flags_win_over_the_file() {
        let (_dir, path) = file(
            "[common]\ndatabase = \"mysql://a@b/c\"\netcd = [\"http://one:2379\"]\n[network]\nlisten = \"127.0.0.1:7000\"\n",
        );
        let mut args = ServiceArgs::default();
        args.common.config = Some(path);
        let (common, table) = args.settings("network").unwrap();
        assert_eq!((common.database().unwrap(), table.listen), ("mysql://a@b/c", "127.0.0.1:7000".parse().ok()));
        args.listen = "127.0.0.1:7001".parse().ok();
        args.common.etcd = vec!["http://two:2379".into()];
        let (common, table) = args.settings("network").unwrap();
        assert_eq!((common.etcd, table.listen), (vec!["http://two:2379".to_owned()], "127.0.0.1:7001".parse().ok()));
        assert_eq!(args.settings("storage").unwrap().1.listen, "127.0.0.1:7001".parse().ok());
    }

    #[test]
    fn what_is_wrong_in_the_file_is_told_without_its_secrets() {
        let (_dir, path) = file("[common]\ndatabase = \"mysql://a:topsecret@b/c\" oops\n");
        let args = CommonArgs { config: Some(path), ..CommonArgs::default() };
        let error = format!("{:#}", args.settings().unwrap_err());
        assert!(error.contains("line 2") && !error.contains("topsecret"), "{error}");
        let (_dir, path) = file("[common]\ndatabse = \"x\"\n");
        let args = CommonArgs { config: Some(path), ..CommonArgs::default() };
        assert!(format!("{:#}", args.settings().unwrap_err()).contains("databse"));
        assert!(Common::default().database().is_err());
    }

    #[test]
    fn limits_are_the_gateways_and_checked_at_every_start() {
        let settings = |text: &str, service: &str| {
            let (_dir, path) = file(text);
            let mut args = ServiceArgs::default();
            args.common.config = Some(path);
            args.settings(service)
        };
        let text = "[gateway]\ntrusted_proxies = [\"10.0.0.0/8\"]\n[gateway.limits]\nat_work = 5\nwait_seconds = 2.5\n";
        let limits = settings(text, "gateway").unwrap().1.limits().unwrap();
        assert_eq!((limits.queues.at_work, limits.queues.patience.longest), (5, Duration::from_millis(2500)));
        assert_eq!(limits.trusted_proxies.len(), 1);
        // The file is the same for all: whichever process reads it first tells what is wrong with it.
        for service in ["gateway", "storage"] {
            let told = |text: &str| format!("{:#}", settings(text, service).unwrap_err());
            assert!(told("[gateway.limits]\nat_work = 0\n").contains("[gateway.limits] at_work = 0"));
            assert!(told("[gateway.limits]\nat_wrok = 1\n").contains("at_wrok"));
            assert!(told("[gateway.limits]\n\nat_work = \"many\"\n").contains("line 3"));
            assert!(told("[usage.limits]\nat_work = 1\n").contains("[usage.limits]: only the gateway"));
        }
    }
}
