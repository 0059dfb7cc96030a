//! Roles and their ordered rules.

use super::source::Source;
use std::collections::{HashMap, HashSet};
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Type, "DomainAdmin".
    pub kind: String,
    /// Description.
    pub description: Option<String>,
    /// Whether it came with the installation.
    pub is_default: bool,
    /// Whether it is gone.
    pub removed: bool,
}

/// A rule of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Its role.
    pub role_id: i64,
    /// Command name or pattern.
    pub rule: String,
    /// "allow" or "deny".
    pub permission: String,
    /// Description.
    pub description: Option<String>,
    /// Its place among the role's rules.
    pub order: i64,
}

const COLUMNS: &str = "id, uuid, name, type, description, is_default, removed";
const RULE_COLUMNS: &str = "id, uuid, role_id, rule, permission, description, sort_order";
/// Rules that one statement inserts.
const CHUNK: usize = 100;

fn read(r: &Row) -> Result<RoleRow> {
    Ok(RoleRow {
        id: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        kind: r.at(3)?,
        description: r.at(4)?,
        is_default: r.at(5)?,
        removed: r.at::<Option<i64>>(6)?.is_some(),
    })
}

fn read_rule(r: &Row) -> Result<RuleRow> {
    Ok(RuleRow {
        id: r.at(0)?,
        uuid: r.at(1)?,
        role_id: r.at(2)?,
        rule: r.at(3)?,
        permission: r.at(4)?,
        description: r.at(5)?,
        order: r.at(6)?,
    })
}

/// A role by number, removed ones included.
pub async fn find<'a>(from: impl Into<Source<'a>>, id: i64) -> Result<Option<RoleRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM roles WHERE id = ?")).bind(id);
    from.into().optional(sql).await?.map(|r| read(&r)).transpose()
}

/// Roles by number, removed ones included.
pub async fn of_ids(from: &mut Source<'_>, ids: HashSet<i64>) -> Result<HashMap<i64, RoleRow>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM roles WHERE ")).in_list("id", ids);
    from.all(sql).await?.iter().map(|r| read(r).map(|x| (x.id, x))).collect()
}

/// Living roles, by number.
pub async fn list(db: &Db, id: Option<i64>, name: Option<&str>, kind: Option<&str>) -> Result<Vec<RoleRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM roles WHERE removed IS NULL"))
        .push_if(" AND id = ?", id)
        .push_if(" AND name = ?", name)
        .push_if(" AND type = ?", kind)
        .push(" ORDER BY id");
    db.all(sql).await?.iter().map(read).collect()
}

/// Whether another living role than `but` has this name, in whatever case. Whoever is about to give a name asks under a lock
/// that all who do so take: the row of the first role.
pub async fn is_taken(tx: &mut Tx, name: &str, but: i64) -> Result<bool> {
    tx.exec("UPDATE roles SET changes = changes + 1 WHERE id = 1").await?;
    let sql = Sql::new("SELECT name FROM roles WHERE removed IS NULL AND id <> ?").bind(but);
    let name = name.to_lowercase();
    let others: Vec<String> = tx.all(sql).await?.iter().map(|r| r.at(0)).collect::<Result<_>>()?;
    Ok(others.iter().any(|other| other.to_lowercase() == name))
}

/// Adds a role.
pub async fn insert(tx: &mut Tx, role: &RoleRow) -> Result<()> {
    tx.exec(
        Sql::new("INSERT INTO roles (id, uuid, name, type, description, is_default, changes, created) VALUES (?, ?, ?, ?, ?, ?, 0, ?)")
            .bind(role.id)
            .bind(&role.uuid)
            .bind(&role.name)
            .bind(&role.kind)
            .bind(role.description.clone())
            .bind(role.is_default)
            .bind(now_micros()),
    )
    .await
    .map(drop)
}

/// Writes name, type and description.
pub async fn update(tx: &mut Tx, role: &RoleRow) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE roles SET name = ?, type = ?, description = ?, changes = changes + 1 WHERE id = ? AND removed IS NULL",
    );
    let sql = sql.bind(&role.name).bind(&role.kind).bind(role.description.clone()).bind(role.id);
    Ok(tx.exec(sql).await? > 0)
}

/// Marks that the role's rules or users change, so that changes follow one another. Tells whether it is alive.
pub async fn touch(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new("UPDATE roles SET changes = changes + 1 WHERE id = ? AND removed IS NULL").bind(id);
    Ok(tx.exec(sql).await? > 0)
}

/// Removes a role and its rules.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
    tx.exec(Sql::new("UPDATE roles SET removed = ?, changes = changes + 1 WHERE id = ?").bind(now_micros()).bind(id))
        .await?;
    tx.exec(Sql::new("DELETE FROM role_permissions WHERE role_id = ?").bind(id)).await.map(drop)
}

/// How many living accounts have the role.
pub async fn accounts_with(tx: &mut Tx, id: i64) -> Result<i64> {
    tx.one(Sql::new("SELECT COUNT(*) FROM accounts WHERE role_id = ? AND removed IS NULL").bind(id)).await?.at(0)
}

/// The rules of a role, in order; of all living roles without one.
pub async fn rules<'a>(from: impl Into<Source<'a>>, role: Option<i64>) -> Result<Vec<RuleRow>> {
    let sql = Sql::new(&format!("SELECT {RULE_COLUMNS} FROM role_permissions WHERE removed IS NULL"))
        .push_if(" AND role_id = ?", role)
        .push(" ORDER BY role_id, sort_order, id");
    from.into().all(sql).await?.iter().map(read_rule).collect()
}

/// A rule by number.
pub async fn rule(db: &Db, id: i64) -> Result<Option<RuleRow>> {
    let sql = Sql::new(&format!("SELECT {RULE_COLUMNS} FROM role_permissions WHERE id = ?")).bind(id);
    db.optional(sql).await?.map(|r| read_rule(&r)).transpose()
}

/// Adds rules.
pub async fn insert_rules(tx: &mut Tx, rules: &[RuleRow]) -> Result<()> {
    for some in rules.chunks(CHUNK) {
        let mut sql = Sql::new(
            "INSERT INTO role_permissions (id, uuid, role_id, rule, permission, description, sort_order) VALUES ",
        );
        for (i, r) in some.iter().enumerate() {
            sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
                Value::from(r.id),
                Value::from(&r.uuid),
                Value::from(r.role_id),
                Value::from(&r.rule),
                Value::from(&r.permission),
                Value::from(r.description.clone()),
                Value::from(r.order),
            ]);
        }
        tx.exec(sql).await?;
    }
    Ok(())
}

/// Sets what a rule does with what it matches.
pub async fn set_permission(tx: &mut Tx, rule: i64, permission: &str) -> Result<bool> {
    let sql = Sql::new("UPDATE role_permissions SET permission = ? WHERE id = ?").bind(permission).bind(rule);
    Ok(tx.exec(sql).await? > 0)
}

/// Puts a rule in its place.
pub async fn set_order(tx: &mut Tx, rule: i64, order: i64) -> Result<()> {
    let sql = Sql::new("UPDATE role_permissions SET sort_order = ? WHERE id = ?").bind(order).bind(rule);
    tx.exec(sql).await.map(drop)
}

/// Deletes a rule. Tells whether there was one.
pub async fn delete_rule(tx: &mut Tx, rule: i64) -> Result<bool> {
    Ok(tx.exec(Sql::new("DELETE FROM role_permissions WHERE id = ?").bind(rule)).await? > 0)
}
