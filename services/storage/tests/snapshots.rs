//! Snapshots of volumes, and what is made of them, through their gRPC services and jobs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{GIB, SECOND_ZONE, Say, World, ZONE, admin, error, user, uuid};
use contract::ApiError;
use contract::api::{Caller, JobRef, Success};
use contract_storage::image_stores_client::ImageStoresClient;
use contract_storage::snapshots_client::SnapshotsClient;
use contract_storage::templates_client::TemplatesClient;
use contract_storage::volumes_client::VolumesClient;
use contract_storage::*;
use rpc::PeerChannel;
use rpc::cx::request;

fn api(w: &World) -> SnapshotsClient<PeerChannel> {
    SnapshotsClient::new(w.node.peers.storage())
}

fn volumes(w: &World) -> VolumesClient<PeerChannel> {
    VolumesClient::new(w.node.peers.storage())
}

fn bob() -> Caller {
    Caller { user_id: 4, account_id: 4, account_name: "bob".into(), ..user() }
}

async fn ended<M: prost::Message + Default>(w: &World, job: JobRef) -> Result<M, ApiError> {
    w.output(&job.job_id).await
}

/// A volume of "ann" of 5 GiB, attached to VM 7.
async fn volume(w: &World) -> Volume {
    let small = w.db().one("SELECT uuid FROM disk_offerings WHERE name = 'Small'".into()).await.unwrap().at(0).unwrap();
    let order = CreateVolumeRequest {
        name: Some("data".into()),
        zone_id: Some(ZONE.into()),
        disk_offering_id: Some(small),
        virtual_machine_id: Some(uuid("vm", 7)),
        ..Default::default()
    };
    let job = volumes(w).create(request(&user(), order)).await.unwrap().into_inner();
    ended(w, job).await.unwrap()
}

async fn world(db: testkit::TestDb) -> (World, String, Volume) {
    let w = World::new(db).await;
    let store = w.image_store().await;
    w.pool("p1", 1, 100, "").await;
    common::vm(w.db(), 7, 3, "Running", Some(1)).await;
    let v = volume(&w).await;
    (w, store, v)
}

fn of(v: &Volume) -> CreateSnapshotRequest {
    CreateSnapshotRequest { volume_id: v.id.clone(), name: Some("s".into()), ..Default::default() }
}

async fn take(w: &World, caller: &Caller, order: CreateSnapshotRequest) -> Result<Snapshot, ApiError> {
    let job = api(w).create(request(caller, order)).await.map_err(error)?.into_inner();
    ended(w, job).await
}

async fn list(w: &World, caller: &Caller, order: ListSnapshotsRequest) -> Vec<Snapshot> {
    let found = api(w).list(request(caller, order)).await.unwrap().into_inner();
    assert_eq!(found.count, Some(i64::try_from(found.snapshot.len()).unwrap()));
    found.snapshot
}

async fn delete(w: &World, caller: &Caller, id: &Option<String>) -> Result<Success, ApiError> {
    let order = DeleteSnapshotRequest { id: id.clone(), ..Default::default() };
    let job = api(w).delete(request(caller, order)).await.map_err(error)?.into_inner();
    ended(w, job).await
}

async fn facts(w: &World, kind: &str) -> i64 {
    w.count(&format!("SELECT COUNT(*) FROM outbox WHERE topic = 'usage' AND kind = '{kind}'")).await
}

/// Waits until nothing of an image is in the stores.
async fn gone(w: &World, path: &str) {
    common::due(w).await;
    testkit::eventually(|| async { w.hosts.images(None).iter().all(|(p, _)| p != path).then_some(()) }).await;
}

