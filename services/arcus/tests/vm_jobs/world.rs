//! One run's world: identity, network, storage and the simulator, real and running; the orchestrator comes and goes.

use crate::template::Template;
use agent::{Agent, Dial, SimulatorHandle};
use contract::secret::Secret;
use coord::{Coord, Member};
use jobs::Jobs;
use jobs::harness::Start;
use node::{Node, replica_id};
use orchestrator::Orchestrator;
use orchestrator::vm::VmWorld;
use pki::Pki;
use rpc::{LocalNet, Peers};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Db, DbConfig, Sql};
use tempfile::TempDir;
use testkit::wait_until;
use tonic::service::Routes;
use tonic::transport::{Channel, Server};
use vault::Vault;

pub struct World {
    pub node: Node,
    net: Arc<LocalNet>,
    pki: Arc<Pki>,
    pub simulator: SimulatorHandle,
    /// Of the incarnation that runs.
    vms: Mutex<Option<Arc<VmWorld>>>,
    /// Hosts that live.
    living: AtomicUsize,
    _dir: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.node.stop.cancel();
    }
}

impl World {
    pub async fn new(template: &Template) -> World {
        let dir = template.copy();
        let url = format!("sqlite:{}", dir.path().join("arcus.db").display());
        let db = Db::connect(&DbConfig::new(url)).await.unwrap();
        let vault = Vault::open(&dir.path().join("master.key")).unwrap();
        let net = LocalNet::new();
        let node = Node::new(db, Coord::local(), Peers::local(&net), vault, replica_id("test")).await.unwrap();
        let pki = Pki::open(&node.db, &node.vault, &node.coord).await.unwrap();
        let options = identity::IdentityOptions {
            admin_password: Secret::new("password".to_owned()),
            ensure_admin_keys: false,
            patience: identity::PATIENCE,
        };
        serve(&node, &net, "identity", identity::start(replica(&node, "identity"), options).await.unwrap());
        serve(&node, &net, "network", network::start(replica(&node, "network")).await.unwrap());
        serve(&node, &net, "storage", storage::start(replica(&node, "storage")).await.unwrap());
        let mut options =
            agent::Options::new("simulator", dir.path().join("simulator"), Dial::Channel(net.channel("orchestrator")));
        options.durable = false;
        let agent = Agent::open(options).unwrap();
        let simulator = agent.simulator();
        let stop = node.stop.clone();
        node.tasks.spawn(async move { agent.run(stop).await.unwrap() });
        World { node, net, pki, simulator, vms: Mutex::new(None), living: AtomicUsize::new(2), _dir: dir }
    }

    /// An orchestrator with the harness's engine; waits until its hosts are connected.
    pub async fn orchestrator(&self, start: Start) -> Jobs {
        let node = Node {
            coord: start.coord.clone(),
            replica: start.replica.clone(),
            stop: start.stop.clone(),
            tasks: start.tasks.clone(),
            ..self.node.clone()
        };
        let builder =
            Jobs::builder(start.db, start.coord, "orchestrator", start.replica).faults(start.faults).pace(start.pace);
        let orchestrator = Orchestrator::assemble(node.clone(), self.pki.clone(), builder).await.unwrap();
        serve(&node, &self.net, "orchestrator", orchestrator.serve());
        *self.vms.lock().unwrap() = Some(orchestrator.vms.clone());
        let hub = orchestrator.world.hub.clone();
        wait_until(|| async { hub.connected() == self.living.load(Ordering::SeqCst) }, Duration::from_secs(20)).await;
        let index = orchestrator.vms.index.clone();
        index.load(&node.db).await.unwrap();
        orchestrator.run_jobs()
    }

    /// Silence counts after a second.
    pub async fn hasten(&self) {
        let settings = &self.node.settings;
        store::tx!(self.node.db, "hasten", |tx| {
            settings.set(tx, "ping.interval", "1", config::Scope::Global).await?;
            settings.set(tx, "ping.timeout", "1", config::Scope::Global).await
        })
        .await
        .unwrap();
    }

