//! NICs of simulated VMs that run.

use super::driver::Simulator;
use crate::executor::nothing;
use crate::hypervisor::{Done, Failure, Work};
use contract::ApiError;
use contract_agent::{PlugNic, UnplugNic};

impl Simulator {
    pub(super) async fn do_plug_nic(&self, work: &Work, order: PlugNic) -> Result<Done, Failure> {
        let mute = self.before(work, &["PlugNic", "PlugNicCommand"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let nic = order.nic.ok_or_else(|| ApiError::param("there is no NIC to plug in"))?;
            let vm = state.host(work.host())?.vms.get_mut(&order.vm_uuid);
            let vm = vm
                .filter(|vm| vm.spec.generation == order.generation)
                .ok_or_else(|| ApiError::failed("The VM doesn't run on this host: its NICs can't be changed here"))?;
            vm.spec.nics.retain(|known| known.uuid != nic.uuid);
            vm.spec.nics.push(nic);
            entries.push(vm.saved(work.host()));
            Ok((nothing(), state))
        });
        Ok(done?.mute(mute))
    }

    pub(super) async fn do_unplug_nic(&self, work: &Work, order: UnplugNic) -> Result<Done, Failure> {
        let mute = self.before(work, &["UnplugNic", "UnPlugNicCommand"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let vm = state.host(work.host())?.vms.get_mut(&order.vm_uuid);
            if let Some(vm) = vm.filter(|vm| vm.spec.generation == order.generation) {
                let before = vm.spec.nics.len();
                vm.spec.nics.retain(|known| known.uuid != order.nic_uuid);
                if vm.spec.nics.len() != before {
                    entries.push(vm.saved(work.host()));
                }
            }
            Ok((nothing(), state))
        });
        Ok(done?.mute(mute))
    }
}
