//! Where hosts are connected with the control plane.
//!
//! Agents dial in and keep one stream ([`session`]); an agent stands for the machine it runs on, or, as a factory, for
//! many simulated hosts. Connecting bumps the host's `conn_epoch` in the database, which every command carries, so that a
//! command that went down a stale line is refused. All writes to the `hosts` table's connection columns go through one
//! [`registrar`], which puts what waits into one transaction: a thousand reconnecting hosts are a few commits.
//!
//! The agent of a machine that no host was added for is connected and waits ([`waiting`]).
//!
//! A command for a host whose line another replica holds goes to that replica ([`forward`]). Beats live in memory;
//! silence counts by the monotonic clock of the replica that listens. What happens to hosts that are connected with
//! nobody is one elected replica's duty ([`watch`]).

mod api;
mod event;
mod forward;
mod island;
mod link;
mod metrics;
mod news;
mod registrar;
mod registry;
mod session;
mod store;
mod timing;
mod tunnels;
mod waiting;
mod watch;

pub use event::HostEvent;
pub use forward::{Dial, tls_dial};
pub use news::News;
pub use store::{Absent, absent, age};
pub use timing::Timing;
pub use tunnels::Console;
pub use waiting::{WaitingAgent, take_waiting, waiting};

use contract::ApiError;
use contract_agent::hub_server::HubServer;
use contract_agent::protocol::Spoken;
use contract_agent::{Ask, Command, HostFacts, OpenConsole, Outcome, SpawnHost, command, hub_message, outcome};
use contract_infra::host_commands_server::HostCommandsServer;
use contract_infra::host_consoles_server::HostConsolesServer;
use forward::Replicas;
use jobs::StepKey;
use link::{Link, Order};
use model::HostId;
use node::Node;
use pki::Pki;
use registrar::Registrar;
use registry::{Connected, Registry};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch as watch_channel};
use tokio_util::task::TaskTracker;
use tunnels::Tunnels;

/// Events that a slow subscriber may be behind.
const EVENTS: usize = 4096;
/// Largest message on the line: the hello of a factory with tens of thousands of hosts.
pub const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// This replica's connections, and the way to those of the others. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

pub(crate) struct Inner {
    node: Node,
    pki: Arc<Pki>,
    registry: Arc<Registry>,
    registrar: Registrar,
    sessions: TaskTracker,
    replicas: Replicas,
    tunnels: Arc<Tunnels>,
    events: broadcast::Sender<HostEvent>,
    /// Whether agents are sent to other replicas.
    island: watch_channel::Sender<bool>,
    timing: Option<Timing>,
    speaks: Spoken,
}

/// What may be chosen when a hub starts.
#[derive(Clone, Default)]
pub struct HubOptions {
    /// Other times than the settings `ping.interval` and `ping.timeout` give.
    pub timing: Option<Timing>,
    /// How other replicas are reached; without it only hosts that are connected here can be.
    pub dial: Option<Dial>,
    /// Other protocols than this build's: for tests of hubs and agents that aren't of one age.
    pub speaks: Option<Spoken>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("hosts", &self.0.registry.len()).finish_non_exhaustive()
    }
}

impl Hub {
    /// Starts the hub of this replica; its background work is the node's.
    pub fn new(node: Node, pki: Arc<Pki>) -> Hub {
        Hub::with(node, pki, HubOptions::default())
    }

    /// Starts the hub with other options than the usual ones.
    pub fn with(node: Node, pki: Arc<Pki>, options: HubOptions) -> Hub {
        let events = broadcast::Sender::new(EVENTS);
        let registry = Arc::new(Registry::default());
        let sessions = TaskTracker::new();
        let registrar = Registrar::start(&node, registry.clone(), events.clone(), sessions.clone());
        let replicas = Replicas::new(node.coord.clone(), options.dial);
        let stop = node.stop.clone();
        node.spawn("pki", pki.clone().follow(stop));
        let (timing, speaks) = (options.timing, options.speaks.unwrap_or(Spoken::OURS));
        let tunnels = Arc::default();
        let island = watch_channel::Sender::new(false);
        let inner =
            Inner { node, pki, registry, registrar, sessions, replicas, tunnels, events, island, timing, speaks };
        let hub = Hub(Arc::new(inner));
        watch::start(&hub);
        waiting::start(&hub);
        island::start(&hub);
        hub
    }

    /// All of it: what agents call, and what services and other replicas call.
    pub fn routes(&self) -> tonic::service::Routes {
        let commands = HostCommandsServer::new(api::HostCommandsApi(self.clone()))
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let consoles = HostConsolesServer::new(api::HostConsolesApi(self.clone()));
        self.agent_routes().add_service(commands).add_service(consoles)
    }

