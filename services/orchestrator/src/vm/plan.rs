//! What a deployment would decide if it were made now. Reads only.

use super::order::Order;
use super::{VmWorld, boot};
use crate::affinity::binding;
use crate::placement::Algorithm;
use crate::store::vm_order;
use config::keys;
use contract::ApiError;
use contract_compute::{DeployPlan, RejectedHost};
use std::collections::HashMap;

/// The plan of a checked order.
pub async fn of(world: &VmWorld, order: &Order) -> Result<DeployPlan, ApiError> {
    let (vm, job) = (&order.new.vm, &order.job);
    let mut wanted = boot::wanted(world, vm, &job.constraints);
    boot::exclude_clusters(world, &mut wanted, job.fit(vm)).await?;
    wanted.rules = binding::of_groups(&world.node.db, vm, &order.groups).await?;
    let algorithm = Algorithm::parse(&world.node.settings.get(keys::VM_ALLOCATION_ALGORITHM));
    let mut plan = DeployPlan {
        feasible: Some(true),
        cpu_number: i32::try_from(vm.cpu).ok(),
        cpu_speed: i32::try_from(vm.cpu_mhz).ok(),
        memory: i32::try_from(vm.memory_mb).ok(),
        hypervisor: Some(vm.hypervisor.clone()),
        network_ids: vm_order::network_uuids(&world.node.db, &order.new.networks).await?,
        disk_bytes: Some(job.bytes),
        ..DeployPlan::default()
    };
    match world.index.propose(&wanted, algorithm, rand::random::<u32>() as usize, &HashMap::new()) {
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
