//! The hosts to which a running VM may move, as answers show them.

use super::view::{Details, shown};
use crate::store::hosts::{self as rows, HostFilter};
use crate::store::{vm_order, vms};
use crate::vm::VmWorld;
use crate::vm::migrate::{self, Suitability};
use config::keys;
use contract::{ApiError, Page};
use contract_infra::{FindHostsForMigrationRequest, FindHostsForMigrationResponse, Host, HostForMigration};
use model::state::VmState;
use rpc::Cx;

/// Finds the hosts that reach the disks of a running VM, other than its own. Those that placement would choose for it are
/// suitable: connected, enabled, with room, the offering's tags, and not kept for restarts.
///
/// # Errors
/// 431 for a VM that isn't Running, or whose disks are on its host's own storage.
pub async fn find(
    world: &VmWorld,
    cx: &Cx,
    r: FindHostsForMigrationRequest,
) -> Result<FindHostsForMigrationResponse, ApiError> {
    let db = &world.node.db;
    let page = Page::of(r.page, r.page_size, world.node.settings.get(keys::DEFAULT_PAGE_SIZE))?;
    let vm = vms::find(db, cx.refs.need("virtualmachineid")?).await?.filter(|vm| !vm.removed);
    let vm = vm.ok_or_else(|| ApiError::param("Unable to find the VM with given id"))?;
    if vm.state != VmState::Running {
        return Err(ApiError::param("VM is not Running, cannot migrate the vm with specified id"));
    }
    let tags = vm_order::offering_of_vm(db, vm.service_offering_id).await?.host_tags;
    let suitability = migrate::suitability(world, &vm, tags).await?;
    let filter = HostFilter {
        only: Some(suitability.keys().copied().collect()),
        keyword: r.keyword.filter(|word| !word.is_empty()),
        ..HostFilter::default()
    };
    let (found, count) = rows::list(db, &filter, page).await?;
    let ha_tag = super::ha_tag(&world.node.settings);
    let host = found
        .into_iter()
        .filter_map(|row| {
            let suits = suitability.get(&row.id).copied()?;
            Some(of(shown(row, Details::all(), ha_tag.as_deref()), suits))
        })
        .collect();
    Ok(FindHostsForMigrationResponse { count: Some(count), host })
}

fn of(h: Host, suits: Suitability) -> HostForMigration {
    HostForMigration {
        id: h.id,
        name: h.name,
        state: h.state,
        disconnected: h.disconnected,
        r#type: h.r#type,
        os_category_id: h.os_category_id,
        os_category_name: h.os_category_name,
        ip_address: h.ip_address,
        zone_id: h.zone_id,
        zone_name: h.zone_name,
        pod_id: h.pod_id,
        pod_name: h.pod_name,
        version: h.version,
        hypervisor: h.hypervisor,
        cpu_number: h.cpu_number,
        cpu_speed: h.cpu_speed,
        cpu_allocated: h.cpu_allocated,
        cpu_used: h.cpu_used,
        cpu_with_over_provisioning: h.cpu_with_over_provisioning,
        memory_total: h.memory_total,
        memory_with_over_provisioning: h.memory_with_over_provisioning,
        average_load: h.average_load,
        network_kbs_read: h.network_kbs_read,
        network_kbs_write: h.network_kbs_write,
        memory_allocated: h.memory_allocated.map(|bytes| bytes.to_string()),
        memory_used: h.memory_used,
        disk_size_total: h.disk_size_total,
        disk_size_allocated: h.disk_size_allocated,
        capabilities: h.capabilities,
        last_pinged: h.last_pinged,
        management_server_id: h.management_server_id,
        cluster_id: h.cluster_id,
        cluster_name: h.cluster_name,
        cluster_type: h.cluster_type,
        is_local_storage_active: h.is_local_storage_active,
        created: h.created,
        removed: h.removed,
        events: h.events,
        host_tags: h.host_tags,
        has_enough_capacity: Some(suits.roomy),
        suitable_for_migration: Some(suits.suitable),
        // Only hosts that reach the disks are shown.
        requires_storage_motion: Some(false),
        resource_state: h.resource_state,
        hypervisor_version: h.hypervisor_version,
        ha_host: h.ha_host,
        job_id: h.job_id,
        job_status: h.job_status,
    }
}
