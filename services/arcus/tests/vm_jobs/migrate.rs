//! The running machine moves to the other host.

use crate::scenario::{Admin, only_stopped};
use crate::template::{RUNNING, Template};
use crate::world::World;
use contract::ApiError;
use contract_compute::MigrateVirtualMachineRequest;
use contract_compute::virtual_machine_migrations_client::VirtualMachineMigrationsClient;
use jobs::Jobs;
use jobs::harness::{Scenario, Start};
use std::time::Duration;
use store::{Db, Sql};
use testkit::wait_until;

/// Moves it.
pub struct Migrating(pub &'static Template);

impl Scenario for Migrating {
    type World = World;

    async fn world(&self) -> World {
        World::new(self.0).await
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
        let vm = self.0.ids.vm(RUNNING);
        let home = world.simulator.vm(&vm).expect("the machine runs").host;
        let other = world.simulator.hosts().into_iter().find(|host| *host != home);
        let request =
            MigrateVirtualMachineRequest { virtual_machine_id: Some(vm), host_id: other, ..Default::default() };
        let answer = VirtualMachineMigrationsClient::new(world.channel()).migrate(Admin.request(request)).await?;
        Ok(answer.into_inner().job_id)
    }

    async fn look(&self, world: &World) -> String {
        look(world).await
    }

    /// A host that owes the end of a copy does that soon.
    async fn look_ended(&self, world: &World) -> String {
        let paid = || async {
            let sql = Sql::new("SELECT COUNT(*) FROM host_debts");
            world.node.db.one(sql).await.unwrap().at::<i64>(0).unwrap() == 0
        };
        wait_until(paid, Duration::from_secs(60)).await;
        look(world).await
    }

    /// Where it was, or, once its memory is at the other host, Stopped there.
    fn may_fail_as(&self, before: &str, _succeeded: &str, after: &str) -> bool {
        after == before || only_stopped(before, after)
    }
}

/// Everything, and whether hosts, networks and books agree where the machine is.
async fn look(world: &World) -> String {
    let sql = "SELECT v.uuid, h.uuid, (SELECT COUNT(*) FROM nics n WHERE n.vm_id = v.id AND n.removed IS NULL AND n.host_id = v.host_id), \
               (SELECT COUNT(*) FROM vm_capacity c WHERE c.vm_id = v.id AND c.host_id = v.host_id), \
               (SELECT COUNT(*) FROM host_capacity k WHERE k.host_id = v.host_id AND k.vms = 1), v.generation \
               FROM vms v JOIN hosts h ON h.id = v.host_id WHERE v.state = 'Running'";
    let mut lines = vec![world.look().await];
    for row in world.node.db.all(Sql::new(sql)).await.unwrap() {
        let (vm, host): (String, String) = (row.at(0).unwrap(), row.at(1).unwrap());
        let books: Vec<i64> = (2..5).map(|n| row.at(n).unwrap()).collect();
        let generation: i64 = row.at(5).unwrap();
        let there = world.simulator.vm(&vm);
        let agrees = there.as_ref().is_some_and(|vm| vm.host == host && vm.spec.generation == generation);
        // Booted once: its guest hasn't noticed anything.
        lines.push(format!("simulated: {books:?} {agrees} {:?}", there.map(|vm| vm.boots)));
    }
    let sql = Sql::new("SELECT COUNT(*) FROM vm_moves");
    lines.push(format!("moves: {}", world.node.db.one(sql).await.unwrap().at::<i64>(0).unwrap()));
    lines.push(format!("copies: {}", world.simulator.copies().len()));
    lines.join("\n")
}
