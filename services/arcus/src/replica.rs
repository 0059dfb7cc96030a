//! One replica of one service as a process of its own: the form of production.
//!
//! Start: surroundings (database, etcd, CA), ports, the service, membership, readiness. End, on SIGTERM: not ready and
//! leaving, but serving for the drain time; then the ports close, requests under way are answered, jobs are put down for
//! others to take up, duties are handed over; membership ends last, because a replica that isn't a member is taken for
//! dead. Whoever must not wait for all that sends a second signal, or SIGKILL: nothing is lost then either.

use crate::metrics_port::{self, Readiness};
use crate::schema;
use crate::settings::{Common, ServiceArgs, Table};
use crate::signals::Signals;
use anyhow::{Context, Result, bail, ensure};
use contract::secret::Secret;
use coord::{Coord, EtcdConfig, Member};
use hub::HubOptions;
use identity::IdentityOptions;
use node::{Node, replica_id};
use pki::{ClientAuth, ClientTls, Credentials, Pki, San, ServerTls, TlsIncoming};
use rpc::Peers;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::{Db, DbConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use vault::Vault;

/// A free port of loopback: what a service listens on when nothing else is said.
const FREE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// How long the others may take to see that a member has left.
const FAREWELL: Duration = Duration::from_secs(1);

/// What can be run as a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The query API, and the same over gRPC.
    Gateway,
    /// Who is who and may do what.
    Identity,
    /// Infrastructure, VMs, and the agents' connections.
    Orchestrator,
    /// Networks.
    Network,
    /// Volumes and templates.
    Storage,
    /// Usage, events, alerts.
    Usage,
}

impl Service {
    /// Its name in certificates, membership and `option (owner)`.
    pub fn name(self) -> &'static str {
        match self {
            Service::Gateway => "gateway",
            Service::Identity => "identity",
            Service::Orchestrator => "orchestrator",
            Service::Network => "network",
            Service::Storage => "storage",
            Service::Usage => "usage",
        }
    }
}

/// What every process of an installation shares.
pub struct Installation {
    /// The database, with all tables.
    pub db: Db,
    /// etcd.
    pub coord: Coord,
    /// Secrets at rest.
    pub vault: Vault,
    /// The built-in CA.
    pub pki: Arc<Pki>,
}

impl Installation {
    /// Connects, and makes the tables and the CA that are missing.
    ///
    /// # Errors
    /// What can't be reached or read, by the name of its setting.
    pub async fn open(common: &Common) -> Result<Installation> {
        prepare(common)?;
        let vault = Vault::open(&common.master_key).context("master_key")?;
        let mut config = DbConfig::new(common.database()?);
        config.connections = common.database_connections;
        let db = Db::connect(&config).await.context("database")?;
        db.migrate(&schema::migrations()).await.context("the schema")?;
        Installation::around(common, db, vault).await
    }

    /// Connects only to look: makes nothing, and the database refuses to write. Needs no other rights there than to read.
    ///
    /// # Errors
    /// As [`Installation::open`], and when the tables aren't those of this version.
    pub async fn look(common: &Common) -> Result<Installation> {
        prepare(common)?;
        let key = &common.master_key;
        // Opening it would make one.
        ensure!(key.exists(), "master_key {} doesn't exist", key.display());
        let vault = Vault::open(key).context("master_key")?;
        let db = schema::look(common.database()?, common.database_connections).await?;
        Installation::around(common, db, vault).await
    }

    async fn around(common: &Common, db: Db, vault: Vault) -> Result<Installation> {
        let mut config = EtcdConfig::new(common.etcd.iter().cloned());
        config.prefix.clone_from(&common.etcd_prefix);
        config.lease = Duration::from_secs(common.etcd_lease_seconds.max(1));
        let coord = Coord::etcd(config).await.context("etcd")?;
        let pki = Pki::open(&db, &vault, &coord).await.context("the built-in CA (is master_key the right one?)")?;
        Ok(Installation { db, coord, vault, pki })
    }

