//! The disks of VMs, as jobs drive them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{GIB, World, keyed, vm};
use contract_storage::disks_client::DisksClient;
use contract_storage::{
    AllocateDisksRequest, AssignDisksRequest, DiscardRequest, DisksResponse, FitRequest, NewDisk, RenewRootRequest,
    VmDisksRequest,
};
use jobs::StepKey;
use proptest::prelude::*;
use rpc::PeerChannel;
use std::collections::HashMap;

fn disks(w: &World) -> DisksClient<PeerChannel> {
    DisksClient::new(w.node.peers.storage())
}

fn order(vm: i64, host: Option<i64>) -> AllocateDisksRequest {
    AllocateDisksRequest {
        vm_id: vm,
        vm_uuid: common::uuid("vm", vm),
        account_id: 3,
        domain_id: 5,
        domain_path: "/1/5/".into(),
        zone_id: 1,
        template_id: 111,
        root: Some(NewDisk { name: format!("ROOT-{vm}"), uuid: common::uuid("root", vm), ..NewDisk::default() }),
        host_id: host,
        cluster_id: host.map(|h| (h + 1) / 2),
        hypervisor: "Simulator".into(),
        ..AllocateDisksRequest::default()
    }
}

fn with_data(mut order: AllocateDisksRequest, offering: i64) -> AllocateDisksRequest {
    order.data =
        vec![NewDisk { disk_offering_id: offering, uuid: common::uuid("data", order.vm_id), ..NewDisk::default() }];
    order
}

fn key(job: i64, undo: bool) -> StepKey {
    StepKey::new(job, "disks", 1, undo)
}

fn of(vm: i64, host: Option<i64>) -> VmDisksRequest {
    VmDisksRequest { vm_id: vm, host_id: host, ..VmDisksRequest::default() }
}

async fn small(w: &World) -> i64 {
    w.count("SELECT id FROM disk_offerings WHERE name = 'Small'").await
}

