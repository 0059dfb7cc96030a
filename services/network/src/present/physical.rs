//! Physical networks, traffic types, providers and elements.

use super::{Names, Wanted};
use crate::store::physical::Physical;
use crate::store::providers::{Element, NetworkProvider};
use crate::store::traffic::Traffic;
use contract_network as api;
use store::{Db, Result};

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// Physical networks.
pub async fn physicals(db: &Db, rows: &[Physical]) -> Result<Vec<api::PhysicalNetwork>> {
    let wanted = Wanted {
        zones: rows.iter().map(|p| p.zone_id).collect(),
        domains: rows.iter().filter_map(|p| p.domain_id).collect(),
        ..Wanted::default()
    };
    let names = Names::of(db, wanted).await?;
    Ok(rows
        .iter()
        .map(|p| api::PhysicalNetwork {
            id: Some(p.uuid.clone()),
            name: Some(p.name.clone()),
            broadcast_domain_range: Some(p.broadcast_range.clone()),
            zone_id: names.zone(p.zone_id).0,
            state: Some(p.state.clone()),
            vlan: p.vlan.clone().filter(|v| !v.is_empty()),
            domain_id: p.domain_id.and_then(|d| names.domain(d).0),
            tags: text(&p.tags),
            isolation_methods: text(&p.isolation_methods),
            network_speed: p.speed.clone(),
            ..api::PhysicalNetwork::default()
        })
        .collect())
}

/// One physical network.
pub async fn physical(db: &Db, row: &Physical) -> Result<api::PhysicalNetwork> {
    Ok(physicals(db, std::slice::from_ref(row)).await?.pop().unwrap_or_default())
}

/// Traffic types.
pub async fn traffics(db: &Db, rows: &[Traffic]) -> Result<Vec<api::TrafficType>> {
    let wanted = Wanted { physicals: rows.iter().map(|t| t.physical_network_id).collect(), ..Wanted::default() };
    let names = Names::of(db, wanted).await?;
    Ok(rows
        .iter()
        .map(|t| {
            let [xen, kvm, vmware, hyperv, ovm3] = t.labels.clone();
            api::TrafficType {
                id: Some(t.uuid.clone()),
                traffic_type: Some(t.kind.clone()),
                physical_network_id: names.physical(Some(t.physical_network_id)),
                xen_network_label: xen,
                kvm_network_label: kvm,
                vmware_network_label: vmware,
                hyperv_network_label: hyperv,
                ovm3_network_label: ovm3,
                ..api::TrafficType::default()
            }
        })
        .collect())
}

/// One traffic type.
pub async fn traffic(db: &Db, row: &Traffic) -> Result<api::TrafficType> {
    Ok(traffics(db, std::slice::from_ref(row)).await?.pop().unwrap_or_default())
}

/// Providers.
pub async fn providers(db: &Db, rows: &[NetworkProvider]) -> Result<Vec<api::NetworkServiceProvider>> {
    let ids = rows.iter().flat_map(|p| std::iter::once(p.physical_network_id).chain(p.destination_id));
    let names = Names::of(db, Wanted { physicals: ids.collect(), ..Wanted::default() }).await?;
    Ok(rows
        .iter()
        .map(|p| api::NetworkServiceProvider {
            name: Some(p.name.clone()),
            physical_network_id: names.physical(Some(p.physical_network_id)),
            destination_physical_network_id: names.physical(p.destination_id),
            state: Some(p.state.clone()),
            id: Some(p.uuid.clone()),
            service_list: p.services.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
            can_enable_individual_service: Some(true),
            ..api::NetworkServiceProvider::default()
        })
        .collect())
}

/// One provider.
pub async fn provider(db: &Db, row: &NetworkProvider) -> Result<api::NetworkServiceProvider> {
    Ok(providers(db, std::slice::from_ref(row)).await?.pop().unwrap_or_default())
}

/// A router element.
pub fn element(row: &Element) -> api::VirtualRouterElement {
    api::VirtualRouterElement {
        id: Some(row.uuid.clone()),
        nsp_id: Some(row.provider_uuid.clone()),
        enabled: Some(row.enabled),
        ..api::VirtualRouterElement::default()
    }
}
