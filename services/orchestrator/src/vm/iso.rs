//! What lies in a machine's CD drive ([`ChangeIso`]; VM-269): an ISO more, another one, or none.
//!
//! The row says what is wanted, and every start puts that into the drive. It is written first: from then on the ISO's copy on the
//! pool is kept. The host of a running machine is told then.

use super::deploy::row;
use super::nic::Running;
use super::{VmWorld, boot, debts, view};
use crate::store::isos::{self, IsoFacts};
use crate::store::vms::{self, VmRow};
use contract::ApiError;
use contract_agent::{ChangeCd, VmCd, command};
use contract_storage::VmDisksRequest;
use jobs::{AbortCx, Claim, Ctx, Finished, Job, NO_UNDO, UndoCx};
use model::state::VmState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Changes what lies in a machine's CD drive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeIso {
    /// The machine.
    pub vm: i64,
    /// The ISO; none: the drive is emptied.
    pub iso: Option<i64>,
}

/// What it takes back when it fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// What the row said.
    Row,
    /// What lay in the drive.
    Drive {
        /// Where.
        at: Running,
        /// UUID of the ISO, and of the pool where that lies; none: it was empty.
        cd: Option<(String, String)>,
    },
}

/// What was wanted before.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wished {
    at: Option<Running>,
    before: Option<i64>,
    /// UUID of that.
    former: Option<String>,
}

/// The claim of a job that needs an ISO to stay.
pub fn claim(iso: i64) -> Claim {
    Claim::Shared(format!("template/{iso}"))
}

/// Whether an ISO can lie in the drive of a machine of a hypervisor (VM-258, VM-268).
///
/// # Errors
/// 431 that says why it can't, 531 when the machine's owner may not use it.
pub fn check(hypervisor: &str, iso: Option<&IsoFacts>) -> Result<(), ApiError> {
    let iso = iso.ok_or_else(|| ApiError::param("Unable to find the ISO: it doesn't exist or has been deleted"))?;
    if has_no_drive(hypervisor) {
        return Err(no_drive(hypervisor));
    }
    if !iso.admitted {
        // Not its name: who may not use it may not learn it either.
        return Err(ApiError::permission("the virtual machine's owner may not use the ISO"));
    }
    if !iso.offered {
        return Err(ApiError::param("ISO is not available in the zone where the virtual machine is.")
            .with_entity(&iso.uuid, "id"));
    }
    if !iso.ready {
        let text =
            format!("ISO {} isn't downloaded to the virtual machine's zone yet: wait until it is ready", iso.name);
        return Err(ApiError::param(text).with_entity(&iso.uuid, "id"));
    }
    Ok(())
}

/// Whether machines of a hypervisor have no CD drive.
pub fn has_no_drive(hypervisor: &str) -> bool {
    hypervisor.eq_ignore_ascii_case("LXC")
}

/// The refusal for those.
pub fn no_drive(hypervisor: &str) -> ApiError {
    ApiError::unsupported(format!("virtual machines on {hypervisor} are containers: they have no CD drive"))
}

/// Why the drive can't be changed.
pub fn wrong_state(vm: &VmRow) -> ApiError {
    let text = format!("Please specify a VM that is either Stopped or Running: {} is {}", view::label(vm), vm.state);
    ApiError::param(text).with_entity(&vm.uuid, "virtualmachineid")
}

/// The drive is empty already.
pub fn nothing_there() -> ApiError {
    ApiError::param("The specified VM has no ISO attached to it.")
}

impl ChangeIso {
    /// The row says what is wanted. Gives what it said, and where the machine runs.
    async fn wish(&self, tx: &mut Tx) -> Result<Wished, ApiError> {
        let vm = vms::find_in(tx, self.vm).await?.filter(|vm| !vm.removed);
        let vm = vm.ok_or_else(|| ApiError::param("Unable to find a virtual machine with specified vmId"))?;
        let at = match (vm.state, vm.host_id) {
            (VmState::Running, Some(host)) => Some(Running { host, generation: vm.generation }),
            (VmState::Stopped, _) => None,
            _ => return Err(wrong_state(&vm)),
        };
        if self.iso.is_none() && vm.iso_id.is_none() {
            return Err(nothing_there());
        }
        let former = match vm.iso_id {
            Some(id) => isos::uuid(tx, id).await?,
            None => None,
        };
        isos::put(tx, vm.id, self.iso).await?;
        Ok(Wished { at, before: vm.iso_id, former })
    }

