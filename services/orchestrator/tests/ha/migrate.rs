//! Running VMs that move, and hosts that die meanwhile.

use crate::VM;
use crate::common::*;
use crate::site::{LARGE, Site, name, uuid};
use contract::api::{Caller, RoleType};
use contract_agent::Mock;
use contract_compute::MigrateVirtualMachineRequest;
use contract_compute::virtual_machine_migrations_client::VirtualMachineMigrationsClient;
use contract_infra::hosts_for_migration_client::HostsForMigrationClient;
use contract_infra::{AsyncJob, FindHostsForMigrationRequest, HostForMigration, UpdateHostRequest};
use rpc::cx::request;
use std::sync::atomic::Ordering;
use store::Sql;

fn to(vm: i64, host: Option<&str>) -> MigrateVirtualMachineRequest {
    MigrateVirtualMachineRequest {
        virtual_machine_id: Some(uuid(vm)),
        host_id: host.map(str::to_owned),
        ..MigrateVirtualMachineRequest::default()
    }
}

impl Site {
    fn migrations(&self) -> VirtualMachineMigrationsClient<tonic::transport::Channel> {
        VirtualMachineMigrationsClient::new(self.cloud.channel())
    }

    /// The end of a job that moves a VM.
    async fn migrate(&self, vm: i64, host: usize) -> AsyncJob {
        let job = ok(self.migrations().migrate(request(&root(), to(vm, Some(&self.hosts[host])))).await).unwrap();
        self.cloud.ended(&root(), &job.job_id).await
    }

    pub async fn moved(&self, vm: i64, host: usize) {
        let ended = self.migrate(vm, host).await;
        assert_eq!(ended.job_status, Some(1), "{:?}", ended.job_result);
    }

    /// The error's text of a job that fails.
    pub async fn stays(&self, vm: i64, host: usize) -> String {
        let ended = self.migrate(vm, host).await;
        assert_eq!(ended.job_status, Some(2), "{:?}", ended.job_result);
        format!("{:?}", ended.job_result)
    }

    pub async fn candidates(&self, vm: i64) -> Vec<HostForMigration> {
        let r = FindHostsForMigrationRequest { virtual_machine_id: Some(uuid(vm)), ..Default::default() };
        ok(HostsForMigrationClient::new(self.cloud.channel()).find(request(&root(), r)).await).unwrap().host
    }

    /// Nothing of a move is left, and the books are right.
    pub async fn nothing_is_left(&self) {
        let open = "SELECT COUNT(*) FROM jobs WHERE state NOT IN ('Done', 'Failed')";
        testkit::wait_until(|| async { self.cloud.count(open).await == 0 }, 60 * SECOND).await;
        self.books_are_right().await;
        assert_eq!(self.cloud.count("SELECT COUNT(*) FROM vm_moves").await, 0);
        assert_eq!(self.factory.simulator.copies(), Vec::new());
    }

    async fn debts_are_paid(&self) {
        let paid = || async { self.cloud.count("SELECT COUNT(*) FROM host_debts").await == 0 };
        testkit::wait_until(paid, 60 * SECOND).await;
    }

    fn boots(&self, vm: i64) -> u64 {
        self.factory.simulator.vm(&uuid(vm)).unwrap().boots
    }

    /// A host does this to an order of that name, once.
    fn mock(&self, host: usize, order: &str) -> Mock {
        Mock {
            id: 1,
            host_uuid: Some(self.hosts[host].clone()),
            command: order.into(),
            remaining: Some(1),
            ..Mock::default()
        }
    }
}

