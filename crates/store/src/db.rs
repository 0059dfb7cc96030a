//! Connections: one writer and several readers on SQLite, a pool on MySQL.

use crate::ids::Blocks;
use crate::row::{Native, Row};
use crate::sql::{Sql, Value};
use crate::tx::{Conn, Tx};
use crate::{Error, Result};
use futures::TryStreamExt;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where the database is.
#[derive(Clone, Debug)]
pub struct DbConfig {
    /// `sqlite:PATH`, `sqlite::memory:` (one connection, for simulation) or `mysql://user:password@host:port/database`.
    pub url: String,
    /// Most connections of this process (MySQL), readers (SQLite).
    pub connections: u32,
}

impl DbConfig {
    /// The default number of connections.
    pub fn new(url: impl Into<String>) -> Self {
        DbConfig { url: url.into(), connections: 16 }
    }
}

/// Counters of one [`Db`], for tests and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Statements sent, without BEGIN and COMMIT.
    pub statements: u64,
    /// Transactions committed.
    pub commits: u64,
    /// Transactions that were run again.
    pub retries: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub statements: AtomicU64,
    pub commits: AtomicU64,
    pub retries: AtomicU64,
}

pub(crate) enum Backend {
    Sqlite { writer: SqlitePool, readers: SqlitePool },
    MySql(MySqlPool),
}

/// A database. Cheap to clone.
#[derive(Clone)]
pub struct Db(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub backend: Backend,
    pub counters: Counters,
    pub blocks: Blocks,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_sqlite() { "Db(sqlite)" } else { "Db(mysql)" })
    }
}

impl Db {
    /// Connects; creates the SQLite file or the MySQL database when it doesn't exist.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the server can't be reached, [`Error::Other`] for a bad URL.
    pub async fn connect(config: &DbConfig) -> Result<Db> {
        let backend = if config.url.starts_with("sqlite:") {
            connect_sqlite(config).await?
        } else {
            connect_mysql(config).await?
        };
        Ok(Db(Arc::new(Inner { backend, counters: Counters::default(), blocks: Blocks::default() })))
    }

    /// Whether this is the embedded database.
    pub fn is_sqlite(&self) -> bool {
        matches!(self.0.backend, Backend::Sqlite { .. })
    }

    /// All rows of a SELECT, outside any transaction.
    pub async fn all(&self, sql: Sql) -> Result<Vec<Row>> {
        self.count_statement();
        match &self.0.backend {
            Backend::Sqlite { readers, .. } => sqlite_all(readers, sql).await,
            Backend::MySql(pool) => mysql_all(pool, sql).await,
        }
    }

    /// The first row of a SELECT, if any.
    pub async fn optional(&self, sql: Sql) -> Result<Option<Row>> {
        Ok(self.all(sql).await?.into_iter().next())
    }

    /// The first row of a SELECT.
    ///
    /// # Errors
    /// [`Error::NoRow`] when there is none.
    pub async fn one(&self, sql: Sql) -> Result<Row> {
        self.optional(sql).await?.ok_or(Error::NoRow)
    }

    /// Begins a transaction. Prefer [`crate::tx!`], which retries.
    pub async fn begin(&self) -> Result<Tx> {
        let conn = match &self.0.backend {
            // A transaction that reads first and then writes fails at once with BUSY unless it is immediate.
            Backend::Sqlite { writer, .. } => Conn::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Backend::MySql(pool) => Conn::MySql(pool.begin().await?),
        };
        Ok(Tx::new(self.clone(), conn))
    }

