//! Pods.

use super::zones::name_was_free;
use super::{Changes, Reader, live_key, lower, paged};
use crate::subnet::PodRange;
use ::store::{Db, Result, Row, Sql, Tx, now_micros};
use model::Page;
use model::state::AllocationState;

/// A pod.
#[derive(Clone, Debug)]
pub struct PodRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Zone.
    pub zone_id: i64,
    /// The zone's UUID.
    pub zone_uuid: String,
    /// The zone's name.
    pub zone_name: String,
    /// Gateway.
    pub gateway: String,
    /// Netmask.
    pub netmask: String,
    /// Subnet.
    pub cidr: String,
    /// First reserved address.
    pub start_ip: String,
    /// Last reserved address.
    pub end_ip: String,
    /// Whether it takes new resources.
    pub allocation_state: AllocationState,
}

const COLUMNS: &str = "p.id, p.uuid, p.name, p.zone_id, z.uuid AS zone_uuid, z.name AS zone_name, p.gateway, p.netmask, p.cidr, \
    p.start_ip, p.end_ip, p.allocation_state";
const FROM: &str = " FROM pods p JOIN zones z ON z.id = p.zone_id";

fn read(r: &Row) -> Result<PodRow> {
    Ok(PodRow {
        id: r.get("id")?,
        uuid: r.get("uuid")?,
        name: r.get("name")?,
        zone_id: r.get("zone_id")?,
        zone_uuid: r.get("zone_uuid")?,
        zone_name: r.get("zone_name")?,
        gateway: r.get("gateway")?,
        netmask: r.get("netmask")?,
        cidr: r.get("cidr")?,
        start_ip: r.get("start_ip")?,
        end_ip: r.get("end_ip")?,
        allocation_state: r.get("allocation_state")?,
    })
}

/// A living pod.
pub async fn find(from: impl Reader, id: i64) -> Result<Option<PodRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS}{FROM} WHERE p.id = ? AND p.removed IS NULL")).bind(id);
    from.rows(sql).await?.first().map(read).transpose()
}

/// All living pods of a zone.
pub async fn of_zone(from: impl Reader, zone: i64) -> Result<Vec<PodRow>> {
    let sql =
        Sql::new(&format!("SELECT {COLUMNS}{FROM} WHERE p.zone_id = ? AND p.removed IS NULL ORDER BY p.id")).bind(zone);
    from.rows(sql).await?.iter().map(read).collect()
}

/// Writes a new pod. Gives whether its name was free in the zone.
pub async fn insert(tx: &mut Tx, p: &PodRow) -> Result<bool> {
    let sql = Sql::new(
        "INSERT INTO pods (id, uuid, name, name_lower, live_key, zone_id, gateway, netmask, cidr, start_ip, end_ip, \
         allocation_state, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(p.id)
    .bind(&p.uuid)
    .bind(&p.name)
    .bind(lower(&p.name))
    .bind(live_key(&p.zone_id.to_string(), &p.name))
    .bind(p.zone_id)
    .bind(&p.gateway)
    .bind(&p.netmask)
    .bind(&p.cidr)
    .bind(&p.start_ip)
    .bind(&p.end_ip)
    .bind(p.allocation_state)
    .bind(now_micros());
    name_was_free(tx.exec(sql).await.map(|_| true))
}

/// What of a pod is to change.
#[derive(Clone, Debug, Default)]
pub struct PodChange {
    /// Name.
    pub name: Option<String>,
    /// Addresses.
    pub range: Option<PodRange>,
    /// Whether it takes new resources.
    pub allocation_state: Option<AllocationState>,
}

/// Changes a pod. Gives whether its new name was free.
pub async fn update(tx: &mut Tx, pod: &PodRow, change: &PodChange) -> Result<bool> {
    let mut changes = Changes::default().set_if("allocation_state", change.allocation_state);
    if let Some(name) = &change.name {
        changes = changes
            .set("name", name)
            .set("name_lower", lower(name))
            .set("live_key", live_key(&pod.zone_id.to_string(), name));
    }
    if let Some(range) = &change.range {
        changes = changes
            .set("gateway", range.gateway.to_string())
            .set("netmask", range.net.netmask().to_string())
            .set("cidr", range.net.to_string())
            .set("start_ip", range.start.to_string())
            .set("end_ip", range.end.to_string());
    }
    name_was_free(changes.apply(tx, "pods", pod.id).await.map(|_| true))
}

/// Which pods a list shows.
#[derive(Clone, Debug, Default)]
pub struct PodFilter {
    /// Only this one.
    pub id: Option<i64>,
    /// Only with this name.
    pub name: Option<String>,
    /// Only of this zone.
    pub zone: Option<i64>,
    /// Only in this state.
    pub allocation_state: Option<String>,
    /// Only whose name or description contains it.
    pub keyword: Option<String>,
}

/// A page of pods, and how many there are.
pub async fn list(db: &Db, filter: &PodFilter, page: Page) -> Result<(Vec<PodRow>, i64)> {
    let body = |sql: Sql| {
        let sql = sql
            .push(FROM)
            .push(" WHERE p.removed IS NULL")
            .push_if(" AND p.id = ?", filter.id)
            .push_if(" AND p.name_lower = ?", filter.name.as_deref().map(lower))
            .push_if(" AND p.zone_id = ?", filter.zone)
            .push_if(" AND p.allocation_state = ?", filter.allocation_state.as_deref());
        match &filter.keyword {
            Some(keyword) => sql.push(" AND ").contains("p.name_lower", &keyword.to_lowercase()),
            None => sql,
        }
    };
    let (rows, count) = paged(db, COLUMNS, body, "p.id", page).await?;
    Ok((rows.iter().map(read).collect::<Result<_>>()?, count))
}

/// A range of public addresses of the zone that shares addresses with `range`: its first and last address.
pub async fn public_overlap(tx: &mut Tx, zone: i64, range: &PodRange) -> Result<Option<(String, String)>> {
    let sql = Sql::new(
        "SELECT start_ip, end_ip FROM vlan_ranges WHERE zone_id = ? AND kind = 'VirtualNetwork' AND removed IS NULL \
         AND start_number <= ? AND end_number >= ? ORDER BY id LIMIT 1",
    )
    .bind(zone)
    .bind(crate::subnet::number(range.end))
    .bind(crate::subnet::number(range.start));
    tx.optional(sql).await?.map(|r| Ok((r.at(0)?, r.at(1)?))).transpose()
}
