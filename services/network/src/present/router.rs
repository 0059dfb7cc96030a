//! Routers.

use super::{Names, Wanted, nic};
use crate::store::routers::Router;
use crate::store::{networks, nics, zones};
use contract_network as api;
use model::names::{Table, named};
use std::collections::HashMap;
use store::{Db, Result};

/// Routers with their interfaces.
pub async fn routers(db: &Db, rows: &[Router]) -> Result<Vec<api::Router>> {
    let interfaces = nics::of_routers(db, rows.iter().map(|r| r.id)).await?;
    let wanted = Wanted {
        accounts: rows.iter().map(|r| r.owner.account_id).collect(),
        domains: rows.iter().map(|r| r.owner.domain_id).collect(),
        networks: interfaces
            .values()
            .flatten()
            .map(|n| n.network_id)
            .chain(rows.iter().map(|r| r.network_id))
            .collect(),
        ..Wanted::default()
    };
    let names = Names::of(db, wanted).await?;
    let guests = networks::by_ids(db, rows.iter().map(|r| r.network_id)).await?;
    let all_zones: HashMap<i64, zones::Zone> =
        zones::zones(db, rows.iter().map(|r| r.zone_id)).await?.into_iter().map(|z| (z.id, z)).collect();
    let hosts = named(db, Table::Hosts, rows.iter().filter_map(|r| r.host_id)).await?;
    let pods = named(db, Table::Pods, rows.iter().filter_map(|r| r.pod_id)).await?;
    let hypervisors = zones::hypervisors(db, rows.iter().filter_map(|r| r.host_id)).await?;
    Ok(rows
        .iter()
        .map(|r| {
            let own = interfaces.get(&r.id).map(Vec::as_slice).unwrap_or_default();
            let public = own.iter().find(|n| n.traffic_type == "Public");
            let guest = own.iter().find(|n| n.traffic_type == "Guest");
            let network = guests.get(&r.network_id);
            let zone = all_zones.get(&r.zone_id);
            let (domain_id, domain) = names.domain(r.owner.domain_id);
            let (guest_network_id, guest_network_name) = names.network(Some(r.network_id));
            api::Router {
                id: Some(r.uuid.clone()),
                zone_id: zone.map(|z| z.uuid.clone()),
                zone_name: zone.map(|z| z.name.clone()),
                dns1: zone.map(|z| z.dns1.clone()),
                dns2: zone.and_then(|z| z.dns2.clone()).filter(|d| !d.is_empty()),
                network_domain: network.and_then(|n| n.network_domain.clone()),
                gateway: public.and_then(|n| n.gateway.clone()),
                name: Some(r.name.clone()),
                pod_id: r.pod_id.and_then(|p| pods.get(&p)).map(|p| p.uuid.clone()),
                host_id: r.host_id.and_then(|h| hosts.get(&h)).map(|h| h.uuid.clone()),
                host_name: r.host_id.and_then(|h| hosts.get(&h)).map(|h| h.name.clone()),
                hypervisor: r.host_id.and_then(|h| hypervisors.get(&h)).cloned(),
                public_ip: r.public_ip.clone(),
                public_mac_address: r.public_mac.clone(),
                public_netmask: public.and_then(|n| n.netmask.clone()),
                public_network_id: public.and_then(|n| names.network(Some(n.network_id)).0),
                guest_ip_address: r.guest_ip.clone(),
                guest_mac_address: r.guest_mac.clone(),
                guest_netmask: guest.and_then(|n| n.netmask.clone()),
                guest_network_id,
                guest_network_name,
                created: Some(r.created),
                state: Some(r.state.clone()),
                account: names.account(r.owner.account_id),
                domain_id,
                domain,
                is_redundant_router: Some(false),
                redundant_state: Some("UNKNOWN".into()),
                role: Some("VIRTUAL_ROUTER".into()),
                nic: own.iter().map(|n| nic(n, names.network(Some(n.network_id)), true)).collect(),
                requires_upgrade: Some(false),
                ..api::Router::default()
            }
        })
        .collect())
}