testkit::databases! {
    // covers: STO-010
    async fn a_deployment_takes_one_commit_and_an_undo_takes_all_back(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        let pool = w.pool("p1", 1, 100, "").await;
        common::job(w.db(), 900, "Running").await;
        let small = small(&w).await;
        w.storage.node.db.next_id("volume").await.unwrap(); // the first block of numbers costs a commit of its own

        let request = with_data(order(7, Some(1)), small);
        let made = disks(&w).allocate(keyed(&key(900, false), request.clone())).await.unwrap().into_inner();

        assert_eq!(made.disks.len(), 2);
        let (root, data) = (&made.disks[0], &made.disks[1]);
        assert_eq!((root.kind.as_str(), root.device_id, root.size), ("ROOT", 0, 2 * GIB));
        assert_eq!((data.kind.as_str(), data.device_id, data.size), ("DATADISK", 1, 5 * GIB));
        assert_eq!((root.pool_id, data.name.as_str()), (pool, "DATA-7"));
        assert!(w.hosts.disks_of(&root.uuid)[0].template.is_some());
        assert!(w.hosts.disks_of(&data.uuid)[0].template.is_none());
        // Two disks and the template, once.
        assert_eq!(w.count("SELECT allocated_bytes FROM storage_pools").await, 9 * GIB);
        w.check_pools().await;

        let again = disks(&w).allocate(keyed(&key(900, false), request)).await.unwrap().into_inner();
        assert_eq!(again, made, "a repeat answers as the first call");
        assert_eq!(w.hosts.disks(), 2);

        common::job(w.db(), 900, "Undoing").await;
        for _ in 0..2 {
            disks(&w).release(keyed(&key(900, true), of(7, None))).await.unwrap();
            assert_eq!(w.hosts.disks(), 0);
            assert_eq!(w.count("SELECT COUNT(*) FROM volumes WHERE removed IS NULL").await, 0);
            assert_eq!(w.count("SELECT COUNT(*) FROM pending_deletions").await, 0);
            assert_eq!(w.count("SELECT allocated_bytes FROM storage_pools").await, 2 * GIB, "the template stays");
            w.check_pools().await;
        }

        // Duties have their own work beside it.
        let n = std::cell::Cell::new(0);
        let spent = async || {
            n.set(n.get() + 1);
            let (vm, job) = (100 + n.get(), 1000 + n.get());
            common::job(w.db(), job, "Running").await;
            let request = with_data(order(vm, Some(1)), small);
            let before = w.db().stats();
            disks(&w).allocate(keyed(&key(job, false), request)).await.unwrap();
            let after = w.db().stats();
            (after.commits - before.commits, after.statements - before.statements)
        };
        let commits = testkit::least(|| async { spent().await.0 }).await;
        assert_eq!(commits, 1, "the row, the promise and the answer are one commit");
        let statements = testkit::least(|| async { spent().await.1 }).await;
        assert!(statements <= 16, "{statements} statements");
        w.check_pools().await;
    }

    async fn a_root_disk_is_made_anew_and_the_old_one_kept_until_it_is_of_no_use(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        w.pool("p1", 1, 100, "").await;
        for job in [900, 901, 902] {
            common::job(w.db(), job, "Running").await;
        }
        vm(w.db(), 7, 3, "Stopped", None).await;
        let made = disks(&w).allocate(keyed(&key(900, false), order(7, Some(1)))).await.unwrap().into_inner();
        let old = made.disks[0].clone();
        let (promised, held) = ("SELECT allocated_bytes FROM storage_pools", "SELECT COUNT(*) FROM volumes WHERE removed IS NULL");
        let before = w.count(promised).await;
        let root = async || {
            let sql = "SELECT uuid, state FROM volumes WHERE slot = '7/0' AND vm_id = 7 AND removed IS NULL";
            let row = w.db().one(store::Sql::new(sql)).await.unwrap();
            (row.at::<String>(0).unwrap(), row.at::<String>(1).unwrap())
        };
        let renewal = |uuid: &str| RenewRootRequest { vm_id: 7, template_id: 111, uuid: uuid.into(), size: 3 * GIB };
        let asked = |job| StepKey::new(job, "renew", 1, false);

        // Taken back: as it was.
        let renewed = disks(&w).renew(keyed(&asked(901), renewal("new-1"))).await.unwrap().into_inner();
        assert_eq!(disks(&w).renew(keyed(&asked(901), renewal("new-1"))).await.unwrap().into_inner(), renewed, "a repeat");
        assert_eq!((renewed.disks[0].id, root().await), (old.id, ("new-1".into(), "Allocated".into())));
        assert_eq!((w.count(promised).await, w.count(held).await), (before, 2), "the old one lies where it was");
        let placed = disks(&w).prepare(keyed(&StepKey::new(901, "disks", 1, false), VmDisksRequest { cluster_id: Some(1), ..of(7, Some(1)) })).await.unwrap().into_inner();
        assert_eq!((placed.disks[0].size, w.count(promised).await), (3 * GIB, before + 3 * GIB));
        common::job(w.db(), 901, "Undoing").await;
        for _ in 0..2 {
            disks(&w).unrenew(keyed(&StepKey::new(901, "renew", 1, true), renewal("new-1"))).await.unwrap();
            assert_eq!((root().await, w.count(promised).await), ((old.uuid.clone(), "Ready".into()), before));
        }
        assert_eq!((w.hosts.disks(), w.count(held).await), (1, 1));

        // For good.
        let renewed = disks(&w).renew(keyed(&asked(902), renewal("new-2"))).await.unwrap().into_inner();
        let discard = DiscardRequest { volume_id: renewed.disks[0].id, host_id: Some(1) };
        for _ in 0..2 {
            disks(&w).discard(keyed(&StepKey::new(902, "discard", 1, false), discard)).await.unwrap();
            assert_eq!((root().await.0, w.hosts.disks(), w.count(held).await), ("new-2".into(), 0, 1));
        }
        // From then on the new one stays, whatever is taken back.
        common::job(w.db(), 902, "Undoing").await;
        disks(&w).unrenew(keyed(&StepKey::new(902, "renew", 1, true), renewal("new-2"))).await.unwrap();
        assert_eq!(root().await.0, "new-2");
        w.check_pools().await;
    }

    // covers: REL-127
    async fn the_disks_of_a_machine_get_another_owner(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        w.pool("p1", 1, 100, "").await;
        for job in [900, 901, 902, 903] {
            common::job(w.db(), job, "Running").await;
        }
        vm(w.db(), 7, 3, "Stopped", None).await;
        let small = small(&w).await;
        disks(&w).allocate(keyed(&key(900, false), with_data(order(7, Some(1)), small))).await.unwrap();
        let policy = "INSERT INTO snapshot_policies (id, uuid, live_key, volume_id, account_id, domain_id, domain_path, kind, schedule, \
                      timezone, max_snaps, display, next_run, created, changed) SELECT 1, 'p', 'p', id, account_id, domain_id, \
                      domain_path, 'DAILY', '0:0', 'UTC', 1, 1, 9000000000000000, 0, 0 FROM volumes WHERE kind = 'ROOT'";
        common::exec(w.db(), policy).await;
        let owned = async |account: i64| {
            let sql = "SELECT COUNT(*) FROM volumes WHERE vm_id = 7 AND removed IS NULL AND account_id = ";
            let policies = "SELECT COUNT(*) FROM snapshot_policies WHERE account_id = ";
            (w.count(&format!("{sql}{account}")).await, w.count(&format!("{policies}{account}")).await)
        };
        let told = async |kind: &str| w.count(&format!("SELECT COUNT(*) FROM outbox WHERE kind = '{kind}'")).await;
        let to = AssignDisksRequest { vm_id: 7, account_id: 2, domain_id: 1, domain_path: "/1/".into() };
        let asked = |job, undo| StepKey::new(job, "assign", 1, undo);
        assert_eq!(owned(3).await, (2, 1));

        // Not with snapshots: they stay what they are, and so does all else. One that failed doesn't count.
        let snapshot = |state: &str| format!(
            "INSERT INTO snapshots (id, uuid, name, name_lower, account_id, domain_id, domain_path, zone_id, volume_id, kind, state, size, \
             physical_size, held_bytes, hypervisor, format, store_id, path, created, changed) SELECT 1, 's', 's', 's', 3, 5, '/1/5/', 1, \
             id, 'MANUAL', '{state}', 1, 1, 1, 'Simulator', 'VHD', 1, 'x', 0, 0 FROM volumes WHERE kind = 'DATADISK'"
        );
        common::exec(w.db(), &snapshot("BackedUp")).await;
        let refused = disks(&w).assign(keyed(&asked(901, false), to.clone())).await.unwrap_err();
        let refused = common::error(refused);
        assert!(refused.code == 431 && refused.full_text().contains("Snapshots exists for volume: DATA-7"), "{refused}");
        assert_eq!((owned(3).await, w.count("SELECT COUNT(*) FROM snapshots WHERE removed IS NULL").await), ((2, 1), 1));
        common::exec(w.db(), "UPDATE snapshots SET state = 'Error'").await;

        // Taken back: as it was; and once more for good.
        let before = told("VOLUME.CREATE").await;
        let made = disks(&w).assign(keyed(&asked(902, false), to.clone())).await.unwrap().into_inner();
        assert_eq!((made.former.len(), made.former[0].account_id), (2, 3));
        assert_eq!(disks(&w).assign(keyed(&asked(902, false), to.clone())).await.unwrap().into_inner(), made, "a repeat");
        assert_eq!((owned(2).await, told("VOLUME.CREATE").await - before, told("VOLUME.DELETE").await), ((2, 1), 2, 2));
        common::job(w.db(), 902, "Undoing").await;
        for _ in 0..2 {
            disks(&w).assign(keyed(&asked(902, true), to.clone())).await.unwrap();
            assert_eq!((owned(3).await, told("VOLUME.DELETE").await), ((2, 1), 4));
        }
        // One that was undone before it came never comes.
        common::job(w.db(), 903, "Undoing").await;
        disks(&w).assign(keyed(&asked(903, true), to.clone())).await.unwrap();
        common::job(w.db(), 903, "Running").await;
        assert!(disks(&w).assign(keyed(&asked(903, false), to.clone())).await.is_err());
        assert_eq!(owned(3).await, (2, 1));
        w.check_pools().await;
    }

    async fn templates_that_no_volume_needs_leave_their_pool(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        let pool = w.pool("p1", 1, 100, "").await;
        common::job(w.db(), 900, "Running").await;
        disks(&w).allocate(keyed(&key(900, false), order(7, Some(1)))).await.unwrap();
        let lies = "SELECT COUNT(*) FROM template_pool_refs";
        let look = async || arcus_storage::template_copies::look(&w.storage, None).await.unwrap();
        // A second is enough here, and it may have passed already.
        common::set(&w, "storage.cleanup.interval", "1").await;
        let long_ago = format!("UPDATE template_pool_refs SET unused_since = {}", store::now_micros() - 3_600_000_000);
        // A volume needs it, whatever was noted.
        common::exec(w.db(), &long_ago).await;
        look().await;
        assert_eq!((w.count(lies).await, w.hosts.told("DeleteDisk")), (1, 0));

        common::job(w.db(), 900, "Undoing").await;
        disks(&w).release(keyed(&key(900, true), of(7, None))).await.unwrap();
        let deleted = w.hosts.told("DeleteDisk");
        // Nobody wants it removed.
        common::set(&w, "storage.template.cleanup.enabled", "false").await;
        common::exec(w.db(), &long_ago).await;
        look().await;
        assert_eq!(w.count(lies).await, 1);
        common::set(&w, "storage.template.cleanup.enabled", "true").await;
        look().await;
        assert_eq!((w.count(lies).await, w.count("SELECT allocated_bytes FROM storage_pools").await), (0, 0));
        let owed = "SELECT COUNT(*) FROM pending_deletions";
        testkit::eventually(|| async { (w.count(owed).await == 0).then_some(()) }).await;
        assert_eq!(w.hosts.told("DeleteDisk"), deleted + 1);
        let uuid: String = w.db().one("SELECT uuid FROM templates WHERE id = 111".into()).await.unwrap().at(0).unwrap();
        assert_eq!(w.hosts.deleted().last(), Some(&(uuid.clone(), format!("template-{uuid}"))));

        // It comes again, and costs again; what was still owed for it isn't any more.
        let debt = format!(
            "INSERT INTO pending_deletions (path, volume_uuid, pool_id, tries, not_before, created) VALUES ('template/{pool}/111', \
             '{uuid}', {pool}, 0, 9000000000000000, 1)"
        );
        common::exec(w.db(), &debt).await;
        common::job(w.db(), 901, "Running").await;
        disks(&w).allocate(keyed(&key(901, false), order(8, Some(1)))).await.unwrap();
        assert_eq!((w.count(lies).await, w.count(owed).await), (1, 0));
        w.check_pools().await;
    }

    async fn an_undo_that_comes_first_wins(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        w.pool("p1", 1, 100, "").await;
        common::job(w.db(), 900, "Undoing").await;
        disks(&w).release(keyed(&key(900, true), of(7, None))).await.unwrap();
        common::job(w.db(), 900, "Running").await;
        let e = common::error(disks(&w).allocate(keyed(&key(900, false), order(7, Some(1)))).await.unwrap_err());
        assert_eq!((e.code, e.cs_code), (530, 4300));
        assert_eq!(w.hosts.disks(), 0);
        w.check_pools().await;
    }

    // covers: STO-051, VM-023
    async fn pools_are_chosen_by_reach_tags_and_room(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        let plain = w.pool("plain", 1, 100, "").await;
        let ssd = w.pool("ssd", 1, 100, "ssd,blue").await;
        let other = w.pool("other", 2, 3, "").await;
        common::job(w.db(), 900, "Running").await;
        for n in 0..6 {
            let request = AllocateDisksRequest { tags: vec!["ssd".into(), "blue".into()], ..order(10 + n, Some(1)) };
            let step = StepKey::new(900, format!("disks-{n}"), 1, false);
            let made = disks(&w).allocate(keyed(&step, request)).await.unwrap().into_inner();
            assert_eq!(made.disks[0].pool_id, ssd);
        }
        let step = StepKey::new(900, "elsewhere", 1, false);
        let made = disks(&w).allocate(keyed(&step, order(20, Some(3)))).await.unwrap().into_inner();
        assert_eq!(made.disks[0].pool_id, other);

        // 3 GiB twice over-provisioned, 85 percent of it: the template and one disk fill it.
        let step = StepKey::new(900, "full", 1, false);
        let full = AllocateDisksRequest { tags: Vec::new(), ..order(21, Some(3)) };
        let e = common::error(disks(&w).allocate(keyed(&step, full)).await.unwrap_err());
        assert_eq!((e.code, e.cs_code), (533, 4325));
        assert!(e.text_for(true).contains("other has room for"), "{}", e.text_for(true));
        assert!(e.text_for(true).contains("plain is not reached"), "{}", e.text_for(true));
        let step = StepKey::new(900, "red", 1, false);
        let red = AllocateDisksRequest { tags: vec!["red".into()], ..order(22, Some(1)) };
        let e = common::error(disks(&w).allocate(keyed(&step, red)).await.unwrap_err());
        assert!(e.text_for(true).contains("lacks the tags red"), "{}", e.text_for(true));

        let ask = FitRequest { zone_id: 1, template_id: 111, bytes: 2 * GIB, cluster_ids: vec![1, 2], ..FitRequest::default() };
        let fit = |ask: FitRequest| {
            let mut client = disks(&w);
            async move { client.fit(rpc::cx::request(&common::admin(), ask)).await.unwrap().into_inner().cluster_ids }
        };
        assert_eq!(fit(ask.clone()).await, vec![1]);
        assert_eq!(fit(FitRequest { tags: vec!["red".into()], ..ask.clone() }).await, Vec::<i64>::new());
        assert_eq!(fit(FitRequest { vm_id: Some(20), bytes: 0, ..ask }).await, vec![2]);
        assert!(plain > 0);
        w.check_pools().await;
    }

    // covers: STO-042, STO-040
    async fn expunging_removes_the_root_and_leaves_the_data(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        w.pool("p1", 1, 100, "").await;
        let uuid = vm(w.db(), 7, 3, "Stopped", Some(1)).await;
        common::job(w.db(), 900, "Running").await;
        let small = small(&w).await;
        let made = disks(&w).allocate(keyed(&key(900, false), with_data(order(7, Some(1)), small))).await.unwrap().into_inner();
        // All hosts are away: the bytes are noted, and deleted when one is back.
        for host in 1..=4 {
            w.hosts.away(host, true);
        }
        let expunge = StepKey::new(900, "expunge", 1, false);
        disks(&w).expunge(keyed(&expunge, of(7, None))).await.unwrap();
        assert_eq!(w.count("SELECT COUNT(*) FROM pending_deletions").await, 1);
        assert_eq!(w.hosts.disks(), 2);
        assert_eq!(w.count("SELECT COUNT(*) FROM volumes WHERE removed IS NULL AND kind = 'DATADISK' AND vm_id IS NULL AND pool_id IS NOT NULL").await, 1);
        assert_eq!(w.count("SELECT COUNT(*) FROM volumes WHERE removed IS NULL AND kind = 'ROOT'").await, 0);
        w.check_pools().await;
        for host in 1..=4 {
            w.hosts.away(host, false);
        }
        common::exec(w.db(), "UPDATE pending_deletions SET not_before = 0").await;
        testkit::wait_until(
            || async {
                arcus_storage::cleaner::drain(&w.storage, None).await.unwrap();
                w.count("SELECT COUNT(*) FROM pending_deletions").await == 0
            },
            std::time::Duration::from_secs(20),
        )
        .await;
        assert_eq!(w.hosts.disks(), 1);
        assert_eq!(w.hosts.disks_of(&made.disks[1].uuid).len(), 1);
        assert_eq!(w.hosts.ended(), [uuid], "its leases go with its root");
        disks(&w).expunge(keyed(&expunge, of(7, None))).await.unwrap();
        w.check_pools().await;

        // A volume that goes while its VM goes on isn't the VM's end.
        vm(w.db(), 8, 3, "Stopped", Some(1)).await;
        common::job(w.db(), 901, "Running").await;
        disks(&w).allocate(keyed(&key(901, false), order(8, Some(1)))).await.unwrap();
        common::job(w.db(), 901, "Undoing").await;
        disks(&w).release(keyed(&key(901, true), of(8, None))).await.unwrap();
        assert_eq!((w.hosts.disks(), w.hosts.ended().len()), (1, 1));
    }

    async fn a_vm_that_was_deployed_stopped_gets_its_places_when_it_starts(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        w.pool("p1", 1, 100, "").await;
        common::job(w.db(), 900, "Running").await;
        let small = small(&w).await;
        let made = disks(&w).allocate(keyed(&key(900, false), with_data(order(7, None), small))).await.unwrap().into_inner();
        assert_eq!((made.disks[0].pool_id, w.hosts.disks()), (0, 0));
        assert_eq!(w.count("SELECT COUNT(*) FROM volumes WHERE state = 'Allocated'").await, 2);

        common::job(w.db(), 901, "Running").await;
        w.hosts.away(1, true);
        let start = StepKey::new(901, "disks", 1, false);
        let e = common::error(disks(&w).prepare(keyed(&start, of(7, Some(1)))).await.unwrap_err());
        assert_eq!(e.code, 534);
        assert_eq!(w.count("SELECT COUNT(*) FROM volumes WHERE state = 'Creating'").await, 2);
        w.check_pools().await;
        // Another job tries on another host of the cluster: the places stay, the bytes are made there.
        common::job(w.db(), 902, "Running").await;
        let start = StepKey::new(902, "disks", 1, false);
        let ready = disks(&w).prepare(keyed(&start, of(7, Some(2)))).await.unwrap().into_inner();
        assert_eq!(ready.disks.len(), 2);
        assert!(ready.disks.iter().all(|d| d.pool_id > 0 && !d.path.is_empty() && !d.pool_uuid.is_empty()));
        assert_eq!((ready.placed.len(), w.hosts.disks()), (0, 2));
        assert!(w.hosts.disks_of(&ready.disks[0].uuid)[0].template.is_some());
        assert_eq!(w.count("SELECT COUNT(*) FROM volumes WHERE state = 'Ready'").await, 2);
        let commits = w.db().stats().commits;
        let start = StepKey::new(902, "disks-again", 1, false);
        let same = disks(&w).prepare(keyed(&start, of(7, Some(2)))).await.unwrap().into_inner();
        assert_eq!(same.disks, ready.disks);
        assert_eq!(w.db().stats().commits, commits, "nothing is written when everything is there");
        // A host of the other cluster doesn't reach the pool.
        let start = StepKey::new(902, "disks-there", 1, false);
        let e = common::error(disks(&w).prepare(keyed(&start, of(7, Some(3)))).await.unwrap_err());
        assert_eq!(e.code, 533);
        w.check_pools().await;
    }

    async fn what_prepare_picked_can_be_taken_back(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        w.pool("p1", 1, 100, "").await;
        common::job(w.db(), 900, "Running").await;
        disks(&w).allocate(keyed(&key(900, false), order(7, None))).await.unwrap();
        common::job(w.db(), 901, "Running").await;
        let placed = disks(&w).prepare(keyed(&key(901, false), of(7, Some(1)))).await.unwrap().into_inner();
        assert_eq!(placed.placed.len(), 1);
        common::job(w.db(), 901, "Undoing").await;
        disks(&w).release(keyed(&key(901, true), of(7, None))).await.unwrap();
        assert_eq!(w.count("SELECT COUNT(*) FROM volumes WHERE state = 'Allocated' AND removed IS NULL AND pool_id IS NULL").await, 1);
        assert_eq!(w.hosts.disks(), 0);
        w.check_pools().await;
    }

    async fn the_factor_follows_the_setting(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.pool("p1", 1, 10, "").await;
        let settings = w.node.settings.clone();
        store::tx!(w.db(), "set", |tx| {
            settings.set(tx, "storage.overprovisioning.factor", "20", config::Scope::Global).await
        })
        .await
        .unwrap();
        testkit::wait_until(
            || async { w.count("SELECT COUNT(*) FROM storage_pools WHERE overcommit = 20").await == 1 },
            std::time::Duration::from_secs(10),
        )
        .await;
    }
}

