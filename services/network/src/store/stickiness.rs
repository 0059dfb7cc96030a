//! Stickiness policies of load balancing rules: one a rule.

use model::Owner;
use std::collections::BTreeMap;
use store::{Db, Error, Result, Row, Sql, Tx, Value, now_micros};

/// Accepted; its job hasn't begun.
pub const STAGED: &str = "Staged";
/// In routers' specs; its job hasn't ended.
pub const ADD: &str = "Add";
/// In routers' specs.
pub const ACTIVE: &str = "Active";
/// On its way out: in no spec any more.
pub const REVOKE: &str = "Revoke";

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// The rule.
    pub rule_id: i64,
    /// Name.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// Method, as hosts call it.
    pub method: String,
    /// Parameters, by 4.11's names.
    pub params: BTreeMap<String, String>,
    /// Staged, Add, Active, Revoke.
    pub state: String,
    /// Whether its owner sees it.
    pub display: bool,
    /// Owner: the rule's.
    pub owner: Owner,
}

const COLUMNS: &str = "s.id, s.uuid, s.rule_id, s.name, s.description, s.method, s.params, s.state, s.display, s.account_id, \
     s.domain_id, s.domain_path";

/// Parameters as the database keeps them.
pub fn params(text: &str) -> Result<BTreeMap<String, String>> {
    serde_json::from_str(text).map_err(|e| Error::Column { column: "params".into(), reason: e.to_string() })
}

fn read(r: &Row) -> Result<Policy> {
    Ok(Policy {
        id: r.at(0)?,
        uuid: r.at(1)?,
        rule_id: r.at(2)?,
        name: r.at(3)?,
        description: r.at(4)?,
        method: r.at(5)?,
        params: params(&r.at::<String>(6)?)?,
        state: r.at(7)?,
        display: r.at(8)?,
        owner: Owner { account_id: r.at(9)?, domain_id: r.at(10)?, domain_path: r.at(11)? },
    })
}

/// One policy.
pub async fn one(db: &Db, id: i64) -> Result<Option<Policy>> {
    let sql = format!("SELECT {COLUMNS} FROM lb_stickiness s WHERE s.id = ?");
    db.optional(Sql::new(&sql).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// The policies of a rule.
pub async fn of_rule(db: &Db, rule: i64) -> Result<Vec<Policy>> {
    let sql = format!("SELECT {COLUMNS} FROM lb_stickiness s WHERE s.rule_id = ? ORDER BY s.id");
    db.all(Sql::new(&sql).bind(rule)).await?.iter().map(read).collect()
}

/// Writes a policy. A unique violation: the rule has one.
pub async fn insert(tx: &mut Tx, p: &Policy) -> Result<()> {
    let sql = Sql::new(
        "INSERT INTO lb_stickiness (id, uuid, rule_id, name, description, method, params, state, display, account_id, domain_id, \
         domain_path, created) VALUES ",
    )
    .tuple([
        Value::from(p.id),
        (&p.uuid).into(),
        p.rule_id.into(),
        (&p.name).into(),
        p.description.clone().into(),
        (&p.method).into(),
        serde_json::to_string(&p.params).unwrap_or_default().into(),
        (&p.state).into(),
        p.display.into(),
        p.owner.account_id.into(),
        p.owner.domain_id.into(),
        (&p.owner.domain_path).into(),
        now_micros().into(),
    ]);
    tx.exec(sql).await.map(drop)
}

/// Moves a policy between states. False: it is in none of `from`.
pub async fn set_state(tx: &mut Tx, id: i64, from: &[&str], to: &str) -> Result<bool> {
    let sql = Sql::new("UPDATE lb_stickiness SET state = ? WHERE id = ? AND ").bind(to).bind(id);
    Ok(tx.exec(sql.in_list("state", from.iter().copied())).await? > 0)
}

/// Deletes a policy that is in one of these states. False: it isn't.
pub async fn delete(tx: &mut Tx, id: i64, states: &[&str]) -> Result<bool> {
    let sql = Sql::new("DELETE FROM lb_stickiness WHERE id = ? AND ").bind(id);
    Ok(tx.exec(sql.in_list("state", states.iter().copied())).await? > 0)
}

/// Writes how a policy is shown. False: it is gone. A unique violation: the UUID is taken.
pub async fn update(tx: &mut Tx, id: i64, display: bool, uuid: &str) -> Result<bool> {
    let sql = Sql::new("UPDATE lb_stickiness SET display = ?, uuid = ? WHERE id = ?");
    Ok(tx.exec(sql.bind(display).bind(uuid).bind(id)).await? > 0)
}
