//! Taking a migration back. The VM's row says how far it came: before "move" the VM goes on where it was, after it there is
//! no way back.

use super::{Undo, give_back, stop_order};
use crate::store::restarts::Cause;
use crate::store::vms::{self, VmRow};
use crate::store::{placement as hosts, vm_order};
use crate::vm::deploy::{row, stop_or_owe};
use crate::vm::{VmWorld, boot, ha, power, usage, view};
use contract::ApiError;
use contract_agent::{Command, ConfirmMigration, FinishMigration, Inventory, command, outcome};
use contract_network::MoveNicsRequest;
use events::{EventRecord, EventState, Record};
use jobs::UndoCx;
use model::HostId;
use model::state::VmState;
use prost::Message as _;
use std::sync::Arc;
use store::Tx;

/// Takes a step back.
///
/// # Errors
/// When it can't be done now.
pub async fn run(world: &Arc<VmWorld>, vm: i64, undo: Undo, cx: &UndoCx) -> Result<(), ApiError> {
    match undo {
        Undo::Place => place(world, vm, cx).await,
        Undo::Nics { source, host } => {
            let stays_on = goes_on(&row(world, vm).await?, source).then_some(source);
            let request = MoveNicsRequest { vm_id: vm, host_id: host, stays_on };
            cx.call(|call| {
                let (mut client, request) = (world.attachments(), call.request(request));
                async move { client.change_host(request).await }
            })
            .await
            .map(drop)
        }
        Undo::Source { source, generation } => resume(world, vm, source, generation, cx).await,
        Undo::Copy { host, generation } => {
            let vm = row(world, vm).await?;
            let cancel = FinishMigration { vm_uuid: vm.uuid.clone(), generation, cookie: Vec::new(), cancelled: true };
            tell_or_owe(world, &vm, host, command::Body::FinishMigration(cancel), cx).await
        }
        Undo::Moved { source, generation } => stay_off(world, vm, source, generation, cx).await,
        Undo::Domain { host, generation } => stop_or_owe(world, vm, host, generation, cx).await,
    }
}

/// Whether the VM still belongs to its old host.
fn goes_on(vm: &VmRow, source: i64) -> bool {
    vm.state == VmState::Migrating && vm.host_id == Some(source)
}

/// The VM is Running where it was, unless the undo of a later step has decided otherwise.
async fn place(world: &VmWorld, vm: i64, cx: &UndoCx) -> Result<(), ApiError> {
    let host = row(world, vm).await?.host_id;
    jobs::undo_step!(cx, |tx| {
        give_back(world, tx, vm).await?;
        if vms::transit(tx, vm, &[VmState::Migrating], VmState::Running).await?
            && let Some(host) = host
        {
            // What it reported meanwhile was about a VM that moves; asked again, it counts.
            let hub = world.hub.clone();
            tx.after_commit(move || {
                hub.ask_report(HostId(host));
            });
        }
        Ok::<_, ApiError>(())
    })
    .await
}

/// Lets the VM go on at its old host. One that ended there is Stopped; a host that is away owes the order.
async fn resume(world: &Arc<VmWorld>, vm: i64, source: i64, generation: i64, cx: &UndoCx) -> Result<(), ApiError> {
    let vm = row(world, vm).await?;
    if !goes_on(&vm, source) {
        return Ok(()); // it moved, or ended
    }
    let cancel = ConfirmMigration { vm_uuid: vm.uuid.clone(), generation, cookie: Vec::new(), cancelled: true };
    let told = tell_or_owe(world, &vm, source, command::Body::ConfirmMigration(cancel), cx).await;
    let Err(error) = told else { return Ok(()) };
    if error.is_transient() || !has_ended(world, &vm, source).await? {
        return Err(error);
    }
    let (_, name) = vm_order::host(&world.node.db, source).await?;
    let what = format!("VM {} was found stopped on its host {name}, which it was to leave", view::label(&vm));
    jobs::undo_step!(cx, |tx| ended(world, tx, cx, &vm, source, Cause::Guest, &what).await).await
}

/// Asks a host whether a VM runs there.
async fn has_ended(world: &VmWorld, vm: &VmRow, host: i64) -> Result<bool, ApiError> {
    let outcome = world.on_host(host, None, false, command::Body::Inventory(Inventory {})).await?;
    match outcome.body {
        Some(outcome::Body::Inventory(report)) => {
            Ok(power::is_off(report.vms.iter().find(|reported| reported.uuid == vm.uuid)))
        }
        _ => Err(ApiError::unavailable("the host didn't say what it runs")),
    }
}

/// The VM moved and couldn't be started: it is Stopped, and its old host owes the end of what may be left there.
async fn stay_off(world: &VmWorld, vm: i64, source: i64, generation: i64, cx: &UndoCx) -> Result<(), ApiError> {
    let vm = row(world, vm).await?;
    let Some(host) = vm.host_id.filter(|host| vm.state == VmState::Migrating && *host != source) else {
        return Ok(());
    };
    let (_, name) = vm_order::host(&world.node.db, host).await?;
    let debt = world.node.db.next_id("host_debt").await?;
    let what = format!("VM {} stopped: host {name}, to which it had moved, couldn't let it go on", view::label(&vm));
    jobs::undo_step!(cx, |tx| {
        vms::owe(tx, debt, source, &vm.uuid, stop_order(&vm.uuid, generation)).await?;
        ended(world, tx, cx, &vm, host, Cause::Host, &what).await
    })
    .await
}

/// The VM is off without order: its room is free, and it is started again when it is HA-enabled.
async fn ended(
    world: &VmWorld,
    tx: &mut Tx,
    cx: &UndoCx,
    vm: &VmRow,
    host: i64,
    cause: Cause,
    what: &str,
) -> Result<(), ApiError> {
    if !vms::transit(tx, vm.id, &[VmState::Migrating], VmState::Stopped).await? {
        return Ok(());
    }
    boot::vacate(world, tx, vm.id, true).await?;
    give_back(world, tx, vm.id).await?;
    let event = EventRecord::new(cx.caller(), "VM.STOP", EventState::Completed, what.to_owned());
    let event = event.about("VirtualMachine", &vm.uuid).owned_by(&vm.owner);
    let mut records = vec![Record::Event(event), usage::record(vm, "VM.STOP")];
    records.extend(ha::decide(&world.node.settings, tx, vm, host, cause, what).await?);
    Ok(events::record(tx, &records).await?)
}

/// Tells a host, with the key of the step; one that is away owes it.
async fn tell_or_owe(
    world: &Arc<VmWorld>,
    vm: &VmRow,
    host: i64,
    body: command::Body,
    cx: &UndoCx,
) -> Result<(), ApiError> {
    if hosts::is_up(&world.node.db, host).await? {
        let told = cx.call(|call| {
            let world = world.clone();
            async move { world.on_host(host, Some(call.key()), true, body).await }
        });
        return told.await.map(drop);
    }
    let debt = world.node.db.next_id("host_debt").await?;
    let encoded = Command { body: Some(body) }.encode_to_vec();
    jobs::undo_step!(cx, |tx| Ok::<_, ApiError>(vms::owe(tx, debt, host, &vm.uuid, encoded.clone()).await?)).await
}
