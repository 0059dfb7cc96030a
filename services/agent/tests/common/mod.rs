//! What the tests of agent and hub share: a control plane with nothing but a hub.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use arcus_agent::{Agent, Dial, Options, SimulatorHandle};
use contract::ApiError;
use contract_agent::{
    Command, EnsureDisk, Outcome, PowerState, RebootVm, SetMocks, SpawnHost, StartVm, StopVm, VmSpec, VmState, command,
    outcome,
};
use hub::{Hub, HubOptions, Timing};
use jobs::StepKey;
use model::HostId;
use node::Node;
use pki::Pki;
use rpc::LocalNet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::{Db, DbConfig, Migration, Sql};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

pub const SECOND: Duration = Duration::from_secs(1);
/// Far longer than any test: nothing gets lost by silence.
pub const PATIENT: Timing = Timing { beat: Duration::from_millis(50), silence: Duration::from_secs(600) };

const HOSTS: &[Migration] = &[
    Migration {
        owner: "orchestrator",
        file: "0002_hosts.sql",
        sql: include_str!("../../../orchestrator/migrations/0002_hosts.sql"),
    },
    Migration {
        owner: "orchestrator",
        file: "0023_waiting_agents.sql",
        sql: include_str!("../../../orchestrator/migrations/0023_waiting_agents.sql"),
    },
];

/// One replica with a hub.
pub struct Replica {
    pub node: Node,
    pub net: Arc<LocalNet>,
    pub pki: Arc<Pki>,
    pub hub: Hub,
    pub membership: coord::Membership,
}

impl Replica {
    /// The first replica on an empty database.
    pub async fn start(db: &testkit::TestDb, options: HubOptions) -> Replica {
        pki::install_default();
        let db = Db::connect(&DbConfig::new(db.url())).await.unwrap();
        db.migrate(HOSTS).await.unwrap();
        db.migrate(pki::MIGRATIONS).await.unwrap();
        let (node, net) = Node::for_tests(db).await;
        Self::of(node, net, options).await
    }

    /// Another replica, or the same one after a restart: `net` is where agents and others find it.
    pub async fn another(&self, net: Arc<LocalNet>, options: HubOptions) -> Replica {
        let node = Node {
            replica: node::replica_id("test"),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            ..self.node.clone()
        };
        Self::of(node, net, options).await
    }

    async fn of(node: Node, net: Arc<LocalNet>, options: HubOptions) -> Replica {
        let pki = Pki::open(&node.db, &node.vault, &node.coord).await.unwrap();
        let hub = Hub::with(node.clone(), pki.clone(), options);
        let incoming = net.listen("orchestrator");
        let (routes, stop) = (hub.routes(), node.stop.clone());
        node.tasks.spawn(async move {
            let serve = Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, stop.cancelled());
            serve.await.unwrap();
        });
        let member = coord::Member {
            id: node.replica.clone(),
            service: "orchestrator".into(),
            address: Some(node.replica.clone()),
            ..coord::Member::default()
        };
        let membership = node.coord.join(member).await.unwrap();
        Replica { node, net, pki, hub, membership }
    }

    pub async fn end(self) {
        self.node.shut_down(5 * SECOND).await;
    }

    /// Adds a host's row as `addHost` does.
    pub async fn add_row(&self, id: i64, hypervisor: &str) -> SpawnHost {
        let (uuid, guid) = (model::new_uuid(), model::new_uuid());
        insert_hosts(&self.node.db, &[(id, uuid.clone(), guid.clone())], hypervisor).await;
        spec(id, uuid, guid)
    }

    /// Adds a simulated host, and has a factory stand for it.
    pub async fn add_host(&self, id: i64) -> SpawnHost {
        let spec = self.add_row(id, "Simulator").await;
        self.hub.spawn_on_factory(spec.clone(), 20 * SECOND).await.unwrap();
        spec
    }

    pub async fn status(&self, id: i64) -> (String, i64, Option<String>) {
        let sql = Sql::new("SELECT status, conn_epoch, hub FROM hosts WHERE id = ?").bind(id);
        let row = self.node.db.one(sql).await.unwrap();
        (row.at(0).unwrap(), row.at(1).unwrap(), row.at(2).unwrap())
    }

    pub async fn await_status(&self, id: i64, status: &str) {
        testkit::wait_until(|| async { self.status(id).await.0 == status }, 60 * SECOND).await;
    }

    pub async fn await_connected(&self, hosts: usize) {
        testkit::wait_until(|| async { self.hub.connected() == hosts }, 60 * SECOND).await;
    }

    pub async fn execute(&self, host: i64, key: Option<&StepKey>, command: Command) -> Result<Outcome, ApiError> {
        self.hub.execute(HostId(host), key, false, command, 20 * SECOND).await
    }

    pub async fn set_mocks(&self, mocks: Vec<contract_agent::Mock>) {
        let command = Command { body: Some(command::Body::SetMocks(SetMocks { mocks })) };
        self.hub.on_factories(command, 20 * SECOND).await.unwrap();
    }
}

pub fn spec(id: i64, host_uuid: String, guid: String) -> SpawnHost {
    SpawnHost {
        host_uuid,
        guid,
        name: format!("h{id}"),
        cpus: 64,
        cpu_mhz: 8000,
        memory_bytes: 1 << 38,
        private_ip: "172.16.0.9".into(),
        zone_uuid: "zone".into(),
        pod_uuid: "pod".into(),
        cluster_uuid: "cluster".into(),
    }
}

