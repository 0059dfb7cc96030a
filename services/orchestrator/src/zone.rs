//! Zones: what may be created, changed, deleted and seen.

use crate::dedication::Kind;
use crate::fact;
use crate::reach::{self, allocation_state};
use crate::store::dedications;
use crate::store::details::{self, Of};
use crate::store::remains::{self, Place};
use crate::store::zones::{self as rows, Visible, ZoneFilter, ZoneRow};
use crate::store::{Changes, remove, touch};
use crate::subnet;
use crate::world::World;
use ::store::Tx;
use contract::ApiError;
use contract::api::{Caller, RoleType, Success};
use contract_infra::{
    Capacity, CreateZoneRequest, DeleteZoneRequest, ListZonesRequest, ListZonesResponse, UpdateZoneRequest, Zone,
};
use model::state::AllocationState;
use rpc::Cx;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};

const NAME_TAKEN: &str = "A zone with that name already exists. Please specify a unique zone name.";

/// Creates a zone; it takes nothing until it is enabled.
pub async fn create(world: &World, cx: &Cx, r: CreateZoneRequest) -> Result<Zone, ApiError> {
    let zone = checked(world, cx, r).await?;
    let name = zone.name.clone();
    jobs::mutate!(world.node.db, cx.caller, "create-zone", |tx| {
        if !rows::insert(tx, &zone).await? {
            return Err(ApiError::param(NAME_TAKEN));
        }
        let what = format!("creating zone. Zone Name: {name}");
        fact::completed(tx, &cx.caller, "ZONE.CREATE", &what, ("Zone", &zone.uuid)).await?;
        shown_in(tx, zone.id, &cx.caller).await
    })
    .await
}

async fn checked(world: &World, cx: &Cx, r: CreateZoneRequest) -> Result<ZoneRow, ApiError> {
    let network_type = match r.network_type() {
        t if t.eq_ignore_ascii_case("Advanced") => "Advanced",
        t if t.eq_ignore_ascii_case("Basic") => "Basic",
        _ => return Err(ApiError::param("Invalid zone type; only Advanced and Basic values are supported")),
    };
    let name = zone_name(r.name())?;
    let guest_cidr = r.guest_cidr_address.clone().filter(|c| !c.is_empty());
    if let Some(cidr) = &guest_cidr {
        if network_type == "Basic" {
            return Err(ApiError::param("guestCidrAddress parameter is not supported for Basic zone"));
        }
        check_guest_cidr(cidr)?;
    }
    let domain = cx.refs.living("domainid")?;
    let zone = ZoneRow {
        id: world.node.db.next_id("zone").await?,
        uuid: model::new_uuid(),
        name,
        description: None,
        network_type: network_type.to_owned(),
        guest_cidr: guest_cidr.or_else(|| (network_type == "Advanced").then(|| "10.1.1.0/24".to_owned())),
        dns: [given(r.dns1), given(r.dns2)],
        ip6_dns: [given(r.ip6_dns1), given(r.ip6_dns2)],
        internal_dns: [given(r.internal_dns1), given(r.internal_dns2)],
        network_domain: given(r.domain),
        dhcp_provider: "VirtualRouter".to_owned(),
        dns_search_order: None,
        security_groups: network_type == "Basic",
        local_storage: r.local_storage_enabled.unwrap_or(false),
        allocation_state: allocation_state(r.allocation_state.as_deref())?.unwrap_or(AllocationState::Disabled),
        domain_id: domain.map(|d| d.id),
        domain_uuid: None,
        domain_name: None,
        zone_token: model::new_uuid(),
    };
    check_servers(&zone.dns, &zone.internal_dns, &zone.ip6_dns)?;
    if let Some(domain) = &zone.network_domain {
        check_network_domain(domain)?;
    }
    Ok(zone)
}

