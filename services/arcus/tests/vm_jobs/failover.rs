//! Jobs that nobody submits: what becomes of machines whose host died.

use crate::scenario::Admin;
use crate::template::{OFF, RUNNING, Template};
use crate::world::World;
use contract::ApiError;
use contract_compute::StopVirtualMachineRequest;
use contract_compute::virtual_machines_client::VirtualMachinesClient;
use jobs::Jobs;
use jobs::harness::{Scenario, Start};
use std::time::Duration;
use store::{Db, Sql, now_micros};
use testkit::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// The running machine's host loses power.
pub struct HostDeath(pub &'static Template);

impl Scenario for HostDeath {
    type World = World;

    async fn world(&self) -> World {
        let world = World::new(self.0).await;
        world.hasten().await;
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
        let running = world.simulator.vm(&self.0.ids.vm(RUNNING)).expect("the machine runs");
        world.kill_host(&running.host);
        Ok(testkit::eventually(|| world.first_job_of_kind("vm.lost")).await)
    }

    async fn look(&self, world: &World) -> String {
        world.look().await
    }

    /// What failed is taken up again until the machine is written off.
    async fn look_ended(&self, world: &World) -> String {
        let sql = "SELECT (SELECT COUNT(*) FROM vms WHERE state = 'Running' AND removed IS NULL) + \
                   (SELECT COUNT(*) FROM jobs WHERE state NOT IN ('Done', 'Failed'))";
        let settled = || async { world.node.db.one(Sql::new(sql)).await.unwrap().at::<i64>(0).unwrap() == 0 };
        wait_until(settled, PATIENCE).await;
        world.look().await
    }

    fn may_fail_as(&self, _before: &str, succeeded: &str, after: &str) -> bool {
        after == succeeded
    }
}

/// The running machine is stopped by force while its host can't be reached.
pub struct StopAway(pub &'static Template);

impl Scenario for StopAway {
    type World = World;

    async fn world(&self) -> World {
        let world = World::new(self.0).await;
        world.hasten().await;
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
        let vm = self.0.ids.vm(RUNNING);
        world.silence_host(&world.simulator.vm(&vm).expect("the machine runs").host).await;
        let request = StopVirtualMachineRequest { id: Some(vm), forced: Some(true), ..Default::default() };
        let answer = VirtualMachinesClient::new(world.channel()).stop(Admin.request(request)).await?;
        Ok(answer.into_inner().job_id)
    }

    async fn look(&self, world: &World) -> String {
        world.look().await
    }

    /// Once the host owes the stop there is no way back.
    fn may_fail_as(&self, before: &str, succeeded: &str, after: &str) -> bool {
        after == before || after == succeeded
    }
}

/// A stopped machine is wanted back.
pub struct Failover(pub &'static Template);

impl Scenario for Failover {
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
        let uuid = self.0.ids.vm(OFF);
        let sql = Sql::new(
            "INSERT INTO vm_restarts (vm_id, cause, host_id, cluster_id, pod_id, weight, attempts, not_before, created) \
             SELECT id, 'Host', last_host_id, cluster_id, pod_id, memory_mb, 0, ?, ? FROM vms WHERE uuid = ?",
        );
        let now = now_micros();
        store::tx!(world.node.db, "wish", |tx| tx.exec(sql.clone().bind(now).bind(now).bind(&uuid)).await).await?;
        Ok(testkit::eventually(|| world.first_job_of_kind("vm.ha")).await)
    }

    async fn look(&self, world: &World) -> String {
        world.look().await
    }

    /// Nothing but the wish is left of a try that failed, and that it was one.
    fn may_fail_as(&self, before: &str, _succeeded: &str, after: &str) -> bool {
        let wishes: Vec<&str> = after.lines().filter(|l| l.starts_with("wish: ")).collect();
        wishes == ["wish: off 1 free"] && after.lines().filter(|l| !l.starts_with("wish: ")).eq(before.lines())
    }
}
