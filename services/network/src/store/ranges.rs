//! Address ranges with the VLAN that carries them.

use super::page;
use crate::address::Range;
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// Kind of ranges whose addresses are public ones.
pub const PUBLIC: &str = "VirtualNetwork";
/// Kind of ranges whose addresses belong to the guests of a network.
pub const DIRECT: &str = "DirectAttached";

/// A range.
#[derive(Clone, Debug, Default)]
pub struct VlanRange {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Zone.
    pub zone_id: i64,
    /// Physical network.
    pub physical_network_id: i64,
    /// The zone's public network, or the guest network.
    pub network_id: i64,
    /// [`PUBLIC`] or [`DIRECT`].
    pub kind: String,
    /// "50" or "untagged".
    pub vlan: String,
    /// Gateway.
    pub gateway: String,
    /// Netmask.
    pub netmask: String,
    /// First address.
    pub start_ip: String,
    /// Last address.
    pub end_ip: String,
    /// Both as numbers.
    pub range: (i64, i64),
    /// Account that it is dedicated to.
    pub account_id: Option<i64>,
    /// That account's domain.
    pub domain_id: Option<i64>,
    /// Pod.
    pub pod_id: Option<i64>,
    /// Whether only system VMs may have its addresses.
    pub for_system_vms: bool,
}

impl VlanRange {
    /// Its addresses.
    pub fn addresses(&self) -> Range {
        Range {
            start: u32::try_from(self.range.0).unwrap_or_default(),
            end: u32::try_from(self.range.1).unwrap_or_default(),
        }
    }
}

const COLUMNS: &str = "id, uuid, zone_id, physical_network_id, network_id, kind, vlan, gateway, netmask, start_ip, end_ip, \
     start_number, end_number, account_id, domain_id, pod_id, for_system_vms";

fn read(r: &Row) -> Result<VlanRange> {
    Ok(VlanRange {
        id: r.at(0)?,
        uuid: r.at(1)?,
        zone_id: r.at(2)?,
        physical_network_id: r.at(3)?,
        network_id: r.at(4)?,
        kind: r.at(5)?,
        vlan: r.at(6)?,
        gateway: r.at(7)?,
        netmask: r.at(8)?,
        start_ip: r.at(9)?,
        end_ip: r.at(10)?,
        range: (r.at(11)?, r.at(12)?),
        account_id: r.at(13)?,
        domain_id: r.at(14)?,
        pod_id: r.at(15)?,
        for_system_vms: r.at(16)?,
    })
}

