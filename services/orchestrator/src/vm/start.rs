//! Starting a stopped VM.

use super::boot::{self, Constraints, Placed};
use super::deploy::{finish, row, stop_or_owe};
use super::{VmWorld, stop, view};
use crate::placement::Wanted;
use crate::store::{vm_order, vms};
use contract::ApiError;
use contract_storage::FitRequest;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use model::state::VmState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Starts a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// The VM.
    pub vm: i64,
    /// Where it may go.
    pub constraints: Constraints,
}

/// What a start takes back when it fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The state `Starting` and the host's capacity.
    Place,
    /// The NICs' readiness on the host.
    Nics {
        /// Host.
        host: i64,
    },
    /// The VM on its host.
    Domain {
        /// Host.
        host: i64,
        /// Its generation there.
        generation: i64,
    },
}

impl Job for Start {
    const KIND: &'static str = "vm.start";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        let wanted = boot::wanted(&world, &vm, &self.constraints);
        launch(&world, &ctx, &vm, wanted, &[], not_stopped).await?;
        finish(&world, &ctx, &vm, VmState::Running, &["VM.START"]).await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        take_back(&world, self.vm, undo, cx).await
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the undo of its first step did all
    }
}

/// A cluster or a pod that is tried before the rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Near {
    /// Only this cluster.
    pub cluster: Option<i64>,
    /// Only this pod.
    pub pod: Option<i64>,
}

/// All steps of starting a Stopped VM but the last: it is `Starting`, has a place in the first of `nearest` that has room
/// (else anywhere that `wanted` allows), and runs there. The job's undo is [`take_back`].
///
/// # Errors
/// What `refuse` says when it isn't Stopped; 533 when there is no place; those of [`boot::bring_up`].
pub async fn launch(
    world: &Arc<VmWorld>,
    ctx: &Ctx,
    vm: &vms::VmRow,
    mut wanted: Wanted,
    nearest: &[Near],
    refuse: fn(&vms::VmRow) -> ApiError,
) -> Result<Placed, ApiError> {
    let guest = vm_order::guest(&world.node.db, vm.service_offering_id, vm.os_type_id).await?;
    let fit =
        FitRequest { vm_id: Some(vm.id), zone_id: vm.zone_id, template_id: vm.template_id, ..FitRequest::default() };
    boot::exclude_clusters(world, &mut wanted, fit).await?;
    boot::know_dedicated(world, vm.id).await?;
    let placed = jobs::step!(ctx, "place", undo: Undo::Place, |tx| {
        if !vms::transit(tx, vm.id, &[VmState::Stopped], VmState::Starting).await? {
            return Err(refuse(vm));
        }
        for near in nearest {
            let nearer = Wanted { cluster: near.cluster, pod: near.pod, in_need: false, ..wanted.clone() };
            match boot::place(world, tx, vm, VmState::Starting, &nearer).await {
                Err(error) if error.code == 533 => {} // no room there
                decided => return decided,
            }
        }
        boot::place(world, tx, vm, VmState::Starting, &wanted).await
    })
    .await?;
    boot::bring_up(world, ctx, vm, guest, &placed).await?;
    Ok(placed)
}

/// Takes a step of a start back.
///
/// # Errors
/// When it can't be done now.
pub async fn take_back(world: &Arc<VmWorld>, vm: i64, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
    match undo {
        Undo::Place => {
            jobs::undo_step!(cx, |tx| {
                boot::vacate(world, tx, vm, false).await?;
                vms::transit(tx, vm, &[VmState::Starting], VmState::Stopped).await?;
                Ok::<_, ApiError>(())
            })
            .await
        }
        Undo::Nics { host } => stop::unplug_undoing(world, vm, Some(host), &cx).await,
        Undo::Domain { host, generation } => stop_or_owe(world, vm, host, generation, &cx).await,
    }
}

/// Why a VM can't be started.
fn not_stopped(vm: &vms::VmRow) -> ApiError {
    let what = view::label(vm);
    match vm.state {
        VmState::Running => ApiError::param(format!("The virtual machine {what} is already running")),
        state => ApiError::param(format!("The virtual machine {what} can't be started while it is {state}")),
    }
}
