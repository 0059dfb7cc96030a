//! Running simulated VMs that get another size.

use super::driver::Simulator;
use crate::executor::nothing;
use crate::hypervisor::{Done, Failure, Work};
use contract::ApiError;
use contract_agent::ScaleVm;

impl Simulator {
    pub(super) async fn do_scale_vm(&self, work: &Work, order: ScaleVm) -> Result<Done, Failure> {
        let mute = self.before(work, &["ScaleVm", "ScaleVmCommand"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let vm = state.host(work.host())?.vms.get_mut(&order.vm_uuid);
            let vm = vm
                .filter(|vm| vm.spec.generation == order.generation)
                .ok_or_else(|| ApiError::failed("The VM doesn't run on this host: it can't be scaled here"))?;
            (vm.spec.cpus, vm.spec.cpu_mhz, vm.spec.memory_bytes) = (order.cpus, order.cpu_mhz, order.memory_bytes);
            entries.push(vm.saved(work.host()));
            Ok((nothing(), state))
        });
        Ok(done?.mute(mute))
    }
}
