//! A storage service with everything around it: real database, real gRPC over the in-process network, and, in place of the
//! orchestrator's way to hosts and of identity's limits, servers that remember what they were asked.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fakes;
mod rows;

pub use fakes::{Hosts, Limits, Say, content};
pub use rows::*;

use arcus_storage::Storage;
use contract::ApiError;
use contract::api::{Caller, RoleType};
use coord::{Member, Membership};
use jobs::{Builder, Jobs, StepKey};
use node::Node;
use std::sync::Arc;
use store::{Db, DbConfig, Sql};
use tonic::service::Routes;
use tonic::transport::Server;

pub const GIB: i64 = 1 << 30;

/// The replica under test.
pub struct World {
    pub storage: Storage,
    pub node: Node,
    pub hosts: Arc<Hosts>,
    pub limits: Arc<Limits>,
    _membership: Membership,
}

impl Drop for World {
    fn drop(&mut self) {
        self.node.stop.cancel();
    }
}

/// All tables that the service touches.
pub async fn migrate(db: &Db) {
    db.migrate(model::tags::MIGRATIONS).await.unwrap();
    db.migrate(events::MIGRATIONS).await.unwrap();
    db.migrate(jobs::MIGRATIONS).await.unwrap();
    db.migrate(&rows::OTHERS).await.unwrap();
    db.migrate(arcus_storage::MIGRATIONS).await.unwrap();
}

impl World {
    /// A zone (1) with two clusters (1, 2) of two simulated hosts each (1..4), two accounts, and the service running.
    pub async fn new(test: testkit::TestDb) -> World {
        // The folder of a SQLite database must outlive the test.
        let test = Box::leak(Box::new(test));
        let db = Db::connect(&DbConfig::new(test.url())).await.unwrap();
        World::on(db).await
    }

    pub async fn on(db: Db) -> World {
        migrate(&db).await;
        rows::infra(&db).await;
        let (node, net) = Node::for_tests(db).await;
        let hosts = Arc::new(Hosts::default());
        let limits = Arc::new(Limits::default());
        serve(net.listen("orchestrator"), Hosts::routes(&hosts));
        serve(net.listen("identity"), Limits::routes(&limits));
        let member = Member { id: node.replica.clone(), service: "storage".into(), ..Member::default() };
        let membership = node.coord.join(member).await.unwrap();
        let routes = arcus_storage::start(node.clone()).await.unwrap();
        serve(net.listen("storage"), routes);
        let hosts_client = arcus_storage::hosts::Hosts::new(node.peers.orchestrator());
        // A second handle of the same parts, for calls that tests make directly.
        let jobs = Jobs::builder(node.db.clone(), node.coord.clone(), "test", node.replica.clone()).handle();
        let storage = Storage { node: node.clone(), jobs, hosts: hosts_client };
        World { storage, node, hosts, limits, _membership: membership }
    }

    pub fn db(&self) -> &Db {
        &self.node.db
    }

    /// Adds a pool of `gib` to a cluster, as an administrator would; gives its number.
    pub async fn pool(&self, name: &str, cluster: i64, gib: i64, tags: &str) -> i64 {
        let mut pools = contract_storage::storage_pools_client::StoragePoolsClient::new(self.node.peers.storage());
        let request = contract_storage::CreateStoragePoolRequest {
            name: Some(name.into()),
            zone_id: Some(ZONE.into()),
            pod_id: Some(POD.into()),
            cluster_id: Some(rows::uuid("cluster", cluster)),
            url: Some(format!("nfs://10.0.0.1/{name}")),
            tags: Some(tags.into()),
            capacity_bytes: Some(gib * GIB),
            ..Default::default()
        };
        let pool = pools.create(rpc::cx::request(&admin(), request)).await.unwrap().into_inner();
        let sql = Sql::new("SELECT id FROM storage_pools WHERE uuid = ?").bind(pool.id.unwrap());
        self.db().one(sql).await.unwrap().at(0).unwrap()
    }

