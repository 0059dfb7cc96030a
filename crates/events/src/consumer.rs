//! Consumers that remember how far they are.

use crate::nudge::NUMBERED;
use crate::record::Numbered;
use crate::store;
use ::store::{Db, Tx};
use contract::ApiError;
use coord::{Coord, Subscription};
use std::future::Future;
use std::time::Duration;

/// Looks without a nudge: the safety net.
const POLL: Duration = Duration::from_secs(1);
/// Most rows of a batch.
const BATCH: usize = 512;
/// The cursor is moved over this many rows of other topics without waiting for one of ours.
const SKIP: i64 = 1000;
/// After a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows the outbox with a cursor of its own. Several replicas may run the same consumer: only one of them moves the
/// cursor at a time, and the others' transactions fail.
#[derive(Debug)]
pub struct Consumer {
    db: Db,
    name: &'static str,
    topics: &'static [&'static str],
    numbered: Subscription,
    /// No row of ours is between the cursor and this number.
    scanned: i64,
}

/// Rows to handle, in order.
#[derive(Debug)]
pub struct Batch {
    consumer: &'static str,
    from: i64,
    to: i64,
    /// The rows, never none.
    pub rows: Vec<Numbered>,
}

impl Batch {
    /// Moves the cursor past this batch: part of the transaction that handles it.
    ///
    /// # Errors
    /// [`ApiError::concurrent`] when another replica has handled it.
    pub async fn advance(&self, tx: &mut Tx) -> Result<(), ApiError> {
        store::advance(tx, self.consumer, self.from, self.to).await
    }
}

/// What a consumer does with rows.
pub trait Handler: Send + Sync {
    /// Handles the rows within `tx`, which also moves the cursor: each row is handled exactly once. May be run again for
    /// the same rows when the transaction has to be.
    fn handle(&self, tx: &mut Tx, rows: &[Numbered]) -> impl Future<Output = Result<(), ApiError>> + Send;
}

impl Consumer {
    /// The consumer called `name`. A new one begins at the oldest row that is kept.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn new(db: &Db, coord: &Coord, name: &'static str) -> Result<Consumer, ApiError> {
        let numbered = coord.subscribe(NUMBERED);
        store::register(db, name).await?;
        Ok(Consumer { db: db.clone(), name, topics: &[], numbered, scanned: 0 })
    }

    /// Only rows of these topics: "event", "usage", "change".
    #[must_use]
    pub fn only(mut self, topics: &'static [&'static str]) -> Consumer {
        self.topics = topics;
        self
    }

    /// Waits for rows after the cursor.
    ///
    /// # Errors
    /// Those of the database, and rows that this version can't read.
    pub async fn next(&mut self) -> Result<Batch, ApiError> {
        loop {
            let from = store::cursor(&self.db, self.name).await?;
            let head = store::head(&self.db).await?;
            let after = self.scanned.max(from);
            let (rows, to) = if head > after {
                store::rows(&self.db, self.topics, after, head, BATCH).await?
            } else {
                (Vec::new(), after)
            };
            if !rows.is_empty() {
                return Ok(Batch { consumer: self.name, from, to, rows });
            }
            self.scanned = to;
            if to - from >= SKIP {
                self.skip(from, to).await?;
            }
            let nudged = tokio::time::timeout(POLL, self.numbered.next()).await;
            if nudged.is_err() && to > from {
                self.skip(from, to).await?; // it is quiet: nothing is held back for us
            }
        }
    }

    async fn skip(&self, from: i64, to: i64) -> Result<(), ApiError> {
        let moved = ::store::tx!(self.db, "skip-rows", |tx| store::advance(tx, self.name, from, to).await).await;
        match moved {
            Err(e) if e.is_transient() => Ok(()), // another replica moved it
            other => other,
        }
    }

    /// Handles rows for ever, one transaction a batch. Failures are tried again after a pause; nothing is skipped.
    pub async fn run(mut self, handler: &impl Handler) {
        loop {
            let handled = async {
                let batch = self.next().await?;
                ::store::tx!(self.db, "handle-rows", |tx| {
                    batch.advance(tx).await?;
                    handler.handle(tx, &batch.rows).await
                })
                .await
            };
            if let Err(error) = handled.await {
                tracing::warn!(consumer = self.name, %error, "rows could not be handled; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
