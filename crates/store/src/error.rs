//! What can go wrong in the database, as callers need to tell it apart.

/// An error of the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A unique key refused the row. `key` names the index or `table.column` list as the server reports it.
    #[error("duplicate value for {key}")]
    Unique {
        /// Index name (MySQL) or `table.column, …` (SQLite).
        key: String,
    },
    /// Deadlock, certification failure or busy: [`crate::tx!`] retries these; seen by callers only when retries ran out.
    #[error("the database asks for a retry: {0}")]
    Retry(String),
    /// The connection broke while the answer to COMMIT was awaited: the transaction may or may not have taken place.
    #[error("the outcome of a commit is unknown: {0}")]
    CommitUnknown(String),
    /// The database can't be reached, or no connection came free in time.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// A row was expected.
    #[error("no such row")]
    NoRow,
    /// A column is missing or of another type than asked.
    #[error("column {column}: {reason}")]
    Column {
        /// Name asked for.
        column: String,
        /// What the driver said.
        reason: String,
    },
    /// The replica's migrations and the schema don't fit together.
    #[error("migration {file}: {reason}")]
    Migration {
        /// File and step.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Anything else: a bug in a statement, a full disk.
    #[error("database error: {0}")]
    Other(String),
}

impl Error {
    /// Whether running the same transaction again may succeed.
    pub fn is_retry(&self) -> bool {
        matches!(self, Error::Retry(_))
    }

    /// Whether a unique key whose reported name contains `part` refused the row.
    pub fn is_unique(&self, part: &str) -> bool {
        matches!(self, Error::Unique { key } if key.contains(part))
    }
}

impl From<sqlx::Error> for Error {
    fn from(e: sqlx::Error) -> Self {
        match e {
            sqlx::Error::RowNotFound => Error::NoRow,
            sqlx::Error::Database(db) => from_database(db.as_ref()),
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                Error::Unavailable(e.to_string())
            }
            sqlx::Error::Io(io) => Error::Unavailable(io.to_string()),
            sqlx::Error::ColumnDecode { index, source } => Error::Column { column: index, reason: source.to_string() },
            sqlx::Error::ColumnNotFound(c) => Error::Column { column: c, reason: "not in the row".into() },
            other => Error::Other(other.to_string()),
        }
    }
}

fn from_database(e: &dyn sqlx::error::DatabaseError) -> Error {
    if e.is_unique_violation() {
        return Error::Unique { key: unique_key(e.message()) };
    }
    if let Some(my) = e.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return match my.number() {
            // 1305: the savepoint that spans a transaction is gone, see `mysql::session`.
            1205 | 1213 | 1305 => Error::Retry(my.message().to_owned()),
            // 1047: the node isn't part of the primary component; 1053, 1927, 2006, 2013: going away.
            1040 | 1047 | 1053 | 1290 | 1927 | 2006 | 2013 => Error::Unavailable(my.message().to_owned()),
            1062 => Error::Unique { key: unique_key(my.message()) },
            _ => Error::Other(my.message().to_owned()),
        };
    }
    // SQLite: 5 BUSY, 6 LOCKED and their extended codes in the low byte.
    match e.code().as_deref().and_then(|c| c.parse::<i64>().ok()).map(|c| c & 0xff) {
        Some(5 | 6) => Error::Retry(e.message().to_owned()),
        _ => Error::Other(e.message().to_owned()),
    }
}

/// MySQL: `Duplicate entry 'x' for key 'name'`; SQLite: `UNIQUE constraint failed: t.a, t.b`.
fn unique_key(message: &str) -> String {
    if let Some((_, rest)) = message.rsplit_once("for key ") {
        return rest.trim_matches('\'').to_owned();
    }
    message.rsplit_once("failed: ").map_or(message, |(_, k)| k).to_owned()
}

/// What the API says of it. Handlers map [`Error::Unique`] themselves, where it is the user's doing.
impl From<Error> for contract::ApiError {
    fn from(e: Error) -> Self {
        match e {
            // The transaction didn't take place: the request may be repeated.
            Error::Retry(_) | Error::Unavailable(_) => contract::ApiError::overloaded(e.to_string()),
            Error::CommitUnknown(_) => contract::ApiError::unavailable(e.to_string()),
            other => contract::ApiError::internal(other.to_string()),
        }
    }
}