    /// Adds an image store, so that the built-in template is ready.
    pub async fn image_store(&self) -> String {
        let mut stores = contract_storage::image_stores_client::ImageStoresClient::new(self.node.peers.storage());
        let request = contract_storage::AddImageStoreRequest {
            url: Some("nfs://10.147.28.6:/export/home/sandbox/secondary".into()),
            zone_id: Some(ZONE.into()),
            provider: Some("NFS".into()),
            ..Default::default()
        };
        stores.add(rpc::cx::request(&admin(), request)).await.unwrap().into_inner().id.unwrap()
    }

    /// What every pool has promised, and what it should have.
    pub async fn check_pools(&self) {
        let sql = "SELECT p.id, p.allocated_bytes, p.capacity_bytes, p.overcommit, \
             CAST((SELECT COALESCE(SUM(v.size), 0) FROM volumes v WHERE v.pool_id = p.id AND v.removed IS NULL) AS SIGNED), \
             CAST((SELECT COALESCE(SUM(t.size), 0) FROM template_pool_refs t WHERE t.pool_id = p.id) AS SIGNED) \
             FROM storage_pools p WHERE p.removed IS NULL";
        for r in self.db().all(Sql::new(sql)).await.unwrap() {
            let (id, allocated, capacity): (i64, i64, i64) = (r.at(0).unwrap(), r.at(1).unwrap(), r.at(2).unwrap());
            let (factor, volumes, templates): (f64, i64, i64) = (r.at(3).unwrap(), r.at(4).unwrap(), r.at(5).unwrap());
            assert_eq!(allocated, volumes + templates, "pool {id} promised {allocated}");
            assert!(allocated as f64 <= capacity as f64 * factor, "pool {id} promised more than it has");
        }
    }

    pub async fn count(&self, sql: &str) -> i64 {
        self.db().one(Sql::new(sql)).await.unwrap().at(0).unwrap()
    }

    /// Waits for a job that a command accepted.
    pub async fn ended(&self, uuid: &str) -> jobs::JobView {
        testkit::eventually(|| async {
            jobs::view::find(self.db(), uuid).await.unwrap().filter(|job| job.ended.is_some())
        })
        .await
    }

    /// Waits for a job, and gives its result.
    pub async fn output<M: prost::Message + Default>(&self, uuid: &str) -> Result<M, ApiError> {
        self.ended(uuid).await.output()
    }
}

/// Changes a setting, and waits until it is in force.
pub async fn set(w: &World, name: &str, value: &str) {
    let settings = w.node.settings.clone();
    store::tx!(w.db(), "set", |tx| settings.set(tx, name, value, config::Scope::Global).await).await.unwrap();
    let setting = config::find(name).unwrap();
    let now = || w.node.settings.text(setting, config::Scope::Global);
    testkit::eventually(|| async { (now().as_deref() == Some(value)).then_some(()) }).await;
}

/// Lets the images that are to be deleted be due now.
#[allow(dead_code)] // not every test file has images
pub async fn due(w: &World) {
    rows::exec(w.db(), "UPDATE image_deletions SET not_before = 0").await;
    w.node.coord.publish("images", "");
}

fn serve(incoming: rpc::LocalIncoming, routes: Routes) {
    tokio::spawn(async move {
        let _ = Server::builder().add_routes(routes).serve_with_incoming(incoming).await; // ends with the test
    });
}

/// The engine of storage with another builder, for the harness.
pub fn engine(node: &Node, builder: Builder) -> (Storage, Builder) {
    arcus_storage::wire(node.clone(), builder)
}

pub fn admin() -> Caller {
    Caller {
        user_id: 2,
        account_id: 2,
        account_name: "admin".into(),
        domain_id: 1,
        domain_path: "/1/".into(),
        role_type: RoleType::Admin.into(),
        role_id: 1,
        ..Caller::default()
    }
}

pub fn user() -> Caller {
    Caller {
        user_id: 3,
        account_id: 3,
        account_name: "ann".into(),
        domain_id: 5,
        domain_path: "/1/5/".into(),
        role_type: RoleType::User.into(),
        role_id: 4,
        ..Caller::default()
    }
}

/// A request of a job's step.
pub fn keyed<T>(key: &StepKey, message: T) -> tonic::Request<T> {
    let mut request = rpc::cx::request(&admin(), message);
    key.attach(&mut request);
    request
}

/// The error that a status carries.
pub fn error(status: tonic::Status) -> ApiError {
    status.into()
}
