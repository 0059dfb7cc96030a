//! Clusters.

use super::zones::name_was_free;
use super::{Changes, Reader, live_key, lower, paged};
use ::store::{Db, Result, Row, Sql, Tx, now_micros};
use model::Page;
use model::state::AllocationState;

/// A cluster.
#[derive(Clone, Debug)]
pub struct ClusterRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Pod.
    pub pod_id: i64,
    /// The pod's UUID.
    pub pod_uuid: String,
    /// The pod's name.
    pub pod_name: String,
    /// Zone.
    pub zone_id: i64,
    /// The zone's UUID.
    pub zone_uuid: String,
    /// The zone's name.
    pub zone_name: String,
    /// Hypervisor of its hosts.
    pub hypervisor: String,
    /// CloudManaged or ExternalManaged.
    pub cluster_type: String,
    /// Whether it takes new resources.
    pub allocation_state: AllocationState,
    /// Managed or Unmanaged.
    pub managed_state: String,
    /// CPU is sold this many times.
    pub cpu_overcommit: f64,
    /// Memory is sold this many times.
    pub memory_overcommit: f64,
}

const COLUMNS: &str = "c.id, c.uuid, c.name, c.pod_id, p.uuid AS pod_uuid, p.name AS pod_name, c.zone_id, z.uuid AS zone_uuid, \
    z.name AS zone_name, c.hypervisor, c.cluster_type, c.allocation_state, c.managed_state, c.cpu_overcommit, c.memory_overcommit";
const FROM: &str = " FROM clusters c JOIN pods p ON p.id = c.pod_id JOIN zones z ON z.id = c.zone_id";

fn read(r: &Row) -> Result<ClusterRow> {
    Ok(ClusterRow {
        id: r.get("id")?,
        uuid: r.get("uuid")?,
        name: r.get("name")?,
        pod_id: r.get("pod_id")?,
        pod_uuid: r.get("pod_uuid")?,
        pod_name: r.get("pod_name")?,
        zone_id: r.get("zone_id")?,
        zone_uuid: r.get("zone_uuid")?,
        zone_name: r.get("zone_name")?,
        hypervisor: r.get("hypervisor")?,
        cluster_type: r.get("cluster_type")?,
        allocation_state: r.get("allocation_state")?,
        managed_state: r.get("managed_state")?,
        cpu_overcommit: r.get("cpu_overcommit")?,
        memory_overcommit: r.get("memory_overcommit")?,
    })
}

/// A living cluster.
pub async fn find(from: impl Reader, id: i64) -> Result<Option<ClusterRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS}{FROM} WHERE c.id = ? AND c.removed IS NULL")).bind(id);
    from.rows(sql).await?.first().map(read).transpose()
}

/// The living cluster of a pod with this name.
pub async fn named(from: impl Reader, pod: i64, name: &str) -> Result<Option<ClusterRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS}{FROM} WHERE c.live_key = ?")).bind(live_key(&pod.to_string(), name));
    from.rows(sql).await?.first().map(read).transpose()
}

