//! Affinity groups and who is in them.

use super::{Reader, live_key, lower, paged};
use crate::affinity::Kind;
use ::store::{Db, Error, Result, Row, Sql, Tx, Value, now_micros};
use model::{ListScope, Owner, Page};
use std::collections::HashMap;

/// A living group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// What it asks for.
    pub kind: Kind,
    /// For people.
    pub description: Option<String>,
    /// Who owns it: of a domain's group the system account, in that domain.
    pub owner: Owner,
    /// Whether it belongs to a domain, and to those below it.
    pub of_domain: bool,
}

impl GroupRow {
    /// Whether VMs of `owner` may be in it (VM-197).
    pub fn admits(&self, owner: &Owner) -> bool {
        match self.of_domain {
            true => owner.domain_path.starts_with(&self.owner.domain_path),
            false => owner.account_id == self.owner.account_id,
        }
    }
}

const COLUMNS: &str =
    "g.id, g.uuid, g.name, g.type, g.description, g.account_id, g.domain_id, g.domain_path, g.is_public";

fn read(r: &Row) -> Result<GroupRow> {
    let kind: String = r.at(3)?;
    Ok(GroupRow {
        id: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        kind: Kind::parse(&kind)
            .ok_or_else(|| Error::Column { column: "type".into(), reason: format!("{kind} is no type of groups") })?,
        description: r.at(4)?,
        owner: Owner { account_id: r.at(5)?, domain_id: r.at(6)?, domain_path: r.at(7)? },
        of_domain: r.at(8)?,
    })
}

async fn some(from: impl Reader, sql: Sql) -> Result<Vec<GroupRow>> {
    from.rows(sql).await?.iter().map(read).collect()
}

fn select() -> Sql {
    Sql::new(&format!("SELECT {COLUMNS} FROM affinity_groups g WHERE g.removed IS NULL AND "))
}

/// Living groups by number.
pub async fn find(from: impl Reader, ids: &[i64]) -> Result<Vec<GroupRow>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    some(from, select().in_list("g.id", ids.iter().copied()).push(" ORDER BY g.id")).await
}

/// The groups that a VM of `owner` can be put in by these names: those of its account, and of its domain and those above.
pub async fn named(from: impl Reader, owner: &Owner, names: &[String]) -> Result<Vec<GroupRow>> {
    let line = crate::reach::line(&owner.domain_path);
    let sql = select()
        .in_list("g.name_lower", names.iter().map(|n| lower(n)))
        .push(" AND ((g.is_public = 0 AND g.account_id = ?) OR (g.is_public = 1 AND ")
        .bind(owner.account_id)
        .in_list("g.domain_id", line)
        .push(")) ORDER BY g.id");
    some(from, sql).await
}

/// The group of dedicated resources of an account, or of a domain.
pub async fn of_dedications(tx: &mut Tx, domain: i64, account: Option<i64>) -> Result<Option<GroupRow>> {
    let sql = select().push("g.type = ? AND ").bind(Kind::Dedicated.word());
    let sql = match account {
        Some(account) => sql.push("g.is_public = 0 AND g.account_id = ?").bind(account),
        None => sql.push("g.is_public = 1 AND g.domain_id = ?").bind(domain),
    };
    Ok(some(tx, sql).await?.into_iter().next())
}

/// Writes a group. Gives whether its name was free.
pub async fn insert(tx: &mut Tx, g: &GroupRow) -> Result<bool> {
    let scope = match g.of_domain {
        true => format!("domain/{}", g.owner.domain_id),
        false => format!("account/{}", g.owner.account_id),
    };
    let sql = Sql::new(
        "INSERT INTO affinity_groups (id, uuid, name, name_lower, live_key, type, description, account_id, domain_id, \
         domain_path, is_public, touched, created) VALUES ",
    )
    .tuple([
        Value::from(g.id),
        Value::from(&g.uuid),
        Value::from(&g.name),
        Value::from(lower(&g.name)),
        Value::from(live_key(&scope, &g.name)),
        Value::from(g.kind.word()),
        Value::from(g.description.as_deref()),
        Value::from(g.owner.account_id),
        Value::from(g.owner.domain_id),
        Value::from(&g.owner.domain_path),
        Value::from(g.of_domain),
        Value::from(0i64),
        Value::from(now_micros()),
    ]);
    match tx.exec(sql).await {
        Ok(_) => Ok(true),
        Err(e @ Error::Unique { .. }) if e.is_unique("live_key") => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes its turn at these groups: until this transaction ends nobody else places or adds a VM of them, or deletes one. Gives
/// whether all of them live.
pub async fn hold(tx: &mut Tx, ids: &[i64]) -> Result<bool> {
    // One after the other, in the order of their numbers: two transactions never wait for each other.
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let mut all = true;
    for id in ids {
        let sql = Sql::new("UPDATE affinity_groups SET touched = touched + 1 WHERE id = ? AND removed IS NULL");
        all &= tx.exec(sql.bind(id)).await? == 1;
    }
    Ok(all)
}

/// Puts a VM in groups that are held.
pub async fn join(tx: &mut Tx, vm: i64, ids: &[i64]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("INSERT INTO affinity_group_vms (group_id, vm_id) VALUES ");
    for (i, id) in ids.iter().enumerate() {
        sql = sql.push(if i == 0 { "" } else { ", " }).tuple([Value::from(*id), Value::from(vm)]);
    }
    tx.exec(sql).await.map(drop)
}

/// Takes a VM out of all its groups.
pub async fn leave(tx: &mut Tx, vm: i64) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM affinity_group_vms WHERE vm_id = ?").bind(vm)).await.map(drop)
}

/// Ends a group; its VMs go on without it (VM-202). Gives whether it lived.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    if !super::remove(tx, "affinity_groups", id).await? {
        return Ok(false);
    }
    tx.exec(Sql::new("DELETE FROM affinity_group_vms WHERE group_id = ?").bind(id)).await?;
    Ok(true)
}

