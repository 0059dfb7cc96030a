//! A network service with real peers on the wire: hosts and limits are played by small servers of the same protocol.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used)]

mod peers;
mod vm;

pub use peers::{Applied, Counts, Hosts, Orchestrator};
pub use vm::{VmJob, What, vm_uuid};

use contract::ApiError;
use contract::api::{Caller, RoleType};
use contract_identity::limits_server::LimitsServer;
use contract_infra::host_commands_server::HostCommandsServer;
use contract_infra::placement_server::PlacementServer;
use contract_network as net;
use jobs::Jobs;
use node::Node;
use rpc::LocalNet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Db, DbConfig, Migration, Sql};
use vm::VmWorld;

pub type Channel = tonic::transport::Channel;

macro_rules! sql {
    ($owner:literal, $file:literal, $path:literal) => {
        Migration { owner: $owner, file: $file, sql: include_str!($path) }
    };
}

/// Tables of others that this service reads.
const OTHERS: &[Migration] = &[
    sql!("orchestrator", "0001_topology.sql", "../../../orchestrator/migrations/0001_topology.sql"),
    sql!("orchestrator", "0002_hosts.sql", "../../../orchestrator/migrations/0002_hosts.sql"),
    sql!("orchestrator", "0003_catalogue.sql", "../../../orchestrator/migrations/0003_catalogue.sql"),
    sql!("orchestrator", "0010_vms.sql", "../../../orchestrator/migrations/0010_vms.sql"),
    sql!("orchestrator", "0024_vm_passwords.sql", "../../../orchestrator/migrations/0024_vm_passwords.sql"),
    sql!("orchestrator", "0039_passwords_taken.sql", "../../../orchestrator/migrations/0039_passwords_taken.sql"),
    sql!("identity", "0001_identity.sql", "../../../identity/migrations/0001_identity.sql"),
];

/// One replica of the service with its peers.
pub struct Replica {
    pub node: Node,
    pub net: Arc<LocalNet>,
    pub channel: Channel,
    pub vms: Jobs,
}

/// The service with what it talks to.
pub struct Lab {
    pub db: Db,
    pub replicas: Vec<Replica>,
    pub hosts: Arc<Hosts>,
    pub counts: Counts,
    pub admin: Caller,
}

/// What `Lab::zone` built.
#[derive(Clone, Debug)]
pub struct Zone {
    pub physical: String,
    pub range: String,
}

impl Lab {
    pub async fn new(url: &str) -> Lab {
        Lab::with_replicas(url, 1).await
    }

    pub async fn with_replicas(url: &str, n: usize) -> Lab {
        let db = Db::connect(&DbConfig::new(url)).await.unwrap();
        for migrations in
            [coord::MIGRATIONS, config::MIGRATIONS, model::tags::MIGRATIONS, events::MIGRATIONS, jobs::MIGRATIONS]
        {
            db.migrate(migrations).await.unwrap();
        }
        db.migrate(OTHERS).await.unwrap();
        db.migrate(arcus_network::MIGRATIONS).await.unwrap();
        seed(&db).await;
        let hosts = Arc::new(Hosts { candidates: Mutex::new(vec![1, 2, 3]), ..Hosts::default() });
        let counts = Counts::default();
        let mut replicas = Vec::new();
        for _ in 0..n {
            let db = if n == 1 { db.clone() } else { Db::connect(&DbConfig::new(url)).await.unwrap() };
            replicas.push(replica(db, hosts.clone(), counts.clone()).await);
        }
        Lab { db, replicas, hosts, counts, admin: caller(2, RoleType::Admin, 1, "/1/") }
    }

    pub fn channel(&self) -> Channel {
        self.replicas[0].channel.clone()
    }

    /// Runs a job that a command answered, to its end.
    pub async fn end<M: prost::Message + Default>(&self, job: contract::api::JobRef) -> Result<M, ApiError> {
        testkit::eventually(async || {
            jobs::view::find(&self.db, &job.job_id).await.unwrap().filter(|j| j.ended.is_some())
        })
        .await
        .output()
    }

