//! A router is on one host in the end, whatever its host has been taken for.

use crate::world::World;
use audit::Auditor;
use contract::api::{Caller, RoleType};
use contract_agent::{Command, Mock, SetMocks, command};
use contract_compute::virtual_machines_client::VirtualMachinesClient;
use contract_compute::{StartVirtualMachineRequest, StopVirtualMachineRequest};
use contract_infra::ReleaseDedicatedHostRequest;
use contract_infra::dedications_client::DedicationsClient;
use orchestrator::audit::HubReports;
use std::time::Duration;
use store::Sql;
use testkit::wait_until;

const SECOND: Duration = Duration::from_secs(1);
const STRAY: &str = "55555555-1111-4111-8111-111111111111";

impl World {
    /// Silence counts after a second, and what isn't known is looked at again every second.
    async fn hasten(&self) {
        let settings = &self.node.settings;
        store::tx!(self.node.db, "hasten", |tx| {
            for name in ["ping.interval", "ping.timeout", "investigate.retry.interval"] {
                settings.set(tx, name, "1", config::Scope::Global).await?;
            }
            Ok::<_, contract::ApiError>(())
        })
        .await
        .unwrap();
    }

    async fn await_host(&self, host: &str, status: &str) {
        let sql = Sql::new("SELECT status FROM hosts WHERE uuid = ?").bind(host);
        let is = || async { self.node.db.one(sql.clone()).await.unwrap().at::<String>(0).unwrap() == status };
        wait_until(is, 60 * SECOND).await;
    }

    /// Stops all VMs of a host.
    async fn empty(&self, host: &str) {
        let mut vms = VirtualMachinesClient::new(self.net.channel("orchestrator"));
        for vm in self.simulator.vms().into_iter().filter(|vm| vm.host == host) {
            let message = StopVirtualMachineRequest { id: Some(vm.spec.uuid), ..StopVirtualMachineRequest::default() };
            vms.stop(rpc::cx::request(&admin(), message)).await.unwrap();
        }
        let left = Sql::new("SELECT COUNT(*) FROM vms v JOIN hosts h ON h.id = v.host_id WHERE h.uuid = ?").bind(host);
        let is_empty = || async { self.node.db.one(left.clone()).await.unwrap().at::<i64>(0).unwrap() == 0 };
        wait_until(is_empty, 90 * SECOND).await;
    }

    /// Every host is everybody's: one is kept for a tenant, and the router may be there.
    async fn release_hosts(&self) {
        let kept = "SELECT h.uuid FROM hosts h JOIN dedications d ON d.resource_id = h.id";
        let mut dedications = DedicationsClient::new(self.net.channel("orchestrator"));
        for row in self.node.db.all(Sql::new(kept)).await.unwrap() {
            let message = ReleaseDedicatedHostRequest { host_id: row.at(0).unwrap(), custom_job_id: None };
            dedications.release_host(rpc::cx::request(&admin(), message)).await.unwrap();
        }
        let left = || async { self.node.db.all(Sql::new(kept)).await.unwrap().is_empty() };
        wait_until(left, 60 * SECOND).await;
    }

    /// Starts a VM on a certain host.
    async fn start_on(&self, vm: &str, host: &str) {
        let message = StartVirtualMachineRequest {
            id: Some(vm.to_owned()),
            host_id: Some(host.to_owned()),
            ..StartVirtualMachineRequest::default()
        };
        let mut vms = VirtualMachinesClient::new(self.net.channel("orchestrator"));
        let job = vms.start(rpc::cx::request(&admin(), message)).await.unwrap().into_inner().job_id;
        let runs = || async {
            if self.simulator.vm(vm).is_some_and(|vm| vm.host == host) {
                return Ok(());
            }
            let sql = Sql::new("SELECT state, error FROM jobs WHERE uuid = ?").bind(job.as_str());
            let row = self.node.db.one(sql).await.unwrap();
            let error: Option<Vec<u8>> = row.at(1).unwrap();
            Err(format!("{} {}", row.at::<String>(0).unwrap(), String::from_utf8_lossy(&error.unwrap_or_default())))
        };
        testkit::until_ok(runs, 60 * SECOND).await;
    }

    async fn mocks(&self, mocks: Vec<Mock>) {
        let command = Command { body: Some(command::Body::SetMocks(SetMocks { mocks })) };
        self.orchestrator.hub.on_factories(command, 10 * SECOND).await.unwrap();
    }

    /// The hosts that have this router.
    fn hosts_of(&self, router: &str) -> Vec<String> {
        self.simulator.routers().into_iter().filter(|r| r.uuid == router).map(|r| r.host).collect()
    }

    /// The hosts whose routers answer under this address.
    fn hosts_with(&self, address: &str) -> Vec<String> {
        let has = |r: &agent::simulator::RouterView| {
            let list = r.spec.interfaces.iter().flat_map(|i| &i.list);
            list.flat_map(|i| &i.addresses).any(|a| a.split('/').next() == Some(address))
        };
        self.simulator.routers().into_iter().filter(has).map(|r| r.host).collect()
    }
}

