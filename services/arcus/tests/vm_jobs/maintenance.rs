//! A host without machines is put into maintenance, and taken out of it.

use crate::scenario::Admin;
use crate::template::{RUNNING, Template};
use crate::world::World;
use contract::ApiError;
use contract_infra::hosts_client::HostsClient;
use contract_infra::{CancelHostMaintenanceRequest, PrepareHostForMaintenanceRequest};
use jobs::Jobs;
use jobs::harness::{Scenario, Start};
use std::time::Duration;
use store::{Db, Sql};
use testkit::wait_until;

/// Puts the other host into maintenance; or takes it out.
pub struct Maintaining {
    /// The zone.
    pub template: &'static Template,
    /// Whether it is in maintenance, and is taken out.
    pub over: bool,
}

/// UUID of the host on which the running machine isn't.
fn other(template: &Template, world: &World) -> String {
    let home = world.simulator.vm(&template.ids.vm(RUNNING)).expect("the machine runs").host;
    world.simulator.hosts().into_iter().find(|host| *host != home).expect("there are two hosts")
}

impl Scenario for Maintaining {
    type World = World;

    async fn world(&self) -> World {
        let world = World::new(self.template).await;
        if self.over {
            // As if it had been emptied before.
            let sql =
                "UPDATE hosts SET resource_state = 'Maintenance' WHERE id NOT IN (SELECT host_id FROM vm_capacity)";
            let none = "UPDATE host_capacity SET accepting = 0 WHERE vms = 0";
            store::tx!(world.node.db, "maintained", |tx| {
                tx.exec(sql).await?;
                tx.exec(none).await
            })
            .await
            .unwrap();
        }
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
        let (id, mut client) = (Some(other(self.template, world)), HostsClient::new(world.channel()));
        let answer = if self.over {
            let request = CancelHostMaintenanceRequest { id, ..Default::default() };
            client.cancel_maintenance(Admin.request(request)).await?
        } else {
            let request = PrepareHostForMaintenanceRequest { id, ..Default::default() };
            client.prepare_for_maintenance(Admin.request(request)).await?
        };
        Ok(answer.into_inner().job_id)
    }

    async fn look(&self, world: &World) -> String {
        look(world).await
    }

    /// No host stays half emptied, whatever became of the job.
    async fn look_ended(&self, world: &World) -> String {
        let settled = || async {
            let sql = "SELECT (SELECT COUNT(*) FROM hosts WHERE resource_state = 'PrepareForMaintenance') + \
                       (SELECT COUNT(*) FROM jobs WHERE state NOT IN ('Done', 'Failed'))";
            world.node.db.one(Sql::new(sql)).await.unwrap().at::<i64>(0).unwrap() == 0
        };
        wait_until(settled, Duration::from_secs(60)).await;
        look(world).await
    }

    /// Once the host is empty there is no way back but to cancel.
    fn may_fail_as(&self, before: &str, succeeded: &str, after: &str) -> bool {
        after == before || after == succeeded
    }
}

async fn look(world: &World) -> String {
    let mut lines = vec![world.look().await];
    let sql = "SELECT h.resource_state, k.accepting, (SELECT COUNT(*) FROM host_maintenances m WHERE m.host_id = h.id) \
               FROM hosts h JOIN host_capacity k ON k.host_id = h.id ORDER BY h.id";
    for row in world.node.db.all(Sql::new(sql)).await.unwrap() {
        let (state, accepting, wished): (String, i64, i64) =
            (row.at(0).unwrap(), row.at(1).unwrap(), row.at(2).unwrap());
        lines.push(format!("host: {state} {accepting} {wished}"));
    }
    lines.join("\n")
}
