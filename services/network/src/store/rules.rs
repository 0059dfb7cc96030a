//! Rules: firewall, port forwarding, static NAT, load balancing, in one table.

use super::page;
use crate::rule::{Purpose, RuleState, Traffic};
use model::{ListScope, Owner};
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// Who gets the traffic of a port forwarding rule.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// The VM.
    pub vm_id: i64,
    /// Its address in the network.
    pub ip: String,
    /// First port.
    pub start_port: i64,
    /// Last port.
    pub end_port: i64,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Which way.
    pub traffic: Traffic,
    /// How far it is.
    pub state: RuleState,
    /// The public address; none for Egress.
    pub ip_id: Option<i64>,
    /// The guest network.
    pub network_id: i64,
    /// tcp, udp, icmp, all; lower case.
    pub protocol: String,
    /// First port, where there are ports.
    pub start_port: Option<i64>,
    /// Last port.
    pub end_port: Option<i64>,
    /// ICMP type; -1: any.
    pub icmp_type: Option<i64>,
    /// ICMP code; -1: any.
    pub icmp_code: Option<i64>,
    /// From where.
    pub cidrs: Vec<String>,
    /// To where (Egress).
    pub dest_cidrs: Vec<String>,
    /// The rule that it was made for.
    pub related_id: Option<i64>,
    /// Who gets the traffic (PortForwarding).
    pub target: Option<Target>,
    /// Whether its owner sees it.
    pub display: bool,
    /// Whether only root admins may delete it.
    pub system: bool,
    /// Owner.
    pub owner: Owner,
}

impl Rule {
    /// "22", "33-44"; none without ports.
    pub fn range(&self) -> Option<(i64, i64)> {
        self.start_port.zip(self.end_port)
    }
}

/// How many columns [`COLUMNS`] are.
pub const WIDTH: usize = 24;

/// The columns of [`Rule`], of a table that goes by the name `f`; [`read`] takes them from the row's first column on.
pub const COLUMNS: &str = "f.id, f.uuid, f.purpose, f.traffic, f.state, f.ip_id, f.network_id, f.protocol, f.start_port, f.end_port, \
     f.icmp_type, f.icmp_code, f.cidrs, f.dest_cidrs, f.related_id, f.vm_id, f.vm_ip, f.vm_start_port, f.vm_end_port, f.display, \
     f.account_id, f.domain_id, f.domain_path, f.is_system";

