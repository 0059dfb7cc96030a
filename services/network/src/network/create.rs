//! Making a network: what a request may ask for, and the rows that come of it.

use crate::address::{Range, Subnet, VlanRanges, is_private, number, tag_of, uri_of};
use crate::catalogue::Offering;
use crate::network::implement::check_provider;
use crate::store::networks::{self, Network};
use crate::store::physical::{self, Physical};
use crate::store::ranges::{self, DIRECT, VlanRange};
use crate::store::traffic;
use crate::store::zones::{self, Zone};
use crate::world::{LIMIT_NETWORK, World};
use config::{Scope, keys};
use contract::ApiError;
use contract::api::Caller;
use events::{EventRecord, EventState, Record};
use model::Owner;
use model::state::NetworkState;
use store::{Error, Tx};

/// What a request asks for.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Name.
    pub name: String,
    /// Text for users.
    pub display_text: String,
    /// Owner; none: the caller.
    pub owner: Option<Owner>,
    /// Physical network.
    pub physical: Option<i64>,
    /// Gateway.
    pub gateway: Option<String>,
    /// Netmask.
    pub netmask: Option<String>,
    /// First guest address.
    pub start_ip: Option<String>,
    /// Last guest address.
    pub end_ip: Option<String>,
    /// DNS domain.
    pub network_domain: Option<String>,
    /// Account, Domain.
    pub acl_type: Option<String>,
    /// Domain that may use it, with its path.
    pub domain: Option<(i64, String)>,
    /// Whether subdomains may too.
    pub subdomain_access: Option<bool>,
    /// Id in another system.
    pub external_id: Option<String>,
    /// Whether the owner sees it.
    pub display: Option<bool>,
    /// VLAN.
    pub vlan: Option<String>,
    /// Whether the VLAN may be in use.
    pub bypass_vlan_check: bool,
    /// Something that only one living network has.
    pub unique: Option<String>,
}

/// A network that can be made.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its row.
    pub network: Network,
    range: Option<VlanRange>,
    slot: i64,
    unique: Option<String>,
    /// Whether it counts against its owner's limit.
    counts: bool,
}

/// Makes a network for the system's own use of it, without a command.
///
/// # Errors
/// As [`plan`] and [`write`].
pub async fn create(
    world: &World,
    caller: &Caller,
    zone: &Zone,
    offering: &Offering,
    wish: Wish,
) -> Result<Network, ApiError> {
    let planned = plan(world, caller, zone, offering, wish).await?;
    reserve(world, caller, &planned).await?;
    let written = store::tx!(world.node.db, "create-network", |tx| write(tx, caller, &planned).await).await;
    if let Err(error) = written {
        give_back(world, caller, &planned).await;
        return Err(error);
    }
    Ok(planned.network)
}

/// Counts the network against its owner's limit.
///
/// # Errors
/// 535 when it is reached.
pub async fn reserve(world: &World, caller: &Caller, p: &Planned) -> Result<(), ApiError> {
    if !p.counts {
        return Ok(());
    }
    world.reserve(caller, &limit_key(&p.network), p.network.owner.account_id, LIMIT_NETWORK).await
}

/// Undoes [`reserve`].
pub async fn give_back(world: &World, caller: &Caller, p: &Planned) {
    if p.counts {
        world.release(caller, &limit_key(&p.network)).await;
    }
}

/// The key of a network's reservation with identity.
pub fn limit_key(network: &Network) -> String {
    format!("network:{}", network.uuid)
}

/// Whether a network counts against its owner's limit.
pub fn counts(network: &Network) -> bool {
    !network.is("Shared") && !network.is_system
}