    /// Runs a VM's job to its end.
    pub async fn vm(&self, job: VmJob) -> Result<net::NicsResponse, ApiError> {
        self.vm_on(0, job).await
    }

    pub async fn vm_on(&self, replica: usize, job: VmJob) -> Result<net::NicsResponse, ApiError> {
        let r = &self.replicas[replica];
        let ticket = r.vms.ticket().await?;
        let accept = jobs::Accept {
            job,
            caller: self.admin.clone(),
            command: None,
            owner: model::Owner::caller(&self.admin),
            instance: None,
            claims: Vec::new(),
            custom_id: None,
            description: "a VM".into(),
            entity_id: None,
        };
        let uuid = ticket.uuid().to_owned();
        store::tx!(r.node.db, "accept", |tx| r.vms.accept(tx, ticket.clone(), accept.clone()).await.map(drop)).await?;
        r.vms.end_of(&uuid).await?.output()
    }

    /// The zone of the developers' set-up, built by the same commands.
    pub async fn zone(&self, vlans: &str, last_ip: &str) -> Zone {
        let c = self.channel();
        let as_admin = |m| rpc::cx::request(&self.admin, m);
        let mut physicals = net::physical_networks_client::PhysicalNetworksClient::new(c.clone());
        let made = physicals
            .create(as_admin(net::CreatePhysicalNetworkRequest {
                zone_id: Some("zone-1".into()),
                name: Some("Sandbox-pnet".into()),
                vlan: Some(vlans.into()),
                isolation_methods: vec!["VLAN".into()],
                broadcast_domain_range: Some("Zone".into()),
                ..Default::default()
            }))
            .await
            .unwrap()
            .into_inner();
        let physical: net::PhysicalNetwork = self.end(made).await.unwrap();
        let id = physical.id.clone().unwrap();
        let mut traffic = net::traffic_types_client::TrafficTypesClient::new(c.clone());
        for kind in ["Guest", "Management", "Public"] {
            let message = net::AddTrafficTypeRequest {
                physical_network_id: Some(id.clone()),
                traffic_type: Some(kind.into()),
                ..Default::default()
            };
            let job = traffic.add(rpc::cx::request(&self.admin, message)).await.unwrap().into_inner();
            self.end::<net::TrafficType>(job).await.unwrap();
        }
        let message = net::UpdatePhysicalNetworkRequest {
            id: Some(id.clone()),
            state: Some("Enabled".into()),
            ..Default::default()
        };
        let job = physicals.update(rpc::cx::request(&self.admin, message)).await.unwrap().into_inner();
        self.end::<net::PhysicalNetwork>(job).await.unwrap();
        let mut providers = net::network_service_providers_client::NetworkServiceProvidersClient::new(c.clone());
        let message =
            net::ListNetworkServiceProvidersRequest { physical_network_id: Some(id.clone()), ..Default::default() };
        let provider =
            providers.list(rpc::cx::request(&self.admin, message)).await.unwrap().into_inner().network_service_provider;
        assert_eq!(provider.iter().map(|p| p.name.clone().unwrap()).collect::<Vec<_>>(), ["VirtualRouter"]);
        let provider = provider[0].id.clone().unwrap();
        let mut elements = net::virtual_router_elements_client::VirtualRouterElementsClient::new(c.clone());
        let message = net::ListVirtualRouterElementsRequest { nsp_id: Some(provider.clone()), ..Default::default() };
        let element =
            elements.list(rpc::cx::request(&self.admin, message)).await.unwrap().into_inner().virtual_router_element;
        let message = net::ConfigureVirtualRouterElementRequest {
            id: element[0].id.clone(),
            enabled: Some(true),
            ..Default::default()
        };
        let job = elements.configure(rpc::cx::request(&self.admin, message)).await.unwrap().into_inner();
        assert_eq!(self.end::<net::VirtualRouterElement>(job).await.unwrap().enabled, Some(true));
        let message = net::UpdateNetworkServiceProviderRequest {
            id: Some(provider),
            state: Some("Enabled".into()),
            ..Default::default()
        };
        let job = providers.update(rpc::cx::request(&self.admin, message)).await.unwrap().into_inner();
        self.end::<net::NetworkServiceProvider>(job).await.unwrap();
        let mut ranges = net::vlan_ip_ranges_client::VlanIpRangesClient::new(c);
        let message = net::CreateVlanIpRangeRequest {
            zone_id: Some("zone-1".into()),
            vlan: Some("50".into()),
            gateway: Some("192.168.0.1".into()),
            netmask: Some("255.255.240.0".into()),
            start_ip: Some("192.168.0.2".into()),
            end_ip: Some(last_ip.into()),
            for_virtual_network: Some(true),
            ..Default::default()
        };
        let range = ranges.create(rpc::cx::request(&self.admin, message)).await.unwrap().into_inner();
        self.enable_zone().await;
        Zone { physical: id, range: range.id.unwrap() }
    }

