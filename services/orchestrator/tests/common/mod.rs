//! A whole orchestrator with a real agent that simulates hosts, over the in-process network.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use arcus_agent::{Agent, Dial, Options, Says, SimulatorHandle};
use contract::ApiError;
use contract::api::{Caller, RoleType};
use contract_compute::instance_groups_client::InstanceGroupsClient;
use contract_compute::ssh_key_pairs_client::SshKeyPairsClient;
use contract_compute::virtual_machines_client::VirtualMachinesClient;
use contract_infra::async_jobs_client::AsyncJobsClient;
use contract_infra::capacities_client::CapacitiesClient;
use contract_infra::certificate_authority_client::CertificateAuthorityClient;
use contract_infra::clusters_client::ClustersClient;
use contract_infra::configurations_client::ConfigurationsClient;
use contract_infra::hosts_client::HostsClient;
use contract_infra::hypervisors_client::HypervisorsClient;
use contract_infra::os_types_client::OsTypesClient;
use contract_infra::placement_client::PlacementClient;
use contract_infra::pods_client::PodsClient;
use contract_infra::regions_client::RegionsClient;
use contract_infra::service_offerings_client::ServiceOfferingsClient;
use contract_infra::simulator_mocks_client::SimulatorMocksClient;
use contract_infra::tags_client::TagsClient;
use contract_infra::zones_client::ZonesClient;
use contract_infra::{
    AddClusterRequest, AddHostRequest, AsyncJob, Cluster, CreatePodRequest, CreateZoneRequest, Host, Pod,
    QueryAsyncJobResultRequest, Zone,
};
use node::Node;
use pki::Pki;
use rpc::LocalNet;
use std::sync::Arc;
use std::time::Duration;
use store::{Db, DbConfig, Migration, Sql, Value};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Server};
use tonic::{Response, Status};

pub const SECOND: Duration = Duration::from_secs(1);

macro_rules! other {
    ($($owner:literal / $file:literal),* $(,)?) => {
        /// Tables of other services, which lists read.
        const OTHERS: &[Migration] = &[$(Migration {
            owner: $owner,
            file: $file,
            sql: include_str!(concat!("../../../", $owner, "/migrations/", $file)),
        }),*];
    };
}
other! {
    "identity" / "0001_identity.sql",
    "network" / "0001_physical.sql",
    "network" / "0002_networks.sql",
    "storage" / "0001_offerings.sql",
    "storage" / "0002_pools.sql",
    "storage" / "0003_images.sql",
    "storage" / "0005_secondary.sql",
    "storage" / "0004_volumes.sql",
}

/// The database with all tables.
pub async fn database(db: &testkit::TestDb) -> Db {
    let db = Db::connect(&DbConfig::new(db.url())).await.unwrap();
    for migrations in [
        OTHERS,
        arcus_orchestrator::MIGRATIONS,
        jobs::MIGRATIONS,
        events::MIGRATIONS,
        model::tags::MIGRATIONS,
        pki::MIGRATIONS,
    ] {
        db.migrate(migrations).await.unwrap();
    }
    db
}

pub struct Cloud {
    pub node: Node,
    pub net: Arc<LocalNet>,
    pub db: Db,
    pub hub: hub::Hub,
    _membership: Option<coord::Membership>,
}

