//! Hosts and their capacity. The columns of the connection (status, conn_epoch, hub, last_ping, disconnected) are the
//! hub's once a host has connected; those of `host_capacity` that count what is given away are placement's.

use super::{Changes, Reader, dedications, lower, maintenances, paged};
use crate::dedication::Kind;
use ::store::{Db, Result, Row, Sql, Tx, now_micros};
use contract_agent::HostFacts;
use model::Page;
use model::state::{HostStatus, ResourceState};
use std::collections::BTreeMap;

/// A host, with the names of where it is.
#[derive(Clone, Debug)]
pub struct HostRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// What its agent calls itself.
    pub guid: String,
    /// What it was added by.
    pub url: String,
    /// Cluster: number, UUID, name.
    pub cluster: (i64, String, String),
    /// Type of the cluster.
    pub cluster_type: String,
    /// Pod: number, UUID, name.
    pub pod: (i64, String, String),
    /// Zone: number, UUID, name.
    pub zone: (i64, String, String),
    /// Hypervisor.
    pub hypervisor: String,
    /// Its version.
    pub hypervisor_version: Option<String>,
    /// Version of the agent.
    pub version: Option<String>,
    /// Connection.
    pub status: HostStatus,
    /// What the administrator wants.
    pub resource_state: ResourceState,
    /// Management address.
    pub ip: Option<String>,
    /// Sockets.
    pub cpu_sockets: Option<i64>,
    /// Cores.
    pub cpu_cores: i64,
    /// MHz of each.
    pub cpu_mhz: i64,
    /// Bytes.
    pub memory: i64,
    /// Comma-separated.
    pub capabilities: String,
    /// Comma-separated.
    pub tags: String,
    /// Preferred OS category: UUID and name.
    pub os_category: Option<(String, String)>,
    /// A note, when it was made, by whom.
    pub annotation: Option<(String, Option<i64>, Option<String>)>,
    /// The replica that holds the connection.
    pub hub: Option<String>,
    /// When it was last heard of.
    pub last_ping: Option<i64>,
    /// When it went away.
    pub disconnected: Option<i64>,
    /// When it was added.
    pub created: i64,
    /// When it was deleted.
    pub removed: Option<i64>,
    /// What it has given away, and how often it is sold.
    pub capacity: Option<Capacity>,
}

/// What a host has given away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// MHz in use or reserved.
    pub cpu_used: i64,
    /// MHz there are.
    pub cpu_total: i64,
    /// CPU is sold this many times.
    pub cpu_overcommit: f64,
    /// Bytes in use or reserved.
    pub mem_used: i64,
    /// Bytes there are.
    pub mem_total: i64,
    /// Memory is sold this many times.
    pub mem_overcommit: f64,
}

/// Version of an agent that doesn't tell; a host without any was never let take VMs.
const UNKNOWN: &str = "unknown";

const COLUMNS: &str = "h.id, h.uuid, h.name, h.guid, h.url, h.cluster_id, c.uuid AS cluster_uuid, c.name AS cluster_name, \
    c.cluster_type, h.pod_id, p.uuid AS pod_uuid, p.name AS pod_name, h.zone_id, z.uuid AS zone_uuid, z.name AS zone_name, \
    h.hypervisor, h.hypervisor_version, h.version, h.status, h.resource_state, h.ip, h.cpu_sockets, h.cpu_cores, h.cpu_mhz, \
    h.memory, h.capabilities, h.tags, o.uuid AS category_uuid, o.name AS category_name, h.annotation, h.last_annotated, \
    h.annotated_by, h.hub, h.last_ping, h.disconnected, h.created, h.removed, \
    k.cpu_used_mhz + k.cpu_reserved AS cpu_taken, k.cpu_total_mhz, k.cpu_overcommit, k.mem_used + k.mem_reserved AS mem_taken, \
    k.mem_total, k.mem_overcommit";
const FROM: &str = " FROM hosts h JOIN clusters c ON c.id = h.cluster_id JOIN pods p ON p.id = h.pod_id \
    JOIN zones z ON z.id = h.zone_id LEFT JOIN host_capacity k ON k.host_id = h.id LEFT JOIN os_categories o ON o.id = h.os_category_id";

