//! What a deployment would decide if it were made now. Reads only.

use super::order::Order;
use super::{VmWorld, approach, boot};
use crate::affinity::binding;
use crate::placement::{Strategy, Surveyed, Wanted};
use crate::store::vm_order;
use contract::ApiError;
use contract_compute::{DeployPlan, PlannedCluster, RejectedHost};
use model::names::{self, Table};
use std::collections::HashMap;

/// The plan of a checked order; `explained`: with what the planner finds in each cluster.
///
/// # Errors
/// Those of the database and of the storage service.
pub async fn of(world: &VmWorld, order: &Order, explained: bool) -> Result<DeployPlan, ApiError> {
    let (vm, job) = (&order.new.vm, &order.job);
    let mut wanted = boot::wanted(world, vm, &job.constraints);
    boot::exclude_clusters(world, &mut wanted, job.fit(vm)).await?;
    wanted.rules = binding::of_groups(&world.node.db, vm, &order.groups).await?;
    let strategy = approach::as_of_now(world, vm, &wanted).await?;
    let mut plan = DeployPlan {
        feasible: Some(true),
        cpu_number: i32::try_from(vm.cpu).ok(),
        cpu_speed: i32::try_from(vm.cpu_mhz).ok(),
        memory: i32::try_from(vm.memory_mb).ok(),
        hypervisor: Some(vm.hypervisor.clone()),
        network_ids: vm_order::network_uuids(&world.node.db, &order.new.networks).await?,
        disk_bytes: Some(job.bytes),
        planner: Some(strategy.planner.name().to_owned()),
        clusters: if explained { clusters(world, &wanted, &strategy).await? } else { Vec::new() },
        ..DeployPlan::default()
    };
    match world.index.propose(&wanted, &strategy, &HashMap::new()) {
        Ok(found) => {
            let (uuid, name) = vm_order::host(&world.node.db, found.host).await?;
            plan.host_id = Some(uuid);
            plan.host_name = Some(name);
        }
        Err(shortage) => {
            plan.feasible = Some(false);
            plan.reason = Some(format!("no host for {}: {}", shortage.wanted, shortage.summary()));
            let rejected = |(name, why): &(String, crate::placement::Rejection)| RejectedHost {
                name: Some(name.clone()),
                reason: Some(why.words().to_owned()),
            };
            plan.rejected = shortage.rejected.iter().map(rejected).collect();
        }
    }
    Ok(plan)
}

/// What the planner finds in each cluster, in its order.
async fn clusters(world: &VmWorld, wanted: &Wanted, strategy: &Strategy) -> Result<Vec<PlannedCluster>, ApiError> {
    let surveyed = world.index.survey(wanted, strategy);
    let names = names::named(&world.node.db, Table::Clusters, surveyed.iter().map(|s| s.cluster)).await?;
    let shown = |s: &Surveyed| {
        let name = names.get(&s.cluster)?;
        let rejected = s.shortage.rejected.len();
        Some(PlannedCluster {
            id: Some(name.uuid.clone()),
            name: Some(name.name.clone()),
            hosts: i32::try_from(s.suitable + rejected).ok(),
            suitable: i32::try_from(s.suitable).ok(),
            rejected: (rejected > 0).then(|| s.shortage.summary()),
        })
    };
    Ok(surveyed.iter().filter_map(shown).collect())
}