/// The groups of a VM.
pub async fn of_vm(from: impl Reader, vm: i64) -> Result<Vec<GroupRow>> {
    let sql = select()
        .push("EXISTS (SELECT 1 FROM affinity_group_vms m WHERE m.group_id = g.id AND m.vm_id = ?) ORDER BY g.id");
    some(from, sql.bind(vm)).await
}

/// The groups of VMs, by VM.
pub async fn of_vms(from: impl Reader, vms: &[i64]) -> Result<HashMap<i64, Vec<GroupRow>>> {
    let mut found: HashMap<i64, Vec<GroupRow>> = HashMap::new();
    if vms.is_empty() {
        return Ok(found);
    }
    let sql = Sql::new(&format!(
        "SELECT {COLUMNS}, m.vm_id FROM affinity_group_vms m JOIN affinity_groups g ON g.id = m.group_id WHERE "
    ))
    .in_list("m.vm_id", vms.iter().copied())
    .push(" ORDER BY g.id");
    for r in &from.rows(sql).await? {
        found.entry(r.at(9)?).or_default().push(read(r)?);
    }
    Ok(found)
}

/// UUIDs of the VMs of groups, by group: those within `scope`.
pub async fn members(db: &Db, groups: &[i64], scope: &ListScope) -> Result<HashMap<i64, Vec<String>>> {
    let mut found: HashMap<i64, Vec<String>> = HashMap::new();
    if groups.is_empty() {
        return Ok(found);
    }
    let sql = Sql::new(
        "SELECT m.group_id, v.uuid FROM affinity_group_vms m JOIN vms v ON v.id = m.vm_id WHERE v.removed IS NULL AND ",
    )
    .in_list("m.group_id", groups.iter().copied());
    for r in db.all(scope.and(sql, "v.").push(" ORDER BY v.id")).await? {
        found.entry(r.at(0)?).or_default().push(r.at(1)?);
    }
    Ok(found)
}

/// Where VMs of these groups, other than `vm`, hold capacity: group and host. One that moves is at both of its hosts.
pub async fn hosts_of(from: impl Reader, groups: &[i64], vm: i64) -> Result<Vec<(i64, i64)>> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new("");
    for (i, table) in ["vm_capacity", "vm_moves"].iter().enumerate() {
        sql = sql
            .push(if i == 0 { "" } else { " UNION ALL " })
            .push("SELECT m.group_id, c.host_id FROM affinity_group_vms m JOIN ")
            .push(table)
            .push(" c ON c.vm_id = m.vm_id WHERE m.vm_id <> ? AND ")
            .bind(vm)
            .in_list("m.group_id", groups.iter().copied());
    }
    from.rows(sql).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

/// The id path of an account's domain.
pub async fn account_path(db: &Db, account: i64) -> Result<Option<String>> {
    let sql = Sql::new("SELECT domain_path FROM accounts WHERE id = ?").bind(account);
    db.optional(sql).await?.map(|r| r.at(0)).transpose()
}

/// What a list is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct GroupFilter {
    /// Only this one.
    pub id: Option<i64>,
    /// Exactly this name.
    pub name: Option<String>,
    /// Exactly this type.
    pub kind: Option<String>,
    /// Part of the name, or of the type.
    pub keyword: Option<String>,
    /// Only those of this VM.
    pub vm: Option<i64>,
    /// Domains whose groups are shown beside what the scope allows.
    pub domains: Vec<i64>,
}

/// A page of groups, and how many there are.
pub async fn list(db: &Db, scope: &ListScope, filter: &GroupFilter, page: Page) -> Result<(Vec<GroupRow>, i64)> {
    let body = |sql: Sql| {
        // The scope's own condition begins with AND.
        let sql = sql.push(" FROM affinity_groups g WHERE g.removed IS NULL AND ((1 = 1");
        let sql = scope.and(sql, "g.").push(")");
        let sql = match filter.domains.is_empty() {
            true => sql,
            false => sql.push(" OR (g.is_public = 1 AND ").in_list("g.domain_id", filter.domains.clone()).push(")"),
        };
        let sql = sql
            .push(")")
            .push_if(" AND g.id = ?", filter.id)
            .push_if(" AND g.name_lower = ?", filter.name.as_deref().map(lower))
            .push_if(" AND g.type = ?", filter.kind.as_deref())
            .push_if(
                " AND EXISTS (SELECT 1 FROM affinity_group_vms m WHERE m.group_id = g.id AND m.vm_id = ?)",
                filter.vm,
            );
        match filter.keyword.as_deref().map(str::to_lowercase) {
            Some(word) => {
                sql.push(" AND (").contains("g.name_lower", &word).push(" OR ").contains("g.type", &word).push(")")
            }
            None => sql,
        }
    };
    let (rows, count) = paged(db, COLUMNS, body, "g.id", page).await?;
    Ok((rows.iter().map(read).collect::<Result<_>>()?, count))
}
