//! Table `sessions`.

use contract::ApiError;
use store::{Db, Row, Sql};

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Digest of the id.
    pub id_hash: String,
    /// Digest of the key.
    pub key_hash: String,
    /// Whose it is.
    pub user_id: i64,
    /// Where it began.
    pub remote_address: String,
    /// When it began.
    pub created: i64,
    /// When it was used last, to within a minute.
    pub last_used: i64,
    /// How long it may be idle.
    pub idle_micros: i64,
}

/// Adds a session.
pub async fn insert(db: &Db, row: &SessionRow) -> Result<(), ApiError> {
    store::tx!(db, "session-begin", |tx| {
        tx.exec(
            Sql::new(
                "INSERT INTO sessions (id_hash, key_hash, user_id, remote_address, created, last_used, idle_micros) \
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(row.id_hash.as_str())
            .bind(row.key_hash.as_str())
            .bind(row.user_id)
            .bind(row.remote_address.as_str())
            .bind(row.created)
            .bind(row.last_used)
            .bind(row.idle_micros),
        )
        .await?;
        Ok::<_, ApiError>(())
    })
    .await
}

/// A session.
pub async fn find(db: &Db, id_hash: &str) -> Result<Option<SessionRow>, ApiError> {
    let sql = Sql::new(
        "SELECT id_hash, key_hash, user_id, remote_address, created, last_used, idle_micros FROM sessions \
         WHERE id_hash = ?",
    )
    .bind(id_hash);
    Ok(db.optional(sql).await?.map(|row| read(&row)).transpose()?)
}

fn read(row: &Row) -> store::Result<SessionRow> {
    Ok(SessionRow {
        id_hash: row.get("id_hash")?,
        key_hash: row.get("key_hash")?,
        user_id: row.get("user_id")?,
        remote_address: row.get("remote_address")?,
        created: row.get("created")?,
        last_used: row.get("last_used")?,
        idle_micros: row.get("idle_micros")?,
    })
}

/// Notes that a session is in use.
pub async fn touch(db: &Db, id_hash: &str, last_used: i64) -> Result<(), ApiError> {
    store::tx!(db, "session-touch", |tx| {
        tx.exec(
            Sql::new("UPDATE sessions SET last_used = ? WHERE id_hash = ? AND last_used < ?")
                .bind(last_used)
                .bind(id_hash)
                .bind(last_used),
        )
        .await?;
        Ok::<_, ApiError>(())
    })
    .await
}

/// Removes a session.
pub async fn delete(db: &Db, id_hash: &str) -> Result<(), ApiError> {
    store::tx!(db, "session-end", |tx| {
        tx.exec(Sql::new("DELETE FROM sessions WHERE id_hash = ?").bind(id_hash)).await?;
        Ok::<_, ApiError>(())
    })
    .await
}

/// Removes the sessions that have been idle too long.
pub async fn delete_idle(db: &Db, now: i64) -> Result<u64, ApiError> {
    store::tx!(db, "session-sweep", |tx| {
        let removed = tx.exec(Sql::new("DELETE FROM sessions WHERE last_used + idle_micros < ?").bind(now)).await?;
        Ok::<_, ApiError>(removed)
    })
    .await
}
