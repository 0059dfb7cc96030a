//! Every job of storage, failed and killed at every point.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use arcus_storage::Storage;
use arcus_storage::tasks::{Attach, Create, Detach, Resize};
use common::{GIB, World, admin};
use contract::ApiError;
use jobs::harness::{Scenario, Start, prove};
use jobs::{Accept, Claim, Job, Jobs};
use node::Node;
use store::{Db, Sql};

/// Which job, on volume 1 (5 GiB, of offering Small) and VM 7, which runs on host 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Create,
    Attach,
    Detach,
    Grow,
    Shrink,
}

struct Proving(Which);

async fn accept<J: Job>(node: &Node, jobs: &Jobs, job: J) -> Result<String, ApiError> {
    let ticket = jobs.ticket().await?;
    let uuid = ticket.uuid().to_owned();
    let owner = model::Owner { account_id: 3, domain_id: 5, domain_path: "/1/5/".into() };
    let accept = Accept {
        job,
        caller: admin(),
        command: None,
        owner,
        instance: None,
        claims: vec![Claim::Exclusive("volume/1".into()), Claim::Exclusive("vm/7".into())],
        custom_id: None,
        description: "proving".into(),
        entity_id: None,
    };
    store::tx!(node.db, "accept", |tx| jobs.accept(tx, ticket.clone(), accept.clone()).await.map(drop)).await?;
    Ok(uuid)
}

impl Proving {
    /// Puts the volume into the VM by hand.
    async fn attached(w: &World) {
        let order = contract_agent::command::Body::EnsureDisk(contract_agent::EnsureDisk {
            volume_uuid: "v-1".into(),
            path: "path-1".into(),
            size: u64::try_from(5 * GIB).unwrap(),
            ..Default::default()
        });
        w.storage.hosts.tell(&admin(), None, 1, order).await.unwrap();
        let order = contract_agent::command::Body::AttachDisk(contract_agent::AttachDisk {
            vm_uuid: common::uuid("vm", 7),
            disk: Some(contract_agent::VmDisk {
                volume_uuid: "v-1".into(),
                path: "path-1".into(),
                ..Default::default()
            }),
        });
        w.storage.hosts.tell(&admin(), None, 1, order).await.unwrap();
        let sql = "UPDATE volumes SET pool_id = 200, path = 'path-1', state = 'Ready', hypervisor = 'Simulator', format = 'VHD', \
                   vm_id = 7, device_id = 1, slot = '7/1' WHERE id = 1";
        common::exec(w.db(), sql).await;
        common::exec(w.db(), &format!("UPDATE storage_pools SET allocated_bytes = {}", 5 * GIB)).await;
    }
}

impl Scenario for Proving {
    type World = World;

    async fn world(&self) -> World {
        let w = World::new(testkit::TestDb::sqlite()).await;
        assert_eq!(w.pool("p1", 1, 100, "").await, 200);
        common::vm(w.db(), 7, 3, "Running", Some(1)).await;
        let small = w.count("SELECT id FROM disk_offerings WHERE name = 'Small'").await;
        let row = format!(
            "INSERT INTO volumes (id, uuid, name, name_lower, kind, state, account_id, domain_id, domain_path, zone_id, \
             disk_offering_id, size, provisioning_type, tags, local_storage, display_volume, created, changed) VALUES (1, 'v-1', \
             'd', 'd', 'DATADISK', 'Allocated', 3, 5, '/1/5/', 1, {small}, {}, 'thin', '', 0, 1, 0, 0)",
            5 * GIB
        );
        common::exec(w.db(), &row).await;
        if !matches!(self.0, Which::Attach | Which::Create) {
            Self::attached(&w).await;
        }
        // What it counts was reserved when it was created.
        arcus_storage::limits::reserve(&w.storage, &admin(), "v-1", 3, 5 * GIB).await.unwrap();
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

    async fn submit(&self, world: &World, jobs: &Jobs) -> Result<String, ApiError> {
        let node = &world.node;
        let custom = world.count("SELECT id FROM disk_offerings WHERE name = 'Custom'").await;
        let resize =
            |gib: i64| Resize { volume: 1, size: gib * GIB, offering: Some(custom), min_iops: None, max_iops: None };
        match self.0 {
            Which::Create => accept(node, jobs, Create { volume: 1, attach_to: Some(7), snapshot: None }).await,
            Which::Attach => accept(node, jobs, Attach { volume: 1, vm: 7, device: None }).await,
            Which::Detach => accept(node, jobs, Detach { volume: 1, vm: 7 }).await,
            Which::Grow => accept(node, jobs, resize(9)).await,
            Which::Shrink => accept(node, jobs, resize(2)).await,
        }
    }

    async fn look(&self, w: &World) -> String {
        w.check_pools().await;
        let sql = "SELECT state, size, vm_id, device_id, slot, pool_id, disk_offering_id FROM volumes WHERE id = 1";
        let r = w.db().one(Sql::new(sql)).await.unwrap();
        let (state, size): (String, i64) = (r.at(0).unwrap(), r.at(1).unwrap());
        let (vm, device, slot): (Option<i64>, Option<i64>, Option<String>) =
            (r.at(2).unwrap(), r.at(3).unwrap(), r.at(4).unwrap());
        let (pool, offering): (Option<i64>, Option<i64>) = (r.at(5).unwrap(), r.at(6).unwrap());
        let promised = w.count("SELECT allocated_bytes FROM storage_pools").await;
        format!(
            "{state} {size} {vm:?} {device:?} {slot:?} {pool:?} {offering:?} promised {promised}; {}; {}",
            w.hosts.look(),
            w.limits.look()
        )
    }
}

async fn proven(which: Which, steps: &[&str]) {
    let proof = prove(&Proving(which), steps).await.unwrap_or_else(|e| panic!("{which:?}: {e}"));
    assert!(proof.runs > steps.len() * 2, "{proof:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating() {
    proven(Which::Create, &["attach", "make", "disk"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attaching() {
    proven(Which::Attach, &["attach", "make", "disk"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detaching() {
    proven(Which::Detach, &["begin", "disk"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growing() {
    proven(Which::Grow, &["resizing", "limits", "disk"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shrinking() {
    proven(Which::Shrink, &["resizing", "limits", "disk"]).await;
}