    /// Only what agents call: for the port that lets unknown peers in.
    pub fn agent_routes(&self) -> tonic::service::Routes {
        let hub = HubServer::new(api::HubApi::new(self.clone()))
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        tonic::service::Routes::new(hub)
    }

    /// Gives a command to a host and waits for its answer. With a key, a repeat is answered as the first time was. The
    /// effect is an undo when `undo` or the key says so.
    ///
    /// # Errors
    /// 534 when the host isn't connected or doesn't answer in time: with a key, try again. Else what the host says.
    pub async fn execute(
        &self,
        host: HostId,
        key: Option<&StepKey>,
        undo: bool,
        command: Command,
        deadline: Duration,
    ) -> Result<Outcome, ApiError> {
        if let Some(connected) = self.0.registry.host(host) {
            let order = Order { host: connected.uuid, conn_epoch: connected.conn_epoch, key, undo, command };
            return connected.link.call(order, deadline).await;
        }
        let route = store::route(&self.0.node.db, host).await?;
        let Some(route) = route else {
            return Err(ApiError::internal(format!("there is no host with number {host}")));
        };
        match route.hub {
            Some(hub) if hub != self.0.node.replica => {
                self.0.replicas.execute(&hub, &route.uuid, host, key, undo, command, deadline).await
            }
            _ => Err(ApiError::unavailable(format!("host {} ({}) isn't connected", route.name, route.uuid))
                .with_entity(route.uuid, "host")),
        }
    }

    /// Gives a command to a host that is connected with this very replica.
    pub(crate) async fn execute_here(
        &self,
        host: HostId,
        key: Option<&StepKey>,
        undo: bool,
        command: Command,
        deadline: Duration,
    ) -> Result<Outcome, ApiError> {
        let Some(connected) = self.0.registry.host(host) else {
            return Err(ApiError::unavailable(format!("host {host} isn't connected with this replica any more")));
        };
        let order = Order { host: connected.uuid, conn_epoch: connected.conn_epoch, key, undo, command };
        connected.link.call(order, deadline).await
    }

    /// Opens the console of a VM that runs on this host, whichever replica the host is connected with.
    ///
    /// # Errors
    /// 534 when the host isn't connected or doesn't answer in time; 530 when the VM doesn't run there, or has as many
    /// consoles as it may; 431 when the host can't show one.
    pub async fn console(&self, host: HostId, vm_uuid: &str) -> Result<Console, ApiError> {
        if let Some(connected) = self.0.registry.host(host) {
            return self.console_of(connected, vm_uuid).await;
        }
        let route = store::route(&self.0.node.db, host).await?;
        let there = route.as_ref().and_then(|route| Some((route, route.hub.as_deref()?)));
        match there.filter(|(_, hub)| *hub != self.0.node.replica) {
            Some((route, hub)) => self.0.replicas.console(hub, route, host, vm_uuid).await,
            None => Err(ApiError::unavailable(format!("host {host} isn't connected"))),
        }
    }

    /// The same for a host that is connected with this very replica.
    pub(crate) async fn console_here(&self, host: HostId, vm_uuid: &str) -> Result<Console, ApiError> {
        match self.0.registry.host(host) {
            Some(connected) => self.console_of(connected, vm_uuid).await,
            None => Err(ApiError::unavailable(format!("host {host} isn't connected with this replica any more"))),
        }
    }

    async fn console_of(&self, host: Connected, vm_uuid: &str) -> Result<Console, ApiError> {
        let place = self.0.tunnels.place(vm_uuid)?;
        let ordered = self.0.tunnels.order(&host.link.agent);
        let open = OpenConsole { vm_uuid: vm_uuid.to_owned(), tunnel: ordered.id.clone() };
        let command = Command { body: Some(command::Body::OpenConsole(open)) };
        let order = Order { host: host.uuid, conn_epoch: host.conn_epoch, key: None, undo: false, command };
        host.link.call(order, tunnels::PATIENCE).await?;
        Ok(ordered.come().await?.console(host.link, place))
    }

    /// Makes a factory of simulated hosts stand for one more: the one with the fewest, here or at another replica. The
    /// host's row exists by then; when this returns, the host is connected.
    ///
    /// # Errors
    /// 530 when no factory is connected.
    pub async fn spawn_on_factory(&self, spec: SpawnHost, deadline: Duration) -> Result<HostFacts, ApiError> {
        let command = Command { body: Some(command::Body::SpawnHost(spec)) };
        let outcome = match self.spawn_here(&command, deadline).await? {
            Some(outcome) => outcome,
            None => self.spawn_elsewhere(&command, deadline).await?,
        };
        match outcome.body {
            Some(outcome::Body::Host(spawned)) => Ok(spawned.facts.unwrap_or_default()),
            other => Err(ApiError::internal(format!("the factory answered with {other:?}"))),
        }
    }