    pub async fn enable_zone(&self) {
        self.write(Sql::new("UPDATE zones SET allocation_state = 'Enabled' WHERE id = 1")).await;
    }

    pub async fn write(&self, sql: Sql) {
        store::tx!(self.db, "test", |tx| tx.exec(sql.clone()).await).await.unwrap();
    }

    pub async fn offering(&self, name: &str) -> String {
        self.text(Sql::new("SELECT uuid FROM network_offerings WHERE name = ?").bind(name)).await
    }

    pub async fn text(&self, sql: Sql) -> String {
        self.db.one(sql).await.unwrap().at(0).unwrap()
    }

    pub async fn number(&self, sql: &str) -> i64 {
        self.db.one(Sql::new(sql)).await.unwrap().at(0).unwrap()
    }

    /// An isolated network with source NAT: number and UUID.
    pub async fn isolated(&self, gateway: &str, netmask: &str) -> (i64, String) {
        let offering = self.offering("DefaultIsolatedNetworkOfferingWithSourceNatService").await;
        let network = self
            .create(net::CreateNetworkRequest {
                name: Some("bench-isolated".into()),
                display_text: Some("bench-isolated".into()),
                zone_id: Some("zone-1".into()),
                network_offering_id: Some(offering),
                gateway: Some(gateway.into()),
                netmask: Some(netmask.into()),
                ..Default::default()
            })
            .await
            .unwrap();
        let uuid = network.id.unwrap();
        (self.network_number(&uuid).await, uuid)
    }

    /// The row of a machine, as the orchestrator writes it: its UUID is that of [`vm_uuid`].
    pub async fn machine(&self, vm: i64, owner: (i64, i64, &str)) {
        let sql = Sql::new(
            "INSERT INTO vms (id, uuid, name, name_lower, display_name, display_lower, instance_name, state, account_id, domain_id, \
             domain_path, user_id, zone_id, template_id, hypervisor, service_offering_id, cpu, cpu_mhz, memory_mb, details, \
             display_vm, ha_enabled, dynamic_scaling, password_enabled, generation, limits_key, created, changed) VALUES \
             (?, ?, ?, ?, ?, ?, ?, 'Running', ?, ?, ?, 1, 1, 1, 'Simulator', 1, 1, 1, 1, '{}', 1, 0, 0, 0, 1, '', 0, 0)",
        );
        let (name, shown) = (format!("vm{vm}"), format!("Machine {vm}"));
        let sql = sql.bind(vm).bind(vm_uuid(vm)).bind(&name).bind(&name).bind(&shown).bind(shown.to_lowercase());
        self.write(sql.bind(format!("i-2-{vm}-VM")).bind(owner.0).bind(owner.1).bind(owner.2)).await;
    }

    pub async fn network_number(&self, uuid: &str) -> i64 {
        self.db.one(Sql::new("SELECT id FROM networks WHERE uuid = ?").bind(uuid)).await.unwrap().at(0).unwrap()
    }

    pub async fn create(&self, message: net::CreateNetworkRequest) -> Result<net::Network, ApiError> {
        self.create_as(&self.admin, message).await
    }