/// A list as the database keeps it.
pub fn split(list: &str) -> Vec<String> {
    list.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The rule that a row begins with.
pub fn read(r: &Row) -> Result<Rule> {
    let target = match (r.at::<Option<i64>>(15)?, r.at::<Option<String>>(16)?) {
        (Some(vm_id), Some(ip)) => Some(Target {
            vm_id,
            ip,
            start_port: r.at::<Option<i64>>(17)?.unwrap_or_default(),
            end_port: r.at::<Option<i64>>(18)?.unwrap_or_default(),
        }),
        _ => None,
    };
    Ok(Rule {
        id: r.at(0)?,
        uuid: r.at(1)?,
        purpose: r.at(2)?,
        traffic: r.at(3)?,
        state: r.at(4)?,
        ip_id: r.at(5)?,
        network_id: r.at(6)?,
        protocol: r.at(7)?,
        start_port: r.at(8)?,
        end_port: r.at(9)?,
        icmp_type: r.at(10)?,
        icmp_code: r.at(11)?,
        cidrs: split(&r.at::<String>(12)?),
        dest_cidrs: split(&r.at::<String>(13)?),
        related_id: r.at(14)?,
        target,
        display: r.at(19)?,
        owner: Owner { account_id: r.at(20)?, domain_id: r.at(21)?, domain_path: r.at(22)? },
        system: r.at(23)?,
    })
}

fn by(column: &str) -> String {
    format!("SELECT {COLUMNS} FROM firewall_rules f WHERE f.{column} = ? ORDER BY f.id")
}

/// One rule.
pub async fn one(db: &Db, id: i64) -> Result<Option<Rule>> {
    db.optional(Sql::new(&by("id")).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// The same within a transaction.
pub async fn one_in(tx: &mut Tx, id: i64) -> Result<Option<Rule>> {
    tx.optional(Sql::new(&by("id")).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// UUIDs of the rules with these numbers.
pub async fn uuids(db: &Db, ids: &[i64]) -> Result<Vec<String>> {
    let sql = Sql::new("SELECT uuid FROM firewall_rules WHERE ").in_list("id", ids.iter().copied());
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// Rules with these numbers.
pub async fn by_ids_in(tx: &mut Tx, ids: &[i64]) -> Result<Vec<Rule>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM firewall_rules f WHERE "));
    let sql = sql.in_list("f.id", ids.iter().copied()).push(" ORDER BY f.id");
    tx.all(sql).await?.iter().map(read).collect()
}

/// The rules of a public address.
pub async fn of_ip(db: &Db, ip: i64) -> Result<Vec<Rule>> {
    db.all(Sql::new(&by("ip_id")).bind(ip)).await?.iter().map(read).collect()
}

/// The same within a transaction.
pub async fn of_ip_in(tx: &mut Tx, ip: i64) -> Result<Vec<Rule>> {
    tx.all(Sql::new(&by("ip_id")).bind(ip)).await?.iter().map(read).collect()
}

/// The Egress rules of a network.
pub async fn egress_in(tx: &mut Tx, network: i64) -> Result<Vec<Rule>> {
    let sql =
        format!("SELECT {COLUMNS} FROM firewall_rules f WHERE f.network_id = ? AND f.traffic = 'Egress' ORDER BY f.id");
    tx.all(Sql::new(&sql).bind(network)).await?.iter().map(read).collect()
}

/// All rules of a network.
pub async fn of_network_in(tx: &mut Tx, network: i64) -> Result<Vec<Rule>> {
    tx.all(Sql::new(&by("network_id")).bind(network)).await?.iter().map(read).collect()
}

/// The port forwarding rules to a VM.
pub async fn of_vm_in(tx: &mut Tx, vm: i64) -> Result<Vec<Rule>> {
    tx.all(Sql::new(&by("vm_id")).bind(vm)).await?.iter().map(read).collect()
}

/// A rule with those that were made for it.
pub async fn with_related_in(tx: &mut Tx, id: i64) -> Result<Vec<Rule>> {
    let sql = format!("SELECT {COLUMNS} FROM firewall_rules f WHERE f.id = ? OR f.related_id = ? ORDER BY f.id");
    tx.all(Sql::new(&sql).bind(id).bind(id)).await?.iter().map(read).collect()
}

/// The numbers of the rules that were made for one.
pub async fn related(db: &Db, id: i64) -> Result<Vec<i64>> {
    let sql = Sql::new("SELECT id FROM firewall_rules WHERE related_id = ? ORDER BY id");
    db.all(sql.bind(id)).await?.iter().map(|r| r.at(0)).collect()
}

/// Writes a rule.
pub async fn insert(tx: &mut Tx, r: &Rule) -> Result<()> {
    let target = r.target.as_ref();
    tx.exec(
        Sql::new(
            "INSERT INTO firewall_rules (id, uuid, purpose, traffic, state, ip_id, network_id, protocol, start_port, end_port, \
             icmp_type, icmp_code, cidrs, dest_cidrs, related_id, vm_id, vm_ip, vm_start_port, vm_end_port, display, is_system, \
             account_id, domain_id, domain_path, created) VALUES ",
        )
        .tuple([
            Value::from(r.id),
            (&r.uuid).into(),
            r.purpose.into(),
            r.traffic.into(),
            r.state.into(),
            r.ip_id.into(),
            r.network_id.into(),
            (&r.protocol).into(),
            r.start_port.into(),
            r.end_port.into(),
            r.icmp_type.into(),
            r.icmp_code.into(),
            r.cidrs.join(",").into(),
            r.dest_cidrs.join(",").into(),
            r.related_id.into(),
            target.map(|t| t.vm_id).into(),
            target.map(|t| t.ip.clone()).into(),
            target.map(|t| t.start_port).into(),
            target.map(|t| t.end_port).into(),
            r.display.into(),
            r.system.into(),
            r.owner.account_id.into(),
            r.owner.domain_id.into(),
            (&r.owner.domain_path).into(),
            now_micros().into(),
        ]),
    )
    .await
    .map(drop)
}

/// Moves rules between states; those in none of `from` stay. Gives how many moved.
pub async fn set_state(tx: &mut Tx, ids: &[i64], from: &[RuleState], to: RuleState) -> Result<u64> {
    let sql = Sql::new("UPDATE firewall_rules SET state = ? WHERE ").bind(to);
    let sql = sql.in_list("id", ids.iter().copied()).push(" AND ").in_list("state", from.iter().copied());
    tx.exec(sql).await
}

/// Deletes rules that are in one of these states. Gives how many.
pub async fn delete(tx: &mut Tx, ids: &[i64], states: &[RuleState]) -> Result<u64> {
    let sql = Sql::new("DELETE FROM firewall_rules WHERE ").in_list("id", ids.iter().copied());
    tx.exec(sql.push(" AND ").in_list("state", states.iter().copied())).await
}

/// Deletes rules, whatever their state.
pub async fn delete_all(tx: &mut Tx, ids: &[i64]) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM firewall_rules WHERE ").in_list("id", ids.iter().copied())).await.map(drop)
}

/// Writes another target. False: the rule is gone, or on its way out.
pub async fn set_target(tx: &mut Tx, id: i64, t: &Target, state: RuleState) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE firewall_rules SET vm_id = ?, vm_ip = ?, vm_start_port = ?, vm_end_port = ?, state = ? WHERE id = ? AND \
         state IN ('Add', 'Active')",
    );
    let sql = sql.bind(t.vm_id).bind(&t.ip).bind(t.start_port).bind(t.end_port).bind(state).bind(id);
    Ok(tx.exec(sql).await? > 0)
}

/// Writes what doesn't concern the router. False: the rule is gone. A unique violation: the UUID is taken.
pub async fn update(tx: &mut Tx, id: i64, display: Option<bool>, uuid: Option<&str>) -> Result<bool> {
    let sql = Sql::new("UPDATE firewall_rules SET id = id")
        .push_if(", display = ?", display)
        .push_if(", uuid = ?", uuid)
        .push(" WHERE id = ?")
        .bind(id);
    tx.exec(sql).await?;
    Ok(one_in(tx, id).await?.is_some())
}

/// Filters of a list.
#[derive(Clone, Debug)]
pub struct Filter {
    /// What for.
    pub purpose: Purpose,
    /// Which way.
    pub traffic: Traffic,
    /// Number.
    pub id: Option<i64>,
    /// Public address.
    pub ip_id: Option<i64>,
    /// Network.
    pub network_id: Option<i64>,
    /// The VM that gets the traffic, by the rule or by the address that stands for it.
    pub vm_id: Option<i64>,
    /// Visible to owners.
    pub display: Option<bool>,
    /// Part of protocol or public address, lower-cased.
    pub keyword: Option<String>,
    /// Kind of resource of the tags.
    pub tag_kind: &'static str,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

/// A page of them, the newest first.
pub async fn list(db: &Db, f: &Filter, scope: &ListScope, p: &model::Page) -> Result<(Vec<Rule>, i64)> {
    let query = |head: &str| {
        let mut sql = Sql::new(head)
            .push(" FROM firewall_rules f WHERE f.purpose = ? AND f.traffic = ?")
            .bind(f.purpose)
            .bind(f.traffic)
            .push_if(" AND f.id = ?", f.id)
            .push_if(" AND f.ip_id = ?", f.ip_id)
            .push_if(" AND f.network_id = ?", f.network_id)
            .push_if(" AND f.display = ?", f.display);
        if let Some(vm) = f.vm_id {
            sql = sql
                .push(" AND (f.vm_id = ? OR f.ip_id IN (SELECT i.id FROM ip_addresses i WHERE i.vm_id = ? AND i.is_static_nat <> 0))")
                .bind(vm)
                .bind(vm);
        }
        if let Some(k) = &f.keyword {
            sql = sql.push(" AND (").contains("f.protocol", k);
            sql = sql.push(" OR f.ip_id IN (SELECT i.id FROM ip_addresses i WHERE ").contains("i.ip", k).push("))");
        }
        scope.and(model::tags::filter(sql, f.tag_kind, "f.id", &f.tags), "f.")
    };
    page(db, p, COLUMNS, query, " ORDER BY f.id DESC", read).await
}
