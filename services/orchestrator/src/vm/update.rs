//! What of a VM is changed by a command alone (VM-223, VM-224): names, what it is told, what it is shown and counted as.
//!
//! What its host knows it by (its UUID, its name on the hypervisor) changes only while no host knows it: it is Stopped, and no host
//! owes anything of it.

use super::access::Tell;
use super::{VmWorld, names, order, view};
use crate::store::vms::{self, Reseal, VmChange, VmRow};
use crate::store::{instance_groups, vm_order as facts};
use contract::ApiError;
use contract_compute::{UpdateVirtualMachineRequest, VirtualMachine};
use events::{EventRecord, EventState, Record};
use jobs::Accept;
use model::state::VmState;
use rpc::Cx;
use std::collections::BTreeMap;
use std::time::Duration;
use store::Tx;

/// How long a change waits for the VM's routers.
const TOLD: Duration = Duration::from_secs(20);

/// Changes a VM.
///
/// # Errors
/// 431 for what the VM, its offering or its state don't allow, and for a name or id that another one has.
pub async fn update(
    world: &VmWorld,
    cx: &Cx,
    vm: &VmRow,
    request: &UpdateVirtualMachineRequest,
) -> Result<VirtualMachine, ApiError> {
    let db = &world.node.db;
    let change = change(world, cx, vm, request).await?;
    let mut shown = view::one(world, vm.id, &cx.caller).await?;
    apply(&mut shown, &change, cx);
    // Its routers hear of it in any case, by a job of its own.
    let running = vm.state == VmState::Running;
    let told = (change.user_data.is_some() || change.name.is_some() || change.uuid.is_some()).then(|| Tell {
        vm: vm.id,
        host_name: change.name.clone(),
        uuid: change.uuid.clone(),
        running,
    });
    let (job, ticket) = (model::new_uuid(), world.jobs.ticket().await?);
    let group = request.group.as_deref();
    if let Some(name) = group.filter(|name| !name.is_empty()) {
        crate::instance_group::checked(name)?;
    }
    let group_id = db.next_id("instance_group").await?;
    let answer = jobs::mutate!(db, &cx.caller, "update-vm", |tx| {
        jobs::claims::free(tx, &[super::claim(vm.id)]).await?;
        still(tx, vm, &change).await?;
        vms::change(tx, vm.id, &change).await.map_err(|e| match e {
            store::Error::Unique { .. } => ApiError::param("the name or id is taken by another virtual machine"),
            other => other.into(),
        })?;
        let mut shown = shown.clone();
        if let Some(name) = group {
            (shown.group_id, shown.group) = match name {
                "" => {
                    instance_groups::leave(tx, vm.id).await?;
                    (None, None)
                }
                name => {
                    instance_groups::join(tx, vm.id, &vm.owner, name, group_id).await?;
                    (instance_groups::of_vm(tx, vm.id).await?, Some(name.to_owned()))
                }
            };
        }
        let text = format!("updating Vm: {}", view::label(vm));
        let event = EventRecord::new(&cx.caller, "VM.UPDATE", EventState::Completed, text);
        let uuid = change.uuid.as_deref().unwrap_or(&vm.uuid);
        events::record(tx, &[Record::Event(event.about("VirtualMachine", uuid).owned_by(&vm.owner))]).await?;
        if let Some(tell) = &told {
            let accept = Accept {
                job: tell.clone(),
                caller: rpc::cx::system_caller(),
                command: None,
                owner: vm.owner.clone(),
                instance: None,
                claims: vec![super::claim(vm.id)],
                custom_id: Some(job.clone()),
                description: format!("telling the routers of VM: {}", view::label(vm)),
                entity_id: None,
            };
            world.jobs.accept(tx, ticket.clone(), accept).await?;
        }
        Ok::<_, ApiError>(shown)
    })
    .await?;
    // As 4.11 the guest sees it once this is answered, if its routers can be told soon.
    if told.is_some()
        && running
        && let Ok(Err(error)) = tokio::time::timeout(TOLD, world.jobs.end_of(&job)).await
    {
        tracing::debug!(vm = vm.uuid, %error, "the routers hear of a change later");
    }
    Ok(answer)
}

/// What needs a VM at rest is changed only while it is that, whatever it was when it was looked at.
async fn still(tx: &mut Tx, vm: &VmRow, change: &VmChange) -> Result<(), ApiError> {
    if !change.needs_rest() {
        return Ok(());
    }
    let now = vms::find_in(tx, vm.id).await?;
    if !now.is_some_and(|now| now.state == VmState::Stopped) {
        return Err(ApiError::concurrent("the virtual machine is no longer Stopped"));
    }
    if change.uuid.is_some() && vms::is_owed(tx, &vm.uuid).await? {
        return Err(ApiError::param(
            "customid can't be changed now: a host that is away may still run the virtual machine under its former id",
        ));
    }
    Ok(())
}

