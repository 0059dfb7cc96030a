//! Zones.

use super::{Changes, Reader, live_key, lower, paged};
use ::store::{Db, Error, Result, Row, Sql, Tx, now_micros};
use model::Page;
use model::state::AllocationState;

/// A zone.
#[derive(Clone, Debug)]
pub struct ZoneRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// Basic or Advanced.
    pub network_type: String,
    /// CIDR of guest networks that have none of their own.
    pub guest_cidr: Option<String>,
    /// DNS servers of guests.
    pub dns: [Option<String>; 2],
    /// IPv6 DNS servers of guests.
    pub ip6_dns: [Option<String>; 2],
    /// DNS servers of the system.
    pub internal_dns: [Option<String>; 2],
    /// Domain of guest networks that have none of their own.
    pub network_domain: Option<String>,
    /// Who provides DHCP.
    pub dhcp_provider: String,
    /// DNS search order.
    pub dns_search_order: Option<String>,
    /// Whether security groups are on.
    pub security_groups: bool,
    /// Whether hosts' disks are used.
    pub local_storage: bool,
    /// Whether it takes new resources.
    pub allocation_state: AllocationState,
    /// The domain that it is reserved for.
    pub domain_id: Option<i64>,
    /// That domain's UUID.
    pub domain_uuid: Option<String>,
    /// That domain's name.
    pub domain_name: Option<String>,
    /// A token for the zone's own services.
    pub zone_token: String,
}

const COLUMNS: &str = "z.id, z.uuid, z.name, z.description, z.network_type, z.guest_cidr, z.dns1, z.dns2, z.ip6dns1, z.ip6dns2, \
    z.internal_dns1, z.internal_dns2, z.network_domain, z.dhcp_provider, z.dns_search_order, z.security_groups, \
    z.local_storage, z.allocation_state, z.domain_id, d.uuid AS domain_uuid, d.name AS domain_name, z.zone_token";
const FROM: &str = " FROM zones z LEFT JOIN domains d ON d.id = z.domain_id";

fn read(r: &Row) -> Result<ZoneRow> {
    Ok(ZoneRow {
        id: r.get("id")?,
        uuid: r.get("uuid")?,
        name: r.get("name")?,
        description: r.get("description")?,
        network_type: r.get("network_type")?,
        guest_cidr: r.get("guest_cidr")?,
        dns: [r.get("dns1")?, r.get("dns2")?],
        ip6_dns: [r.get("ip6dns1")?, r.get("ip6dns2")?],
        internal_dns: [r.get("internal_dns1")?, r.get("internal_dns2")?],
        network_domain: r.get("network_domain")?,
        dhcp_provider: r.get("dhcp_provider")?,
        dns_search_order: r.get("dns_search_order")?,
        security_groups: r.get("security_groups")?,
        local_storage: r.get("local_storage")?,
        allocation_state: r.get("allocation_state")?,
        domain_id: r.get("domain_id")?,
        domain_uuid: r.get("domain_uuid")?,
        domain_name: r.get("domain_name")?,
        zone_token: r.get("zone_token")?,
    })
}

/// A living zone.
pub async fn find(from: impl Reader, id: i64) -> Result<Option<ZoneRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS}{FROM} WHERE z.id = ? AND z.removed IS NULL")).bind(id);
    from.rows(sql).await?.first().map(read).transpose()
}

/// Writes a new zone. Gives whether its name was free.
pub async fn insert(tx: &mut Tx, z: &ZoneRow) -> Result<bool> {
    let [dns1, dns2] = z.dns.clone();
    let [ip6dns1, ip6dns2] = z.ip6_dns.clone();
    let [internal1, internal2] = z.internal_dns.clone();
    let sql = Sql::new(
        "INSERT INTO zones (id, uuid, name, name_lower, live_key, description, network_type, guest_cidr, dns1, dns2, ip6dns1, \
         ip6dns2, internal_dns1, internal_dns2, network_domain, dhcp_provider, dns_search_order, security_groups, local_storage, \
         allocation_state, domain_id, zone_token, sort_key, created) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
    )
    .bind(z.id)
    .bind(&z.uuid)
    .bind(&z.name)
    .bind(lower(&z.name))
    .bind(live_key("", &z.name))
    .bind(z.description.clone())
    .bind(&z.network_type)
    .bind(z.guest_cidr.clone())
    .bind(dns1.unwrap_or_default())
    .bind(dns2)
    .bind(ip6dns1)
    .bind(ip6dns2)
    .bind(internal1.unwrap_or_default())
    .bind(internal2)
    .bind(z.network_domain.clone())
    .bind(&z.dhcp_provider)
    .bind(z.dns_search_order.clone())
    .bind(z.security_groups)
    .bind(z.local_storage)
    .bind(z.allocation_state)
    .bind(z.domain_id)
    .bind(&z.zone_token)
    .bind(now_micros());
    name_was_free(tx.exec(sql).await.map(|_| true))
}

