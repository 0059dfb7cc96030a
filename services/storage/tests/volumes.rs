//! Volumes through their gRPC service and jobs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{GIB, World, ZONE, admin, error, user, uuid, vm};
use contract::api::Caller;
use contract_storage::volumes_client::VolumesClient;
use contract_storage::*;
use rpc::PeerChannel;
use rpc::cx::request;
use store::Sql;

fn api(w: &World) -> VolumesClient<PeerChannel> {
    VolumesClient::new(w.node.peers.storage())
}

async fn offering(w: &World, name: &str) -> String {
    let sql = Sql::new("SELECT uuid FROM disk_offerings WHERE name = ?").bind(name);
    w.db().one(sql).await.unwrap().at(0).unwrap()
}

async fn create(w: &World, caller: &Caller, name: &str, offering: &str, size: Option<i64>) -> Volume {
    let order = CreateVolumeRequest {
        name: Some(name.into()),
        zone_id: Some(ZONE.into()),
        disk_offering_id: Some(offering.into()),
        size,
        ..Default::default()
    };
    let job = api(w).create(request(caller, order)).await.unwrap().into_inner();
    let volume: Volume = w.output(&job.job_id).await.unwrap();
    assert_eq!(volume.id, job.id);
    volume
}

async fn attach(w: &World, volume: &Volume, vm: &str) -> Result<Volume, contract::ApiError> {
    let order =
        AttachVolumeRequest { id: volume.id.clone(), virtual_machine_id: Some(vm.into()), ..Default::default() };
    let job = api(w).attach(request(&admin(), order)).await.map_err(error)?.into_inner();
    w.output(&job.job_id).await
}

async fn detach(w: &World, volume: &Volume) -> Result<Volume, contract::ApiError> {
    let order = DetachVolumeRequest { id: volume.id.clone(), ..Default::default() };
    let job = api(w).detach(request(&admin(), order)).await.map_err(error)?.into_inner();
    w.output(&job.job_id).await
}

async fn resize(w: &World, order: ResizeVolumeRequest) -> Result<Volume, contract::ApiError> {
    let job = api(w).resize(request(&admin(), order)).await.map_err(error)?.into_inner();
    w.output(&job.job_id).await
}

