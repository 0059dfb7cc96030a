//! Several orchestrators on one MariaDB and one etcd, each in a runtime of its own: dropping that is its `kill -9`.

use crate::common::*;
use crate::fakes::{self, Network, Plugged};
use crate::site::{LARGE, Site};
use coord::{Coord, EtcdConfig, Member};
use hub::{Hub, HubOptions};
use node::Node;
use pki::Pki;
use rpc::{LocalNet, Peers};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Db, DbConfig, Sql};
use testkit::{Etcd, TestDb};
use tokio::runtime::{Builder, Runtime};
use tonic::service::Routes;
use tonic::transport::Server;

/// Where replicas find each other, by member id.
type Nets = Arc<Mutex<HashMap<String, Arc<LocalNet>>>>;

/// Duties that see to hosts and VMs.
const DUTIES: [&str; 3] = ["host-watch", "host-absence", "vm-ha"];

struct Replica {
    runtime: Option<Runtime>,
    id: String,
    hub: Hub,
    network: Arc<Network>,
    routes: Routes,
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Two replicas, of which the first leads and holds all lines, and a site that is seen by way of whichever is in front.
pub struct Fleet {
    pub site: Site,
    first: Replica,
    second: Replica,
    front: Arc<LocalNet>,
    _etcd: Etcd,
    _db: TestDb,
}

impl Fleet {
    pub async fn open(hosts: usize) -> Fleet {
        pki::install_default();
        let (test, etcd) = (TestDb::mariadb().await, Etcd::start().await);
        let db = database(&test).await;
        tenants(&db).await;
        let (observer, front) = Node::for_tests(db).await;
        let (nets, plugged) = (Nets::default(), Plugged::default());
        let start = || replica(test.url().to_owned(), etcd.endpoint(), observer.clone(), nets.clone(), plugged.clone());
        let first = start().await;
        let leads = || async { owners(&observer.db).await.iter().all(|o| *o == first.id) };
        testkit::wait_until(leads, 30 * SECOND).await;
        let second = start().await;
        to_front(&first, &front);
        let cloud = Cloud::around(observer, front.clone(), first.hub.clone());
        let site = Site::on(cloud, first.network.clone(), hosts, LARGE).await;
        Fleet { site, first, second, front, _etcd: etcd, _db: test }
    }

    /// Each replica by itself.
    pub fn channels(&self) -> [tonic::transport::Channel; 2] {
        [&self.first, &self.second].map(|replica| {
            let net = LocalNet::new();
            to_front(replica, &net);
            net.channel("orchestrator")
        })
    }

    /// The first replica never hears from the network service again when it calls this.
    pub fn hold(&self, call: &'static str) {
        *self.first.network.held.lock().unwrap() = Some(call);
    }

    /// Waits until it has called that.
    pub async fn await_held(&self) {
        let waiting = &self.first.network.waiting;
        testkit::wait_until(|| async { waiting.load(std::sync::atomic::Ordering::SeqCst) > 0 }, 60 * SECOND).await;
    }

    /// The first replica, which led, dies; agents and clients find the second. Returns when that leads.
    pub async fn kill_leader(&mut self) {
        assert!(owners(&self.site.cloud.db).await.iter().all(|o| *o == self.first.id), "the first replica leads");
        self.first.runtime.take().unwrap().shutdown_background();
        to_front(&self.second, &self.front);
        self.site.cloud.hub = self.second.hub.clone();
        let db = &self.site.cloud.db;
        let leads = || async { owners(db).await.iter().all(|o| *o == self.second.id) };
        testkit::wait_until(leads, 60 * SECOND).await;
    }

    pub async fn end(self) {
        self.site.end().await;
    }
}

async fn owners(db: &Db) -> Vec<String> {
    let sql = Sql::new("SELECT owner FROM duties WHERE ").in_list("name", DUTIES);
    let owners: Vec<String> = db.all(sql).await.unwrap().iter().map(|r| r.at(0).unwrap()).collect();
    if owners.len() == DUTIES.len() { owners } else { vec![String::new()] }
}

/// Clients and agents reach this replica from now on.
fn to_front(replica: &Replica, front: &Arc<LocalNet>) {
    let (incoming, routes) = (front.listen("orchestrator"), replica.routes.clone());
    let runtime = replica.runtime.as_ref().expect("it lives");
    runtime.spawn(async move { Server::builder().add_routes(routes).serve_with_incoming(incoming).await });
}

async fn replica(url: String, etcd: String, other: Node, nets: Nets, plugged: Plugged) -> Replica {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let started = runtime.spawn(async move {
        let db = Db::connect(&DbConfig::new(url)).await.unwrap();
        let mut config = EtcdConfig::new([etcd]);
        config.lease = Duration::from_secs(2);
        let coord = Coord::etcd(config).await.unwrap();
        let net = LocalNet::new();
        let id = node::replica_id("orchestrator");
        nets.lock().unwrap().insert(id.clone(), net.clone());
        let node = Node::new(db, coord, Peers::local(&net), other.vault.clone(), id.clone()).await.unwrap();
        let pki = Pki::open(&node.db, &node.vault, &node.coord).await.unwrap();
        let network = fakes::serve(&node, &net, &plugged);
        let dial: hub::Dial = Arc::new(move |m| Ok(nets.lock().unwrap()[&m.id].channel("orchestrator")));
        let options = HubOptions { dial: Some(dial), ..HubOptions::default() };
        let (routes, hub) = arcus_orchestrator::start_with(node.clone(), pki, options).await.unwrap();
        let (incoming, own) = (net.listen("orchestrator"), routes.clone());
        node.tasks.spawn(async move { Server::builder().add_routes(own).serve_with_incoming(incoming).await });
        let member =
            Member { id: id.clone(), service: "orchestrator".into(), address: Some(id.clone()), ..Member::default() };
        let (coord, stop) = (node.coord.clone(), node.stop.clone());
        node.tasks.spawn(async move { coord.stay(member, stop).await });
        (id, hub, network, routes)
    });
    let (id, hub, network, routes) = started.await.unwrap();
    Replica { runtime: Some(runtime), id, hub, network, routes }
}
