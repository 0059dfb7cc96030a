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
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
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
}

impl Job for Lost {
    const KIND: &'static str = "vm.lost";
    type World = VmWorld;
    type Undo = ();

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        let (_, host_name) = vm_order::host(&world.node.db, self.host).await?;
        stop::unplug(&world, &ctx, vm.id, self.host).await?;
        let debt = world.node.db.next_id("host_debt").await?;
        jobs::finish!(ctx, |tx| {
            self.settle(&world, tx, &ctx, &vm, &host_name, debt).await?;
            Ok::<_, ApiError>(Success { success: true, display_text: None })
        })
        .await
    }

    async fn undo(self, _world: Arc<VmWorld>, _undo: (), _cx: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // it still runs, as far as the database knows: the duty takes it up again
    }
}

impl Lost {
    async fn settle(
        &self,
        world: &VmWorld,
        tx: &mut Tx,
        ctx: &Ctx,
        vm: &vms::VmRow,
        host_name: &str,
        debt: i64,
    ) -> Result<(), ApiError> {
        let there = vms::find_in(tx, self.vm).await?.is_some_and(|v| {
            v.state == VmState::Running && v.host_id == Some(self.host) && v.generation == self.generation
        });
        // A host that is back says itself what it runs.
        if !there || !restarts::is_down(tx, self.host).await? {
            return Ok(());
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
        records.extend(decide(tx, vm, self.host, Cause::Host, true, &what).await?);
        Ok(events::record(tx, &records).await?)
    }
}
