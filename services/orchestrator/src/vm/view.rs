//! Virtual machines as answers show them.

use super::VmWorld;
use super::name_cache::Names;
use crate::store::affinity::{self, GroupRow};
use crate::store::vm_list::{self as rows, Listed};
use crate::store::vm_names::Kind;
use crate::store::vms::VmRow;
use contract::ApiError;
use contract::api::{Caller, ResourceTag};
use contract_compute::{AffinityGroup, VirtualMachine};
use contract_network::Nic;
use model::state::VmState;
use model::tags;

/// How texts name a VM.
pub fn label(vm: &VmRow) -> String {
    format!("{} ({})", vm.uuid, vm.display_name)
}

/// One VM, removed ones included.
///
/// # Errors
/// 431 when there is none.
pub async fn one(world: &VmWorld, vm: i64, caller: &Caller) -> Result<VirtualMachine, ApiError> {
    let listed = rows::by_id(&world.node.db, vm).await?;
    let listed = listed.ok_or_else(|| ApiError::param("Unable to find a virtual machine with specified vmId"))?;
    let mut shown = all(world, vec![listed], caller).await?;
    shown.pop().ok_or_else(|| ApiError::internal("a virtual machine lost its answer"))
}

/// Words of `listVirtualMachines`' parameter `details` (enums.json, ApiConstants.VMDetails).
const LEVELS: [&str; 12] =
    ["all", "group", "nics", "stats", "secgrp", "tmpl", "servoff", "diskoff", "iso", "volume", "min", "affgrp"];

/// Which parts of VMs are shown. What isn't shown isn't asked for either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    group: bool,
    nics: bool,
    template: bool,
    iso: bool,
    offering: bool,
    /// CPUs and memory: of the offering, and of what is measured.
    size: bool,
    disk_offering: bool,
    volume: bool,
    affinity: bool,
}

impl Levels {
    /// Everything.
    pub const ALL: Levels = Levels {
        group: true,
        nics: true,
        template: true,
        iso: true,
        offering: true,
        size: true,
        disk_offering: true,
        volume: true,
        affinity: true,
    };

    /// Reads the parameter; none given: everything.
    ///
    /// # Errors
    /// 431 for a word that isn't known.
    pub fn parse(words: &[String]) -> Result<Levels, ApiError> {
        let words: Vec<String> = words.iter().map(|w| w.trim().to_ascii_lowercase()).collect();
        if words.iter().any(|word| !LEVELS.contains(&word.as_str())) {
            return Err(ApiError::param(format!(
                "The details parameter contains a non permitted value. The allowed values are {LEVELS:?}"
            )));
        }
        let has = |word: &str| words.iter().any(|w| w == word);
        if words.is_empty() || has("all") {
            return Ok(Levels::ALL);
        }
        Ok(Levels {
            group: has("group"),
            nics: has("nics"),
            template: has("tmpl"),
            iso: has("iso"),
            offering: has("servoff"),
            size: has("servoff") || has("stats"),
            disk_offering: has("diskoff"),
            volume: has("volume"),
            affinity: has("affgrp"),
        })
    }

    fn shows(self, kind: Kind) -> bool {
        match kind {
            Kind::Template => self.template,
            Kind::Iso => self.iso,
            Kind::ServiceOffering => self.offering,
            Kind::DiskOffering => self.disk_offering,
            Kind::InstanceGroup => self.group,
            _ => true,
        }
    }

    /// Takes away what isn't shown.
    fn narrow(self, vm: &mut VirtualMachine) {
        if !self.group {
            (vm.group_id, vm.group) = (None, None);
        }
        if !self.template {
            (vm.template_id, vm.template_name, vm.template_display_text) = (None, None, None);
            vm.password_enabled = None;
        }
        if !self.iso {
            (vm.iso_id, vm.iso_name, vm.iso_display_text) = (None, None, None);
        }
        if !self.offering {
            (vm.service_offering_id, vm.service_offering_name) = (None, None);
        }
        if !self.size {
            (vm.cpu_number, vm.cpu_speed, vm.memory) = (None, None, None);
        }
        if !self.disk_offering {
            (vm.disk_offering_id, vm.disk_offering_name) = (None, None);
        }
        if !self.volume {
            (vm.root_device_id, vm.root_device_type) = (None, None);
        }
    }
}

