//! The SQL of the outbox.

use crate::record::{Numbered, Record};
use contract::ApiError;
use coord::Term;
use store::{Db, Error, Sql, Tx};

/// The largest statement that numbers rows. Smaller ones are powers of two, so that there are few different texts.
const CHUNK: usize = 256;
/// Most rows that one transaction numbers.
pub(crate) const BATCH: usize = 1024;

/// Makes sure that the head exists.
pub(crate) async fn prepare(db: &Db) -> Result<(), ApiError> {
    if db.optional(Sql::new("SELECT seq FROM outbox_head WHERE id = 1")).await?.is_some() {
        return Ok(());
    }
    let insert = store::tx!(db, "outbox-head", |tx| {
        tx.exec("INSERT INTO outbox_head (id, seq, pruned) VALUES (1, 0, 0)").await
    });
    match insert.await {
        Ok(_) | Err(Error::Unique { .. }) => Ok(()), // another replica made it
        Err(e) => Err(e.into()),
    }
}

/// Numbers rows that have none; gives how many were found.
///
/// Rows are found by having no number, never by id or time: a transaction may commit long after it made its ids.
pub(crate) async fn number(db: &Db, term: &Term) -> Result<usize, ApiError> {
    // Outside of the transaction: an empty look costs no commit.
    let select = Sql::new("SELECT id FROM outbox WHERE seq IS NULL ORDER BY id LIMIT ?").bind(BATCH as i64);
    let ids: Vec<String> = db.all(select).await?.iter().map(|r| r.at(0)).collect::<Result<_, _>>()?;
    if ids.is_empty() {
        return Ok(0);
    }
    let n = ids.len() as i64;
    store::tx!(db, "number-outbox", |tx| {
        term.fence(tx).await?;
        tx.exec(Sql::new("UPDATE outbox_head SET seq = seq + ? WHERE id = 1").bind(n)).await?;
        let head: i64 = tx.one("SELECT seq FROM outbox_head WHERE id = 1").await?.at(0)?;
        let mut next = head - n + 1;
        let mut rest = ids.as_slice();
        while !rest.is_empty() {
            let size = CHUNK.min(1 << rest.len().ilog2());
            let (chunk, after) = rest.split_at(size);
            tx.exec(numbering(chunk, next)).await?;
            next += size as i64;
            rest = after;
        }
        Ok::<_, ApiError>(())
    })
    .await?;
    Ok(ids.len())
}

/// A leader before us may have numbered some of these rows after we found them: those keep their number.
fn numbering(ids: &[String], first: i64) -> Sql {
    let mut sql = Sql::new("UPDATE outbox SET seq = CASE id");
    for (id, seq) in ids.iter().zip(first..) {
        sql = sql.push(" WHEN ? THEN ?").bind(id.as_str()).bind(seq);
    }
    sql.push(" END WHERE seq IS NULL AND ").in_list("id", ids.iter().map(String::as_str))
}

/// The number given last.
pub(crate) async fn head(db: &Db) -> Result<i64, ApiError> {
    let row = db.optional(Sql::new("SELECT seq FROM outbox_head WHERE id = 1")).await?;
    Ok(row.map_or(Ok(0), |r| r.at(0))?)
}

/// The number given last, and the last one that is pruned.
pub(crate) async fn head_and_pruned(db: &Db) -> Result<(i64, i64), ApiError> {
    match db.optional(Sql::new("SELECT seq, pruned FROM outbox_head WHERE id = 1")).await? {
        Some(row) => Ok((row.at(0)?, row.at(1)?)),
        None => Ok((0, 0)),
    }
}

