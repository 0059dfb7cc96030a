//! The tree of domains.

use super::source::{Source, within};
use model::{Page, Paged};
use std::collections::{HashMap, HashSet};
use store::{Db, Result, Row, Sql, Tx, now_micros};

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Own name.
    pub name: String,
    /// Names from the root, "ROOT/a/b".
    pub name_path: String,
    /// Numbers from the root, "/1/5/".
    pub path: String,
    /// The domain above.
    pub parent: Option<i64>,
    /// 0 for the root.
    pub level: i64,
    /// "Active", or "Inactive" while it is being deleted.
    pub state: String,
    /// DNS domain of guests.
    pub network_domain: Option<String>,
    /// Whether it is gone.
    pub removed: bool,
}

impl DomainRow {
    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// Whether things may be added to it.
    pub fn is_active(&self) -> bool {
        !self.removed && self.state == ACTIVE
    }
}

/// State of a domain that is in use.
pub const ACTIVE: &str = "Active";
/// State of a domain that is being deleted.
pub const INACTIVE: &str = "Inactive";

const COLUMNS: &str = "id, uuid, name, name_path, path, parent, level, state, network_domain, removed";

fn read(r: &Row) -> Result<DomainRow> {
    Ok(DomainRow {
        id: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        name_path: r.at(3)?,
        path: r.at(4)?,
        parent: r.at(5)?,
        level: r.at(6)?,
        state: r.at(7)?,
        network_domain: r.at(8)?,
        removed: r.at::<Option<i64>>(9)?.is_some(),
    })
}

/// A domain by number, removed ones included.
pub async fn find<'a>(from: impl Into<Source<'a>>, id: i64) -> Result<Option<DomainRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM domains WHERE id = ?")).bind(id);
    from.into().optional(sql).await?.map(|r| read(&r)).transpose()
}

/// Domains by number, removed ones included.
pub async fn of_ids(from: &mut Source<'_>, ids: HashSet<i64>) -> Result<HashMap<i64, DomainRow>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM domains WHERE ")).in_list("id", ids);
    from.all(sql).await?.iter().map(|r| read(r).map(|d| (d.id, d))).collect()
}

/// The living domain with these names from the root, without "ROOT": `["a", "b"]`. Case doesn't count.
pub async fn by_names(db: &Db, names: &[&str]) -> Result<Option<DomainRow>> {
    let Some(last) = names.last() else {
        return find(db, 1).await;
    };
    let wanted = format!("root/{}", names.join("/").to_lowercase());
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM domains WHERE name_lower = ? AND removed IS NULL"))
        .bind(last.to_lowercase());
    for row in db.all(sql).await? {
        let domain = read(&row)?;
        if domain.name_path.to_lowercase() == wanted {
            return Ok(Some(domain));
        }
    }
    Ok(None)
}

/// The living domain with this UUID, or this number.
pub async fn by_id_text(db: &Db, id: &str) -> Result<Option<DomainRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM domains WHERE removed IS NULL AND (uuid = ?"))
        .bind(id)
        .push_if(" OR id = ?", id.parse::<i64>().ok())
        .push(")");
    db.optional(sql).await?.map(|r| read(&r)).transpose()
}

/// Which domains a list shows.
#[derive(Clone, Debug, Default)]
pub struct Filter<'a> {
    /// This one.
    pub id: Option<i64>,
    /// Those at or below this path.
    pub below: Option<&'a str>,
    /// Those of this name.
    pub name: Option<&'a str>,
    /// Those at this depth.
    pub level: Option<i32>,
    /// Those whose name contains this.
    pub keyword: Option<&'a str>,
}

impl Filter<'_> {
    fn apply(&self, mut sql: Sql) -> Sql {
        sql = sql.push(" WHERE removed IS NULL AND state = ?").bind(ACTIVE).push_if(" AND id = ?", self.id);
        if let Some(path) = self.below {
            sql = within(sql.push(" AND "), "path", path);
        }
        sql =
            sql.push_if(" AND name_lower = ?", self.name.map(str::to_lowercase)).push_if(" AND level = ?", self.level);
        match self.keyword {
            Some(word) => sql.push(" AND ").contains("name_lower", &word.to_lowercase()),
            None => sql,
        }
    }
}

/// A page of domains, by number, and how many there are on all pages.
pub async fn page(db: &Db, filter: &Filter<'_>, page: Page) -> Result<(Vec<DomainRow>, i64)> {
    let sql = filter.apply(Sql::new(&format!("SELECT {COLUMNS} FROM domains"))).push(" ORDER BY id");
    let rows: Vec<DomainRow> = db.all(page.apply(sql)).await?.iter().map(read).collect::<Result<_>>()?;
    let count = match page.proves_count(rows.len()) {
        Some(count) => count,
        None => db.one(filter.apply(Sql::new("SELECT COUNT(*) FROM domains"))).await?.at(0)?,
    };
    Ok((rows, count))
}

