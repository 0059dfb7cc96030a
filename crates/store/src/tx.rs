//! Transactions that are run again when the database asks for it.

use crate::db::{Db, sqlite_all, sqlite_exec};
use crate::row::Row;
use crate::sql::Sql;
use crate::{Error, Result};
use backon::{BackoffBuilder, ExponentialBuilder};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// An open transaction. Dropped without commit, it rolls back.
pub struct Tx {
    db: Db,
    conn: Conn,
    /// A statement failed in a way that a new attempt may cure.
    must_retry: bool,
    /// Why no more statement may be sent: the server has rolled back, and would commit each one by itself.
    over: Option<String>,
    after_commit: Vec<Box<dyn FnOnce() + Send>>,
}

pub(crate) enum Conn {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    MySql(crate::mysql::Transaction),
    #[cfg(feature = "simulation")]
    Inline(Box<dyn crate::inline::InlineTx>),
}

impl Tx {
    pub(crate) fn new(db: Db, conn: Conn) -> Self {
        Tx { db, conn, must_retry: false, over: None, after_commit: Vec::new() }
    }

    /// Runs a statement; gives the number of rows it affected (found, for an UPDATE that changes nothing).
    pub async fn exec(&mut self, sql: impl Into<Sql>) -> Result<u64> {
        self.must_be_open()?;
        self.db.count_statement();
        let sql = sql.into();
        let r = match &mut self.conn {
            Conn::Sqlite(c) => sqlite_exec(&mut **c, sql).await,
            Conn::MySql(c) => c.exec(sql).await,
            #[cfg(feature = "simulation")]
            Conn::Inline(c) => {
                let (text, args) = sql.into_parts();
                c.run(text, args).await.map(|(_, affected)| affected)
            }
        };
        self.note(r)
    }

    /// All rows of a SELECT within the transaction.
    pub async fn all(&mut self, sql: impl Into<Sql>) -> Result<Vec<Row>> {
        self.must_be_open()?;
        self.db.count_statement();
        let sql = sql.into();
        let r = match &mut self.conn {
            Conn::Sqlite(c) => sqlite_all(&mut **c, sql).await,
            Conn::MySql(c) => c.all(sql).await,
            #[cfg(feature = "simulation")]
            Conn::Inline(c) => {
                let (text, args) = sql.into_parts();
                let inline = |r| Row(crate::row::Native::Inline(r));
                c.run(text, args).await.map(|(rows, _)| rows.into_iter().map(inline).collect())
            }
        };
        self.note(r)
    }

    /// The first row of a SELECT, if any.
    pub async fn optional(&mut self, sql: impl Into<Sql>) -> Result<Option<Row>> {
        Ok(self.all(sql).await?.into_iter().next())
    }

    /// The first row of a SELECT, or [`Error::NoRow`].
    pub async fn one(&mut self, sql: impl Into<Sql>) -> Result<Row> {
        self.optional(sql).await?.ok_or(Error::NoRow)
    }

    /// Runs `f` once the transaction has been committed: to wake workers and drop caches. Lost when the process dies
    /// in between, so it may only hasten what happens anyway.
    pub fn after_commit(&mut self, f: impl FnOnce() + Send + 'static) {
        self.after_commit.push(Box::new(f));
    }

    /// Commits, then runs what [`Tx::after_commit`] collected.
    ///
    /// # Errors
    /// [`Error::Retry`] when certification failed (nothing took place), [`Error::CommitUnknown`] when the connection broke.
    pub async fn commit(self) -> Result<()> {
        self.must_be_open()?;
        let r = match self.conn {
            Conn::Sqlite(c) => c.commit().await.map_err(Error::from),
            Conn::MySql(c) => c.commit().await,
            #[cfg(feature = "simulation")]
            Conn::Inline(c) => c.commit().await,
        };
        r.map_err(|e| match e {
            Error::Unavailable(why) => Error::CommitUnknown(why),
            other => other,
        })?;
        self.db.0.counters.commits.fetch_add(1, Ordering::Relaxed);
        for f in self.after_commit {
            f();
        }
        Ok(())
    }

    /// Rolls back and gives the connection back at once.
    pub async fn rollback(self) {
        let r = match self.conn {
            Conn::Sqlite(c) => c.rollback().await.map_err(Error::from),
            Conn::MySql(c) => {
                c.rollback().await;
                Ok(())
            }
            #[cfg(feature = "simulation")]
            Conn::Inline(c) => c.rollback().await,
        };
        if let Err(e) = r {
            tracing::debug!(error = %e, "rollback failed; the connection is dropped");
        }
    }

    /// Whether a statement failed in a way that a new attempt may cure.
    pub fn must_retry(&self) -> bool {
        self.must_retry
    }

    fn note<T>(&mut self, r: Result<T>) -> Result<T> {
        if let Err(e) = &r {
            self.must_retry |= e.is_retry();
            if matches!(e, Error::Retry(_) | Error::Unavailable(_)) {
                self.over = Some(e.to_string());
            }
        }
        r
    }

    fn must_be_open(&self) -> Result<()> {
        match &self.over {
            None => Ok(()),
            Some(why) if self.must_retry => Err(Error::Retry(format!("the transaction is over: {why}"))),
            Some(why) => Err(Error::Unavailable(format!("the transaction is over: {why}"))),
        }
    }
}

/// What [`Attempts::finish`] decided.
pub enum Finish<T, E> {
    /// Committed, or failed for good.
    Done(std::result::Result<T, E>),
    /// Run the body again.
    Again,
}

/// The state of [`crate::tx!`] between attempts.
pub struct Attempts<'d> {
    db: &'d Db,
    name: &'static str,
    waits: backon::ExponentialBackoff,
}

impl<'d> Attempts<'d> {
    /// Starts; `name` shows in logs.
    pub fn new(db: &'d Db, name: &'static str) -> Self {
        let waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(2))
            .with_max_delay(Duration::from_millis(200))
            .with_factor(1.7)
            .with_max_times(20)
            .with_jitter()
            .build();
        Attempts { db, name, waits }
    }

    /// Begins the next attempt.
    pub async fn begin(&mut self) -> Result<Tx> {
        loop {
            match self.db.begin().await {
                Err(e) if e.is_retry() => self.wait_or(e).await?,
                other => return other,
            }
        }
    }

    /// Ends the attempt: commits, rolls back, or asks for another one.
    pub async fn finish<T, E: From<Error>>(&mut self, tx: Tx, outcome: std::result::Result<T, E>) -> Finish<T, E> {
        if tx.must_retry() {
            tx.rollback().await;
            return self.again(Error::Retry(format!("transaction {} met a conflict too often", self.name))).await;
        }
        match outcome {
            Err(e) => {
                tx.rollback().await;
                Finish::Done(Err(e))
            }
            Ok(value) => match tx.commit().await {
                Ok(()) => Finish::Done(Ok(value)),
                Err(e) if e.is_retry() => self.again(e).await,
                Err(e) => Finish::Done(Err(e.into())),
            },
        }
    }

    async fn again<T, E: From<Error>>(&mut self, e: Error) -> Finish<T, E> {
        match self.wait_or(e).await {
            Ok(()) => Finish::Again,
            Err(e) => Finish::Done(Err(e.into())),
        }
    }

    async fn wait_or(&mut self, e: Error) -> Result<()> {
        self.db.0.counters.retries.fetch_add(1, Ordering::Relaxed);
        let Some(wait) = self.waits.next() else { return Err(e) };
        tracing::debug!(transaction = self.name, wait_ms = wait.as_millis() as u64, error = %e, "again");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