testkit::databases! {
    async fn a_vm_moves_and_goes_on(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, false, 0).await;
        let started = "SELECT COUNT(*) FROM outbox WHERE kind IN ('VM.START', 'VM.STOP')";
        let before = site.cloud.count(started).await;
        site.moved(1, 1).await;
        let (first, second) = (site.host(0).await, site.host(1).await);
        assert_eq!(site.standing(1).await, ("Running".to_owned(), Some(second), 2));
        assert_eq!(site.boots(1), 1, "its guest didn't notice");
        site.nothing_is_left().await;
        site.moved(1, 0).await;
        assert_eq!(site.standing(1).await, ("Running".to_owned(), Some(first), 3));
        let last = Sql::new("SELECT last_host_id FROM vms WHERE id = 1");
        assert_eq!(site.cloud.db.one(last).await.unwrap().at::<i64>(0).unwrap(), second);
        assert_eq!(site.boots(1), 1);
        site.nothing_is_left().await;
        assert_eq!(site.cloud.count(started).await, before, "who pays for it sees nothing of it");
        assert_eq!(site.told("VM.MIGRATE", &uuid(1)).await.iter().filter(|t| t.contains("Completed")).count(), 2);
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM host_debts").await, 0);
        site.end().await;
    }

    // covers: VM-245, VM-246
    async fn what_cannot_move_stays(db: testkit::TestDb) {
        let mut site = Site::open(&db, 2).await;
        site.add_host(2, "cpucore=1&cpuspeed=400&memory=274877906944").await;
        site.running(1, false, 0).await;
        site.vm(2, false).await;
        let refused = |who: Caller, r: MigrateVirtualMachineRequest| {
            let mut client = site.migrations();
            async move { refused(client.migrate(request(&who, r)).await) }
        };
        for who in [dora(), alice(), caller(RoleType::ResourceAdmin, 2, 1, "/1/")] {
            let (code, text) = refused(who, to(1, Some(&site.hosts[1]))).await;
            assert!([531, 432].contains(&code), "{code} {text}");
        }
        for r in [
            to(1, None),
            to(1, Some("nonsense")),
            to(1, Some(&uuid(1))),
            to(99, Some(&site.hosts[1])),
            MigrateVirtualMachineRequest { host_id: Some(site.hosts[1].clone()), ..Default::default() },
            MigrateVirtualMachineRequest { storage_id: Some("pool-1".into()), ..to(1, Some(&site.hosts[1])) },
        ] {
            let (code, text) = refused(root(), r.clone()).await;
            assert_eq!(code, 431, "{r:?}: {text}");
        }
        for (vm, host, what) in
            [(2, 1, "not Running"), (1, 0, "already present on this host"), (1, 2, "too little CPU or memory left")]
        {
            let text = site.stays(vm, host).await;
            assert!(text.contains(what), "{text}");
        }
        let allocation = |state: &str| UpdateHostRequest {
            id: Some(site.hosts[1].clone()),
            allocation_state: Some(state.into()),
            ..UpdateHostRequest::default()
        };
        ok(site.cloud.hosts().update(request(&root(), allocation("Disable"))).await).unwrap();
        let text = site.stays(1, 1).await;
        assert!(text.contains("disabled or in maintenance") && text.contains("431"), "{text}");
        ok(site.cloud.hosts().update(request(&root(), allocation("Enable"))).await).unwrap();
        store::tx!(site.cloud.db, "local", |tx| tx.exec("UPDATE storage_pools SET scope = 'HOST'").await).await.unwrap();
        let text = site.stays(1, 1).await;
        assert!(text.contains("Local Storage"), "{text}");
        assert_eq!(site.standing(1).await, ("Running".to_owned(), Some(site.host(0).await), 1));
        site.nothing_is_left().await;
        site.end().await;
    }

    // covers: OPS-124
    async fn hosts_that_a_vm_may_move_to(db: testkit::TestDb) {
        let mut site = Site::open(&db, 3).await;
        site.add_host(3, "cpucore=1&cpuspeed=400&memory=274877906944").await;
        site.add_host(4, LARGE).await;
        site.running(1, false, 0).await;
        site.set("ha.tag", "spare").await;
        let spare = UpdateHostRequest {
            id: Some(site.hosts[2].clone()),
            host_tags: vec!["spare".into()],
            ..UpdateHostRequest::default()
        };
        ok(site.cloud.hosts().update(request(&root(), spare)).await).unwrap();
        assert!(site.factory.simulator.silence_host(&site.hosts[4], true));
        site.await_status(4, "Alert").await;
        let found = site.candidates(1).await;
        let shown: Vec<(usize, bool, bool)> = found
            .iter()
            .map(|h| {
                let n = site.hosts.iter().position(|uuid| *uuid == h.id()).unwrap();
                assert_eq!(h.requires_storage_motion, Some(false));
                (n, h.has_enough_capacity(), h.suitable_for_migration())
            })
            .collect();
        assert_eq!(shown, [(1, true, true), (2, true, false), (3, false, false), (4, true, false)]);
        let r = FindHostsForMigrationRequest {
            virtual_machine_id: Some(uuid(1)),
            page: Some(2),
            page_size: Some(3),
            ..Default::default()
        };
        let mut client = HostsForMigrationClient::new(site.cloud.channel());
        let second = ok(client.find(request(&root(), r)).await).unwrap();
        assert_eq!((second.count(), second.host.len()), (4, 1));
        // What placement would pass over, an administrator may choose.
        site.moved(1, 2).await;
        assert_eq!(site.standing(1).await.1, Some(site.host(2).await));
        site.vm(2, false).await;
        let stopped = FindHostsForMigrationRequest { virtual_machine_id: Some(uuid(2)), ..Default::default() };
        let (code, text) = refused(client.find(request(&root(), stopped)).await);
        assert!(code == 431 && text.contains("not Running"), "{code} {text}");
        site.nothing_is_left().await;
        site.end().await;
    }

    /// Whatever fails before it has moved: the VM goes on where it was, and the next try doesn't meet what the first left.
    async fn a_move_that_fails_leaves_the_vm_where_it_was(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, false, 0).await;
        let home = ("Running".to_owned(), Some(site.host(0).await), 1);
        for (host, order) in
            [(0, "BeginMigration"), (1, "PrepareForMigrationCommand"), (0, "MigrateCommand"), (1, "FinishMigration")]
        {
            site.mocks(vec![Mock { fault: true, ..site.mock(host, order) }]).await;
            let text = site.stays(1, 1).await;
            assert!(text.contains("as the simulator was told"), "{order}: {text}");
            assert_eq!(site.standing(1).await, home, "{order}");
            assert_eq!(site.boots(1), 1, "{order}");
            site.nothing_is_left().await;
        }
        site.network.broken.store(true, Ordering::SeqCst);
        site.stays(1, 1).await;
        site.network.broken.store(false, Ordering::SeqCst);
        assert_eq!(site.standing(1).await, home);
        site.nothing_is_left().await;
        site.moved(1, 1).await;
        let (state, host, generation) = site.standing(1).await;
        assert_eq!((state.as_str(), host), ("Running", Some(site.host(1).await)));
        assert_eq!(generation, 7, "no generation is given twice");
        assert_eq!(site.boots(1), 1);
        site.nothing_is_left().await;
        site.end().await;
    }

    /// The host that it leaves says nothing at the end: its copy is as good as gone, for the lease is taken over.
    async fn an_old_host_that_is_silent_at_the_end_is_not_waited_for(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, false, 0).await;
        site.mocks(vec![Mock { fault: true, ..site.mock(0, "ConfirmMigration") }]).await;
        site.moved(1, 1).await;
        assert_eq!(site.standing(1).await, ("Running".to_owned(), Some(site.host(1).await), 2));
        assert_eq!(site.boots(1), 1);
        site.debts_are_paid().await;
        site.nothing_is_left().await;
        site.end().await;
    }

    async fn a_host_that_dies_while_it_sends_loses_the_vm(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        site.running(1, true, 0).await;
        site.running(2, false, 2).await; // its host reaches the pool, so it can see
        site.mocks(vec![Mock { host_dies: true, ..site.mock(0, "PerformMigration") }]).await;
        let text = site.stays(1, 1).await;
        assert!(text.contains("went down while"), "{text}");
        let (_, host, _) = site.await_generation(1, 3).await;
        assert_ne!(host, Some(site.host(0).await));
        site.await_told("VM.START", &uuid(1), "HA started VM").await;
        assert_eq!(site.factory.simulator.copies(), Vec::new());
        site.mocks(Vec::new()).await; // it boots
        site.await_status(0, "Up").await;
        site.debts_are_paid().await;
        site.nothing_is_left().await;
        site.end().await;
    }

    async fn a_host_that_dies_while_it_waits_loses_nothing(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        site.running(1, true, 0).await;
        site.running(2, false, 1).await;
        site.mocks(vec![Mock { host_dies: true, ..site.mock(1, "FinishMigration") }]).await;
        let text = site.stays(1, 1).await;
        assert!(text.contains("went down while"), "{text}");
        assert_eq!(site.standing(1).await, ("Running".to_owned(), Some(site.host(0).await), 1));
        assert_eq!(site.boots(1), 1);
        site.mocks(Vec::new()).await; // it boots, and throws away what it should have
        site.await_status(1, "Up").await;
        site.debts_are_paid().await;
        site.nothing_is_left().await;
        site.moved(1, 1).await;
        site.nothing_is_left().await;
        site.end().await;
    }

    /// Beyond the point of no return: the memory was there only, so the VM starts from its disks.
    async fn a_new_host_that_dies_at_the_end_loses_the_vm(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        site.running(1, true, 0).await;
        site.running(2, false, 1).await;
        site.running(3, false, 2).await; // its host reaches the pool, so it can see
        site.mocks(vec![Mock { host_dies: true, ..site.mock(1, "StartVm") }]).await;
        let text = site.stays(1, 1).await;
        assert!(text.contains("went down while"), "{text}");
        let (_, host, generation) = site.await_generation(1, 3).await;
        assert_ne!(host, Some(site.host(1).await));
        assert_eq!(generation, 3);
        site.await_told("VM.STOP", &uuid(1), "to which it had moved").await;
        site.mocks(Vec::new()).await;
        site.await_status(1, "Up").await;
        site.debts_are_paid().await;
        site.nothing_is_left().await;
        site.end().await;
    }

    /// Without HA somebody is told, and the VM starts again by hand.
    async fn a_vm_that_its_new_host_cannot_start_is_stopped(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, false, 0).await;
        site.mocks(vec![Mock { fault: true, ..site.mock(1, "StartCommand") }]).await;
        site.stays(1, 1).await;
        assert_eq!(site.standing(1).await, ("Stopped".to_owned(), None, 2));
        site.await_told(VM, &uuid(1), "isn't started again: it is not HA-enabled").await;
        site.debts_are_paid().await;
        site.nothing_is_left().await;
        testkit::eventually(|| async { site.start(1, Some(1)).await.ok() }).await;
        site.nothing_is_left().await;
        assert!(site.factory.simulator.vm(&uuid(1)).unwrap().spec.display_name == name(1));
        site.end().await;
    }

    /// A guest that ends while it is sent is Stopped, as any that ends by itself.
    async fn a_guest_that_ends_on_the_way_is_stopped(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, false, 0).await;
        site.mocks(vec![Mock { wait_millis: 3_000, ..site.mock(0, "PerformMigration") }]).await;
        let job = ok(site.migrations().migrate(request(&root(), to(1, Some(&site.hosts[1])))).await).unwrap();
        let waits = || async { !site.factory.simulator.copies().is_empty() };
        testkit::wait_until(waits, 60 * SECOND).await;
        assert!(site.factory.simulator.power_off(&uuid(1)));
        let ended = site.cloud.ended(&root(), &job.job_id).await;
        assert_eq!(ended.job_status, Some(2), "{:?}", ended.job_result);
        assert_eq!(site.standing(1).await, ("Stopped".to_owned(), None, 1));
        site.await_told("VM.STOP", &uuid(1), "was found stopped on its host").await;
        site.nothing_is_left().await;
        site.end().await;
    }
}
