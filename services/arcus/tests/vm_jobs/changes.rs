//! Machines that become others: each job failed and killed at every step.

use crate::proved;
use crate::scenario::{Admin, Outcome, VmScenario, only_stopped};
use crate::template::{OFF, RUNNING, Template};
use crate::world::World;
use contract::ApiError;
use contract_compute::virtual_machine_changes_client::VirtualMachineChangesClient;
use contract_compute::{RestoreVirtualMachineRequest, ScaleVirtualMachineRequest};
use jobs::Jobs;
use jobs::harness::{Scenario, Start, prove};
use store::{Db, Sql};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_a_stopped_machine() {
    let scenario = VmScenario::new(Template::shared().await, Outcome::AsBefore, |channel, ids, call: Admin| {
        Box::pin(async move {
            let request = ScaleVirtualMachineRequest {
                id: Some(ids.vm(OFF)),
                service_offering_id: Some(ids.larger_offering),
                ..Default::default()
            };
            VirtualMachineChangesClient::new(channel).scale(call.request(request)).await
        })
    });
    proved(scenario, &["check", "limits", "scaled"]).await;
}

/// The larger one gets smaller again: what it counts less is settled last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_a_stopped_machine_down() {
    let scenario = VmScenario::new(Template::shared().await, Outcome::AsBefore, |channel, ids, call: Admin| {
        Box::pin(async move {
            let request = ScaleVirtualMachineRequest {
                id: Some(ids.vm(OFF)),
                service_offering_id: Some(ids.smaller_offering),
                ..Default::default()
            };
            VirtualMachineChangesClient::new(channel).scale(call.request(request)).await
        })
    });
    proved(scenario, &["check", "limits", "scaled", "settle"]).await;
}

/// Scales the machine that runs.
struct Growing(&'static Template);

impl Scenario for Growing {
    type World = World;

    async fn world(&self) -> World {
        let world = World::new(self.0).await;
        let settings = &world.node.settings;
        store::tx!(world.node.db, "dynamic", |tx| {
            settings.set(tx, "enable.dynamic.scale.vm", "true", config::Scope::Global).await?;
            tx.exec(Sql::new("UPDATE vms SET dynamic_scaling = 1")).await.map_err(ApiError::from)
        })
        .await
        .unwrap();
        world
    }

    fn db<'w>(&self, world: &'w World) -> &'w Db {
        &world.node.db
    }

    fn service(&self) -> &'static str {
        "orchestrator"
    }

    async fn start(&self, world: &World, start: Start) -> Jobs {
        world.orchestrator(start).await
    }

    async fn submit(&self, world: &World, _jobs: &Jobs) -> Result<String, ApiError> {
        let request = ScaleVirtualMachineRequest {
            id: Some(self.0.ids.vm(RUNNING)),
            service_offering_id: Some(self.0.ids.larger_offering.clone()),
            ..Default::default()
        };
        let answer = VirtualMachineChangesClient::new(world.channel()).scale(Admin.request(request)).await?;
        Ok(answer.into_inner().job_id)
    }

    async fn look(&self, world: &World) -> String {
        sizes(world).await
    }

    fn may_fail_as(&self, before: &str, _succeeded: &str, after: &str) -> bool {
        after == before
    }
}

