//! The jobs of snapshots, failed and killed at every point.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use arcus_storage::Storage;
use arcus_storage::tasks::create_template::Origin;
use arcus_storage::tasks::{
    Create, CreateSnapshot, CreateTemplate, DeleteSnapshot, ExtractVolume, RevertSnapshot, UpdatePolicy,
};
use common::{GIB, World, ZONE, admin, uuid};
use contract::ApiError;
use contract_storage::snapshots_client::SnapshotsClient;
use contract_storage::volumes_client::VolumesClient;
use contract_storage::{CreateSnapshotRequest, CreateVolumeRequest, Snapshot, Volume};
use jobs::harness::{Scenario, Start, prove};
use jobs::{Accept, Claim, Job, Jobs};
use node::Node;
use rpc::cx::request;
use store::{Db, Sql};

/// Which job, on the snapshot "s" of a volume of VM 7, which runs on host 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// It is made.
    Create,
    /// It is deleted.
    Delete,
    /// Volume 999 is made of it.
    Restore,
    /// Template 999 is made of it.
    Template,
    /// The volume is set back to it; the VM is off.
    Revert,
    /// A copy of the volume is made for a download; the VM is off.
    Extract,
    /// Its volume's policy, 999, is hidden.
    Policy,
}

struct Proving(Which);

impl Proving {
    /// What jobs beside those that make and delete snapshots change.
    async fn more(&self, w: &World) -> String {
        match self.0 {
            Which::Revert => {
                // The bytes that the volume has: they are there, and whose they are.
                let sql = "SELECT uuid, path FROM volumes WHERE name = 'data'";
                let r = w.db().one(sql.into()).await.unwrap();
                let (uuid, path): (String, String) = (r.at(0).unwrap(), r.at(1).unwrap());
                let disks = w.hosts.disks_of(&uuid);
                let own = disks.iter().find(|d| d.path == path).map(|d| d.from.is_some());
                format!("; {} disks, of the snapshot: {own:?}", disks.len())
            }
            Which::Extract => {
                // What is owed, and when: hours after it was made, or at once.
                let sql = "SELECT CAST(COALESCE(SUM(CASE WHEN not_before - created > 3600000000 THEN 1 ELSE 0 END), 0) AS SIGNED) \
                           FROM image_deletions";
                let images =
                    w.hosts.images(None).into_iter().filter(|(path, _)| path.starts_with("downloads/")).count();
                format!("; {} copies, {} owed for later", images, w.count(sql).await)
            }
            Which::Policy => {
                let r = w.db().one("SELECT uuid, display FROM snapshot_policies".into()).await.unwrap();
                format!("; {:?}", (r.at::<String>(0).unwrap(), r.at::<i64>(1).unwrap()))
            }
            _ => String::new(),
        }
    }
}

async fn accept<J: Job>(node: &Node, jobs: &Jobs, job: J, claims: &[&str]) -> Result<String, ApiError> {
    let ticket = jobs.ticket().await?;
    let uuid = ticket.uuid().to_owned();
    let accept = Accept {
        job,
        caller: admin(),
        command: None,
        owner: model::Owner { account_id: 2, domain_id: 1, domain_path: "/1/".into() },
        instance: None,
        claims: claims.iter().map(|c| Claim::Exclusive((*c).to_owned())).collect(),
        custom_id: None,
        description: "proving".into(),
        entity_id: None,
    };
    store::tx!(node.db, "accept", |tx| jobs.accept(tx, ticket.clone(), accept.clone()).await.map(drop)).await?;
    Ok(uuid)
}

async fn snapshot(w: &World) -> i64 {
    w.count("SELECT id FROM snapshots").await
}

impl Scenario for Proving {
    type World = World;

