//! What the database says of hosts and pools, for comparing it with what they say.

use std::collections::HashSet;
use store::{Db, Result, Row, Sql};

/// Hosts, pools and rows of a page.
pub(crate) const PAGE: i64 = 256;

/// A connected host.
pub(crate) struct Host {
    pub id: i64,
    pub uuid: String,
    pub name: String,
}

/// A pool, and a connected host that reaches it.
pub(crate) struct Pool {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub host: i64,
}

/// A machine by the database.
pub(crate) struct Vm {
    pub uuid: String,
    pub name: String,
    pub state: String,
    pub host: Option<i64>,
    pub generation: i64,
    /// Changes whenever it does.
    pub stamp: String,
    /// A job works on it.
    pub busy: bool,
    pub removed: bool,
}

/// A router by the database.
pub(crate) struct Router {
    pub uuid: String,
    pub name: String,
    pub applied: i64,
    pub epoch: i64,
    pub running: bool,
}

/// A volume by the database.
pub(crate) struct Volume {
    pub uuid: String,
    pub name: String,
    pub ready: bool,
    pub pool: Option<i64>,
    pub path: Option<String>,
    pub size: i64,
    pub stamp: String,
    pub busy: bool,
}

/// Connected hosts after a number, or those named.
pub(crate) async fn hosts(db: &Db, after: i64, only: Option<&HashSet<String>>) -> Result<Vec<Host>> {
    let mut sql = Sql::new(
        "SELECT id, uuid, name FROM hosts WHERE removed IS NULL AND status = 'Up' AND hub IS NOT NULL AND id > ?",
    )
    .bind(after);
    if let Some(only) = only {
        sql = sql.push(" AND ").in_list("uuid", only.iter().map(String::as_str));
    }
    let rows = db.all(sql.push(" ORDER BY id LIMIT ?").bind(PAGE)).await?;
    rows.iter().map(|r| Ok(Host { id: r.at(0)?, uuid: r.at(1)?, name: r.at(2)? })).collect()
}

/// Pools that a connected host reaches, or those of them that are named.
pub(crate) async fn pools(db: &Db, after: i64, only: Option<&HashSet<String>>) -> Result<Vec<Pool>> {
    let mut sql = Sql::new(
        "SELECT p.id, p.uuid, p.name, MIN(h.id) FROM storage_pools p JOIN pool_hosts x ON x.pool_id = p.id \
         JOIN hosts h ON h.id = x.host_id WHERE p.removed IS NULL AND h.removed IS NULL AND h.status = 'Up' \
         AND h.hub IS NOT NULL AND p.id > ?",
    )
    .bind(after);
    if let Some(only) = only {
        sql = sql.push(" AND ").in_list("p.uuid", only.iter().map(String::as_str));
    }
    let rows = db.all(sql.push(" GROUP BY p.id, p.uuid, p.name ORDER BY p.id LIMIT ?").bind(PAGE)).await?;
    rows.iter().map(|r| Ok(Pool { id: r.at(0)?, uuid: r.at(1)?, name: r.at(2)?, host: r.at(3)? })).collect()
}

/// A host that has said that it reaches a pool.
pub(crate) struct Way {
    pub host: i64,
    pub up: bool,
    pub simulated: bool,
}

/// The living hosts that have said that they reach a pool, in no meaningful order.
pub(crate) async fn ways(db: &Db, pool: i64) -> Result<Vec<Way>> {
    let sql = Sql::new(
        "SELECT h.id, CASE WHEN h.status = 'Up' AND h.hub IS NOT NULL THEN 1 ELSE 0 END, \
         CASE WHEN h.hypervisor = 'Simulator' THEN 1 ELSE 0 END FROM pool_hosts x JOIN hosts h ON h.id = x.host_id \
         WHERE x.pool_id = ? AND h.removed IS NULL",
    );
    let rows = db.all(sql.bind(pool)).await?;
    let mut ways: Vec<Way> =
        rows.iter().map(|r| Ok(Way { host: r.at(0)?, up: r.at(1)?, simulated: r.at(2)? })).collect::<Result<_>>()?;
    // Neighbours tend to be of one process: the first few should be of several.
    ways.sort_by_key(|way| way.host.wrapping_mul(2_654_435_761) & 0xffff_ffff);
    Ok(ways)
}

const VM: &str = "SELECT v.uuid, v.instance_name, v.state, v.host_id, v.generation, v.changed, CASE WHEN EXISTS (SELECT 1 FROM claims c \
     WHERE c.resource = 'vm/' || v.id AND (c.exclusive <> 0 OR c.shared <> 0)) THEN 1 ELSE 0 END, v.removed FROM vms v WHERE ";

