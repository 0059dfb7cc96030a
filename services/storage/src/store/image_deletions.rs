//! Images on secondary storage that are still to be deleted.

use store::{Db, Result, Sql, Tx, now_micros};

/// An image that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    pub path: String,
    pub store_id: i64,
    /// Whose hosts can delete it; none: any.
    pub hypervisor: Option<String>,
    pub tries: i64,
}

/// Notes that an image is to be deleted, not before `wait` µs have passed.
pub async fn owe(tx: &mut Tx, store: i64, path: &str, hypervisor: Option<&str>, wait: i64) -> Result<()> {
    let now = now_micros();
    let sql = Sql::new(
        "INSERT INTO image_deletions (path, store_id, hypervisor, tries, not_before, created) VALUES (?, ?, ?, 0, ?, ?)",
    )
    .bind(path)
    .bind(store)
    .bind(hypervisor)
    .bind(now + wait)
    .bind(now);
    match tx.exec(sql).await {
        Ok(_) | Err(store::Error::Unique { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}

/// The deletions that are due, oldest first.
pub async fn due(db: &Db, limit: i64) -> Result<Vec<Deletion>> {
    let sql = Sql::new(
        "SELECT path, store_id, hypervisor, tries FROM image_deletions WHERE not_before <= ? ORDER BY not_before LIMIT ?",
    )
    .bind(now_micros())
    .bind(limit);
    db.all(sql)
        .await?
        .iter()
        .map(|r| Ok(Deletion { path: r.at(0)?, store_id: r.at(1)?, hypervisor: r.at(2)?, tries: r.at(3)? }))
        .collect()
}

/// Forgets a deletion that took place.
pub async fn done(tx: &mut Tx, path: &str) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM image_deletions WHERE path = ?").bind(path)).await.map(drop)
}

/// Puts a deletion off after a failure.
pub async fn put_off(tx: &mut Tx, path: &str, wait: i64, error: &str) -> Result<()> {
    let error: String = error.chars().take(500).collect();
    let sql = Sql::new("UPDATE image_deletions SET tries = tries + 1, not_before = ?, last_error = ? WHERE path = ?")
        .bind(now_micros() + wait)
        .bind(error)
        .bind(path);
    tx.exec(sql).await.map(drop)
}