    /// Counters since the connection was made.
    pub fn stats(&self) -> Stats {
        let c = &self.0.counters;
        Stats {
            statements: c.statements.load(Ordering::Relaxed),
            commits: c.commits.load(Ordering::Relaxed),
            retries: c.retries.load(Ordering::Relaxed),
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.one(Sql::new("SELECT 1")).await.map(drop)
    }

    /// Closes all connections after the statements under way.
    pub async fn close(&self) {
        match &self.0.backend {
            Backend::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Backend::MySql(pool) => pool.close().await,
        }
    }

    pub(crate) fn count_statement(&self) {
        self.0.counters.statements.fetch_add(1, Ordering::Relaxed);
    }
}

async fn connect_sqlite(config: &DbConfig) -> Result<Backend> {
    let options = SqliteConnectOptions::from_str(&config.url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL: a commit that was answered survives a power cut, as on the cluster.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(30))
        .pragma("cache_size", "-8000")
        .pragma("temp_store", "memory")
        .foreign_keys(false)
        .statement_cache_capacity(400)
        .disable_statement_logging();
    let pool = |n: u32| {
        SqlitePoolOptions::new()
            .max_connections(n)
            .min_connections(1)
            .acquire_timeout(Duration::from_secs(30))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    };
    let writer = pool(1).connect_with(options.clone()).await?;
    let memory = config.url.contains(":memory:") || config.url.contains("mode=memory");
    let readers = if memory {
        writer.clone()
    } else {
        pool(config.connections.clamp(1, 4)).connect_with(options.pragma("query_only", "1")).await?
    };
    Ok(Backend::Sqlite { writer, readers })
}

async fn connect_mysql(config: &DbConfig) -> Result<Backend> {
    let options = MySqlConnectOptions::from_str(&config.url)?
        .charset("utf8mb4")
        .collation("utf8mb4_bin")
        .statement_cache_capacity(250)
        .disable_statement_logging();
    if let Some(name) = options.get_database().map(str::to_owned) {
        create_database(&options, &name).await?;
    }
    let pool = MySqlPoolOptions::new()
        .max_connections(config.connections.max(1))
        .min_connections(1)
        .acquire_timeout(Duration::from_secs(30))
        .test_before_acquire(false)
        .after_connect(|conn, _| {
            Box::pin(async move {
                conn.execute(
                    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,PIPES_AS_CONCAT,NO_ENGINE_SUBSTITUTION', \
                     SESSION innodb_lock_wait_timeout = 10",
                )
                .await?;
                conn.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
                Ok(())
            })
        })
        .connect_with(options)
        .await?;
    Ok(Backend::MySql(pool))
}

async fn create_database(options: &MySqlConnectOptions, name: &str) -> Result<()> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Error::Other(format!("a database name of letters, digits and _ is wanted, not {name:?}")));
    }
    // The empty name leaves the session without a default database.
    let mut conn = options.clone().database("").connect().await?;
    let text = format!("CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
    conn.execute(AssertSqlSafe(text)).await?;
    sqlx::Connection::close(conn).await?;
    Ok(())
}

macro_rules! backend {
    ($all:ident, $exec:ident, $db:ty, $native:ident) => {
        pub(crate) async fn $all<'c>(on: impl sqlx::Executor<'c, Database = $db>, sql: Sql) -> Result<Vec<Row>> {
            let mut query = sqlx::query(AssertSqlSafe(sql.text));
            for value in sql.args {
                query = match value {
                    Value::Null => query.bind(None::<i64>),
                    Value::Int(v) => query.bind(v),
                    Value::Real(v) => query.bind(v),
                    Value::Text(v) => query.bind(v),
                    Value::Bytes(v) => query.bind(v),
                };
            }
            let mut rows = Vec::new();
            let mut stream = query.fetch(on);
            while let Some(row) = stream.try_next().await? {
                rows.push(Row(Native::$native(row)));
            }
            Ok(rows)
        }

        pub(crate) async fn $exec<'c>(on: impl sqlx::Executor<'c, Database = $db>, sql: Sql) -> Result<u64> {
            let mut query = sqlx::query(AssertSqlSafe(sql.text));
            for value in sql.args {
                query = match value {
                    Value::Null => query.bind(None::<i64>),
                    Value::Int(v) => query.bind(v),
                    Value::Real(v) => query.bind(v),
                    Value::Text(v) => query.bind(v),
                    Value::Bytes(v) => query.bind(v),
                };
            }
            Ok(query.execute(on).await?.rows_affected())
        }
    };
}
backend!(sqlite_all, sqlite_exec, sqlx::Sqlite, Sqlite);
backend!(mysql_all, mysql_exec, sqlx::MySql, MySql);