impl Cloud {
    pub async fn start(db: &testkit::TestDb) -> Cloud {
        pki::install_default();
        let db = database(db).await;
        tenants(&db).await;
        let (node, net) = Node::for_tests(db.clone()).await;
        let pki = Pki::open(&node.db, &node.vault, &node.coord).await.unwrap();
        let member =
            coord::Member { id: node.replica.clone(), service: "orchestrator".into(), ..coord::Member::default() };
        let membership = node.coord.join(member).await.unwrap();
        let (routes, hub) = arcus_orchestrator::start(node.clone(), pki).await.unwrap();
        let incoming = net.listen("orchestrator");
        let stop = node.stop.clone();
        node.tasks.spawn(async move {
            let serve = Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, stop.cancelled());
            serve.await.unwrap();
        });
        Cloud { node, net, db, hub, _membership: Some(membership) }
    }

    /// Replicas that run elsewhere, as `node` sees them by way of `net`.
    pub fn around(node: Node, net: Arc<LocalNet>, hub: hub::Hub) -> Cloud {
        let db = node.db.clone();
        Cloud { node, net, db, hub, _membership: None }
    }

    pub fn channel(&self) -> Channel {
        self.net.channel("orchestrator")
    }

    pub async fn end(self) {
        self.node.shut_down(5 * SECOND).await;
    }

    /// A factory of simulated hosts; it is connected when this returns.
    pub async fn factory(&self) -> Factory {
        self.factory_in(testkit::temp_dir(), Says::default()).await
    }

    /// One with this state, which says that of itself.
    async fn factory_in(&self, dir: tempfile::TempDir, says: Says) -> Factory {
        let options = || Options {
            durable: false,
            says: says.clone(),
            ..Options::new("test", dir.path(), Dial::Channel(self.net.channel("orchestrator")))
        };
        // A look at leases that is under way still has the state of the agent before.
        let agent = testkit::eventually(|| async { Agent::open(options()).ok() }).await;
        let simulator = agent.simulator();
        let stop = CancellationToken::new();
        let task = tokio::spawn(agent.run(stop.clone()));
        Factory { simulator, stop, task, dir }
    }

    pub async fn query(&self, caller: &Caller, job: &str) -> AsyncJob {
        let request = QueryAsyncJobResultRequest { job_id: Some(job.to_owned()) };
        AsyncJobsClient::new(self.channel()).query(rpc::cx::request(caller, request)).await.unwrap().into_inner()
    }

    /// The job when it has ended.
    pub async fn ended(&self, caller: &Caller, job: &str) -> AsyncJob {
        testkit::eventually(|| async {
            let job = self.query(caller, job).await;
            (job.job_status != Some(0)).then_some(job)
        })
        .await
    }

    /// Makes a zone with a pod and a cluster, as sim_zone.py does.
    pub async fn zone(&self, name: &str, octet: u8) -> Place {
        let root = root();
        let zone = self.zones().create(rpc::cx::request(&root, new_zone(name))).await.unwrap().into_inner();
        let pod =
            self.pods().create(rpc::cx::request(&root, new_pod("POD0", zone.id(), octet))).await.unwrap().into_inner();
        let cluster = self.add_cluster(zone.id(), pod.id(), "C0").await.unwrap();
        Place { zone, pod, cluster }
    }

    pub async fn add_cluster(&self, zone: &str, pod: &str, name: &str) -> Result<Cluster, ApiError> {
        let request = AddClusterRequest {
            cluster_name: Some(name.into()),
            zone_id: Some(zone.into()),
            pod_id: Some(pod.into()),
            hypervisor: Some("Simulator".into()),
            cluster_type: Some("CloudManaged".into()),
            ..AddClusterRequest::default()
        };
        let added = ok(self.clusters().add(rpc::cx::request(&root(), request)).await)?;
        Ok(added.cluster.into_iter().next().unwrap())
    }

    pub async fn add_host(&self, place: &Place, n: usize) -> Result<Host, ApiError> {
        let added = ok(self.hosts().add(rpc::cx::request(&root(), new_host(place, n))).await)?;
        Ok(added.host.into_iter().next().unwrap())
    }

    pub async fn number(&self, table: &str, uuid: &str) -> i64 {
        let sql = Sql::new(&format!("SELECT id FROM {table} WHERE uuid = ?")).bind(uuid);
        self.db.one(sql).await.unwrap().at(0).unwrap()
    }

    /// Writes a row of another service.
    pub async fn insert(&self, table: &str, row: &[(&str, Value)]) {
        insert(&self.db, table, row).await;
    }

    pub async fn count(&self, sql: &str) -> i64 {
        self.db.one(Sql::new(sql)).await.unwrap().at(0).unwrap()
    }

    pub fn zones(&self) -> ZonesClient<Channel> {
        ZonesClient::new(self.channel())
    }
    pub fn certificates(&self) -> CertificateAuthorityClient<Channel> {
        CertificateAuthorityClient::new(self.channel())
    }
    pub fn regions(&self) -> RegionsClient<Channel> {
        RegionsClient::new(self.channel())
    }
    pub fn pods(&self) -> PodsClient<Channel> {
        PodsClient::new(self.channel())
    }
    pub fn clusters(&self) -> ClustersClient<Channel> {
        ClustersClient::new(self.channel())
    }
    pub fn vms(&self) -> VirtualMachinesClient<Channel> {
        VirtualMachinesClient::new(self.channel())
    }
    pub fn hosts(&self) -> HostsClient<Channel> {
        HostsClient::new(self.channel())
    }
    pub fn offerings(&self) -> ServiceOfferingsClient<Channel> {
        ServiceOfferingsClient::new(self.channel())
    }
    pub fn os_types(&self) -> OsTypesClient<Channel> {
        OsTypesClient::new(self.channel())
    }
    pub fn hypervisors(&self) -> HypervisorsClient<Channel> {
        HypervisorsClient::new(self.channel())
    }
    pub fn groups(&self) -> InstanceGroupsClient<Channel> {
        InstanceGroupsClient::new(self.channel())
    }
    pub fn key_pairs(&self) -> SshKeyPairsClient<Channel> {
        SshKeyPairsClient::new(self.channel())
    }
    pub fn tags(&self) -> TagsClient<Channel> {
        TagsClient::new(self.channel())
    }
    pub fn capacities(&self) -> CapacitiesClient<Channel> {
        CapacitiesClient::new(self.channel())
    }
    pub fn configurations(&self) -> ConfigurationsClient<Channel> {
        ConfigurationsClient::new(self.channel())
    }
    pub fn jobs(&self) -> AsyncJobsClient<Channel> {
        AsyncJobsClient::new(self.channel())
    }
    pub fn mocks(&self) -> SimulatorMocksClient<Channel> {
        SimulatorMocksClient::new(self.channel())
    }
    pub fn placement(&self) -> PlacementClient<Channel> {
        PlacementClient::new(self.channel())
    }
}