fn read(r: &Row) -> Result<HostRow> {
    let category: Option<String> = r.get("category_uuid")?;
    let annotation: Option<String> = r.get("annotation")?;
    let total: Option<i64> = r.get("cpu_total_mhz")?;
    let capacity = match total {
        Some(cpu_total) => Some(Capacity {
            cpu_used: r.get("cpu_taken")?,
            cpu_total,
            cpu_overcommit: r.get("cpu_overcommit")?,
            mem_used: r.get("mem_taken")?,
            mem_total: r.get("mem_total")?,
            mem_overcommit: r.get("mem_overcommit")?,
        }),
        None => None,
    };
    Ok(HostRow {
        id: r.get("id")?,
        uuid: r.get("uuid")?,
        name: r.get("name")?,
        guid: r.get("guid")?,
        url: r.get("url")?,
        cluster: (r.get("cluster_id")?, r.get("cluster_uuid")?, r.get("cluster_name")?),
        cluster_type: r.get("cluster_type")?,
        pod: (r.get("pod_id")?, r.get("pod_uuid")?, r.get("pod_name")?),
        zone: (r.get("zone_id")?, r.get("zone_uuid")?, r.get("zone_name")?),
        hypervisor: r.get("hypervisor")?,
        hypervisor_version: r.get("hypervisor_version")?,
        version: r.get("version")?,
        status: r.get("status")?,
        resource_state: r.get("resource_state")?,
        ip: r.get("ip")?,
        cpu_sockets: r.get("cpu_sockets")?,
        cpu_cores: r.get("cpu_cores")?,
        cpu_mhz: r.get("cpu_mhz")?,
        memory: r.get("memory")?,
        capabilities: r.get("capabilities")?,
        tags: r.get("tags")?,
        os_category: match category {
            Some(uuid) => Some((uuid, r.get("category_name")?)),
            None => None,
        },
        annotation: match annotation {
            Some(text) => Some((text, r.get("last_annotated")?, r.get("annotated_by")?)),
            None => None,
        },
        hub: r.get("hub")?,
        last_ping: r.get("last_ping")?,
        disconnected: r.get("disconnected")?,
        created: r.get("created")?,
        removed: r.get("removed")?,
        capacity,
    })
}

/// A host by its number, removed ones included.
pub async fn find(from: impl Reader, id: i64) -> Result<Option<HostRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS}{FROM} WHERE h.id = ?")).bind(id);
    from.rows(sql).await?.first().map(read).transpose()
}

/// A host by its UUID, removed ones included.
pub async fn by_uuid(from: impl Reader, uuid: &str) -> Result<Option<HostRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS}{FROM} WHERE h.uuid = ?")).bind(uuid);
    from.rows(sql).await?.first().map(read).transpose()
}

/// A host that is being added.
#[derive(Clone, Debug)]
pub struct NewHost {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// What names the machine: never two live hosts have the same.
    pub guid: String,
    /// Name.
    pub name: String,
    /// What it is added by.
    pub url: String,
    /// Cluster.
    pub cluster: i64,
    /// Pod.
    pub pod: i64,
    /// Zone.
    pub zone: i64,
    /// Hypervisor.
    pub hypervisor: String,
    /// Creating, or Connecting when its agent is there already.
    pub status: HostStatus,
    /// Cores.
    pub cpus: i64,
    /// MHz of each.
    pub mhz: i64,
    /// Bytes.
    pub memory: i64,
    /// Comma-separated.
    pub tags: String,
    /// Management address.
    pub ip: String,
    /// Enabled or Disabled.
    pub resource_state: ResourceState,
    /// CPU and memory are sold this many times.
    pub overcommit: (f64, f64),
}

