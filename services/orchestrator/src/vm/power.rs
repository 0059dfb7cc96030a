//! Following what hosts report. A VM that ended by itself becomes Stopped, through a job that claims it like anyone and
//! asks the host once more; it is started again when it is HA-enabled ([`super::ha`]). A copy of a VM that has been started
//! elsewhere since is stopped; any other VM that the database doesn't expect is told of, never touched. A host that returns
//! first does what it owes ([`super::debts`]).

use super::deploy::row;
use super::{VmWorld, boot, claim, debts, ha, stop, usage, view};
use crate::store::restarts::Cause;
use crate::store::vms::{self, VmRow};
use config::keys;
use contract::ApiError;
use contract::api::Success;
use contract_agent::{PowerState, VmState as Reported};
use events::{EventRecord, EventState, Record};
use hub::HostEvent;
use jobs::{AbortCx, Accept, Ctx, Finished, Job, UndoCx};
use model::HostId;
use model::state::VmState;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use store::{Tx, now_micros};
use tokio::sync::broadcast::error::RecvError;

/// How much older than the database a report may be, in µs.
const REPORT_LAG: i64 = 60_000_000;
/// Longest wait for a report that was asked for.
const REPORT_DEADLINE: Duration = Duration::from_secs(15);

/// Follows the hub's events until the node stops.
pub async fn follow(world: VmWorld) {
    let mut news = world.hub.subscribe();
    loop {
        match news.recv().await {
            Ok(event) => {
                if let Err(e) = heed(&world, event).await {
                    tracing::warn!(error = %e, "a host's report could not be acted on; the next one is looked at again");
                }
            }
            // What was missed is in the next full reports.
            Err(RecvError::Lagged(_)) => world.hub.ask_reports(),
            Err(RecvError::Closed) => return,
        }
    }
}

async fn heed(world: &VmWorld, event: HostEvent) -> Result<(), ApiError> {
    match event {
        HostEvent::Up { host, .. } => {
            world.index.refresh(&world.node.db, &[host.0]).await?;
            let world = world.clone();
            // Its own task: a host that answers slowly must not hold up the news of the others.
            let tasks = world.node.tasks.clone();
            tasks.spawn(async move {
                if let Err(e) = debts::pay(&world, host.0).await {
                    tracing::warn!(host = host.0, error = %e, "a host still owes; it is asked again");
                }
            });
            Ok(())
        }
        HostEvent::Lost { host, .. } | HostEvent::Down { host, .. } => {
            world.index.refresh(&world.node.db, &[host.0]).await
        }
        HostEvent::Vm { host, state } => compare(world, host.0, &[state], false).await,
        HostEvent::Report { host, vms, .. } => compare(world, host.0, &vms, true).await,
    }
}

/// Compares what a host says with the database. `all`: VMs that it doesn't name aren't there.
async fn compare(world: &VmWorld, host: i64, reported: &[Reported], all: bool) -> Result<(), ApiError> {
    let db = &world.node.db;
    let by_uuid: HashMap<&str, &Reported> = reported.iter().map(|v| (v.uuid.as_str(), v)).collect();
    let expected = if all {
        vms::on_host(db, host).await?
    } else {
        let uuids: Vec<String> = reported.iter().map(|v| v.uuid.clone()).collect();
        vms::by_uuids(db, &uuids).await?
    };
    let known: HashMap<&str, &VmRow> = expected.iter().map(|v| (v.uuid.as_str(), v)).collect();
    for vm in expected.iter().filter(|v| v.state == VmState::Running && v.host_id == Some(host)) {
        if is_off(by_uuid.get(vm.uuid.as_str()).copied()) {
            check_again(world, vm, host).await?;
        }
    }
    let strays: Vec<&Reported> = reported
        .iter()
        .filter(|v| matches!(v.power(), PowerState::On | PowerState::Paused))
        .filter(|v| known.get(v.uuid.as_str()).is_none_or(|known| known.host_id != Some(host)))
        .collect();
    if strays.is_empty() { Ok(()) } else { strange(world, host, &strays).await }
}

/// VMs that run where they should not: what has been started elsewhere since is stopped, of the rest somebody is told.
async fn strange(world: &VmWorld, host: i64, strays: &[&Reported]) -> Result<(), ApiError> {
    let uuids: Vec<String> = strays.iter().map(|v| v.uuid.clone()).collect();
    let known: HashMap<String, VmRow> =
        vms::by_uuids(&world.node.db, &uuids).await?.into_iter().map(|v| (v.uuid.clone(), v)).collect();
    let mut stale = Vec::new();
    for state in strays {
        let vm = known.get(&state.uuid);
        // It may have come here since the list was read.
        if vm.is_some_and(|v| v.host_id == Some(host)) {
            continue;
        }
        if vm.is_some_and(|v| v.generation > state.generation) {
            stale.push((*state).clone());
        } else if !vm.is_some_and(moving) {
            tracing::warn!(
                host,
                vm = state.uuid,
                name = state.instance_name,
                "a host runs a virtual machine that should not be there"
            );
        }
    }
    if !stale.is_empty() {
        let own = world.clone();
        // Its own task: the host's answers must not hold up the news of the others.
        world.node.tasks.spawn(async move { debts::stop_stale(&own, host, stale).await });
    }
    Ok(())
}

/// Whether the VM is between hosts or states, or was a moment ago: a report may be older than what the database says now.
fn moving(vm: &VmRow) -> bool {
    vm.changed > now_micros() - REPORT_LAG
        || matches!(vm.state, VmState::Starting | VmState::Stopping | VmState::Migrating)
}

/// Whether a host that says this doesn't run the VM.
pub fn is_off(reported: Option<&Reported>) -> bool {
    reported.is_none_or(|r| matches!(r.power(), PowerState::Off | PowerState::Missing))
}

async fn check_again(world: &VmWorld, vm: &VmRow, host: i64) -> Result<(), ApiError> {
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
            stop::unplug(&world, &ctx, vm.id, self.host).await?;
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
        let restart = world.node.settings.get(keys::HA_VM_RESTART_HOSTUP);
        records.extend(ha::decide(tx, vm, self.host, Cause::Guest, restart, &text).await?);
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
                    return Ok(vms.into_iter().find(|v| v.uuid == uuid));
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
