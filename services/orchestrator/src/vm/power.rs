//! Settling a VM that ended by itself: a job claims it like anyone and asks the host once more. It becomes Stopped, and is
//! started again when it is HA-enabled ([`super::ha`]).

use super::deploy::row;
use super::{VmWorld, boot, claim, ha, stop, usage, view};
use crate::store::restarts::Cause;
use crate::store::vms::{self, VmRow};
use contract::ApiError;
use contract::api::Success;
use contract_agent::{PowerState, VmState as Reported};
use events::{EventRecord, EventState, Record};
use hub::HostEvent;
use jobs::{AbortCx, Accept, Ctx, Finished, Job, NO_UNDO, UndoCx};
use model::HostId;
use model::state::VmState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::Tx;
use tokio::sync::broadcast::error::RecvError;

/// Longest wait for a report that was asked for.
const REPORT_DEADLINE: Duration = Duration::from_secs(15);

/// Whether a host that says this doesn't run the VM.
pub fn is_off(reported: Option<&Reported>) -> bool {
    reported.is_none_or(|r| matches!(r.power(), PowerState::Off | PowerState::Missing))
}

/// Has a VM settled that its host doesn't name any more.
///
/// # Errors
/// Those of the database; that somebody else is at the VM is none.
pub async fn check_again(world: &VmWorld, vm: &VmRow, host: i64) -> Result<(), ApiError> {
    let ticket = world.jobs.ticket().await?;
    let accepted = store::tx!(world.node.db, "power-check", |tx| {
        // A job that owns the VM knows better than a report.
        jobs::claims::free(tx, &[claim(vm.id)]).await?;
        let check = PowerCheck { vm: vm.id, host, generation: vm.generation };
        // What was read before may have been settled meanwhile.
        if !check.applies(tx).await? {
            return Ok(());
        }
        let accept = Accept {
            job: check,
            caller: rpc::cx::system_caller(),
            command: None,
            owner: vm.owner.clone(),
            instance: Some(("VirtualMachine".to_owned(), vm.uuid.clone())),
            claims: vec![claim(vm.id)],
            custom_id: None,
            description: format!("following the power state of VM: {}", view::label(vm)),
            entity_id: None,
        };
        world.jobs.accept(tx, ticket.clone(), accept).await.map(drop)
    })
    .await;
    match accepted {
        Ok(()) => Ok(()),
        Err(e) if e.is_transient() => Ok(()),
        Err(e) => Err(e),
    }
}

/// Settles a VM that seems to have ended by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PowerCheck {
    /// The VM.
    pub vm: i64,
    /// The host where it should run.
    pub host: i64,
    /// Its generation there.
    pub generation: i64,
}

impl Job for PowerCheck {
    const KIND: &'static str = "vm.power";
    type World = VmWorld;
    type Undo = ();

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        // Asked while the VM is ours, so that no start or stop is under way.
        let gone = is_off(fresh(&world, self.host, &vm.uuid).await?.as_ref());
        if gone {
            stop::unplug(&world, &ctx, vm.id, self.host, NO_UNDO).await?;
        }
        jobs::finish!(ctx, |tx| {
            if gone {
                self.settle(&world, tx, &ctx, &vm).await?;
            }
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

impl PowerCheck {
    /// Whether the database still holds that the VM runs there.
    async fn applies(&self, tx: &mut Tx) -> Result<bool, ApiError> {
        Ok(vms::find_in(tx, self.vm).await?.is_some_and(|v| {
            v.state == VmState::Running && v.host_id == Some(self.host) && v.generation == self.generation
        }))
    }

    async fn settle(&self, world: &VmWorld, tx: &mut Tx, ctx: &Ctx, vm: &VmRow) -> Result<(), ApiError> {
        if !self.applies(tx).await? || !vms::transit(tx, self.vm, &[VmState::Running], VmState::Stopped).await? {
            return Ok(());
        }
        boot::vacate(world, tx, self.vm, true).await?;
        let text = format!("VM {} was found stopped on its host", view::label(vm));
        let event = EventRecord::new(ctx.caller(), "VM.STOP", EventState::Completed, text.clone());
        let event = event.about("VirtualMachine", &vm.uuid).owned_by(&vm.owner);
        let mut records = vec![Record::Event(event), usage::record(vm, "VM.STOP")];
        records.extend(ha::decide(&world.node.settings, tx, vm, self.host, Cause::Guest, &text).await?);
        events::record(tx, &records).await?;
        Ok(())
    }
}

/// What the host says of a VM when asked now. `None`: it doesn't know the VM.
///
/// # Errors
/// 534 when it doesn't report in time.
pub async fn fresh(world: &VmWorld, host: i64, uuid: &str) -> Result<Option<Reported>, ApiError> {
    let mut news = world.hub.subscribe();
    if !world.hub.ask_report(HostId(host)) {
        return Err(ApiError::unavailable("the host isn't connected here"));
    }
    let wait = async {
        loop {
            match news.recv().await {
                Ok(HostEvent::Report { host: from, vms, .. }) if from.0 == host => {
                    return Ok(vms.iter().find(|v| v.uuid == uuid).cloned());
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    world.hub.ask_report(HostId(host));
                }
                Err(RecvError::Closed) => return Err(ApiError::unavailable("the hub ended")),
            }
        }
    };
    tokio::time::timeout(REPORT_DEADLINE, wait)
        .await
        .unwrap_or_else(|_| Err(ApiError::unavailable("the host didn't report in time")))
}
