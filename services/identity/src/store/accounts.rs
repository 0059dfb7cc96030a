//! Accounts and their details.

use super::source::{Source, within};
use model::{ListScope, Owner, Page, Paged};
use std::collections::{BTreeMap, HashMap};
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Account type: 0, 1, 2, 3.
    pub kind: i32,
    /// Its role.
    pub role_id: i64,
    /// Its domain.
    pub domain_id: i64,
    /// The domain's path of numbers.
    pub domain_path: String,
    /// "enabled", "disabled", "locked".
    pub state: String,
    /// Whether a deletion didn't get through.
    pub cleanup_needed: bool,
    /// Whether it came with the installation.
    pub is_default: bool,
    /// DNS domain of guests.
    pub network_domain: Option<String>,
    /// Default zone.
    pub default_zone_id: Option<i64>,
    /// Whether it is gone.
    pub removed: bool,
}

impl AccountRow {
    /// It as an owner of things.
    pub fn owner(&self) -> Owner {
        Owner { account_id: self.id, domain_id: self.domain_id, domain_path: self.domain_path.clone() }
    }
}

/// The built-in account that no list shows.
pub const SYSTEM: i64 = 1;

const COLUMNS: &str = "a.id, a.uuid, a.name, a.type, a.role_id, a.domain_id, a.domain_path, a.state, a.cleanup_needed, \
                       a.is_default, a.network_domain, a.default_zone_id, a.removed";

fn read(r: &Row) -> Result<AccountRow> {
    Ok(AccountRow {
        id: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        kind: r.at(3)?,
        role_id: r.at(4)?,
        domain_id: r.at(5)?,
        domain_path: r.at(6)?,
        state: r.at(7)?,
        cleanup_needed: r.at(8)?,
        is_default: r.at(9)?,
        network_domain: r.at(10)?,
        default_zone_id: r.at(11)?,
        removed: r.at::<Option<i64>>(12)?.is_some(),
    })
}

fn live_key(domain: i64, name: &str) -> String {
    format!("{domain}/{}", name.to_lowercase())
}

/// An account by number, removed ones included.
pub async fn find<'a>(from: impl Into<Source<'a>>, id: i64) -> Result<Option<AccountRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM accounts a WHERE a.id = ?")).bind(id);
    from.into().optional(sql).await?.map(|r| read(&r)).transpose()
}

/// The living account of this name. Case doesn't count.
pub async fn by_name(db: &Db, domain: i64, name: &str) -> Result<Option<AccountRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM accounts a WHERE a.live_key = ?")).bind(live_key(domain, name));
    db.optional(sql).await?.map(|r| read(&r)).transpose()
}

/// The living accounts of a domain and all below it.
pub async fn subtree(from: &mut Source<'_>, path: &str) -> Result<Vec<AccountRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM accounts a WHERE a.removed IS NULL AND "));
    from.all(within(sql, "a.domain_path", path).push(" ORDER BY a.id")).await?.iter().map(read).collect()
}

/// Which accounts a list shows.
#[derive(Clone, Debug)]
pub struct Filter<'a> {
    /// Owner filter.
    pub scope: ListScope,
    /// This one.
    pub id: Option<i64>,
    /// Of this type.
    pub kind: Option<i64>,
    /// Of this name.
    pub name: Option<&'a str>,
    /// In this state.
    pub state: Option<&'a str>,
    /// With or without an unfinished deletion.
    pub cleanup_needed: Option<bool>,
    /// Whose name contains this.
    pub keyword: Option<&'a str>,
}

impl Filter<'_> {
    fn apply(&self, mut sql: Sql) -> Sql {
        sql = sql.push(" WHERE a.removed IS NULL AND a.id <> ? AND a.type <> 5").bind(SYSTEM);
        sql = match &self.scope {
            ListScope::Account(id) => sql.push(" AND a.id = ?").bind(*id),
            other => other.and(sql, "a."),
        };
        sql = sql
            .push_if(" AND a.id = ?", self.id)
            .push_if(" AND a.type = ?", self.kind)
            .push_if(" AND a.name_lower = ?", self.name.map(str::to_lowercase))
            .push_if(" AND a.state = ?", self.state.map(str::to_lowercase))
            .push_if(" AND a.cleanup_needed = ?", self.cleanup_needed);
        match self.keyword.map(str::to_lowercase) {
            Some(word) => {
                let sql = sql.push(" AND (").contains("a.name_lower", &word).push(" OR ");
                sql.contains("a.state", &word).push(")")
            }
            None => sql,
        }
    }
}

