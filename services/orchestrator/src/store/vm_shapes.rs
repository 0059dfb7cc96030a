//! How large a VM is: its compute offering, and what it has of it.

use super::vms;
use crate::placement::Amount;
use std::collections::BTreeMap;
use store::{Db, Error, Result, Row, Sql, Tx, now_micros};

/// A VM's size, with all that belongs to its offering.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Shape {
    /// Compute offering.
    pub offering: i64,
    /// CPUs.
    pub cpu: i64,
    /// MHz of each.
    pub cpu_mhz: i64,
    /// MiB.
    pub memory_mb: i64,
    /// All details.
    pub details: BTreeMap<String, String>,
    /// Whether it is restarted after a failure.
    pub ha_enabled: bool,
}

impl Shape {
    /// What it takes of a host.
    pub fn amount(&self) -> Amount {
        Amount { cpu_mhz: self.cpu * self.cpu_mhz, memory: self.memory_mb * 1024 * 1024 }
    }
}

/// The shape of a VM.
pub async fn of(tx: &mut Tx, vm: i64) -> Result<Option<Shape>> {
    let sql = Sql::new(
        "SELECT service_offering_id, cpu, cpu_mhz, memory_mb, details, ha_enabled FROM vms WHERE id = ? AND removed IS NULL",
    );
    let read = |r: Row| {
        Ok(Shape {
            offering: r.at(0)?,
            cpu: r.at(1)?,
            cpu_mhz: r.at(2)?,
            memory_mb: r.at(3)?,
            details: vms::details(&r.at::<String>(4)?)?,
            ha_enabled: r.at(5)?,
        })
    };
    tx.optional(sql.bind(vm)).await?.map(read).transpose()
}

/// Gives a VM another shape.
pub async fn set(tx: &mut Tx, vm: i64, shape: &Shape) -> Result<()> {
    let details = serde_json::to_string(&shape.details).map_err(|e| Error::Other(e.to_string()))?;
    let sql = Sql::new(
        "UPDATE vms SET service_offering_id = ?, cpu = ?, cpu_mhz = ?, memory_mb = ?, details = ?, ha_enabled = ?, changed = ? \
         WHERE id = ? AND removed IS NULL",
    );
    let sql = sql.bind(shape.offering).bind(shape.cpu).bind(shape.cpu_mhz).bind(shape.memory_mb).bind(details);
    tx.exec(sql.bind(shape.ha_enabled).bind(now_micros()).bind(vm)).await.map(drop)
}

/// What a VM's offering, removed or not, binds it to, and whether it may be scaled while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    /// Whether its disks lie on the host itself.
    pub local_storage: bool,
    /// Storage tags.
    pub storage_tags: Vec<String>,
    /// Whether its guest can be scaled while it runs.
    pub dynamic: bool,
}

fn tags(text: Option<String>) -> Vec<String> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()
}

/// What binds a VM.
pub async fn bond(db: &Db, vm: i64) -> Result<Option<Bond>> {
    let sql = Sql::new(
        "SELECT s.storage_type, s.tags, v.dynamic_scaling FROM vms v JOIN service_offerings s ON s.id = v.service_offering_id \
         WHERE v.id = ?",
    );
    let read = |r: Row| {
        Ok(Bond { local_storage: r.at::<String>(0)? == "local", storage_tags: tags(r.at(1)?), dynamic: r.at(2)? })
    };
    db.optional(sql.bind(vm)).await?.map(read).transpose()
}

/// The tags of the pool that a VM's ROOT disk lies on; none when it has no place yet.
pub async fn root_pool_tags(db: &Db, vm: i64) -> Result<Option<Vec<String>>> {
    let sql = Sql::new(
        "SELECT p.tags FROM volumes o JOIN storage_pools p ON p.id = o.pool_id WHERE o.vm_id = ? AND o.kind = 'ROOT' \
         AND o.removed IS NULL LIMIT 1",
    );
    db.optional(sql.bind(vm)).await?.map(|r| Ok(tags(r.at(0)?))).transpose()
}

/// Lets a VM hold `to` of the host where it holds something already, if the host still has what that is more. Gives the host
/// and the difference; none when the host has too little. What it holds already changes nothing.
pub async fn hold_instead(tx: &mut Tx, vm: i64, to: Amount) -> Result<Option<(i64, Amount)>> {
    let Some((host, held)) = super::placement::held(tx, vm).await? else { return Ok(None) };
    let more = Amount { cpu_mhz: to.cpu_mhz - held.cpu_mhz, memory: to.memory - held.memory };
    if more == (Amount { cpu_mhz: 0, memory: 0 }) {
        return Ok(Some((host, more)));
    }
    let sql = Sql::new(
        "UPDATE host_capacity SET cpu_used_mhz = cpu_used_mhz + ?, mem_used = mem_used + ? WHERE host_id = ? \
         AND (? <= 0 OR cpu_used_mhz + cpu_reserved + ? <= cpu_total_mhz * cpu_overcommit) \
         AND (? <= 0 OR mem_used + mem_reserved + ? <= mem_total * mem_overcommit)",
    );
    let sql = sql.bind(more.cpu_mhz).bind(more.memory).bind(host);
    let sql = sql.bind(more.cpu_mhz).bind(more.cpu_mhz).bind(more.memory).bind(more.memory);
    if tx.exec(sql).await? != 1 {
        return Ok(None);
    }
    let sql = Sql::new(
        "UPDATE vm_capacity SET cpu_mhz = ?, memory = ? WHERE vm_id = ? AND host_id = ? AND cpu_mhz = ? AND memory = ?",
    );
    let sql = sql.bind(to.cpu_mhz).bind(to.memory).bind(vm).bind(host).bind(held.cpu_mhz).bind(held.memory);
    if tx.exec(sql).await? != 1 {
        return Err(Error::Other(format!("what virtual machine {vm} holds has changed meanwhile")));
    }
    Ok(Some((host, more)))
}
