//! All services in one process: what `arcus dev` runs, and what whole-system tests start. The services still talk gRPC,
//! over in-memory pipes, so this is the code path of production with other wires.

use crate::{metrics_port, schema};
use anyhow::{Context, Result};
use contract::secret::Secret;
use coord::{Coord, EtcdConfig, Member};
use identity::IdentityOptions;
use node::{Node, replica_id};
use pki::Pki;
use rpc::{LocalNet, Peers};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::{Db, DbConfig};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use vault::Vault;

/// Longest wait for work under way when the process ends in order.
const PATIENCE: Duration = Duration::from_secs(20);

/// What can be chosen.
#[derive(Clone)]
pub struct StackOptions {
    /// Holds database, master key, simulator state.
    pub data_dir: PathBuf,
    /// Database URL; none: SQLite in the data folder.
    pub database: Option<String>,
    /// etcd's URLs; empty: coordination within the process.
    pub etcd: Vec<String>,
    /// Query API.
    pub api: SocketAddr,
    /// gRPC port.
    pub grpc: SocketAddr,
    /// Agents.
    pub agents: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// The administrator's password on a first install.
    pub admin_password: Secret<String>,
    /// What the gateway refuses.
    pub limits: gateway::Limits,
}

/// A running system.
pub struct Stack {
    /// Its surroundings.
    pub node: Node,
    /// Where its services are reached within the process.
    pub net: Arc<LocalNet>,
    /// Where the query API listens.
    pub api: SocketAddr,
    /// API key and secret key of the administrator.
    pub keys: (String, Secret<String>),
}

/// Connects to the database that the options name.
///
/// # Errors
/// When it can't be reached.
pub async fn database(options: &StackOptions) -> Result<Db> {
    let file = || format!("sqlite:{}", options.data_dir.join("arcus.db").display());
    let url = options.database.clone().unwrap_or_else(file);
    Db::connect(&DbConfig::new(url)).await.context("the database")
}

impl Stack {
    /// Starts everything; when it returns, the system serves.
    ///
    /// # Errors
    /// What can't be started, and why.
    pub async fn start(options: StackOptions) -> Result<Stack> {
        pki::install_default();
        std::fs::create_dir_all(&options.data_dir).with_context(|| options.data_dir.display().to_string())?;
        let vault = Vault::open(&options.data_dir.join("master.key")).context("the master key")?;
        // Ports first: a second instance ends here, before it touches anything.
        let agents = bind(options.agents, "agents").await?;
        let metrics = bind(options.metrics, "metrics").await?;
        let db = database(&options).await?;
        db.migrate(&schema::migrations()).await.context("the schema")?;
        let coord = match options.etcd.as_slice() {
            [] => Coord::local(),
            urls => Coord::etcd(EtcdConfig::new(urls.iter().cloned())).await.context("etcd")?,
        };
        let net = LocalNet::new();
        let node = Node::new(db, coord, Peers::local(&net), vault, replica_id("dev")).await.context("the settings")?;
        let keys = start_services(&node, &net, &options, agents).await?;
        start_simulator(&node, &net, &options);
        start_metrics(&node, metrics);
        let mut gateway_options = gateway::Options::http(options.api);
        gateway_options.limits.clone_from(&options.limits);
        gateway_options.grpc = Some(gateway::GrpcListener { address: options.grpc, tls: None });
        let serving = gateway::start(replica(&node, "gateway"), gateway_options).await.context("gateway")?;
        let api = serving.http.first().copied().context("the query API has no address")?;
        Ok(Stack { node, net, api, keys })
    }

    /// Ends in order: no new work, what is under way is finished or left for the next start.
    pub async fn shut_down(self) {
        self.node.shut_down(PATIENCE).await;
        self.node.db.close().await;
    }
}

async fn bind(address: SocketAddr, what: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("the port for {what}, {address}: is another Arcus running?"))
}