/// A page of accounts, by number, and how many there are on all pages.
pub async fn page(db: &Db, filter: &Filter<'_>, page: Page) -> Result<(Vec<AccountRow>, i64)> {
    let sql = filter.apply(Sql::new(&format!("SELECT {COLUMNS} FROM accounts a"))).push(" ORDER BY a.id");
    let rows: Vec<AccountRow> = db.all(page.apply(sql)).await?.iter().map(read).collect::<Result<_>>()?;
    let count = match page.proves_count(rows.len()) {
        Some(count) => count,
        None => db.one(filter.apply(Sql::new("SELECT COUNT(*) FROM accounts a"))).await?.at(0)?,
    };
    Ok((rows, count))
}

/// Adds an account.
pub async fn insert(tx: &mut Tx, account: &AccountRow) -> Result<()> {
    tx.exec(
        Sql::new(
            "INSERT INTO accounts (id, uuid, name, name_lower, type, role_id, domain_id, domain_path, live_key, state, \
             cleanup_needed, is_default, network_domain, changes, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 0, ?)",
        )
        .bind(account.id)
        .bind(&account.uuid)
        .bind(&account.name)
        .bind(account.name.to_lowercase())
        .bind(account.kind)
        .bind(account.role_id)
        .bind(account.domain_id)
        .bind(&account.domain_path)
        .bind(live_key(account.domain_id, &account.name))
        .bind(&account.state)
        .bind(account.is_default)
        .bind(account.network_domain.clone())
        .bind(now_micros()),
    )
    .await
    .map(drop)
}

/// Marks that something is being added to the account. Tells whether it is alive.
pub async fn touch(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new("UPDATE accounts SET changes = changes + 1 WHERE id = ? AND removed IS NULL").bind(id);
    Ok(tx.exec(sql).await? > 0)
}

/// Gives an account another name.
pub async fn rename(tx: &mut Tx, account: &AccountRow, name: &str) -> Result<()> {
    tx.exec(
        Sql::new("UPDATE accounts SET name = ?, name_lower = ?, live_key = ?, changes = changes + 1 WHERE id = ?")
            .bind(name)
            .bind(name.to_lowercase())
            .bind(live_key(account.domain_id, name))
            .bind(account.id),
    )
    .await
    .map(drop)
}

/// Sets the DNS domain of guests; `None` clears it.
pub async fn set_network_domain(tx: &mut Tx, id: i64, network_domain: Option<&str>) -> Result<()> {
    let sql = Sql::new("UPDATE accounts SET network_domain = ?, changes = changes + 1 WHERE id = ?");
    tx.exec(sql.bind(network_domain).bind(id)).await.map(drop)
}

/// Sets the state. Tells whether the account is alive.
pub async fn set_state(tx: &mut Tx, id: i64, state: &str) -> Result<bool> {
    let sql = Sql::new("UPDATE accounts SET state = ?, changes = changes + 1 WHERE id = ? AND removed IS NULL");
    Ok(tx.exec(sql.bind(state).bind(id)).await? > 0)
}

/// Notes whether a deletion didn't get through.
pub async fn set_cleanup_needed(tx: &mut Tx, id: i64, needed: bool) -> Result<()> {
    let sql = Sql::new("UPDATE accounts SET cleanup_needed = ?, changes = changes + 1 WHERE id = ?");
    tx.exec(sql.bind(needed).bind(id)).await.map(drop)
}

/// Removes an account.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
    let sql = Sql::new(
        "UPDATE accounts SET removed = ?, live_key = NULL, cleanup_needed = 0, changes = changes + 1 WHERE id = ? AND removed IS NULL",
    );
    tx.exec(sql.bind(now_micros()).bind(id)).await?;
    tx.exec(Sql::new("DELETE FROM account_details WHERE account_id = ?").bind(id)).await.map(drop)
}

/// Details by account.
pub async fn details(from: &mut Source<'_>, accounts: Vec<i64>) -> Result<HashMap<i64, BTreeMap<String, String>>> {
    let mut all: HashMap<i64, BTreeMap<String, String>> = HashMap::new();
    if accounts.is_empty() {
        return Ok(all);
    }
    let sql = Sql::new("SELECT account_id, name, value FROM account_details WHERE ").in_list("account_id", accounts);
    for r in from.all(sql).await? {
        all.entry(r.at(0)?).or_default().insert(r.at(1)?, r.at(2)?);
    }
    Ok(all)
}

/// Replaces the details of an account.
pub async fn set_details<'a>(
    tx: &mut Tx,
    account: i64,
    details: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM account_details WHERE account_id = ?").bind(account)).await?;
    let mut sql = Sql::new("INSERT INTO account_details (account_id, name, value) VALUES ");
    let mut first = true;
    for (name, value) in details {
        sql = sql.push(if first { "" } else { ", " }).tuple([account.into(), Value::from(name), Value::from(value)]);
        first = false;
    }
    if first { Ok(()) } else { tx.exec(sql).await.map(drop) }
}
