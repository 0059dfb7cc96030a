//! CD drives of simulated VMs.

use super::driver::Simulator;
use crate::executor::nothing;
use crate::hypervisor::{Done, Failure, Work};
use contract::ApiError;
use contract_agent::{ChangeCd, EnsureIso};

impl Simulator {
    /// Nothing is copied: ISOs are on a simulated pool as soon as they are ordered there.
    pub(super) async fn do_ensure_iso(&self, work: &Work, order: EnsureIso) -> Result<Done, Failure> {
        let mute = self.before(work, &["EnsureIso", "PrimaryStorageDownloadCommand"]).await?;
        let done = work.commit(|_| {
            let state = self.alive(work)?;
            if order.iso.is_none() {
                return Err(ApiError::param("there is no ISO to copy").into());
            }
            Ok((nothing(), state))
        });
        Ok(done?.mute(mute))
    }

    pub(super) async fn do_change_cd(&self, work: &Work, order: ChangeCd) -> Result<Done, Failure> {
        let mute = self.before(work, &["ChangeCd", "AttachIsoCommand"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let vm = state.host(work.host())?.vms.get_mut(&order.vm_uuid);
            match vm.filter(|vm| vm.spec.generation == order.generation) {
                Some(vm) if vm.spec.cd != order.cd => {
                    vm.spec.cd = order.cd;
                    entries.push(vm.saved(work.host()));
                }
                Some(_) => {}
                None if order.lenient => {}
                None => {
                    return Err(
                        ApiError::failed("The VM doesn't run on this host: its CD can't be changed here").into()
                    );
                }
            }
            Ok((nothing(), state))
        });
        Ok(done?.mute(mute))
    }
}