/// Which of these domains have a living domain right below.
pub async fn with_children(from: &mut Source<'_>, ids: Vec<i64>) -> Result<HashSet<i64>> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let sql = Sql::new("SELECT DISTINCT parent FROM domains WHERE removed IS NULL AND ").in_list("parent", ids);
    from.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// All living domains at or below a path, the deepest first.
pub async fn subtree(from: &mut Source<'_>, path: &str) -> Result<Vec<DomainRow>> {
    let sql = within(Sql::new(&format!("SELECT {COLUMNS} FROM domains WHERE removed IS NULL AND ")), "path", path)
        .push(" ORDER BY level DESC, id");
    from.all(sql).await?.iter().map(read).collect()
}

fn live_key(parent: Option<i64>, name: &str) -> String {
    format!("{}/{}", parent.unwrap_or(0), name.to_lowercase())
}

/// Adds a domain.
pub async fn insert(tx: &mut Tx, domain: &DomainRow, owner_account: i64) -> Result<()> {
    tx.exec(
        Sql::new(
            "INSERT INTO domains (id, uuid, name, name_lower, name_path, path, parent, level, live_key, state, network_domain, \
             owner_account_id, changes, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
        )
        .bind(domain.id)
        .bind(&domain.uuid)
        .bind(&domain.name)
        .bind(domain.name.to_lowercase())
        .bind(&domain.name_path)
        .bind(&domain.path)
        .bind(domain.parent)
        .bind(domain.level)
        .bind(live_key(domain.parent, &domain.name))
        .bind(&domain.state)
        .bind(domain.network_domain.clone())
        .bind(owner_account)
        .bind(now_micros()),
    )
    .await
    .map(drop)
}

/// Marks that something is being added to the domain, so that who deletes or counts it notices. Tells whether it is in use.
pub async fn touch(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new("UPDATE domains SET changes = changes + 1 WHERE id = ? AND removed IS NULL AND state = ?")
        .bind(id)
        .bind(ACTIVE);
    Ok(tx.exec(sql).await? > 0)
}

/// As [`touch`], for a domain and all below it.
pub async fn touch_subtree(tx: &mut Tx, path: &str) -> Result<()> {
    tx.exec(within(Sql::new("UPDATE domains SET changes = changes + 1 WHERE "), "path", path)).await.map(drop)
}

/// Gives a domain another name, and everything below it another path of names.
pub async fn rename(tx: &mut Tx, domain: &DomainRow, name: &str) -> Result<()> {
    let old_path = &domain.name_path;
    let head = old_path.len() - domain.name.len();
    let new_path = format!("{}{name}", &old_path[..head]);
    tx.exec(
        Sql::new("UPDATE domains SET name = ?, name_lower = ?, live_key = ?, changes = changes + 1 WHERE id = ?")
            .bind(name)
            .bind(name.to_lowercase())
            .bind(live_key(domain.parent, name))
            .bind(domain.id),
    )
    .await?;
    let rest = i64::try_from(old_path.chars().count() + 1).unwrap_or(i64::MAX);
    let sql = Sql::new("UPDATE domains SET name_path = ? || SUBSTR(name_path, ?) WHERE ").bind(new_path).bind(rest);
    tx.exec(within(sql, "path", &domain.path)).await.map(drop)
}

/// Sets the DNS domain of guests; `None` clears it.
pub async fn set_network_domain(tx: &mut Tx, id: i64, network_domain: Option<&str>) -> Result<()> {
    let sql = Sql::new("UPDATE domains SET network_domain = ?, changes = changes + 1 WHERE id = ?");
    tx.exec(sql.bind(network_domain).bind(id)).await.map(drop)
}

/// Sets the state of a domain and all below it.
pub async fn set_state(tx: &mut Tx, path: &str, state: &str) -> Result<()> {
    let sql = Sql::new("UPDATE domains SET state = ?, changes = changes + 1 WHERE removed IS NULL AND ").bind(state);
    tx.exec(within(sql, "path", path)).await.map(drop)
}

/// Removes a domain.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
    let sql =
        Sql::new("UPDATE domains SET removed = ?, live_key = NULL, state = ?, changes = changes + 1 WHERE id = ?");
    tx.exec(sql.bind(now_micros()).bind(INACTIVE).bind(id)).await.map(drop)
}
