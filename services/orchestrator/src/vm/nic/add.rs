//! A NIC more: its name in the network, its address, and its plug in the guest when that runs.

use super::{Running, found, unplug};
use crate::store::vm_nics;
use crate::store::vms::VmRow;
use crate::vm::deploy::{NicAsk, nic_requests, row};
use crate::vm::{VmWorld, boot, names, view};
use contract::ApiError;
use contract_agent::{PlugNic, UnplugNic, command};
use contract_network::{AllocateNicsRequest, NicSpec, RemoveNicRequest};
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Gives a VM another NIC.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddNic {
    /// The VM.
    pub vm: i64,
    /// What is asked for.
    pub nic: NicAsk,
    /// The network's name, for texts.
    pub network: String,
}

/// What it takes back when it fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The VM's name in the network.
    Name,
    /// The NIC.
    Nic,
    /// The plug.
    Plug {
        /// Where.
        at: Running,
        /// UUID of the NIC.
        nic: String,
        /// The broadcast URI of its network.
        uri: String,
    },
}

/// What the network service is asked for another NIC of a VM, which is plugged in at `host` when the VM runs there.
pub fn another_nic(vm: &VmRow, nic: &NicAsk, host: Option<i64>) -> AllocateNicsRequest {
    AllocateNicsRequest {
        vm_id: vm.id,
        vm_uuid: vm.uuid.clone(),
        instance_name: vm.instance_name.clone(),
        host_name: vm.name.clone(),
        account_id: vm.owner.account_id,
        domain_id: vm.owner.domain_id,
        domain_path: vm.owner.domain_path.clone(),
        zone_id: vm.zone_id,
        nics: nic_requests(std::slice::from_ref(nic)),
        host_id: host,
        hypervisor: vm.hypervisor.clone(),
        additional: true,
    }
}

impl AddNic {
    async fn take_name(&self, tx: &mut Tx, name: &str) -> Result<Option<Running>, ApiError> {
        let at = found(tx, self.vm).await?;
        vm_nics::take_name(tx, self.nic.network, self.vm, name).await.map_err(|e| match e {
            store::Error::Unique { .. } => names::taken(name, &self.network),
            other => other.into(),
        })?;
        Ok(at)
    }
}

impl Job for AddNic {
    const KIND: &'static str = "vm.nic.add";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        let at = jobs::step!(ctx, "name", undo: Undo::Name, |tx| self.take_name(tx, &vm.name).await).await?;
        let ask = another_nic(&vm, &self.nic, at.as_ref().map(|at| at.host));
        let made = ctx
            .call("nic", Some(Undo::Nic), |call| {
                let (mut client, request) = (world.attachments(), call.request(ask.clone()));
                async move { client.allocate(request).await }
            })
            .await?;
        let made: Vec<NicSpec> = made.nics;
        if let (Some(at), Some(nic)) = (&at, made.first()) {
            let order = PlugNic { vm_uuid: vm.uuid.clone(), nic: Some(boot::nic(nic)), generation: at.generation };
            let undo = Undo::Plug { at: at.clone(), nic: nic.uuid.clone(), uri: nic.broadcast_uri.clone() };
            ctx.call("plug", Some(undo), |call| {
                let (world, body, host) = (world.clone(), command::Body::PlugNic(order.clone()), at.host);
                async move { world.on_host(host, Some(call.key()), false, body).await }
            })
            .await?;
        }
        let shown = view::one(&world, vm.id, ctx.caller()).await?;
        jobs::finish!(ctx, |_tx| Ok::<_, ApiError>(shown.clone())).await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        match undo {
            Undo::Name => {
                // The name may be there because of another NIC: then this step never took it.
                let took_place = cx.value::<Option<Running>>().is_some();
                jobs::undo_step!(cx, |tx| {
                    if took_place {
                        vm_nics::leave_name(tx, self.nic.network, self.vm).await?;
                    }
                    Ok::<_, ApiError>(())
                })
                .await
            }
            Undo::Nic => {
                let request = RemoveNicRequest { vm_id: self.vm, nic_id: 0 };
                let mut client = world.attachments();
                cx.call(|call| async move { client.remove(call.request(request)).await }).await.map(drop)
            }
            Undo::Plug { at, nic, uri } => {
                let vm = row(&world, self.vm).await?;
                let order =
                    UnplugNic { vm_uuid: vm.uuid, nic_uuid: nic, generation: at.generation, broadcast_uri: uri };
                unplug(&world, order, at.host, &cx).await
            }
        }
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
