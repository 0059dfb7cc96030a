//! Public addresses.

use super::page;
use crate::address::ip;
use crate::store::ranges::VlanRange;
use model::{ListScope, Owner};
use std::collections::HashMap;
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// A public address.
#[derive(Clone, Debug)]
pub struct PublicIp {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// The address.
    pub ip: String,
    /// Zone.
    pub zone_id: i64,
    /// Physical network.
    pub physical_network_id: i64,
    /// Range.
    pub vlan_range_id: i64,
    /// The zone's public network.
    pub source_network_id: i64,
    /// Guest network that it serves.
    pub network_id: Option<i64>,
    /// Free, Allocating, Allocated, Releasing.
    pub state: String,
    /// Whether the network's guests go out by it.
    pub is_source_nat: bool,
    /// Whether it stands for one VM.
    pub is_static_nat: bool,
    /// Whether the system took it.
    pub is_system: bool,
    /// Whether its owner sees it.
    pub display: bool,
    /// VM that it stands for.
    pub vm_id: Option<i64>,
    /// That VM's address.
    pub vm_ip: Option<String>,
    /// Owner; account 0 while free.
    pub owner: Owner,
    /// When allocated, UTC µs.
    pub allocated: Option<i64>,
    /// Names this allocation's reservation with identity.
    pub holder: Option<String>,
}

const COLUMNS: &str = "i.id, i.uuid, i.ip, i.zone_id, i.physical_network_id, i.vlan_range_id, i.source_network_id, i.network_id, \
     i.state, i.is_source_nat, i.is_static_nat, i.is_system, i.display, i.vm_id, i.vm_ip, i.account_id, i.domain_id, \
     i.domain_path, i.allocated, i.holder";

fn read(r: &Row) -> Result<PublicIp> {
    Ok(PublicIp {
        id: r.at(0)?,
        uuid: r.at(1)?,
        ip: r.at(2)?,
        zone_id: r.at(3)?,
        physical_network_id: r.at(4)?,
        vlan_range_id: r.at(5)?,
        source_network_id: r.at(6)?,
        network_id: r.at(7)?,
        state: r.at(8)?,
        is_source_nat: r.at(9)?,
        is_static_nat: r.at(10)?,
        is_system: r.at(11)?,
        display: r.at(12)?,
        vm_id: r.at(13)?,
        vm_ip: r.at(14)?,
        owner: Owner { account_id: r.at(15)?, domain_id: r.at(16)?, domain_path: r.at(17)? },
        allocated: r.at(18)?,
        holder: r.at(19)?,
    })
}

