//! Snapshots that are taken by themselves, and volumes that are set back to one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{GIB, World, ZONE, admin, error, exec, user, uuid};
use contract::ApiError;
use contract::api::{Caller, JobRef};
use contract_storage::snapshots_client::SnapshotsClient;
use contract_storage::volumes_client::VolumesClient;
use contract_storage::*;
use rpc::PeerChannel;
use rpc::cx::request;

fn api(w: &World) -> SnapshotsClient<PeerChannel> {
    SnapshotsClient::new(w.node.peers.storage())
}

fn bob() -> Caller {
    Caller { user_id: 4, account_id: 4, account_name: "bob".into(), ..user() }
}

async fn ended<M: prost::Message + Default>(w: &World, job: JobRef) -> Result<M, ApiError> {
    w.output(&job.job_id).await
}

/// A volume of "ann" of 5 GiB, attached to VM 7, which runs on host 1.
async fn world(db: testkit::TestDb) -> (World, Volume) {
    let w = World::new(db).await;
    w.image_store().await;
    w.pool("p1", 1, 100, "").await;
    common::vm(w.db(), 7, 3, "Running", Some(1)).await;
    let small = w.db().one("SELECT uuid FROM disk_offerings WHERE name = 'Small'".into()).await.unwrap().at(0).unwrap();
    let order = CreateVolumeRequest {
        name: Some("data".into()),
        zone_id: Some(ZONE.into()),
        disk_offering_id: Some(small),
        virtual_machine_id: Some(uuid("vm", 7)),
        ..Default::default()
    };
    let job = VolumesClient::new(w.node.peers.storage()).create(request(&user(), order)).await.unwrap().into_inner();
    let v = ended(&w, job).await.unwrap();
    (w, v)
}

fn daily(v: &Volume, keeps: i32) -> CreateSnapshotPolicyRequest {
    CreateSnapshotPolicyRequest {
        interval_type: Some("daily".into()),
        max_snaps: Some(keeps),
        schedule: Some("30:02".into()),
        timezone: Some("Europe/Berlin".into()),
        volume_id: v.id.clone(),
        ..Default::default()
    }
}

async fn policy(w: &World, caller: &Caller, order: CreateSnapshotPolicyRequest) -> Result<SnapshotPolicy, ApiError> {
    Ok(api(w).create_policy(request(caller, order)).await.map_err(error)?.into_inner())
}

async fn list(w: &World, caller: &Caller, order: ListSnapshotPoliciesRequest) -> Result<Vec<SnapshotPolicy>, ApiError> {
    let found = api(w).list_policies(request(caller, order)).await.map_err(error)?.into_inner();
    assert_eq!(found.count, Some(i64::try_from(found.snapshot_policy.len()).unwrap()));
    Ok(found.snapshot_policy)
}

/// The time of all policies has come.
async fn comes(w: &World) {
    let past = store::now_micros() - 1_000_000;
    exec(w.db(), &format!("UPDATE snapshot_policies SET next_run = {past} WHERE removed IS NULL")).await;
    w.node.coord.publish("snapshots/policies", "");
    testkit::eventually(|| async {
        let due = "SELECT COUNT(*) FROM snapshot_policies WHERE removed IS NULL AND next_run <= ";
        (w.count(&format!("{due}{past}")).await == 0).then_some(())
    })
    .await;
}

async fn has(w: &World, what: &str, n: i64) {
    let sql = format!("SELECT COUNT(*) FROM snapshots WHERE removed IS NULL AND {what}");
    testkit::eventually(|| async { (w.count(&sql).await == n).then_some(()) }).await;
}

