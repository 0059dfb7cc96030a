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

/// Writes an image store. [`store::Error::Unique`] on `live_key` when a living one has the same URL or name.
pub async fn insert(tx: &mut Tx, s: &ImageStoreRow) -> Result<()> {
    tx.exec(
        Sql::new(
            "INSERT INTO image_stores (id, uuid, name, name_lower, live_key, url, protocol, provider, scope, zone_id, \
             total_bytes, used_bytes, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?)",
        )
        .bind(s.id)
        .bind(s.uuid.as_str())
        .bind(s.name.as_str())
        .bind(s.name.to_lowercase())
        .bind(format!("{}/{}", s.zone_id.unwrap_or_default(), s.url))
        .bind(s.url.as_str())
        .bind(s.protocol.as_str())
        .bind(s.provider.as_str())
        .bind(s.scope.as_str())
        .bind(s.zone_id)
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

/// Removes an image store; false when it is gone, or holds templates that users made.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    let users = Sql::new(
        "SELECT 1 FROM template_store_refs r JOIN templates t ON t.id = r.template_id \
         WHERE r.store_id = ? AND t.template_type = 'USER' AND t.removed IS NULL",
    )
    .bind(id);
    if tx.optional(users).await?.is_some() {
        return Ok(false);
    }
    let sql = Sql::new("UPDATE image_stores SET removed = ?, live_key = NULL WHERE removed IS NULL AND id = ?")
        .bind(now_micros())
        .bind(id);
    if tx.exec(sql).await? == 0 {
        return Ok(false);
    }
    tx.exec(Sql::new("DELETE FROM template_store_refs WHERE store_id = ?").bind(id)).await?;
    Ok(true)
}