testkit::databases! {
    // covers: STO-043, STO-044, STO-073, STO-075, STO-102, STO-103
    async fn a_data_disk_lives(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.pool("p1", 1, 100, "").await;
        w.pool("p2", 2, 100, "").await;
        let running = vm(w.db(), 7, 3, "Running", Some(3)).await;
        let stopped = vm(w.db(), 8, 3, "Stopped", Some(4)).await;
        let small = offering(&w, "Small").await;
        let made = create(&w, &user(), "d1", &small, None).await;
        assert_eq!((made.state.as_deref(), made.r#type.as_deref(), made.size), (Some("Allocated"), Some("DATADISK"), Some(5 * GIB)));
        assert_eq!((made.storage.clone(), made.hypervisor.clone(), made.device_id), (None, None, None));
        assert_eq!((made.account.as_deref(), made.disk_offering_name.as_deref()), (Some("ann"), Some("Small")));
        let id = made.id.clone().unwrap();
        assert_eq!((w.limits.held(&format!("volume:{id}"), 2), w.limits.held(&format!("volume:{id}"), 10)), (Some(1), Some(5 * GIB)));
        assert_eq!(w.count("SELECT CAST(SUM(allocated_bytes) AS SIGNED) FROM storage_pools").await, 0);

        let on = attach(&w, &made, &running).await.unwrap();
        assert_eq!((on.state.as_deref(), on.device_id, on.vm_state.as_deref()), (Some("Ready"), Some(1), Some("Running")));
        assert_eq!((on.storage.as_deref(), on.cluster_name.as_deref(), on.hypervisor.as_deref()), (Some("p2"), Some("C2"), Some("Simulator")));
        assert!(on.attached.is_some() && w.hosts.is_attached(&running, &id));
        w.check_pools().await;
        let listed = ListVolumesRequest { virtual_machine_id: Some(running.clone()), ..Default::default() };
        let listed = api(&w).list(request(&user(), listed)).await.unwrap().into_inner();
        assert_eq!((listed.count, listed.volume[0].id.clone()), (Some(1), Some(id.clone())));
        assert_eq!(listed.volume[0].storage, None, "users don't see where it lies");
        let e = attach(&w, &made, &stopped).await.unwrap_err();
        assert_eq!((e.code, e.text.as_str()), (431, "Please specify a volume that is not attached to any VM."));
        let e = error(api(&w).delete(request(&user(), DeleteVolumeRequest { id: Some(id.clone()) })).await.unwrap_err());
        assert_eq!(e.code, 431);

        let off = detach(&w, &made).await.unwrap();
        assert_eq!((off.virtual_machine_id, off.device_id, off.attached, off.state.as_deref()), (None, None, None, Some("Ready")));
        assert!(!w.hosts.is_attached(&running, &id));
        // Its bytes stay where they are, also for another VM of the cluster.
        let on = attach(&w, &made, &stopped).await.unwrap();
        assert_eq!((on.storage.as_deref(), on.device_id), (Some("p2"), Some(1)));
        assert_eq!(w.hosts.told("EnsureDisk"), 1);
        detach(&w, &made).await.unwrap();

        assert!(api(&w).delete(request(&user(), DeleteVolumeRequest { id: Some(id.clone()) })).await.unwrap().into_inner().success);
        w.check_pools().await;
        assert_eq!(w.limits.held(&format!("volume:{id}"), 2), None);
        testkit::wait_until(|| async { w.hosts.disks() == 0 }, std::time::Duration::from_secs(10)).await;
        testkit::wait_until(
            || async { w.count("SELECT COUNT(*) FROM pending_deletions").await == 0 },
            std::time::Duration::from_secs(10),
        )
        .await;
        let kinds = "SELECT COUNT(*) FROM outbox WHERE topic = 'usage' AND kind IN ('VOLUME.CREATE', 'VOLUME.DELETE')";
        assert_eq!(w.count(kinds).await, 2);
    }

    // covers: STO-101
    async fn what_cannot_be_attached_says_why(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.pool("p1", 1, 100, "").await;
        w.pool("p2", 2, 100, "").await;
        let running = vm(w.db(), 7, 3, "Running", Some(1)).await;
        let elsewhere = vm(w.db(), 8, 3, "Running", Some(3)).await;
        let starting = vm(w.db(), 9, 3, "Starting", Some(1)).await;
        let strange = vm(w.db(), 10, 2, "Running", Some(1)).await;
        let small = offering(&w, "Small").await;
        let v = create(&w, &user(), "d1", &small, None).await;
        let code = |e: contract::ApiError| e.code;
        assert_eq!(attach(&w, &v, &starting).await.map_err(code), Err(431));
        assert_eq!(attach(&w, &v, &strange).await.map_err(code), Err(531));
        let theirs = AttachVolumeRequest { id: v.id.clone(), virtual_machine_id: Some(strange.clone()), ..Default::default() };
        assert_eq!(error(api(&w).attach(request(&user(), theirs)).await.unwrap_err()).code, 531);
        for device in [0, 3, 256] {
            let order = AttachVolumeRequest { device_id: Some(device), id: v.id.clone(), virtual_machine_id: Some(running.clone()), ..Default::default() };
            assert_eq!(error(api(&w).attach(request(&user(), order)).await.unwrap_err()).code, 431);
        }
        let order = AttachVolumeRequest { device_id: Some(9), id: v.id.clone(), virtual_machine_id: Some(running.clone()), ..Default::default() };
        let job = api(&w).attach(request(&user(), order)).await.unwrap().into_inner();
        assert_eq!(w.output::<Volume>(&job.job_id).await.unwrap().device_id, Some(9));
        let by_device = DetachVolumeRequest { device_id: Some(9), virtual_machine_id: Some(running.clone()), ..Default::default() };
        let job = api(&w).detach(request(&user(), by_device)).await.unwrap().into_inner();
        w.output::<Volume>(&job.job_id).await.unwrap();
        let e = attach(&w, &v, &elsewhere).await.unwrap_err();
        assert_eq!(e.code, 431);
        assert!(e.text.contains("p1"), "{}", e.text);
        for n in 0..6 {
            let more = create(&w, &user(), &format!("m{n}"), &small, None).await;
            attach(&w, &more, &running).await.unwrap();
        }
        let e = attach(&w, &v, &running).await.unwrap_err();
        assert!(e.text.contains("maximum number of data disks (6)"), "{}", e.text);
        w.check_pools().await;
    }

    async fn a_failed_attachment_leaves_nothing(db: testkit::TestDb) {
        let w = World::new(db).await;
        let pool = w.pool("p1", 1, 100, "").await;
        let running = vm(w.db(), 7, 3, "Running", Some(1)).await;
        let small = offering(&w, "Small").await;
        let v = create(&w, &user(), "d1", &small, None).await;
        for order in ["AttachDisk", "EnsureDisk"] {
            w.hosts.refuse(order, true);
            assert!(attach(&w, &v, &running).await.is_err());
            w.hosts.refuse(order, false);
            let left = "SELECT COUNT(*) FROM volumes WHERE vm_id IS NULL AND slot IS NULL AND pool_id IS NULL AND state = 'Allocated'";
            assert_eq!(w.count(left).await, 1);
            assert_eq!(w.hosts.disks(), 0);
            w.check_pools().await;
        }
        attach(&w, &v, &running).await.unwrap();
        w.hosts.refuse("DetachDisk", true);
        assert!(detach(&w, &v).await.is_err());
        w.hosts.refuse("DetachDisk", false);
        assert_eq!(w.count("SELECT COUNT(*) FROM volumes WHERE vm_id = 7").await, 1);
        assert!(w.hosts.is_attached(&running, v.id.as_deref().unwrap()));
        assert!(pool > 0);
    }

    // covers: STO-125, STO-126, STO-127
    async fn volumes_grow_and_shrink(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.pool("p1", 1, 100, "").await;
        let running = vm(w.db(), 7, 3, "Running", Some(1)).await;
        let (small, medium, custom) = (offering(&w, "Small").await, offering(&w, "Medium").await, offering(&w, "Custom").await);
        let v = create(&w, &user(), "d1", &small, None).await;
        let id = v.id.clone();
        let holder = format!("volume:{}", id.clone().unwrap());
        // Allocated: only the row changes.
        let order = ResizeVolumeRequest { id: id.clone(), disk_offering_id: Some(medium.clone()), ..Default::default() };
        let grown = resize(&w, order).await.unwrap();
        assert_eq!((grown.size, grown.state.as_deref(), grown.disk_offering_name.as_deref()), (Some(20 * GIB), Some("Allocated"), Some("Medium")));
        assert_eq!(w.limits.held(&holder, 10), Some(20 * GIB));
        attach(&w, &v, &running).await.unwrap();
        let fixed = ResizeVolumeRequest { id: id.clone(), size: Some(30), ..Default::default() };
        assert_eq!(resize(&w, fixed).await.unwrap_err().code, 431);
        let order = ResizeVolumeRequest { id: id.clone(), size: Some(33), disk_offering_id: Some(custom.clone()), ..Default::default() };
        let grown = resize(&w, order).await.unwrap();
        assert_eq!((grown.size, grown.state.as_deref(), grown.disk_offering_name.as_deref()), (Some(33 * GIB), Some("Ready"), Some("Custom")));
        w.check_pools().await;
        let small_again = ResizeVolumeRequest { id: id.clone(), size: Some(10), ..Default::default() };
        let e = resize(&w, small_again.clone()).await.unwrap_err();
        assert!(e.text.contains("shrinkok"), "{}", e.text);
        let shrunk = resize(&w, ResizeVolumeRequest { shrink_ok: Some(true), ..small_again }).await.unwrap();
        assert_eq!(shrunk.size, Some(10 * GIB));
        assert_eq!(w.hosts.disks_of(id.as_deref().unwrap())[0].size, u64::try_from(10 * GIB).unwrap());
        assert_eq!(w.limits.held(&holder, 10), Some(10 * GIB));
        w.check_pools().await;
        let larger = ResizeVolumeRequest { id: id.clone(), size: Some(22), ..Default::default() };
        assert_eq!(resize(&w, larger).await.unwrap().size, Some(22 * GIB));
        let back =
            ResizeVolumeRequest { id: id.clone(), size: Some(10), shrink_ok: Some(true), ..Default::default() };
        resize(&w, back).await.unwrap();
        common::exec(w.db(), "UPDATE disk_offerings SET tags = 'ssd' WHERE name = 'Large'").await;
        let large = offering(&w, "Large").await;
        let other_tag =
            ResizeVolumeRequest { id: id.clone(), disk_offering_id: Some(large), ..Default::default() };
        let e = resize(&w, other_tag).await.unwrap_err();
        assert_eq!(e.text, "The tags on the new and old disk offerings must match.");
        // More than the pool has.
        let huge = ResizeVolumeRequest { id: id.clone(), size: Some(500), ..Default::default() };
        assert_eq!(resize(&w, huge).await.unwrap_err().code, 533);
        w.hosts.refuse("ResizeDisk", true);
        let order = ResizeVolumeRequest { id: id.clone(), size: Some(11), ..Default::default() };
        assert!(resize(&w, order).await.is_err());
        assert_eq!(w.limits.held(&holder, 10), Some(10 * GIB));
        assert_eq!(w.count("SELECT size FROM volumes WHERE state = 'Ready'").await, 10 * GIB);
        w.check_pools().await;
    }

    async fn creating_is_checked(db: testkit::TestDb) {
        let w = World::new(db).await;
        let (small, custom) = (offering(&w, "Small").await, offering(&w, "Custom").await);
        let order = |offering: &str, size: Option<i64>| CreateVolumeRequest {
            name: Some("v".into()),
            zone_id: Some(ZONE.into()),
            disk_offering_id: Some(offering.into()),
            size,
            ..Default::default()
        };
        for bad in [
            order(&small, Some(7)),
            order(&custom, None),
            order(&custom, Some(1025)),
            CreateVolumeRequest { zone_id: None, ..order(&small, None) },
            CreateVolumeRequest { disk_offering_id: None, ..order(&small, None) },
        ] {
            assert_eq!(error(api(&w).create(request(&user(), bad.clone())).await.unwrap_err()).code, 431, "{bad:?}");
        }
        let made = create(&w, &user(), "c", &custom, Some(15)).await;
        assert_eq!(made.size, Some(15 * GIB));
        let named = CreateVolumeRequest { custom_id: Some("0f0f0f0f-0000-4000-8000-000000000001".into()), account: Some("ann".into()),
            domain_id: Some(uuid("domain", 5)), ..order(&small, None) };
        let job = api(&w).create(request(&admin(), named.clone())).await.unwrap().into_inner();
        assert_eq!(job.id.as_deref(), Some("0f0f0f0f-0000-4000-8000-000000000001"));
        assert_eq!(w.output::<Volume>(&job.job_id).await.unwrap().account.as_deref(), Some("ann"));
        assert_eq!(error(api(&w).create(request(&admin(), named)).await.unwrap_err()).code, 431);
        assert_eq!(w.limits.held("volume:0f0f0f0f-0000-4000-8000-000000000001", 2), Some(1));
        // One request, one volume, however often it is sent.
        let once = Caller { idempotency_key: Some("k".into()), ..user() };
        let first = api(&w).create(request(&once, order(&small, None))).await.unwrap().into_inner();
        let second = api(&w).create(request(&once, order(&small, None))).await.unwrap().into_inner();
        assert_eq!(first, second);
        assert_eq!(w.count("SELECT COUNT(*) FROM volumes").await, 3);
        w.limits.most_volumes(3);
        let e = error(api(&w).create(request(&user(), order(&small, None))).await.unwrap_err());
        assert_eq!((e.code, e.cs_code), (535, 4370));
        assert_eq!(w.count("SELECT COUNT(*) FROM volumes").await, 3);

        // Others see none of it, their administrator all.
        let bob = Caller { account_id: 4, account_name: "bob".into(), ..user() };
        let all = ListVolumesRequest { list_all: Some(true), ..Default::default() };
        assert_eq!(api(&w).list(request(&bob, all.clone())).await.unwrap().into_inner().count, Some(0));
        assert_eq!(api(&w).list(request(&user(), all.clone())).await.unwrap().into_inner().count, Some(3));
        assert_eq!(api(&w).list(request(&admin(), all)).await.unwrap().into_inner().count, Some(3));
        let mine = ListVolumesRequest::default();
        assert_eq!(api(&w).list(request(&admin(), mine)).await.unwrap().into_inner().count, Some(0));
        let statements = async |n: i32| {
            testkit::least(|| async {
                let before = w.db().stats().statements;
                let page = ListVolumesRequest { page: Some(1), page_size: Some(n), ..Default::default() };
                api(&w).list(request(&user(), page)).await.unwrap();
                w.db().stats().statements - before
            }).await
        };
        let (one, three) = (statements(1).await, statements(3).await);
        assert!(three <= one, "{one} statements for one volume, {three} for three");
    }

    async fn a_volume_can_be_created_for_a_vm(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.pool("p1", 1, 100, "").await;
        let running = vm(w.db(), 7, 3, "Running", Some(1)).await;
        let small = offering(&w, "Small").await;
        let order = CreateVolumeRequest { virtual_machine_id: Some(running.clone()), disk_offering_id: Some(small), ..Default::default() };
        let job = api(&w).create(request(&user(), order)).await.unwrap().into_inner();
        let made: Volume = w.output(&job.job_id).await.unwrap();
        assert_eq!((made.virtual_machine_id.as_deref(), made.state.as_deref()), (Some(running.as_str()), Some("Ready")));
        assert!(w.hosts.is_attached(&running, made.id.as_deref().unwrap()));
    }
}