/// Changes a zone.
pub async fn update(world: &World, cx: &Cx, r: UpdateZoneRequest) -> Result<Zone, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    let state = allocation_state(r.allocation_state.as_deref())?;
    let name = r.name.as_deref().filter(|n| !n.is_empty()).map(zone_name).transpose()?;
    check_servers(
        &[given(r.dns1.clone()), given(r.dns2.clone())],
        &[given(r.internal_dns1.clone()), given(r.internal_dns2.clone())],
        &[given(r.ip6_dns1.clone()), given(r.ip6_dns2.clone())],
    )?;
    if let Some(domain) = r.domain.as_deref().filter(|d| !d.is_empty()) {
        check_network_domain(domain)?;
    }
    let details: BTreeMap<String, String> = r.details.clone().into_iter().collect();
    let zone = jobs::mutate!(world.node.db, cx.caller, "update-zone", |tx| {
        let Some(zone) = rows::find(&mut *tx, id).await? else { return Err(gone()) };
        if let Some(cidr) = r.guest_cidr_address.as_deref().filter(|c| !c.is_empty()) {
            if zone.network_type == "Basic" {
                return Err(ApiError::param("guestCidrAddress parameter is not supported for Basic zone"));
            }
            check_guest_cidr(cidr)?;
        }
        if state == Some(AllocationState::Enabled) {
            check_traffic(tx, &zone).await?;
        }
        if r.is_public == Some(false) && zone.domain_id.is_none() {
            return Err(ApiError::param(
                "A public zone is made private by reserving it for a domain: give domainid when creating it.",
            ));
        }
        let mut changes = Changes::default()
            .set_if("dns1", given(r.dns1.clone()))
            .set_if("internal_dns1", given(r.internal_dns1.clone()))
            .set_if("guest_cidr", given(r.guest_cidr_address.clone()))
            .set_if("allocation_state", state)
            .set_if("dhcp_provider", given(r.dhcp_provider.clone()))
            .set_if("local_storage", r.local_storage_enabled);
        // These may be cleared by an empty value.
        let optional = [
            ("dns2", &r.dns2),
            ("ip6dns1", &r.ip6_dns1),
            ("ip6dns2", &r.ip6_dns2),
            ("internal_dns2", &r.internal_dns2),
            ("network_domain", &r.domain),
        ];
        for (column, value) in optional {
            if let Some(value) = value {
                changes = changes.set(column, given(Some(value.clone())));
            }
        }
        if !r.dns_search_order.is_empty() {
            changes = changes.set("dns_search_order", r.dns_search_order.join(","));
        }
        if r.is_public == Some(true) {
            if dedications::of(&mut *tx, Kind::Zone, id).await?.is_some() {
                return Err(ApiError::param(
                    "The zone is dedicated: it is made public by releasing it (releaseDedicatedZone)",
                ));
            }
            changes = changes.set("domain_id", None::<i64>);
        }
        match rows::update(tx, id, rows::rename(changes, name.as_deref())).await? {
            None => return Err(ApiError::param(NAME_TAKEN)),
            Some(false) => return Err(gone()),
            Some(true) => {}
        }
        details::set(tx, Of::Zone, id, &details).await?;
        let what = format!("editing zone. Zone Id: {id}");
        fact::completed(tx, &cx.caller, "ZONE.EDIT", &what, ("Zone", &zone.uuid)).await?;
        shown_in(tx, id, &cx.caller).await
    })
    .await?;
    world.hosts_changed();
    Ok(zone)
}

/// Deletes a zone that is empty.
pub async fn delete(world: &World, cx: &Cx, _: DeleteZoneRequest) -> Result<Success, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    let uuid = cx.refs.one("id").map(|e| e.uuid.clone()).unwrap_or_default();
    jobs::mutate!(world.node.db, cx.caller, "delete-zone", |tx| {
        // First, so that what is put into it meanwhile is waited for and then seen.
        if !touch(tx, "zones", id).await? {
            return Err(gone());
        }
        if let Some(why) = remains::first(tx, Place::Zone(id)).await? {
            return Err(ApiError::failed(format!("The zone cannot be deleted because {why}")));
        }
        remove(tx, "zones", id).await?;
        let what = format!("deleting zone. Zone Id: {id}");
        fact::completed(tx, &cx.caller, "ZONE.DELETE", &what, ("Zone", &uuid)).await?;
        Ok(Success { success: true, ..Success::default() })
    })
    .await
}

