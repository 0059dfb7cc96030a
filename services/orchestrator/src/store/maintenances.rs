//! Rows of `host_maintenances` and `host_evacuations`: hosts that are being emptied, and their VMs on the way off.

use super::hosts;
use model::state::{HostStatus, ResourceState, VmState};
use std::collections::HashMap;
use store::{Db, Error, Result, Row, Sql, Tx, now_micros};

/// How a VM is taken off its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It moves while it runs.
    Move,
    /// It is stopped: no other host can take it.
    Stop,
    /// It is stopped and started elsewhere: its hypervisor moves nothing that runs.
    Restart,
}

impl Way {
    const fn word(self) -> &'static str {
        match self {
            Way::Move => "Move",
            Way::Stop => "Stop",
            Way::Restart => "Restart",
        }
    }

    fn parse(word: &str) -> Way {
        match word {
            "Stop" => Way::Stop,
            "Restart" => Way::Restart,
            _ => Way::Move,
        }
    }
}

/// A host that is being emptied, or could not be.
#[derive(Clone, Debug)]
pub struct Emptying {
    /// Number.
    pub host: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Zone.
    pub zone: i64,
    /// Cluster.
    pub cluster: i64,
    /// Hypervisor.
    pub hypervisor: String,
    /// Connection.
    pub status: HostStatus,
    /// PrepareForMaintenance or ErrorInMaintenance; anything else: the row is out of date.
    pub state: ResourceState,
    /// Whether the host has been deleted.
    pub removed: bool,
    /// The job that asked for it.
    pub job: String,
    /// Since when, UTC µs.
    pub begun: i64,
    /// Since when no VM is left, UTC µs.
    pub cleared: Option<i64>,
    /// VMs that hold something of it, moves included.
    pub holders: i64,
    /// Routers on it.
    pub routers: i64,
    /// Orders that it owes: something may be left on it.
    pub debts: i64,
}

impl Emptying {
    /// Whether nothing is left on it. What a host owes that can't be reached, the VMs' leases keep from harm.
    pub fn is_empty(&self) -> bool {
        self.holders == 0 && self.routers == 0 && (self.debts == 0 || self.status != HostStatus::Up)
    }
}

/// All hosts that are being emptied, or could not be. One query.
pub async fn all(db: &Db) -> Result<Vec<Emptying>> {
    let sql = Sql::new(
        "SELECT m.host_id, h.uuid, h.name, h.zone_id, m.cluster_id, h.hypervisor, h.status, h.resource_state, h.removed, m.job, \
         m.begun, m.cleared, \
         (SELECT COUNT(*) FROM vm_capacity c WHERE c.host_id = m.host_id) + (SELECT COUNT(*) FROM vm_moves v WHERE v.host_id = m.host_id), \
         (SELECT COUNT(*) FROM routers r WHERE r.host_id = m.host_id AND r.removed IS NULL), \
         (SELECT COUNT(*) FROM host_debts d WHERE d.host_id = m.host_id) \
         FROM host_maintenances m JOIN hosts h ON h.id = m.host_id ORDER BY m.host_id",
    );
    db.all(sql).await?.iter().map(emptying).collect()
}

fn emptying(r: &Row) -> Result<Emptying> {
    Ok(Emptying {
        host: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        zone: r.at(3)?,
        cluster: r.at(4)?,
        hypervisor: r.at(5)?,
        status: r.at(6)?,
        state: r.at(7)?,
        removed: r.at::<Option<i64>>(8)?.is_some(),
        job: r.at(9)?,
        begun: r.at(10)?,
        cleared: r.at(11)?,
        holders: r.at(12)?,
        routers: r.at(13)?,
        debts: r.at(14)?,
    })
}

