//! Another default NIC.

use super::found;
use crate::store::vm_nics;
use crate::vm::deploy::row;
use crate::vm::{VmWorld, view};
use contract::ApiError;
use contract_network::SetDefaultNicRequest;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Makes another NIC the VM's default one. A running guest learns of it by DHCP, or at its next start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DefaultNic {
    /// The VM.
    pub vm: i64,
    /// The NIC.
    pub nic: i64,
}

/// What it takes back when it fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Undo {
    /// The NIC that was it.
    former: i64,
}

impl Job for DefaultNic {
    const KIND: &'static str = "vm.nic.default";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        let former = jobs::step!(ctx, "check", |tx| {
            found(tx, vm.id).await?;
            let nics = vm_nics::of_vm_in(tx, vm.id).await?;
            if nics.iter().all(|nic| nic.id != self.nic) {
                return Err(ApiError::param("the virtual machine has no such NIC any more"));
            }
            let former = nics.iter().find(|nic| nic.is_default);
            former.map(|nic| nic.id).ok_or_else(|| ApiError::internal("the virtual machine has no default NIC"))
        })
        .await?;
        let request = SetDefaultNicRequest { vm_id: vm.id, nic_id: self.nic };
        ctx.call("default", Some(Undo { former }), |call| {
            let (mut client, request) = (world.attachments(), call.request(request));
            async move { client.set_default(request).await }
        })
        .await?;
        let shown = view::one(&world, vm.id, ctx.caller()).await?;
        jobs::finish!(ctx, |_tx| Ok::<_, ApiError>(shown.clone())).await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let request = SetDefaultNicRequest { vm_id: self.vm, nic_id: undo.former };
        let mut client = world.attachments();
        cx.call(|call| async move { client.set_default(call.request(request)).await }).await.map(drop)
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
