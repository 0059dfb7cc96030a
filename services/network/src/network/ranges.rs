//! New address ranges: public ones, and those of shared networks.

use crate::address::{Range, Subnet, VlanRanges, number, parse_ip, tag_of};
use crate::store::networks::{self, Network};
use crate::store::physical::{self, Physical};
use crate::store::ranges::{self, DIRECT, PUBLIC, VlanRange};
use crate::store::zones::{self, Zone};
use crate::store::{ips, routers, traffic};
use crate::world::World;
use contract::ApiError;
use model::Owner;
use std::net::Ipv4Addr;
use store::{Error, Tx};

/// Most addresses of one public range: each has a row.
const MOST: u64 = 65_536;

/// What a request asks for.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Physical network, for public ranges.
    pub physical: Option<i64>,
    /// Gateway.
    pub gateway: Option<String>,
    /// Netmask.
    pub netmask: Option<String>,
    /// First address.
    pub start_ip: Option<String>,
    /// Last address.
    pub end_ip: Option<String>,
    /// VLAN.
    pub vlan: Option<String>,
    /// Account that it is dedicated to.
    pub dedicated: Option<Owner>,
    /// Whether only system VMs get its addresses.
    pub for_system_vms: bool,
}

/// A range that can be written.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its row.
    pub range: VlanRange,
    first_ip: i64,
    guest_vlans: VlanRanges,
}

/// Checks a wish for public addresses.
///
/// # Errors
/// 431 that says what is wrong with it.
pub async fn plan_public(world: &World, zone: &Zone, wish: &Wish) -> Result<Planned, ApiError> {
    let db = &world.node.db;
    let carriers = traffic::carriers(db, zone.id, "Public").await?;
    let id = match wish.physical {
        Some(id) if carriers.contains(&id) => id,
        Some(_) => {
            return Err(ApiError::param(
                "the physical network named by physicalnetworkid carries no Public traffic".to_owned(),
            ));
        }
        None => *carriers.first().ok_or_else(|| {
            ApiError::param(format!(
                "zone {} has no physical network with Public traffic: add it with addTrafficType",
                zone.name
            ))
        })?,
    };
    let physical = physical::one(db, id)
        .await?
        .ok_or_else(|| ApiError::param("the physical network has been removed".to_owned()))?;
    let public = networks::system(db, zone.id, "Public")
        .await?
        .ok_or_else(|| ApiError::internal(format!("zone {} has no public network", zone.name)))?;
    let subnet = match (&wish.gateway, &wish.netmask) {
        (Some(gateway), Some(netmask)) => Subnet::parse(gateway, netmask)?,
        _ => {
            return Err(ApiError::param("Gateway and netmask are required for a range of public addresses".to_owned()));
        }
    };
    let tag = wish.vlan.as_deref().map_or_else(|| Ok("untagged".to_owned()), tag_of)?;
    let range = span(&subnet, wish)?;
    if range.size() > MOST {
        return Err(ApiError::param(format!("{range} has {} addresses: give at most {MOST} at once", range.size())));
    }
    let guest_vlans = VlanRanges::stored(physical.vlan.as_deref());
    if tag.parse().is_ok_and(|vlan| guest_vlans.contains(vlan)) {
        return Err(ApiError::param(format!(
            "The VLAN tag {tag} is already being used for dynamic vlan allocation for the guest network in zone {}",
            zone.name
        )));
    }
    check_pods(world, zone, &range).await?;
    let first_ip = db.next_ids("ip_addresses", i64::try_from(range.size()).unwrap_or(1)).await?;
    let row = row(world, zone, &physical, &public, PUBLIC, tag, &subnet, range, wish).await?;
    Ok(Planned { range: row, first_ip, guest_vlans })
}

