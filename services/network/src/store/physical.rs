//! Physical networks and the VLANs given out of them.

use super::page;
use std::collections::HashSet;
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// A physical network.
#[derive(Clone, Debug, Default)]
pub struct Physical {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Zone.
    pub zone_id: i64,
    /// Enabled, Disabled.
    pub state: String,
    /// Ranges of guest VLANs, "100-200,300-400".
    pub vlan: Option<String>,
    /// Speed, "10G".
    pub speed: Option<String>,
    /// Domain that it is for.
    pub domain_id: Option<i64>,
    /// ZONE, POD.
    pub broadcast_range: String,
    /// Tags, comma-separated.
    pub tags: String,
    /// Isolation methods, comma-separated.
    pub isolation_methods: String,
}

impl Physical {
    /// Whether guests are kept apart by VXLAN instead of VLAN.
    pub fn is_vxlan(&self) -> bool {
        self.isolation_methods.eq_ignore_ascii_case("VXLAN")
    }

    /// Scheme of broadcast URIs: "vlan", "vxlan".
    pub fn scheme(&self) -> &'static str {
        if self.is_vxlan() { "vxlan" } else { "vlan" }
    }
}

const COLUMNS: &str =
    "id, uuid, name, zone_id, state, vlan, speed, domain_id, broadcast_range, tags, isolation_methods";

fn read(r: &Row) -> Result<Physical> {
    Ok(Physical {
        id: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        zone_id: r.at(3)?,
        state: r.at(4)?,
        vlan: r.at(5)?,
        speed: r.at(6)?,
        domain_id: r.at(7)?,
        broadcast_range: r.at(8)?,
        tags: r.at(9)?,
        isolation_methods: r.at(10)?,
    })
}

/// One living physical network.
pub async fn one(db: &Db, id: i64) -> Result<Option<Physical>> {
    let sql = format!("SELECT {COLUMNS} FROM physical_networks WHERE id = ? AND removed IS NULL");
    db.optional(Sql::new(&sql).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// The living ones of a zone.
pub async fn of_zone(db: &Db, zone: i64) -> Result<Vec<Physical>> {
    let sql = format!("SELECT {COLUMNS} FROM physical_networks WHERE zone_id = ? AND removed IS NULL ORDER BY id");
    db.all(Sql::new(&sql).bind(zone)).await?.iter().map(read).collect()
}

/// Filters of a list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Number.
    pub id: Option<i64>,
    /// Zone.
    pub zone_id: Option<i64>,
    /// Whole name.
    pub name: Option<String>,
    /// Part of the name, lower-cased.
    pub keyword: Option<String>,
}

/// A page of them.
pub async fn list(db: &Db, filter: &Filter, p: &model::Page) -> Result<(Vec<Physical>, i64)> {
    let query = |head: &str| {
        let mut sql = Sql::new(head)
            .push(" FROM physical_networks WHERE removed IS NULL")
            .push_if(" AND id = ?", filter.id)
            .push_if(" AND zone_id = ?", filter.zone_id)
            .push_if(" AND name = ?", filter.name.as_ref());
        if let Some(k) = &filter.keyword {
            sql = sql.push(" AND ").contains("name_lower", k);
        }
        sql
    };
    page(db, p, COLUMNS, query, " ORDER BY id", read).await
}

/// Writes a new one.
pub async fn insert(tx: &mut Tx, p: &Physical) -> Result<()> {
    tx.exec(
        Sql::new(
            "INSERT INTO physical_networks (id, uuid, name, name_lower, zone_id, state, vlan, speed, domain_id, \
             broadcast_range, tags, isolation_methods, created) VALUES ",
        )
        .tuple([
            Value::from(p.id),
            (&p.uuid).into(),
            (&p.name).into(),
            p.name.to_lowercase().into(),
            p.zone_id.into(),
            (&p.state).into(),
            p.vlan.clone().into(),
            p.speed.clone().into(),
            p.domain_id.into(),
            (&p.broadcast_range).into(),
            (&p.tags).into(),
            (&p.isolation_methods).into(),
            now_micros().into(),
        ]),
    )
    .await
    .map(drop)
}

/// Writes what an update may change. False: it is gone.
pub async fn update(tx: &mut Tx, p: &Physical) -> Result<bool> {
    let n = tx
        .exec(
            Sql::new("UPDATE physical_networks SET state = ?, vlan = ?, speed = ?, tags = ? WHERE id = ? AND removed IS NULL")
                .bind(&p.state)
                .bind(p.vlan.clone())
                .bind(p.speed.clone())
                .bind(&p.tags)
                .bind(p.id),
        )
        .await?;
    Ok(n > 0)
}

/// Marks it removed, with its traffic types and providers.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
    let now = now_micros();
    for table in ["traffic_types", "network_providers"] {
        let sql = format!(
            "UPDATE {table} SET removed = ?, live_key = NULL WHERE physical_network_id = ? AND removed IS NULL"
        );
        tx.exec(Sql::new(&sql).bind(now).bind(id)).await?;
    }
    tx.exec(
        Sql::new(
            "UPDATE router_elements SET removed = ? WHERE removed IS NULL AND provider_id IN \
             (SELECT id FROM network_providers WHERE physical_network_id = ?)",
        )
        .bind(now)
        .bind(id),
    )
    .await?;
    tx.exec(Sql::new("UPDATE physical_networks SET removed = ? WHERE id = ? AND removed IS NULL").bind(now).bind(id))
        .await
        .map(drop)
}

