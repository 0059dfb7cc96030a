//! Rows of `vm_restarts`, and what decides whether a VM is started again by itself.

use crate::store::vms::VmRow;
use model::state::{HostStatus, VmState};
use store::{Db, Result, Row, Sql, Tx, now_micros};

/// Why a VM is to be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its host is down.
    Host,
    /// It ended by itself on a host that lives.
    Guest,
}

impl Cause {
    const fn word(self) -> &'static str {
        match self {
            Cause::Host => "Host",
            Cause::Guest => "Guest",
        }
    }
}

/// A VM that waits to be started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The VM.
    pub vm: i64,
    /// Why.
    pub cause: Cause,
    /// Where it was lost.
    pub host: i64,
    /// Cluster of that host.
    pub cluster: Option<i64>,
    /// Its pod.
    pub pod: Option<i64>,
    /// The only host that has its disks.
    pub only_host: Option<i64>,
    /// Tries that failed.
    pub attempts: i64,
}

const COLUMNS: &str = "w.vm_id, w.cause, w.host_id, w.cluster_id, w.pod_id, w.only_host, w.attempts";

fn read(r: &Row) -> Result<Wish> {
    Ok(Wish {
        vm: r.at(0)?,
        cause: if r.at::<String>(1)? == Cause::Guest.word() { Cause::Guest } else { Cause::Host },
        host: r.at(2)?,
        cluster: r.at(3)?,
        pod: r.at(4)?,
        only_host: r.at(5)?,
        attempts: r.at(6)?,
    })
}

/// What decides whether a VM is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether that is wanted.
    pub ha: bool,
    /// Whether a disk of it lies on a host's own storage.
    pub local: bool,
    /// Cluster of its last host.
    pub cluster: Option<i64>,
    /// Pod of its last host.
    pub pod: Option<i64>,
}

/// Reads them.
pub async fn facts(tx: &mut Tx, vm: i64) -> Result<Facts> {
    let sql = Sql::new(
        "SELECT m.ha_enabled, m.cluster_id, m.pod_id, CASE WHEN EXISTS (SELECT 1 FROM volumes v JOIN storage_pools p \
         ON p.id = v.pool_id WHERE v.vm_id = m.id AND v.removed IS NULL AND p.scope = 'HOST') THEN 1 ELSE 0 END \
         FROM vms m WHERE m.id = ?",
    );
    let r = tx.one(sql.bind(vm)).await?;
    Ok(Facts { ha: r.at(0)?, cluster: r.at(1)?, pod: r.at(2)?, local: r.at(3)? })
}

/// Notes that a VM is to be started again, not before `not_before` (UTC µs). An older wish for it is forgotten.
pub async fn wish(tx: &mut Tx, vm: &VmRow, cause: Cause, host: i64, facts: Facts, not_before: i64) -> Result<()> {
    done(tx, vm.id).await?;
    let now = now_micros();
    let sql = Sql::new(
        "INSERT INTO vm_restarts (vm_id, cause, host_id, cluster_id, pod_id, only_host, weight, attempts, not_before, created) \
         VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
    )
    .bind(vm.id)
    .bind(cause.word())
    .bind(host)
    .bind(facts.cluster)
    .bind(facts.pod)
    .bind(facts.local.then_some(host))
    .bind(vm.memory_mb)
    .bind(not_before)
    .bind(now);
    tx.exec(sql).await.map(drop)
}

/// The wish for a VM.
pub async fn of(tx: &mut Tx, vm: i64) -> Result<Option<Wish>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM vm_restarts w WHERE w.vm_id = ?"));
    tx.optional(sql.bind(vm)).await?.map(|r| read(&r)).transpose()
}

/// The same outside of a transaction.
pub async fn find(db: &Db, vm: i64) -> Result<Option<Wish>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM vm_restarts w WHERE w.vm_id = ?"));
    db.optional(sql.bind(vm)).await?.map(|r| read(&r)).transpose()
}

/// How many restarts are under way.
pub async fn under_way(db: &Db) -> Result<i64> {
    db.one(Sql::new("SELECT COUNT(*) FROM vm_restarts WHERE job IS NOT NULL")).await?.at(0)
}

/// How many wait, and how many restarts are under way.
pub async fn counts(db: &Db) -> Result<(i64, i64)> {
    let sql = "SELECT COUNT(*), COUNT(job) FROM vm_restarts";
    let row = db.one(Sql::new(sql)).await?;
    let (all, under_way): (i64, i64) = (row.at(0)?, row.at(1)?);
    Ok((all - under_way, under_way))
}