/// Checks a wish.
///
/// # Errors
/// 431 and 531 that say what is wrong with it.
pub async fn plan(
    world: &World,
    caller: &Caller,
    zone: &Zone,
    offering: &Offering,
    wish: Wish,
) -> Result<Planned, ApiError> {
    let db = &world.node.db;
    check_zone(caller, zone, wish.owner.as_ref())?;
    check_offering(offering)?;
    let shared = offering.is("Shared");
    if shared && !caller.is_admin() {
        return Err(ApiError::permission("Only Admins can create network with guest type Shared".to_owned()));
    }
    let scope = acl(world, caller, offering, &wish)?;
    let physical = choose_physical(world, zone, offering, wish.physical).await?;
    if offering.needs_router() {
        check_provider(world, &physical).await?;
    }
    let id = db.next_id("networks").await?;
    let (vnet, uri) = vlan(offering, &physical, &wish)?;
    let subnet = subnet(world, caller, zone, offering, &wish)?;
    let range = range(offering, subnet.as_ref(), &wish)?;
    let domain = network_domain(world, zone, offering, &wish, &scope).await?;
    let network = Network {
        id,
        uuid: model::new_uuid(),
        name: Some(wish.name.clone()),
        display_text: Some(wish.display_text.clone()),
        zone_id: zone.id,
        physical_network_id: Some(physical.id),
        offering_id: offering.id,
        traffic_type: "Guest".into(),
        guest_type: offering.guest_type.clone(),
        broadcast_type: if physical.is_vxlan() { "Vxlan" } else { "Vlan" }.into(),
        specified_vlan: uri.is_some(),
        broadcast_uri: uri,
        vnet,
        gateway: subnet.map(|s| s.gateway.to_string()),
        netmask: subnet.map(|s| s.netmask()),
        cidr: subnet.map(|s| s.cidr()),
        network_cidr: None,
        network_domain: domain,
        external_id: wish.external_id.clone(),
        state: NetworkState::Allocated,
        acl_type: Some(scope.acl.into()),
        subdomain_access: scope.subdomains,
        is_public: scope.everybody,
        is_system: false,
        display_network: wish.display.unwrap_or(true),
        restart_required: false,
        owner: scope.owner,
        generation: 0,
    };
    let range = match (range, subnet) {
        (Some(range), Some(subnet)) => Some(vlan_range(world, &network, &physical, subnet, range).await?),
        _ => None,
    };
    let counts = counts(&network);
    let slot = if wish.bypass_vlan_check { id } else { 0 };
    Ok(Planned { network, range, slot, unique: wish.unique, counts })
}

/// Writes what was planned, with its event.
///
/// # Errors
/// 431 when another network has the VLAN meanwhile.
pub async fn write(tx: &mut Tx, caller: &Caller, p: &Planned) -> Result<(), ApiError> {
    let n = &p.network;
    if let (Some(vnet), Some(physical)) = (n.vnet, n.physical_network_id) {
        check_vlan_free(tx, physical, vnet, p.slot).await?;
        match physical::take_vnet(tx, physical, vnet, p.slot, n.id).await {
            Err(Error::Unique { .. }) => return Err(vlan_in_use(vnet)),
            other => other?,
        }
    }
    match networks::insert(tx, n, p.unique.clone()).await {
        Err(Error::Unique { .. }) => {
            return Err(ApiError::concurrent(format!("network {} is being made already", n.title())));
        }
        other => other?,
    }
    if let Some(range) = &p.range {
        ranges::insert(tx, range).await?;
    }
    let text = format!("Creating network {}", n.title());
    let event = EventRecord::new(caller, "NETWORK.CREATE", EventState::Completed, text);
    events::record(tx, &[Record::Event(event.about("Network", &n.uuid).owned_by(&n.owner))]).await?;
    Ok(())
}

fn check_zone(caller: &Caller, zone: &Zone, owner: Option<&Owner>) -> Result<(), ApiError> {
    if zone.is_basic() {
        return Err(ApiError::unsupported(format!(
            "zone {} has Basic networking, which isn't there yet: networks can be made in zones of type Advanced",
            zone.name
        )));
    }
    if !zone.enabled && !caller.is_root_admin() {
        return Err(ApiError::permission(format!(
            "Cannot perform this operation, Zone is currently disabled: {}",
            zone.name
        )));
    }
    let path = owner.map_or(caller.domain_path.as_str(), |o| o.domain_path.as_str());
    if zone.domain_id.is_some_and(|d| !path.contains(&format!("/{d}/"))) && !caller.is_root_admin() {
        return Err(ApiError::permission(format!("zone {} is dedicated to another domain", zone.name)));
    }
    Ok(())
}