/// A job begins to empty a host. False: another host of its cluster, or it itself, is being emptied or could not be.
pub async fn begin(tx: &mut Tx, host: i64, cluster: i64, job: &str) -> Result<bool> {
    let sql = Sql::new("INSERT INTO host_maintenances (host_id, cluster_id, job, begun) VALUES (?, ?, ?, ?)");
    match tx.exec(sql.bind(host).bind(cluster).bind(job).bind(now_micros())).await {
        Ok(_) => Ok(true),
        Err(Error::Unique { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether this job's wish to empty a host still stands.
pub async fn is_wanted(tx: &mut Tx, host: i64, job: &str) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM host_maintenances WHERE host_id = ? AND job = ?");
    Ok(tx.optional(sql.bind(host).bind(job)).await?.is_some())
}

/// Nobody wants a host emptied any more, or it is. Moves that are under way end as they would.
pub async fn forget(tx: &mut Tx, host: i64) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM host_evacuations WHERE host_id = ?").bind(host)).await?;
    tx.exec(Sql::new("DELETE FROM host_maintenances WHERE host_id = ?").bind(host)).await.map(drop)
}

/// A host changes its resource state, and takes VMs accordingly. False: it isn't in any of `from`.
pub async fn transit(tx: &mut Tx, host: i64, from: &[ResourceState], to: ResourceState) -> Result<bool> {
    let sql = Sql::new("UPDATE hosts SET resource_state = ? WHERE id = ? AND removed IS NULL AND ");
    let sql = sql.bind(to).bind(host).in_list("resource_state", from.iter().copied());
    if tx.exec(sql).await? == 0 {
        return Ok(false);
    }
    hosts::accept(tx, "h.id", host).await?;
    Ok(true)
}

/// No VM is left on a host.
pub async fn cleared(tx: &mut Tx, host: i64) -> Result<()> {
    let sql = Sql::new("UPDATE host_maintenances SET cleared = ? WHERE host_id = ? AND cleared IS NULL");
    tx.exec(sql.bind(now_micros()).bind(host)).await.map(drop)
}

/// Why a host could not be emptied.
pub async fn give_up(tx: &mut Tx, host: i64, problem: &str) -> Result<()> {
    let sql = Sql::new("UPDATE host_maintenances SET problem = ? WHERE host_id = ?");
    tx.exec(sql.bind(problem).bind(host)).await.map(drop)
}

/// How a host stands, as the job sees it that wants it emptied.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Resource state.
    pub state: ResourceState,
    /// The job whose wish it is to empty it.
    pub job: Option<String>,
    /// Why it could not be emptied.
    pub problem: Option<String>,
}

/// How a living host stands.
pub async fn standing(db: &Db, host: i64) -> Result<Option<Standing>> {
    let sql = Sql::new(
        "SELECT h.resource_state, m.job, m.problem FROM hosts h LEFT JOIN host_maintenances m ON m.host_id = h.id \
         WHERE h.id = ? AND h.removed IS NULL",
    );
    let row = db.optional(sql.bind(host)).await?;
    row.map(|r| Ok(Standing { state: r.at(0)?, job: r.at(1)?, problem: r.at(2)? })).transpose()
}

/// A VM on such a host.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Number.
    pub vm: i64,
    /// UUID and the name shown to users.
    pub name: (String, String),
    /// State.
    pub state: VmState,
}

/// The VMs of a host, in the order in which they leave it: large ones find it hardest to get a place.
pub async fn guests(db: &Db, host: i64) -> Result<Vec<Guest>> {
    let sql = Sql::new(
        "SELECT id, uuid, display_name, state FROM vms WHERE host_id = ? AND removed IS NULL ORDER BY memory_mb DESC, id",
    );
    let read = |r: &Row| Ok(Guest { vm: r.at(0)?, name: (r.at(1)?, r.at(2)?), state: r.at(3)? });
    db.all(sql.bind(host)).await?.iter().map(read).collect()
}

/// How far a VM's evacuation has come.
#[derive(Clone, Debug)]
pub struct Evacuation {
    /// How.
    pub way: Way,
    /// Tries that failed.
    pub attempts: i64,
    /// When the next try is due, UTC µs.
    pub not_before: i64,
    /// The job that tries now.
    pub job: Option<String>,
    /// Why the last try failed.
    pub last_error: Option<String>,
}