testkit::databases! {
    // covers: STO-143, STO-135
    async fn a_snapshot_lives(db: testkit::TestDb) {
        let (w, store, v) = world(db).await;
        let made = take(&w, &user(), of(&v)).await.unwrap();
        assert_eq!((made.state.as_deref(), made.name.as_deref(), made.account.as_deref()), (Some("BackedUp"), Some("s"), Some("ann")));
        assert_eq!((made.volume_id.clone(), made.volume_type.as_deref()), (v.id.clone(), Some("DATADISK")));
        assert_eq!((made.virtual_size, made.physical_size, made.revertable), (Some(5 * GIB), Some(700), Some(true)));
        assert_eq!((made.snapshot_type.as_deref(), made.interval_type.as_deref(), made.zone_id.as_deref()), (Some("MANUAL"), Some("MANUAL"), Some(ZONE)));
        // By the host that runs the VM, through its driver.
        let order = w.hosts.stored().pop().unwrap();
        assert_eq!((order.vm_uuid, order.volume_uuid, order.store.unwrap().uuid), (Some(uuid("vm", 7)), v.id.clone().unwrap(), store.clone()));
        assert_eq!(w.hosts.who("StoreDisk").iter().filter(|host| **host != 1).count(), 0);
        let key = format!("snapshot:{}", made.id.clone().unwrap());
        assert_eq!((w.limits.held(&key, 3), w.limits.held(&key, 11)), (Some(1), Some(700)));
        assert_eq!(facts(&w, "SNAPSHOT.CREATE").await, 1);
        // The pool is as before: nothing of it lies there.
        w.check_pools().await;

        // Detached, it is at rest: any host that reaches the pool copies it.
        let order = DetachVolumeRequest { id: v.id.clone(), ..Default::default() };
        let job = volumes(&w).detach(request(&user(), order)).await.unwrap().into_inner();
        ended::<Volume>(&w, job).await.unwrap();
        let unnamed = CreateSnapshotRequest { name: None, ..of(&v) };
        let second = take(&w, &admin(), unnamed).await.unwrap();
        assert!(second.name.clone().unwrap().starts_with("detached_data_20"), "{:?}", second.name);
        assert_eq!((second.account.as_deref(), w.hosts.stored().pop().unwrap().vm_uuid), (Some("ann"), None));

        // It outlives its volume.
        volumes(&w).delete(request(&user(), DeleteVolumeRequest { id: v.id.clone() })).await.unwrap();
        let shown = list(&w, &user(), ListSnapshotsRequest::default()).await;
        assert_eq!(shown.iter().map(|s| s.id.clone()).collect::<Vec<_>>(), [made.id.clone(), second.id.clone()]);
        assert_eq!(shown[0].volume_name.as_deref(), Some("data"));
        let mut stores = ImageStoresClient::new(w.node.peers.storage());
        let e = error(stores.delete(request(&admin(), DeleteImageStoreRequest { id: Some(store) })).await.unwrap_err());
        assert_eq!(e.code, 530, "a store with snapshots stays");

        let path: String = w.db().one("SELECT path FROM snapshots WHERE name = 's'".into()).await.unwrap().at(0).unwrap();
        assert_eq!(error(api(&w).delete(request(&bob(), DeleteSnapshotRequest { id: made.id.clone(), ..Default::default() })).await.unwrap_err()).code, 531);
        assert!(delete(&w, &user(), &made.id).await.unwrap().success);
        gone(&w, &path).await;
        assert_eq!(w.limits.held(&key, 3), None);
        assert_eq!(facts(&w, "SNAPSHOT.DELETE").await, 1);
        assert_eq!(delete(&w, &user(), &made.id).await.unwrap_err().code, 431);
        assert_eq!(list(&w, &user(), ListSnapshotsRequest::default()).await.len(), 1);
    }

    async fn lists_show_what_is_asked_for(db: testkit::TestDb) {
        let (w, _, v) = world(db).await;
        let first = take(&w, &user(), of(&v)).await.unwrap();
        let second = take(&w, &user(), CreateSnapshotRequest { name: Some("Other".into()), ..of(&v) }).await.unwrap();
        let names = |found: Vec<Snapshot>| found.into_iter().filter_map(|s| s.name).collect::<Vec<_>>();
        let ask = ListSnapshotsRequest::default();
        for (order, wanted) in [
            (ListSnapshotsRequest { id: first.id.clone(), ..ask.clone() }, &["s"][..]),
            (ListSnapshotsRequest { ids: vec![first.id.clone().unwrap(), second.id.clone().unwrap()], ..ask.clone() }, &["s", "Other"]),
            (ListSnapshotsRequest { name: Some("Other".into()), ..ask.clone() }, &["Other"]),
            (ListSnapshotsRequest { keyword: Some("oth".into()), ..ask.clone() }, &["Other"]),
            (ListSnapshotsRequest { snapshot_type: Some("manual".into()), ..ask.clone() }, &["s", "Other"]),
            (ListSnapshotsRequest { snapshot_type: Some("RECURRING".into()), ..ask.clone() }, &[]),
            (ListSnapshotsRequest { interval_type: Some("DAILY".into()), ..ask.clone() }, &["s", "Other"]),
            (ListSnapshotsRequest { interval_type: Some("DAILY".into()), volume_id: v.id.clone(), ..ask.clone() }, &[]),
            (ListSnapshotsRequest { volume_id: v.id.clone(), zone_id: Some(ZONE.into()), ..ask.clone() }, &["s", "Other"]),
        ] {
            assert_eq!(names(list(&w, &user(), order.clone()).await), wanted, "{order:?}");
        }
        assert_eq!(names(list(&w, &bob(), ask.clone()).await), [] as [&str; 0]);
        assert_eq!(names(list(&w, &admin(), ask.clone()).await), [] as [&str; 0], "an administrator's own");
        assert_eq!(names(list(&w, &admin(), ListSnapshotsRequest { list_all: Some(true), ..ask.clone() }).await), ["s", "Other"]);
        let bad = ListSnapshotsRequest { snapshot_type: Some("x".into()), ..ask.clone() };
        assert_eq!(error(api(&w).list(request(&user(), bad)).await.unwrap_err()).code, 431);
        let foreign = ListSnapshotsRequest { id: first.id, ..ask };
        assert_eq!(names(list(&w, &bob(), foreign).await), [] as [&str; 0]);
    }

    async fn bad_input_changes_nothing(db: testkit::TestDb) {
        let (w, _, v) = world(db).await;
        let set = |s: &str| Some(s.to_owned());
        for (code, caller, order) in [
            (431, user(), CreateSnapshotRequest { volume_id: None, ..of(&v) }),
            (431, user(), CreateSnapshotRequest { volume_id: set(&uuid("none", 1)), ..of(&v) }),
            (531, bob(), of(&v)),
            (431, user(), CreateSnapshotRequest { quiesce_vm: Some(true), ..of(&v) }),
            (431, user(), CreateSnapshotRequest { async_backup: Some(true), ..of(&v) }),
            (431, user(), CreateSnapshotRequest { policy_id: set(&uuid("policy", 1)), ..of(&v) }),
            (431, user(), CreateSnapshotRequest { location_type: set("PRIMARY"), ..of(&v) }),
            (431, admin(), CreateSnapshotRequest { account: set("bob"), domain_id: set(&uuid("domain", 5)), ..of(&v) }),
            (431, admin(), CreateSnapshotRequest { domain_id: set(&uuid("domain", 1)), ..of(&v) }),
        ] {
            let e = error(api(&w).create(request(&caller, order.clone())).await.unwrap_err());
            assert_eq!(e.code, code, "{} {order:?}", e.text);
        }
        common::exec(w.db(), "UPDATE vms SET state = 'Starting'").await;
        assert_eq!(take(&w, &user(), of(&v)).await.unwrap_err().code, 431);
        common::exec(w.db(), "UPDATE vms SET state = 'Running'").await;
        common::exec(w.db(), "UPDATE volumes SET state = 'Allocated'").await;
        let e = take(&w, &user(), of(&v)).await.unwrap_err();
        assert!(e.code == 431 && e.text.contains("is not in Ready state but Allocated"), "{}", e.text);
        common::exec(w.db(), "UPDATE volumes SET state = 'Ready', hypervisor = 'Hyperv'").await;
        assert_eq!(take(&w, &user(), of(&v)).await.unwrap_err().code, 431);
        common::exec(w.db(), "UPDATE volumes SET hypervisor = 'Simulator'").await;
        w.limits.most_secondary(GIB);
        assert_eq!(take(&w, &user(), of(&v)).await.unwrap_err().code, 535);
        common::exec(w.db(), "UPDATE image_stores SET zone_id = 2").await;
        let e = take(&w, &user(), of(&v)).await.unwrap_err();
        assert!(e.code == 530 && e.text.contains("has no secondary storage"), "{}", e.text);
        assert_eq!(w.count("SELECT COUNT(*) FROM snapshots").await, 0);
        assert!(!w.limits.look().contains("snapshot:"), "{}", w.limits.look());
        assert_eq!(w.hosts.told("StoreDisk"), 0);
    }

    async fn what_fails_is_there_as_failed_and_leaves_nothing(db: testkit::TestDb) {
        let (w, _, v) = world(db).await;
        w.hosts.plan(v.id.as_deref().unwrap(), &[Say::Bytes(1, 9), Say::Refuse("the disk is damaged")]);
        let job = api(&w).create(request(&user(), of(&v))).await.unwrap().into_inner();
        let id = job.id.clone();
        let e = ended::<Snapshot>(&w, job).await.unwrap_err();
        assert!(e.text.contains("the disk is damaged"), "{}", e.text);
        let shown = list(&w, &user(), ListSnapshotsRequest { id: id.clone(), ..Default::default() }).await;
        assert_eq!((shown[0].state.as_deref(), shown[0].physical_size), (Some("Error"), Some(0)));
        assert!(!w.limits.look().contains("snapshot:"));
        assert_eq!((facts(&w, "SNAPSHOT.CREATE").await, w.count("SELECT COUNT(*) FROM image_deletions").await), (0, 1));
        let path = w.hosts.images(None).pop().unwrap().0;
        gone(&w, &path).await;
        assert!(delete(&w, &user(), &id).await.unwrap().success);
        assert_eq!(facts(&w, "SNAPSHOT.DELETE").await, 0);
    }

    async fn lost_hosts(db: testkit::TestDb) {
        let (w, _, v) = world(db).await;
        // The VM's own host is lost: nobody else can copy the disk of a running VM, and the VM must not wait.
        w.hosts.plan(v.id.as_deref().unwrap(), &[Say::Bytes(1, 9)]);
        let job = api(&w).create(request(&user(), of(&v))).await.unwrap().into_inner();
        testkit::eventually(|| async { (w.count("SELECT COUNT(*) FROM snapshots WHERE state = 'BackingUp' AND host_id = 1").await == 1).then_some(()) }).await;
        // Meanwhile it isn't deleted, and neither is its volume.
        let e = error(api(&w).delete(request(&user(), DeleteSnapshotRequest { id: job.id.clone(), ..Default::default() })).await.unwrap_err());
        assert!(e.code == 431 && e.text.ends_with("due to it is in BackingUp Status"), "{}", e.text);
        w.hosts.away(1, true);
        common::exec(w.db(), "UPDATE hosts SET status = 'Down' WHERE id = 1").await;
        w.node.coord.publish("placement", "host/1");
        let e = ended::<Snapshot>(&w, job).await.unwrap_err();
        assert_eq!(e.text, "the host on which the VM runs was lost");
        assert_eq!(w.count("SELECT COUNT(*) FROM claims WHERE exclusive <> 0 OR shared <> 0").await, 0);

        // A disk at rest: another host begins anew.
        w.hosts.away(1, false);
        common::exec(w.db(), "UPDATE hosts SET status = 'Up' WHERE id = 1").await;
        common::exec(w.db(), "UPDATE vms SET state = 'Stopped', host_id = NULL").await;
        let job = api(&w).create(request(&user(), of(&v))).await.unwrap().into_inner();
        testkit::eventually(|| async { (w.count("SELECT COUNT(*) FROM snapshots WHERE state = 'BackingUp' AND host_id = 1").await == 1).then_some(()) }).await;
        w.hosts.away(1, true);
        testkit::eventually(|| async { w.hosts.who("StoreDisk").last().filter(|host| **host == 2).map(drop) }).await;
        w.hosts.plan(v.id.as_deref().unwrap(), &[Say::Ready(70, 5 << 30, "")]);
        let made: Snapshot = ended(&w, job).await.unwrap();
        assert_eq!((made.state.as_deref(), made.physical_size), (Some("BackedUp"), Some(70)));
        assert_eq!(w.count("SELECT host_id FROM snapshots WHERE state = 'BackedUp'").await, 2);
    }

    async fn a_volume_is_made_of_a_snapshot(db: testkit::TestDb) {
        let (w, store, v) = world(db).await;
        let snapshot = take(&w, &user(), of(&v)).await.unwrap();
        let order = CreateVolumeRequest { name: Some("copy".into()), snapshot_id: snapshot.id.clone(), ..Default::default() };
        let job = volumes(&w).create(request(&user(), order.clone())).await.unwrap().into_inner();
        let made: Volume = ended(&w, job).await.unwrap();
        assert_eq!((made.state.as_deref(), made.size, made.r#type.as_deref()), (Some("Ready"), Some(5 * GIB), Some("DATADISK")));
        assert_eq!((made.snapshot_id.clone(), made.disk_offering_id.clone(), made.zone_id.as_deref()), (snapshot.id.clone(), v.disk_offering_id.clone(), Some(ZONE)));
        let path: String = w.db().one("SELECT path FROM snapshots".into()).await.unwrap().at(0).unwrap();
        let disk = &w.hosts.disks_of(made.id.as_deref().unwrap())[0];
        assert_eq!((disk.size, disk.from.clone()), (5 << 30, Some((store, path))));
        w.check_pools().await;
        assert_eq!(w.limits.held(&format!("volume:{}", made.id.clone().unwrap()), 10), Some(5 * GIB));

        // At once into a VM.
        let order = CreateVolumeRequest { virtual_machine_id: Some(uuid("vm", 7)), ..order };
        let job = volumes(&w).create(request(&user(), order.clone())).await.unwrap().into_inner();
        let attached: Volume = ended(&w, job).await.unwrap();
        assert_eq!(attached.virtual_machine_id.as_deref(), Some(uuid("vm", 7).as_str()));
        assert!(w.hosts.is_attached(&uuid("vm", 7), attached.id.as_deref().unwrap()));

        // What can't be made goes again.
        w.hosts.refuse("EnsureDisk", true);
        let alone = CreateVolumeRequest { virtual_machine_id: None, ..order.clone() };
        let job = volumes(&w).create(request(&user(), alone.clone())).await.unwrap().into_inner();
        let id = job.id.clone().unwrap();
        assert!(ended::<Volume>(&w, job).await.unwrap_err().text.contains("EnsureDisk fails"));
        assert_eq!(w.limits.held(&format!("volume:{id}"), 2), None);
        assert_eq!(w.count(&format!("SELECT COUNT(*) FROM volumes WHERE uuid = '{id}' AND removed IS NULL")).await, 0);
        w.check_pools().await;
        w.hosts.refuse("EnsureDisk", false);

        // The snapshot may go now: the volumes stand alone.
        assert!(delete(&w, &user(), &snapshot.id).await.unwrap().success);
        let volumes_held = || {
            let held = w.limits.look();
            held.matches("\"volume:").count()
        };
        let live = "SELECT COUNT(*) FROM volumes WHERE removed IS NULL";
        // What the snapshot held is given back in its own time.
        let before = (w.count(live).await, volumes_held());
        assert_eq!(error(volumes(&w).create(request(&user(), alone)).await.unwrap_err()).code, 431);
        assert_eq!((w.count(live).await, volumes_held()), before);
    }

    async fn bad_copies_change_nothing(db: testkit::TestDb) {
        let (w, _, v) = world(db).await;
        common::second_zone(w.db()).await;
        let snapshot = take(&w, &user(), of(&v)).await.unwrap();
        let order = CreateVolumeRequest { snapshot_id: snapshot.id.clone(), ..Default::default() };
        let (count, held) = (w.count("SELECT COUNT(*) FROM volumes").await, w.limits.look());
        for (code, caller, order) in [
            (431, user(), CreateVolumeRequest { size: Some(9), ..order.clone() }),
            (431, user(), CreateVolumeRequest { min_iops: Some(9), max_iops: Some(10), ..order.clone() }),
            (431, user(), CreateVolumeRequest { zone_id: Some(SECOND_ZONE.into()), ..order.clone() }),
            (531, bob(), order.clone()),
            (431, user(), CreateVolumeRequest { snapshot_id: None, zone_id: Some(ZONE.into()), ..order.clone() }),
        ] {
            let e = error(volumes(&w).create(request(&caller, order.clone())).await.unwrap_err());
            assert_eq!(e.code, code, "{} {order:?}", e.text);
        }
        common::exec(w.db(), "UPDATE snapshots SET state = 'BackingUp'").await;
        let e = error(volumes(&w).create(request(&user(), order)).await.unwrap_err());
        assert!(e.code == 431 && e.text.contains("is not in BackedUp state yet"), "{}", e.text);
        let template = template("t", &snapshot.id, &None);
        assert_eq!(capture(&w, &user(), template).await.unwrap_err().code, 431);
        assert_eq!((w.count("SELECT COUNT(*) FROM volumes").await, w.limits.look()), (count, held));
    }

    // covers: TPL-033
    async fn templates_are_made_of_snapshots_and_volumes(db: testkit::TestDb) {
        let (w, store, v) = world(db).await;
        let snapshot = take(&w, &user(), of(&v)).await.unwrap();
        let (count, held) = (w.count("SELECT COUNT(*) FROM templates").await, w.limits.look());
        for (code, caller, order) in [
            (431, user(), template("t", &None, &None)),
            (431, user(), template("t", &snapshot.id, &v.id)),
            (431, user(), template("t", &None, &v.id)), // its VM runs
            (431, user(), template("a name that has more than 32 characters", &snapshot.id, &None)),
            (531, bob(), template("t", &snapshot.id, &None)),
            (531, user(), CreateTemplateRequest { template_tag: Some("x".into()), ..template("t", &snapshot.id, &None) }),
            (431, user(), CreateTemplateRequest { bits: Some(16), ..template("t", &snapshot.id, &None) }),
            (431, user(), CreateTemplateRequest { url: Some("http://h/x".into()), ..template("t", &snapshot.id, &None) }),
            (431, user(), CreateTemplateRequest { os_type_id: None, ..template("t", &snapshot.id, &None) }),
        ] {
            let e = capture(&w, &caller, order.clone()).await.unwrap_err();
            assert_eq!(e.code, code, "{} {order:?}", e.text);
        }
        assert_eq!((w.count("SELECT COUNT(*) FROM templates").await, w.limits.look()), (count, held));

        let made = capture(&w, &user(), template("t", &snapshot.id, &None)).await.unwrap();
        assert_eq!((made.is_ready, made.size, made.physical_size), (Some(true), Some(5 * GIB), Some(700)));
        assert_eq!((made.account.as_deref(), made.template_type.as_deref(), made.is_public), (Some("ann"), Some("USER"), Some(false)));
        let order = w.hosts.stored().pop().unwrap();
        let path: String = w.db().one("SELECT path FROM snapshots".into()).await.unwrap().at(0).unwrap();
        assert_eq!((order.source.unwrap().store_path, order.volume_uuid.as_str()), (path, ""));
        let key = format!("template:{}", made.id.clone().unwrap());
        assert_eq!((w.limits.held(&key, 4), w.limits.held(&key, 11)), (Some(1), Some(700)));
        assert_eq!(facts(&w, "TEMPLATE.CREATE").await, 1);
        assert_eq!(w.hosts.images(Some(&store)).iter().filter(|(_, image)| image.ready).count(), 2);

        // Of a volume at rest.
        common::exec(w.db(), "UPDATE vms SET state = 'Stopped', host_id = NULL").await;
        let second = capture(&w, &user(), template("second", &None, &v.id)).await.unwrap();
        assert_eq!((second.is_ready, second.size), (Some(true), Some(5 * GIB)));
        assert_eq!(w.hosts.stored().pop().unwrap().volume_uuid, v.id.clone().unwrap());

        // What fails leaves nothing.
        let count = w.count("SELECT COUNT(*) FROM template_store_refs").await;
        w.hosts.plan(v.id.as_deref().unwrap(), &[Say::Refuse("no")]);
        assert!(capture(&w, &user(), template("third", &None, &v.id)).await.is_err());
        assert_eq!(w.count("SELECT COUNT(*) FROM templates WHERE name = 'third' AND removed IS NULL").await, 0);
        assert_eq!((w.count("SELECT COUNT(*) FROM template_store_refs").await, facts(&w, "TEMPLATE.CREATE").await), (count, 2));
        assert_eq!(w.limits.look().matches("template:").count(), 2);
    }
}

fn template(name: &str, snapshot: &Option<String>, volume: &Option<String>) -> CreateTemplateRequest {
    CreateTemplateRequest {
        name: Some(name.into()),
        display_text: Some("text".into()),
        os_type_id: Some(uuid("os", 142)),
        snapshot_id: snapshot.clone(),
        volume_id: volume.clone(),
        ..Default::default()
    }
}

async fn capture(w: &World, caller: &Caller, order: CreateTemplateRequest) -> Result<Template, ApiError> {
    let mut templates = TemplatesClient::new(w.node.peers.storage());
    let job = templates.create(request(caller, order)).await.map_err(error)?.into_inner();
    ended(w, job).await
}
