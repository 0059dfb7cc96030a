//! Secondary storage.

use contract::{ApiError, Page};
use store::{Db, Result, Row, Sql, Tx, now_micros};

/// An image store.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageStoreRow {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub url: String,
    pub protocol: String,
    pub provider: String,
    pub scope: String,
    pub zone_id: Option<i64>,
}

const COLUMNS: &str = "id, uuid, name, url, protocol, provider, scope, zone_id";

impl ImageStoreRow {
    fn read(r: &Row) -> Result<ImageStoreRow> {
        Ok(ImageStoreRow {
            id: r.at(0)?,
            uuid: r.at(1)?,
            name: r.at(2)?,
            url: r.at(3)?,
            protocol: r.at(4)?,
            provider: r.at(5)?,
            scope: r.at(6)?,
            zone_id: r.at(7)?,
        })
    }
}

/// What a list asks for.
#[derive(Clone, Debug, Default)]
pub struct Query<'a> {
    pub id: Option<i64>,
    pub name: Option<&'a str>,
    pub protocol: Option<&'a str>,
    pub provider: Option<&'a str>,
    pub zone: Option<i64>,
    pub keyword: Option<&'a str>,
}

/// A page of living image stores.
pub async fn list(db: &Db, q: &Query<'_>, page: Page) -> std::result::Result<(Vec<ImageStoreRow>, i64), ApiError> {
    let body = |sql: Sql| {
        let mut sql = sql
            .push(" FROM image_stores WHERE removed IS NULL")
            .push_if(" AND id = ?", q.id)
            .push_if(" AND name = ?", q.name)
            .push_if(" AND protocol = ?", q.protocol)
            .push_if(" AND provider = ?", q.provider)
            .push_if(" AND zone_id = ?", q.zone);
        if let Some(word) = q.keyword {
            let lower = word.to_lowercase();
            sql = sql.push(" AND (").contains("name_lower", &lower).push(" OR ").contains("provider", word).push(")");
        }
        sql
    };
    let (rows, count) = super::page(db, COLUMNS, body, "id", page).await?;
    Ok((rows.iter().map(ImageStoreRow::read).collect::<Result<_>>()?, count))
}

/// What orders to hosts say of an image store.
#[derive(Clone, Debug)]
pub struct Site {
    pub id: i64,
    pub uuid: String,
    pub url: String,
    /// What its hosts must know and nobody may read, sealed.
    pub details_sealed: Option<String>,
}

/// The living image store with this number.
pub async fn site(db: &Db, id: i64) -> Result<Option<Site>> {
    let sql =
        Sql::new("SELECT id, uuid, url, details_sealed FROM image_stores WHERE removed IS NULL AND id = ?").bind(id);
    let row = db.optional(sql).await?;
    row.map(|r| Ok(Site { id: r.at(0)?, uuid: r.at(1)?, url: r.at(2)?, details_sealed: r.at(3)? })).transpose()
}

/// The zone of an image store; none: all zones reach it.
pub async fn zone(db: &Db, id: i64) -> Result<Option<i64>> {
    match db.optional(Sql::new("SELECT zone_id FROM image_stores WHERE id = ?").bind(id)).await? {
        Some(r) => r.at(0),
        None => Ok(None),
    }
}

/// A store that may take an image, and how many it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    pub id: i64,
    pub uuid: String,
    /// Its zone; none: all zones reach it.
    pub zone_id: Option<i64>,
    pub images: i64,
}

/// The living stores that hosts of these zones reach, in a stable order.
pub async fn rooms(db: &Db, zones: &[i64]) -> Result<Vec<Room>> {
    let sql = Sql::new(
        "SELECT s.id, s.uuid, s.zone_id, (SELECT COUNT(*) FROM template_store_refs r WHERE r.store_id = s.id) \
         FROM image_stores s WHERE s.removed IS NULL AND (s.zone_id IS NULL OR ",
    )
    .in_list("s.zone_id", zones.iter().copied())
    .push(") ORDER BY s.id");
    let rows = db.all(sql).await?;
    rows.iter().map(|r| Ok(Room { id: r.at(0)?, uuid: r.at(1)?, zone_id: r.at(2)?, images: r.at(3)? })).collect()
}

/// Writes an image store. [`store::Error::Unique`] on `live_key` when a living one has the same `place`.
pub async fn insert(tx: &mut Tx, s: &ImageStoreRow, place: &str, details_sealed: Option<&str>) -> Result<()> {
    tx.exec(
        Sql::new(
            "INSERT INTO image_stores (id, uuid, name, name_lower, live_key, url, protocol, provider, scope, zone_id, \
             details_sealed, total_bytes, used_bytes, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?)",
        )
        .bind(s.id)
        .bind(s.uuid.as_str())
        .bind(s.name.as_str())
        .bind(s.name.to_lowercase())
        .bind(format!("{}/{place}", s.zone_id.unwrap_or_default()))
        .bind(s.url.as_str())
        .bind(s.protocol.as_str())
        .bind(s.provider.as_str())
        .bind(s.scope.as_str())
        .bind(s.zone_id)
        .bind(details_sealed)
        .bind(now_micros()),
    )
    .await
    .map(drop)
}

/// Whether a living image store has this name.
pub async fn name_taken(db: &Db, name: &str) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM image_stores WHERE removed IS NULL AND name = ?").bind(name);
    Ok(db.optional(sql).await?.is_some())
}

/// Whether a living image store has this number.
pub async fn lives(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM image_stores WHERE removed IS NULL AND id = ?").bind(id);
    Ok(tx.optional(sql).await?.is_some())
}

/// Removes an image store; false when it is gone, or holds or gets templates that users made, or snapshots.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    let users = Sql::new(
        "SELECT 1 FROM template_store_refs r JOIN templates t ON t.id = r.template_id \
         WHERE r.store_id = ? AND r.state <> 'Failed' AND t.template_type = 'USER' AND t.removed IS NULL",
    )
    .bind(id);
    if tx.optional(users).await?.is_some() || super::snapshots::any_on(tx, id).await? {
        return Ok(false);
    }
    let sql = Sql::new("UPDATE image_stores SET removed = ?, live_key = NULL WHERE removed IS NULL AND id = ?")
        .bind(now_micros())
        .bind(id);
    if tx.exec(sql).await? == 0 {
        return Ok(false);
    }
    tx.exec(Sql::new("DELETE FROM template_store_refs WHERE store_id = ?").bind(id)).await?;
    // Nobody reaches it any more: what is still to be deleted there stays.
    tx.exec(Sql::new("DELETE FROM image_deletions WHERE store_id = ?").bind(id)).await?;
    Ok(true)
}
