//! Hosts that are emptied for maintenance, and what comes between.

use crate::common::*;
use crate::fakes::{self, Plugged};
use crate::fleet::Fleet;
use crate::site::{SMALL, Site, uuid};
use crate::{HOST, VM};
use contract_agent::Mock;
use contract_compute::virtual_machine_migrations_client::VirtualMachineMigrationsClient;
use contract_compute::{
    DestroyVirtualMachineRequest, MigrateVirtualMachineRequest, RebootVirtualMachineRequest, StopVirtualMachineRequest,
};
use contract_infra::{
    AsyncJob, CancelHostMaintenanceRequest, DeleteHostRequest, Host, ListCapacityRequest, PickHostRequest,
    PrepareHostForMaintenanceRequest, ReconnectHostRequest, UpdateHostRequest,
};
use prost::Message as _;
use rpc::cx::request;
use store::Sql;

impl Site {
    /// Begins to empty a host; gives the job.
    async fn empty(&self, n: usize) -> String {
        let r = PrepareHostForMaintenanceRequest { id: Some(self.hosts[n].clone()), ..Default::default() };
        ok(self.cloud.hosts().prepare_for_maintenance(request(&root(), r)).await).unwrap().job_id
    }

    async fn uncover(&self, n: usize) -> AsyncJob {
        let r = CancelHostMaintenanceRequest { id: Some(self.hosts[n].clone()), ..Default::default() };
        let job = ok(self.cloud.hosts().cancel_maintenance(request(&root(), r)).await).unwrap();
        self.end_of(&job.job_id).await
    }

    async fn end_of(&self, job: &str) -> AsyncJob {
        let over = || async { self.cloud.query(&root(), job).await.job_status != Some(0) };
        testkit::wait_until(over, 120 * SECOND).await;
        self.cloud.query(&root(), job).await
    }

    async fn emptied(&self, job: &str) -> Host {
        let ended = self.end_of(job).await;
        assert_eq!(ended.job_status, Some(1), "{:?}", ended.job_result);
        assert_eq!((ended.job_instance_type(), ended.cmd().is_empty()), ("Host", false));
        Host::decode(ended.job_result.unwrap().output.as_slice()).unwrap()
    }

    /// Code and text of a job that fails.
    async fn denied(&self, job: &str) -> (u16, String) {
        let ended = self.end_of(job).await;
        assert_eq!(ended.job_status, Some(2), "{:?}", ended.job_result);
        let error = contract::ApiError::from(ended.job_result.unwrap().error.unwrap());
        (error.code, error.full_text().to_owned())
    }

    async fn resource_state(&self, n: usize) -> String {
        let sql = Sql::new("SELECT resource_state FROM hosts WHERE uuid = ?").bind(&self.hosts[n]);
        self.cloud.db.one(sql).await.unwrap().at(0).unwrap()
    }

    async fn await_resource_state(&self, n: usize, state: &str) {
        testkit::wait_until(|| async { self.resource_state(n).await == state }, 120 * SECOND).await;
    }

    /// Orders to move take so long on a host, from now on.
    async fn slow(&self, n: usize, millis: u32) {
        let mock = Mock {
            id: 7,
            host_uuid: Some(self.hosts[n].clone()),
            command: "PerformMigration".into(),
            wait_millis: millis,
            ..Mock::default()
        };
        self.mocks(vec![mock]).await;
    }

    /// No VM can leave a host, from now on.
    async fn stuck(&self, n: usize) {
        let mock = Mock {
            id: 7,
            host_uuid: Some(self.hosts[n].clone()),
            command: "BeginMigration".into(),
            fault: true,
            ..Mock::default()
        };
        self.mocks(vec![mock]).await;
    }

    /// Nothing of a maintenance is left but the host's state, and the books are right.
    async fn nothing_is_under_way(&self) {
        let open = "SELECT COUNT(*) FROM jobs WHERE state NOT IN ('Done', 'Failed')";
        testkit::wait_until(|| async { self.cloud.count(open).await == 0 }, 120 * SECOND).await;
        self.books_are_right().await;
        for table in ["vm_moves", "host_evacuations", "host_maintenances"] {
            assert_eq!(self.cloud.count(&format!("SELECT COUNT(*) FROM {table}")).await, 0, "{table}");
        }
        assert_eq!(self.factory.simulator.copies(), Vec::new());
    }

    /// Starts a VM; news of hosts may still be on their way to the placement.
    async fn started(&self, vm: i64, host: Option<usize>) {
        let start = || async { self.start(vm, host).await.map_err(|e| e.full_text().to_owned()) };
        testkit::until_ok(start, 60 * SECOND).await;
    }

