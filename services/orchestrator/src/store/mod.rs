//! The SQL of this service.

pub mod absences;
pub mod affinity;
pub mod annotations;
pub mod balancers;
pub mod capacity;
pub mod clusters;
pub mod dedications;
pub mod details;
pub mod hosts;
pub mod hypervisors;
pub mod install;
pub mod instance_groups;
pub mod isos;
pub mod key_pairs;
pub mod maintenances;
pub mod metrics;
pub mod mocks;
pub mod moves;
pub mod occupancy;
pub mod offerings;
pub mod os_types;
pub mod placement;
pub mod pod_ips;
pub mod pods;
pub mod recoveries;
pub mod regions;
pub mod remains;
pub mod restarts;
pub mod tags;
pub mod violations;
pub mod vm_assign;
pub mod vm_list;
pub mod vm_names;
pub mod vm_nics;
pub mod vm_order;
pub mod vm_roots;
pub mod vm_shapes;
pub mod vms;
pub mod zones;

use crate::dedication::Kind;
use ::store::{Db, Result, Row, Sql, Tx, Value};
use model::{Page, Paged as _};
use std::future::Future;

/// Where rows are read from: the database, or a transaction that must see its own writes.
pub trait Reader: Send {
    /// All rows of a SELECT.
    fn rows(self, sql: Sql) -> impl Future<Output = Result<Vec<Row>>> + Send;
}

impl Reader for &Db {
    async fn rows(self, sql: Sql) -> Result<Vec<Row>> {
        self.all(sql).await
    }
}

impl Reader for &mut Tx {
    async fn rows(self, sql: Sql) -> Result<Vec<Row>> {
        self.all(sql).await
    }
}

/// A page of rows and the number of all matches. `body` appends everything after the columns (FROM, WHERE); it is used
/// again for the count when the page doesn't prove it.
pub(crate) async fn paged(
    db: &Db,
    columns: &str,
    body: impl Fn(Sql) -> Sql,
    order: &str,
    page: Page,
) -> Result<(Vec<Row>, i64)> {
    let select = body(Sql::new(&format!("SELECT {columns}"))).push(" ORDER BY ").push(order);
    let rows = db.all(page.apply(select)).await?;
    let count = match page.proves_count(rows.len()) {
        Some(count) => count,
        None => db.one(body(Sql::new("SELECT COUNT(*)"))).await?.at(0)?,
    };
    Ok((rows, count))
}

/// What is unique among the living within `scope`: the lower-cased name, or its digest where it is too long for a key.
pub(crate) fn live_key(scope: &str, name: &str) -> String {
    let key = if scope.is_empty() { name.to_lowercase() } else { format!("{scope}/{}", name.to_lowercase()) };
    if key.chars().count() <= 255 {
        return key;
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("{scope}/#{hex}")
}

/// Lower-cased for `name_lower` columns, which are as wide as names.
pub(crate) fn lower(name: &str) -> String {
    name.to_lowercase().chars().take(255).collect()
}

/// Columns of one row that are to change. Others stay as they are, whoever changes them meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<(&'static str, Value)>);

impl Changes {
    /// Sets a column.
    #[must_use]
    pub fn set(mut self, column: &'static str, value: impl Into<Value>) -> Changes {
        self.0.push((column, value.into()));
        self
    }

    /// Sets a column when there is a value.
    #[must_use]
    pub fn set_if(self, column: &'static str, value: Option<impl Into<Value>>) -> Changes {
        match value {
            Some(value) => self.set(column, value),
            None => self,
        }
    }

    /// Writes them; whether the row lives.
    pub async fn apply(self, tx: &mut Tx, table: &'static str, id: i64) -> Result<bool> {
        if self.0.is_empty() {
            let sql = Sql::new(&format!("SELECT id FROM {table} WHERE id = ? AND removed IS NULL")).bind(id);
            return Ok(tx.optional(sql).await?.is_some());
        }
        let mut sql = Sql::new(&format!("UPDATE {table} SET "));
        for (i, (column, value)) in self.0.into_iter().enumerate() {
            sql = sql.push(if i == 0 { "" } else { ", " }).push(column).push(" = ?").bind(value);
        }
        Ok(tx.exec(sql.push(" WHERE id = ? AND removed IS NULL").bind(id)).await? == 1)
    }
}

/// Notes that something is put into a zone, pod or cluster; whether it lives.
pub(crate) async fn touch(tx: &mut Tx, table: &'static str, id: i64) -> Result<bool> {
    let sql = Sql::new(&format!("UPDATE {table} SET touched = touched + 1 WHERE id = ? AND removed IS NULL"));
    Ok(tx.exec(sql.bind(id)).await? == 1)
}

/// Ends the life of a row that had a `live_key`; whether it lived.
pub(crate) async fn remove(tx: &mut Tx, table: &'static str, id: i64) -> Result<bool> {
    let sql = Sql::new(&format!("UPDATE {table} SET removed = ?, live_key = NULL WHERE id = ? AND removed IS NULL"));
    if tx.exec(sql.bind(::store::now_micros()).bind(id)).await? != 1 {
        return Ok(false);
    }
    // What is gone is kept for nobody.
    if let Some(kind) = Kind::of_table(table) {
        Box::pin(dedications::release(tx, kind, id)).await?;
    }
    Ok(true)
}