/// Makes sure that the consumer has a cursor; a new one begins at the oldest row that is kept.
pub(crate) async fn register(db: &Db, consumer: &str) -> Result<(), ApiError> {
    if cursor(db, consumer).await.is_ok() {
        return Ok(());
    }
    prepare(db).await?;
    let insert = store::tx!(db, "register-consumer", |tx| {
        // The sequencer prunes only what all cursors have passed, and reads them in its own transaction: this row change
        // makes the two exclude each other.
        tx.exec("UPDATE outbox_head SET pruned = pruned + 0 WHERE id = 1").await?;
        let sql = Sql::new("INSERT INTO outbox_cursors (consumer, seq) SELECT ?, pruned FROM outbox_head WHERE id = 1");
        tx.exec(sql.bind(consumer)).await
    });
    match insert.await {
        Ok(_) | Err(Error::Unique { .. }) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The consumer's cursor.
pub(crate) async fn cursor(db: &Db, consumer: &str) -> Result<i64, ApiError> {
    Ok(db.one(Sql::new("SELECT seq FROM outbox_cursors WHERE consumer = ?").bind(consumer)).await?.at(0)?)
}

/// Moves the cursor from `from` to `to`; fails when it isn't there any more.
pub(crate) async fn advance(tx: &mut Tx, consumer: &str, from: i64, to: i64) -> Result<(), ApiError> {
    let sql = Sql::new("UPDATE outbox_cursors SET seq = ? WHERE consumer = ? AND seq = ?");
    match tx.exec(sql.bind(to).bind(consumer).bind(from)).await? {
        0 => Err(ApiError::concurrent(format!("another replica moves the cursor of {consumer}"))),
        _ => Ok(()),
    }
}

/// The rows after `after` up to `head`, of these topics (all when empty), and how far the look went.
pub(crate) async fn rows(
    db: &Db,
    topics: &[&str],
    after: i64,
    head: i64,
    limit: usize,
) -> Result<(Vec<Numbered>, i64), ApiError> {
    let mut sql = Sql::new("SELECT seq, payload FROM outbox WHERE seq > ? AND seq <= ?").bind(after).bind(head);
    if !topics.is_empty() {
        sql = sql.push(" AND ").in_list("topic", topics.iter().copied());
    }
    sql = sql.push(" ORDER BY seq LIMIT ?").bind(limit as i64);
    let mut rows = Vec::new();
    for row in db.all(sql).await? {
        let seq: i64 = row.at(0)?;
        // A record of a newer version waits for a replica that can read it; skipping it would lose it.
        let record: Record = serde_json::from_slice(&row.at::<Vec<u8>>(1)?)
            .map_err(|e| ApiError::internal(format!("outbox row {seq} can't be read: {e}")))?;
        rows.push(Numbered { seq, record });
    }
    let seen = match rows.last() {
        Some(last) if rows.len() == limit => last.seq,
        _ => head,
    };
    Ok((rows, seen))
}

/// Deletes rows that all consumers have passed and that are older than `before`; gives how many.
pub(crate) async fn prune(db: &Db, term: &Term, before: i64) -> Result<u64, ApiError> {
    let (_, pruned) = head_and_pruned(db).await?;
    let oldest = Sql::new("SELECT seq FROM outbox WHERE seq > ? AND created < ? ORDER BY seq LIMIT ?");
    let old = db.all(oldest.bind(pruned).bind(before).bind(BATCH as i64)).await?;
    let Some(last) = old.last() else { return Ok(0) };
    let last: i64 = last.at(0)?;
    store::tx!(db, "prune-outbox", |tx| {
        term.fence(tx).await?;
        // Before the cursors are read: a consumer that registers meanwhile waits, or we do.
        tx.exec("UPDATE outbox_head SET pruned = pruned + 0 WHERE id = 1").await?;
        let passed: Option<i64> = tx.one("SELECT MIN(seq) FROM outbox_cursors").await?.at(0)?;
        // Without any consumer nothing is pruned: one may be about to register.
        let upto = passed.map_or(pruned, |passed| passed.min(last));
        if upto <= pruned {
            return Ok::<_, ApiError>(0);
        }
        tx.exec(Sql::new("UPDATE outbox_head SET pruned = ? WHERE id = 1").bind(upto)).await?;
        Ok(tx.exec(Sql::new("DELETE FROM outbox WHERE seq <= ?").bind(upto)).await?)
    })
    .await
}

/// How many rows each consumer is behind.
pub async fn lags(db: &Db) -> Result<Vec<(String, i64)>, ApiError> {
    let head = head(db).await?;
    let rows = db.all(Sql::new("SELECT consumer, seq FROM outbox_cursors ORDER BY consumer")).await?;
    Ok(rows.iter().map(|r| Ok((r.at(0)?, head - r.at::<i64>(1)?))).collect::<Result<_, Error>>()?)
}

/// Removes the cursor of a consumer that no longer exists: it would keep rows from being pruned.
pub async fn forget(db: &Db, consumer: &str) -> Result<(), ApiError> {
    store::tx!(db, "forget-consumer", |tx| {
        tx.exec(Sql::new("DELETE FROM outbox_cursors WHERE consumer = ?").bind(consumer)).await?;
        Ok::<_, ApiError>(())
    })
    .await
}