/// Writes a host that hasn't connected yet, and its capacity, which takes no VMs yet.
pub async fn insert(tx: &mut Tx, h: &NewHost) -> Result<()> {
    let sql = Sql::new(
        "INSERT INTO hosts (id, uuid, name, name_lower, live_key, guid, url, cluster_id, pod_id, zone_id, hypervisor, status, \
         resource_state, ip, cpu_cores, cpu_mhz, memory, capabilities, tags, conn_epoch, created) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?, 0, ?)",
    )
    .bind(h.id)
    .bind(&h.uuid)
    .bind(&h.name)
    .bind(lower(&h.name))
    .bind(&h.guid)
    .bind(&h.guid)
    .bind(&h.url)
    .bind(h.cluster)
    .bind(h.pod)
    .bind(h.zone)
    .bind(&h.hypervisor)
    .bind(h.status)
    .bind(h.resource_state)
    .bind(&h.ip)
    .bind(h.cpus)
    .bind(h.mhz)
    .bind(h.memory)
    .bind(&h.tags)
    .bind(now_micros());
    tx.exec(sql).await?;
    let sql = Sql::new(
        "INSERT INTO host_capacity (host_id, cluster_id, pod_id, zone_id, accepting, cpu_total_mhz, cpu_used_mhz, cpu_reserved, \
         cpu_overcommit, mem_total, mem_used, mem_reserved, mem_overcommit, vms) VALUES (?, ?, ?, ?, 0, ?, 0, 0, ?, ?, 0, 0, ?, 0)",
    )
    .bind(h.id)
    .bind(h.cluster)
    .bind(h.pod)
    .bind(h.zone)
    .bind(h.cpus * h.mhz)
    .bind(h.overcommit.0)
    .bind(h.memory)
    .bind(h.overcommit.1);
    tx.exec(sql).await?;
    // Its cluster, pod or zone may be kept for somebody.
    dedications::settle(tx, Kind::Host, h.id).await
}

/// The name of a live host that is this machine or has its private address.
pub async fn same_machine(tx: &mut Tx, guid: &str, private_ip: &str) -> Result<Option<String>> {
    let sql = Sql::new("SELECT name FROM hosts WHERE live_key = ?").bind(guid);
    let sql = match private_ip {
        "" => sql,
        ip => sql.push(" OR (ip = ? AND removed IS NULL)").bind(ip),
    };
    tx.optional(sql.push(" LIMIT 1")).await?.map(|r| r.at(0)).transpose()
}

/// Removes every trace of a host that has never been connected: its agent may be added again under its UUID. Whether it did.
pub async fn erase_unconnected(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new("DELETE FROM hosts WHERE id = ? AND conn_epoch = 0 AND removed IS NULL").bind(id);
    let erased = tx.exec(sql).await? == 1;
    if erased {
        dedications::release(tx, Kind::Host, id).await?;
        tx.exec(Sql::new("DELETE FROM host_capacity WHERE host_id = ?").bind(id)).await?;
    }
    Ok(erased)
}

/// The routers that a host should have, and whether each runs.
pub async fn routers(db: &Db, host: i64) -> Result<BTreeMap<String, bool>> {
    let sql = Sql::new("SELECT uuid, state FROM routers WHERE host_id = ? AND removed IS NULL").bind(host);
    db.all(sql).await?.iter().map(|r| Ok((r.at(0)?, r.at::<String>(1)? == "Running"))).collect()
}

/// Writes the version of an agent that stays outside: of its hosts that aren't connected by another one. Gives their UUIDs.
pub async fn note_outside(tx: &mut Tx, uuids: &[String], only: Option<&str>, version: &str) -> Result<Vec<String>> {
    let mut noted = Vec::new();
    for chunk in uuids.chunks(512) {
        let sql = Sql::new("SELECT uuid FROM hosts WHERE hub IS NULL AND removed IS NULL AND version IS NOT NULL");
        let sql = sql.push_if(" AND hypervisor = ?", only).push(" AND ").in_list("uuid", chunk);
        let rows = tx.all(sql).await?;
        let found = rows.iter().map(|r| r.at(0)).collect::<Result<Vec<String>>>()?;
        if !found.is_empty() {
            let sql = Sql::new("UPDATE hosts SET version = ? WHERE hub IS NULL AND ").bind(version);
            tx.exec(sql.in_list("uuid", &found)).await?;
        }
        noted.extend(found);
    }
    Ok(noted)
}