/// The same surroundings as a replica of `service`, which is a member from now on: others leave its jobs alone.
fn replica(node: &Node, service: &str) -> Node {
    let node = Node { replica: replica_id(service), ..node.clone() };
    let member = Member {
        id: node.replica.clone(),
        service: service.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Member::default()
    };
    let (coord, stop) = (node.coord.clone(), node.stop.clone());
    node.tasks.spawn(async move { coord.stay(member, stop).await });
    node
}

fn serve(node: &Node, net: &Arc<LocalNet>, service: &'static str, routes: Routes) {
    let incoming = net.listen(service);
    let stop = node.stop.clone();
    node.tasks.spawn(async move {
        let served = Server::builder()
            .trace_fn(telemetry::propagate::call_span)
            .initial_connection_window_size(8 * 1024 * 1024)
            .initial_stream_window_size(1024 * 1024)
            .layer(rpc::WholeLayer)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
        if let Err(e) = served.await {
            tracing::error!(service, error = %e, "the service ended");
        }
    });
}

async fn start_services(
    node: &Node,
    net: &Arc<LocalNet>,
    options: &StackOptions,
    agents: TcpListener,
) -> Result<(String, Secret<String>)> {
    let identity_options = IdentityOptions {
        admin_password: options.admin_password.clone(),
        ensure_admin_keys: true,
        patience: identity::PATIENCE,
    };
    let identity_node = replica(node, "identity");
    serve(node, net, "identity", identity::start(identity_node, identity_options).await.context("identity")?);
    let (key, secret) = identity::admin_keys(node).await.context("the administrator's keys")?;
    let pki = Pki::open(&node.db, &node.vault, &node.coord).await.context("the built-in CA")?;
    let orchestrator_node = replica(node, "orchestrator");
    let (routes, hub) = orchestrator::start(orchestrator_node, pki.clone()).await.context("orchestrator")?;
    serve(node, net, "orchestrator", routes);
    listen_for_agents(node, pki, agents, hub.agent_routes()).await?;
    serve(node, net, "network", network::start(replica(node, "network")).await.context("network")?);
    serve(node, net, "storage", storage::start(replica(node, "storage")).await.context("storage")?);
    serve(node, net, "usage", usage::start(replica(node, "usage")).await.context("usage")?);
    Ok((key, Secret::new(secret)))
}

/// Agents on other machines, or other processes: mTLS; a stranger may only enrol.
async fn listen_for_agents(node: &Node, pki: Arc<Pki>, listener: TcpListener, routes: Routes) -> Result<()> {
    let sans = vec![pki::San::Dns("localhost".into()), pki::San::Ip(listener.local_addr()?.ip())];
    let identity = pki.service_identity("orchestrator", &sans).await.context("a certificate for agents")?;
    let credentials = pki::Credentials::new(identity);
    node.spawn(
        "agent-certificate",
        pki.clone().keep("orchestrator".into(), sans, credentials.clone(), node.stop.clone()),
    );
    let tls = pki::ServerTls::new(pki, credentials, pki::ClientAuth::Optional);
    let incoming = pki::TlsIncoming::new(listener, tls);
    let stop = node.stop.clone();
    node.tasks.spawn(async move {
        let served = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
        if let Err(e) = served.await {
            tracing::error!(error = %e, "the port for agents ended");
        }
    });
    Ok(())
}

fn start_simulator(node: &Node, net: &Arc<LocalNet>, options: &StackOptions) {
    let state = options.data_dir.join("simulator");
    let channel = net.channel("orchestrator");
    let stop = node.stop.clone();
    node.tasks.spawn(async move {
        let options = agent::Options::new("simulator", state, agent::Dial::Channel(channel));
        if let Err(e) = agent::run(options, stop).await {
            tracing::error!(error = %e, "the simulator ended");
        }
    });
}

fn start_metrics(node: &Node, listener: TcpListener) {
    let db = node.db.clone();
    let health: telemetry::Health = Arc::new(move || {
        let db = db.clone();
        Box::pin(async move { db.ping().await.map_err(|e| e.to_string()) })
    });
    metrics_port::serve(listener, health, node.stop.clone());
}