    pub async fn create_as(
        &self,
        caller: &Caller,
        message: net::CreateNetworkRequest,
    ) -> Result<net::Network, ApiError> {
        let mut networks = net::networks_client::NetworksClient::new(self.channel());
        Ok(networks.create(rpc::cx::request(caller, message)).await?.into_inner())
    }

    pub async fn networks(
        &self,
        caller: &Caller,
        message: net::ListNetworksRequest,
    ) -> Result<net::ListNetworksResponse, ApiError> {
        let mut networks = net::networks_client::NetworksClient::new(self.channel());
        Ok(networks.list(rpc::cx::request(caller, message)).await?.into_inner())
    }

    /// The network as root admins see it.
    pub async fn network(&self, uuid: &str) -> net::Network {
        let message = net::ListNetworksRequest { id: Some(uuid.into()), ..Default::default() };
        self.networks(&self.admin, message).await.unwrap().network.remove(0)
    }

    /// Nothing is held twice or by nobody.
    pub async fn audit(&self) {
        for sql in [
            "SELECT COUNT(*) FROM nics n WHERE n.removed IS NULL AND EXISTS (SELECT 1 FROM nics m WHERE m.id <> n.id AND m.removed IS NULL \
             AND (m.mac = n.mac OR (m.network_id = n.network_id AND m.ip = n.ip)))",
            "SELECT COUNT(*) FROM vnets v WHERE NOT EXISTS (SELECT 1 FROM networks n WHERE n.id = v.network_id AND n.removed IS NULL)",
            "SELECT COUNT(*) FROM ip_addresses WHERE (state = 'Free') <> (network_id IS NULL)",
            "SELECT COUNT(*) FROM ip_addresses i WHERE i.state <> 'Free' AND NOT EXISTS (SELECT 1 FROM networks n WHERE n.id = i.network_id AND n.removed IS NULL)",
            "SELECT COUNT(*) FROM nics c WHERE c.removed IS NULL AND NOT EXISTS (SELECT 1 FROM networks n WHERE n.id = c.network_id AND n.removed IS NULL)",
            "SELECT COUNT(*) FROM networks WHERE removed IS NULL AND state IN ('Implementing', 'Shutdown')",
        ] {
            assert_eq!(self.number(sql).await, 0, "{sql}");
        }
    }
}

async fn replica(db: Db, hosts: Arc<Hosts>, counts: Counts) -> Replica {
    let (node, local) = Node::for_tests(db.clone()).await;
    let orchestrator = Orchestrator(hosts);
    let peers = tonic::transport::Server::builder()
        .add_service(HostCommandsServer::new(orchestrator.clone()))
        .add_service(PlacementServer::new(orchestrator))
        .serve_with_incoming(local.listen("orchestrator"));
    node.spawn("orchestrator", async move { peers.await.unwrap() });
    let identity = tonic::transport::Server::builder()
        .add_service(LimitsServer::new(counts))
        .serve_with_incoming(local.listen("identity"));
    node.spawn("identity", async move { identity.await.unwrap() });
    let routes = arcus_network::start(node.clone()).await.unwrap();
    let served = tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(local.listen("network"));
    node.spawn("network", async move { served.await.unwrap() });
    let channel = local.channel("network");
    let builder = Jobs::builder(db, node.coord.clone(), "test", node.replica.clone());
    let vms = builder.register::<VmJob>(Arc::new(VmWorld(channel.clone()))).start(node.stop.clone(), &node.tasks);
    // Engines take over the jobs of replicas that aren't members.
    let member = coord::Member { id: node.replica.clone(), service: "network".into(), ..Default::default() };
    let (coord, stop) = (node.coord.clone(), node.stop.clone());
    node.spawn("member", async move { coord.stay(member, stop).await });
    testkit::wait_until(
        async || node.coord.members().borrow().iter().any(|m| m.id == node.replica),
        Duration::from_secs(5),
    )
    .await;
    Replica { node, net: local, channel, vms }
}