/// Writes what a host says of itself, and lets it take VMs when it is Enabled in a managed cluster. Whether it lives.
pub async fn adopt(tx: &mut Tx, id: i64, facts: &HostFacts) -> Result<bool> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (cores, mhz) = (i64::from(facts.cpus), i64::from(facts.cpu_mhz));
    let memory = i64::try_from(facts.memory_bytes.saturating_sub(facts.dom0_memory_bytes)).unwrap_or(i64::MAX);
    let mut changes = Changes::default()
        .set_if("hypervisor_version", some(&facts.hypervisor_version))
        .set("version", some(&facts.agent_version).unwrap_or_else(|| UNKNOWN.to_owned()))
        .set("capabilities", facts.capabilities.join(","))
        .set_if("cpu_sockets", (facts.sockets > 0).then(|| i64::from(facts.sockets)));
    let known = cores > 0 && mhz > 0 && memory > 0;
    if known {
        changes = changes.set("cpu_cores", cores).set("cpu_mhz", mhz).set("memory", memory);
    }
    if !changes.apply(tx, "hosts", id).await? {
        return Ok(false);
    }
    if known {
        let sql = Sql::new("UPDATE host_capacity SET cpu_total_mhz = ?, mem_total = ? WHERE host_id = ?");
        tx.exec(sql.bind(cores * mhz).bind(memory).bind(id)).await?;
    }
    // The connection's row may have been written by the hub already.
    let sql = Sql::new("UPDATE hosts SET status = ? WHERE id = ? AND status = ?");
    tx.exec(sql.bind(HostStatus::Up).bind(id).bind(HostStatus::Creating)).await?;
    accept(tx, "h.id", id).await?;
    Ok(true)
}

/// Recomputes `accepting` of the hosts whose `column` ("h.id", "h.cluster_id") is `id`: Enabled, alive, cluster managed.
pub async fn accept(tx: &mut Tx, column: &'static str, id: i64) -> Result<()> {
    let own = if column == "h.id" { "host_id" } else { "cluster_id" };
    let sql = Sql::new(&format!(
        "UPDATE host_capacity SET accepting = (SELECT CASE WHEN h.resource_state = 'Enabled' AND h.removed IS NULL \
         AND c.managed_state = 'Managed' THEN 1 ELSE 0 END FROM hosts h JOIN clusters c ON c.id = h.cluster_id \
         WHERE h.id = host_capacity.host_id) WHERE {own} = ?"
    ));
    tx.exec(sql.bind(id)).await.map(drop)
}

/// What of a host is to change.
#[derive(Clone, Debug, Default)]
pub struct HostChange {
    /// Enabled or Disabled.
    pub resource_state: Option<ResourceState>,
    /// Comma-separated.
    pub tags: Option<String>,
    /// Preferred OS category; `Some(None)` clears it.
    pub os_category: Option<Option<i64>>,
    /// What it is known by.
    pub url: Option<String>,
}

/// Changes a host; whether it lives.
pub async fn update(tx: &mut Tx, id: i64, change: &HostChange) -> Result<bool> {
    let mut changes = Changes::default()
        .set_if("resource_state", change.resource_state)
        .set_if("tags", change.tags.as_deref())
        .set_if("url", change.url.as_deref());
    if let Some(category) = change.os_category {
        changes = changes.set("os_category_id", category);
    }
    let lives = changes.apply(tx, "hosts", id).await?;
    if lives && change.resource_state.is_some() {
        // Whoever enables or disables a host doesn't want it emptied any more.
        maintenances::forget(tx, id).await?;
        accept(tx, "h.id", id).await?;
    }
    Ok(lives)
}

/// Ends a host's life. Its capacity goes only when nothing is placed on it; gives whether it went.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    let gone = tx.exec(Sql::new("DELETE FROM host_capacity WHERE host_id = ? AND vms = 0").bind(id)).await?;
    if gone == 0 {
        return Ok(false);
    }
    maintenances::forget(tx, id).await?;
    dedications::release(tx, Kind::Host, id).await?;
    let sql = Sql::new(
        "UPDATE hosts SET removed = ?, live_key = NULL, status = ?, hub = NULL, conn_epoch = conn_epoch + 1 \
         WHERE id = ? AND removed IS NULL",
    );
    Ok(tx.exec(sql.bind(now_micros()).bind(HostStatus::Removed).bind(id)).await? == 1)
}

/// How many VMs are placed on a host.
pub async fn guests(tx: &mut Tx, id: i64) -> Result<i64> {
    let row = tx.optional(Sql::new("SELECT vms FROM host_capacity WHERE host_id = ?").bind(id)).await?;
    row.map_or(Ok(0), |r| r.at(0))
}

