//! A machine that another account gets, failed and killed at every step: it is wholly the one's or wholly the other's.

use crate::scenario::Admin;
use crate::template::{OFF, Template};
use crate::world::World;
use contract::ApiError;
use contract_compute::AssignVirtualMachineRequest;
use contract_compute::virtual_machine_changes_client::VirtualMachineChangesClient;
use jobs::Jobs;
use jobs::harness::{Scenario, Start, prove};
use store::{Db, Sql};

struct Assigning(&'static Template);

impl Scenario for Assigning {
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

    /// The command answers when its job has ended, which nobody waits for here.
    async fn submit(&self, world: &World, _jobs: &Jobs) -> Result<String, ApiError> {
        let ids = &self.0.ids;
        let request = AssignVirtualMachineRequest {
            virtual_machine_id: Some(ids.vm(OFF)),
            account: Some("tenant".into()),
            domain_id: Some(ids.tenant_domain.clone()),
            network_ids: vec![ids.tenant_network.clone()],
            ..Default::default()
        };
        let mut client = VirtualMachineChangesClient::new(world.channel());
        let call = tokio::spawn(async move { client.assign(Admin.request(request)).await });
        let job = testkit::eventually(|| world.first_job_of_kind("vm.assign")).await;
        // An incarnation that is killed waits for its requests: this one would wait for the job.
        call.abort();
        Ok(job)
    }

    async fn look(&self, world: &World) -> String {
        owners(world).await
    }

    /// Before the interfaces are exchanged nothing, afterwards everything.
    fn may_fail_as(&self, before: &str, succeeded: &str, after: &str) -> bool {
        after == before || after == succeeded
    }
}

/// Everything, and whose the machine is with all that belongs to it.
async fn owners(world: &World) -> String {
    let mut lines = vec![world.look().await];
    for (what, sql) in [
        (
            "owner",
            "SELECT v.name || ' ' || a.name || ' ' || v.domain_path || ' ' || COALESCE((SELECT g.name FROM instance_groups g WHERE \
             g.id = v.group_id), 'no group') FROM vms v JOIN accounts a ON a.id = v.account_id WHERE v.removed IS NULL ORDER BY v.name",
        ),
        (
            "disk",
            "SELECT v.name || ' ' || a.name FROM volumes v JOIN accounts a ON a.id = v.account_id WHERE v.removed IS NULL ORDER BY 1",
        ),
        (
            "nic",
            "SELECT v.name || ' ' || a.name || ' ' || w.name FROM nics n JOIN vms v ON v.id = n.vm_id JOIN accounts a ON \
             a.id = n.account_id JOIN networks w ON w.id = n.network_id WHERE n.removed IS NULL ORDER BY 1",
        ),
        (
            "name",
            "SELECT w.name || ' ' || n.name_lower FROM vm_names n JOIN networks w ON w.id = n.network_id ORDER BY 1",
        ),
        (
            "held",
            "SELECT a.name || ' ' || l.type || ' ' || SUM(l.amount) FROM limit_reservations l JOIN accounts a ON a.id = l.account_id \
             WHERE l.type >= 0 GROUP BY a.name, l.type ORDER BY 1",
        ),
        (
            "tagged",
            "SELECT t.resource_type || ' ' || a.name FROM tags t JOIN accounts a ON a.id = t.account_id ORDER BY 1",
        ),
        (
            "apart",
            "SELECT g.name || ' ' || v.name FROM affinity_group_vms m JOIN affinity_groups g ON g.id = m.group_id JOIN vms v \
             ON v.id = m.vm_id ORDER BY 1",
        ),
    ] {
        for row in world.node.db.all(Sql::new(sql)).await.unwrap() {
            lines.push(format!("{what}: {}", row.at::<String>(0).unwrap()));
        }
    }
    lines.join("\n")
}

// covers: IAM-038
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assigning_a_machine_to_another_account() {
    let scenario = Assigning(Template::with_tenant().await);
    let steps = ["check", "limits", "disks", "owner", "nics"];
    let proof = prove(&scenario, &steps).await.unwrap_or_else(|why| panic!("{why}"));
    println!("{} runs over {} points", proof.runs, proof.points.len());
}