fn admin() -> Caller {
    Caller {
        user_id: 2,
        account_id: 2,
        account_name: "admin".into(),
        domain_id: 1,
        domain_path: "/1/".into(),
        role_type: RoleType::Admin.into(),
        role_id: 1,
        user_name: "admin".into(),
        ..Caller::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_silent_drops_the_router_that_runs_elsewhere() {
    let world = World::new().await;
    world.hasten().await;
    let hand = &world.simulator;
    let router = world.text("SELECT uuid FROM routers WHERE removed IS NULL").await;
    let guest = world.text("SELECT guest_ip FROM routers WHERE removed IS NULL").await;
    let public = world.text("SELECT public_ip FROM routers WHERE removed IS NULL").await;
    let old = hand.router(&router).unwrap().host;
    let new = hand.hosts().into_iter().find(|h| *h != old).unwrap();
    world.release_hosts().await;
    // By its lease others can tell whether the host lives.
    let vm = world.text("SELECT uuid FROM vms WHERE name = 'off'").await;
    world.start_on(&vm, &old).await;

    // Silent, and alive as others see: the router stays, and runs on when the host is back.
    assert!(hand.silence_host(&old, true));
    world.await_host(&old, "Alert").await;
    let known = "SELECT COUNT(*) FROM host_absences WHERE verdict = 'Alive'";
    let found = || async { world.node.db.one(Sql::new(known)).await.unwrap().at::<i64>(0).unwrap() == 1 };
    wait_until(found, 60 * SECOND).await;
    assert_eq!(world.hosts_of(&router), [old.as_str()]);
    assert!(hand.silence_host(&old, false));
    world.await_host(&old, "Up").await;
    assert_eq!(world.hosts_of(&router), [old.as_str()]);

    // Silent, without its storage, and so taken for dead, which it isn't: its router is started elsewhere and runs twice.
    let cut = Mock { id: 1, host_uuid: Some(old.clone()), lease_unreachable: true, ..Mock::default() };
    world.mocks(vec![cut]).await;
    assert!(hand.silence_host(&old, true));
    world.await_host(&old, "Down").await;
    wait_until(|| async { world.hosts_of(&router).len() == 2 }, 60 * SECOND).await;
    // It is back: one, with the network's addresses.
    world.mocks(Vec::new()).await;
    assert!(hand.silence_host(&old, false));
    wait_until(|| async { world.hosts_of(&router) == [new.as_str()] }, 60 * SECOND).await;
    for address in [&guest, &public] {
        assert_eq!(world.hosts_with(address), [new.as_str()], "{address}");
    }

    // A host that comes back with a router which nobody knows, and without the one that it should have.
    assert!(hand.vanish_router(&router, Some(STRAY)));
    assert!(hand.silence_host(&new, true) && hand.silence_host(&new, false));
    let right = || async { world.hosts_of(STRAY).is_empty() && world.hosts_of(&router) == [new.as_str()] };
    wait_until(right, 60 * SECOND).await;
    assert_eq!(world.hosts_with(&guest), [new.as_str()]);
    let settled = || async {
        let reports = HubReports(world.orchestrator.hub.clone());
        let outcome = Auditor::new(&world.node.db).ask(&reports).run().await.unwrap();
        !outcome.violations.iter().any(|v| v.check.starts_with("host-router"))
    };
    wait_until(settled, 60 * SECOND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_leaves_a_dead_host_that_ran_no_vm() {
    let world = World::new().await;
    world.hasten().await;
    let hand = &world.simulator;
    let router = world.text("SELECT uuid FROM routers WHERE removed IS NULL").await;
    let old = hand.router(&router).unwrap().host;
    let new = hand.hosts().into_iter().find(|h| *h != old).unwrap();
    world.empty(&old).await;
    assert!(hand.vms().iter().all(|vm| vm.host == new));
    let pools = "SELECT COUNT(*) FROM pool_hosts";
    assert_eq!(world.node.db.one(Sql::new(pools)).await.unwrap().at::<i64>(0).unwrap(), 2, "both reach the pool");

    // Only silent: its heartbeat goes on, and the router stays.
    assert!(hand.silence_host(&old, true));
    let known = "SELECT COUNT(*) FROM host_absences WHERE verdict = 'Alive' AND reason LIKE '%alive by its storage%'";
    let found = || async { world.node.db.one(Sql::new(known)).await.unwrap().at::<i64>(0).unwrap() == 1 };
    wait_until(found, 60 * SECOND).await;
    assert_eq!(world.hosts_of(&router), [old.as_str()]);
    assert!(hand.silence_host(&old, false));
    world.await_host(&old, "Up").await;

    // All of it stands still, as if it were dead, and nobody says that it is off.
    let frozen = Mock { id: 1, host_uuid: Some(old.clone()), frozen: true, ..Mock::default() };
    world.mocks(vec![frozen]).await;
    world.await_host(&old, "Down").await;
    wait_until(|| async { world.hosts_of(&router).contains(&new) }, 60 * SECOND).await;
    world.mocks(Vec::new()).await;
    wait_until(|| async { world.hosts_of(&router) == [new.as_str()] }, 60 * SECOND).await;
}