fn check_offering(offering: &Offering) -> Result<(), ApiError> {
    if offering.system_only || offering.traffic_type != "Guest" {
        return Err(ApiError::param(format!(
            "Unable to find network offering {}: it is for the system's own networks",
            offering.name
        )));
    }
    if offering.state != "Enabled" {
        return Err(ApiError::param(format!(
            "Can't use specified network offering {} as its state is not Enabled",
            offering.name
        ))
        .with_entity(&offering.uuid, "networkofferingid"));
    }
    offering.check_supported()
}

struct Acl {
    acl: &'static str,
    owner: Owner,
    subdomains: bool,
    everybody: bool,
}

// 4.11's rules: who may use the network, and who owns it then.
fn acl(world: &World, caller: &Caller, offering: &Offering, wish: &Wish) -> Result<Acl, ApiError> {
    let shared = offering.is("Shared");
    let by_domain = match wish.acl_type.as_deref() {
        None => shared && wish.owner.is_none(),
        Some(word) if word.eq_ignore_ascii_case("Account") => false,
        Some(word) if word.eq_ignore_ascii_case("Domain") => true,
        Some(word) => {
            return Err(ApiError::param(format!(
                "Incorrect aclType specified: {word}. Supported are account and domain"
            )));
        }
    };
    if !by_domain {
        if wish.subdomain_access.is_some() {
            return Err(ApiError::param(
                "Parameter subDomainAccess can be specified only with aclType=Domain".to_owned(),
            ));
        }
        let owner = wish.owner.clone().unwrap_or_else(|| Owner::caller(caller));
        return Ok(Acl { acl: "Account", owner, subdomains: false, everybody: false });
    }
    if !caller.is_admin() {
        return Err(ApiError::permission("Only admin can create networks with aclType=Domain".to_owned()));
    }
    if !shared {
        return Err(ApiError::param("Only Shared networks can have aclType=Domain".to_owned()));
    }
    // A network of a domain belongs to the system's own account, in that domain.
    let subdomains =
        wish.subdomain_access.unwrap_or_else(|| world.node.settings.get(keys::ALLOW_SUBDOMAIN_NETWORK_ACCESS));
    match &wish.domain {
        Some((id, path)) => Ok(Acl {
            acl: "Domain",
            everybody: path == "/1/" && subdomains,
            owner: Owner { account_id: 1, domain_id: *id, domain_path: path.clone() },
            subdomains,
        }),
        None if caller.is_root_admin() => Ok(Acl {
            acl: "Domain",
            everybody: true,
            owner: Owner { account_id: 1, domain_id: 1, domain_path: "/1/".into() },
            subdomains: true,
        }),
        None => Err(ApiError::permission(
            "Only a root admin can create a network for all domains: give a domainid".to_owned(),
        )),
    }
}

/// The physical network that carries a new guest network: the one named, or the only one that fits.
///
/// # Errors
/// 431 when none or several fit.
pub async fn choose_physical(
    world: &World,
    zone: &Zone,
    offering: &Offering,
    named: Option<i64>,
) -> Result<Physical, ApiError> {
    let db = &world.node.db;
    let carriers = traffic::carriers(db, zone.id, "Guest").await?;
    let mut fitting: Vec<Physical> =
        physical::of_zone(db, zone.id).await?.into_iter().filter(|p| carriers.contains(&p.id)).collect();
    if let Some(id) = named {
        fitting.retain(|p| p.id == id);
        if fitting.is_empty() {
            return Err(ApiError::param(format!(
                "the physical network named by physicalnetworkid isn't one of zone {} that carries Guest traffic",
                zone.name
            )));
        }
    } else if let Some(tag) = offering.tags.as_deref().filter(|t| !t.is_empty()) {
        fitting.retain(|p| p.tags.split(',').any(|t| t.trim().eq_ignore_ascii_case(tag)));
    }
    match fitting.as_slice() {
        [] => Err(ApiError::param(format!("Unable to find physical network which match the tags and carries Guest traffic in zone {}", zone.name))),
        [one] if one.state != "Enabled" => Err(ApiError::param(format!(
            "Physical network {} is in incorrect state to create networks in it: {}; enable it with updatePhysicalNetwork",
            one.name, one.state
        ))
        .with_entity(&one.uuid, "physicalnetworkid")),
        [one] => Ok(one.clone()),
        _ => Err(ApiError::param(format!(
            "More than one physical networks exist in zone {}: give a physicalnetworkid, or tags in the network offering",
            zone.name
        ))),
    }
}

