//! Who is behind load balancing rules.

use std::collections::HashMap;
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// In routers' specs; the job that put it there hasn't ended.
pub const ADD: &str = "Add";
/// In routers' specs.
pub const ACTIVE: &str = "Active";
/// On its way out: in no spec any more.
pub const REVOKE: &str = "Revoke";

/// An address of a VM behind a rule.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Number.
    pub id: i64,
    /// The rule.
    pub rule_id: i64,
    /// The VM.
    pub vm_id: i64,
    /// Its interface.
    pub nic_id: i64,
    /// Its address in the rule's network.
    pub ip: String,
}

fn read(r: &Row) -> Result<Member> {
    Ok(Member { id: r.at(0)?, rule_id: r.at(1)?, vm_id: r.at(2)?, nic_id: r.at(3)?, ip: r.at(4)? })
}

const OF_RULE: &str = "SELECT id, rule_id, vm_id, nic_id, ip FROM lb_members WHERE rule_id = ? ORDER BY id";

/// The members of a rule, those on their way out too.
pub async fn of_rule(db: &Db, rule: i64) -> Result<Vec<Member>> {
    db.all(Sql::new(OF_RULE).bind(rule)).await?.iter().map(read).collect()
}

/// Writes members in state [`ADD`]. A unique violation: an address is behind the rule already.
pub async fn insert(tx: &mut Tx, members: &[Member]) -> Result<()> {
    let now = now_micros();
    let mut sql = Sql::new("INSERT INTO lb_members (id, rule_id, vm_id, nic_id, ip, state, created) VALUES ");
    for (i, m) in members.iter().enumerate() {
        sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
            Value::from(m.id),
            m.rule_id.into(),
            m.vm_id.into(),
            m.nic_id.into(),
            (&m.ip).into(),
            ADD.into(),
            now.into(),
        ]);
    }
    tx.exec(sql).await.map(drop)
}

/// Moves members between states; those in none of `from` stay. Gives how many moved.
pub async fn set_state(tx: &mut Tx, ids: &[i64], from: &[&str], to: &str) -> Result<u64> {
    let sql = Sql::new("UPDATE lb_members SET state = ? WHERE ").bind(to).in_list("id", ids.iter().copied());
    tx.exec(sql.push(" AND ").in_list("state", from.iter().copied())).await
}

/// Deletes members that are in this state. Gives how many.
pub async fn delete(tx: &mut Tx, ids: &[i64], state: &str) -> Result<u64> {
    let sql = Sql::new("DELETE FROM lb_members WHERE ").in_list("id", ids.iter().copied());
    tx.exec(sql.push(" AND state = ?").bind(state)).await
}

/// Whether anybody is behind a rule.
pub async fn any(tx: &mut Tx, rule: i64) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM lb_members WHERE rule_id = ? AND state <> 'Revoke' LIMIT 1");
    Ok(tx.optional(sql.bind(rule)).await?.is_some())
}

/// Takes a VM out of all rules, as its interfaces go. Rules with nobody behind them are Add again. Gives the networks of
/// those rules: their routers' specs change.
pub async fn remove_of_vm(tx: &mut Tx, vm: i64) -> Result<Vec<i64>> {
    let rows = tx
        .all(
            Sql::new(
                "SELECT f.id, f.network_id FROM lb_members m JOIN firewall_rules f ON f.id = m.rule_id WHERE m.vm_id = ? ORDER BY f.id",
            )
            .bind(vm),
        )
        .await?;
    let found: Vec<(i64, i64)> = rows.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect::<Result<_>>()?;
    // Unconditionally: what a rival has just written isn't in the rows above, but would be deleted.
    tx.exec(Sql::new("DELETE FROM lb_members WHERE vm_id = ?").bind(vm)).await?;
    let rules: Vec<i64> = super::zones::distinct(found.iter().map(|(rule, _)| *rule));
    if !rules.is_empty() {
        let sql = Sql::new("UPDATE firewall_rules SET state = 'Add' WHERE state = 'Active' AND ").in_list("id", rules);
        let sql = sql.push(
            " AND NOT EXISTS (SELECT 1 FROM lb_members m WHERE m.rule_id = firewall_rules.id AND m.state <> 'Revoke')",
        );
        tx.exec(sql).await?;
    }
    Ok(super::zones::distinct(found.into_iter().map(|(_, network)| network)))
}

/// A living interface that could be a member.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The interface.
    pub nic_id: i64,
    /// Its address.
    pub ip: String,
}

/// The living interfaces with an address that VMs have in a network, by VM.
pub async fn candidates(db: &Db, network: i64, vms: &[i64]) -> Result<HashMap<i64, Candidate>> {
    let sql = Sql::new("SELECT id, vm_id, ip FROM nics WHERE live_network = ? AND ip IS NOT NULL AND ")
        .bind(network)
        .in_list("vm_id", super::zones::distinct(vms.iter().copied()));
    db.all(sql).await?.iter().map(|r| Ok((r.at(1)?, Candidate { nic_id: r.at(0)?, ip: r.at(2)? }))).collect()
}

/// Whether a VM counts: not gone, nor on its way out.
pub fn is_there(vm: &super::vms::Vm) -> bool {
    use model::state::VmState;
    !vm.removed && !matches!(vm.state, VmState::Destroyed | VmState::Expunging | VmState::Error)
}
