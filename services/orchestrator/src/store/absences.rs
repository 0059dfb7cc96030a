//! Rows of `host_absences`, and what investigators must know of a host: its neighbours, and where its VMs' disks lie.

use hub::Absent;
use model::HostId;
use model::state::{HostStatus, VmState};
use std::collections::{HashMap, HashSet};
use store::{Db, Result, Row, Sql, Tx, now_micros};

/// What is known of an absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The host.
    pub host: i64,
    /// Which connection ended.
    pub conn_epoch: i64,
    /// The verdict's word.
    pub verdict: String,
    /// Why.
    pub reason: String,
    /// Whether people have been told.
    pub alerted: bool,
}

const COLUMNS: &str = "host_id, conn_epoch, verdict, reason, alerted";

fn read(r: &Row) -> Result<Known> {
    Ok(Known { host: r.at(0)?, conn_epoch: r.at(1)?, verdict: r.at(2)?, reason: r.at(3)?, alerted: r.at(4)? })
}

/// All that is known of all hosts.
pub async fn all(db: &Db) -> Result<Vec<Known>> {
    db.all(Sql::new(&format!("SELECT {COLUMNS} FROM host_absences"))).await?.iter().map(read).collect()
}

/// What is known of this very absence.
pub async fn of(tx: &mut Tx, absent: &Absent) -> Result<Option<Known>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM host_absences WHERE host_id = ? AND conn_epoch = ?"));
    tx.optional(sql.bind(absent.id).bind(absent.conn_epoch)).await?.map(|r| read(&r)).transpose()
}

/// Notes what an investigation found.
pub async fn note(tx: &mut Tx, absent: &Absent, verdict: &str, reason: &str, alerted: bool) -> Result<()> {
    let now = now_micros();
    let sql = Sql::new(
        "UPDATE host_absences SET conn_epoch = ?, verdict = ?, reason = ?, alerted = ?, looks = looks + 1, looked = ? \
         WHERE host_id = ?",
    );
    let sql = sql.bind(absent.conn_epoch).bind(verdict).bind(reason).bind(alerted).bind(now).bind(absent.id);
    if tx.exec(sql).await? > 0 {
        return Ok(());
    }
    let sql = Sql::new(
        "INSERT INTO host_absences (host_id, conn_epoch, verdict, reason, alerted, looks, looked) VALUES (?, ?, ?, ?, ?, 1, ?)",
    );
    let sql = sql.bind(absent.id).bind(absent.conn_epoch).bind(verdict).bind(reason).bind(alerted).bind(now);
    tx.exec(sql).await.map(drop)
}

/// Forgets an absence that is over. Gives whether this call did.
pub async fn end(tx: &mut Tx, known: &Known) -> Result<bool> {
    let sql = Sql::new("DELETE FROM host_absences WHERE host_id = ? AND conn_epoch = ?");
    Ok(tx.exec(sql.bind(known.host).bind(known.conn_epoch)).await? == 1)
}

/// How many hosts there are in each state.
pub async fn by_status(db: &Db) -> Result<HashMap<HostStatus, i64>> {
    let sql = "SELECT status, COUNT(*) FROM hosts WHERE removed IS NULL GROUP BY status";
    db.all(Sql::new(sql)).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

/// A host whose life is in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Cluster.
    pub cluster: i64,
    /// Zone.
    pub zone: i64,
}

/// The living host with this number.
pub async fn suspect(db: &Db, id: HostId) -> Result<Option<Suspect>> {
    let sql = Sql::new("SELECT id, uuid, name, cluster_id, zone_id FROM hosts WHERE id = ? AND removed IS NULL");
    let row = db.optional(sql.bind(id)).await?;
    row.map(|r| Ok(Suspect { id: r.at(0)?, uuid: r.at(1)?, name: r.at(2)?, cluster: r.at(3)?, zone: r.at(4)? }))
        .transpose()
}

/// A VM of a suspect whose root disk lies on a pool that other hosts reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// UUID of the VM.
    pub vm: String,
    /// Number of the pool.
    pub pool: i64,
    /// UUID of the pool.
    pub pool_uuid: String,
}

/// VMs of a host that hold leases on shared pools.
pub async fn leased(db: &Db, host: i64) -> Result<Vec<Leased>> {
    let sql = Sql::new(
        "SELECT m.uuid, p.id, p.uuid FROM vms m JOIN volumes v ON v.vm_id = m.id AND v.kind = 'ROOT' AND v.removed IS NULL \
         JOIN storage_pools p ON p.id = v.pool_id WHERE p.scope <> 'HOST' AND m.host_id = ? AND m.removed IS NULL AND ",
    )
    .bind(host)
    .in_list("m.state", [VmState::Running, VmState::Stopping]);
    db.all(sql.push(" ORDER BY p.id, m.id"))
        .await?
        .iter()
        .map(|r| Ok(Leased { vm: r.at(0)?, pool: r.at(1)?, pool_uuid: r.at(2)? }))
        .collect()
}

/// Those of these hosts on which there are VMs, in whatever state.
pub async fn with_vms(db: &Db, hosts: &[i64]) -> Result<HashSet<i64>> {
    let mut found = HashSet::new();
    for chunk in hosts.chunks(512) {
        let sql = Sql::new("SELECT DISTINCT host_id FROM vms WHERE removed IS NULL AND ")
            .in_list("host_id", chunk.iter().copied());
        for row in db.all(sql).await? {
            found.insert(row.at(0)?);
        }
    }
    Ok(found)
}

/// A pool that a host shares with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
}

/// The pools that a host has said to reach, and another host, too.
pub async fn shared(db: &Db, host: i64) -> Result<Vec<Shared>> {
    let sql = Sql::new(
        "SELECT p.id, p.uuid FROM pool_hosts r JOIN storage_pools p ON p.id = r.pool_id WHERE r.host_id = ? \
         AND p.scope <> 'HOST' AND p.removed IS NULL AND EXISTS (SELECT 1 FROM pool_hosts o JOIN hosts h ON h.id = o.host_id \
         WHERE o.pool_id = p.id AND o.host_id <> r.host_id AND h.removed IS NULL) ORDER BY p.id",
    );
    let rows = db.all(sql.bind(host)).await?;
    rows.iter().map(|r| Ok(Shared { id: r.at(0)?, uuid: r.at(1)? })).collect()
}

/// Hosts that are Up and have said that they reach a pool, those of the suspect's own cluster first; at most `most`.
pub async fn witnesses(db: &Db, suspect: &Suspect, pool: i64, most: i64) -> Result<Vec<i64>> {
    let sql = Sql::new(
        "SELECT h.id FROM pool_hosts r JOIN hosts h ON h.id = r.host_id WHERE r.pool_id = ? AND h.id <> ? AND h.status = 'Up' \
         AND h.removed IS NULL ORDER BY CASE WHEN h.cluster_id = ? THEN 0 ELSE 1 END, h.id LIMIT ?",
    );
    let sql = sql.bind(pool).bind(suspect.id).bind(suspect.cluster).bind(most);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}