pub async fn insert_hosts(db: &Db, hosts: &[(i64, String, String)], hypervisor: &str) {
    store::tx!(db, "test-hosts", |tx| {
        for (id, uuid, guid) in hosts {
            let name = format!("h{id}");
            tx.exec(
                Sql::new(
                    "INSERT INTO hosts (id, uuid, name, name_lower, live_key, guid, url, cluster_id, pod_id, zone_id, \
                     hypervisor, status, resource_state, cpu_cores, cpu_mhz, memory, capabilities, tags, conn_epoch, created) \
                     VALUES (?, ?, ?, ?, ?, ?, 'http://sim/c0/h0', 1, 1, 1, ?, 'Creating', 'Enabled', 64, 8000, 1, '', '', 0, 0)",
                )
                .bind(*id)
                .bind(uuid)
                .bind(&name)
                .bind(&name)
                .bind(guid)
                .bind(guid)
                .bind(hypervisor),
            )
            .await?;
        }
        Ok::<_, store::Error>(())
    })
    .await
    .unwrap();
}

/// An agent that runs beside the test, on threads of its own so that it can be killed.
pub struct Running {
    pub simulator: SimulatorHandle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ApiError>>,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    pub fn start(dir: &Path, net: &Arc<LocalNet>) -> Running {
        Self::with(options(dir, Dial::Channel(net.channel("orchestrator"))))
    }

    pub fn with(options: Options) -> Running {
        let agent = Agent::open(options).unwrap();
        let simulator = agent.simulator();
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Running { simulator, task: runtime.spawn(agent.run(stop.clone())), stop, runtime }
    }

    /// Ends it in order.
    pub async fn end(self) -> Result<(), ApiError> {
        self.stop.cancel();
        drop(self.simulator);
        let result = self.task.await.unwrap();
        // A look at leases that is under way still has the state folder.
        let runtime = self.runtime;
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(10 * SECOND)).await.unwrap();
        result
    }

    /// Waits until it ends by itself.
    pub async fn ended(self) -> Result<(), ApiError> {
        drop(self.simulator);
        let result = self.task.await.unwrap();
        let runtime = self.runtime;
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(10 * SECOND)).await.unwrap();
        result
    }

    /// Ends it in the middle of whatever it does: all its tasks are dropped where they stand.
    pub async fn kill(self) {
        drop(self.simulator);
        drop(self.task);
        let runtime = self.runtime;
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(10 * SECOND)).await.unwrap();
    }
}

pub fn options(dir: &Path, dial: Dial) -> Options {
    Options { durable: false, lease: Duration::from_millis(500), ..Options::new("test", dir, dial) }
}

pub fn patient() -> HubOptions {
    HubOptions { timing: Some(PATIENT), ..HubOptions::default() }
}

pub fn key(job: i64, step: &str) -> StepKey {
    StepKey::new(job, step, 1, false)
}

pub fn start(uuid: &str, generation: i64) -> Command {
    let vm = VmSpec {
        uuid: uuid.into(),
        instance_name: format!("i-2-{uuid}-VM"),
        cpus: 1,
        cpu_mhz: 100,
        memory_bytes: 1 << 27,
        generation,
        ..VmSpec::default()
    };
    Command { body: Some(command::Body::StartVm(StartVm { vm: Some(vm), take_over: false })) }
}

/// Starts a VM that another host may hold.
pub fn take_over(uuid: &str, generation: i64) -> Command {
    let mut command = start(uuid, generation);
    if let Some(command::Body::StartVm(order)) = &mut command.body {
        order.take_over = true;
    }
    command
}

pub fn stop(uuid: &str, generation: i64) -> Command {
    Command { body: Some(command::Body::StopVm(StopVm { uuid: uuid.into(), forced: true, generation })) }
}

pub fn reboot(uuid: &str) -> Command {
    Command { body: Some(command::Body::RebootVm(RebootVm { uuid: uuid.into() })) }
}

pub fn disk(volume: &str, pool: &str) -> Command {
    let order =
        EnsureDisk { volume_uuid: volume.into(), pool_uuid: pool.into(), size: 1 << 30, ..EnsureDisk::default() };
    Command { body: Some(command::Body::EnsureDisk(order)) }
}

pub fn vm(outcome: Outcome) -> VmState {
    match outcome.body {
        Some(outcome::Body::Vm(vm)) => vm,
        other => panic!("{other:?} is no VM"),
    }
}

/// Waits for an event.
pub async fn hear<T>(
    events: &mut tokio::sync::broadcast::Receiver<hub::HostEvent>,
    pick: impl Fn(hub::HostEvent) -> Option<T>,
) -> T {
    let wait = async {
        loop {
            if let Some(value) = pick(events.recv().await.unwrap()) {
                return value;
            }
        }
    };
    tokio::time::timeout(90 * SECOND, wait).await.expect("an event")
}

pub fn is_on(simulator: &SimulatorHandle, uuid: &str) -> bool {
    simulator.vm(uuid).is_some_and(|vm| vm.power == PowerState::On)
}