/// A VM's affinity groups as answers about it show them: what 4.11 says of them there, and no more.
pub fn affinity_groups(groups: Vec<GroupRow>, vm: &VirtualMachine) -> Vec<AffinityGroup> {
    let one = |g: GroupRow| AffinityGroup {
        id: Some(g.uuid),
        name: Some(g.name),
        description: g.description,
        account: vm.account.clone(),
        ..AffinityGroup::default()
    };
    groups.into_iter().map(one).collect()
}

/// A page of VMs: three queries more, whatever its size, and one for each kind of name that isn't known; another when one of
/// them is in an affinity group.
pub async fn all(world: &VmWorld, listed: Vec<Listed>, caller: &Caller) -> Result<Vec<VirtualMachine>, ApiError> {
    some(world, listed, caller, Levels::ALL).await
}

/// The same with only these parts.
pub async fn some(
    world: &VmWorld,
    listed: Vec<Listed>,
    caller: &Caller,
    levels: Levels,
) -> Result<Vec<VirtualMachine>, ApiError> {
    let db = &world.node.db;
    let ids: Vec<i64> = listed.iter().map(|v| v.id).collect();
    let uuids: Vec<String> = listed.iter().map(|v| v.uuid.clone()).collect();
    let wanted: Vec<(Kind, i64)> = listed.iter().flat_map(referred).filter(|(kind, _)| levels.shows(*kind)).collect();
    let grouped: Vec<i64> = listed.iter().filter(|v| levels.affinity && v.grouped).map(|v| v.id).collect();
    let (mut nics, mut found_tags, pending, names, mut groups) = tokio::try_join!(
        async { Ok::<_, ApiError>(rows::nics(db, if levels.nics { ids.as_slice() } else { &[] }).await?) },
        async { Ok(tags::of(db, "UserVm", ids.iter().copied()).await?) },
        jobs::view::pending(db, &uuids),
        async { Ok(world.names.all(db, wanted).await?) },
        async { Ok(affinity::of_vms(db, &grouped).await?) },
    )?;
    Ok(listed
        .into_iter()
        .map(|v| {
            let nics = nics.remove(&v.id).unwrap_or_default();
            let tags = found_tags.remove(&v.id).unwrap_or_default();
            let job = pending.get(&v.uuid);
            let groups = groups.remove(&v.id).unwrap_or_default();
            let mut vm = message(v, &names, nics, tags, caller);
            vm.affinity_group = affinity_groups(groups, &vm);
            levels.narrow(&mut vm);
            if let Some((uuid, status)) = job {
                vm.job_id = Some(uuid.clone());
                vm.job_status = Some(*status);
            }
            vm
        })
        .collect())
}

/// What a VM refers to by number.
fn referred(v: &Listed) -> impl Iterator<Item = (Kind, i64)> {
    [
        (Kind::Account, Some(v.account_id)),
        (Kind::Domain, Some(v.domain_id)),
        (Kind::User, Some(v.user_id)),
        (Kind::Zone, Some(v.zone_id)),
        (Kind::Host, v.host_id),
        (Kind::Template, Some(v.template_id)),
        (Kind::Iso, v.iso_id),
        (Kind::ServiceOffering, Some(v.service_offering_id)),
        (Kind::DiskOffering, v.disk_offering_id),
        (Kind::OsType, v.os_type_id),
        (Kind::InstanceGroup, v.group_id),
    ]
    .into_iter()
    .filter_map(|(kind, id)| Some((kind, id?)))
}