    async fn world(&self) -> World {
        let w = World::new(testkit::TestDb::sqlite()).await;
        w.image_store().await;
        w.pool("p1", 1, 100, "").await;
        common::vm(w.db(), 7, 2, "Running", Some(1)).await;
        let small = "SELECT uuid FROM disk_offerings WHERE name = 'Small'";
        let order = CreateVolumeRequest {
            name: Some("data".into()),
            zone_id: Some(ZONE.into()),
            disk_offering_id: Some(w.db().one(small.into()).await.unwrap().at(0).unwrap()),
            virtual_machine_id: Some(uuid("vm", 7)),
            ..Default::default()
        };
        let mut volumes = VolumesClient::new(w.node.peers.storage());
        let job = volumes.create(request(&admin(), order)).await.unwrap().into_inner();
        let volume: Volume = w.output(&job.job_id).await.unwrap();
        let order = CreateSnapshotRequest { volume_id: volume.id, name: Some("s".into()), ..Default::default() };
        let mut snapshots = SnapshotsClient::new(w.node.peers.storage());
        let job = snapshots.create(request(&admin(), order)).await.unwrap().into_inner();
        w.output::<Snapshot>(&job.job_id).await.unwrap();
        let now = store::now_micros();
        match self.0 {
            // As it was when it was accepted.
            Which::Create => {
                let sql = format!(
                    "UPDATE snapshots SET state = 'Allocated', host_id = NULL, physical_size = 0, held_bytes = {}, path = \
                     'snapshots/new.vhd'",
                    5 * GIB
                );
                common::exec(w.db(), &sql).await;
            }
            Which::Restore => {
                let sql = format!(
                    "INSERT INTO volumes (id, uuid, name, name_lower, kind, state, account_id, domain_id, domain_path, zone_id, size, \
                     provisioning_type, tags, local_storage, display_volume, created, changed, snapshot_id) SELECT 999, 'v-999', 'c', \
                     'c', 'DATADISK', 'Allocated', 2, 1, '/1/', 1, {}, 'thin', '', 0, 1, {now}, {now}, id FROM snapshots",
                    5 * GIB
                );
                common::exec(w.db(), &sql).await;
            }
            Which::Template => {
                let sql = format!(
                    "INSERT INTO templates (id, uuid, name, name_lower, display_text, account_id, domain_id, domain_path, is_public, \
                     featured, extractable, cross_zones, bootable, password_enabled, ssh_key_enabled, dynamically_scalable, \
                     direct_download, requires_hvm, format, hypervisor, template_type, os_type_id, bits, size, physical_size, state, \
                     sort_key, created) VALUES (999, 't-999', 't', 't', 't', 2, 1, '/1/', 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 'VHD', \
                     'Simulator', 'USER', 142, 64, 0, 0, 'Active', 0, {now})"
                );
                common::exec(w.db(), &sql).await;
                let zone = format!("INSERT INTO template_zones (template_id, zone_id, created) VALUES (999, 1, {now})");
                common::exec(w.db(), &zone).await;
            }
            Which::Revert | Which::Extract => {
                common::exec(w.db(), "UPDATE vms SET state = 'Stopped', host_id = NULL").await
            }
            Which::Policy => {
                let sql = format!(
                    "INSERT INTO snapshot_policies (id, uuid, volume_id, account_id, domain_id, domain_path, kind, schedule, timezone, \
                     max_snaps, display, next_run, created, changed) SELECT 999, 'p-999', volume_id, 2, 1, '/1/', 'DAILY', '0:0', \
                     'UTC', 2, 1, {}, {now}, {now} FROM snapshots",
                    now * 2
                );
                common::exec(w.db(), &sql).await;
            }
            Which::Delete => {}
        }
        w
    }