testkit::databases! {
    // covers: STO-161, STO-163
    async fn a_volume_has_a_policy_of_each_kind(db: testkit::TestDb) {
        let (w, v) = world(db).await;
        let made = policy(&w, &user(), daily(&v, 2)).await.unwrap();
        assert_eq!((made.volume_id.clone(), made.schedule.as_deref(), made.timezone.as_deref()), (v.id.clone(), Some("30:02"), Some("Europe/Berlin")));
        assert_eq!((made.interval_type, made.max_snaps), (Some(1), Some(2)));
        let next = w.count("SELECT next_run FROM snapshot_policies").await - store::now_micros();
        assert!((0..=25 * 3600 * 1_000_000).contains(&next), "{next}");
        // A second one of the kind takes its place.
        let second = policy(&w, &user(), CreateSnapshotPolicyRequest { schedule: Some("0:3".into()), ..daily(&v, 3) }).await.unwrap();
        assert_eq!((second.id.clone(), second.schedule.as_deref(), second.max_snaps), (made.id.clone(), Some("0:3"), Some(3)));
        let weekly = CreateSnapshotPolicyRequest { interval_type: Some("WEEKLY".into()), schedule: Some("0:3:7".into()), ..daily(&v, 8) };
        let weekly = policy(&w, &admin(), weekly).await.unwrap();
        let ask = ListSnapshotPoliciesRequest { volume_id: v.id.clone(), ..Default::default() };
        let ids = |found: Vec<SnapshotPolicy>| found.into_iter().map(|p| p.id).collect::<Vec<_>>();
        assert_eq!(ids(list(&w, &user(), ask.clone()).await.unwrap()), [made.id.clone(), weekly.id.clone()]);
        let one = ListSnapshotPoliciesRequest { id: weekly.id.clone(), ..Default::default() };
        assert_eq!(ids(list(&w, &user(), one.clone()).await.unwrap()), std::slice::from_ref(&weekly.id));
        for (caller, order, code) in [(bob(), ask.clone(), 531), (bob(), one, 531), (user(), ListSnapshotPoliciesRequest::default(), 431)] {
            assert_eq!(list(&w, &caller, order).await.unwrap_err().code, code);
        }

        // What is no policy changes nothing.
        let set = |s: &str| Some(s.to_owned());
        for (code, caller, order) in [
            (431, user(), daily(&v, 9)),
            (431, user(), daily(&v, 0)),
            (431, user(), CreateSnapshotPolicyRequest { interval_type: set("yearly"), ..daily(&v, 1) }),
            (431, user(), CreateSnapshotPolicyRequest { schedule: set("30"), ..daily(&v, 1) }),
            (431, user(), CreateSnapshotPolicyRequest { timezone: set("Nowhere"), ..daily(&v, 1) }),
            (431, user(), CreateSnapshotPolicyRequest { volume_id: set(&uuid("none", 1)), ..daily(&v, 1) }),
            (531, bob(), daily(&v, 1)),
        ] {
            let e = policy(&w, &caller, order.clone()).await.unwrap_err();
            assert_eq!(e.code, code, "{} {order:?}", e.text);
        }
        let change = |display| UpdateSnapshotPolicyRequest { id: made.id.clone(), for_display: Some(display), ..Default::default() };
        let job = api(&w).update_policy(request(&admin(), change(false))).await.unwrap().into_inner();
        assert_eq!(ended::<SnapshotPolicy>(&w, job).await.unwrap().for_display, Some(false));
        assert_eq!(ids(list(&w, &user(), ask.clone()).await.unwrap()), std::slice::from_ref(&weekly.id));
        // Only administrators decide that.
        let job = api(&w).update_policy(request(&user(), change(true))).await.unwrap().into_inner();
        assert_eq!(ended::<SnapshotPolicy>(&w, job).await.unwrap().for_display, Some(false));

        let both = DeleteSnapshotPoliciesRequest { ids: vec![made.id.clone().unwrap(), weekly.id.clone().unwrap()], id: None };
        for (code, caller, order) in [
            (531, bob(), both.clone()),
            (431, user(), DeleteSnapshotPoliciesRequest::default()),
            (431, user(), DeleteSnapshotPoliciesRequest { id: made.id.clone(), ..both.clone() }),
        ] {
            assert_eq!(error(api(&w).delete_policies(request(&caller, order)).await.unwrap_err()).code, code);
        }
        assert!(api(&w).delete_policies(request(&user(), both.clone())).await.unwrap().into_inner().success);
        assert_eq!(list(&w, &admin(), ask).await.unwrap(), []);
        assert_eq!(error(api(&w).delete_policies(request(&user(), both)).await.unwrap_err()).code, 431);
        let told = |kind: &str| format!("SELECT COUNT(*) FROM outbox WHERE topic = 'event' AND kind = '{kind}'");
        assert_eq!((w.count(&told("SNAPSHOTPOLICY.CREATE")).await, w.count(&told("SNAPSHOTPOLICY.DELETE")).await), (3, 2));
    }

    // covers: STO-162, STO-164
    async fn a_policy_takes_snapshots_and_keeps_some(db: testkit::TestDb) {
        let (w, v) = world(db).await;
        for n in 0..3 {
            let order = CreateSnapshotRequest { volume_id: v.id.clone(), name: Some(format!("hand-{n}")), ..Default::default() };
            let job = api(&w).create(request(&user(), order)).await.unwrap().into_inner();
            ended::<Snapshot>(&w, job).await.unwrap();
        }
        policy(&w, &user(), daily(&v, 2)).await.unwrap();
        let mut last = 0;
        for n in 1..=4 {
            comes(&w).await;
            has(&w, &format!("kind = 'DAILY' AND state = 'BackedUp' AND id > {last}"), 1).await;
            last = w.count("SELECT MAX(id) FROM snapshots").await;
            has(&w, "kind = 'DAILY'", n.min(2)).await;
        }
        has(&w, "kind = 'MANUAL'", 3).await;
        let ask = ListSnapshotsRequest { volume_id: v.id.clone(), interval_type: Some("DAILY".into()), ..Default::default() };
        let shown = api(&w).list(request(&user(), ask)).await.unwrap().into_inner().snapshot;
        assert_eq!(shown.len(), 2);
        assert_eq!((shown[0].snapshot_type.as_deref(), shown[0].interval_type.as_deref(), shown[0].account.as_deref()), (Some("DAILY"), Some("DAILY"), Some("ann")));
        let recurring = ListSnapshotsRequest { snapshot_type: Some("RECURRING".into()), ..Default::default() };
        assert_eq!(api(&w).list(request(&user(), recurring)).await.unwrap().into_inner().snapshot.len(), 2);
        assert_eq!(w.limits.look().matches("snapshot:").count(), 5);

        // A volume that is gone takes its policies with it; what they took stays.
        let job = VolumesClient::new(w.node.peers.storage())
            .detach(request(&user(), DetachVolumeRequest { id: v.id.clone(), ..Default::default() }))
            .await
            .unwrap()
            .into_inner();
        ended::<Volume>(&w, job).await.unwrap();
        let mut volumes = VolumesClient::new(w.node.peers.storage());
        volumes.delete(request(&user(), DeleteVolumeRequest { id: v.id.clone() })).await.unwrap();
        comes(&w).await;
        assert_eq!(w.count("SELECT COUNT(*) FROM snapshot_policies WHERE removed IS NULL").await, 0);
        has(&w, "kind = 'DAILY'", 2).await;
    }

    // covers: STO-166
    async fn a_volume_at_rest_gets_one_snapshot_and_a_full_account_none(db: testkit::TestDb) {
        let (w, v) = world(db).await;
        policy(&w, &user(), daily(&v, 8)).await.unwrap();
        comes(&w).await;
        has(&w, "state = 'BackedUp'", 1).await;
        let stop = |state: &str, host: &str| format!("UPDATE vms SET state = '{state}', host_id = {host}, changed = {}", store::now_micros());
        // While it is on its way nothing is missed.
        exec(w.db(), &stop("Stopping", "1")).await;
        let past = store::now_micros() - 1_000_000;
        exec(w.db(), &format!("UPDATE snapshot_policies SET next_run = {past}")).await;
        w.node.coord.publish("snapshots/policies", "");
        exec(w.db(), &stop("Stopped", "NULL")).await;
        has(&w, "state = 'BackedUp'", 2).await;
        for _ in 0..2 {
            comes(&w).await;
        }
        has(&w, "1 = 1", 2).await;
        exec(w.db(), &stop("Running", "1")).await;
        comes(&w).await;
        has(&w, "state = 'BackedUp'", 3).await;

        w.limits.most_secondary(GIB);
        comes(&w).await;
        has(&w, "1 = 1", 3).await;
        let alert = "SELECT COUNT(*) FROM outbox WHERE topic = 'event' AND kind = 'ALERT.RESOURCE.EXCEED'";
        assert_eq!(w.count(alert).await, 1);
        assert_eq!(w.limits.look().matches("snapshot:").count(), 3);
    }

    async fn a_volume_is_set_back(db: testkit::TestDb) {
        let (w, v) = world(db).await;
        let order = CreateSnapshotRequest { volume_id: v.id.clone(), name: Some("s".into()), ..Default::default() };
        let job = api(&w).create(request(&user(), order)).await.unwrap().into_inner();
        let s: Snapshot = ended(&w, job).await.unwrap();
        assert_eq!(s.revertable, Some(true));
        let order = RevertSnapshotRequest { id: s.id.clone(), ..Default::default() };
        let refused = async |caller: &Caller| error(api(&w).revert(request(caller, order.clone())).await.unwrap_err());
        let e = refused(&user()).await;
        assert!(e.code == 431 && e.text.contains("not in the shutdown state"), "{}", e.text);
        exec(w.db(), "UPDATE vms SET state = 'Stopped', host_id = NULL").await;
        assert_eq!(refused(&bob()).await.code, 531);
        exec(w.db(), "UPDATE volumes SET size = size - 1").await;
        assert!(refused(&user()).await.text.contains("has become smaller"));
        exec(w.db(), "UPDATE volumes SET size = size + 1").await;

        let volume = v.id.clone().unwrap();
        let old = w.hosts.disks_of(&volume)[0].path.clone();
        let job = api(&w).revert(request(&user(), order.clone())).await.unwrap().into_inner();
        let back: Snapshot = ended(&w, job).await.unwrap();
        assert_eq!((back.id.clone(), back.state.as_deref()), (s.id.clone(), Some("BackedUp")));
        testkit::eventually(|| async { (w.hosts.disks_of(&volume).len() == 1).then_some(()) }).await;
        let disk = w.hosts.disks_of(&volume)[0].clone();
        let path: String = w.db().one("SELECT path FROM snapshots".into()).await.unwrap().at(0).unwrap();
        assert_eq!(disk.from.map(|(_, path)| path), Some(path));
        let now: String = w.db().one("SELECT path FROM volumes".into()).await.unwrap().at(0).unwrap();
        assert!(now == disk.path && now != old);
        // Where the machine ran last.
        assert_eq!(w.hosts.who("EnsureDisk").last(), Some(&1));
        w.check_pools().await;

        // What fails leaves it as it is.
        w.hosts.refuse("EnsureDisk", true);
        let job = api(&w).revert(request(&user(), order.clone())).await.unwrap().into_inner();
        assert!(ended::<Snapshot>(&w, job).await.unwrap_err().text.contains("EnsureDisk fails"));
        assert_eq!(w.hosts.disks_of(&volume).into_iter().map(|d| d.path).collect::<Vec<_>>(), [now]);
        w.hosts.refuse("EnsureDisk", false);

        // Detached it works as well; without its volume there is nothing to set back.
        let mut volumes = VolumesClient::new(w.node.peers.storage());
        let detach = DetachVolumeRequest { id: v.id.clone(), ..Default::default() };
        let job = volumes.detach(request(&user(), detach)).await.unwrap().into_inner();
        ended::<Volume>(&w, job).await.unwrap();
        let job = api(&w).revert(request(&user(), order.clone())).await.unwrap().into_inner();
        ended::<Snapshot>(&w, job).await.unwrap();
        volumes.delete(request(&user(), DeleteVolumeRequest { id: v.id })).await.unwrap();
        assert!(refused(&user()).await.text.contains("has been deleted"));
        let shown = api(&w).list(request(&user(), ListSnapshotsRequest::default())).await.unwrap().into_inner().snapshot;
        assert_eq!(shown[0].revertable, Some(false));
    }
}