/// What keeps a physical network from being deleted: guest networks and address ranges, by count.
pub async fn uses(tx: &mut Tx, id: i64) -> Result<(i64, i64)> {
    let networks = tx
        .one(
            Sql::new(
                "SELECT COUNT(*) FROM networks WHERE physical_network_id = ? AND removed IS NULL AND is_system = 0",
            )
            .bind(id),
        )
        .await?
        .at(0)?;
    let ranges = tx
        .one(Sql::new("SELECT COUNT(*) FROM vlan_ranges WHERE physical_network_id = ? AND removed IS NULL").bind(id))
        .await?
        .at(0)?;
    Ok((networks, ranges))
}

/// The VLANs in use of a physical network.
pub async fn vnets(db: &Db, physical: i64) -> Result<HashSet<i64>> {
    db.all(Sql::new("SELECT vnet FROM vnets WHERE physical_network_id = ?").bind(physical))
        .await?
        .iter()
        .map(|r| r.at(0))
        .collect()
}

/// Takes a VLAN. A unique violation means that another network has it.
pub async fn take_vnet(tx: &mut Tx, physical: i64, vnet: i64, slot: i64, network: i64) -> Result<()> {
    tx.exec(
        Sql::new("INSERT INTO vnets (physical_network_id, vnet, slot, network_id, taken) VALUES (?, ?, ?, ?, ?)")
            .bind(physical)
            .bind(vnet)
            .bind(slot)
            .bind(network)
            .bind(now_micros()),
    )
    .await
    .map(drop)
}

/// Whether a network has the VLAN, in any slot.
pub async fn vnet_taken(tx: &mut Tx, physical: i64, vnet: i64) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM vnets WHERE physical_network_id = ? AND vnet = ? LIMIT 1");
    Ok(tx.optional(sql.bind(physical).bind(vnet)).await?.is_some())
}

/// A VLAN in use that was taken from the range and isn't in `ranges`, by one example.
pub async fn vnet_outside(tx: &mut Tx, physical: i64, ranges: &crate::address::VlanRanges) -> Result<Option<i64>> {
    let sql = Sql::new(
        "SELECT v.vnet FROM vnets v JOIN networks n ON n.id = v.network_id WHERE v.physical_network_id = ? AND n.specified_vlan = 0",
    );
    for row in tx.all(sql.bind(physical)).await? {
        let vnet = row.at(0)?;
        if !ranges.contains(vnet) {
            return Ok(Some(vnet));
        }
    }
    Ok(None)
}

/// Gives a network's VLAN back.
pub async fn free_vnets(tx: &mut Tx, network: i64) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM vnets WHERE network_id = ?").bind(network)).await.map(drop)
}
