//! The VMs of a host that is deleted by force: they count as lost with it, never as running.

use super::gone;
use crate::placement;
use crate::store::hosts::{self as rows, HostChange, HostRow};
use crate::store::restarts::Cause;
use crate::store::vms::{self, VmRow};
use crate::vm::{claim, ha, usage, view};
use crate::world::World;
use ::store::Tx;
use contract::ApiError;
use contract::api::Caller;
use contract_agent::{Command, StopVm, command};
use events::{EventRecord, EventState, Record};
use jobs::Ticket;
use model::HostId;
use model::state::{HostStatus, ResourceState, VmState};
use std::time::Duration;

/// Longest that the host may take to stop one.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Keeps new VMs off a host, and stops what runs there as far as the host can be reached. What it can't be told, the
/// generations of the VMs' disks keep from harm.
///
/// # Errors
/// When a connected host refuses.
pub async fn stop_guests(world: &World, id: i64) -> Result<(), ApiError> {
    let db = &world.node.db;
    let disabled = HostChange { resource_state: Some(ResourceState::Disabled), ..HostChange::default() };
    let host = ::store::tx!(db, "close-host", |tx| {
        let host: HostRow = rows::find(&mut *tx, id).await?.filter(|h| h.removed.is_none()).ok_or_else(gone)?;
        if rows::guests(tx, id).await? > 0 {
            rows::update(tx, id, &disabled).await?;
        }
        Ok::<_, ApiError>(host)
    })
    .await?;
    world.host_changed(id);
    if host.status != HostStatus::Up {
        return Ok(());
    }
    for vm in vms::on_host(db, id).await?.into_iter().filter(|v| v.state == VmState::Running) {
        let stop = StopVm { uuid: vm.uuid.clone(), forced: true, generation: vm.generation };
        let command = Command { body: Some(command::Body::StopVm(stop)) };
        world.hub.execute(HostId(id), None, false, command, STOP_DEADLINE).await?;
    }
    Ok(())
}

/// Tickets for the jobs that [`write_off`] accepts.
///
/// # Errors
/// Those of the database.
pub async fn tickets(world: &World, id: i64) -> Result<Vec<Ticket>, ApiError> {
    let guests = vms::on_host(&world.node.db, id).await?.len();
    futures::future::try_join_all((0..guests).map(|_| world.jobs.ticket())).await
}

/// Takes all VMs off a host that ends, as part of `tx`. A job for each tells the network.
///
/// # Errors
/// 530/4300 when a job works on one of them, or more came since the tickets were taken.
pub async fn write_off(
    world: &World,
    tx: &mut Tx,
    caller: &Caller,
    host: &HostRow,
    tickets: &[Ticket],
) -> Result<(), ApiError> {
    let mut tickets = tickets.iter().cloned();
    for vm in rows::placed(tx, host.id).await? {
        jobs::free(tx, &[claim(vm)]).await?;
        let Some(vm) = vms::find_in(tx, vm).await? else { continue };
        if vms::transit(tx, vm.id, &[VmState::Running], VmState::Stopped).await? {
            tell(tx, caller, host, &vm).await?;
            let what = format!("VM {} stopped: its host {} was deleted by force", view::label(&vm), host.name);
            let alert = ha::decide(&world.node.settings, tx, &vm, host.id, Cause::Host, &what).await?;
            events::record(tx, alert.as_slice()).await?;
        }
        placement::free(tx, vm.id).await?;
        vms::leave_host(tx, vm.id, true).await?;
        let ticket = tickets.next().ok_or_else(|| ApiError::concurrent("VMs came to the host meanwhile"))?;
        let unplug = ha::lost::Lost { vm: vm.id, host: host.id, generation: vm.generation, written_off: true };
        world.jobs.accept(tx, ticket, ha::accept(&vm, unplug, "taking off its deleted host")).await?;
    }
    Ok(())
}

async fn tell(tx: &mut Tx, caller: &Caller, host: &HostRow, vm: &VmRow) -> Result<(), ApiError> {
    let text = format!("VM {} was stopped: its host {} was deleted by force", view::label(vm), host.name);
    let event = EventRecord::new(caller, "VM.STOP", EventState::Completed, text)
        .about("VirtualMachine", &vm.uuid)
        .owned_by(&vm.owner);
    Ok(events::record(tx, &[Record::Event(event), usage::record(vm, "VM.STOP")]).await?)
}
