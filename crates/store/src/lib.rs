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
//! Ids are allocated ([`Db::next_id`]) before the transaction, never inside: SQLite has one writer.

mod db;
mod error;
mod ids;
mod migrate;
mod row;
mod sql;
mod tx;

pub use db::{Db, DbConfig, Stats};
pub use error::Error;
pub use migrate::Migration;
pub use row::{Column, Row};
pub use sql::{Sql, Value};
pub use tx::{Attempts, Finish, Tx};

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Wall-clock time as the database keeps it: microseconds since 1970 UTC.
pub fn now_micros() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

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
