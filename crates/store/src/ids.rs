//! Numbers for rows: a sequence per kind, taken in blocks so that a row costs no extra commit.

use crate::{Db, Error, Result, Sql};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// How many numbers a process takes at once. A restart leaves a gap of at most this many.
const BLOCK: i64 = 64;
/// How often the answer to a commit may get lost before the caller is told.
const LOST_ANSWERS: u32 = 3;

#[derive(Default)]
pub(crate) struct Blocks(std::sync::Mutex<HashMap<&'static str, Arc<Mutex<Block>>>>);

#[derive(Default)]
struct Block {
    next: i64,
    end: i64,
}

impl Db {
    /// The next number of the sequence `kind`. Never given twice, not even across replicas and restarts.
    /// Call it before a transaction, never inside one (SQLite has one writer).
    pub async fn next_id(&self, kind: &'static str) -> Result<i64> {
        self.next_ids(kind, 1).await
    }

    /// The first of `n` consecutive numbers.
    pub async fn next_ids(&self, kind: &'static str, n: i64) -> Result<i64> {
        let slot = {
            let mut all = self.0.blocks.0.lock().map_err(|_| Error::Other("id blocks are poisoned".into()))?;
            all.entry(kind).or_default().clone()
        };
        let mut block = slot.lock().await;
        if block.end - block.next < n {
            let take = BLOCK.max(n);
            let first = self.take(kind, take).await?;
            *block = Block { next: first, end: first + take };
        }
        let id = block.next;
        block.next += n;
        Ok(id)
    }

    /// Makes sure that `kind` starts at `first` or later (first-install numbers).
    pub async fn start_ids(&self, kind: &'static str, first: i64) -> Result<()> {
        crate::tx!(self, "start-ids", |tx| {
            if tx.optional(Sql::new("SELECT next FROM ids WHERE kind = ?").bind(kind)).await?.is_none() {
                tx.exec(Sql::new("INSERT INTO ids (kind, next) VALUES (?, ?)").bind(kind).bind(first)).await?;
            }
            Ok::<_, Error>(())
        })
        .await
        .or_else(|e| if matches!(e, Error::Unique { .. }) { Ok(()) } else { Err(e) })
    }

    async fn take(&self, kind: &'static str, n: i64) -> Result<i64> {
        let mut lost = 0;
        loop {
            let r = crate::tx!(self, "take-ids", |tx| {
                // The UPDATE comes first: it locks the row, so the SELECT sees what this transaction wrote.
                let found =
                    tx.exec(Sql::new("UPDATE ids SET next = next + ? WHERE kind = ?").bind(n).bind(kind)).await?;
                if found == 0 {
                    tx.exec(Sql::new("INSERT INTO ids (kind, next) VALUES (?, ?)").bind(kind).bind(1 + n)).await?;
                    return Ok::<_, Error>(1);
                }
                let next: i64 = tx.one(Sql::new("SELECT next FROM ids WHERE kind = ?").bind(kind)).await?.at(0)?;
                Ok(next - n)
            })
            .await;
            match r {
                Err(Error::Unique { .. }) => {} // another replica inserted the row first
                // Numbers that were taken without our knowing are a gap.
                Err(Error::CommitUnknown(_)) if lost < LOST_ANSWERS => lost += 1,
                other => return other,
            }
        }
    }
}