fn vlan(offering: &Offering, physical: &Physical, wish: &Wish) -> Result<(Option<i64>, Option<String>), ApiError> {
    let Some(text) = &wish.vlan else {
        if offering.specify_vlan {
            return Err(ApiError::param(format!(
                "Vlan is required to be specified when network offering {} has specifyVlan=true",
                offering.name
            )));
        }
        return Ok((None, None));
    };
    if !offering.specify_vlan {
        return Err(ApiError::param("Can't specify vlan; corresponding offering says specifyVlan=false".to_owned()));
    }
    let tag = tag_of(text)?;
    let uri = uri_of(physical.scheme(), &tag);
    let Ok(number) = tag.parse::<i64>() else { return Ok((None, Some(uri))) };
    if !physical.is_vxlan() && number > 4095 {
        return Err(ApiError::param(format!("Invalid vlan: {text}. VLANs are 0 to 4095")));
    }
    if !wish.bypass_vlan_check && VlanRanges::stored(physical.vlan.as_deref()).contains(number) {
        return Err(ApiError::param(format!(
            "The VLAN tag {number} to use for the new network is already being used for dynamic vlan allocation for the guest \
             network in physical network {}",
            physical.name
        )));
    }
    Ok((Some(number), Some(uri)))
}

fn vlan_in_use(vlan: i64) -> ApiError {
    ApiError::param(format!("Network with vlan {vlan} already exists on the physical network"))
}

async fn check_vlan_free(tx: &mut Tx, physical: i64, vlan: i64, slot: i64) -> Result<(), ApiError> {
    if slot != 0 {
        return Ok(());
    }
    if ranges::carries_public(tx, physical, vlan).await? {
        return Err(ApiError::param(format!("VLAN {vlan} of the physical network carries public addresses")));
    }
    if physical::vnet_taken(tx, physical, vlan).await? {
        return Err(vlan_in_use(vlan));
    }
    Ok(())
}

fn subnet(
    world: &World,
    caller: &Caller,
    zone: &Zone,
    offering: &Offering,
    wish: &Wish,
) -> Result<Option<Subnet>, ApiError> {
    let given = match (&wish.gateway, &wish.netmask) {
        (Some(gateway), Some(netmask)) => Some(Subnet::parse(gateway, netmask)?),
        (None, None) => None,
        _ => return Err(ApiError::param("gateway and netmask should be defined together".to_owned())),
    };
    if offering.is("L2") {
        return match given {
            Some(_) => Err(ApiError::param("L2 networks have no gateway: leave gateway and netmask out".to_owned())),
            None => Ok(None),
        };
    }
    if offering.specify_ip_ranges || offering.is("Shared") {
        return match given {
            Some(subnet) => Ok(Some(subnet)),
            None => Err(ApiError::param(
                "StartIp/endIp/gateway/netmask are required when creating a network of a network offering with specifyIpRanges=true"
                    .to_owned(),
            )),
        };
    }
    let subnet = match given {
        Some(subnet) => subnet,
        None => Subnet::of_cidr(zone.guest_cidr.as_deref().unwrap_or("10.1.1.0/24"))?,
    };
    if !is_private(&subnet.net) {
        return Err(ApiError::param(format!("Virtual Guest Cidr {} is not RFC 1918 or 6598 compliant", subnet.cidr())));
    }
    let limit = world.node.settings.get(keys::NETWORK_GUEST_CIDR_LIMIT);
    if !caller.is_root_admin() && i64::from(subnet.net.prefix_len()) < limit {
        return Err(ApiError::param(format!("Cidr size can't be less than {limit}: {} is larger", subnet.cidr())));
    }
    Ok(Some(subnet))
}

