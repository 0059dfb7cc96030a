//! What this service reads of zones, clusters and hosts. The orchestrator writes them.

use model::state::{HostStatus, ResourceState};
use store::{Db, Result, Sql, Tx};

/// A cluster, as pools need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub pod_id: i64,
    pub zone_id: i64,
    pub hypervisor: String,
}

/// The living cluster with this number.
pub async fn cluster(db: &Db, id: i64) -> Result<Option<Cluster>> {
    let sql = Sql::new("SELECT pod_id, zone_id, hypervisor FROM clusters WHERE removed IS NULL AND id = ?").bind(id);
    db.optional(sql)
        .await?
        .map(|r| Ok(Cluster { pod_id: r.at(0)?, zone_id: r.at(1)?, hypervisor: r.at(2)? }))
        .transpose()
}

/// Connected hosts that could reach a pool: of a cluster, or of a zone (and one hypervisor), at most `limit`.
pub async fn hosts_up(
    db: &Db,
    zone: i64,
    cluster: Option<i64>,
    hypervisor: Option<&str>,
    limit: i64,
) -> Result<Vec<i64>> {
    let sql = Sql::new("SELECT id FROM hosts WHERE removed IS NULL AND zone_id = ? AND status = ?")
        .bind(zone)
        .bind(HostStatus::Up)
        .push_if(" AND cluster_id = ?", cluster)
        .push_if(" AND hypervisor = ?", hypervisor)
        .push(" ORDER BY id LIMIT ?")
        .bind(limit);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// Connected and enabled hosts that have said that they reach a pool, at most `limit`.
pub async fn hosts_of_pool(db: &Db, pool: i64, limit: i64) -> Result<Vec<i64>> {
    let sql = Sql::new(
        "SELECT h.id FROM pool_hosts p JOIN hosts h ON h.id = p.host_id \
         WHERE p.pool_id = ? AND h.removed IS NULL AND h.status = ? AND h.resource_state = ? LIMIT ?",
    )
    .bind(pool)
    .bind(HostStatus::Up)
    .bind(ResourceState::Enabled)
    .bind(limit);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// A host that reaches a pool and is up and enabled, as `tx` sees it.
pub async fn host_of_pool(tx: &mut Tx, pool: i64) -> Result<Option<i64>> {
    let sql = Sql::new(
        "SELECT h.id FROM pool_hosts p JOIN hosts h ON h.id = p.host_id \
         WHERE p.pool_id = ? AND h.removed IS NULL AND h.status = ? AND h.resource_state = ? LIMIT 1",
    )
    .bind(pool)
    .bind(HostStatus::Up)
    .bind(ResourceState::Enabled);
    tx.optional(sql).await?.map(|r| r.at(0)).transpose()
}

/// A host, as disks need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub id: i64,
    pub cluster_id: i64,
    pub zone_id: i64,
    pub hypervisor: String,
    pub up: bool,
}

/// The living host with this number.
pub async fn host(db: &Db, id: i64) -> Result<Option<Host>> {
    let sql =
        Sql::new("SELECT id, cluster_id, zone_id, hypervisor, status FROM hosts WHERE removed IS NULL AND id = ?")
            .bind(id);
    db.optional(sql)
        .await?
        .map(|r| {
            Ok(Host {
                id: r.at(0)?,
                cluster_id: r.at(1)?,
                zone_id: r.at(2)?,
                hypervisor: r.at(3)?,
                up: r.at::<HostStatus>(4)? == HostStatus::Up,
            })
        })
        .transpose()
}

/// Whether a host is given up: Down or deleted. What ran there is started elsewhere.
pub async fn given_up(db: &Db, id: i64) -> Result<bool> {
    let sql = Sql::new("SELECT status, removed FROM hosts WHERE id = ?").bind(id);
    let Some(r) = db.optional(sql).await? else { return Ok(true) };
    let status: HostStatus = r.at(0)?;
    Ok(r.at::<Option<i64>>(1)?.is_some() || matches!(status, HostStatus::Down | HostStatus::Removed))
}

/// Whether a living zone takes new things from ordinary callers.
pub async fn zone_enabled(db: &Db, id: i64) -> Result<bool> {
    let sql =
        Sql::new("SELECT 1 FROM zones WHERE removed IS NULL AND allocation_state = 'Enabled' AND id = ?").bind(id);
    Ok(db.optional(sql).await?.is_some())
}

/// The domain that alone may use a zone.
pub async fn zone_domain(db: &Db, id: i64) -> Result<Option<i64>> {
    match db.optional(Sql::new("SELECT domain_id FROM zones WHERE id = ?").bind(id)).await? {
        Some(r) => r.at(0),
        None => Ok(None),
    }
}

/// Most data disks of a VM of this hypervisor: the newest version's, as 4.11 takes it when it knows no better.
pub async fn max_data_disks(db: &Db, hypervisor: &str) -> Result<i64> {
    let sql = Sql::new(
        "SELECT max_data_volumes FROM hypervisor_caps WHERE removed IS NULL AND hypervisor = ? AND version = 'default'",
    )
    .bind(hypervisor);
    let known = match db.optional(sql).await? {
        Some(r) => r.at::<Option<i64>>(0)?,
        None => None,
    };
    Ok(known.unwrap_or(6))
}

/// A connected and enabled host, for work on secondary storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    pub id: i64,
    pub hypervisor: String,
}

/// Connected and enabled hosts of a zone, or of all.
pub async fn workers(db: &Db, zone: Option<i64>) -> Result<Vec<Worker>> {
    let sql = Sql::new("SELECT id, hypervisor FROM hosts WHERE removed IS NULL AND status = ? AND resource_state = ?")
        .bind(HostStatus::Up)
        .bind(ResourceState::Enabled)
        .push_if(" AND zone_id = ?", zone)
        .push(" ORDER BY id");
    db.all(sql).await?.iter().map(|r| Ok(Worker { id: r.at(0)?, hypervisor: r.at(1)? })).collect()
}

/// Living zones: all, for templates of all zones.
pub async fn all_zones(db: &Db) -> Result<Vec<i64>> {
    db.all(Sql::new("SELECT id FROM zones WHERE removed IS NULL ORDER BY id")).await?.iter().map(|r| r.at(0)).collect()
}

/// Name of a zone.
pub async fn zone_name(db: &Db, id: i64) -> Result<String> {
    match db.optional(Sql::new("SELECT name FROM zones WHERE id = ?").bind(id)).await? {
        Some(r) => r.at(0),
        None => Ok(id.to_string()),
    }
}

/// The guest OS type with this name.
pub async fn os_type(db: &Db, name: &str) -> Result<Option<i64>> {
    let sql = Sql::new("SELECT id FROM os_types WHERE removed IS NULL AND name = ?").bind(name);
    db.optional(sql).await?.map(|r| r.at(0)).transpose()
}

/// The living account with this name in a domain.
pub async fn account(db: &Db, domain: i64, name: &str) -> Result<Option<i64>> {
    let sql = Sql::new("SELECT id FROM accounts WHERE removed IS NULL AND domain_id = ? AND name = ?").bind(domain);
    db.optional(sql.bind(name)).await?.map(|r| r.at(0)).transpose()
}
