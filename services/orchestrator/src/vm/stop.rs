//! Stopping a running VM.

use super::boot;
use super::deploy::row;
use super::{VmWorld, power, usage, view};
use crate::store::{placement as hosts, restarts, vms};
use contract::ApiError;
use contract_agent::{Command, StopVm, command};
use contract_network::VmNicsRequest;
use jobs::{AbortCx, Ctx, Finished, Job, NO_UNDO, UndoCx};
use model::state::VmState;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Stops a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stop {
    /// The VM.
    pub vm: i64,
    /// Power off at once, and go on when the host is away.
    pub forced: bool,
}

/// What a stop takes back when it fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The state `Stopping`: the host is asked what the VM really is.
    Stopping,
    /// Nothing, beyond the point where the VM is off or its host owes that: it is Stopped all the same.
    Off,
}

impl Job for Stop {
    const KIND: &'static str = "vm.stop";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        if !begin(&ctx, self.vm).await? {
            // Stopping what is stopped is fine (states.json: StopRequested keeps Stopped).
            let shown = view::one(&world, vm.id, ctx.caller()).await?;
            return jobs::finish!(ctx, |tx| {
                // Whoever stops it doesn't want it back after a failure either.
                restarts::done(tx, vm.id).await?;
                Ok::<_, ApiError>(shown.clone())
            })
            .await;
        }
        take_off_host(&world, &ctx, &vm, self.forced, Undo::Off).await?;
        let mut shown = view::one(&world, vm.id, ctx.caller()).await?;
        shown.state = Some(VmState::Stopped.to_string());
        shown.host_id = None;
        shown.host_name = None;
        jobs::finish!(ctx, |tx| {
            off(&world, tx, &vm, VmState::Stopped).await?;
            Ok(shown.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        match undo {
            Undo::Stopping => take_back(&world, self.vm, &cx).await,
            Undo::Off => stay_off(&world, self.vm, &cx).await,
        }
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Moves the VM to `Stopping`. Gives whether it was running; a stopped VM stays as it is.
///
/// # Errors
/// 431 in any other state.
pub async fn begin(ctx: &Ctx, vm: i64) -> Result<bool, ApiError> {
    jobs::step!(ctx, "stopping", undo: Undo::Stopping, |tx| {
        if vms::transit(tx, vm, &[VmState::Running], VmState::Stopping).await? {
            return Ok(true);
        }
        match vms::find_in(tx, vm).await? {
            Some(row) if row.state == VmState::Stopped => Ok(false),
            Some(row) => Err(ApiError::param(format!(
                "The virtual machine {} can't be stopped while it is {}",
                view::label(&row),
                row.state
            ))),
            None => Err(ApiError::internal(format!("virtual machine {vm} has no row"))),
        }
    })
    .await
}

/// Takes back [`begin`]: a VM that its host doesn't run any more is Stopped, any other one Running again.
pub async fn take_back(world: &VmWorld, vm: i64, cx: &UndoCx) -> Result<(), ApiError> {
    let row = row(world, vm).await?;
    if row.state != VmState::Stopping {
        return Ok(()); // the undo of a later step has decided
    }
    // A host that doesn't answer now reports when it can, and is heeded then.
    let off = match row.host_id {
        Some(host) => power::fresh(world, host, &row.uuid).await.is_ok_and(|state| power::is_off(state.as_ref())),
        None => false,
    };
    if off {
        return settle(world, &row, cx).await;
    }
    jobs::undo_step!(cx, |tx| {
        vms::transit(tx, vm, &[VmState::Stopping], VmState::Running).await?;
        Ok::<_, ApiError>(())
    })
    .await
}

/// Takes back what comes after the VM was stopped, or its host owed that: there is no way back, so it is Stopped.
pub async fn stay_off(world: &VmWorld, vm: i64, cx: &UndoCx) -> Result<(), ApiError> {
    let row = row(world, vm).await?;
    if row.state == VmState::Stopping { settle(world, &row, cx).await } else { Ok(()) }
}

/// The stop failed and the VM is off: nothing of it stays on its host, in the network's books either.
async fn settle(world: &VmWorld, vm: &vms::VmRow, cx: &UndoCx) -> Result<(), ApiError> {
    unplug_undoing(world, vm.id, vm.host_id, cx).await?;
    jobs::undo_step!(cx, |tx| off(world, tx, vm, VmState::Stopped).await).await
}

/// Stops the VM on its host and tells the network. With `forced`, a host that is away owes the stop. `undo` is the undo of
/// the steps beyond which there is no way back ([`stay_off`]).
pub async fn take_off_host<U: Clone + Serialize>(
    world: &Arc<VmWorld>,
    ctx: &Ctx,
    vm: &vms::VmRow,
    forced: bool,
    undo: U,
) -> Result<(), ApiError> {
    let Some(host) = vm.host_id else { return Ok(()) };
    let body = command::Body::StopVm(StopVm { uuid: vm.uuid.clone(), forced, generation: vm.generation });
    if forced && !hosts::is_up(&world.node.db, host).await? {
        let debt = world.node.db.next_id("host_debt").await?;
        let command = Command { body: Some(body) }.encode_to_vec();
        jobs::step!(ctx, "owe", undo: undo.clone(), |tx| {
            Ok::<_, ApiError>(vms::owe(tx, debt, host, &vm.uuid, command.clone()).await?)
        })
        .await?;
    } else {
        ctx.call("stop", NO_UNDO, |call| {
            let (world, body) = (world.clone(), body.clone());
            async move { world.on_host(host, Some(call.key()), false, body).await }
        })
        .await?;
    }
    unplug(world, ctx, vm.id, host, Some(undo)).await
}

/// Tells the network that the VM is off its host: a step of its own.
pub async fn unplug<U: Serialize>(
    world: &Arc<VmWorld>,
    ctx: &Ctx,
    vm: i64,
    host: i64,
    undo: Option<U>,
) -> Result<(), ApiError> {
    let nics = VmNicsRequest { vm_id: vm, host_id: Some(host) };
    ctx.call("unplug", undo, |call| {
        let (mut client, request) = (world.attachments(), call.request(nics));
        async move { client.unprepare(request).await }
    })
    .await?;
    Ok(())
}

/// The same as part of an undo.
pub async fn unplug_undoing(world: &VmWorld, vm: i64, host: Option<i64>, cx: &UndoCx) -> Result<(), ApiError> {
    let nics = VmNicsRequest { vm_id: vm, host_id: host };
    cx.call(|call| {
        let (mut client, request) = (world.attachments(), call.request(nics));
        async move { client.unprepare(request).await }
    })
    .await
    .map(drop)
}

/// The VM is off: `Stopping` becomes `state`, its capacity is free. Part of a job's last transaction.
pub async fn off(world: &VmWorld, tx: &mut Tx, vm: &vms::VmRow, state: VmState) -> Result<(), ApiError> {
    if !vms::transit(tx, vm.id, &[VmState::Stopping], state).await? {
        return Err(ApiError::concurrent("the virtual machine is no longer Stopping"));
    }
    boot::vacate(world, tx, vm.id, true).await?;
    events::record(tx, &[usage::record(vm, "VM.STOP")]).await?;
    Ok(())
}