/// Numbers of VMs that are due, in the order in which they are to be started; at most `most`.
pub async fn due(db: &Db, most: i64) -> Result<Vec<i64>> {
    let sql = Sql::new(
        "SELECT w.vm_id FROM vm_restarts w JOIN vms m ON m.id = w.vm_id LEFT JOIN hosts h ON h.id = w.only_host \
         WHERE w.job IS NULL AND w.not_before <= ? AND m.state = ? AND m.removed IS NULL \
         AND (w.only_host IS NULL OR (h.status = ? AND NOT EXISTS (SELECT 1 FROM host_debts d WHERE d.host_id = w.only_host))) \
         ORDER BY w.attempts, w.weight DESC, w.vm_id LIMIT ?",
    );
    let sql = sql.bind(now_micros()).bind(VmState::Stopped).bind(HostStatus::Up).bind(most);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// Wishes that came to nothing: somebody has started, destroyed or removed the VM since, or its disks' host.
pub async fn obsolete(db: &Db, most: i64) -> Result<Vec<i64>> {
    let sql = Sql::new(
        "SELECT w.vm_id FROM vm_restarts w LEFT JOIN vms m ON m.id = w.vm_id LEFT JOIN hosts h ON h.id = w.only_host \
         WHERE w.job IS NULL AND (m.id IS NULL OR m.removed IS NOT NULL OR h.removed IS NOT NULL \
         OR m.state NOT IN (?, ?, ?)) LIMIT ?",
    );
    // A start or a stop that fails leaves it Stopped.
    let sql = sql.bind(VmState::Stopped).bind(VmState::Starting).bind(VmState::Stopping).bind(most);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// A job takes the wish up. Gives whether it was free.
pub async fn assign(tx: &mut Tx, vm: i64, job: &str) -> Result<bool> {
    let sql = Sql::new("UPDATE vm_restarts SET job = ? WHERE vm_id = ? AND job IS NULL");
    Ok(tx.exec(sql.bind(job).bind(vm)).await? == 1)
}

/// The wish came true, or to nothing.
pub async fn done(tx: &mut Tx, vm: i64) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM vm_restarts WHERE vm_id = ?").bind(vm)).await.map(drop)
}

/// A try failed; the next one is at `not_before`.
pub async fn failed(tx: &mut Tx, vm: i64, error: &str, not_before: i64) -> Result<()> {
    let sql = Sql::new(
        "UPDATE vm_restarts SET attempts = attempts + 1, job = NULL, last_error = ?, not_before = ? WHERE vm_id = ?",
    );
    tx.exec(sql.bind(error).bind(not_before).bind(vm)).await.map(drop)
}

/// Running VMs of hosts that are down: VM, host, generation. Beginning with numbers above `after`; at most `most`.
pub async fn lost(db: &Db, after: i64, most: i64) -> Result<Vec<(i64, i64, i64)>> {
    let sql = Sql::new(
        "SELECT m.id, h.id, m.generation FROM hosts h JOIN vms m ON m.host_id = h.id WHERE h.status = ? AND h.removed IS NULL \
         AND m.state = ? AND m.removed IS NULL AND m.id > ? ORDER BY m.id LIMIT ?",
    );
    let sql = sql.bind(HostStatus::Down).bind(VmState::Running).bind(after).bind(most);
    db.all(sql).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?, r.at(2)?))).collect()
}

/// Running VMs of a host that are wanted back after a failure: UUID and name to show.
pub async fn endangered(tx: &mut Tx, host: i64) -> Result<Vec<(String, String)>> {
    let sql = Sql::new(
        "SELECT uuid, display_name FROM vms WHERE host_id = ? AND state = ? AND ha_enabled = 1 AND removed IS NULL ORDER BY id",
    );
    tx.all(sql.bind(host).bind(VmState::Running)).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

/// Whether a host is known to be down.
pub async fn is_down(tx: &mut Tx, host: i64) -> Result<bool> {
    let row = tx.optional(Sql::new("SELECT status FROM hosts WHERE id = ? AND removed IS NULL").bind(host)).await?;
    Ok(matches!(row.map(|r| r.at::<HostStatus>(0)).transpose()?, Some(HostStatus::Down)))
}