pub fn caller(account: i64, role: RoleType, domain: i64, path: &str) -> Caller {
    Caller {
        user_id: account,
        user_uuid: format!("user-{account}"),
        account_id: account,
        account_uuid: format!("account-{account}"),
        account_name: format!("account{account}"),
        domain_id: domain,
        domain_uuid: format!("domain-{domain}"),
        domain_path: path.into(),
        role_type: role.into(),
        role_id: 1,
        request_id: "test".into(),
        ..Caller::default()
    }
}

/// Domains /1/ (ROOT), /1/2/ (a), /1/2/3/ (a/b), /1/4/ (c); accounts 1 system, 2 admin, 5 in a, 6 in a/b, 7 in c; an advanced zone with hosts.
async fn seed(db: &Db) {
    store::tx!(db, "seed", |tx| {
        for (id, name, path, parent) in [(1, "ROOT", "/1/", None), (2, "a", "/1/2/", Some(1)), (3, "b", "/1/2/3/", Some(2)), (4, "c", "/1/4/", Some(1))] {
            tx.exec(
                Sql::new(
                    "INSERT INTO domains (id, uuid, name, name_lower, name_path, path, parent, level, live_key, state, owner_account_id, \
                     changes, created) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, 'Active', 1, 0, 0)",
                )
                .bind(i64::from(id))
                .bind(format!("domain-{id}"))
                .bind(name)
                .bind(name.to_lowercase())
                .bind(name)
                .bind(path)
                .bind(parent.map(i64::from))
                .bind(name),
            )
            .await?;
        }
        for (id, domain, path) in [(1i64, 1i64, "/1/"), (2, 1, "/1/"), (5, 2, "/1/2/"), (6, 3, "/1/2/3/"), (7, 4, "/1/4/")] {
            tx.exec(
                Sql::new(
                    "INSERT INTO accounts (id, uuid, name, name_lower, type, role_id, domain_id, domain_path, live_key, state, \
                     cleanup_needed, is_default, changes, created) VALUES (?, ?, ?, ?, 0, 1, ?, ?, ?, 'enabled', 0, 0, 0, 0)",
                )
                .bind(id)
                .bind(format!("account-{id}"))
                .bind(format!("account{id}"))
                .bind(format!("account{id}"))
                .bind(domain)
                .bind(path)
                .bind(format!("{domain}/account{id}")),
            )
            .await?;
        }
        tx.exec(
            "INSERT INTO zones (id, uuid, name, name_lower, live_key, network_type, guest_cidr, dns1, internal_dns1, dhcp_provider, \
             security_groups, local_storage, allocation_state, zone_token, sort_key, created) VALUES (1, 'zone-1', 'Sandbox-simulator', \
             'sandbox-simulator', 'sandbox', 'Advanced', '10.1.1.0/24', '10.147.28.6', '10.147.28.6', 'VirtualRouter', 0, 0, 'Disabled', 't', 0, 0)",
        )
        .await?;
        tx.exec(
            "INSERT INTO pods (id, uuid, name, name_lower, live_key, zone_id, gateway, netmask, cidr, start_ip, end_ip, allocation_state, \
             created) VALUES (1, 'pod-1', 'POD0', 'pod0', 'pod0', 1, '172.16.0.1', '255.255.0.0', '172.16.0.0/16', '172.16.0.2', \
             '172.16.15.254', 'Enabled', 0)",
        )
        .await?;
        for id in 1..=3i64 {
            tx.exec(
                Sql::new(
                    "INSERT INTO hosts (id, uuid, name, name_lower, live_key, guid, url, cluster_id, pod_id, zone_id, hypervisor, status, \
                     resource_state, cpu_cores, cpu_mhz, memory, capabilities, tags, conn_epoch, created) VALUES (?, ?, ?, ?, ?, ?, 'u', 1, 1, 1, \
                     'Simulator', 'Up', 'Enabled', 1, 1, 1, '', '', 1, 0)",
                )
                .bind(id)
                .bind(format!("host-{id}"))
                .bind(format!("h{id}"))
                .bind(format!("h{id}"))
                .bind(format!("g{id}"))
                .bind(format!("g{id}")),
            )
            .await?;
        }
        Ok::<_, store::Error>(())
    })
    .await
    .unwrap();
}
