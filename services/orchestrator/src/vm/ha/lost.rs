//! Writing off a VM that ran on a host which is down.

use super::decide;
use crate::store::restarts::{self, Cause};
use crate::store::{vm_order, vms};
use crate::vm::deploy::row;
use crate::vm::{VmWorld, boot, stop, usage, view};
use contract::ApiError;
use contract::api::Success;
use contract_agent::{Command, StopVm, command};
use events::{EventRecord, EventState, Record};
use jobs::{AbortCx, Ctx, Finished, Job, NO_UNDO, UndoCx};
use model::state::VmState;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Writes a VM off.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lost {
    /// The VM.
    pub vm: i64,
    /// The host.
    pub host: i64,
    /// Its generation there.
    pub generation: i64,
    /// That was done when the job was accepted: only its NICs are left.
    #[serde(default)]
    pub written_off: bool,
}

/// What is done when a write-off fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// There is no way back for a VM that was written off: its NICs leave the host all the same.
    Nics,
}

impl Job for Lost {
    const KIND: &'static str = "vm.lost";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        let (_, host_name) = vm_order::host(&world.node.db, self.host).await?;
        let debt = world.node.db.next_id("host_debt").await?;
        // First what may turn out to be unneeded: the NICs of a VM that goes on stay as they are.
        let lost = jobs::step!(ctx, "settle", undo: Undo::Nics, |tx| {
            self.settle(&world, tx, &ctx, &vm, &host_name, debt).await
        })
        .await?;
        if lost {
            stop::unplug(&world, &ctx, vm.id, self.host, NO_UNDO).await?;
        }
        jobs::finish!(ctx, |_tx| Ok::<_, ApiError>(Success { success: true, display_text: None })).await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let Undo::Nics = undo;
        match cx.value() {
            Some(true) => stop::unplug_undoing(&world, self.vm, Some(self.host), &cx).await,
            _ => Ok(()),
        }
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // one that still runs, as far as the database knows, is taken up again by the duty
    }
}

impl Lost {
    /// Writes the VM off unless it is elsewhere or its host is back. Gives whether it is written off.
    async fn settle(
        &self,
        world: &VmWorld,
        tx: &mut Tx,
        ctx: &Ctx,
        vm: &vms::VmRow,
        host_name: &str,
        debt: i64,
    ) -> Result<bool, ApiError> {
        if self.written_off {
            return Ok(true);
        }
        let there = vms::find_in(tx, self.vm).await?.is_some_and(|v| {
            v.state == VmState::Running && v.host_id == Some(self.host) && v.generation == self.generation
        });
        // A host that is back says itself what it runs.
        if !there || !restarts::is_down(tx, self.host).await? {
            return Ok(false);
        }
        vms::transit(tx, self.vm, &[VmState::Running], VmState::Stopped).await?;
        boot::vacate(world, tx, self.vm, true).await?;
        // Should a copy have outlived its host's death, it is stopped before the host does anything else.
        let stop = StopVm { uuid: vm.uuid.clone(), forced: true, generation: self.generation };
        let stop = Command { body: Some(command::Body::StopVm(stop)) };
        vms::owe(tx, debt, self.host, &vm.uuid, stop.encode_to_vec()).await?;
        let what = format!("VM {} stopped: its host {host_name} is down", view::label(vm));
        let event = EventRecord::new(ctx.caller(), "VM.STOP", EventState::Completed, what.clone());
        let event = event.about("VirtualMachine", &vm.uuid).owned_by(&vm.owner);
        let mut records = vec![Record::Event(event), usage::record(vm, "VM.STOP")];
        records.extend(decide(&world.node.settings, tx, vm, self.host, Cause::Host, &what).await?);
        events::record(tx, &records).await?;
        Ok(true)
    }
}