fn range(offering: &Offering, subnet: Option<&Subnet>, wish: &Wish) -> Result<Option<Range>, ApiError> {
    let Some(start) = &wish.start_ip else {
        if wish.end_ip.is_some() {
            return Err(ApiError::param("start IP is required when end IP is given".to_owned()));
        }
        if offering.specify_ip_ranges {
            return Err(ApiError::param(
                "StartIp/endIp/gateway/netmask are required when creating a network of a network offering with specifyIpRanges=true"
                    .to_owned(),
            ));
        }
        return Ok(None);
    };
    let Some(subnet) = subnet.filter(|_| wish.gateway.is_some()) else {
        return Err(ApiError::param("gateway and netmask are required when an IP range is given".to_owned()));
    };
    if !offering.specify_ip_ranges {
        return Err(ApiError::param(format!(
            "Network offering {} can't be used with an IP range: its specifyIpRanges is false",
            offering.name
        )));
    }
    subnet.range(start, wish.end_ip.as_ref().unwrap_or(start)).map(Some)
}

async fn network_domain(
    world: &World,
    zone: &Zone,
    offering: &Offering,
    wish: &Wish,
    scope: &Acl,
) -> Result<Option<String>, ApiError> {
    if !offering.has("Dns") {
        return match &wish.network_domain {
            Some(_) => Err(ApiError::param(format!(
                "Domain name change is not supported by network offering {}: it has no Dns service",
                offering.name
            ))),
            None => Ok(None),
        };
    }
    if let Some(domain) = wish.network_domain.as_ref().filter(|d| !d.is_empty()) {
        check_domain(domain)?;
        return Ok(Some(domain.clone()));
    }
    let (of_account, of_domain) =
        zones::network_domains(&world.node.db, scope.owner.account_id, scope.owner.domain_id).await?;
    let by_domain = scope.acl == "Domain";
    let set = of_account
        .filter(|_| !by_domain)
        .or(of_domain)
        .or_else(|| zone.network_domain.clone())
        .filter(|d| !d.is_empty());
    Ok(Some(set.unwrap_or_else(|| {
        let number = if by_domain { scope.owner.domain_id } else { scope.owner.account_id };
        let suffix = world.node.settings.get_in(keys::GUEST_DOMAIN_SUFFIX, Scope::Zone(zone.id));
        format!("cs{number:x}{suffix}")
    })))
}

/// Checks a DNS domain that a request gives.
///
/// # Errors
/// 431 when it isn't one.
pub fn check_domain(domain: &str) -> Result<(), ApiError> {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if domain.len() <= 190 && domain.split('.').all(label) {
        return Ok(());
    }
    Err(ApiError::param(format!(
        "Invalid network domain {domain}. Total length shouldn't exceed 190 chars. Each domain label must be between 1 and 63 \
         characters long, can contain ASCII letters 'a' through 'z', the digits '0' through '9', and the hyphen ('-'); can't \
         start or end with \"-\""
    )))
}

async fn vlan_range(
    world: &World,
    network: &Network,
    physical: &Physical,
    subnet: Subnet,
    range: Range,
) -> Result<VlanRange, ApiError> {
    let tag = network
        .broadcast_uri
        .as_deref()
        .map_or_else(|| "untagged".to_owned(), |uri| uri.rsplit('/').next().unwrap_or("untagged").to_owned());
    Ok(VlanRange {
        id: world.node.db.next_id("vlan_ranges").await?,
        uuid: model::new_uuid(),
        zone_id: network.zone_id,
        physical_network_id: physical.id,
        network_id: network.id,
        kind: DIRECT.into(),
        vlan: tag,
        gateway: subnet.gateway.to_string(),
        netmask: subnet.netmask(),
        start_ip: std::net::Ipv4Addr::from(range.start).to_string(),
        end_ip: std::net::Ipv4Addr::from(range.end).to_string(),
        range: (number(range.start.into()), number(range.end.into())),
        account_id: None,
        domain_id: None,
        pod_id: None,
        for_system_vms: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_domains_are_checked() {
        for good in ["corp.example", "cs2cloud.internal", "a", "xn--a.b-c.d1"] {
            assert!(check_domain(good).is_ok(), "{good}");
        }
        let long = format!("{}.example", "a".repeat(64));
        let total = vec!["abcdefgh"; 30].join(".");
        for bad in ["-bad", "bad-", "a..b", "", "ä.example", "a_b", long.as_str(), total.as_str(), "a b"] {
            assert_eq!(check_domain(bad).unwrap_err().code, 431, "{bad}");
        }
    }
}