/// Writes a new cluster. Gives whether its name was free in the pod.
pub async fn insert(tx: &mut Tx, c: &ClusterRow) -> Result<bool> {
    let sql = Sql::new(
        "INSERT INTO clusters (id, uuid, name, name_lower, live_key, pod_id, zone_id, hypervisor, cluster_type, allocation_state, \
         managed_state, cpu_overcommit, memory_overcommit, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(c.id)
    .bind(&c.uuid)
    .bind(&c.name)
    .bind(lower(&c.name))
    .bind(live_key(&c.pod_id.to_string(), &c.name))
    .bind(c.pod_id)
    .bind(c.zone_id)
    .bind(&c.hypervisor)
    .bind(&c.cluster_type)
    .bind(c.allocation_state)
    .bind(&c.managed_state)
    .bind(c.cpu_overcommit)
    .bind(c.memory_overcommit)
    .bind(now_micros());
    name_was_free(tx.exec(sql).await.map(|_| true))
}

/// What of a cluster is to change.
#[derive(Clone, Debug, Default)]
pub struct ClusterChange {
    /// Name.
    pub name: Option<String>,
    /// Hypervisor.
    pub hypervisor: Option<String>,
    /// Type.
    pub cluster_type: Option<String>,
    /// Whether it takes new resources.
    pub allocation_state: Option<AllocationState>,
    /// Managed or Unmanaged.
    pub managed_state: Option<String>,
}

/// Changes a cluster. Gives whether its new name was free.
pub async fn update(tx: &mut Tx, cluster: &ClusterRow, change: &ClusterChange) -> Result<bool> {
    let mut changes = Changes::default()
        .set_if("hypervisor", change.hypervisor.as_deref())
        .set_if("cluster_type", change.cluster_type.as_deref())
        .set_if("allocation_state", change.allocation_state)
        .set_if("managed_state", change.managed_state.as_deref());
    if let Some(name) = &change.name {
        changes = changes
            .set("name", name)
            .set("name_lower", lower(name))
            .set("live_key", live_key(&cluster.pod_id.to_string(), name));
    }
    name_was_free(changes.apply(tx, "clusters", cluster.id).await.map(|_| true))
}

/// Sets how often CPU or memory of a cluster is sold, for it and its hosts.
pub async fn overcommit(tx: &mut Tx, id: i64, cpu: Option<f64>, memory: Option<f64>) -> Result<()> {
    if let Some(cpu) = cpu {
        tx.exec(Sql::new("UPDATE clusters SET cpu_overcommit = ? WHERE id = ?").bind(cpu).bind(id)).await?;
        tx.exec(Sql::new("UPDATE host_capacity SET cpu_overcommit = ? WHERE cluster_id = ?").bind(cpu).bind(id))
            .await?;
    }
    if let Some(memory) = memory {
        tx.exec(Sql::new("UPDATE clusters SET memory_overcommit = ? WHERE id = ?").bind(memory).bind(id)).await?;
        tx.exec(Sql::new("UPDATE host_capacity SET mem_overcommit = ? WHERE cluster_id = ?").bind(memory).bind(id))
            .await?;
    }
    Ok(())
}

/// Which clusters a list shows.
#[derive(Clone, Debug, Default)]
pub struct ClusterFilter {
    /// Only this one.
    pub id: Option<i64>,
    /// Only with this name.
    pub name: Option<String>,
    /// Only of this pod.
    pub pod: Option<i64>,
    /// Only of this zone.
    pub zone: Option<i64>,
    /// Only of this hypervisor.
    pub hypervisor: Option<String>,
    /// Only of this type.
    pub cluster_type: Option<String>,
    /// Only in this allocation state.
    pub allocation_state: Option<String>,
    /// Only in this managed state.
    pub managed_state: Option<String>,
    /// Only whose name or hypervisor contains it.
    pub keyword: Option<String>,
}

/// A page of clusters, and how many there are.
pub async fn list(db: &Db, filter: &ClusterFilter, page: Page) -> Result<(Vec<ClusterRow>, i64)> {
    let body = |sql: Sql| {
        let sql = sql
            .push(FROM)
            .push(" WHERE c.removed IS NULL")
            .push_if(" AND c.id = ?", filter.id)
            .push_if(" AND c.name_lower = ?", filter.name.as_deref().map(lower))
            .push_if(" AND c.pod_id = ?", filter.pod)
            .push_if(" AND c.zone_id = ?", filter.zone)
            .push_if(" AND c.hypervisor = ?", filter.hypervisor.as_deref())
            .push_if(" AND c.cluster_type = ?", filter.cluster_type.as_deref())
            .push_if(" AND c.allocation_state = ?", filter.allocation_state.as_deref())
            .push_if(" AND c.managed_state = ?", filter.managed_state.as_deref());
        match filter.keyword.as_deref().map(str::to_lowercase) {
            Some(keyword) => sql
                .push(" AND (")
                .contains("c.name_lower", &keyword)
                .push(" OR ")
                .contains("LOWER(c.hypervisor)", &keyword)
                .push(")"),
            None => sql,
        }
    };
    let (rows, count) = paged(db, COLUMNS, body, "c.id", page).await?;
    Ok((rows.iter().map(read).collect::<Result<_>>()?, count))
}

/// The hypervisors of living clusters, in a zone or anywhere.
pub async fn hypervisors(db: &Db, zone: Option<i64>) -> Result<Vec<String>> {
    let sql =
        Sql::new("SELECT DISTINCT hypervisor FROM clusters WHERE removed IS NULL").push_if(" AND zone_id = ?", zone);
    db.all(sql.push(" ORDER BY hypervisor")).await?.iter().map(|r| r.at(0)).collect()
}
