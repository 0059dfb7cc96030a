//! Regions.

use super::{Reader, lower, paged};
use ::store::{Db, Error, Result, Row, Sql, Tx, now_micros};
use model::Page;

/// A region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionRow {
    /// The number that its installation was given.
    pub id: i64,
    /// Name.
    pub name: String,
    /// URL of its API.
    pub endpoint: String,
    /// It is this installation.
    pub own: bool,
}

const COLUMNS: &str = "id, name, endpoint, own";

fn read(r: &Row) -> Result<RegionRow> {
    Ok(RegionRow { id: r.at(0)?, name: r.at(1)?, endpoint: r.at(2)?, own: r.at(3)? })
}

/// Which of the two things that a region has to itself is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The number.
    Id,
    /// The name.
    Name,
}

/// Writes a region, unless its number or its name is taken.
pub async fn insert(tx: &mut Tx, region: &RegionRow) -> Result<Option<Taken>> {
    if find(&mut *tx, region.id).await?.is_some() {
        return Ok(Some(Taken::Id));
    }
    let sql = Sql::new("INSERT INTO regions (id, name, name_lower, endpoint, own, created) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(region.id)
        .bind(&region.name)
        .bind(lower(&region.name))
        .bind(&region.endpoint)
        .bind(region.own)
        .bind(now_micros());
    match tx.exec(sql).await {
        Ok(_) => Ok(None),
        Err(Error::Unique { key }) if key.contains("name") => Ok(Some(Taken::Name)),
        // Another caller's, written at the same moment.
        Err(Error::Unique { .. }) => Ok(Some(Taken::Id)),
        Err(e) => Err(e),
    }
}

/// Changes a region; whether its new name was free.
pub async fn update(tx: &mut Tx, id: i64, name: Option<&str>, endpoint: Option<&str>) -> Result<bool> {
    for (column, value) in [("endpoint", endpoint), ("name", name)] {
        let Some(value) = value else { continue };
        let mut sql = Sql::new("UPDATE regions SET ").push(column).push(" = ?").bind(value);
        if column == "name" {
            sql = sql.push(", name_lower = ?").bind(lower(value));
        }
        match tx.exec(sql.push(" WHERE id = ?").bind(id)).await {
            Ok(_) => {}
            Err(Error::Unique { .. }) => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// Forgets a region; whether it was known.
pub async fn delete(tx: &mut Tx, id: i64) -> Result<bool> {
    Ok(tx.exec(Sql::new("DELETE FROM regions WHERE id = ?").bind(id)).await? == 1)
}

/// A region.
pub async fn find(from: impl Reader, id: i64) -> Result<Option<RegionRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM regions WHERE id = ?")).bind(id);
    from.rows(sql).await?.first().map(read).transpose()
}

/// The number of this installation's own region, once it has one.
pub async fn own(db: &Db) -> Result<Option<i64>> {
    db.optional(Sql::new("SELECT id FROM regions WHERE own = 1")).await?.map(|r| r.at(0)).transpose()
}

/// A page of regions, and how many there are.
pub async fn list(
    db: &Db,
    id: Option<i64>,
    name: Option<&str>,
    keyword: Option<&str>,
    page: Page,
) -> Result<(Vec<RegionRow>, i64)> {
    let body = |sql: Sql| {
        let sql = sql.push(" FROM regions WHERE 1 = 1").push_if(" AND id = ?", id);
        let sql = sql.push_if(" AND name_lower = ?", name.map(lower));
        match keyword.map(str::to_lowercase) {
            Some(keyword) => sql.push(" AND ").contains("name_lower", &keyword),
            None => sql,
        }
    };
    let (rows, count) = paged(db, COLUMNS, body, "id", page).await?;
    Ok((rows.iter().map(read).collect::<Result<_>>()?, count))
}
