//! Public addresses.

use super::{Names, Wanted, tags};
use crate::address::uri_of;
use crate::store::ips::{PublicIp, range_names};
use crate::store::vms;
use contract_network as api;
use store::{Db, Result};

/// Public addresses.
pub async fn ips(db: &Db, rows: &[PublicIp]) -> Result<Vec<api::IpAddress>> {
    let wanted = Wanted {
        zones: rows.iter().map(|i| i.zone_id).collect(),
        accounts: rows.iter().map(|i| i.owner.account_id).filter(|a| *a > 0).collect(),
        domains: rows.iter().map(|i| i.owner.domain_id).filter(|d| *d > 0).collect(),
        physicals: rows.iter().map(|i| i.physical_network_id).collect(),
        networks: rows.iter().flat_map(|i| std::iter::once(i.source_network_id).chain(i.network_id)).collect(),
    };
    let names = Names::of(db, wanted).await?;
    let vlans = range_names(db, rows.iter().map(|i| i.vlan_range_id)).await?;
    let vms = vms::by_ids(db, rows.iter().filter_map(|i| i.vm_id)).await?;
    let mut all_tags = tags(db, "PublicIpAddress", rows.iter().map(|i| i.id)).await?;
    Ok(rows
        .iter()
        .map(|i| {
            let (zone_id, zone_name) = names.zone(i.zone_id);
            let (domain_id, domain) = names.domain(i.owner.domain_id);
            let (associated_network_id, associated_network_name) = names.network(i.network_id);
            let vlan = vlans.get(&i.vlan_range_id);
            let vm = i.vm_id.and_then(|vm| vms.get(&vm));
            api::IpAddress {
                id: Some(i.uuid.clone()),
                ip_address: Some(i.ip.clone()),
                allocated: i.allocated,
                zone_id,
                zone_name,
                is_source_nat: Some(i.is_source_nat),
                account: names.account(i.owner.account_id),
                domain_id,
                domain,
                for_virtual_network: Some(true),
                vlan_id: vlan.map(|(uuid, _)| uuid.clone()),
                vlan_name: vlan.map(|(_, tag)| uri_of("vlan", tag)),
                is_static_nat: Some(i.is_static_nat),
                is_system: Some(i.is_system),
                virtual_machine_id: vm.map(|v| v.uuid.clone()),
                vm_ip_address: i.vm_ip.clone(),
                virtual_machine_name: vm.map(|v| v.name.clone()),
                virtual_machine_display_name: vm.map(|v| v.display_name.clone()),
                associated_network_id,
                associated_network_name,
                network_id: names.network(Some(i.source_network_id)).0,
                state: Some(i.state.clone()),
                physical_network_id: names.physical(Some(i.physical_network_id)),
                tags: all_tags.remove(&i.id).unwrap_or_default(),
                is_portable: Some(false),
                for_display: Some(i.display),
                ..api::IpAddress::default()
            }
        })
        .collect())
}
