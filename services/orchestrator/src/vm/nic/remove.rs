//! A NIC less: unplugged from the guest when that runs, then its address goes, then the VM's name in the network.

use super::{Running, found};
use crate::store::vm_nics::{self, VmNic};
use crate::vm::access::anew;
use crate::vm::deploy::row;
use crate::vm::{VmWorld, boot, view};
use contract::ApiError;
use contract_agent::{PlugNic, UnplugNic, command};
use contract_network::RemoveNicRequest;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Takes a NIC from a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoveNic {
    /// The VM.
    pub vm: i64,
    /// The NIC.
    pub nic: i64,
}

/// What it takes back when it fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The unplugging, when the NIC is still there.
    Unplugged {
        /// Where.
        at: Running,
        /// UUID of the NIC.
        nic: String,
    },
    /// Nothing: once the NIC is gone, its name goes, too.
    Gone {
        /// Its network.
        network: i64,
    },
}

/// Why a NIC can't be taken.
pub fn refusal(nic: &VmNic, vm: &str) -> Option<ApiError> {
    nic.is_default.then(|| {
        ApiError::param(format!("Unable to remove nic from {vm} in network {}, nic is default.", nic.network_uuid))
            .with_entity(&nic.uuid, "nicid")
    })
}

impl Job for RemoveNic {
    const KIND: &'static str = "vm.nic.remove";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        let (at, network, uuid, uri) = jobs::step!(ctx, "check", |tx| {
            let at = found(tx, vm.id).await?;
            let nic = vm_nics::of_vm_in(tx, vm.id).await?.into_iter().find(|nic| nic.id == self.nic);
            let nic = nic.ok_or_else(|| ApiError::param("the virtual machine has no such NIC any more"))?;
            match refusal(&nic, &view::label(&vm)) {
                Some(why) => Err(why),
                None => Ok((at, nic.network_id, nic.uuid, nic.broadcast_uri)),
            }
        })
        .await?;
        if let Some(at) = &at {
            let order = UnplugNic {
                vm_uuid: vm.uuid.clone(),
                nic_uuid: uuid.clone(),
                generation: at.generation,
                broadcast_uri: uri.unwrap_or_default(),
            };
            let undo = Undo::Unplugged { at: at.clone(), nic: uuid.clone() };
            ctx.call("unplug", Some(undo), |call| {
                let (world, body, host) = (world.clone(), command::Body::UnplugNic(order.clone()), at.host);
                async move { world.on_host(host, Some(call.key()), false, body).await }
            })
            .await?;
        }
        let gone = RemoveNicRequest { vm_id: vm.id, nic_id: self.nic };
        ctx.call("release", Some(Undo::Gone { network }), |call| {
            let (mut client, request) = (world.attachments(), call.request(gone));
            async move { client.remove(request).await }
        })
        .await?;
        let shown = view::one(&world, vm.id, ctx.caller()).await?;
        jobs::finish!(ctx, |tx| {
            vm_nics::leave_name(tx, network, vm.id).await?;
            Ok::<_, ApiError>(shown.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        match undo {
            Undo::Unplugged { at, nic } => {
                // With all that is known of it; one that is gone stays unplugged.
                let request = rpc::cx::repeatable(cx.caller(), anew(self.vm));
                let there = world.attachments().tell(request).await?.into_inner().nics;
                let Some(spec) = there.iter().find(|there| there.uuid == nic) else {
                    return jobs::undo_step!(cx, |_tx| Ok::<_, ApiError>(())).await;
                };
                let vm = row(&world, self.vm).await?;
                let order = PlugNic { vm_uuid: vm.uuid, nic: Some(boot::nic(spec)), generation: at.generation };
                cx.call(|call| {
                    let (world, body) = (world.clone(), command::Body::PlugNic(order));
                    async move { world.on_host(at.host, Some(call.key()), true, body).await }
                })
                .await
                .map(drop)
            }
            Undo::Gone { network } => {
                jobs::undo_step!(cx, |tx| {
                    if vm_nics::of_vm_in(tx, self.vm).await?.iter().all(|nic| nic.id != self.nic) {
                        vm_nics::leave_name(tx, network, self.vm).await?;
                    }
                    Ok::<_, ApiError>(())
                })
                .await
            }
        }
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
