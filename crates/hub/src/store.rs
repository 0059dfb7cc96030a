//! The connection columns of `hosts`: status, conn_epoch, hub, last_ping, disconnected.

use model::HostId;
use model::state::HostStatus;
use std::collections::{HashMap, HashSet};
use store::{Db, Result, Sql, Tx, now_micros};

/// Most hosts of one statement.
const CHUNK: usize = 512;

/// Where a host is connected.
pub struct Route {
    pub uuid: String,
    pub name: String,
    pub hub: Option<String>,
}

/// None for hosts that don't exist or were removed.
pub async fn route(db: &Db, host: HostId) -> Result<Option<Route>> {
    let sql = Sql::new("SELECT uuid, name, hub FROM hosts WHERE id = ? AND removed IS NULL").bind(host);
    let row = db.optional(sql).await?;
    row.map(|r| Ok(Route { uuid: r.at(0)?, name: r.at(1)?, hub: r.at(2)? })).transpose()
}

/// A host as it wants to connect.
pub struct Claimed {
    pub id: HostId,
    pub removed: bool,
    pub hypervisor: String,
}

pub async fn find(tx: &mut Tx, uuids: &[String]) -> Result<HashMap<String, Claimed>> {
    let mut found = HashMap::with_capacity(uuids.len());
    for chunk in uuids.chunks(CHUNK) {
        let sql = Sql::new("SELECT uuid, id, removed, hypervisor FROM hosts WHERE ").in_list("uuid", chunk);
        for row in tx.all(sql).await? {
            let removed = row.at::<Option<i64>>(2)?.is_some();
            found.insert(row.at(0)?, Claimed { id: row.at(1)?, removed, hypervisor: row.at(3)? });
        }
    }
    Ok(found)
}

/// Those of the UUIDs that a host has or had.
pub async fn with_row(db: &Db, uuids: &[String]) -> Result<HashSet<String>> {
    let mut found = HashSet::new();
    for chunk in uuids.chunks(CHUNK) {
        let sql = Sql::new("SELECT uuid FROM hosts WHERE ").in_list("uuid", chunk);
        for row in db.all(sql).await? {
            found.insert(row.at(0)?);
        }
    }
    Ok(found)
}

/// Whether a host was deleted.
pub async fn is_removed(db: &Db, host: HostId) -> Result<bool> {
    let row = db.optional(Sql::new("SELECT removed FROM hosts WHERE id = ?").bind(host)).await?;
    row.map_or(Ok(true), |r| Ok(r.at::<Option<i64>>(0)?.is_some()))
}

/// Raises `conn_epoch` of hosts that connect, and reads what it became.
pub async fn connect(tx: &mut Tx, ids: &[HostId], hub: &str) -> Result<HashMap<HostId, i64>> {
    let now = now_micros();
    let mut epochs = HashMap::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        tx.exec(
            Sql::new(
                "UPDATE hosts SET conn_epoch = conn_epoch + 1, status = ?, hub = ?, last_ping = ?, disconnected = NULL \
                 WHERE removed IS NULL AND ",
            )
            .bind(HostStatus::Up)
            .bind(hub)
            .bind(now)
            .in_list("id", chunk.iter().copied()),
        )
        .await?;
        // After the UPDATE: the rows are ours, so nobody can have raised them in between.
        let sql = Sql::new("SELECT id, conn_epoch FROM hosts WHERE removed IS NULL AND ");
        for row in tx.all(sql.in_list("id", chunk.iter().copied())).await? {
            epochs.insert(row.at(0)?, row.at(1)?);
        }
    }
    Ok(epochs)
}

/// Marks hosts that went away from `hub`. Those that another replica has by now stay as they are.
pub async fn disconnect(tx: &mut Tx, ids: &[HostId], hub: &str, status: HostStatus) -> Result<()> {
    let now = now_micros();
    for chunk in ids.chunks(CHUNK) {
        tx.exec(
            Sql::new(
                "UPDATE hosts SET status = ?, hub = NULL, disconnected = ? WHERE hub = ? AND removed IS NULL AND ",
            )
            .bind(status)
            .bind(now)
            .bind(hub)
            .in_list("id", chunk.iter().copied()),
        )
        .await?;
    }
    Ok(())
}

/// Notes that the hosts of `hub` were alive just now.
pub async fn beat(tx: &mut Tx, hub: &str) -> Result<u64> {
    let sql = Sql::new("UPDATE hosts SET last_ping = ? WHERE status = ? AND hub = ?");
    tx.exec(sql.bind(now_micros()).bind(HostStatus::Up).bind(hub)).await
}

/// The replicas that hold connections, as the table says.
pub async fn hubs(db: &Db) -> Result<Vec<String>> {
    let sql = Sql::new("SELECT DISTINCT hub FROM hosts WHERE status = ? AND hub IS NOT NULL").bind(HostStatus::Up);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// The hosts that are connected with a replica, as the table says.
pub async fn of_hub(db: &Db, hub: &str) -> Result<Vec<Absent>> {
    let sql = Sql::new("SELECT id, status, conn_epoch FROM hosts WHERE status = ? AND hub = ? AND removed IS NULL");
    let rows = db.all(sql.bind(HostStatus::Up).bind(hub)).await?;
    rows.iter().map(|r| Ok(Absent { id: r.at(0)?, status: r.at(1)?, conn_epoch: r.at(2)? })).collect()
}

/// A host that is connected with nobody, and what its row said when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Number.
    pub id: HostId,
    /// State.
    pub status: HostStatus,
    /// How often it has connected.
    pub conn_epoch: i64,
}

/// Hosts that were connected once and aren't now, those that are known to be down included.
pub async fn absent(db: &Db) -> Result<Vec<Absent>> {
    let sql = Sql::new("SELECT id, status, conn_epoch FROM hosts WHERE removed IS NULL AND conn_epoch > 0 AND ");
    let states = [HostStatus::Disconnected, HostStatus::Alert, HostStatus::Connecting, HostStatus::Down];
    let rows = db.all(sql.in_list("status", states)).await?;
    rows.iter().map(|r| Ok(Absent { id: r.at(0)?, status: r.at(1)?, conn_epoch: r.at(2)? })).collect()
}

/// Moves a host on, unless it connected or was changed since. Gives whether it did.
pub async fn age(tx: &mut Tx, host: &Absent, to: HostStatus) -> Result<bool> {
    let sql = Sql::new("UPDATE hosts SET status = ?, hub = NULL").bind(to);
    let sql = sql.push_if(", disconnected = ?", (host.status == HostStatus::Up).then(now_micros));
    let sql = sql.push(" WHERE id = ? AND status = ? AND conn_epoch = ?");
    Ok(tx.exec(sql.bind(host.id).bind(host.status).bind(host.conn_epoch)).await? > 0)
}
