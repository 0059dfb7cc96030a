//! Primary storage pools and their counters.

use super::deletions::{self, Deletion};
use super::template_copies;
use crate::choice::{Candidate, Reach};
use crate::offering::split_tags;
use crate::target::{PoolKind, Target};
use contract::{ApiError, Page};
use model::state::PoolState;
use store::{Db, Result, Row, Sql, Tx, now_micros};

/// A pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolRow {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub pool_type: String,
    pub host_address: String,
    pub path: String,
    pub zone_id: i64,
    pub pod_id: Option<i64>,
    pub cluster_id: Option<i64>,
    pub host_id: Option<i64>,
    pub scope: String,
    pub hypervisor: Option<String>,
    pub provider: String,
    pub state: PoolState,
    pub capacity: i64,
    pub used: i64,
    pub allocated: i64,
    pub capacity_iops: Option<i64>,
    pub overcommit: f64,
    pub tags: String,
    pub created: i64,
}

const COLUMNS: &str = "id, uuid, name, pool_type, host_address, path, zone_id, pod_id, cluster_id, host_id, scope, hypervisor, \
     provider, state, capacity_bytes, used_bytes, allocated_bytes, capacity_iops, overcommit, tags, created";

impl PoolRow {
    fn read(r: &Row) -> Result<PoolRow> {
        Ok(PoolRow {
            id: r.at(0)?,
            uuid: r.at(1)?,
            name: r.at(2)?,
            pool_type: r.at(3)?,
            host_address: r.at(4)?,
            path: r.at(5)?,
            zone_id: r.at(6)?,
            pod_id: r.at(7)?,
            cluster_id: r.at(8)?,
            host_id: r.at(9)?,
            scope: r.at(10)?,
            hypervisor: r.at(11)?,
            provider: r.at(12)?,
            state: r.at(13)?,
            capacity: r.at(14)?,
            used: r.at(15)?,
            allocated: r.at(16)?,
            capacity_iops: r.at(17)?,
            overcommit: r.at(18)?,
            tags: r.at(19)?,
            created: r.at(20)?,
        })
    }

    /// Where it is; none for kinds that this version doesn't know.
    pub fn target(&self) -> Option<Target> {
        Some(Target {
            kind: PoolKind::parse(&self.pool_type)?,
            host: self.host_address.clone(),
            path: self.path.clone(),
        })
    }

    /// Who reaches it.
    pub fn reach(&self) -> Reach {
        match (self.scope.as_str(), self.host_id, self.cluster_id) {
            ("HOST", Some(host), _) => Reach::Host(host),
            ("CLUSTER", _, Some(cluster)) => Reach::Cluster(cluster),
            _ => Reach::Zone,
        }
    }
}

/// The living pool with this number.
pub async fn find(db: &Db, id: i64) -> Result<Option<PoolRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM storage_pools WHERE removed IS NULL AND id = ?")).bind(id);
    db.optional(sql).await?.as_ref().map(PoolRow::read).transpose()
}

/// The pool with this UUID.
pub async fn by_uuid(db: &Db, uuid: &str) -> Result<Option<PoolRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM storage_pools WHERE uuid = ?")).bind(uuid);
    db.optional(sql).await?.as_ref().map(PoolRow::read).transpose()
}

/// The name of the living pool at a place ([`Target::key`]).
pub async fn at(db: &Db, key: &str) -> Result<Option<String>> {
    let sql = Sql::new("SELECT name FROM storage_pools WHERE live_key = ?").bind(key);
    db.optional(sql).await?.map(|r| r.at(0)).transpose()
}

/// The pools with these numbers, removed ones included.
pub async fn by_ids(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<Vec<PoolRow>> {
    let ids: Vec<i64> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM storage_pools WHERE ")).in_list("id", ids);
    db.all(sql).await?.iter().map(PoolRow::read).collect()
}

/// The same within a transaction.
pub async fn by_ids_in(tx: &mut Tx, ids: impl IntoIterator<Item = i64>) -> Result<Vec<PoolRow>> {
    let ids: Vec<i64> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM storage_pools WHERE ")).in_list("id", ids);
    tx.all(sql).await?.iter().map(PoolRow::read).collect()
}

/// What a list asks for.
#[derive(Clone, Debug, Default)]
pub struct Query<'a> {
    pub id: Option<i64>,
    pub name: Option<&'a str>,
    pub zone: Option<i64>,
    pub pod: Option<i64>,
    pub cluster: Option<i64>,
    pub address: Option<&'a str>,
    pub path: Option<&'a str>,
    pub scope: Option<&'a str>,
    pub keyword: Option<&'a str>,
}