/// What one client of the property test does with one VM.
#[derive(Clone, Debug)]
enum Fate {
    /// It stays.
    Keep,
    /// Its deployment is undone.
    Undo,
    /// It is expunged.
    Expunge,
}

async fn live(w: &World, vm: i64, host: i64, gib: i64, fate: &Fate) -> Option<DisksResponse> {
    let job = 1000 + vm;
    common::job(w.db(), job, "Running").await;
    let mut request = order(vm, Some(host));
    request.root.as_mut().unwrap().size = gib * GIB;
    let made = disks(w).allocate(keyed(&key(job, false), request)).await;
    match (made, fate) {
        (Ok(made), Fate::Keep) => return Some(made.into_inner()),
        (Ok(_), Fate::Undo) => {
            common::job(w.db(), job, "Undoing").await;
            disks(w).release(keyed(&key(job, true), of(vm, None))).await.unwrap();
        }
        (Ok(_), Fate::Expunge) => {
            disks(w).expunge(keyed(&StepKey::new(job, "expunge", 1, false), of(vm, None))).await.unwrap();
        }
        (Err(status), _) => {
            let e = common::error(status);
            assert_eq!(e.code, 533, "{e}");
            common::job(w.db(), job, "Undoing").await;
            disks(w).release(keyed(&key(job, true), of(vm, None))).await.unwrap();
        }
    }
    None
}