/// One address.
pub async fn one(db: &Db, id: i64) -> Result<Option<PublicIp>> {
    let sql = format!("SELECT {COLUMNS} FROM ip_addresses i WHERE i.id = ? AND i.removed IS NULL");
    db.optional(Sql::new(&sql).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// The same within a transaction.
pub async fn one_in(tx: &mut Tx, id: i64) -> Result<Option<PublicIp>> {
    let sql = format!("SELECT {COLUMNS} FROM ip_addresses i WHERE i.id = ? AND i.removed IS NULL");
    tx.optional(Sql::new(&sql).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// The addresses that serve a network.
pub async fn of_network(db: &Db, network: i64) -> Result<Vec<PublicIp>> {
    let sql =
        format!("SELECT {COLUMNS} FROM ip_addresses i WHERE i.network_id = ? AND i.removed IS NULL ORDER BY i.id");
    db.all(Sql::new(&sql).bind(network)).await?.iter().map(read).collect()
}

/// The same within a transaction.
pub async fn of_network_in(tx: &mut Tx, network: i64) -> Result<Vec<PublicIp>> {
    let sql =
        format!("SELECT {COLUMNS} FROM ip_addresses i WHERE i.network_id = ? AND i.removed IS NULL ORDER BY i.id");
    tx.all(Sql::new(&sql).bind(network)).await?.iter().map(read).collect()
}

/// Filters of a list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Number.
    pub id: Option<i64>,
    /// The address.
    pub ip: Option<String>,
    /// Only those that somebody has.
    pub allocated_only: bool,
    /// State.
    pub state: Option<String>,
    /// Range.
    pub vlan_range_id: Option<i64>,
    /// Zone.
    pub zone_id: Option<i64>,
    /// Physical network.
    pub physical_network_id: Option<i64>,
    /// Guest network.
    pub network_id: Option<i64>,
    /// Source NAT.
    pub source_nat: Option<bool>,
    /// Static NAT.
    pub static_nat: Option<bool>,
    /// Visible to owners.
    pub display: Option<bool>,
    /// Part of the address.
    pub keyword: Option<String>,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

/// A page of them. Free addresses have no owner: only those who see everything see them.
pub async fn list(db: &Db, f: &Filter, scope: &ListScope, p: &model::Page) -> Result<(Vec<PublicIp>, i64)> {
    let query = |head: &str| {
        let mut sql = Sql::new(head)
            .push(" FROM ip_addresses i WHERE i.removed IS NULL")
            .push_if(" AND i.id = ?", f.id)
            .push_if(" AND i.ip = ?", f.ip.as_ref())
            .push_if(" AND i.state = ?", f.state.as_ref())
            .push_if(" AND i.vlan_range_id = ?", f.vlan_range_id)
            .push_if(" AND i.zone_id = ?", f.zone_id)
            .push_if(" AND i.physical_network_id = ?", f.physical_network_id)
            .push_if(" AND i.network_id = ?", f.network_id)
            .push_if(" AND i.is_source_nat = ?", f.source_nat)
            .push_if(" AND i.is_static_nat = ?", f.static_nat)
            .push_if(" AND i.display = ?", f.display);
        if f.allocated_only {
            sql = sql.push(" AND i.state <> 'Free'");
        }
        if let Some(k) = &f.keyword {
            sql = sql.push(" AND ").contains("i.ip", k);
        }
        scope.and(model::tags::filter(sql, "PublicIpAddress", "i.id", &f.tags), "i.")
    };
    page(db, p, COLUMNS, query, " ORDER BY i.id", read).await
}

/// Free addresses of a zone that an account may have: those dedicated to it first, then the common ones unless
/// `own_only`. At most a few dozen, from a place in the pool that depends on `after`.
pub async fn candidates(db: &Db, zone: i64, account: i64, own_only: bool, after: i64) -> Result<Vec<PublicIp>> {
    let common = if own_only { "" } else { " OR v.account_id IS NULL" };
    let text = |from: &str| {
        format!(
            "SELECT {COLUMNS} FROM ip_addresses i JOIN vlan_ranges v ON v.id = i.vlan_range_id WHERE i.zone_id = ? AND \
             i.state = 'Free' AND i.removed IS NULL AND v.removed IS NULL AND v.for_system_vms = 0 AND \
             (v.account_id = ?{common}){from} ORDER BY CASE WHEN v.account_id IS NULL THEN 1 ELSE 0 END, i.id LIMIT 32"
        )
    };
    let sql = Sql::new(&text(" AND i.id > ?")).bind(zone).bind(account).bind(after);
    let found: Vec<PublicIp> = db.all(sql).await?.iter().map(read).collect::<Result<_>>()?;
    if !found.is_empty() || after == 0 {
        return Ok(found);
    }
    db.all(Sql::new(&text("")).bind(zone).bind(account)).await?.iter().map(read).collect()
}

/// The key of an address's reservation with identity: another one with each allocation, because a key that was given back
/// is refused for good.
pub fn limit_key(uuid: &str, holder: &str) -> String {
    format!("ip:{uuid}:{holder}")
}

impl PublicIp {
    /// The key of its present reservation, if it is somebody's.
    pub fn limit_key(&self) -> Option<String> {
        self.holder.as_ref().map(|h| limit_key(&self.uuid, h))
    }
}

/// Who takes an address, and what for.
#[derive(Clone, Debug)]
pub struct Taking<'a> {
    /// Owner.
    pub owner: &'a Owner,
    /// Guest network.
    pub network_id: i64,
    /// Whether its guests go out by it.
    pub source_nat: bool,
    /// State afterwards.
    pub state: &'a str,
    /// Whether the owner sees it.
    pub display: bool,
    /// Names the reservation with identity.
    pub holder: &'a str,
}

/// Takes a free address. False: another was faster.
pub async fn take(tx: &mut Tx, id: i64, t: &Taking<'_>) -> Result<bool> {
    let n = tx
        .exec(
            Sql::new(
                "UPDATE ip_addresses SET state = ?, network_id = ?, is_source_nat = ?, is_system = 0, display = ?, account_id = ?, \
                 domain_id = ?, domain_path = ?, allocated = ?, holder = ? WHERE id = ? AND state = 'Free' AND removed IS NULL",
            )
            .bind(t.state)
            .bind(t.network_id)
            .bind(t.source_nat)
            .bind(t.display)
            .bind(t.owner.account_id)
            .bind(t.owner.domain_id)
            .bind(&t.owner.domain_path)
            .bind(now_micros())
            .bind(t.holder)
            .bind(id),
        )
        .await?;
    Ok(n > 0)
}

/// Moves an address between states. False: it isn't in the first one.
pub async fn set_state(tx: &mut Tx, id: i64, from: &str, to: &str) -> Result<bool> {
    let sql = Sql::new("UPDATE ip_addresses SET state = ? WHERE id = ? AND state = ? AND removed IS NULL");
    Ok(tx.exec(sql.bind(to).bind(id).bind(from)).await? > 0)
}

/// Makes an address of a network stand for a VM, or (`None`) for nobody. False: the network hasn't it any more.
pub async fn set_static(tx: &mut Tx, id: i64, network: i64, vm: Option<(i64, &str)>) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE ip_addresses SET is_static_nat = ?, vm_id = ?, vm_ip = ? WHERE id = ? AND network_id = ? AND state <> 'Free' AND \
         removed IS NULL",
    );
    let sql = sql.bind(vm.is_some()).bind(vm.map(|v| v.0)).bind(vm.map(|v| v.1)).bind(id).bind(network);
    tx.exec(sql).await?;
    Ok(one_in(tx, id).await?.is_some_and(|ip| ip.network_id == Some(network) && ip.is_static_nat == vm.is_some()))
}

/// UUIDs and addresses of those with these numbers.
pub async fn names(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, (String, String)>> {
    let sql = Sql::new("SELECT id, uuid, ip FROM ip_addresses WHERE ").in_list("id", super::zones::distinct(ids));
    db.all(sql).await?.iter().map(|r| Ok((r.at(0)?, (r.at(1)?, r.at(2)?)))).collect()
}

/// The addresses that stand for a VM.
pub async fn of_vm_in(tx: &mut Tx, vm: i64) -> Result<Vec<PublicIp>> {
    let sql = format!("SELECT {COLUMNS} FROM ip_addresses i WHERE i.vm_id = ? AND i.removed IS NULL ORDER BY i.id");
    tx.all(Sql::new(&sql).bind(vm)).await?.iter().map(read).collect()
}

/// Writes what doesn't concern the router. A unique violation: the UUID is taken.
pub async fn update(tx: &mut Tx, id: i64, display: Option<bool>, uuid: Option<&str>) -> Result<()> {
    let sql = Sql::new("UPDATE ip_addresses SET id = id")
        .push_if(", display = ?", display)
        .push_if(", uuid = ?", uuid)
        .push(" WHERE id = ? AND state <> 'Free' AND removed IS NULL")
        .bind(id);
    tx.exec(sql).await.map(drop)
}

/// Gives addresses back to the pool.
pub async fn free(tx: &mut Tx, ids: &[i64]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let sql = Sql::new(
        "UPDATE ip_addresses SET state = 'Free', network_id = NULL, is_source_nat = 0, is_static_nat = 0, is_system = 0, \
         display = 1, vm_id = NULL, vm_ip = NULL, account_id = 0, domain_id = 0, domain_path = '', allocated = NULL, holder = NULL WHERE ",
    )
    .in_list("id", ids.iter().copied());
    tx.exec(sql).await.map(drop)
}

/// Writes a row for each address of a new public range; `first_id` and on are their numbers. A unique violation means
/// that the zone has one of them already.
pub async fn insert_range(tx: &mut Tx, v: &VlanRange, first_id: i64) -> Result<()> {
    let now = now_micros();
    let all: Vec<i64> = (v.range.0..=v.range.1).collect();
    for (batch, numbers) in all.chunks(400).enumerate() {
        let mut sql = Sql::new(
            "INSERT INTO ip_addresses (id, uuid, ip, ip_number, live_zone, zone_id, physical_network_id, vlan_range_id, \
             source_network_id, state, is_source_nat, is_static_nat, is_system, display, account_id, domain_id, domain_path, \
             created) VALUES ",
        );
        for (i, n) in numbers.iter().enumerate() {
            let offset = i64::try_from(batch * 400 + i).unwrap_or_default();
            sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
                Value::from(first_id + offset),
                model::new_uuid().into(),
                ip(*n).to_string().into(),
                (*n).into(),
                v.zone_id.into(),
                v.zone_id.into(),
                v.physical_network_id.into(),
                v.id.into(),
                v.network_id.into(),
                "Free".into(),
                false.into(),
                false.into(),
                false.into(),
                true.into(),
                0i64.into(),
                0i64.into(),
                "".into(),
                now.into(),
            ]);
        }
        tx.exec(sql).await?;
    }
    Ok(())
}

/// Deletes the rows of a range that is going; refused (false) while one is in use.
pub async fn delete_range(tx: &mut Tx, range: i64) -> Result<bool> {
    tx.exec(Sql::new("DELETE FROM ip_addresses WHERE vlan_range_id = ? AND state = 'Free'").bind(range)).await?;
    let left: i64 =
        tx.one(Sql::new("SELECT COUNT(*) FROM ip_addresses WHERE vlan_range_id = ?").bind(range)).await?.at(0)?;
    Ok(left == 0)
}

/// Tags and gateways of the ranges with these numbers.
pub async fn range_names(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, (String, String)>> {
    let sql = Sql::new("SELECT id, uuid, vlan FROM vlan_ranges WHERE ").in_list("id", super::zones::distinct(ids));
    db.all(sql).await?.iter().map(|r| Ok((r.at(0)?, (r.at(1)?, r.at(2)?)))).collect()
}