/// A page of living pools.
pub async fn list(db: &Db, q: &Query<'_>, page: Page) -> std::result::Result<(Vec<PoolRow>, i64), ApiError> {
    let scope = q.scope.map(str::to_uppercase);
    let body = |sql: Sql| {
        let mut sql = sql
            .push(" FROM storage_pools WHERE removed IS NULL")
            .push_if(" AND id = ?", q.id)
            .push_if(" AND name = ?", q.name)
            .push_if(" AND zone_id = ?", q.zone)
            .push_if(" AND pod_id = ?", q.pod)
            .push_if(" AND cluster_id = ?", q.cluster)
            .push_if(" AND host_address = ?", q.address)
            .push_if(" AND path = ?", q.path)
            .push_if(" AND scope = ?", scope.as_deref());
        if let Some(word) = q.keyword {
            let lower = word.to_lowercase();
            sql = sql.push(" AND (").contains("name_lower", &lower).push(" OR ").contains("pool_type", word).push(")");
        }
        sql
    };
    let (rows, count) = super::page(db, COLUMNS, body, "id", page).await?;
    Ok((rows.iter().map(PoolRow::read).collect::<Result<_>>()?, count))
}

/// A pool to be written.
#[derive(Clone, Debug)]
pub struct NewPool {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub target: Target,
    pub zone: i64,
    pub pod: Option<i64>,
    pub cluster: Option<i64>,
    pub scope: &'static str,
    pub hypervisor: Option<String>,
    pub provider: String,
    pub capacity: i64,
    pub used: i64,
    pub capacity_iops: Option<i64>,
    pub overcommit: f64,
    pub tags: String,
}

/// Writes a pool that is Up. [`store::Error::Unique`] on `live_key` when another living pool is at the same place.
pub async fn insert(tx: &mut Tx, p: &NewPool) -> Result<PoolRow> {
    tx.exec(
        Sql::new(
            "INSERT INTO storage_pools (id, uuid, name, name_lower, live_key, pool_type, host_address, path, zone_id, pod_id, \
             cluster_id, scope, hypervisor, provider, state, capacity_bytes, used_bytes, allocated_bytes, capacity_iops, \
             overcommit, tags, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
        )
        .bind(p.id)
        .bind(p.uuid.as_str())
        .bind(p.name.as_str())
        .bind(p.name.to_lowercase())
        .bind(p.target.key(p.zone, p.cluster))
        .bind(p.target.kind.as_str())
        .bind(p.target.host.as_str())
        .bind(p.target.path.as_str())
        .bind(p.zone)
        .bind(p.pod)
        .bind(p.cluster)
        .bind(p.scope)
        .bind(p.hypervisor.as_deref())
        .bind(p.provider.as_str())
        .bind(PoolState::Up)
        .bind(p.capacity)
        .bind(p.used)
        .bind(p.capacity_iops)
        .bind(p.overcommit)
        .bind(p.tags.as_str())
        .bind(now_micros()),
    )
    .await?;
    read(tx, p.id).await
}

async fn read(tx: &mut Tx, id: i64) -> Result<PoolRow> {
    PoolRow::read(&tx.one(Sql::new(&format!("SELECT {COLUMNS} FROM storage_pools WHERE id = ?")).bind(id)).await?)
}

/// What updateStoragePool changes.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub tags: Option<String>,
    pub capacity: Option<i64>,
    pub capacity_iops: Option<i64>,
    /// From one state into another.
    pub state: Option<(PoolState, PoolState)>,
}

/// Changes a living pool; none when it is gone or in another state.
pub async fn update(tx: &mut Tx, id: i64, c: &Change) -> Result<Option<PoolRow>> {
    let sql = Sql::new("UPDATE storage_pools SET id = id")
        .push_if(", tags = ?", c.tags.as_deref())
        .push_if(", capacity_bytes = ?", c.capacity)
        .push_if(", capacity_iops = ?", c.capacity_iops)
        .push_if(", state = ?", c.state.map(|(_, to)| to))
        .push(" WHERE removed IS NULL AND id = ?")
        .bind(id)
        .push_if(" AND state = ?", c.state.map(|(from, _)| from));
    if tx.exec(sql).await? == 0 {
        return Ok(None);
    }
    read(tx, id).await.map(Some)
}

