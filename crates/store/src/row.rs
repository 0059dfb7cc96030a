//! Rows, decoded column by column when asked.

use crate::{Error, Result};
use sqlx::mysql::MySqlRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, ValueRef as _};

/// One row of a result.
pub struct Row(pub(crate) Native);

pub(crate) enum Native {
    Sqlite(SqliteRow),
    MySql(MySqlRow),
    #[cfg(feature = "simulation")]
    Inline(crate::inline::InlineRow),
}

/// A type that a column can be read as.
pub trait Column: Sized {
    /// Reads the column.
    fn read(row: &Row, column: &str) -> Result<Self>;
    /// Reads the column by position.
    fn read_at(row: &Row, index: usize) -> Result<Self>;
}

// Unchecked on purpose: under a binary collation MySQL announces text as VARBINARY, and SMALLINT as itself.
macro_rules! column {
    ($($t:ty),*) => {
        $(impl Column for $t {
            fn read(row: &Row, column: &str) -> Result<Self> {
                match &row.0 {
                    Native::Sqlite(r) => r.try_get_unchecked::<$t, _>(column),
                    Native::MySql(r) => r.try_get_unchecked::<$t, _>(column),
                    #[cfg(feature = "simulation")]
                    Native::Inline(r) => return crate::inline::read(r.named(column)?, column),
                }.map_err(|e| failed(column, e))
            }
            fn read_at(row: &Row, index: usize) -> Result<Self> {
                match &row.0 {
                    Native::Sqlite(r) => r.try_get_unchecked::<$t, _>(index),
                    Native::MySql(r) => r.try_get_unchecked::<$t, _>(index),
                    #[cfg(feature = "simulation")]
                    Native::Inline(r) => return crate::inline::read(r.indexed(index)?, &index.to_string()),
                }.map_err(|e| failed(&index.to_string(), e))
            }
        })*
    };
}
column!(i64, f64, String, Vec<u8>);

impl<T: Column> Column for Option<T> {
    fn read(row: &Row, column: &str) -> Result<Self> {
        let null = match &row.0 {
            Native::Sqlite(r) => r.try_get_raw(column).map(|v| v.is_null()),
            Native::MySql(r) => r.try_get_raw(column).map(|v| v.is_null()),
            #[cfg(feature = "simulation")]
            Native::Inline(r) => Ok(*r.named(column)? == crate::Value::Null),
        }
        .map_err(|e| failed(column, e))?;
        if null { Ok(None) } else { T::read(row, column).map(Some) }
    }
    fn read_at(row: &Row, index: usize) -> Result<Self> {
        let null = match &row.0 {
            Native::Sqlite(r) => r.try_get_raw(index).map(|v| v.is_null()),
            Native::MySql(r) => r.try_get_raw(index).map(|v| v.is_null()),
            #[cfg(feature = "simulation")]
            Native::Inline(r) => Ok(*r.indexed(index)? == crate::Value::Null),
        }
        .map_err(|e| failed(&index.to_string(), e))?;
        if null { Ok(None) } else { T::read_at(row, index).map(Some) }
    }
}

impl Column for bool {
    fn read(row: &Row, column: &str) -> Result<Self> {
        Ok(i64::read(row, column)? != 0)
    }
    fn read_at(row: &Row, index: usize) -> Result<Self> {
        Ok(i64::read_at(row, index)? != 0)
    }
}

impl Column for i32 {
    fn read(row: &Row, column: &str) -> Result<Self> {
        narrow(i64::read(row, column)?, column)
    }
    fn read_at(row: &Row, index: usize) -> Result<Self> {
        narrow(i64::read_at(row, index)?, &index.to_string())
    }
}

fn narrow(v: i64, column: &str) -> Result<i32> {
    i32::try_from(v)
        .map_err(|_| Error::Column { column: column.to_owned(), reason: format!("{v} is no 32-bit number") })
}

fn failed(column: &str, e: sqlx::Error) -> Error {
    match e {
        sqlx::Error::ColumnDecode { source, .. } => {
            Error::Column { column: column.to_owned(), reason: source.to_string() }
        }
        other => Error::Column { column: column.to_owned(), reason: other.to_string() },
    }
}

impl Row {
    /// Reads a column by name.
    pub fn get<T: Column>(&self, column: &str) -> Result<T> {
        T::read(self, column)
    }

    /// Reads a column by position, from 0.
    pub fn at<T: Column>(&self, index: usize) -> Result<T> {
        T::read_at(self, index)
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Row(..)")
    }
}
