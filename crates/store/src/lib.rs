//! One SQL dialect over SQLite (embedded) and MySQL-compatible clusters (MariaDB, Galera, MySQL 8).
//!
//! The portable subset that every statement keeps to: `?` placeholders; integers of SMALLINT or wider for booleans; UTC
//! microseconds for times; binary collation (a lower-cased column where case must not count); no vendor upserts; no
//! `SELECT … FOR UPDATE`; `CAST(SUM(x) AS SIGNED)`; no BOOLEAN, TINYINT, DECIMAL, DATETIME columns.
//!
//! Reads go through [`Db::all`], [`Db::optional`], [`Db::one`]. Writes go through [`tx!`]:
//!
//! ```ignore
//! let id = store::tx!(db, "create-zone", |tx| {
//!     tx.exec(Sql::new("INSERT INTO zones (id, name) VALUES (?, ?)").bind(id).bind(name)).await?;
//!     Ok::<_, ApiError>(id)
//! })
//! .await?;
//! ```
//!
//! The body may run several times (deadlock, Galera certification failure, busy): it must not have effects outside `tx`.
//! Ids are allocated ([`Db::next_id`]) before the transaction, never inside: SQLite has one writer. Statements that define
//! tables belong in migrations: in a transaction they would commit it.
//!
//! An error that ends the whole transaction (a conflict, a lost connection) also ends its [`Tx`]: no further statement of it
//! reaches the server, which would commit it by itself.
//!
//! # Several nodes
//!
//! `mysql://user:password@h1:p1,h2:p2,h3:p3/database` names the nodes of a Galera cluster. One is used at a time, the first
//! that is well. A node that dies, hangs, is cut off or leaves the primary component is left within about two seconds: reads
//! are asked again elsewhere, transactions run again ([`tx!`]), and a COMMIT under way ends as [`Error::CommitUnknown`]. The
//! next node is used once it has applied all that the cluster committed, so nobody reads less than he wrote. A node further
//! ahead is used again when it has been well for [`DbConfig::settle`]. While no node is well, callers get
//! [`Error::Unavailable`] after 5 s. A statement has 15 s. [`Db::node`] tells which node is used, [`Db::survey`] how all are.
//!
//! Two programs that use different nodes for a moment are safe, too: conflicts show at COMMIT and are retried. But what
//! one has committed the other may read some milliseconds later.

pub mod chance;
mod db;
mod error;
mod ids;
#[cfg(feature = "simulation")]
pub mod inline;
mod migrate;
mod mysql;
mod row;
mod sql;
mod tx;

pub use chance::now_micros;
pub use db::{Db, DbConfig, Stats, WeakDb};
pub use error::Error;
pub use migrate::{Migration, Schema};
pub use mysql::{NodeHealth, NodeInUse, NodeState, Survey};
pub use row::{Column, Row};
pub use sql::{Sql, Value};
pub use tx::{Attempts, Finish, Tx};

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Runs a transaction and retries it while the database says that a retry may succeed.
///
/// `store::tx!(db, "name", |tx| { …; Ok::<_, E>(value) }).await` gives `Result<T, E>`, where `E: From<store::Error>`.
/// `tx` is a `&mut Tx`; the body is evaluated in an async block that may borrow from its surroundings. An `Err` rolls back.
#[macro_export]
macro_rules! tx {
    ($db:expr, $name:expr, |$tx:ident| $body:expr) => {
        async {
            let mut attempts = $crate::Attempts::new(&$db, $name);
            loop {
                let mut owned = match attempts.begin().await {
                    Ok(owned) => owned,
                    Err(e) => break Err(e.into()),
                };
                let outcome = {
                    let $tx: &mut $crate::Tx = &mut owned;
                    async { $body }.await
                };
                match attempts.finish(owned, outcome).await {
                    $crate::Finish::Done(result) => break result,
                    $crate::Finish::Again => {}
                }
            }
        }
    };
}