    /// A node that nobody calls, for tools.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn visitor(&self) -> Result<Node> {
        let credentials = self.credentials("gateway", &[]).await?;
        let (peers, _) = self.peers(&credentials);
        Ok(Node::new(self.db.clone(), self.coord.clone(), peers, self.vault.clone(), replica_id("tool")).await?)
    }

    /// Channels to the living replicas of all services, for tools that write nothing; they are followed until `stop`
    /// fires.
    ///
    /// # Errors
    /// When there is no certificate to be had.
    pub fn channels(&self, stop: CancellationToken) -> Result<Peers> {
        let identity = self.pki.passing_identity("gateway").context("a certificate for this tool")?;
        let (peers, follow) = self.peers(&Credentials::new(identity));
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow => {}
            }
        });
        Ok(peers)
    }

    async fn credentials(&self, service: &str, sans: &[San]) -> Result<Credentials> {
        let identity = self.pki.service_identity(service, sans).await.context("a certificate for this replica")?;
        Ok(Credentials::new(identity))
    }

    fn peers(&self, credentials: &Credentials) -> (Peers, futures::future::BoxFuture<'static, ()>) {
        Peers::discovered(&self.coord, |service| {
            let (pki, credentials) = (self.pki.clone(), credentials.clone());
            Arc::new(move |address| {
                pki::channel(address, ClientTls::between_services(&pki, service, credentials.clone()))
            })
        })
    }
}

/// What comes before the first connection: TLS, and settings without which nothing should be begun.
fn prepare(common: &Common) -> Result<()> {
    ensure!(!common.etcd.is_empty(), "no etcd: set etcd under [common], --etcd or ARCUS_ETCD");
    pki::install_default();
    Ok(())
}

/// Runs a replica until SIGINT or SIGTERM.
///
/// # Errors
/// What couldn't be started.
pub async fn run(service: Service, args: ServiceArgs) -> Result<()> {
    let (common, table) = args.settings(service.name())?;
    let _telemetry = telemetry::init(&telemetry::Options {
        service: format!("arcus-{}", service.name()),
        format: if common.log_json { telemetry::LogFormat::Json } else { telemetry::LogFormat::Text },
        filter: Some(common.log.clone()),
        otlp: common.otlp.clone(),
    })?;
    let mut signals = Signals::new()?;
    let pid_file = PidFile::write(args.common.pid_file.as_deref())?;
    let starting = Replica::start(service, &common, &table);
    let replica = tokio::select! {
        started = starting => started?,
        () = signals.next() => return Ok(()),
    };
    signals.next().await;
    tracing::info!("stopping");
    tokio::select! {
        () = replica.end() => tracing::info!("stopped"),
        () = signals.next() => tracing::warn!("stopped in haste"),
    }
    drop(pid_file);
    Ok(())
}

struct Replica {
    node: Node,
    ready: Readiness,
    /// What clients are connected with, when this is a gateway.
    gateway: Option<gateway::Serving>,
    drain: Duration,
    patience: Duration,
    /// Ends membership, and what must work as long as it lasts.
    leave: CancellationToken,
}

