//! Rows of a fresh installation.

use super::lower;
use ::store::{Db, Result, Sql, Tx, Value, now_micros};
use serde::Deserialize;

/// What a version of a hypervisor can do.
#[derive(Clone, Debug, Deserialize)]
pub struct Caps {
    /// Number.
    pub id: i64,
    /// Hypervisor.
    pub hypervisor: String,
    /// Version, or "default".
    pub version: String,
    /// Most guests of a host.
    pub max_guests: Option<i64>,
    /// Whether it does security groups.
    pub security_groups: bool,
    /// Most data disks of a VM.
    pub max_data_volumes: Option<i64>,
    /// Most hosts of a cluster.
    pub max_hosts_per_cluster: Option<i64>,
    /// Whether disks move with running VMs.
    pub storage_motion: bool,
    /// Whether running VMs can be snapshotted.
    pub vm_snapshots: bool,
}

/// Writes categories of operating systems.
pub async fn os_categories(tx: &mut Tx, rows: &[(i64, String)]) -> Result<()> {
    let mut sql = Sql::new("INSERT INTO os_categories (id, uuid, name, name_lower, created) VALUES ");
    for (i, (id, name)) in rows.iter().enumerate() {
        sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
            Value::from(*id),
            Value::from(model::new_uuid()),
            Value::from(name),
            Value::from(lower(name)),
            Value::from(now_micros()),
        ]);
    }
    tx.exec(sql).await.map(drop)
}

/// Writes operating systems.
pub async fn os_types(tx: &mut Tx, rows: &[(i64, i64, String)]) -> Result<()> {
    let mut sql =
        Sql::new("INSERT INTO os_types (id, uuid, category_id, name, name_lower, user_defined, created) VALUES ");
    for (i, (id, category, name)) in rows.iter().enumerate() {
        sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
            Value::from(*id),
            Value::from(model::new_uuid()),
            Value::from(*category),
            Value::from(name),
            Value::from(lower(name)),
            Value::from(false),
            Value::from(now_micros()),
        ]);
    }
    tx.exec(sql).await.map(drop)
}

/// Writes what hypervisors can do.
pub async fn capabilities(tx: &mut Tx, rows: &[Caps]) -> Result<()> {
    let mut sql = Sql::new(
        "INSERT INTO hypervisor_caps (id, uuid, hypervisor, version, max_guests, security_groups, max_data_volumes, \
         max_hosts_per_cluster, storage_motion, vm_snapshots, created) VALUES ",
    );
    for (i, c) in rows.iter().enumerate() {
        sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
            Value::from(c.id),
            Value::from(model::new_uuid()),
            Value::from(&c.hypervisor),
            Value::from(&c.version),
            Value::from(c.max_guests),
            Value::from(c.security_groups),
            Value::from(c.max_data_volumes),
            Value::from(c.max_hosts_per_cluster),
            Value::from(c.storage_motion),
            Value::from(c.vm_snapshots),
            Value::from(now_micros()),
        ]);
    }
    tx.exec(sql).await.map(drop)
}

/// The highest number of a table; 0 when it is empty.
pub async fn highest(db: &Db, table: &'static str) -> Result<i64> {
    let row = db.one(Sql::new(&format!("SELECT MAX(id) FROM {table}"))).await?;
    Ok(row.at::<Option<i64>>(0)?.unwrap_or(0))
}