/// Lists the zones that the caller may see.
pub async fn list(world: &World, cx: &Cx, r: ListZonesRequest) -> Result<ListZonesResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let caller = &cx.caller;
    let domain = cx.refs.living("domainid")?;
    let visible = (!caller.is_root_admin())
        .then(|| Visible { line: reach::line(&caller.domain_path), below: reach::below(caller) });
    let filter = ZoneFilter {
        id: cx.refs.one("id").map(|e| e.id),
        name: given(r.name),
        network_type: given(r.network_type),
        domain: domain.map(|d| d.id),
        keyword: given(r.keyword),
        visible,
        used_by: (r.available == Some(false)).then_some(caller.account_id),
    };
    let db = &world.node.db;
    if !r.tags.is_empty() {
        // Zones can't be tagged: none has such a tag.
        return Ok(ListZonesResponse { count: Some(0), zone: Vec::new() });
    }
    let (found, count) = rows::list(db, &filter, page).await?;
    let ids: Vec<i64> = found.iter().map(|z| z.id).collect();
    let mut details = details::read(db, Of::Zone, &ids).await?;
    let mut capacity: HashMap<i64, Vec<Capacity>> = if r.show_capacities == Some(true) && caller.is_root_admin() {
        crate::capacity::of_zones(db, &ids).await?
    } else {
        HashMap::new()
    };
    let zone = found
        .into_iter()
        .map(|z| {
            let (details, capacity) = (details.remove(&z.id), capacity.remove(&z.id));
            message(z, details.unwrap_or_default(), capacity.unwrap_or_default(), caller)
        })
        .collect();
    Ok(ListZonesResponse { count: Some(count), zone })
}

/// A living zone, for what is put into it.
///
/// # Errors
/// 431 when it has been removed; 531 when it is disabled and the caller no root admin.
pub async fn usable(tx: &mut Tx, id: i64, caller: &Caller) -> Result<ZoneRow, ApiError> {
    if !touch(tx, "zones", id).await? {
        return Err(gone());
    }
    let zone = rows::find(&mut *tx, id).await?.ok_or_else(gone)?;
    if zone.allocation_state == AllocationState::Disabled && !caller.is_root_admin() {
        return Err(ApiError::permission(format!(
            "Cannot perform this operation, Zone is currently disabled: {}",
            zone.name
        )));
    }
    Ok(zone)
}

fn gone() -> ApiError {
    ApiError::param("unable to find zone by id: it has been removed")
}

async fn shown_in(tx: &mut Tx, id: i64, caller: &Caller) -> Result<Zone, ApiError> {
    let zone = rows::find(&mut *tx, id).await?.ok_or_else(gone)?;
    let details = details::read(&mut *tx, Of::Zone, &[id]).await?.remove(&id).unwrap_or_default();
    Ok(message(zone, details, Vec::new(), caller))
}

fn message(z: ZoneRow, details: BTreeMap<String, String>, capacity: Vec<Capacity>, caller: &Caller) -> Zone {
    let [dns1, dns2] = z.dns;
    let [ip6_dns1, ip6_dns2] = z.ip6_dns;
    let [internal_dns1, internal_dns2] = z.internal_dns;
    let mut zone = Zone {
        id: Some(z.uuid),
        name: Some(z.name),
        description: z.description,
        domain: z.network_domain,
        domain_id: z.domain_uuid,
        domain_name: z.domain_name,
        network_type: Some(z.network_type),
        security_groups_enabled: Some(z.security_groups),
        allocation_state: Some(z.allocation_state.to_string()),
        dhcp_provider: Some(z.dhcp_provider),
        local_storage_enabled: Some(z.local_storage),
        capacity,
        resource_details: details.into_iter().collect(),
        ..Zone::default()
    };
    // How a zone is wired is for those who run it.
    if matches!(caller.role(), RoleType::Admin | RoleType::ResourceAdmin) {
        zone.dns1 = dns1;
        zone.dns2 = dns2;
        zone.ip6_dns1 = ip6_dns1;
        zone.ip6_dns2 = ip6_dns2;
        zone.internal_dns1 = internal_dns1;
        zone.internal_dns2 = internal_dns2;
        zone.guest_cidr_address = z.guest_cidr;
        zone.zone_token = Some(z.zone_token);
    }
    zone
}