impl Replica {
    async fn start(service: Service, common: &Common, table: &Table) -> Result<Replica> {
        let (name, ready, leave) = (service.name(), Readiness::default(), CancellationToken::new());
        let metrics = match table.metrics {
            Some(address) => Some(bind(address, "metrics").await?),
            None => None,
        };
        // The gateway's port is the gateway's; the others' is bound before anything is started on the cluster.
        let listener = match service {
            Service::Gateway => None,
            _ => Some(bind(table.listen.unwrap_or(FREE), name).await?),
        };
        let address = match &listener {
            None => None,
            Some(listener) => Some(advertised(table, listener.local_addr()?)?),
        };
        let installation = Installation::open(common).await?;
        let sans = sans(address.as_deref());
        let credentials = installation.credentials(name, &sans).await?;
        let (peers, follow_peers) = installation.peers(&credentials);
        let Installation { db, coord, vault, pki } = installation;
        let node = Node::new(db, coord, peers, vault, replica_id(name)).await.context("the settings")?;
        let ending = leave.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = follow_peers => {}
            }
        });
        node.spawn("certificate", pki.clone().keep(name.into(), sans, credentials.clone(), node.stop.clone()));
        if let Some(listener) = metrics {
            metrics_port::serve(listener, ready.health(), leave.clone());
        }
        let (routes, gateway) = start_service(service, &node, &pki, &credentials, (common, table), &ready).await?;
        if let (Some(listener), Some(routes)) = (listener, routes) {
            let tls = ServerTls::new(pki, credentials, ClientAuth::Required);
            serve(&node, name, TlsIncoming::new(listener, tls), routes);
        }
        let member = Member {
            id: node.replica.clone(),
            service: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: address.clone(),
            ..Member::default()
        };
        let (coord, ending) = (node.coord.clone(), leave.clone());
        tokio::spawn(async move { coord.stay(member, ending).await });
        is_member(&node, true, Duration::from_secs(common.etcd_lease_seconds)).await;
        ready.set(true);
        tracing::info!(replica = node.replica, address, "serving");
        let patience = Duration::from_secs(common.stop_seconds);
        Ok(Replica { node, ready, gateway, drain: common.drain(), patience, leave })
    }

    async fn end(self) {
        self.ready.set(false);
        if let Some(gateway) = &self.gateway {
            gateway.drain();
        }
        self.node.coord.publish(rpc::LEAVING, &self.node.replica);
        tokio::time::sleep(self.drain).await;
        self.node.shut_down(self.patience).await;
        self.leave.cancel();
        is_member(&self.node, false, FAREWELL).await;
        self.node.db.close().await;
    }
}

/// Waits until the members show this replica, or don't; for at most `patience`.
async fn is_member(node: &Node, wanted: bool, patience: Duration) {
    let mut members = node.coord.members();
    let seen = members.wait_for(|all| all.iter().any(|m| m.id == node.replica) == wanted);
    if tokio::time::timeout(patience, seen).await.is_err() {
        tracing::warn!(wanted, "membership isn't as it should be; etcd may be away");
    }
}

/// Starts the service; gives what it serves to the other services, or what the gateway serves.
async fn start_service(
    service: Service,
    node: &Node,
    pki: &Arc<Pki>,
    credentials: &Credentials,
    (common, table): (&Common, &Table),
    ready: &Readiness,
) -> Result<(Option<Routes>, Option<gateway::Serving>)> {
    if service != Service::Orchestrator {
        // The hub follows by itself.
        node.spawn("revocations", pki.clone().follow(node.stop.clone()));
    }
    let node = node.clone();
    let routes = match service {
        Service::Gateway => {
            let address = table.listen.context("[gateway] listen isn't set")?;
            let serving = gateway::start(node, gateway_options(address, table)?).await.context("gateway")?;
            return Ok((None, Some(serving)));
        }
        Service::Identity => {
            let admin_password = admin_password(common.admin_password_file.as_deref())?;
            let options = IdentityOptions { admin_password, ensure_admin_keys: false, patience: identity::PATIENCE };
            identity::start(node, options).await.context("identity")?
        }
        Service::Orchestrator => {
            let dial = Some(hub::tls_dial(pki, credentials.clone()));
            let agents = bind(table.agents.context("[orchestrator] agents isn't set")?, "agents").await?;
            let options = HubOptions { dial, ..HubOptions::default() };
            if let Some(region) = table.region {
                orchestrator::install::own_region(&node, region).await.context("[orchestrator] region")?;
            }
            let (routes, hub) = orchestrator::start_with(node.clone(), pki.clone(), options).await?;
            let tls = ServerTls::new(pki.clone(), credentials.clone(), ClientAuth::Optional);
            ready.unless(hub.island());
            serve(&node, "agents", TlsIncoming::new(agents, tls), hub.agent_routes());
            routes
        }
        Service::Network => network::start(node).await.context("network")?,
        Service::Storage => storage::start(node).await.context("storage")?,
        Service::Usage => usage::start(node).await.context("usage")?,
    };
    Ok((Some(routes), None))
}

