//! Expunging: what a destroyed VM still has is given back, and it is gone for good. It only goes forward: a failure leaves
//! the VM Destroyed, and the sweep tries again.

use super::deploy::row;
use super::{VmWorld, view};
use crate::store::vms::{self, VmRow};
use contract::ApiError;
use contract::api::Success;
use contract_network::VmNicsRequest;
use contract_storage::VmDisksRequest;
use jobs::{AbortCx, Ctx, Finished, Job, NO_UNDO, UndoCx};
use model::state::VmState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// States in which a VM can be expunged.
pub const FROM: &[VmState] = &[VmState::Destroyed, VmState::Error];

/// Expunges a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Expunge {
    /// The VM.
    pub vm: i64,
}

impl Job for Expunge {
    const KIND: &'static str = "vm.expunge";
    type World = VmWorld;
    type Undo = ();

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        jobs::step!(ctx, "expunging", |tx| {
            if vms::transit(tx, vm.id, FROM, VmState::Expunging).await? {
                return Ok(());
            }
            Err(ApiError::param(format!(
                "Please destroy vm with specified id before expunging: {} is {}",
                view::label(&vm),
                vm.state
            )))
        })
        .await?;
        clear(&world, &ctx, &vm).await?;
        jobs::finish!(ctx, |tx| {
            vms::remove(tx, vm.id).await?;
            Ok::<_, ApiError>(Success { success: true, display_text: None })
        })
        .await
    }

    async fn undo(self, _world: Arc<VmWorld>, _undo: (), _cx: UndoCx) -> Result<(), ApiError> {
        Ok(()) // there is no way back
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        vms::transit(tx, self.vm, &[VmState::Expunging], VmState::Destroyed).await?;
        Ok(())
    }
}

/// Gives back addresses and disks. The limits were given back when the VM was destroyed.
pub async fn clear<'a>(world: &'a Arc<VmWorld>, ctx: &'a Ctx, vm: &'a VmRow) -> Result<(), ApiError> {
    let nics = VmNicsRequest { vm_id: vm.id, host_id: None };
    let disks = VmDisksRequest { vm_id: vm.id, ..VmDisksRequest::default() };
    tokio::try_join!(
        ctx.call("nics", NO_UNDO, |call| {
            let (mut client, request) = (world.attachments(), call.request(nics));
            async move { client.release(request).await }
        }),
        ctx.call("disks", NO_UNDO, |call| {
            let (mut client, request) = (world.disks(), call.request(disks));
            async move { client.expunge(request).await }
        }),
    )?;
    Ok(())
}
