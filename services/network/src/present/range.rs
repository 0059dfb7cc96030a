//! Address ranges.

use super::{Names, Wanted};
use crate::address::uri_of;
use crate::store::ranges::{PUBLIC, VlanRange};
use contract_network as api;
use model::names::{Table, named};
use store::{Db, Result};

/// Ranges. Accounts are shown where a range is dedicated to one.
pub async fn ranges(db: &Db, rows: &[VlanRange]) -> Result<Vec<api::VlanIpRange>> {
    let wanted = Wanted {
        zones: rows.iter().map(|r| r.zone_id).collect(),
        accounts: rows.iter().filter_map(|r| r.account_id).collect(),
        domains: rows.iter().filter_map(|r| r.domain_id).collect(),
        physicals: rows.iter().map(|r| r.physical_network_id).collect(),
        networks: rows.iter().map(|r| r.network_id).collect(),
    };
    let names = Names::of(db, wanted).await?;
    let pods = named(db, Table::Pods, rows.iter().filter_map(|r| r.pod_id)).await?;
    Ok(rows
        .iter()
        .map(|r| {
            let (domain_id, domain) = r.domain_id.map_or((None, None), |d| names.domain(d));
            let pod = r.pod_id.and_then(|p| pods.get(&p));
            api::VlanIpRange {
                id: Some(r.uuid.clone()),
                for_virtual_network: Some(r.kind == PUBLIC),
                zone_id: names.zone(r.zone_id).0,
                vlan: Some(uri_of("vlan", &r.vlan)),
                account: r.account_id.and_then(|a| names.account(a)),
                domain_id,
                domain,
                pod_id: pod.map(|p| p.uuid.clone()),
                pod_name: pod.map(|p| p.name.clone()),
                gateway: Some(r.gateway.clone()),
                netmask: Some(r.netmask.clone()),
                start_ip: Some(r.start_ip.clone()),
                end_ip: Some(r.end_ip.clone()),
                network_id: names.network(Some(r.network_id)).0,
                physical_network_id: names.physical(Some(r.physical_network_id)),
                for_system_vms: Some(r.for_system_vms),
                ..api::VlanIpRange::default()
            }
        })
        .collect())
}
