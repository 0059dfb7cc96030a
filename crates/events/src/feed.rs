//! Followers without memory: indexes that are built anew at each start.

use crate::nudge::NUMBERED;
use crate::record::Numbered;
use crate::store;
use ::store::Db;
use contract::ApiError;
use coord::{Coord, Subscription};
use std::time::Duration;

/// Looks without a nudge: the safety net.
const POLL: Duration = Duration::from_secs(1);
/// Most rows at once.
const BATCH: usize = 1024;

/// What a feed tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// What happened, in order.
    Rows(Vec<Numbered>),
    /// Rows were pruned before this feed saw them: build the index anew.
    Missed,
}

/// Follows the outbox from now on. It holds nothing back from pruning.
#[derive(Debug)]
pub struct Feed {
    db: Db,
    topics: &'static [&'static str],
    numbered: Subscription,
    seen: i64,
}

impl Feed {
    /// Begins after the rows that are numbered now. Build the index after this call: what happens meanwhile is told.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn new(db: &Db, coord: &Coord, topics: &'static [&'static str]) -> Result<Feed, ApiError> {
        let numbered = coord.subscribe(NUMBERED);
        let seen = store::head(db).await?;
        Ok(Feed { db: db.clone(), topics, numbered, seen })
    }

    /// Waits for news.
    ///
    /// # Errors
    /// Those of the database, and rows that this version can't read.
    pub async fn next(&mut self) -> Result<News, ApiError> {
        loop {
            let (head, pruned) = store::head_and_pruned(&self.db).await?;
            if pruned > self.seen {
                self.seen = head;
                return Ok(News::Missed);
            }
            if head > self.seen {
                let (rows, seen) = store::rows(&self.db, self.topics, self.seen, head, BATCH).await?;
                // Looked at again: they may have been pruned while they were read.
                if store::head_and_pruned(&self.db).await?.1 > self.seen {
                    continue;
                }
                self.seen = seen;
                if !rows.is_empty() {
                    return Ok(News::Rows(rows));
                }
            }
            let _ = tokio::time::timeout(POLL, self.numbered.next()).await;
        }
    }
}
