//! Which hosts have been told of which pools.

use super::pools::{self, PoolRow};
use model::state::HostStatus;
use std::collections::HashMap;
use store::{Db, Result, Sql, Tx};

/// A pool, and a host that may use it and hasn't been told of it.
#[derive(Clone, Debug)]
pub struct Missing {
    pub host: i64,
    pub pool: PoolRow,
}

/// Connected hosts that don't know a living pool of their cluster, zone or own, by host and pool, after `after`. A zone's pool
/// may be for one hypervisor.
pub async fn missing(db: &Db, after: (i64, i64), most: i64) -> Result<Vec<Missing>> {
    let sql = Sql::new(
        "SELECT h.id, p.id FROM hosts h JOIN storage_pools p ON p.zone_id = h.zone_id AND p.removed IS NULL \
         LEFT JOIN pool_hosts m ON m.pool_id = p.id AND m.host_id = h.id \
         WHERE h.removed IS NULL AND h.status = ? AND m.pool_id IS NULL AND (h.id > ? OR (h.id = ? AND p.id > ?)) AND ( \
         (p.scope = 'CLUSTER' AND p.cluster_id = h.cluster_id) OR (p.scope = 'HOST' AND p.host_id = h.id) OR \
         (p.scope = 'ZONE' AND (p.hypervisor IS NULL OR LOWER(p.hypervisor) = 'any' OR LOWER(p.hypervisor) = LOWER(h.hypervisor)))) \
         ORDER BY h.id, p.id LIMIT ?",
    )
    .bind(HostStatus::Up)
    .bind(after.0)
    .bind(after.0)
    .bind(after.1)
    .bind(most);
    let pairs: Vec<(i64, i64)> = db.all(sql).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect::<Result<_>>()?;
    let ids: std::collections::BTreeSet<i64> = pairs.iter().map(|(_, pool)| *pool).collect();
    let rows: HashMap<i64, PoolRow> = pools::by_ids(db, ids).await?.into_iter().map(|p| (p.id, p)).collect();
    Ok(pairs.into_iter().filter_map(|(host, pool)| Some(Missing { host, pool: rows.get(&pool).cloned()? })).collect())
}

/// Notes that a host has been told of a pool, unless the pool was deleted meanwhile.
pub async fn note(tx: &mut Tx, pool: i64, host: i64) -> Result<()> {
    let lives =
        tx.optional(Sql::new("SELECT 1 FROM storage_pools WHERE id = ? AND removed IS NULL").bind(pool)).await?;
    match lives {
        Some(_) => pools::note_mounted(tx, pool, host).await,
        None => Ok(()),
    }
}