/// Removes a pool that no volume has a promise of; false when it is gone, or something is promised: the counter itself
/// decides, so that an allocation at the same time can't slip in.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    let templates: i64 = tx
        .one(
            Sql::new("SELECT CAST(COALESCE(SUM(size), 0) AS SIGNED) FROM template_pool_refs WHERE pool_id = ?")
                .bind(id),
        )
        .await?
        .at(0)?;
    let sql = Sql::new(
        "UPDATE storage_pools SET removed = ?, state = ?, live_key = NULL, allocated_bytes = 0 \
         WHERE removed IS NULL AND id = ? AND allocated_bytes = ?",
    )
    .bind(now_micros())
    .bind(PoolState::Removed)
    .bind(id)
    .bind(templates);
    if tx.exec(sql).await? == 0 {
        return Ok(false);
    }
    tx.exec(Sql::new("DELETE FROM template_pool_refs WHERE pool_id = ?").bind(id)).await?;
    tx.exec(Sql::new("DELETE FROM pool_hosts WHERE pool_id = ?").bind(id)).await?;
    tx.exec(Sql::new("DELETE FROM pending_deletions WHERE pool_id = ?").bind(id)).await?;
    Ok(true)
}

/// The pools of a zone, for choosing one for a disk of `template` (0: none) near `host`.
pub async fn candidates(db: &Db, zone: i64, template: i64, host: Option<i64>) -> Result<Vec<Candidate>> {
    let sql = Sql::new(
        "SELECT p.id, p.uuid, p.name, p.state, p.scope, p.cluster_id, p.host_id, p.hypervisor, p.tags, p.capacity_bytes, \
         p.allocated_bytes, p.used_bytes, p.overcommit, t.template_id, h.host_id AS mounted FROM storage_pools p \
         LEFT JOIN template_pool_refs t ON t.pool_id = p.id AND t.template_id = ? \
         LEFT JOIN pool_hosts h ON h.pool_id = p.id AND h.host_id = ? \
         WHERE p.zone_id = ? AND p.removed IS NULL ORDER BY p.id",
    )
    .bind(template)
    .bind(host.unwrap_or_default())
    .bind(zone);
    db.all(sql)
        .await?
        .iter()
        .map(|r| {
            let reach = match (r.at::<String>(4)?.as_str(), r.at::<Option<i64>>(6)?, r.at::<Option<i64>>(5)?) {
                ("HOST", Some(host), _) => Reach::Host(host),
                ("CLUSTER", _, Some(cluster)) => Reach::Cluster(cluster),
                _ => Reach::Zone,
            };
            Ok(Candidate {
                id: r.at(0)?,
                uuid: r.at(1)?,
                name: r.at(2)?,
                state: r.at(3)?,
                reach,
                hypervisor: r.at(7)?,
                tags: split_tags(&r.at::<String>(8)?).map(str::to_owned).collect(),
                capacity: r.at(9)?,
                allocated: r.at(10)?,
                used: r.at(11)?,
                overcommit: r.at(12)?,
                has_template: template == 0 || r.at::<Option<i64>>(13)?.is_some(),
                mounted: r.at::<Option<i64>>(14)?.is_some(),
            })
        })
        .collect()
}

/// Promises `bytes` of a pool, when it is Up and has room; the update itself decides.
pub async fn take(tx: &mut Tx, id: i64, bytes: i64, threshold: f64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE storage_pools SET allocated_bytes = allocated_bytes + ? WHERE id = ? AND state = 'Up' AND removed IS NULL \
         AND allocated_bytes + ? <= capacity_bytes * overcommit * ?",
    )
    .bind(bytes)
    .bind(id)
    .bind(bytes)
    .bind(threshold);
    Ok(tx.exec(sql).await? > 0)
}

/// Promises more bytes of a pool to a volume that lies there already; the pool may be in maintenance or above its threshold,
/// but never promises more than it has.
pub async fn take_more(tx: &mut Tx, id: i64, bytes: i64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE storage_pools SET allocated_bytes = allocated_bytes + ? WHERE id = ? AND removed IS NULL \
         AND allocated_bytes + ? <= capacity_bytes * overcommit",
    )
    .bind(bytes)
    .bind(id)
    .bind(bytes);
    Ok(tx.exec(sql).await? > 0)
}

