//! Facts that accounting needs of VMs (states.json, `usage`).

use crate::store::vms::VmRow;
use events::{Record, UsageRecord};
use store::now_micros;

/// A usage record of kind "VM.START" and the like.
pub fn record(vm: &VmRow, kind: &str) -> Record {
    Record::Usage(UsageRecord {
        kind: kind.to_owned(),
        owner: vm.owner.clone(),
        zone_id: vm.zone_id,
        resource_id: vm.id,
        resource_uuid: vm.uuid.clone(),
        resource_name: vm.name.clone(),
        offering_id: Some(vm.service_offering_id),
        template_id: Some(vm.template_id),
        size: None,
        resource_type: Some(vm.hypervisor.clone()),
        created: now_micros(),
    })
}