pub struct Place {
    pub zone: Zone,
    pub pod: Pod,
    pub cluster: Cluster,
}

pub struct Factory {
    pub simulator: SimulatorHandle,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), ApiError>>,
    dir: tempfile::TempDir,
}

impl Factory {
    /// Its agent is replaced by another build of it.
    pub async fn replaced(self, cloud: &Cloud, says: Says) -> Factory {
        self.stop.cancel();
        drop(self.simulator);
        self.task.await.unwrap().unwrap();
        cloud.factory_in(self.dir, says).await
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

pub fn new_zone(name: &str) -> CreateZoneRequest {
    CreateZoneRequest {
        name: Some(name.into()),
        network_type: Some("Advanced".into()),
        dns1: Some("10.147.28.6".into()),
        internal_dns1: Some("10.147.28.6".into()),
        guest_cidr_address: Some("10.1.1.0/24".into()),
        ..CreateZoneRequest::default()
    }
}

pub fn new_pod(name: &str, zone: &str, octet: u8) -> CreatePodRequest {
    CreatePodRequest {
        name: Some(name.into()),
        zone_id: Some(zone.into()),
        gateway: Some(format!("172.{octet}.0.1")),
        netmask: Some("255.255.0.0".into()),
        start_ip: Some(format!("172.{octet}.0.2")),
        end_ip: Some(format!("172.{octet}.15.254")),
        ..CreatePodRequest::default()
    }
}

pub fn new_host(place: &Place, n: usize) -> AddHostRequest {
    AddHostRequest {
        zone_id: Some(place.zone.id().into()),
        pod_id: Some(place.pod.id().into()),
        cluster_id: Some(place.cluster.id().into()),
        hypervisor: Some("Simulator".into()),
        username: Some("root".into()),
        password: Some("password".into()),
        url: Some(format!("http://sim/c0/h{n}/cpucore=64&cpuspeed=8000&memory=274877906944")),
        ..AddHostRequest::default()
    }
}

pub fn ok<T>(result: Result<Response<T>, Status>) -> Result<T, ApiError> {
    result.map(Response::into_inner).map_err(ApiError::from)
}

/// The error's code and text.
pub fn refused<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> (u16, String) {
    let error = ok(result).unwrap_err();
    (error.code, error.full_text().to_owned())
}

pub fn caller(role: RoleType, account: i64, domain: i64, path: &str) -> Caller {
    Caller {
        user_id: account,
        user_uuid: format!("user-{account}"),
        account_id: account,
        account_uuid: format!("account-{account}"),
        account_name: name_of(account).into(),
        domain_id: domain,
        domain_path: path.into(),
        role_type: role.into(),
        user_name: name_of(account).into(),
        request_id: "test".into(),
        ..Caller::default()
    }
}

fn name_of(account: i64) -> &'static str {
    match account {
        1 => "system",
        2 => "admin",
        3 => "alice",
        4 => "bob",
        _ => "dora",
    }
}

/// The root admin.
pub fn root() -> Caller {
    caller(RoleType::Admin, 2, 1, "/1/")
}

/// A user of the domain ROOT/a.
pub fn alice() -> Caller {
    caller(RoleType::User, 3, 2, "/1/2/")
}

/// A user of the domain ROOT/b.
pub fn bob() -> Caller {
    caller(RoleType::User, 4, 3, "/1/3/")
}

/// The administrator of the domain ROOT/a.
pub fn dora() -> Caller {
    caller(RoleType::DomainAdmin, 5, 2, "/1/2/")
}

/// With a key: the same request again is answered the same.
pub fn keyed(mut caller: Caller, key: &str) -> Caller {
    caller.idempotency_key = Some(key.into());
    caller.request_hash = vec![1, 2, 3];
    caller
}

pub async fn insert(db: &Db, table: &str, row: &[(&str, Value)]) {
    let columns: Vec<&str> = row.iter().map(|(c, _)| *c).collect();
    let sql = Sql::new(&format!("INSERT INTO {table} ({}) VALUES ", columns.join(", ")));
    let sql = sql.tuple(row.iter().map(|(_, v)| v.clone()));
    store::tx!(db, "test-row", |tx| tx.exec(sql.clone()).await).await.unwrap();
}

/// The domains and accounts that callers are of.
pub async fn tenants(db: &Db) {
    for (id, name, path, parent) in
        [(1i64, "ROOT", "/1/", None), (2, "a", "/1/2/", Some(1i64)), (3, "b", "/1/3/", Some(1))]
    {
        let row = [
            ("id", Value::from(id)),
            ("uuid", format!("domain-{id}").into()),
            ("name", name.into()),
            ("name_lower", name.to_lowercase().into()),
            ("name_path", name.into()),
            ("path", path.into()),
            ("parent", parent.into()),
            ("level", Value::from(id)),
            ("state", "Active".into()),
            ("owner_account_id", Value::from(2i64)),
            ("changes", Value::from(0i64)),
            ("created", Value::from(0i64)),
        ];
        insert(db, "domains", &row).await;
    }
    for (id, domain, path) in [(1i64, 1i64, "/1/"), (2, 1, "/1/"), (3, 2, "/1/2/"), (4, 3, "/1/3/"), (5, 2, "/1/2/")] {
        let row = [
            ("id", Value::from(id)),
            ("uuid", format!("account-{id}").into()),
            ("name", name_of(id).into()),
            ("name_lower", name_of(id).into()),
            ("type", Value::from(0i64)),
            ("role_id", Value::from(1i64)),
            ("domain_id", Value::from(domain)),
            ("domain_path", path.into()),
            ("state", "enabled".into()),
            ("cleanup_needed", Value::from(0i64)),
            ("is_default", Value::from(0i64)),
            ("changes", Value::from(0i64)),
            ("created", Value::from(0i64)),
        ];
        insert(db, "accounts", &row).await;
    }
}
