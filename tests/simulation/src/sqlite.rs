//! SQLite in memory, called directly: what the simulated database keeps its data in.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::inline::InlineRow;
use store::{Error, Result, Value};

/// A database in memory, used by one run after the other.
pub struct Sqlite {
    connection: Connection,
    columns: BTreeMap<String, Arc<[String]>>,
    tables: Vec<String>,
}

struct Argument<'v>(&'v Value);

impl rusqlite::ToSql for Argument<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Int(v) => ValueRef::Integer(*v),
            Value::Real(v) => ValueRef::Real(*v),
            Value::Text(v) => ValueRef::Text(v.as_bytes()),
            Value::Bytes(v) => ValueRef::Blob(v),
        }))
    }
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(v) => Value::Int(v),
        ValueRef::Real(v) => Value::Real(v),
        ValueRef::Text(v) => Value::Text(String::from_utf8_lossy(v).into_owned()),
        ValueRef::Blob(v) => Value::Bytes(v.to_vec()),
    }
}

fn failed(error: rusqlite::Error) -> Error {
    match error {
        // 1555: primary key, 2067: unique index.
        rusqlite::Error::SqliteFailure(code, Some(text)) if matches!(code.extended_code, 1555 | 2067) => {
            Error::Unique { key: text.rsplit_once("failed: ").map_or(text.clone(), |(_, key)| key.to_owned()) }
        }
        other => Error::Other(other.to_string()),
    }
}

impl Sqlite {
    /// An empty database.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new() -> Result<Sqlite> {
        let connection = Connection::open_in_memory().map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(400);
        connection.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF").map_err(failed)?;
        Ok(Sqlite { connection, columns: BTreeMap::new(), tables: Vec::new() })
    }

    /// Runs a statement; gives its rows and how many it affected.
    ///
    /// # Errors
    /// What is wrong with it, or which key refused it.
    pub fn run(&mut self, text: &str, args: &[Value]) -> Result<(Vec<InlineRow>, u64)> {
        let mut statement = self.connection.prepare_cached(text).map_err(failed)?;
        let args = params_from_iter(args.iter().map(Argument));
        if statement.column_count() == 0 {
            let affected = statement.execute(args).map_err(failed)?;
            // Statements that change no rows leave the count of the one before.
            let changes = ["INSERT", "UPDATE", "DELETE"].iter().any(|word| text.starts_with(word));
            return Ok((Vec::new(), if changes { affected as u64 } else { 0 }));
        }
        let columns = match self.columns.get(text) {
            Some(columns) => columns.clone(),
            None => {
                let names: Arc<[String]> = statement.column_names().into_iter().map(str::to_owned).collect();
                self.columns.insert(text.to_owned(), names.clone());
                names
            }
        };
        let mut found = Vec::new();
        let mut rows = statement.query(args).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let values = (0..columns.len()).map(|i| row.get_ref(i).map(owned)).collect::<rusqlite::Result<_>>();
            found.push(InlineRow { columns: columns.clone(), values: values.map_err(failed)? });
        }
        Ok((found, 0))
    }

    /// Takes the tables that there are for those that [`Sqlite::empty`] empties.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn ready(&mut self) -> Result<()> {
        let (rows, _) = self.run("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name", &[])?;
        self.tables = rows
            .into_iter()
            .filter_map(|r| match r.values.into_iter().next() {
                Some(Value::Text(name)) if name != "schema_steps" => Some(name),
                _ => None,
            })
            .collect();
        Ok(())
    }

    /// Empties all tables, ending a transaction that was left.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn empty(&mut self) -> Result<()> {
        if !self.connection.is_autocommit() {
            self.run("ROLLBACK", &[])?;
        }
        for table in self.tables.clone() {
            self.run(&format!("DELETE FROM {table}"), &[])?;
        }
        Ok(())
    }
}