fn message(v: Listed, names: &Names, nics: Vec<Nic>, tags: Vec<tags::Tag>, caller: &Caller) -> VirtualMachine {
    let admin = caller.is_root_admin();
    let on_host = matches!(v.state, VmState::Running | VmState::Starting | VmState::Stopping | VmState::Migrating);
    let uuid = |kind: Kind, id: Option<i64>| names.get(kind, id).map(|n| n.uuid.clone());
    let name = |kind: Kind, id: Option<i64>| names.get(kind, id).map(|n| n.name.clone());
    let host_id = v.host_id.filter(|_| admin && on_host);
    let (account, domain_id, domain) = (
        name(Kind::Account, Some(v.account_id)),
        uuid(Kind::Domain, Some(v.domain_id)),
        name(Kind::Domain, Some(v.domain_id)),
    );
    VirtualMachine {
        id: Some(v.uuid),
        name: Some(v.name),
        display_name: Some(v.display_name),
        account: account.clone(),
        user_id: uuid(Kind::User, Some(v.user_id)),
        username: name(Kind::User, Some(v.user_id)),
        domain_id: domain_id.clone(),
        domain: domain.clone(),
        created: Some(v.created),
        state: Some(v.state.to_string()),
        ha_enable: Some(v.ha_enabled),
        group_id: uuid(Kind::InstanceGroup, v.group_id),
        group: name(Kind::InstanceGroup, v.group_id),
        zone_id: uuid(Kind::Zone, Some(v.zone_id)),
        zone_name: name(Kind::Zone, Some(v.zone_id)),
        host_id: uuid(Kind::Host, host_id),
        host_name: name(Kind::Host, host_id),
        template_id: uuid(Kind::Template, Some(v.template_id)),
        template_name: name(Kind::Template, Some(v.template_id)),
        template_display_text: names.get(Kind::Template, Some(v.template_id)).map(|n| n.text.clone()),
        password_enabled: Some(v.password_enabled),
        iso_id: uuid(Kind::Iso, v.iso_id),
        iso_name: name(Kind::Iso, v.iso_id),
        iso_display_text: names.get(Kind::Iso, v.iso_id).map(|n| n.text.clone()),
        service_offering_id: uuid(Kind::ServiceOffering, Some(v.service_offering_id)),
        service_offering_name: name(Kind::ServiceOffering, Some(v.service_offering_id)),
        disk_offering_id: uuid(Kind::DiskOffering, v.disk_offering_id),
        disk_offering_name: name(Kind::DiskOffering, v.disk_offering_id),
        cpu_number: i32::try_from(v.cpu).ok(),
        cpu_speed: i32::try_from(v.cpu_mhz).ok(),
        memory: i32::try_from(v.memory_mb).ok(),
        guest_os_id: uuid(Kind::OsType, v.os_type_id),
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
        os_type_id: uuid(Kind::OsType, v.os_type_id),
        tags: tags
            .into_iter()
            .map(|t| ResourceTag {
                key: Some(t.key),
                value: Some(t.value),
                resource_type: Some(t.resource_type),
                resource_id: Some(t.resource_uuid),
                account: account.clone(),
                domain_id: domain_id.clone(),
                domain: domain.clone(),
                ..ResourceTag::default()
            })
            .collect(),
        ..VirtualMachine::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[test]
    fn levels() {
        let of = |words: &[&str]| Levels::parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[]).unwrap(), Levels::ALL);
        assert_eq!(of(&["min", "all"]).unwrap(), Levels::ALL);
        let min = of(&["min"]).unwrap();
        assert!(
            !min.nics && !min.template && !min.iso && !min.offering && !min.size && !min.disk_offering && !min.volume
        );
        let stats = of(&["Stats", "nics"]).unwrap();
        assert!(stats.size && stats.nics && !stats.offering);
        assert_eq!(of(&["everything"]).unwrap_err().code, 431);
        let mut vm = VirtualMachine { cpu_number: Some(1), template_id: Some("t".into()), ..VirtualMachine::default() };
        stats.narrow(&mut vm);
        assert_eq!((vm.cpu_number, vm.template_id), (Some(1), None));
    }
}
