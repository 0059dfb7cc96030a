//! A connection at work: every statement has a time limit, and ends when its node is given up.
//!
//! On Galera a transaction is rolled back when it meets a write of another node. The server says so with the statement that
//! is under way or with the next one. But when the write comes while a statement is being *prepared*, MariaDB (10.11) has
//! sent its OK already and forgets the error: what follows would be committed statement by statement. So a transaction runs
//! there with autocommit off, and behind a savepoint that must still exist at its end: what was rolled back unnoticed can't
//! be committed in part. This costs no round trip, since the commands go together.

use super::node::Node;
use crate::db::{mysql_all, mysql_exec};
use crate::row::Row;
use crate::sql::Sql;
use crate::{Error, Result};
use sqlx::MySql;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Executor};
use std::sync::Arc;
use std::time::Duration;

/// A server that doesn't answer a statement for so long is given up. Longer than its wait for locks.
const STATEMENT_LIMIT: Duration = Duration::from_secs(15);

/// Set on every connection. `innodb_lock_wait_timeout` ends in a retry; `idle_transaction_timeout` (MariaDB only) frees the
/// locks of a client that the network cut off.
pub(super) const SETUP: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,PIPES_AS_CONCAT,NO_ENGINE_SUBSTITUTION', \
     SESSION innodb_lock_wait_timeout = 10 /*M! , SESSION idle_transaction_timeout = 60 */; \
     SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// Follows [`SETUP`] on connections that only read.
pub(super) const READ_ONLY: &str = "SET SESSION TRANSACTION READ ONLY";

/// Follows [`SETUP`] on nodes of a Galera cluster: what begins there (a read, a transaction, a single write) waits until the
/// node has applied all that the cluster committed before. Services may be on different nodes for a while, and a client
/// that has an answer of one of them asks the next: nobody may know less than was told. It costs some 50 µs.
pub(super) const CAUSAL: &str = "SET SESSION wsrep_sync_wait = 7";

/// Asks the node for something that it answers once it has caught up, see [`CAUSAL`].
pub(super) const CATCH_UP: &str = "SELECT 1";

struct Words {
    begin: &'static str,
    commit: &'static str,
    rollback: &'static str,
}

const SINGLE: Words = Words { begin: "BEGIN", commit: "COMMIT", rollback: "ROLLBACK" };
const GALERA: Words = Words {
    begin: "SET SESSION autocommit = 0; BEGIN; SAVEPOINT whole",
    commit: "RELEASE SAVEPOINT whole; COMMIT; SET SESSION autocommit = 1",
    rollback: "ROLLBACK; SET SESSION autocommit = 1",
};

/// A pooled connection to the node in use.
pub(super) struct Session {
    connection: Option<PoolConnection<MySql>>,
    node: Arc<Node>,
    /// A statement is under way. Still so in Drop: its caller left, and the connection is of no more use.
    busy: bool,
    /// A transaction is open. Still so in Drop: the server rolls it back when the connection ends.
    open: bool,
}

impl Session {
    pub(super) fn new(connection: PoolConnection<MySql>, node: Arc<Node>) -> Session {
        Session { connection: Some(connection), node, busy: false, open: false }
    }

    /// Begins a transaction.
    pub(super) async fn begin(mut self) -> Result<Transaction> {
        self.open = true;
        let words = if self.node.wsrep { GALERA } else { SINGLE };
        self.text(words.begin).await?;
        Ok(Transaction { session: self, words })
    }

    /// All rows of a SELECT.
    pub(super) async fn all(&mut self, sql: Sql) -> Result<Vec<Row>> {
        let Some(connection) = &mut self.connection else { return Err(ended()) };
        self.busy = true;
        let r = self.node.within(STATEMENT_LIMIT, mysql_all(&mut **connection, sql)).await;
        self.settled(r)
    }

    /// Runs a statement; gives the number of rows it affected.
    pub(super) async fn exec(&mut self, sql: Sql, limit: Duration) -> Result<u64> {
        let Some(connection) = &mut self.connection else { return Err(ended()) };
        self.busy = true;
        let r = self.node.within(limit, mysql_exec(&mut **connection, sql)).await;
        self.settled(r)
    }

    async fn text(&mut self, text: &'static str) -> Result<()> {
        let Some(connection) = &mut self.connection else { return Err(ended()) };
        self.busy = true;
        let work = async { Ok((&mut **connection).execute(AssertSqlSafe(text)).await.map(drop)?) };
        let r = self.node.within(STATEMENT_LIMIT, work).await;
        self.settled(r)
    }

    fn settled<T>(&mut self, r: Result<T>) -> Result<T> {
        match &r {
            Err(Error::Unavailable(_)) => {
                self.hang_up();
                self.node.suspect();
            }
            _ => self.busy = false,
        }
        r
    }

    /// Closes the connection without a word: the server may not be listening.
    fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.busy || self.open {
            self.hang_up();
        }
    }
}

/// An open transaction. Dropped, it is rolled back by the server.
pub(crate) struct Transaction {
    session: Session,
    words: Words,
}

impl Transaction {
    /// All rows of a SELECT.
    pub(crate) async fn all(&mut self, sql: Sql) -> Result<Vec<Row>> {
        self.session.all(sql).await.map_err(before_commit)
    }

    /// Runs a statement; gives the number of rows it affected.
    pub(crate) async fn exec(&mut self, sql: Sql) -> Result<u64> {
        self.session.exec(sql, STATEMENT_LIMIT).await.map_err(before_commit)
    }

    /// Commits.
    ///
    /// # Errors
    /// [`Error::Retry`] when nothing took place, [`Error::CommitUnknown`] when that can't be told.
    pub(crate) async fn commit(mut self) -> Result<()> {
        if self.session.node.gone() {
            return Err(Error::Retry("the database node was given up before the commit".into()));
        }
        match self.session.text(self.words.commit).await {
            Ok(()) => {
                self.session.open = false;
                Ok(())
            }
            Err(e @ Error::Retry(_)) => {
                self.rollback().await;
                Err(e)
            }
            // Also what the server says when it is cut off from the cluster meanwhile: the others may have it.
            Err(e) => Err(Error::CommitUnknown(e.to_string())),
        }
    }

    /// Rolls back and gives the connection back at once.
    pub(crate) async fn rollback(mut self) {
        match self.session.text(self.words.rollback).await {
            Ok(()) => self.session.open = false,
            Err(e) => tracing::debug!(error = %e, "rollback failed; the connection is dropped"),
        }
    }
}

/// Nothing is committed without our COMMIT, so whatever breaks before it can be tried again.
fn before_commit(e: Error) -> Error {
    match e {
        Error::Unavailable(why) => Error::Retry(format!("the connection was lost before the commit: {why}")),
        other => other,
    }
}

fn ended() -> Error {
    Error::Unavailable("the connection has ended".into())
}
