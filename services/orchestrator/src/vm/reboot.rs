//! Rebooting a running VM.

use super::deploy::row;
use super::{VmWorld, view};
use contract::ApiError;
use contract_agent::{RebootVm, command};
use jobs::{AbortCx, Ctx, Finished, Job, NO_UNDO, UndoCx};
use model::state::VmState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Reboots a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reboot {
    /// The VM.
    pub vm: i64,
}

impl Job for Reboot {
    const KIND: &'static str = "vm.reboot";
    type World = VmWorld;
    type Undo = ();

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        let host = jobs::step!(ctx, "check", |_tx| {
            match vm.host_id {
                Some(host) if vm.state == VmState::Running => Ok(host),
                _ => Err(ApiError::param(format!("The virtual machine {} isn't running", view::label(&vm)))),
            }
        })
        .await?;
        ctx.call("reboot", NO_UNDO, |call| {
            let (world, body) = (world.clone(), command::Body::RebootVm(RebootVm { uuid: vm.uuid.clone() }));
            async move { world.on_host(host, Some(call.key()), false, body).await }
        })
        .await?;
        let shown = view::one(&world, vm.id, ctx.caller()).await?;
        jobs::finish!(ctx, |_tx| Ok::<_, ApiError>(shown.clone())).await
    }

    async fn undo(self, _world: Arc<VmWorld>, _undo: (), _cx: UndoCx) -> Result<(), ApiError> {
        Ok(()) // a reboot can't be taken back, and leaves nothing behind
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
