//! A database that answers within the calling task, for simulation: the simulator is the server.

use crate::sql::Value;
use crate::{Db, Error, Result, Sql};
use futures::future::BoxFuture;
use std::sync::Arc;

/// A connection of a simulated process with a simulated database.
pub trait Inline: Send + Sync {
    /// Runs a SELECT outside any transaction.
    fn select(&self, text: String, args: Vec<Value>) -> BoxFuture<'_, Result<Vec<InlineRow>>>;
    /// Begins a transaction.
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn InlineTx>>>;
}

/// An open transaction; dropped, it rolls back.
pub trait InlineTx: Send {
    /// Runs a statement; gives its rows and how many it affected.
    fn run(&mut self, text: String, args: Vec<Value>) -> BoxFuture<'_, Result<(Vec<InlineRow>, u64)>>;
    /// Commits.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<()>>;
    /// Rolls back.
    fn rollback(self: Box<Self>) -> BoxFuture<'static, Result<()>>;
}

/// A row of an in-line database.
#[derive(Clone, Debug)]
pub struct InlineRow {
    /// Names of the columns.
    pub columns: Arc<[String]>,
    /// Their values.
    pub values: Vec<Value>,
}

impl Db {
    /// A database in the hands of a simulator.
    pub fn inline(database: Arc<dyn Inline>) -> Db {
        Db::of(crate::db::Backend::Inline(database))
    }
}

impl Sql {
    pub(crate) fn into_parts(self) -> (String, Vec<Value>) {
        (self.text, self.args)
    }
}

impl InlineRow {
    pub(crate) fn named(&self, column: &str) -> Result<&Value> {
        let index = self.columns.iter().position(|c| c == column);
        index.and_then(|i| self.values.get(i)).ok_or_else(|| failed(column, "not in the row"))
    }

    pub(crate) fn indexed(&self, index: usize) -> Result<&Value> {
        self.values.get(index).ok_or_else(|| failed(&index.to_string(), "not in the row"))
    }
}

/// What a value can be read as.
pub(crate) trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for i64 {
    fn from_value(value: &Value) -> Option<i64> {
        if let Value::Int(v) = value { Some(*v) } else { None }
    }
}

impl FromValue for f64 {
    fn from_value(value: &Value) -> Option<f64> {
        match value {
            Value::Real(v) => Some(*v),
            Value::Int(v) => Some(*v as f64),
            _ => None,
        }
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Option<String> {
        match value {
            Value::Text(v) => Some(v.clone()),
            Value::Bytes(v) => String::from_utf8(v.clone()).ok(),
            _ => None,
        }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: &Value) -> Option<Vec<u8>> {
        match value {
            Value::Bytes(v) => Some(v.clone()),
            Value::Text(v) => Some(v.clone().into_bytes()),
            _ => None,
        }
    }
}

pub(crate) fn read<T: FromValue>(value: &Value, column: &str) -> Result<T> {
    T::from_value(value).ok_or_else(|| failed(column, &format!("{value:?} is of another type")))
}

fn failed(column: &str, reason: &str) -> Error {
    Error::Column { column: column.to_owned(), reason: reason.to_owned() }
}
