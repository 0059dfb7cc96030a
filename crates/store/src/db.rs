//! Connections: one writer and several readers on SQLite, [nodes](crate::mysql) on MySQL.

use crate::ids::Blocks;
use crate::mysql::{Cluster, NodeInUse, Survey, Watched};
use crate::row::{Native, Row};
use crate::sql::{Sql, Value};
use crate::tx::{Conn, Tx};
use crate::{Error, Result};
use futures::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Where the database is.
#[derive(Clone, Debug)]
pub struct DbConfig {
    /// `sqlite:PATH`, `sqlite::memory:` (one connection, for simulation) or `mysql://user:password@host:port/database`;
    /// several `host:port,host:port` are the nodes of a cluster, of which the first that is well is used.
    pub url: String,
    /// Most connections of this process (MySQL), readers (SQLite).
    pub connections: u32,
    /// How long a node further ahead in the URL must be well before it is used again.
    pub settle: Duration,
    /// Nothing is created, and the database refuses whatever writes: sessions are read-only (MySQL), the file is opened
    /// so (SQLite). Needs no other rights than to read.
    pub read_only: bool,
}

impl DbConfig {
    /// The default number of connections.
    pub fn new(url: impl Into<String>) -> Self {
        DbConfig { url: url.into(), connections: 16, settle: Duration::from_secs(10), read_only: false }
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
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    MySql(Watched),
    #[cfg(feature = "simulation")]
    Inline(Arc<dyn crate::inline::Inline>),
}

/// A database. Cheap to clone.
#[derive(Clone)]
pub struct Db(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub backend: Backend,
    pub counters: Counters,
    pub blocks: Blocks,
}

/// A database that may be closed already.
pub struct WeakDb(std::sync::Weak<Inner>);

impl WeakDb {
    /// The database, while somebody uses it.
    pub fn upgrade(&self) -> Option<Db> {
        self.0.upgrade().map(Db)
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_sqlite() { "Db(sqlite)" } else { "Db(mysql)" })
    }
}

impl Db {
    /// Connects; creates the SQLite file or the MySQL database when it doesn't exist, unless it is to be read only.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the server can't be reached, [`Error::Other`] for a bad URL.
    pub async fn connect(config: &DbConfig) -> Result<Db> {
        let backend = if config.url.starts_with("sqlite:") {
            connect_sqlite(config).await?
        } else {
            Backend::MySql(Cluster::connect(config).await?)
        };
        Ok(Db::of(backend))
    }

    pub(crate) fn of(backend: Backend) -> Db {
        Db(Arc::new(Inner { backend, counters: Counters::default(), blocks: Blocks::default() }))
    }

    /// Whether this is the embedded database.
    pub fn is_sqlite(&self) -> bool {
        !matches!(self.0.backend, Backend::MySql(_))
    }

    /// All rows of a SELECT, outside any transaction.
    pub async fn all(&self, sql: Sql) -> Result<Vec<Row>> {
        self.count_statement();
        match &self.0.backend {
            Backend::Sqlite { readers, .. } => sqlite_all(readers, sql).await,
            Backend::MySql(cluster) => cluster.select(sql).await,
            #[cfg(feature = "simulation")]
            Backend::Inline(database) => {
                let (text, args) = sql.into_parts();
                Ok(database.select(text, args).await?.into_iter().map(|r| Row(Native::Inline(r))).collect())
            }
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
            Backend::MySql(cluster) => Conn::MySql(cluster.begin().await?),
            #[cfg(feature = "simulation")]
            Backend::Inline(database) => Conn::Inline(database.begin().await?),
        };
        Ok(Tx::new(self.clone(), conn))
    }

    /// Runs a statement that defines tables and is harmless when run again.
    pub(crate) async fn define(&self, text: &str) -> Result<u64> {
        if let Backend::MySql(cluster) = &self.0.backend {
            self.count_statement();
            return cluster.define(Sql::new(text)).await;
        }
        crate::tx!(self, "define", |tx| tx.exec(text).await).await
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

    /// The node in use, now and from now on: for metrics, events and alerts. It never changes for an embedded database.
    pub fn node(&self) -> watch::Receiver<NodeInUse> {
        match &self.0.backend {
            Backend::MySql(cluster) => cluster.in_use(),
            _ => watch::channel(NodeInUse { address: Some("embedded".into()), ..NodeInUse::default() }).1,
        }
    }

    /// What asks all nodes of the URL how they are, with connections of its own. An embedded database has no nodes.
    pub fn survey(&self) -> Survey {
        match &self.0.backend {
            Backend::MySql(cluster) => cluster.survey(),
            _ => Survey::default(),
        }
    }

    /// A handle that doesn't keep the connections.
    pub fn downgrade(&self) -> WeakDb {
        WeakDb(Arc::downgrade(&self.0))
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
            Backend::MySql(cluster) => cluster.close().await,
            #[cfg(feature = "simulation")]
            Backend::Inline(_) => {}
        }
    }

    pub(crate) fn count_statement(&self) {
        self.0.counters.statements.fetch_add(1, Ordering::Relaxed);
    }
}

async fn connect_sqlite(config: &DbConfig) -> Result<Backend> {
    let options = SqliteConnectOptions::from_str(&config.url)?
        .create_if_missing(!config.read_only)
        .read_only(config.read_only)
        // FULL: a commit that was answered survives a power cut, as on the cluster.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(30))
        .pragma("cache_size", "-8000")
        .pragma("temp_store", "memory")
        .foreign_keys(false)
        .statement_cache_capacity(400)
        .disable_statement_logging();
    // Setting the mode writes. A file that is only read has it already.
    let options = if config.read_only { options } else { options.journal_mode(SqliteJournalMode::Wal) };
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