/// Holds a pool's row until the transaction ends. False when the pool is gone.
pub async fn hold(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new("UPDATE storage_pools SET allocated_bytes = allocated_bytes WHERE id = ? AND removed IS NULL");
    Ok(tx.exec(sql.bind(id)).await? > 0)
}

/// Gives promised bytes back. Called together with the write that ends the promise, and only when that write took place.
pub async fn give_back(tx: &mut Tx, id: i64, bytes: i64) -> Result<()> {
    let sql =
        Sql::new("UPDATE storage_pools SET allocated_bytes = allocated_bytes - ? WHERE id = ? AND removed IS NULL")
            .bind(bytes)
            .bind(id);
    tx.exec(sql).await.map(drop)
}

/// Notes that a template lies on a pool. False when another transaction did so before: its bytes are charged already.
pub async fn note_template(tx: &mut Tx, template: i64, pool: i64, bytes: i64) -> Result<bool> {
    let sql = Sql::new("INSERT INTO template_pool_refs (template_id, pool_id, size, created) VALUES (?, ?, ?, ?)")
        .bind(template)
        .bind(pool)
        .bind(bytes)
        .bind(now_micros());
    match tx.exec(sql).await {
        Ok(_) => {}
        Err(store::Error::Unique { .. }) => return Ok(false),
        Err(e) => return Err(e),
    }
    // It was about to be removed.
    deletions::done::<Deletion>(tx, &template_copies::debt(template, pool)).await?;
    Ok(true)
}

/// Notes that a host reaches a pool.
pub async fn note_mounted(tx: &mut Tx, pool: i64, host: i64) -> Result<()> {
    let sql = Sql::new("INSERT INTO pool_hosts (pool_id, host_id, local_path, created) VALUES (?, ?, '', ?)")
        .bind(pool)
        .bind(host)
        .bind(now_micros());
    match tx.exec(sql).await {
        Ok(_) | Err(store::Error::Unique { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Whether a host has said that it reaches a pool.
pub async fn is_mounted(db: &Db, pool: i64, host: i64) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM pool_hosts WHERE pool_id = ? AND host_id = ?").bind(pool).bind(host);
    Ok(db.optional(sql).await?.is_some())
}

/// Number, kind and factor of all living pools.
pub async fn factors(db: &Db) -> Result<Vec<(i64, String, f64)>> {
    db.all(Sql::new("SELECT id, pool_type, overcommit FROM storage_pools WHERE removed IS NULL"))
        .await?
        .iter()
        .map(|r| Ok((r.at(0)?, r.at(1)?, r.at(2)?)))
        .collect()
}

/// Sets how often a pool's bytes may be promised.
pub async fn set_factor(tx: &mut Tx, id: i64, factor: f64) -> Result<()> {
    tx.exec(Sql::new("UPDATE storage_pools SET overcommit = ? WHERE id = ? AND removed IS NULL").bind(factor).bind(id))
        .await
        .map(drop)
}

/// The living pools, some at a time, after a number.
pub async fn after(db: &Db, id: i64, most: i64) -> Result<Vec<PoolRow>> {
    let sql =
        Sql::new(&format!("SELECT {COLUMNS} FROM storage_pools WHERE removed IS NULL AND id > ? ORDER BY id LIMIT ?"))
            .bind(id)
            .bind(most);
    db.all(sql).await?.iter().map(PoolRow::read).collect()
}

/// The living pools of a zone.
pub async fn of_zone(db: &Db, zone: i64) -> Result<Vec<PoolRow>> {
    let sql =
        Sql::new(&format!("SELECT {COLUMNS} FROM storage_pools WHERE removed IS NULL AND zone_id = ? ORDER BY id"));
    db.all(sql.bind(zone)).await?.iter().map(PoolRow::read).collect()
}

/// Notes what the device says is used.
pub async fn set_used(tx: &mut Tx, id: i64, used: i64) -> Result<()> {
    tx.exec(Sql::new("UPDATE storage_pools SET used_bytes = ? WHERE id = ? AND removed IS NULL").bind(used).bind(id))
        .await
        .map(drop)
}
