//! Virtual machines as answers show them.

use crate::store::vm_list::{self as rows, Listed};
use crate::store::vms::VmRow;
use contract::ApiError;
use contract::api::{Caller, ResourceTag};
use contract_compute::VirtualMachine;
use contract_network::Nic;
use model::state::VmState;
use model::tags;
use store::Db;

/// How texts name a VM.
pub fn label(vm: &VmRow) -> String {
    format!("{} ({})", vm.uuid, vm.display_name)
}

/// One VM, removed ones included.
///
/// # Errors
/// 431 when there is none.
pub async fn one(db: &Db, vm: i64, caller: &Caller) -> Result<VirtualMachine, ApiError> {
    let listed = rows::by_id(db, vm).await?.ok_or_else(|| ApiError::param("Unable to find a virtual machine with specified vmId"))?;
    let mut shown = all(db, vec![listed], caller).await?;
    shown.pop().ok_or_else(|| ApiError::internal("a virtual machine lost its answer"))
}

/// A page of VMs: three queries more, whatever its size.
pub async fn all(db: &Db, listed: Vec<Listed>, caller: &Caller) -> Result<Vec<VirtualMachine>, ApiError> {
    let ids: Vec<i64> = listed.iter().map(|v| v.id).collect();
    let uuids: Vec<String> = listed.iter().map(|v| v.uuid.clone()).collect();
    let (mut nics, mut found_tags, pending) = tokio::try_join!(
        async { Ok::<_, ApiError>(rows::nics(db, &ids).await?) },
        async { Ok(tags::of(db, "UserVm", ids.iter().copied()).await?) },
        jobs::view::pending(db, &uuids),
    )?;
    Ok(listed
        .into_iter()
        .map(|v| {
            let nics = nics.remove(&v.id).unwrap_or_default();
            let tags = found_tags.remove(&v.id).unwrap_or_default();
            let job = pending.get(&v.uuid);
            let mut vm = message(v, nics, tags, caller);
            if let Some((uuid, status)) = job {
                vm.job_id = Some(uuid.clone());
                vm.job_status = Some(*status);
            }
            vm
        })
        .collect())
}

fn message(v: Listed, nics: Vec<Nic>, tags: Vec<tags::Tag>, caller: &Caller) -> VirtualMachine {
    let admin = caller.is_root_admin();
    let on_host = matches!(v.state, VmState::Running | VmState::Starting | VmState::Stopping | VmState::Migrating);
    let account = v.account.clone();
    let (domain_id, domain) = (v.domain_uuid.clone(), v.domain.clone());
    VirtualMachine {
        id: Some(v.uuid.clone()),
        name: Some(v.name),
        display_name: Some(v.display_name),
        account: Some(v.account),
        user_id: v.user_uuid,
        username: v.user_name,
        domain_id: Some(v.domain_uuid),
        domain: Some(v.domain),
        created: Some(v.created),
        state: Some(v.state.to_string()),
        ha_enable: Some(v.ha_enabled),
        zone_id: Some(v.zone_uuid),
        zone_name: Some(v.zone),
        host_id: v.host_uuid.filter(|_| admin && on_host),
        host_name: v.host.filter(|_| admin && on_host),
        template_id: v.template_uuid,
        template_name: v.template,
        template_display_text: v.template_text,
        password_enabled: Some(v.password_enabled),
        service_offering_id: v.offering_uuid,
        service_offering_name: v.offering,
        disk_offering_id: v.disk_offering_uuid,
        disk_offering_name: v.disk_offering,
        cpu_number: i32::try_from(v.cpu).ok(),
        cpu_speed: i32::try_from(v.cpu_mhz).ok(),
        memory: i32::try_from(v.memory_mb).ok(),
        guest_os_id: v.os_type_uuid.clone(),
        root_device_id: Some(0),
        root_device_type: Some("ROOT".to_owned()),
        nic: nics,
        hypervisor: Some(v.hypervisor),
        public_ip_id: v.public_ip_uuid,
        public_ip: v.public_ip,
        // Its name tells hypervisor and numbering: 4.11 shows it to administrators.
        instance_name: Some(v.instance_name).filter(|_| admin),
        details: v.details.into_iter().collect(),
        key_pair: v.key_pair,
        display_vm: Some(v.display_vm),
        is_dynamically_scalable: Some(v.dynamic_scaling),
        os_type_id: v.os_type_uuid,
        tags: tags
            .into_iter()
            .map(|t| ResourceTag {
                key: Some(t.key),
                value: Some(t.value),
                resource_type: Some(t.resource_type),
                resource_id: Some(t.resource_uuid),
                account: Some(account.clone()),
                domain_id: Some(domain_id.clone()),
                domain: Some(domain.clone()),
                ..ResourceTag::default()
            })
            .collect(),
        ..VirtualMachine::default()
    }
}
