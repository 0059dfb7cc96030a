//! All services in this process, with a hand on the simulated hosts.

use crate::sample;
use agent::{Agent, Dial, SimulatorHandle};
use contract::secret::Secret;
use coord::{Coord, Member};
use node::{Node, replica_id};
use orchestrator::Orchestrator;
use pki::Pki;
use rpc::{LocalNet, Peers};
use std::sync::Arc;
use std::time::Duration;
use store::{Db, DbConfig, Sql};
use tempfile::TempDir;
use testkit::wait_until;
use tonic::service::Routes;
use tonic::transport::Server;
use vault::Vault;

pub struct World {
    pub node: Node,
    pub net: Arc<LocalNet>,
    pub simulator: SimulatorHandle,
    pub orchestrator: orchestrator::World,
    _dir: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.node.stop.cancel();
    }
}

impl World {
    /// A copy of the sample world, running.
    pub async fn new() -> World {
        let dir = testkit::temp_dir();
        copy(sample::folder().await, dir.path());
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
        let own = replica(&node, "orchestrator");
        let builder = jobs::Jobs::builder(own.db.clone(), own.coord.clone(), "orchestrator", own.replica.clone());
        let assembled = Orchestrator::assemble(own, pki, builder).await.unwrap();
        serve(&node, &net, "orchestrator", assembled.serve());
        let orchestrator = assembled.world.clone();
        assembled.run_jobs();
        let hub = orchestrator.hub.clone();
        wait_until(|| async { hub.connected() == 2 }, Duration::from_secs(30)).await;
        World { node, net, simulator, orchestrator, _dir: dir }
    }

    /// A text of the database.
    pub async fn text(&self, sql: &str) -> String {
        self.node.db.one(Sql::new(sql)).await.unwrap().at(0).unwrap()
    }

    pub async fn change(&self, sql: &str) {
        let changed = store::tx!(self.node.db, "change", |tx| tx.exec(Sql::new(sql)).await).await.unwrap();
        assert!(changed > 0, "{sql} changes nothing");
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

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
        let server = Server::builder().add_routes(routes);
        server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await.unwrap();
    });
}
