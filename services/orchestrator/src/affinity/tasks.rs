//! The jobs of affinity groups: one commit each.

use super::{Kind, gone, not_stopped, view};
use crate::dedication;
use crate::store::affinity as rows;
use crate::store::{dedications, vms};
use crate::vm::deploy::row;
use crate::vm::{VmWorld, view as vm_view};
use contract::ApiError;
use contract::api::Success;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use model::state::VmState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Tells that a group is there: it is since the job was accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateGroup {
    /// The group.
    pub group: i64,
}

impl Job for CreateGroup {
    const KIND: &'static str = "affinity.create";
    type World = VmWorld;
    type Undo = ();

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let found = rows::find(&world.node.db, &[self.group]).await?.into_iter().next();
        let shown = view(&world, vec![found.ok_or_else(gone)?], ctx.caller()).await?.into_iter().next();
        let shown = shown.ok_or_else(gone)?;
        jobs::finish!(ctx, |_tx| Ok::<_, ApiError>(shown.clone())).await
    }

    async fn undo(self, _world: Arc<VmWorld>, _undo: (), _cx: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        rows::remove(tx, self.group).await?;
        Ok(())
    }
}

/// Deletes a group; one of dedicated resources releases them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeleteGroup {
    /// The group.
    pub group: i64,
}

impl Job for DeleteGroup {
    const KIND: &'static str = "affinity.delete";
    type World = VmWorld;
    type Undo = ();

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        jobs::finish!(ctx, |tx| {
            let group = rows::find(&mut *tx, &[self.group]).await?.into_iter().next().ok_or_else(gone)?;
            if group.kind == Kind::Dedicated {
                for dedication in dedications::of_group(tx, group.id).await? {
                    dedications::release(tx, dedication.kind, dedication.resource).await?;
                }
                dedication::told(&world.node, tx);
            }
            // The last release may have done it.
            rows::remove(tx, group.id).await?;
            Ok::<_, ApiError>(Success { success: true, display_text: None })
        })
        .await
    }

    async fn undo(self, _world: Arc<VmWorld>, _undo: (), _cx: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Gives a stopped VM other groups.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinGroups {
    /// The VM.
    pub vm: i64,
    /// Its groups from then on.
    pub groups: Vec<i64>,
}

impl Job for JoinGroups {
    const KIND: &'static str = "vm.affinity";
    type World = VmWorld;
    type Undo = ();

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        let mut shown = vm_view::one(&world, vm.id, ctx.caller()).await?;
        let groups = rows::find(&world.node.db, &self.groups).await?;
        if groups.len() != self.groups.len() {
            return Err(gone());
        }
        if groups.iter().any(|g| !g.admits(&vm.owner)) {
            return Err(ApiError::permission("the affinity group doesn't belong to the VM's account or domain"));
        }
        shown.affinity_group = vm_view::affinity_groups(groups, &shown);
        jobs::finish!(ctx, |tx| {
            if !rows::hold(tx, &self.groups).await? {
                return Err(gone());
            }
            // The job's claim keeps the VM as it is.
            let now = vms::find_in(tx, vm.id).await?.filter(|now| !now.removed);
            let now = now.ok_or_else(|| ApiError::param("the virtual machine has been removed"))?;
            if now.state != VmState::Stopped {
                return Err(not_stopped(&now));
            }
            rows::leave(tx, vm.id).await?;
            rows::join(tx, vm.id, &self.groups).await?;
            Ok::<_, ApiError>(shown.clone())
        })
        .await
    }

    async fn undo(self, _world: Arc<VmWorld>, _undo: (), _cx: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
