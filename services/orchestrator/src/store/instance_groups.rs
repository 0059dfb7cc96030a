//! Groups of VMs, and which VM is in which.

use super::{Reader, lower, paged};
use ::store::{Db, Error, Result, Row, Sql, Tx, now_micros};
use model::{ListScope, Owner, Page};

/// A group.
#[derive(Clone, Debug)]
pub struct GroupRow {
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// When it was made, UTC µs.
    pub created: i64,
    /// Name of the account.
    pub account: String,
    /// UUID of the domain.
    pub domain_uuid: String,
    /// Name of the domain.
    pub domain: String,
}

const COLUMNS: &str = "g.uuid, g.name, g.created, a.name AS account, d.uuid AS domain_uuid, d.name AS domain";
const FROM: &str =
    " FROM instance_groups g JOIN accounts a ON a.id = g.account_id JOIN domains d ON d.id = g.domain_id";

fn read(r: &Row) -> Result<GroupRow> {
    Ok(GroupRow {
        uuid: r.at(0)?,
        name: r.at(1)?,
        created: r.at(2)?,
        account: r.at(3)?,
        domain_uuid: r.at(4)?,
        domain: r.at(5)?,
    })
}

/// Writes a group.
///
/// # Errors
/// [`Error::Unique`] when the account has one of this name.
pub async fn insert(tx: &mut Tx, id: i64, owner: &Owner, name: &str) -> Result<()> {
    let sql = Sql::new(
        "INSERT INTO instance_groups (id, uuid, name, name_lower, account_id, domain_id, domain_path, created) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let sql = sql.bind(id).bind(model::new_uuid()).bind(name).bind(lower(name));
    let sql = sql.bind(owner.account_id).bind(owner.domain_id).bind(&owner.domain_path).bind(now_micros());
    tx.exec(sql).await.map(drop)
}

/// A group by its number.
pub async fn find(from: impl Reader, id: i64) -> Result<Option<GroupRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS}{FROM} WHERE g.id = ?")).bind(id);
    from.rows(sql).await?.first().map(read).transpose()
}

/// Gives a group another name. False when it is gone.
///
/// # Errors
/// [`Error::Unique`] when the account has one of this name.
pub async fn rename(tx: &mut Tx, id: i64, name: &str) -> Result<bool> {
    // Its row counts as changed even if it has the name already.
    let exists = tx.optional(Sql::new("SELECT 1 FROM instance_groups WHERE id = ?").bind(id)).await?.is_some();
    let sql = Sql::new("UPDATE instance_groups SET name = ?, name_lower = ? WHERE id = ?");
    tx.exec(sql.bind(name).bind(lower(name)).bind(id)).await?;
    Ok(exists)
}

/// Deletes a group; its VMs are in none. False when it is gone already.
pub async fn delete(tx: &mut Tx, id: i64) -> Result<bool> {
    let gone = tx.exec(Sql::new("DELETE FROM instance_groups WHERE id = ?").bind(id)).await? == 1;
    tx.exec(Sql::new("UPDATE vms SET group_id = NULL WHERE group_id = ?").bind(id)).await?;
    Ok(gone)
}

/// Groups whose account is gone.
pub async fn orphaned(db: &Db) -> Result<Vec<i64>> {
    let sql = "SELECT g.id FROM instance_groups g JOIN accounts a ON a.id = g.account_id WHERE a.removed IS NOT NULL";
    db.all(Sql::new(sql)).await?.iter().map(|r| r.at(0)).collect()
}

/// Puts a VM into its owner's group of this name, which is made under the number `id` when there is none.
pub async fn join(tx: &mut Tx, vm: i64, owner: &Owner, name: &str, id: i64) -> Result<()> {
    match insert(tx, id, owner, name).await {
        Ok(()) | Err(Error::Unique { .. }) => {}
        Err(e) => return Err(e),
    }
    // As it is now, not as it was when this transaction began: another one may just have made it.
    let sql = Sql::new(
        "UPDATE vms SET group_id = (SELECT g.id FROM instance_groups g WHERE g.account_id = ? AND g.name = ?) WHERE id = ?",
    );
    tx.exec(sql.bind(owner.account_id).bind(name).bind(vm)).await.map(drop)
}

/// UUID of a VM's group.
pub async fn of_vm(tx: &mut Tx, vm: i64) -> Result<Option<String>> {
    let sql = Sql::new("SELECT g.uuid FROM vms v JOIN instance_groups g ON g.id = v.group_id WHERE v.id = ?");
    tx.optional(sql.bind(vm)).await?.map(|r| r.at(0)).transpose()
}

/// Takes a VM out of its group.
pub async fn leave(tx: &mut Tx, vm: i64) -> Result<()> {
    tx.exec(Sql::new("UPDATE vms SET group_id = NULL WHERE id = ?").bind(vm)).await.map(drop)
}

/// A page of groups, and how many there are.
pub async fn list(
    db: &Db,
    scope: &ListScope,
    id: Option<i64>,
    name: Option<&str>,
    keyword: Option<&str>,
    page: Page,
) -> Result<(Vec<GroupRow>, i64)> {
    let body = |sql: Sql| {
        let mut sql = scope.and(sql.push(FROM).push(" WHERE g.removed IS NULL"), "g.").push_if(" AND g.id = ?", id);
        for word in [name, keyword].into_iter().flatten() {
            sql = sql.push(" AND ").contains("g.name_lower", &word.to_lowercase());
        }
        sql
    };
    let (rows, count) = paged(db, COLUMNS, body, "g.id", page).await?;
    Ok((rows.iter().map(read).collect::<Result<_>>()?, count))
}