/// Checks a wish for more addresses of a shared network.
///
/// # Errors
/// 431 that says what is wrong with it.
pub async fn plan_direct(world: &World, zone: &Zone, network: &Network, wish: &Wish) -> Result<Planned, ApiError> {
    let db = &world.node.db;
    if !network.is("Shared") || network.is_system {
        return Err(ApiError::param(format!(
            "Can't add IP ranges to network {}: ranges belong to Shared networks",
            network.title()
        ))
        .with_entity(&network.uuid, "networkid"));
    }
    let physical = match network.physical_network_id {
        Some(id) => physical::one(db, id).await?,
        None => None,
    }
    .ok_or_else(|| ApiError::internal(format!("network {} has no physical network", network.uuid)))?;
    let (Some(own_gateway), Some(own_netmask)) = (&network.gateway, &network.netmask) else {
        return Err(ApiError::internal(format!("shared network {} has no subnet", network.uuid)));
    };
    let own = Subnet::parse(own_gateway, own_netmask)?;
    let gateway = wish.gateway.as_ref().unwrap_or(own_gateway);
    let netmask = wish.netmask.as_ref().unwrap_or(own_netmask);
    let subnet = Subnet::parse(gateway, netmask)?;
    if subnet != own {
        return Err(ApiError::unsupported(format!(
            "network {} has subnet {} with gateway {}: a second subnet on one network isn't there yet",
            network.title(),
            own.cidr(),
            own.gateway
        )));
    }
    let network_tag =
        network.broadcast_uri.as_deref().and_then(|u| u.rsplit('/').next()).unwrap_or("untagged").to_owned();
    if let Some(vlan) = &wish.vlan
        && tag_of(vlan)? != network_tag
    {
        return Err(ApiError::param(format!("VLAN {vlan} isn't that of network {}: {network_tag}", network.title())));
    }
    let range = span(&subnet, wish)?;
    let row = row(world, zone, &physical, network, DIRECT, network_tag, &subnet, range, wish).await?;
    Ok(Planned { range: row, first_ip: 0, guest_vlans: VlanRanges::default() })
}

/// Writes a range with its addresses.
///
/// # Errors
/// 431 when it meets another range.
pub async fn write(tx: &mut Tx, p: &Planned) -> Result<(), ApiError> {
    let r = &p.range;
    // The same request twice at once: the second waits here, and then sees the first one's range.
    if !networks::touch(tx, r.network_id).await? {
        return Err(ApiError::param("the network has been removed".to_owned()));
    }
    check_overlap(r, &ranges::of_zone(tx, r.zone_id).await?)?;
    ranges::insert(tx, r).await?;
    if r.kind == DIRECT {
        routers::raise_for_spec(tx, r.network_id).await?;
        return Ok(());
    }
    if let Ok(vlan) = r.vlan.parse::<i64>()
        && (p.guest_vlans.contains(vlan) || physical::vnet_taken(tx, r.physical_network_id, vlan).await?)
    {
        return Err(ApiError::param(format!("VLAN {vlan} carries a guest network: public addresses need another")));
    }
    match ips::insert_range(tx, r, p.first_ip).await {
        Err(Error::Unique { .. }) => Err(ApiError::param(format!(
            "The IP range {}-{} has addresses that the zone has already",
            r.start_ip, r.end_ip
        ))),
        other => Ok(other?),
    }
}

fn span(subnet: &Subnet, wish: &Wish) -> Result<Range, ApiError> {
    let start =
        wish.start_ip.as_ref().ok_or_else(|| ApiError::param("Start IP is required for an IP range".to_owned()))?;
    subnet.range(start, wish.end_ip.as_ref().unwrap_or(start))
}

#[allow(clippy::too_many_arguments)] // the parts of one row
async fn row(
    world: &World,
    zone: &Zone,
    physical: &Physical,
    network: &Network,
    kind: &str,
    vlan: String,
    subnet: &Subnet,
    range: Range,
    wish: &Wish,
) -> Result<VlanRange, ApiError> {
    Ok(VlanRange {
        id: world.node.db.next_id("vlan_ranges").await?,
        uuid: model::new_uuid(),
        zone_id: zone.id,
        physical_network_id: physical.id,
        network_id: network.id,
        kind: kind.to_owned(),
        vlan,
        gateway: subnet.gateway.to_string(),
        netmask: subnet.netmask(),
        start_ip: Ipv4Addr::from(range.start).to_string(),
        end_ip: Ipv4Addr::from(range.end).to_string(),
        range: (number(range.start.into()), number(range.end.into())),
        account_id: wish.dedicated.as_ref().map(|o| o.account_id),
        domain_id: wish.dedicated.as_ref().map(|o| o.domain_id),
        pod_id: None,
        for_system_vms: wish.for_system_vms,
    })
}

