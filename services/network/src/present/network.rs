//! Networks.

use super::offering::services;
use super::{Names, Wanted, tags};
use crate::address::{Subnet, ip, number, parse_cidr};
use crate::catalogue::Offering;
use crate::store::networks::Network;
use crate::store::{nics, offerings, ranges, zones};
use contract::ApiError;
use contract::api::Caller;
use contract_network as api;
use model::state::NetworkState;
use std::collections::HashMap;
use store::Db;

/// Networks, with or without a row yet. VLANs are for root admins.
///
/// # Errors
/// Those of the database.
pub async fn networks(db: &Db, caller: &Caller, rows: &[Network]) -> Result<Vec<api::Network>, ApiError> {
    let ids = || rows.iter().map(|n| n.id);
    let wanted = Wanted {
        accounts: rows.iter().map(|n| n.owner.account_id).collect(),
        domains: rows.iter().map(|n| n.owner.domain_id).collect(),
        physicals: rows.iter().filter_map(|n| n.physical_network_id).collect(),
        ..Wanted::default()
    };
    let names = Names::of(db, wanted).await?;
    let all_zones: HashMap<i64, zones::Zone> =
        zones::zones(db, rows.iter().map(|n| n.zone_id)).await?.into_iter().map(|z| (z.id, z)).collect();
    let all_offerings = offerings::by_ids(db, rows.iter().map(|n| n.offering_id)).await?;
    let mut all_tags = tags(db, "Network", ids()).await?;
    let in_use = nics::in_use(db, ids()).await?;
    let sizes = ranges::sizes(db, rows.iter().filter(|n| n.traffic_type == "Guest").map(|n| n.id)).await?;
    let show = |n: &Network| {
        let zone = all_zones.get(&n.zone_id);
        let offering_row = all_offerings.get(&n.offering_id);
        let (domain_id, domain) = names.domain(n.owner.domain_id);
        let root = caller.is_root_admin();
        let used = in_use.get(&n.id).copied().unwrap_or(0);
        let router = offering_row.is_some_and(Offering::needs_router);
        api::Network {
            id: Some(n.uuid.clone()),
            name: n.name.clone(),
            display_text: n.display_text.clone(),
            broadcast_domain_type: Some(n.broadcast_type.clone()),
            traffic_type: Some(n.traffic_type.clone()),
            gateway: n.gateway.clone(),
            netmask: n.netmask.clone(),
            cidr: n.cidr.clone(),
            network_cidr: n.network_cidr.clone(),
            reserved_ip_range: reserved(n),
            zone_id: zone.map(|z| z.uuid.clone()),
            zone_name: zone.map(|z| z.name.clone()),
            network_offering_id: offering_row.map(|o| o.uuid.clone()),
            network_offering_name: offering_row.map(|o| o.name.clone()),
            network_offering_display_text: offering_row.map(|o| o.display_text.clone()),
            network_offering_conserve_mode: offering_row.map(|o| o.conserve_mode),
            network_offering_availability: offering_row.map(|o| o.availability.clone()),
            is_system: Some(n.is_system),
            state: Some(state(n).as_str().to_owned()),
            related: Some(n.uuid.clone()),
            broadcast_uri: n.broadcast_uri.clone().filter(|_| root),
            dns1: zone.filter(|_| router).map(|z| z.dns1.clone()),
            dns2: zone.filter(|_| router).and_then(|z| z.dns2.clone()).filter(|d| !d.is_empty()),
            r#type: n.guest_type.clone(),
            vlan: n.broadcast_uri.as_deref().filter(|_| root).and_then(|uri| uri.rsplit('/').next()).map(str::to_owned),
            acl_type: n.acl_type.clone(),
            subdomain_access: (n.acl_type.as_deref() == Some("Domain")).then_some(n.subdomain_access),
            account: (n.acl_type.as_deref() != Some("Domain")).then(|| names.account(n.owner.account_id)).flatten(),
            domain_id,
            domain,
            service: offering_row.map(|o| services(o, true)).unwrap_or_default(),
            network_domain: n.network_domain.clone(),
            physical_network_id: names.physical(n.physical_network_id),
            restart_required: Some(n.restart_required),
            specify_ip_ranges: offering_row.map(|o| o.specify_ip_ranges),
            can_use_for_deploy: Some(usable(n, used, sizes.get(&n.id).copied())),
            is_persistent: offering_row.map(|o| o.is_persistent),
            tags: all_tags.remove(&n.id).unwrap_or_default(),
            display_network: Some(n.display_network),
            streched_l2_subnet: Some(false),
            external_id: n.external_id.clone(),
            redundant_router: Some(offering_row.is_some_and(|o| o.redundant_router)),
            ..api::Network::default()
        }
    };
    let mut show = show;
    Ok(rows.iter().map(&mut show).collect())
}

/// 4.11 shows networks with a given VLAN as Setup: there is nothing to implement but a router.
fn state(n: &Network) -> NetworkState {
    match n.state {
        NetworkState::Allocated | NetworkState::Implementing | NetworkState::Implemented if n.specified_vlan => {
            NetworkState::Setup
        }
        state => state,
    }
}

fn usable(n: &Network, used: i64, ranges: Option<i64>) -> bool {
    if n.traffic_type != "Guest" || n.is_system || n.state == NetworkState::Destroy {
        return false;
    }
    if n.is("L2") {
        return true;
    }
    let size = ranges.or_else(|| {
        let hosts = Subnet::of_cidr(n.cidr.as_deref()?).ok()?.hosts();
        // Its gateway is in use as long as there is a router, and reserved as long as there is none.
        i64::try_from(hosts.size()).ok()
    });
    size.is_some_and(|size| used < size)
}

/// "10.1.1.64 to 10.1.1.254": what guests don't get, where a part is reserved.
fn reserved(n: &Network) -> Option<String> {
    let whole = Subnet::of_cidr(n.network_cidr.as_deref()?).ok()?.hosts();
    let guests = parse_cidr(n.cidr.as_deref()?).ok()?;
    let (first, last) = (number(guests.network()), number(guests.broadcast()));
    let mut parts = Vec::new();
    if i64::from(whole.start) < first {
        parts.push(format!("{} to {}", ip(whole.start.into()), ip(first - 1)));
    }
    if last < i64::from(whole.end) {
        parts.push(format!("{} to {}", ip(last + 1), ip(whole.end.into())));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    // covers: NET-046
    #[test]
    fn the_reserved_range_is_what_guests_do_not_get() {
        let mut n = crate::network::access::tests::network();
        n.cidr = Some("10.1.1.0/26".into());
        assert_eq!(reserved(&n), None);
        n.network_cidr = Some("10.1.1.0/24".into());
        assert_eq!(reserved(&n).as_deref(), Some("10.1.1.64 to 10.1.1.254"));
        n.cidr = Some("10.1.1.64/26".into());
        assert_eq!(reserved(&n).as_deref(), Some("10.1.1.1 to 10.1.1.63, 10.1.1.128 to 10.1.1.254"));
    }
}