    /// The host of a running machine changes what lies in its drive.
    async fn tell(
        &self,
        world: &Arc<VmWorld>,
        ctx: &Ctx,
        vm: &VmRow,
        wished: &Wished,
        at: &Running,
    ) -> Result<(), ApiError> {
        let disks =
            VmDisksRequest { vm_id: vm.id, host_id: Some(at.host), iso_id: self.iso, ..VmDisksRequest::default() };
        let there = ctx
            .call("disks", NO_UNDO, |call| {
                let (mut client, request) = (world.disks(), call.request(disks));
                async move { client.prepare(request).await }
            })
            .await?;
        let cd = boot::cd(&there);
        if self.iso.is_some() && cd.is_none() {
            return Err(ApiError::failed("the ISO is no longer there for the virtual machine's zone"));
        }
        let pool = there.disks.iter().find(|disk| disk.kind == "ROOT").map(|root| root.pool_uuid.clone());
        let undo = Undo::Drive { at: at.clone(), cd: wished.former.clone().zip(pool) };
        let order = ChangeCd { vm_uuid: vm.uuid.clone(), generation: at.generation, cd, lenient: false };
        ctx.call("drive", Some(undo), |call| {
            let (world, body, host) = (world.clone(), command::Body::ChangeCd(order.clone()), at.host);
            async move { world.on_host(host, Some(call.key()), false, body).await }
        })
        .await
        .map(drop)
    }
}

impl Job for ChangeIso {
    const KIND: &'static str = "vm.iso";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        // The job's claim keeps it from being deleted from here on.
        let fit = match self.iso {
            Some(iso) => check(&vm.hypervisor, isos::find(&world.node.db, iso, vm.zone_id, &vm.owner).await?.as_ref()),
            None => Ok(()),
        };
        let wished = jobs::step!(ctx, "wish", undo: Undo::Row, |tx| {
            fit.clone()?;
            self.wish(tx).await
        })
        .await?;
        if let Some(at) = &wished.at {
            self.tell(&world, &ctx, &vm, &wished, at).await?;
        }
        let shown = view::one(&world, vm.id, ctx.caller()).await?;
        jobs::finish!(ctx, |_tx| Ok::<_, ApiError>(shown.clone())).await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        match undo {
            Undo::Row => {
                let wished = cx.value::<Wished>();
                jobs::undo_step!(cx, |tx| {
                    if let Some(wished) = &wished {
                        isos::put(tx, self.vm, wished.before).await?;
                    }
                    Ok::<_, ApiError>(())
                })
                .await
            }
            Undo::Drive { at, cd } => {
                let vm = row(&world, self.vm).await?;
                let cd = cd.map(|(iso_uuid, pool_uuid)| VmCd { iso_uuid, pool_uuid });
                let order = ChangeCd { vm_uuid: vm.uuid.clone(), generation: at.generation, cd, lenient: true };
                debts::undo_or_owe(&world, at.host, &vm.uuid, command::Body::ChangeCd(order), &cx).await
            }
        }
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the undo of its first step did all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> IsoFacts {
        IsoFacts { uuid: "i".into(), name: "tools".into(), offered: true, ready: true, admitted: true }
    }

    #[test]
    fn what_can_lie_in_a_drive() {
        let code = |hypervisor: &str, iso: Option<&IsoFacts>| check(hypervisor, iso).err().map(|e| e.code);
        assert_eq!(code("KVM", Some(&facts())), None);
        assert_eq!(code("KVM", None), Some(431));
        assert_eq!(code("KVM", Some(&IsoFacts { admitted: false, ..facts() })), Some(531));
        for bad in [IsoFacts { offered: false, ..facts() }, IsoFacts { ready: false, ..facts() }] {
            assert_eq!(code("KVM", Some(&bad)), Some(431));
        }
        assert_eq!(code("LXC", Some(&facts())), Some(431));
    }
}