/// One living range.
pub async fn one(db: &Db, id: i64) -> Result<Option<VlanRange>> {
    let sql = format!("SELECT {COLUMNS} FROM vlan_ranges WHERE id = ? AND removed IS NULL");
    db.optional(Sql::new(&sql).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// The ranges of a guest network, oldest first.
pub async fn of_network(db: &Db, network: i64) -> Result<Vec<VlanRange>> {
    let sql = format!("SELECT {COLUMNS} FROM vlan_ranges WHERE network_id = ? AND removed IS NULL ORDER BY id");
    db.all(Sql::new(&sql).bind(network)).await?.iter().map(read).collect()
}

/// All living ranges of a zone, within the transaction that checks a new one.
pub async fn of_zone(tx: &mut Tx, zone: i64) -> Result<Vec<VlanRange>> {
    let sql = format!("SELECT {COLUMNS} FROM vlan_ranges WHERE zone_id = ? AND removed IS NULL");
    tx.all(Sql::new(&sql).bind(zone)).await?.iter().map(read).collect()
}

/// Whether a VLAN of a physical network carries public addresses.
pub async fn carries_public(tx: &mut Tx, physical: i64, vlan: i64) -> Result<bool> {
    let sql = Sql::new(
        "SELECT 1 FROM vlan_ranges WHERE physical_network_id = ? AND vlan = ? AND kind = 'VirtualNetwork' AND removed IS NULL LIMIT 1",
    );
    Ok(tx.optional(sql.bind(physical).bind(vlan.to_string())).await?.is_some())
}

/// How many addresses the ranges of networks have; nothing for networks without ranges.
pub async fn sizes(db: &Db, networks: impl IntoIterator<Item = i64>) -> Result<std::collections::HashMap<i64, i64>> {
    let sql = Sql::new("SELECT network_id, CAST(SUM(end_number - start_number + 1) AS SIGNED) FROM vlan_ranges WHERE removed IS NULL AND ")
        .in_list("network_id", super::zones::distinct(networks))
        .push(" GROUP BY network_id");
    db.all(sql).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

/// Tags of the VLANs of a physical network that carry public addresses.
pub async fn public_tags(db: &Db, physical: i64) -> Result<Vec<String>> {
    let sql = Sql::new(
        "SELECT DISTINCT vlan FROM vlan_ranges WHERE physical_network_id = ? AND kind = 'VirtualNetwork' AND removed IS NULL",
    );
    db.all(sql.bind(physical)).await?.iter().map(|r| r.at(0)).collect()
}

/// Whether an account has public ranges of its own in a zone.
pub async fn has_dedicated(db: &Db, zone: i64, account: i64) -> Result<bool> {
    let sql = Sql::new(
        "SELECT 1 FROM vlan_ranges WHERE zone_id = ? AND account_id = ? AND kind = 'VirtualNetwork' AND removed IS NULL LIMIT 1",
    );
    Ok(db.optional(sql.bind(zone).bind(account)).await?.is_some())
}

/// Filters of a list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Number.
    pub id: Option<i64>,
    /// Zone.
    pub zone_id: Option<i64>,
    /// Network.
    pub network_id: Option<i64>,
    /// Physical network.
    pub physical_network_id: Option<i64>,
    /// Pod.
    pub pod_id: Option<i64>,
    /// Tag.
    pub vlan: Option<String>,
    /// Kind.
    pub kind: Option<&'static str>,
    /// Account that it is dedicated to.
    pub account_id: Option<i64>,
    /// Domain of that account.
    pub domain_id: Option<i64>,
    /// Part of the tag.
    pub keyword: Option<String>,
}

/// A page of them.
pub async fn list(db: &Db, f: &Filter, p: &model::Page) -> Result<(Vec<VlanRange>, i64)> {
    let query = |head: &str| {
        let sql = Sql::new(head)
            .push(" FROM vlan_ranges WHERE removed IS NULL")
            .push_if(" AND id = ?", f.id)
            .push_if(" AND zone_id = ?", f.zone_id)
            .push_if(" AND network_id = ?", f.network_id)
            .push_if(" AND physical_network_id = ?", f.physical_network_id)
            .push_if(" AND pod_id = ?", f.pod_id)
            .push_if(" AND vlan = ?", f.vlan.as_ref())
            .push_if(" AND kind = ?", f.kind)
            .push_if(" AND account_id = ?", f.account_id)
            .push_if(" AND domain_id = ?", f.domain_id);
        match &f.keyword {
            Some(k) => sql.push(" AND ").contains("vlan", k),
            None => sql,
        }
    };
    page(db, p, COLUMNS, query, " ORDER BY id", read).await
}

/// Writes a new range.
pub async fn insert(tx: &mut Tx, v: &VlanRange) -> Result<()> {
    tx.exec(
        Sql::new(
            "INSERT INTO vlan_ranges (id, uuid, zone_id, physical_network_id, network_id, kind, vlan, gateway, netmask, start_ip, \
             end_ip, start_number, end_number, account_id, domain_id, pod_id, for_system_vms, created) VALUES ",
        )
        .tuple([
            Value::from(v.id),
            (&v.uuid).into(),
            v.zone_id.into(),
            v.physical_network_id.into(),
            v.network_id.into(),
            (&v.kind).into(),
            (&v.vlan).into(),
            (&v.gateway).into(),
            (&v.netmask).into(),
            (&v.start_ip).into(),
            (&v.end_ip).into(),
            v.range.0.into(),
            v.range.1.into(),
            v.account_id.into(),
            v.domain_id.into(),
            v.pod_id.into(),
            v.for_system_vms.into(),
            now_micros().into(),
        ]),
    )
    .await
    .map(drop)
}

/// Marks a range removed. False: it is gone already.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new("UPDATE vlan_ranges SET removed = ? WHERE id = ? AND removed IS NULL");
    Ok(tx.exec(sql.bind(now_micros()).bind(id)).await? > 0)
}

/// Marks all ranges of a network removed.
pub async fn remove_of_network(tx: &mut Tx, network: i64) -> Result<()> {
    let sql = Sql::new("UPDATE vlan_ranges SET removed = ? WHERE network_id = ? AND removed IS NULL");
    tx.exec(sql.bind(now_micros()).bind(network)).await.map(drop)
}