fn given(value: Option<String>) -> Option<String> {
    value.map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
}

fn zone_name(name: &str) -> Result<String, ApiError> {
    let name = name.trim();
    if name.is_empty() {
        return Err(ApiError::param("Please specify a name for the zone."));
    }
    Ok(name.to_owned())
}

fn check_guest_cidr(cidr: &str) -> Result<(), ApiError> {
    if subnet::is_guest_cidr(cidr) { Ok(()) } else { Err(ApiError::param("Please enter a valid guest cidr")) }
}

fn check_servers(dns: &[Option<String>], internal: &[Option<String>], ip6: &[Option<String>]) -> Result<(), ApiError> {
    for (servers, what) in [(dns, "DNS"), (internal, "internal DNS")] {
        for (i, server) in servers.iter().enumerate() {
            if server.as_ref().is_some_and(|s| s.parse::<Ipv4Addr>().is_err()) {
                return Err(ApiError::param(format!("Please enter a valid IP address for {what}{}", i + 1)));
            }
        }
    }
    for (i, server) in ip6.iter().enumerate() {
        if server.as_ref().is_some_and(|s| s.parse::<Ipv6Addr>().is_err()) {
            return Err(ApiError::param(format!("Please enter a valid IPv6 address for IPv6 DNS{}", i + 1)));
        }
    }
    Ok(())
}

fn check_network_domain(domain: &str) -> Result<(), ApiError> {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if domain.len() <= 190 && domain.split('.').all(label) {
        return Ok(());
    }
    Err(ApiError::param(
        "Invalid network domain. Total length shouldn't exceed 190 chars. Each domain label must be between 1 and 63 characters \
         long, can contain ASCII letters 'a' through 'z', the digits '0' through '9', and the hyphen ('-'); can't start or end \
         with \"-\"",
    ))
}

/// A zone can be enabled once its networks carry what it needs.
async fn check_traffic(tx: &mut Tx, zone: &ZoneRow) -> Result<(), ApiError> {
    let has = rows::traffic_types(tx, zone.id).await?;
    let needs: &[&str] =
        if zone.network_type == "Advanced" { &["Management", "Public"] } else { &["Management", "Guest"] };
    for kind in needs {
        if !has.iter().any(|t| t == kind) {
            return Err(ApiError::param(format!(
                "Cannot enable this Zone since: Unable to find the default physical network with traffic={kind} in zone id={}",
                zone.id
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_domains_are_checked() {
        let some = |t: &str| Some(t.to_owned());
        assert!(
            check_servers(&[some("8.8.8.8"), None], &[some("10.0.0.1"), None], &[some("2001:db8::1"), None]).is_ok()
        );
        let text = |dns: &str, internal: &str| {
            check_servers(&[some(dns), None], &[some(internal), None], &[]).unwrap_err().text
        };
        assert_eq!(text("x", "10.0.0.1"), "Please enter a valid IP address for DNS1");
        assert_eq!(text("8.8.8.8", "10.0.0"), "Please enter a valid IP address for internal DNS1");
        assert!(check_network_domain("cs1.cloud.internal").is_ok());
        assert!(check_network_domain("-a.b").is_err());
        assert!(check_network_domain("a..b").is_err());
    }
}