/// The numbers of the VMs that hold something of a host.
pub async fn placed(tx: &mut Tx, id: i64) -> Result<Vec<i64>> {
    let sql = Sql::new("SELECT vm_id FROM vm_capacity WHERE host_id = ? ORDER BY vm_id").bind(id);
    tx.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// Hosts that began to be added before `before` and were never let take VMs.
pub async fn half_made(db: &Db, before: i64) -> Result<Vec<(i64, String)>> {
    let sql =
        Sql::new("SELECT id, uuid FROM hosts WHERE version IS NULL AND created < ? AND removed IS NULL").bind(before);
    db.all(sql).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

/// Which hosts a list shows.
#[derive(Clone, Debug, Default)]
pub struct HostFilter {
    /// Only this one.
    pub id: Option<i64>,
    /// Only whose name contains it.
    pub name: Option<String>,
    /// Only of this cluster.
    pub cluster: Option<i64>,
    /// Only of this pod.
    pub pod: Option<i64>,
    /// Only of this zone.
    pub zone: Option<i64>,
    /// Only in this state of the connection.
    pub status: Option<String>,
    /// Only in this resource state.
    pub resource_state: Option<String>,
    /// Only of this hypervisor.
    pub hypervisor: Option<String>,
    /// Not this one.
    pub except: Option<i64>,
    /// Only these.
    pub only: Option<Vec<i64>>,
    /// None at all: a type of host that Arcus has not.
    pub nothing: bool,
    /// Only whose name, state or address contains it.
    pub keyword: Option<String>,
    /// Only those that carry this tag, or (false) only those that don't.
    pub tag: Option<(String, bool)>,
}

/// Appends a condition that a host carries a tag. The column is a list with commas and no blanks.
fn tagged(sql: Sql, tag: &str) -> Sql {
    let mut literal = String::with_capacity(tag.len());
    for c in tag.chars() {
        if matches!(c, '%' | '_' | '!') {
            literal.push('!');
        }
        literal.push(c);
    }
    let mut sql = sql.push("(h.tags = ?").bind(tag);
    for pattern in [format!("{literal},%"), format!("%,{literal}"), format!("%,{literal},%")] {
        sql = sql.push(" OR h.tags LIKE ? ESCAPE '!'").bind(pattern);
    }
    sql.push(")")
}

/// A page of hosts, and how many there are.
pub async fn list(db: &Db, filter: &HostFilter, page: Page) -> Result<(Vec<HostRow>, i64)> {
    let body = |sql: Sql| {
        let mut sql = sql
            .push(FROM)
            .push(" WHERE h.removed IS NULL")
            .push_if(" AND h.id = ?", filter.id)
            .push_if(" AND h.cluster_id = ?", filter.cluster)
            .push_if(" AND h.pod_id = ?", filter.pod)
            .push_if(" AND h.zone_id = ?", filter.zone)
            .push_if(" AND h.status = ?", filter.status.as_deref())
            .push_if(" AND h.resource_state = ?", filter.resource_state.as_deref())
            .push_if(" AND h.hypervisor = ?", filter.hypervisor.as_deref())
            .push_if(" AND h.id <> ?", filter.except)
            .push(if filter.nothing { " AND 1 = 0" } else { "" });
        if let Some(only) = &filter.only {
            sql = sql.push(" AND ").in_list("h.id", only.iter().copied());
        }
        if let Some(name) = &filter.name {
            sql = sql.push(" AND ").contains("h.name_lower", &name.to_lowercase());
        }
        if let Some((tag, carried)) = &filter.tag {
            sql = tagged(sql.push(if *carried { " AND " } else { " AND NOT " }), tag);
        }
        match filter.keyword.as_deref().map(str::to_lowercase) {
            Some(keyword) => sql
                .push(" AND (")
                .contains("h.name_lower", &keyword)
                .push(" OR ")
                .contains("LOWER(h.status)", &keyword)
                .push(" OR ")
                .contains("h.ip", &keyword)
                .push(")"),
            None => sql,
        }
    };
    let (rows, count) = paged(db, COLUMNS, body, "h.id", page).await?;
    Ok((rows.iter().map(read).collect::<Result<_>>()?, count))
}

/// Where a VM runs and what it needs, for the hosts that it could move to.
pub struct Guest {
    /// Its state.
    pub state: String,
    /// Its host.
    pub host: Option<i64>,
    /// Its cluster.
    pub cluster: Option<i64>,
    /// MHz over all CPUs.
    pub cpu_mhz: i64,
    /// Bytes.
    pub memory: i64,
}

/// A living VM as the list of hosts needs it.
pub async fn guest(db: &Db, vm: i64) -> Result<Option<Guest>> {
    let sql = Sql::new(
        "SELECT state, host_id, cluster_id, cpu, cpu_mhz, memory_mb FROM vms WHERE id = ? AND removed IS NULL",
    );
    let row = db.optional(sql.bind(vm)).await?;
    row.map(|r| {
        Ok(Guest {
            state: r.at(0)?,
            host: r.at(1)?,
            cluster: r.at(2)?,
            cpu_mhz: r.at::<i64>(3)? * r.at::<i64>(4)?,
            memory: r.at::<i64>(5)? * 1024 * 1024,
        })
    })
    .transpose()
}

/// A host that can be told to do something: number, UUID, pod, cluster.
pub type Pick = (i64, String, i64, i64);

/// What `PickHost` asks for.
#[derive(Clone, Debug, Default)]
pub struct PickFilter {
    /// Zone.
    pub zone: i64,
    /// Pod.
    pub pod: Option<i64>,
    /// Cluster.
    pub cluster: Option<i64>,
    /// Hypervisor.
    pub hypervisor: Option<String>,
    /// Not these.
    pub avoid: Vec<i64>,
    /// None that carries this tag.
    pub without_tag: Option<String>,
    /// None that an account has to itself.
    pub shared: bool,
}

/// Hosts that are Up and take work; at most `most` of them, beginning at one whose number is `from` or more.
pub async fn candidates(db: &Db, filter: &PickFilter, from: i64, most: i64) -> Result<Vec<Pick>> {
    let mut sql = Sql::new(
        "SELECT h.id, h.uuid, h.pod_id, h.cluster_id FROM hosts h JOIN host_capacity k ON k.host_id = h.id \
         JOIN clusters c ON c.id = h.cluster_id JOIN pods p ON p.id = h.pod_id \
         WHERE h.removed IS NULL AND h.status = 'Up' AND k.accepting = 1 AND c.allocation_state = 'Enabled' \
         AND p.allocation_state = 'Enabled'",
    )
    .push(" AND h.zone_id = ?")
    .bind(filter.zone)
    .push_if(" AND h.pod_id = ?", filter.pod)
    .push_if(" AND h.cluster_id = ?", filter.cluster)
    .push_if(" AND h.hypervisor = ?", filter.hypervisor.as_deref())
    .push(" AND h.id >= ?")
    .bind(from);
    if !filter.avoid.is_empty() {
        sql = sql.push(" AND NOT (").in_list("h.id", filter.avoid.iter().copied()).push(")");
    }
    if let Some(tag) = &filter.without_tag {
        sql = tagged(sql.push(" AND NOT "), tag);
    }
    if filter.shared {
        sql = sql.push(" AND (k.kept_for IS NULL OR k.vms = 0)");
    }
    db.all(sql.push(" ORDER BY h.id LIMIT ?").bind(most))
        .await?
        .iter()
        .map(|r| Ok((r.at(0)?, r.at(1)?, r.at(2)?, r.at(3)?)))
        .collect()
}

/// The tags of all living hosts that have some: number of the host, and its list with commas.
pub async fn tags(db: &Db) -> Result<Vec<(i64, String)>> {
    let sql = "SELECT id, tags FROM hosts WHERE removed IS NULL AND tags <> '' ORDER BY id";
    db.all(Sql::new(sql)).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

/// How many living hosts carry a tag.
pub async fn carriers(tx: &mut Tx, tag: &str) -> Result<i64> {
    let sql = Sql::new("SELECT COUNT(*) FROM hosts h WHERE h.removed IS NULL AND ");
    tx.one(tagged(sql, tag)).await?.at(0)
}

/// The lowest and highest number of living hosts of a zone.
pub async fn bounds(db: &Db, zone: i64) -> Result<Option<(i64, i64)>> {
    let row =
        db.one(Sql::new("SELECT MIN(id), MAX(id) FROM hosts WHERE zone_id = ? AND removed IS NULL").bind(zone)).await?;
    let (low, high): (Option<i64>, Option<i64>) = (row.at(0)?, row.at(1)?);
    Ok(low.zip(high))
}