fn vm(r: &Row) -> Result<Vm> {
    let (host, generation, changed): (Option<i64>, i64, i64) = (r.at(3)?, r.at(4)?, r.at(5)?);
    Ok(Vm {
        uuid: r.at(0)?,
        name: r.at(1)?,
        state: r.at(2)?,
        host,
        generation,
        stamp: format!("{changed}/{generation}/{}", host.unwrap_or(0)),
        busy: r.at(6)?,
        removed: r.at::<Option<i64>>(7)?.is_some(),
    })
}

/// The machines that a host should have.
pub(crate) async fn vms_on(db: &Db, host: i64) -> Result<Vec<Vm>> {
    let sql = Sql::new(VM).push("v.host_id = ? AND v.removed IS NULL").bind(host);
    db.all(sql).await?.iter().map(vm).collect()
}

/// Machines by UUID.
pub(crate) async fn vms(db: &Db, uuids: &[&str]) -> Result<Vec<Vm>> {
    let mut found = Vec::with_capacity(uuids.len());
    for some in uuids.chunks(256) {
        let rows = db.all(Sql::new(VM).in_list("v.uuid", some.iter().copied())).await?;
        for row in &rows {
            found.push(vm(row)?);
        }
    }
    Ok(found)
}

/// UUIDs of the machines about which a host owes an order.
pub(crate) async fn owed(db: &Db, host: i64) -> Result<HashSet<String>> {
    let sql = Sql::new("SELECT vm_uuid FROM host_debts WHERE host_id = ? AND vm_uuid IS NOT NULL").bind(host);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// The routers that a host should have.
pub(crate) async fn routers_on(db: &Db, host: i64) -> Result<Vec<Router>> {
    let sql = Sql::new(
        "SELECT uuid, name, applied, epoch, CASE WHEN state = 'Running' THEN 1 ELSE 0 END FROM routers \
         WHERE host_id = ? AND removed IS NULL",
    );
    let rows = db.all(sql.bind(host)).await?;
    let router =
        |r: &Row| Ok(Router { uuid: r.at(0)?, name: r.at(1)?, applied: r.at(2)?, epoch: r.at(3)?, running: r.at(4)? });
    rows.iter().map(router).collect()
}

/// UUIDs of the routers that a host has still to drop.
pub(crate) async fn leftovers(db: &Db, host: i64) -> Result<HashSet<String>> {
    let sql = Sql::new("SELECT router_uuid FROM router_leftovers WHERE host_id = ?").bind(host);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

const VOLUME: &str = "SELECT o.uuid, o.name, CASE WHEN o.state = 'Ready' AND o.removed IS NULL THEN 1 ELSE 0 END, o.pool_id, o.path, o.size, \
     o.changed, CASE WHEN EXISTS (SELECT 1 FROM claims c WHERE c.resource IN ('volume/' || o.id, 'vm/' || COALESCE(o.vm_id, 0)) \
     AND (c.exclusive <> 0 OR c.shared <> 0)) THEN 1 ELSE 0 END FROM volumes o WHERE ";

fn volume(r: &Row) -> Result<Volume> {
    Ok(Volume {
        uuid: r.at(0)?,
        name: r.at(1)?,
        ready: r.at(2)?,
        pool: r.at(3)?,
        path: r.at(4)?,
        size: r.at(5)?,
        stamp: r.at::<i64>(6)?.to_string(),
        busy: r.at(7)?,
    })
}

/// The volumes on a pool whose UUIDs are after `low`, and not after `high` when there is one.
pub(crate) async fn volumes_on(db: &Db, pool: i64, low: &str, high: Option<&str>) -> Result<Vec<Volume>> {
    let sql = Sql::new(VOLUME).push("o.pool_id = ? AND o.removed IS NULL AND o.uuid > ?").bind(pool).bind(low);
    db.all(sql.push_if(" AND o.uuid <= ?", high)).await?.iter().map(volume).collect()
}

/// Volumes by UUID, removed ones too.
pub(crate) async fn volumes(db: &Db, uuids: &[&str]) -> Result<Vec<Volume>> {
    let mut found = Vec::with_capacity(uuids.len());
    for some in uuids.chunks(256) {
        let rows = db.all(Sql::new(VOLUME).in_list("o.uuid", some.iter().copied())).await?;
        for row in &rows {
            found.push(volume(row)?);
        }
    }
    Ok(found)
}

/// Of these paths, those whose bytes are to be deleted.
pub(crate) async fn condemned(db: &Db, paths: &[&str]) -> Result<HashSet<String>> {
    let mut found = HashSet::new();
    for some in paths.chunks(256) {
        let sql = Sql::new("SELECT path FROM pending_deletions WHERE ").in_list("path", some.iter().copied());
        for row in db.all(sql).await? {
            found.insert(row.at(0)?);
        }
    }
    Ok(found)
}