    /// A host's management line is cut; its machines go on. Returns when it counts as away.
    pub async fn silence_host(&self, host: &str) {
        assert!(self.simulator.silence_host(host, true));
        self.living.fetch_sub(1, Ordering::SeqCst);
        let sql = Sql::new("SELECT COUNT(*) FROM hosts WHERE uuid = ? AND status = 'Up'").bind(host);
        let away = || async { self.node.db.one(sql.clone()).await.unwrap().at::<i64>(0).unwrap() == 0 };
        wait_until(away, Duration::from_secs(30)).await;
    }

    /// A host loses power.
    pub fn kill_host(&self, host: &str) {
        assert!(self.simulator.kill_host(host));
        self.living.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn channel(&self) -> Channel {
        self.net.channel("orchestrator")
    }

    /// UUID of the first job of a kind: the host's next report may make another once it has failed.
    pub async fn first_job_of_kind(&self, kind: &str) -> Option<String> {
        let sql = Sql::new("SELECT uuid FROM jobs WHERE kind = ? ORDER BY id LIMIT 1").bind(kind);
        self.node.db.optional(sql).await.unwrap().map(|r| r.at(0).unwrap())
    }

    /// Waits until no machine that its host doesn't run is Running, and no job is under way.
    pub async fn power_settles(&self) {
        let hub = self.vms.lock().unwrap().clone().unwrap().hub.clone();
        let settled = || async {
            hub.ask_reports();
            let sql = "SELECT (SELECT COUNT(*) FROM vms WHERE state = 'Running' AND removed IS NULL) + \
                       (SELECT COUNT(*) FROM jobs WHERE state NOT IN ('Done', 'Failed'))";
            self.node.db.one(Sql::new(sql)).await.unwrap().at::<i64>(0).unwrap() == 0
        };
        wait_until(settled, Duration::from_secs(30)).await;
    }

    /// Lets the sweep end the machine if it was destroyed, and waits for it.
    pub async fn sweep(&self, name: &str) {
        let vms = self.vms.lock().unwrap().clone().unwrap();
        let sql = Sql::new("SELECT id FROM vms WHERE name = ? AND state = 'Destroyed' AND removed IS NULL").bind(name);
        let Some(row) = self.node.db.optional(sql).await.unwrap() else { return };
        orchestrator::vm::expunge_now(&vms, row.at(0).unwrap()).await.unwrap();
        let open = || async {
            let sql = Sql::new("SELECT COUNT(*) FROM jobs WHERE state NOT IN ('Done', 'Failed')");
            self.node.db.one(sql).await.unwrap().at::<i64>(0).unwrap() == 0
        };
        wait_until(open, Duration::from_secs(30)).await;
    }

    /// What lies in the drives of simulated machines: what the books say, of those that run by the books.
    async fn drives(&self) -> Vec<String> {
        let sql = "SELECT v.uuid, v.name, t.uuid FROM vms v LEFT JOIN templates t ON t.id = v.iso_id WHERE v.state = 'Running' \
                   AND v.removed IS NULL";
        let mut lines = Vec::new();
        for row in self.node.db.all(Sql::new(sql)).await.unwrap() {
            let (uuid, name): (String, String) = (row.at(0).unwrap(), row.at(1).unwrap());
            let wanted: Option<String> = row.at(2).unwrap();
            let Some(vm) = self.simulator.vm(&uuid) else { continue };
            let there = vm.spec.cd.map(|cd| cd.iso_uuid);
            assert_eq!(there, wanted, "what lies in the drive of {name}");
            lines.push(format!("drive: {name} {there:?}"));
        }
        lines
    }

    /// Everything that a job of a VM may change, without numbers that every run gives anew.
    pub async fn look(&self) -> String {
        let mut lines = Vec::new();
        for (what, sql) in LOOKS {
            for row in self.node.db.all(Sql::new(sql)).await.unwrap() {
                let columns: Vec<String> =
                    (0..3).map_while(|i| row.at::<Option<String>>(i).ok()).map(Option::unwrap_or_default).collect();
                lines.push(format!("{what}: {}", columns.join(" ")));
            }
        }
        let mut running: Vec<String> = self
            .simulator
            .vms()
            .into_iter()
            .map(|vm| format!("simulated: {} {:?}", vm.spec.display_name, vm.power))
            .collect();
        let vms = self.simulator.vms();
        running.extend(vms.iter().map(|vm| format!("plugged: {} {}", vm.spec.display_name, vm.spec.nics.len())));
        running.extend(self.drives().await);
        running.sort();
        lines.extend(running);
        lines.push(format!("simulated disks: {}", self.simulator.disks().len()));
        lines.join("\n")
    }
}

/// Three columns of text at most.
const LOOKS: &[(&str, &str)] = &[
    (
        "vm",
        "SELECT name, state, CASE WHEN host_id IS NULL THEN 'off' ELSE 'placed' END FROM vms WHERE removed IS NULL ORDER BY name",
    ),
    ("capacity", "SELECT SUM(cpu_used_mhz) || '', SUM(mem_used) || '', SUM(vms) || '' FROM host_capacity"),
    ("held", "SELECT COUNT(*) || '' FROM vm_capacity"),
    (
        "place",
        "SELECT v.name, n.device_id || '', n.is_default || '' FROM nics n JOIN vms v ON v.id = n.vm_id WHERE n.removed IS NULL \
         ORDER BY v.name, n.device_id",
    ),
    (
        "cd",
        "SELECT v.name, COALESCE(t.name, 'none') FROM vms v LEFT JOIN templates t ON t.id = v.iso_id WHERE v.removed IS NULL ORDER BY v.name",
    ),
    ("access", "SELECT name, COALESCE(key_pair, 'none') FROM vms WHERE removed IS NULL ORDER BY name"),
    ("nic", "SELECT v.name, n.state FROM nics n JOIN vms v ON v.id = n.vm_id WHERE n.removed IS NULL ORDER BY v.name"),
    (
        "volume",
        "SELECT v.name, o.kind, o.state FROM volumes o JOIN vms v ON v.id = o.vm_id WHERE o.removed IS NULL ORDER BY v.name",
    ),
    ("pool", "SELECT name, allocated_bytes || '' FROM storage_pools ORDER BY name"),
    (
        "limit",
        "SELECT type || '', SUM(amount) || '' FROM limit_reservations WHERE type >= 0 GROUP BY type ORDER BY type",
    ),
    ("count", "SELECT slot, used || '' FROM resource_counts ORDER BY slot"),
    ("name", "SELECT name_lower FROM vm_names ORDER BY name_lower"),
    ("claim", "SELECT resource FROM claims WHERE exclusive <> 0 OR shared <> 0 OR waiting <> 0 ORDER BY resource"),
    ("tag", "SELECT resource_uuid, tag_key, tag_value FROM tags ORDER BY resource_uuid, tag_key"),
    (
        "affinity",
        "SELECT g.name, g.type, (SELECT COUNT(*) FROM affinity_group_vms m WHERE m.group_id = g.id) || '' FROM affinity_groups g \
         WHERE g.removed IS NULL ORDER BY g.name",
    ),
    (
        "dedication",
        "SELECT d.kind, d.domain_path, (SELECT COUNT(*) FROM host_capacity k WHERE k.dedicated_to = d.group_id) || '' \
         FROM dedications d ORDER BY d.id",
    ),
    ("debt", "SELECT vm_uuid FROM host_debts"),
    ("recovery", "SELECT v.name, r.in_a_row || '' FROM vm_recoveries r JOIN vms v ON v.id = r.vm_id"),
    (
        "wish",
        "SELECT v.name, w.attempts || '', CASE WHEN w.job IS NULL THEN 'free' ELSE 'taken' END FROM vm_restarts w JOIN vms v ON v.id = w.vm_id",
    ),
];

fn replica(node: &Node, service: &str) -> Node {
    let node = Node { replica: replica_id(service), ..node.clone() };
    let member = Member { id: node.replica.clone(), service: service.to_owned(), ..Member::default() };
    let (coord, stop) = (node.coord.clone(), node.stop.clone());
    node.tasks.spawn(async move { coord.stay(member, stop).await });
    node
}

fn serve(node: &Node, net: &Arc<LocalNet>, service: &'static str, routes: Routes) {
    let (incoming, stop) = (net.listen(service), node.stop.clone());
    node.tasks.spawn(async move {
        // Not by dropping the server: its connections would live on, and lead to the dead incarnation.
        let server = Server::builder().add_routes(routes);
        server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await.unwrap();
    });
}