async fn pools_never_promise_too_much(db: testkit::TestDb, plan: Vec<(i64, i64, Fate)>) {
    let w = World::new(db).await;
    w.image_store().await;
    for (name, cluster, gib) in [("a", 1, 6), ("b", 1, 9), ("c", 2, 12)] {
        w.pool(name, cluster, gib, "").await;
    }
    let kept = futures::future::join_all(
        plan.iter()
            .enumerate()
            .map(|(n, (host, gib, fate))| live(&w, i64::try_from(n).unwrap() + 1, *host, *gib, fate)),
    )
    .await;
    w.check_pools().await;
    let kept: Vec<DisksResponse> = kept.into_iter().flatten().collect();
    assert_eq!(w.hosts.disks(), kept.len());
    let mut by_pool: HashMap<i64, i64> = HashMap::new();
    for d in kept.iter().flat_map(|k| &k.disks) {
        *by_pool.entry(d.pool_id).or_default() += d.size;
    }
    let capacity = w.count("SELECT CAST(SUM(capacity_bytes) AS SIGNED) FROM storage_pools").await;
    assert!(by_pool.values().sum::<i64>() <= capacity * 2 * 85 / 100);
    // Everything can be given back to the last byte.
    for (n, _) in plan.iter().enumerate() {
        let vm = i64::try_from(n).unwrap() + 1;
        let job = 5000 + vm;
        common::job(w.db(), job, "Running").await;
        disks(&w).expunge(keyed(&StepKey::new(job, "expunge", 1, false), of(vm, None))).await.unwrap();
    }
    let rest = "SELECT CAST(COALESCE(SUM(allocated_bytes), 0) AS SIGNED) FROM storage_pools";
    let templates = "SELECT CAST(COALESCE(SUM(size), 0) AS SIGNED) FROM template_pool_refs";
    assert_eq!(w.count(rest).await, w.count(templates).await);
    assert_eq!(w.hosts.disks(), 0);
}

fn fates() -> impl Strategy<Value = Vec<(i64, i64, Fate)>> {
    let fate = prop_oneof![Just(Fate::Keep), Just(Fate::Undo), Just(Fate::Expunge)];
    proptest::collection::vec((1i64..=4, 2i64..=6, fate), 4..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn pool_accounting_on_sqlite(plan in fates()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(pools_never_promise_too_much(testkit::TestDb::sqlite(), plan));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn pool_accounting_on_mariadb(plans in proptest::collection::vec(fates(), 5)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            for plan in plans {
                pools_never_promise_too_much(testkit::TestDb::mariadb().await, plan).await;
            }
        });
    }
}