/// The evacuations of a host, by VM.
pub async fn evacuations(db: &Db, host: i64) -> Result<HashMap<i64, Evacuation>> {
    let sql =
        Sql::new("SELECT vm_id, way, attempts, not_before, job, last_error FROM host_evacuations WHERE host_id = ?");
    let read = |r: &Row| {
        let way = Way::parse(&r.at::<String>(1)?);
        let one = Evacuation { way, attempts: r.at(2)?, not_before: r.at(3)?, job: r.at(4)?, last_error: r.at(5)? };
        Ok((r.at(0)?, one))
    };
    db.all(sql.bind(host)).await?.iter().map(read).collect()
}

/// A job takes a VM off a host from now on.
pub async fn under_way(tx: &mut Tx, vm: i64, host: i64, way: Way, job: &str) -> Result<()> {
    let known = Sql::new("UPDATE host_evacuations SET way = ?, job = ? WHERE vm_id = ? AND host_id = ?");
    if tx.exec(known.bind(way.word()).bind(job).bind(vm).bind(host)).await? == 1 {
        return Ok(());
    }
    // One of another host is out of date.
    done(tx, vm).await?;
    let sql = Sql::new(
        "INSERT INTO host_evacuations (vm_id, host_id, way, attempts, not_before, job) VALUES (?, ?, ?, 0, 0, ?)",
    );
    tx.exec(sql.bind(vm).bind(host).bind(way.word()).bind(job)).await.map(drop)
}

/// A try failed, or could not even begin; the next one is at `not_before`.
pub async fn failed(tx: &mut Tx, vm: i64, host: i64, error: &str, not_before: i64) -> Result<()> {
    let known = Sql::new(
        "UPDATE host_evacuations SET attempts = attempts + 1, job = NULL, last_error = ?, not_before = ? \
         WHERE vm_id = ? AND host_id = ?",
    );
    if tx.exec(known.bind(error).bind(not_before).bind(vm).bind(host)).await? == 1 {
        return Ok(());
    }
    done(tx, vm).await?;
    let sql = Sql::new(
        "INSERT INTO host_evacuations (vm_id, host_id, way, attempts, not_before, last_error) VALUES (?, ?, 'Move', 1, ?, ?)",
    );
    tx.exec(sql.bind(vm).bind(host).bind(not_before).bind(error)).await.map(drop)
}

/// A VM is off its host, or doesn't leave it any more.
pub async fn done(tx: &mut Tx, vm: i64) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM host_evacuations WHERE vm_id = ?").bind(vm)).await.map(drop)
}

/// Running VMs with a disk on a host's own storage: UUID and name.
pub async fn local_guests(tx: &mut Tx, host: i64) -> Result<Vec<(String, String)>> {
    let sql = Sql::new(
        "SELECT v.uuid, v.display_name FROM vms v WHERE v.host_id = ? AND v.removed IS NULL AND EXISTS (SELECT 1 FROM volumes o \
         JOIN storage_pools p ON p.id = o.pool_id WHERE o.vm_id = v.id AND o.removed IS NULL AND p.scope = 'HOST') ORDER BY v.id",
    );
    tx.all(sql.bind(host)).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

/// Whether any other host of a zone is connected and takes work.
pub async fn others_in_zone(db: &Db, zone: i64, host: i64) -> Result<bool> {
    let sql = Sql::new(
        "SELECT 1 FROM hosts h JOIN host_capacity k ON k.host_id = h.id JOIN clusters c ON c.id = h.cluster_id \
         JOIN pods p ON p.id = h.pod_id WHERE h.zone_id = ? AND h.id <> ? AND h.removed IS NULL AND h.status = ? \
         AND k.accepting = 1 AND c.allocation_state = 'Enabled' AND p.allocation_state = 'Enabled' LIMIT 1",
    );
    Ok(db.optional(sql.bind(zone).bind(host).bind(HostStatus::Up)).await?.is_some())
}

/// The resource state of the host where a VM is; none: it is nowhere.
pub async fn state_around(db: &Db, vm: i64) -> Result<Option<ResourceState>> {
    let sql = Sql::new("SELECT h.resource_state FROM vms v JOIN hosts h ON h.id = v.host_id WHERE v.id = ?");
    db.optional(sql.bind(vm)).await?.map(|r| r.at(0)).transpose()
}