    /// Has a factory of this replica obey; none when there is none.
    pub(crate) async fn spawn_here(&self, command: &Command, deadline: Duration) -> Result<Option<Outcome>, ApiError> {
        let host = match &command.body {
            Some(command::Body::SpawnHost(spec)) => spec.host_uuid.as_str(),
            _ => "",
        };
        match self.0.registry.factory_for(host) {
            Some(factory) => to_factory(&factory, command.clone(), deadline).await.map(Some),
            None => Ok(None),
        }
    }

    async fn spawn_elsewhere(&self, command: &Command, deadline: Duration) -> Result<Outcome, ApiError> {
        for replica in self.0.replicas.others(&self.0.node.replica) {
            match self.0.replicas.to_factories(&replica, command.clone(), deadline).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {}
                Err(error) => tracing::warn!(replica = replica.id, %error, "a replica's factories can't be asked"),
            }
        }
        Err(ApiError::failed(
            "No agent that simulates hosts is connected: start one with `arcus agent --factory`, then add the host again",
        ))
    }

    /// Has every connected factory obey, here and at the other replicas: delays, faults and questions about them.
    ///
    /// # Errors
    /// The first refusal; 534 when a factory doesn't answer in time.
    pub async fn on_factories(&self, command: Command, deadline: Duration) -> Result<Vec<Outcome>, ApiError> {
        let mut outcomes = self.on_factories_here(&command, deadline).await?;
        for replica in self.0.replicas.others(&self.0.node.replica) {
            outcomes.extend(self.0.replicas.to_factories(&replica, command.clone(), deadline).await?);
        }
        Ok(outcomes)
    }

    pub(crate) async fn on_factories_here(
        &self,
        command: &Command,
        deadline: Duration,
    ) -> Result<Vec<Outcome>, ApiError> {
        let factories = self.0.registry.factories();
        futures::future::try_join_all(factories.iter().map(|f| to_factory(f, command.clone(), deadline))).await
    }

    /// How many factories of simulated hosts are connected with this replica.
    pub fn factories(&self) -> usize {
        self.0.registry.factories().len()
    }

    /// Whether the host is connected with this replica.
    pub fn is_connected(&self, host: HostId) -> bool {
        self.0.registry.host(host).is_some()
    }

    /// How many hosts are connected with this replica.
    pub fn connected(&self) -> usize {
        self.0.registry.len()
    }

    /// What happens to hosts that are connected with this replica, for who waits for something. Who works on each event
    /// takes [`Hub::news`].
    pub fn subscribe(&self) -> broadcast::Receiver<HostEvent> {
        self.0.events.subscribe()
    }

    /// The same for a follower, who may be slow: of reports it gets the newest, and what it missed comes with full reports.
    pub fn news(&self) -> News {
        News::new(self.clone(), self.subscribe())
    }

    /// Asks a host for a full report; it comes as [`HostEvent::Report`]. Whether the host is connected here.
    pub fn ask_report(&self, host: HostId) -> bool {
        let Some(connected) = self.0.registry.host(host) else { return false };
        connected.link.tell(hub_message::Body::Ask(Ask { host_uuid: connected.uuid }))
    }

    /// Asks all hosts that are connected here for a full report.
    pub fn ask_reports(&self) {
        for connected in self.0.registry.hosts() {
            connected.link.tell(hub_message::Body::Ask(Ask { host_uuid: connected.uuid }));
        }
    }

    /// Whether etcd doesn't reach this replica while others go on: agents are sent to those.
    pub fn island(&self) -> watch_channel::Receiver<bool> {
        self.0.island.subscribe()
    }

    /// How often agents beat, and when silence counts.
    pub fn timing(&self) -> Timing {
        self.0.timing.unwrap_or_else(|| Timing::of(&self.0.node.settings))
    }
}

async fn to_factory(factory: &Arc<Link>, command: Command, deadline: Duration) -> Result<Outcome, ApiError> {
    let order = Order { host: String::new(), conn_epoch: 0, key: None, undo: false, command };
    let mut outcome = factory.call(order, deadline).await?;
    if let Some(outcome::Body::Host(spawned)) = &mut outcome.body
        && let Some(facts) = &mut spawned.facts
    {
        factory.sign(facts);
    }
    Ok(outcome)
}