async fn change(world: &VmWorld, cx: &Cx, vm: &VmRow, r: &UpdateVirtualMachineRequest) -> Result<VmChange, ApiError> {
    if matches!(vm.state, VmState::Error | VmState::Expunging) {
        return Err(ApiError::param("Vm with specified id is not in the right state").with_entity(&vm.uuid, "id"));
    }
    let at_rest = |what: &str| match vm.state {
        VmState::Stopped => Ok(()),
        _ => Err(ApiError::param(format!("{what} can be changed while the virtual machine is Stopped only"))),
    };
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let name = r.name.clone().filter(|name| *name != vm.name);
    if let Some(name) = &name {
        names::check(name)?;
        at_rest("the name")?;
    }
    let details = details(vm, r)?;
    if details.is_some() {
        at_rest("details")?;
    }
    let instance_name = given(&r.instance_name).filter(|name| *name != vm.instance_name);
    if let Some(name) = &instance_name {
        names::check(name)?;
        at_rest("instancename")?;
    }
    if r.ha_enable == Some(true) && !facts::offers_ha(&world.node.db, vm.service_offering_id).await? {
        return Err(ApiError::param(
            "Can't enable ha for the vm as it's created from the Service offering having HA disabled",
        ));
    }
    let uuid = given(&r.custom_id).map(|id| id.to_ascii_lowercase()).filter(|id| *id != vm.uuid);
    let mut reseal = None;
    if let Some(id) = &uuid {
        if !contract::is_uuid(id) {
            return Err(ApiError::param("customid isn't a UUID"));
        }
        at_rest("customid")?;
        reseal = resealed(world, vm, id).await?;
    }
    Ok(VmChange {
        name,
        display_name: r.display_name.clone(),
        os_type_id: cx.refs.id("ostypeid")?,
        user_data: order::check_user_data(r.userdata.as_deref())?,
        display_vm: r.display_vm,
        ha_enabled: r.ha_enable,
        dynamic_scaling: r.is_dynamically_scalable,
        instance_name,
        details,
        uuid,
        reseal,
    })
}

/// The password of its guest, for its new id: it is sealed for the VM's id.
async fn resealed(world: &VmWorld, vm: &VmRow, id: &str) -> Result<Option<Reseal>, ApiError> {
    let Some(from) = vms::password_sealed(&world.node.db, vm.id).await? else { return Ok(None) };
    let vault = &world.node.vault;
    let plain = vault.open_sealed(&model::sealed::vm_password(&vm.uuid), &from)?;
    let to = vault.seal(&model::sealed::vm_password(id), &plain);
    Ok(Some(Reseal { from, to }))
}

/// All details that it has afterwards. What a custom offering leaves open isn't one's to change here.
fn details(vm: &VmRow, r: &UpdateVirtualMachineRequest) -> Result<Option<BTreeMap<String, String>>, ApiError> {
    let clean = r.cleanup_details.unwrap_or(false);
    if !clean && r.details.is_empty() {
        return Ok(None);
    }
    let mut kept: BTreeMap<String, String> =
        vm.details.iter().filter(|(key, _)| order::is_size(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    if !clean {
        for (key, value) in &r.details {
            if order::is_size(key) {
                let known = kept.iter().any(|(k, v)| k.eq_ignore_ascii_case(key) && v == value);
                if !known {
                    return Err(ApiError::param(format!("{key} is changed by scaleVirtualMachine, not by details")));
                }
                continue;
            }
            kept.insert(key.clone(), value.clone());
        }
    }
    Ok(Some(kept))
}

/// The answer after a change, without reading it back.
fn apply(shown: &mut VirtualMachine, change: &VmChange, cx: &Cx) {
    let set = |slot: &mut Option<String>, value: &Option<String>| {
        if value.is_some() {
            slot.clone_from(value);
        }
    };
    set(&mut shown.name, &change.name);
    set(&mut shown.display_name, &change.display_name);
    set(&mut shown.id, &change.uuid);
    if change.uuid.is_some() {
        shown.tags.iter_mut().for_each(|tag| tag.resource_id.clone_from(&change.uuid));
    }
    if let Some(os_type) = cx.refs.one("ostypeid").filter(|_| change.os_type_id.is_some()) {
        shown.guest_os_id = Some(os_type.uuid.clone());
        shown.os_type_id = Some(os_type.uuid.clone());
    }
    if shown.instance_name.is_some() {
        set(&mut shown.instance_name, &change.instance_name);
    }
    shown.display_vm = change.display_vm.or(shown.display_vm);
    shown.ha_enable = change.ha_enabled.or(shown.ha_enable);
    shown.is_dynamically_scalable = change.dynamic_scaling.or(shown.is_dynamically_scalable);
    if let Some(details) = &change.details {
        shown.details = details.clone().into_iter().collect();
    }
}
