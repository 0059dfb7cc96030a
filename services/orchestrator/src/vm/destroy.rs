//! Destroying a VM, and expunging it at once when that is asked for.

use super::deploy::{release_limits, row};
use super::{VmWorld, expunge, stop, usage, view};
use crate::store::vms;
use contract::ApiError;
use contract_identity::ReleaseRequest;
use jobs::{AbortCx, Ctx, Finished, Job, NO_UNDO, UndoCx};
use model::state::VmState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{Tx, now_micros};

/// Destroys a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Destroy {
    /// The VM.
    pub vm: i64,
    /// Whether to expunge it too.
    pub expunge: bool,
}

/// What is done when a destruction fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// Before the point of no return: the VM is what its host says it is.
    Stopping,
    /// Nothing, when the VM is off already: it is Stopped all the same.
    Off,
    /// Beyond it there is no way back: what it counted for is given back all the same.
    Limits,
}

/// What of a destroyed VM still has to be done or taken back.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Found {
    /// It was running: it must be stopped first.
    Running,
    /// It was off.
    Off,
    /// It had been destroyed, or had failed, already.
    Destroyed,
}

impl Job for Destroy {
    const KIND: &'static str = "vm.destroy";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        let found = jobs::step!(ctx, "stopping", undo: Undo::Stopping, |tx| begin(tx, self.vm).await).await?;
        if matches!(found, Found::Running) {
            // An administrator who destroys doesn't wait for a host that is away.
            stop::take_off_host(&world, &ctx, &vm, true, Undo::Off).await?;
        }
        jobs::step!(ctx, "destroyed", undo: Undo::Limits, |tx| {
            destroyed(&world, tx, &vm, &found).await?;
            if self.expunge {
                vms::transit(tx, vm.id, expunge::FROM, VmState::Expunging).await?;
            }
            Ok::<_, ApiError>(())
        })
        .await?;
        let release = ReleaseRequest { key: vm.limits_key.clone(), items: Vec::new() };
        ctx.call("limits", NO_UNDO, |call| {
            let (mut client, request) = (world.limits(), call.request(release.clone()));
            async move { client.release(request).await }
        })
        .await?;
        if self.expunge {
            expunge::clear(&world, &ctx, &vm).await?;
        }
        let mut shown = view::one(&world, vm.id, ctx.caller()).await?;
        if self.expunge {
            shown.state = Some(VmState::Expunging.to_string());
        } else if !matches!(found, Found::Destroyed) {
            // One that failed stays in Error until it is expunged.
            shown.state = Some(VmState::Destroyed.to_string());
        }
        jobs::finish!(ctx, |tx| {
            if self.expunge {
                vms::remove(tx, vm.id).await?;
            }
            Ok::<_, ApiError>(shown.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        match undo {
            Undo::Stopping => stop::take_back(&world, self.vm, &cx).await,
            Undo::Off => stop::stay_off(&world, self.vm, &cx).await,
            Undo::Limits => {
                let vm = row(&world, self.vm).await?;
                release_limits(&world, &vm.limits_key).await
            }
        }
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        // Destroyed all the same: the sweep ends what an expunge could not.
        vms::transit(tx, self.vm, &[VmState::Expunging], VmState::Destroyed).await?;
        Ok(())
    }
}

async fn begin(tx: &mut Tx, vm: i64) -> Result<Found, ApiError> {
    if vms::transit(tx, vm, &[VmState::Running], VmState::Stopping).await? {
        return Ok(Found::Running);
    }
    let row = vms::find_in(tx, vm).await?.filter(|r| !r.removed);
    match row {
        Some(r) if r.state == VmState::Stopped => Ok(Found::Off),
        Some(r) if matches!(r.state, VmState::Destroyed | VmState::Error) => Ok(Found::Destroyed),
        Some(r) => Err(ApiError::param(format!(
            "The virtual machine {} can't be destroyed while it is {}",
            view::label(&r),
            r.state
        ))),
        None => Err(ApiError::param("The virtual machine has been expunged already")),
    }
}

async fn destroyed(world: &VmWorld, tx: &mut Tx, vm: &vms::VmRow, found: &Found) -> Result<(), ApiError> {
    match found {
        Found::Running => stop::off(world, tx, vm, VmState::Destroyed).await?,
        Found::Off => {
            if !vms::transit(tx, vm.id, &[VmState::Stopped], VmState::Destroyed).await? {
                return Err(ApiError::concurrent("the virtual machine is no longer Stopped"));
            }
        }
        Found::Destroyed => return Ok(()),
    }
    vms::mark_destroyed(tx, vm.id, Some(now_micros())).await?;
    events::record(tx, &[usage::record(vm, "VM.DESTROY")]).await?;
    Ok(())
}