/// Changes a zone. Gives whether it lives; `None` when its new name is taken.
pub async fn update(tx: &mut Tx, id: i64, changes: Changes) -> Result<Option<bool>> {
    match changes.apply(tx, "zones", id).await {
        Err(e) if e.is_unique("live_key") => Ok(None),
        other => other.map(Some),
    }
}

/// The columns of a name.
pub fn rename(changes: Changes, name: Option<&str>) -> Changes {
    match name {
        Some(name) => changes.set("name", name).set("name_lower", lower(name)).set("live_key", live_key("", name)),
        None => changes,
    }
}

/// Maps a taken name to `false`.
pub(super) fn name_was_free(result: Result<bool>) -> Result<bool> {
    match result {
        Err(Error::Unique { key }) if key.contains("live_key") => Ok(false),
        other => other,
    }
}

/// Which zones a list shows.
#[derive(Clone, Debug, Default)]
pub struct ZoneFilter {
    /// Only this one.
    pub id: Option<i64>,
    /// Only with this name.
    pub name: Option<String>,
    /// Only of this network type.
    pub network_type: Option<String>,
    /// Only reserved for this domain.
    pub domain: Option<i64>,
    /// Only whose name contains it.
    pub keyword: Option<String>,
    /// What the caller may see; none: all.
    pub visible: Option<Visible>,
    /// Only where this account has VMs.
    pub used_by: Option<i64>,
}

/// The zones that somebody who isn't a root admin sees: public ones, and those of domains in reach. No disabled ones.
#[derive(Clone, Debug)]
pub struct Visible {
    /// The caller's domain and all above it.
    pub line: Vec<i64>,
    /// The domains below this id path too.
    pub below: Option<String>,
}

/// A page of zones, and how many there are.
pub async fn list(db: &Db, filter: &ZoneFilter, page: Page) -> Result<(Vec<ZoneRow>, i64)> {
    let body = |sql: Sql| {
        let mut sql = sql
            .push(FROM)
            .push(" WHERE z.removed IS NULL")
            .push_if(" AND z.id = ?", filter.id)
            .push_if(" AND z.live_key = ?", filter.name.as_deref().map(|n| live_key("", n)))
            .push_if(" AND z.network_type = ?", filter.network_type.as_deref())
            .push_if(" AND z.domain_id = ?", filter.domain);
        if let Some(keyword) = &filter.keyword {
            sql = sql.push(" AND ").contains("z.name_lower", &keyword.to_lowercase());
        }
        if let Some(visible) = &filter.visible {
            sql = sql
                .push(" AND z.allocation_state = ? AND (z.domain_id IS NULL OR ")
                .bind(AllocationState::Enabled)
                .in_list("z.domain_id", visible.line.iter().copied());
            if let Some(path) = &visible.below {
                sql = sql
                    .push(" OR (d.path >= ? AND d.path < ?)")
                    .bind(path)
                    .bind(format!("{}0", path.trim_end_matches('/')));
            }
            sql = sql.push(")");
        }
        sql.push_if(
            " AND z.id IN (SELECT v.zone_id FROM vms v WHERE v.account_id = ? AND v.removed IS NULL)",
            filter.used_by,
        )
    };
    let (rows, count) = paged(db, COLUMNS, body, "z.sort_key, z.id", page).await?;
    Ok((rows.iter().map(read).collect::<Result<_>>()?, count))
}

/// The kinds of traffic that a zone has a network for.
pub async fn traffic_types(tx: &mut Tx, zone: i64) -> Result<Vec<String>> {
    let sql =
        Sql::new("SELECT DISTINCT traffic_type FROM traffic_types WHERE zone_id = ? AND removed IS NULL").bind(zone);
    tx.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// Whether any zone has security groups.
pub async fn any_security_groups(db: &Db) -> Result<bool> {
    let sql = Sql::new("SELECT id FROM zones WHERE security_groups = 1 AND removed IS NULL LIMIT 1");
    Ok(db.optional(sql).await?.is_some())
}