/// Everything, and what the books, the host's capacity and the host itself say of the machine's size.
async fn sizes(world: &World) -> String {
    let mut lines = vec![world.look().await];
    let sql = "SELECT v.uuid, v.cpu || ' ' || v.cpu_mhz || ' ' || v.memory_mb || ' ' || s.name, k.cpu_mhz || ' ' || k.memory \
               FROM vms v JOIN service_offerings s ON s.id = v.service_offering_id LEFT JOIN vm_capacity k ON k.vm_id = v.id \
               WHERE v.removed IS NULL ORDER BY v.id";
    for row in world.node.db.all(Sql::new(sql)).await.unwrap() {
        let (uuid, size): (String, String) = (row.at(0).unwrap(), row.at(1).unwrap());
        let held: Option<String> = row.at(2).unwrap();
        let there = world.simulator.vm(&uuid).map(|vm| (vm.spec.cpus, vm.spec.cpu_mhz, vm.spec.memory_bytes, vm.boots));
        lines.push(format!("size: {size} holds {held:?} and has {there:?}"));
    }
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_a_running_machine() {
    let scenario = Growing(Template::shared().await);
    let proof = prove(&scenario, &["check", "limits", "scaled", "guest"]).await.unwrap_or_else(|why| panic!("{why}"));
    println!("{} runs over {} points", proof.runs, proof.points.len());
}

/// Makes a machine's ROOT disk anew.
struct Restoring {
    template: &'static Template,
    vm: &'static str,
}

impl Scenario for Restoring {
    type World = World;

    async fn world(&self) -> World {
        World::new(self.template).await
    }

    fn db<'w>(&self, world: &'w World) -> &'w Db {
        &world.node.db
    }

    fn service(&self) -> &'static str {
        "orchestrator"
    }

    async fn start(&self, world: &World, start: Start) -> Jobs {
        world.orchestrator(start).await
    }

    async fn submit(&self, world: &World, _jobs: &Jobs) -> Result<String, ApiError> {
        let request = RestoreVirtualMachineRequest {
            virtual_machine_id: Some(self.template.ids.vm(self.vm)),
            ..Default::default()
        };
        let answer = VirtualMachineChangesClient::new(world.channel()).restore(Admin.request(request)).await?;
        Ok(answer.into_inner().job_id)
    }

    async fn look(&self, world: &World) -> String {
        roots(world, self.template, self.vm).await
    }

    /// With the disk that it had, or, beyond the point of no return, the new one; Stopped, if it had to be stopped.
    fn may_fail_as(&self, before: &str, succeeded: &str, after: &str) -> bool {
        after == before || after == succeeded || only_stopped(before, after) || only_stopped(succeeded, after)
    }
}

/// Everything, and that each machine has one ROOT disk, at its device; nothing lies about.
async fn roots(world: &World, template: &Template, vm: &str) -> String {
    let mut lines = vec![world.look().await];
    let sql = "SELECT v.name, COUNT(o.id) || '', COALESCE(MIN(o.slot), '') = v.id || '/0' FROM vms v LEFT JOIN volumes o \
               ON o.vm_id = v.id AND o.kind = 'ROOT' AND o.removed IS NULL WHERE v.removed IS NULL GROUP BY v.id, v.name ORDER BY v.name";
    for row in world.node.db.all(Sql::new(sql)).await.unwrap() {
        let (name, disks): (String, String) = (row.at(0).unwrap(), row.at(1).unwrap());
        let in_place: i64 = row.at(2).unwrap();
        assert_eq!((disks.as_str(), in_place), ("1", 1), "{name}: never without a ROOT disk, never two");
    }
    let sql = Sql::new("SELECT COUNT(*) FROM volumes WHERE vm_id IS NULL AND removed IS NULL");
    lines.push(format!("aside: {}", world.node.db.one(sql).await.unwrap().at::<i64>(0).unwrap()));
    // Whether it is the disk that was there first.
    let sql = Sql::new(
        "SELECT o.id = (SELECT MIN(x.id) FROM volumes x WHERE x.name = o.name) FROM volumes o JOIN vms v ON v.id = o.vm_id \
         WHERE v.uuid = ? AND o.kind = 'ROOT' AND o.removed IS NULL",
    );
    let first: i64 = world.node.db.one(sql.bind(template.ids.vm(vm))).await.unwrap().at(0).unwrap();
    lines.push(format!("first disk: {first}"));
    lines.join("\n")
}

// covers: VM-272
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restoring_a_stopped_machine() {
    let scenario = Restoring { template: Template::shared().await, vm: OFF };
    let steps = ["stopping", "limits", "renew", "former", "origin", "discard"];
    let proof = prove(&scenario, &steps).await.unwrap_or_else(|why| panic!("{why}"));
    println!("{} runs over {} points", proof.runs, proof.points.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restoring_a_running_machine() {
    let scenario = Restoring { template: Template::shared().await, vm: RUNNING };
    let steps = [
        "stopping", "stop", "unplug", "stopped", "limits", "renew", "former", "origin", "place", "nics", "disks",
        "boot", "discard",
    ];
    let proof = prove(&scenario, &steps).await.unwrap_or_else(|why| panic!("{why}"));
    println!("{} runs over {} points", proof.runs, proof.points.len());
}