fn serve(node: &Node, what: &'static str, incoming: TlsIncoming, routes: Routes) {
    let stop = node.stop.clone();
    node.tasks.spawn(async move {
        let served = Server::builder()
            .trace_fn(telemetry::propagate::call_span)
            .initial_connection_window_size(8 * 1024 * 1024)
            .initial_stream_window_size(1024 * 1024)
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .layer(rpc::WholeLayer)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
        if let Err(e) = served.await {
            tracing::error!(what, error = %e, "the port ended");
        }
    });
}

fn gateway_options(address: SocketAddr, table: &Table) -> Result<gateway::Options> {
    let mut options = gateway::Options::http(address);
    options.limits = table.limits()?;
    if let Some(folder) = &table.console_assets {
        options.console_assets.clone_from(folder);
    }
    let mut grpc_tls = None;
    match (&table.tls_certificate, &table.tls_key) {
        (Some(certificate), Some(key)) => {
            let read = |p: &Path| std::fs::read_to_string(p).with_context(|| p.display().to_string());
            let (certificate, key) = (read(certificate)?, read(key)?);
            let identity = tonic::transport::Identity::from_pem(&certificate, &key);
            grpc_tls = Some(tonic::transport::ServerTlsConfig::new().identity(identity));
            for listener in &mut options.http {
                listener.tls = Some(pki::public_server(&certificate, &key)?);
            }
        }
        (None, None) => {}
        _ => bail!("tls_certificate and tls_key go together"),
    }
    options.grpc = table.grpc.map(|address| gateway::GrpcListener { address, tls: grpc_tls });
    Ok(options)
}

fn admin_password(file: Option<&Path>) -> Result<Secret<String>> {
    let Some(file) = file else {
        // Nobody knows it: fine once admin's password is set, and a first install can set it by the keys of admin-keys.
        return Ok(Secret::new(model::new_uuid()));
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("admin_password_file {}", file.display()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    ensure!(!text.is_empty(), "admin_password_file {} is empty", file.display());
    Ok(Secret::new(text.to_owned()))
}

async fn bind(address: SocketAddr, what: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("the port for {what}, {address}"))
}

/// What others dial.
fn advertised(table: &Table, listening: SocketAddr) -> Result<String> {
    match &table.advertise {
        // Port 0 stands for the one that was taken.
        Some(address) if address.ends_with(":0") => {
            Ok(format!("{}:{}", address.trim_end_matches(":0"), listening.port()))
        }
        Some(address) => Ok(address.clone()),
        None => {
            ensure!(!listening.ip().is_unspecified(), "listening on {listening}: set advertise to what others dial");
            Ok(listening.to_string())
        }
    }
}

/// Names for clients that aren't ours; our own know a service by its name in the certificate.
fn sans(address: Option<&str>) -> Vec<San> {
    let mut sans = vec![San::Dns("localhost".into())];
    let host = address.and_then(|a| a.rsplit_once(':')).map(|(host, _)| host.trim_matches(['[', ']']));
    match host.map(|h| (h, h.parse::<IpAddr>())) {
        Some((_, Ok(ip))) => sans.push(San::Ip(ip)),
        Some((name, Err(_))) => sans.push(San::Dns(name.to_owned())),
        None => {}
    }
    sans
}

/// Removed when dropped.
pub struct PidFile(Option<std::path::PathBuf>);

impl PidFile {
    /// Writes this process's id.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(path: Option<&Path>) -> Result<PidFile> {
        if let Some(path) = path {
            std::fs::write(path, std::process::id().to_string()).with_context(|| path.display().to_string())?;
        }
        Ok(PidFile(path.map(Path::to_owned)))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It only says which process to signal: a stale one is checked by whoever reads it.
            let _ = std::fs::remove_file(path);
        }
    }
}