    fn db<'w>(&self, world: &'w World) -> &'w Db {
        world.db()
    }

    fn service(&self) -> &'static str {
        "proving"
    }

    async fn start(&self, world: &World, start: Start) -> Jobs {
        let node = Node { replica: start.replica.clone(), coord: start.coord.clone(), ..world.node.clone() };
        let builder =
            Jobs::builder(start.db, start.coord, "proving", start.replica).faults(start.faults).pace(start.pace);
        let (_storage, builder): (Storage, _) = common::engine(&node, builder);
        builder.start(start.stop, &start.tasks)
    }

    async fn submit(&self, w: &World, jobs: &Jobs) -> Result<String, ApiError> {
        let node = &w.node;
        let id = snapshot(w).await;
        let volume = w.count("SELECT volume_id FROM snapshots").await;
        match self.0 {
            Which::Create => {
                let job = CreateSnapshot { snapshot: id, volume, vm: Some(7) };
                accept(node, jobs, job, &["snapshot", "volume"]).await
            }
            Which::Delete => accept(node, jobs, DeleteSnapshot { snapshot: id }, &["snapshot"]).await,
            Which::Restore => {
                let job = Create { volume: 999, attach_to: Some(7), snapshot: Some(id) };
                accept(node, jobs, job, &["volume/999", "vm/7"]).await
            }
            Which::Revert => {
                let job = RevertSnapshot { snapshot: id, volume, vm: Some(7) };
                accept(node, jobs, job, &["snapshot", "volume", "vm/7"]).await
            }
            Which::Extract => {
                let store = w.count("SELECT id FROM image_stores").await;
                let job = ExtractVolume { volume, vm: Some(7), store, path: "downloads/2/1/d.vhd".into() };
                accept(node, jobs, job, &["volume", "vm/7"]).await
            }
            Which::Policy => {
                let job = UpdatePolicy { policy: 999, display: Some(false), custom_id: Some("p-new".into()) };
                accept(node, jobs, job, &["snapshot_policy/999"]).await
            }
            Which::Template => {
                let job = CreateTemplate {
                    template: 999,
                    zone: 1,
                    store: w.count("SELECT id FROM image_stores").await,
                    path: "template/tmpl/2/999/t.vhd".into(),
                    origin: Origin::Snapshot(id),
                };
                accept(node, jobs, job, &["template/999"]).await
            }
        }
    }

    async fn look(&self, w: &World) -> String {
        w.check_pools().await;
        let r = w.db().one(Sql::new("SELECT uuid, state, held_bytes FROM snapshots")).await.unwrap();
        let (id, state, held): (String, String, i64) = (r.at(0).unwrap(), r.at(1).unwrap(), r.at(2).unwrap());
        let named = "SELECT uuid FROM volumes WHERE name = 'data'";
        let volume_uuid: String = w.db().one(named.into()).await.unwrap().at(0).unwrap();
        // What is gone or has failed counts identity gives back by itself.
        let lives = state != "Error" && state != "Destroyed";
        let counted = |key: String, kind| w.limits.held(&key, kind);
        let snapshot =
            [3, 11].map(|kind| counted(format!("snapshot:{id}"), kind).filter(|_| lives && self.0 != Which::Create));
        let alive = |table: &str| format!("SELECT COUNT(*) FROM {table} WHERE id = 999 AND removed IS NULL");
        let volume = "SELECT COUNT(*) FROM volumes WHERE id = 999 AND removed IS NULL AND state = 'Ready' AND vm_id = 7 AND pool_id = 200";
        let copies =
            "SELECT COUNT(*) FROM template_store_refs WHERE template_id = 999 AND state = 'Ready' AND held_bytes = 700";
        format!(
            "{state} {held} {snapshot:?}; volume {} {}, template {} {}; {}",
            w.count(&alive("volumes")).await,
            w.count(volume).await,
            w.count(&alive("templates")).await,
            w.count(copies).await,
            w.hosts.look().replace(&volume_uuid, "VOLUME")
        ) + &self.more(w).await
    }

    async fn look_ended(&self, w: &World) -> String {
        if self.0 == Which::Extract {
            // What a failed one left is deleted; it waits a moment, which is over here.
            common::exec(w.db(), "UPDATE image_deletions SET not_before = 0 WHERE not_before - created < 3600000000")
                .await;
            w.node.coord.publish("images", "");
            let owed = "SELECT COUNT(*) FROM image_deletions WHERE not_before - created < 3600000000";
            testkit::eventually(|| async { (w.count(owed).await == 0).then_some(()) }).await;
        }
        if self.0 == Which::Revert {
            // What is left over of a copy is the cleaner's.
            let owed = "SELECT COUNT(*) FROM pending_deletions";
            testkit::eventually(|| async { (w.count(owed).await == 0).then_some(()) }).await;
        }
        self.look(w).await
    }

    fn look_failed(&self, before: &str) -> String {
        match self.0 {
            Which::Create => before.replace(&format!("Allocated {}", 5 * GIB), "Error 0"),
            Which::Delete | Which::Revert | Which::Extract | Which::Policy => before.to_owned(),
            // What was to be made of it goes.
            Which::Restore => before.replace("volume 1 0", "volume 0 0"),
            Which::Template => before.replace("template 1 0", "template 0 0"),
        }
    }
}

async fn proven(which: Which, steps: &[&str]) {
    let proof = prove(&Proving(which), steps).await.unwrap_or_else(|e| panic!("{which:?}: {e}"));
    assert!(proof.runs > steps.len() * 2, "{proof:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating() {
    proven(Which::Create, &["begin", "copy", "limits"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting() {
    proven(Which::Delete, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restoring() {
    proven(Which::Restore, &["place", "copy", "made", "attach", "disk"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capturing() {
    proven(Which::Template, &["begin", "copy", "limits", "made"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reverting() {
    proven(Which::Revert, &["begin", "copy"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extracting() {
    proven(Which::Extract, &["begin", "copy"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updating_a_policy() {
    proven(Which::Policy, &[]).await;
}