async fn check_pods(world: &World, zone: &Zone, range: &Range) -> Result<(), ApiError> {
    for (pod, start, end) in zones::pod_ranges(&world.node.db, zone.id).await? {
        let bounds = (parse_ip(&start, "start IP"), parse_ip(&end, "end IP"));
        let (Ok(start), Ok(end)) = bounds else { continue };
        let reserved = Range { start: start.into(), end: end.into() };
        if reserved.overlaps(range) {
            return Err(ApiError::param(format!(
                "The Start IP and endIP address range overlap with private IP :{reserved} of pod {pod}"
            )));
        }
    }
    Ok(())
}

/// One gateway a subnet, no subnet within another, no address twice (per zone, as 4.11).
fn check_overlap(new: &VlanRange, all: &[VlanRange]) -> Result<(), ApiError> {
    let subnet = Subnet::parse(&new.gateway, &new.netmask)?;
    for other in all {
        // Networks with VLANs of their own may use the same subnet.
        if (new.kind == DIRECT || other.kind == DIRECT) && other.network_id != new.network_id {
            continue;
        }
        let theirs = Subnet::parse(&other.gateway, &other.netmask)?;
        if !subnet.net.contains(&theirs.net) && !theirs.net.contains(&subnet.net) {
            continue;
        }
        if subnet != theirs || new.vlan != other.vlan {
            return Err(ApiError::param(format!(
                "The IP range with tag: {} in the zone has overlapped with the subnet {} with gateway {}. Please specify a \
                 different gateway/netmask",
                other.vlan,
                theirs.cidr(),
                theirs.gateway
            )));
        }
        if other.addresses().overlaps(&new.addresses()) {
            return Err(ApiError::param(format!(
                "The IP range already has IPs that overlap with the new range. Please specify a different start IP/end IP: {} is \
                 there",
                other.addresses()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(network: i64, kind: &str, vlan: &str, gateway: &str, netmask: &str, span: (&str, &str)) -> VlanRange {
        let subnet = Subnet::parse(gateway, netmask).unwrap();
        let r = subnet.range(span.0, span.1).unwrap();
        VlanRange {
            network_id: network,
            kind: kind.into(),
            vlan: vlan.into(),
            gateway: gateway.into(),
            netmask: netmask.into(),
            range: (r.start.into(), r.end.into()),
            ..VlanRange::default()
        }
    }

    // covers: NET-086, NET-087
    #[test]
    fn ranges_do_not_meet() {
        let mask = "255.255.255.0";
        let there = [range(1, PUBLIC, "50", "10.0.0.1", mask, ("10.0.0.10", "10.0.0.20"))];
        let check = |vlan: &str, gateway: &str, mask: &str, span: (&str, &str)| {
            check_overlap(&range(1, PUBLIC, vlan, gateway, mask, span), &there)
        };
        assert!(check("50", "10.0.0.1", mask, ("10.0.0.21", "10.0.0.30")).is_ok());
        assert!(check("50", "10.0.0.1", mask, ("10.0.0.15", "10.0.0.25")).is_err());
        assert!(check("50", "10.0.0.2", mask, ("10.0.0.21", "10.0.0.30")).is_err());
        assert!(check("51", "10.0.0.1", mask, ("10.0.0.21", "10.0.0.30")).is_err());
        assert!(check("50", "10.0.0.1", "255.255.255.128", ("10.0.0.21", "10.0.0.30")).is_err());
        assert!(check("50", "10.0.1.1", mask, ("10.0.1.10", "10.0.1.20")).is_ok());
        let shared = range(2, DIRECT, "77", "10.0.0.1", mask, ("10.0.0.10", "10.0.0.20"));
        assert!(check_overlap(&shared, &there).is_ok());
        assert!(
            check_overlap(&shared, &[range(2, DIRECT, "77", "10.0.0.1", mask, ("10.0.0.20", "10.0.0.22"))]).is_err()
        );
    }
}