    async fn quick(&self) {
        self.set("migrate.retry.interval", "1").await;
    }
}

testkit::databases! {
    // covers: HOST-010, HOST-012, HOST-013, HOST-014, HOST-015, HOST-016, HOST-025
    async fn a_host_is_emptied_and_comes_back(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        for vm in 1..=4 {
            site.running(vm, false, 0).await;
        }
        // One that is in maintenance already takes nothing.
        let second = site.empty(1).await;
        assert_eq!(site.emptied(&second).await.resource_state(), "Maintenance");
        site.slow(0, 5_000).await;
        let job = site.empty(0).await;
        site.await_resource_state(0, "PrepareForMaintenance").await;
        assert!(site.cloud.count("SELECT COUNT(*) FROM vm_capacity").await >= 4);
        let shown = site.emptied(&job).await;
        assert_eq!((shown.resource_state(), shown.state(), shown.id()), ("Maintenance", "Up", site.hosts[0].as_str()));
        let third = Some(site.host(2).await);
        for vm in 1..=4 {
            assert_eq!(site.standing(vm).await, ("Running".to_owned(), third, 2));
            assert_eq!(site.factory.simulator.vm(&uuid(vm)).unwrap().boots, 1, "its guest didn't notice");
        }
        site.nothing_is_under_way().await;
        site.await_told(HOST, &site.hosts[0], "is ready for maintenance").await;
        assert_eq!(site.told("VM.MIGRATE", "moves to another host").await.len(), 4);
        let told = site.told("MAINT.PREPARE", &site.hosts[0]).await;
        assert!(told.iter().any(|t| t.contains("Completed") && t.contains("\"user_id\":2")), "{told:?}");

        // It stays known, takes no move, and keeps its state over a new connection.
        let to = MigrateVirtualMachineRequest {
            virtual_machine_id: Some(uuid(1)),
            host_id: Some(site.hosts[0].clone()),
            ..Default::default()
        };
        let mut migrations = VirtualMachineMigrationsClient::new(site.cloud.channel());
        let moved = ok(migrations.migrate(request(&root(), to.clone())).await).unwrap();
        let (code, text) = site.denied(&moved.job_id).await;
        assert!(code == 431 && text.contains("disabled or in maintenance"), "{code} {text}");
        let again = ReconnectHostRequest { id: Some(site.hosts[0].clone()), ..Default::default() };
        let again = ok(site.cloud.hosts().reconnect(request(&root(), again)).await).unwrap();
        assert_eq!(site.emptied(&again.job_id).await.resource_state(), "Maintenance");
        assert!(site.factory.simulator.silence_host(&site.hosts[0], true));
        site.await_status(0, "Alert").await;
        assert!(site.factory.simulator.silence_host(&site.hosts[0], false));
        site.await_status(0, "Up").await;
        assert_eq!(site.resource_state(0).await, "Maintenance");
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM host_capacity WHERE accepting = 1").await, 1);

        // Back again: nothing moves by itself, and by hand it does.
        let back = Host::decode(site.uncover(0).await.job_result.unwrap().output.as_slice()).unwrap();
        assert_eq!(back.resource_state(), "Enabled");
        assert!(site.told("MAINT.CANCEL", &site.hosts[0]).await.iter().any(|t| t.contains("Completed")));
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM vms WHERE generation = 2 AND state = 'Running'").await, 4);
        let moved = ok(migrations.migrate(request(&root(), to)).await).unwrap();
        assert_eq!(site.end_of(&moved.job_id).await.job_status, Some(1));
        site.vm(9, false).await;
        site.started(9, Some(0)).await;
        assert_eq!(site.standing(9).await.1, Some(site.host(0).await));
        site.nothing_is_under_way().await;
        site.end().await;
    }

    // covers: HOST-011, REL-157
    async fn a_host_that_is_emptied_takes_nothing_and_is_not_disturbed(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, false, 0).await;
        site.running(2, false, 1).await;
        site.slow(0, 4_000).await;
        let capacity = async || {
            let r = ListCapacityRequest { cluster_id: site.place.cluster.id.clone(), r#type: Some(0), ..Default::default() };
            ok(site.cloud.capacities().list(request(&root(), r)).await).unwrap().capacity[0].capacity_total()
        };
        let before = capacity().await;
        let job = site.empty(0).await;
        site.await_resource_state(0, "PrepareForMaintenance").await;
        assert!(capacity().await < before / 2 + (2 << 30), "what it has is not offered");
        for vm in 10..30 {
            site.vm(vm, false).await;
            site.started(vm, None).await;
            assert_eq!(site.standing(vm).await.1, Some(site.host(1).await));
        }
        let zone_id = site.cloud.number("zones", site.place.zone.id()).await;
        let pick = PickHostRequest { zone_id, ..Default::default() };
        assert_eq!(ok(site.cloud.placement().pick_host(request(&root(), pick)).await).unwrap().host_uuid, site.hosts[1]);
        site.emptied(&job).await;
        site.nothing_is_under_way().await;
        assert_eq!(site.uncover(0).await.job_status, Some(1));

        // What can't leave yet is left in peace.
        site.stuck(1).await;
        let job = site.empty(1).await;
        site.await_resource_state(1, "PrepareForMaintenance").await;
        let id = Some(uuid(2));
        let reboot = RebootVirtualMachineRequest { id: id.clone(), ..Default::default() };
        let stop = StopVirtualMachineRequest { id: id.clone(), ..Default::default() };
        let destroy = DestroyVirtualMachineRequest { id: id.clone(), ..Default::default() };
        let migrate =
            MigrateVirtualMachineRequest { virtual_machine_id: id, host_id: Some(site.hosts[0].clone()), ..Default::default() };
        let mut vms = site.cloud.vms();
        let mut migrations = VirtualMachineMigrationsClient::new(site.cloud.channel());
        for (code, text) in [
            refused(vms.reboot(request(&root(), reboot)).await),
            refused(vms.stop(request(&root(), stop)).await),
            refused(vms.destroy(request(&root(), destroy)).await),
            refused(migrations.migrate(request(&root(), migrate)).await),
        ] {
            assert!(code == 530 && text.contains("PrepareForMaintenance"), "{code} {text}");
        }
        site.uncover(1).await;
        assert!(site.denied(&job).await.1.contains("was cancelled"));
        site.nothing_is_under_way().await;
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM vms WHERE state = 'Running'").await, 22);
        site.end().await;
    }

    // covers: HOST-023, STO-085
    async fn what_cannot_be_emptied_is_refused(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        site.running(1, false, 0).await;
        for id in [None, Some("nonsense".to_owned()), Some(uuid(1))] {
            let r = PrepareHostForMaintenanceRequest { id: id.clone(), ..Default::default() };
            assert_eq!(refused(site.cloud.hosts().prepare_for_maintenance(request(&root(), r)).await).0, 431, "{id:?}");
            let r = CancelHostMaintenanceRequest { id: id.clone(), ..Default::default() };
            assert_eq!(refused(site.cloud.hosts().cancel_maintenance(request(&root(), r)).await).0, 431, "{id:?}");
        }
        let not_begun = site.uncover(0).await;
        assert!(format!("{:?}", not_begun.job_result).contains("Cannot perform cancelMaintenance when resource state is Enabled"));

        store::tx!(site.cloud.db, "local", |tx| tx.exec("UPDATE storage_pools SET scope = 'HOST'").await).await.unwrap();
        let (code, text) = site.denied(&site.empty(0).await).await;
        assert!(code == 431 && text.contains("local storage") && text.contains(&uuid(1)), "{code} {text}");
        store::tx!(site.cloud.db, "shared", |tx| tx.exec("UPDATE storage_pools SET scope = 'ZONE'").await).await.unwrap();

        let allocation = |state: &str| UpdateHostRequest {
            id: Some(site.hosts[0].clone()),
            allocation_state: Some(state.into()),
            ..UpdateHostRequest::default()
        };
        ok(site.cloud.hosts().update(request(&root(), allocation("Disable"))).await).unwrap();
        let (code, text) = site.denied(&site.empty(0).await).await;
        assert!(code == 530 && text.contains("it is Disabled"), "{code} {text}");
        ok(site.cloud.hosts().update(request(&root(), allocation("Enable"))).await).unwrap();

        assert!(site.factory.simulator.silence_host(&site.hosts[1], true));
        site.await_status(1, "Alert").await;
        let (code, text) = site.denied(&site.empty(1).await).await;
        assert!(code == 530 && text.contains("its agent is Alert"), "{code} {text}");
        assert!(site.factory.simulator.silence_host(&site.hosts[1], false));
        site.await_status(1, "Up").await;

        // One host of a cluster at a time, and none twice.
        site.stuck(0).await;
        let job = site.empty(0).await;
        site.await_resource_state(0, "PrepareForMaintenance").await;
        for n in [0, 2] {
            let (code, text) = site.denied(&site.empty(n).await).await;
            assert!(code == 431 && text.contains("There are other servers in PrepareForMaintenance"), "{code} {text}");
        }
        assert_eq!(refused(site.cloud.hosts().update(request(&root(), allocation("Disable"))).await).0, 530);
        site.uncover(0).await;
        site.denied(&job).await;
        site.mocks(Vec::new()).await;
        let job = site.empty(0).await;
        site.emptied(&job).await;
        let (code, text) = site.denied(&site.empty(0).await).await;
        assert!(code == 530 && text.contains("it is Maintenance"), "{code} {text}");
        assert_eq!(site.standing(1).await.0, "Running");
        site.nothing_is_under_way().await;
        // In maintenance it can be deleted.
        let r = DeleteHostRequest { id: Some(site.hosts[0].clone()), ..DeleteHostRequest::default() };
        ok(site.cloud.hosts().delete(request(&root(), r)).await).unwrap();
        site.end().await;
    }

    // covers: REL-163
    async fn a_host_without_a_way_out_is_in_error_and_goes_on(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let network = fakes::serve(&cloud.node, &cloud.net, &Plugged::default());
        let site = Site::on(cloud, network, 2, SMALL).await;
        site.quick().await;
        for vm in 1..=3 {
            site.running(vm, false, 0).await;
        }
        for vm in 4..=5 {
            site.running(vm, false, 1).await;
        }
        let job = site.empty(0).await;
        let (code, text) = site.denied(&job).await;
        assert!(code == 530 && text.contains("ErrorInMaintenance") && text.contains("can't leave"), "{code} {text}");
        assert_eq!(site.resource_state(0).await, "ErrorInMaintenance");
        // The other host had room for one; the two that are left go on running, and are named.
        let left = "SELECT COUNT(*) FROM vms v JOIN hosts h ON h.id = v.host_id WHERE h.resource_state = 'ErrorInMaintenance' \
                    AND v.state = 'Running'";
        assert_eq!(site.cloud.count(left).await, 2);
        let named = (1..=3).filter(|vm| text.contains(&uuid(*vm))).count();
        assert!(named == 2 && text.contains("without room for it"), "{text}");
        site.await_told(HOST, &site.hosts[0], "can't enter maintenance").await;
        let again = site.empty(0).await;
        assert_eq!(site.denied(&again).await.0, 431, "it has to be cancelled first");
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM host_capacity WHERE accepting = 1").await, 1);

        // Room for them appears: the host is emptied all the same.
        for vm in 4..=5 {
            let r = StopVirtualMachineRequest { id: Some(uuid(vm)), ..StopVirtualMachineRequest::default() };
            let job = ok(site.cloud.vms().stop(request(&root(), r)).await).unwrap();
            assert_eq!(site.end_of(&job.job_id).await.job_status, Some(1));
        }
        site.await_resource_state(0, "Maintenance").await;
        site.await_told(HOST, &site.hosts[0], "is ready for maintenance").await;
        for vm in 1..=3 {
            assert_eq!(site.standing(vm).await.1, Some(site.host(1).await));
        }
        site.nothing_is_under_way().await;
        site.end().await;
    }

    // covers: HOST-024
    async fn vms_of_the_last_host_are_stopped(db: testkit::TestDb) {
        let site = Site::open(&db, 1).await;
        site.running(1, true, 0).await;
        site.running(2, false, 0).await;
        let job = site.empty(0).await;
        site.emptied(&job).await;
        let told = site.told("MAINT.PREPARE", &uuid(1)).await;
        assert!(told.iter().any(|t| t.contains(&uuid(2)) && t.contains("no other host can take it: it is stopped")), "{told:?}");
        for vm in [1, 2] {
            assert_eq!(site.standing(vm).await, ("Stopped".to_owned(), None, 1));
            site.await_told("VM.STOP", &uuid(vm), "is stopped, as no other host can take it").await;
        }
        assert!(site.factory.simulator.vm(&uuid(1)).is_none());
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM vm_restarts").await, 0, "who was stopped stays so");
        site.nothing_is_under_way().await;
        let refused = site.start(1, None).await.unwrap_err();
        assert!(refused.full_text().contains("in maintenance"), "{}", refused.full_text());
        assert_eq!(site.uncover(0).await.job_status, Some(1));
        site.started(1, Some(0)).await;
        site.nothing_is_under_way().await;
        site.end().await;
    }

    async fn a_maintenance_is_cancelled_on_the_way(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.set("ha.workers", "1").await;
        for vm in 1..=3 {
            site.running(vm, false, 0).await;
        }
        site.slow(0, 10_000).await;
        let job = site.empty(0).await;
        let moving = "SELECT COUNT(*) FROM vms WHERE state = 'Migrating'";
        testkit::wait_until(|| async { site.cloud.count(moving).await == 1 }, 60 * SECOND).await;
        let cancelled = site.uncover(0).await;
        assert_eq!(cancelled.job_status, Some(1), "{:?}", cancelled.job_result);
        let (code, text) = site.denied(&job).await;
        assert!(code == 530 && text.contains("was cancelled"), "{code} {text}");
        assert_eq!(site.resource_state(0).await, "Enabled");
        site.nothing_is_under_way().await;
        // What was moving moved; nobody else did.
        let moved = format!("SELECT COUNT(*) FROM vms WHERE host_id = {} AND state = 'Running'", site.host(1).await);
        let stayed = format!("SELECT COUNT(*) FROM vms WHERE host_id = {} AND state = 'Running'", site.host(0).await);
        assert_eq!(site.cloud.count(&moved).await + site.cloud.count(&stayed).await, 3);
        assert!(site.cloud.count(&stayed).await >= 1);
        // And it can be asked for again.
        site.mocks(Vec::new()).await;
        let job = site.empty(0).await;
        site.emptied(&job).await;
        assert_eq!(site.cloud.count(&moved).await, 3);
        site.nothing_is_under_way().await;
        site.end().await;
    }

    async fn a_host_that_dies_on_the_way_is_empty(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.quick().await;
        site.running(1, true, 0).await;
        site.running(2, false, 0).await;
        site.running(3, false, 1).await; // its host reaches the pool, so it can see
        let dies = Mock {
            id: 7,
            host_uuid: Some(site.hosts[0].clone()),
            command: "PerformMigration".into(),
            host_dies: true,
            remaining: Some(1),
            ..Mock::default()
        };
        site.mocks(vec![dies]).await;
        site.empty(0).await;
        site.await_status(0, "Down").await;
        site.await_resource_state(0, "Maintenance").await;
        let (_, host, _) = site.await_generation(1, 2).await;
        assert_eq!(host, Some(site.host(1).await));
        site.await_state(2, "Stopped").await;
        site.await_told(VM, &uuid(2), "isn't started again: it is not HA-enabled").await;
        site.mocks(Vec::new()).await; // it boots
        site.await_status(0, "Up").await;
        let paid = || async { site.cloud.count("SELECT COUNT(*) FROM host_debts").await == 0 };
        testkit::wait_until(paid, 60 * SECOND).await;
        assert_eq!(site.resource_state(0).await, "Maintenance");
        site.nothing_is_under_way().await;
        site.end().await;
    }

    async fn a_host_that_is_emptied_is_deleted_by_force(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, false, 0).await;
        site.stuck(0).await;
        let job = site.empty(0).await;
        site.await_resource_state(0, "PrepareForMaintenance").await;
        let gone = || async {
            let r = DeleteHostRequest { id: Some(site.hosts[0].clone()), forced: Some(true), ..DeleteHostRequest::default() };
            ok(site.cloud.hosts().delete(request(&root(), r)).await).map_err(|e| e.full_text().to_owned())
        };
        // A try to move it may be under way.
        testkit::until_ok(gone, 60 * SECOND).await;
        let (_, text) = site.denied(&job).await;
        assert!(text.contains("removed") || text.contains("was cancelled"), "{text}");
        site.await_state(1, "Stopped").await;
        site.nothing_is_under_way().await;
        site.end().await;
    }
}

/// The replica that empties a host dies while it does.
// covers: HOST-026
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_dies_while_it_empties_a_host() {
    let mut fleet = Fleet::open(2).await;
    fleet.site.set("ha.workers", "2").await;
    fleet.site.quick().await;
    for vm in 1..=10 {
        fleet.site.running(vm, false, 0).await;
    }
    fleet.site.slow(0, 1_000).await;
    let job = fleet.site.empty(0).await;
    let there = format!("SELECT COUNT(*) FROM vms WHERE host_id = {}", fleet.site.host(1).await);
    let half = || async { fleet.site.cloud.count(&there).await >= 4 };
    testkit::wait_until(half, 120 * SECOND).await;
    fleet.kill_leader().await;
    let site = &fleet.site;
    assert_eq!(site.emptied(&job).await.resource_state(), "Maintenance");
    assert_eq!(site.cloud.count(&there).await, 10);
    for vm in 1..=10 {
        assert_eq!(site.standing(vm).await.0, "Running");
        assert_eq!(site.factory.simulator.vm(&uuid(vm)).unwrap().boots, 1, "it runs on");
    }
    site.nothing_is_under_way().await;
    fleet.end().await;
}
