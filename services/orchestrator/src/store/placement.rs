//! Rows that placement reads and writes: `host_capacity`, `vm_capacity`.

use crate::placement::{Amount, Keep, Terms};
use model::state::{AllocationState, HostStatus};
use store::{Db, Result, Sql, Tx, now_micros};

/// A host as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRow {
    /// Number.
    pub id: i64,
    /// Name.
    pub name: String,
    /// Zone.
    pub zone: i64,
    /// Pod.
    pub pod: i64,
    /// Cluster.
    pub cluster: i64,
    /// Hypervisor.
    pub hypervisor: String,
    /// Host tags.
    pub tags: Vec<String>,
    /// Whether its agent is connected, and owes nothing.
    pub up: bool,
    /// Whether it, its cluster and its pod take VMs.
    pub accepting: bool,
    /// MHz there are, overcommitment included.
    pub total_cpu: i64,
    /// Bytes there are, overcommitment included.
    pub total_memory: i64,
    /// MHz left, overcommitment included.
    pub free_cpu: i64,
    /// Bytes left, overcommitment included.
    pub free_memory: i64,
    /// VMs that run there or are promised a place.
    pub guests: i64,
    /// Most VMs that its hypervisor runs; none: no limit but capacity.
    pub most_guests: Option<i64>,
    /// The affinity group that it, its cluster or its pod is dedicated to.
    pub dedicated_to: Option<i64>,
    /// The one that its zone is dedicated to.
    pub zone_dedicated_to: Option<i64>,
    /// The account that has it to itself by strict implicit dedication, or had: [`HostRow::kept`] knows whether it counts.
    pub kept_for: Option<i64>,
    /// When the last VM that ran there was stopped (UTC µs), of a host that was kept and is empty.
    pub last_stop: Option<i64>,
}

/// All living hosts, or those with the numbers given.
pub async fn hosts(db: &Db, only: Option<&[i64]>) -> Result<Vec<HostRow>> {
    let mut sql = Sql::new(
        "SELECT h.id, h.name, h.zone_id, h.pod_id, h.cluster_id, h.hypervisor, h.tags, h.status, k.accepting, \
         c.allocation_state AS cluster_state, p.allocation_state AS pod_state, \
         k.cpu_total_mhz * k.cpu_overcommit - k.cpu_used_mhz - k.cpu_reserved AS free_cpu, \
         k.mem_total * k.mem_overcommit - k.mem_used - k.mem_reserved AS free_mem, k.vms, k.dedicated_to, k.zone_dedicated_to, \
         k.cpu_total_mhz * k.cpu_overcommit AS all_cpu, k.mem_total * k.mem_overcommit AS all_mem, k.kept_for, \
         CASE WHEN k.kept_for IS NOT NULL AND k.vms = 0 THEN (SELECT MAX(v.changed) FROM vms v WHERE v.last_host_id = h.id \
         AND v.state = 'Stopped' AND v.removed IS NULL) END AS last_stop, \
         (SELECT MAX(y.max_guests) FROM hypervisor_caps y WHERE y.hypervisor = h.hypervisor AND y.version = 'default') AS most, \
         CASE WHEN EXISTS (SELECT 1 FROM host_debts d WHERE d.host_id = h.id) THEN 1 ELSE 0 END AS owes \
         FROM hosts h JOIN host_capacity k ON k.host_id = h.id JOIN clusters c ON c.id = h.cluster_id \
         JOIN pods p ON p.id = h.pod_id WHERE h.removed IS NULL",
    );
    if let Some(ids) = only {
        sql = sql.push(" AND ").in_list("h.id", ids.iter().copied());
    }
    let enabled = |s: AllocationState| s == AllocationState::Enabled;
    db.all(sql)
        .await?
        .iter()
        .map(|r| {
            let hypervisor: String = r.get("hypervisor")?;
            let most: Option<i64> = r.get("most")?;
            Ok(HostRow {
                id: r.get("id")?,
                name: r.get("name")?,
                zone: r.get("zone_id")?,
                pod: r.get("pod_id")?,
                cluster: r.get("cluster_id")?,
                tags: r.get::<String>("tags")?.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect(),
                // What it owes comes first: until then it may still run what others have by now.
                up: r.get::<HostStatus>("status")? == HostStatus::Up && !r.get::<bool>("owes")?,
                accepting: r.get::<bool>("accepting")?
                    && enabled(r.get("cluster_state")?)
                    && enabled(r.get("pod_state")?),
                total_cpu: whole(r.get("all_cpu")?),
                total_memory: whole(r.get("all_mem")?),
                free_cpu: whole(r.get("free_cpu")?),
                free_memory: whole(r.get("free_mem")?),
                guests: r.get("vms")?,
                // A simulated host has no limit but its capacity.
                most_guests: most.filter(|_| hypervisor != "Simulator"),
                dedicated_to: r.get("dedicated_to")?,
                zone_dedicated_to: r.get("zone_dedicated_to")?,
                kept_for: r.get("kept_for")?,
                last_stop: r.get("last_stop")?,
                hypervisor,
            })
        })
        .collect()
}

#[allow(clippy::cast_possible_truncation)] // capacities are far below 2^53
fn whole(value: f64) -> i64 {
    value.floor() as i64
}

/// No account has the host to itself: there is no remainder of that, or nothing is or was there lately.
const FREE: &str = "(kept_for IS NULL OR (vms = 0 AND NOT EXISTS (SELECT 1 FROM vms v WHERE \
    v.last_host_id = host_capacity.host_id AND v.state = 'Stopped' AND v.removed IS NULL AND v.changed > ?)))";

/// Takes from a host that accepts VMs and still has enough, and is as `terms` say (none: however). Gives whether it did.
pub async fn take(tx: &mut Tx, host: i64, amount: Amount, terms: Option<Terms>) -> Result<bool> {
    // What kept a host is forgotten by whoever takes it and doesn't mind: it was a remainder then.
    let sql = match terms.map(|t| t.keep) {
        None => Sql::new("UPDATE host_capacity SET kept_for = CASE WHEN vms = 0 THEN NULL ELSE kept_for END"),
        Some(Keep::Anyone) => Sql::new("UPDATE host_capacity SET kept_for = NULL"),
        Some(Keep::With(account) | Keep::Alone(account)) => {
            Sql::new("UPDATE host_capacity SET kept_for = CASE WHEN kept_for = ? THEN kept_for END").bind(account)
        }
    };
    let mut sql = sql
        .push(
            ", cpu_used_mhz = cpu_used_mhz + ?, mem_used = mem_used + ?, vms = vms + 1 \
             WHERE host_id = ? AND accepting = 1 AND cpu_used_mhz + cpu_reserved + ? <= cpu_total_mhz * cpu_overcommit \
             AND mem_used + mem_reserved + ? <= mem_total * mem_overcommit",
        )
        .bind(amount.cpu_mhz)
        .bind(amount.memory)
        .bind(host)
        .bind(amount.cpu_mhz)
        .bind(amount.memory);
    if let Some(terms) = terms {
        sql = sql
            .push(" AND COALESCE(dedicated_to, 0) = ? AND COALESCE(zone_dedicated_to, 0) = ? AND ")
            .bind(terms.host.unwrap_or(0))
            .bind(terms.zone.unwrap_or(0));
        sql = match terms.keep {
            Keep::Anyone => sql.push(FREE).bind(terms.since),
            Keep::With(account) | Keep::Alone(account) => {
                sql.push("(kept_for = ? OR ").bind(account).push(FREE).bind(terms.since).push(")")
            }
        };
    }
    Ok(tx.exec(sql).await? == 1)
}

/// The account has the host to itself as long as VMs are there.
pub async fn keep(tx: &mut Tx, host: i64, account: i64) -> Result<()> {
    let sql = Sql::new("UPDATE host_capacity SET kept_for = ? WHERE host_id = ?").bind(account).bind(host);
    tx.exec(sql).await.map(drop)
}

/// Gives back to a host.
pub async fn give(tx: &mut Tx, host: i64, amount: Amount) -> Result<()> {
    let sql = Sql::new(
        "UPDATE host_capacity SET cpu_used_mhz = cpu_used_mhz - ?, mem_used = mem_used - ?, vms = vms - 1 WHERE host_id = ?",
    )
    .bind(amount.cpu_mhz)
    .bind(amount.memory)
    .bind(host);
    tx.exec(sql).await.map(drop)
}

/// Notes what a VM holds.
pub async fn hold(tx: &mut Tx, vm: i64, host: i64, amount: Amount) -> Result<()> {
    let sql = Sql::new("INSERT INTO vm_capacity (vm_id, host_id, cpu_mhz, memory, taken) VALUES (?, ?, ?, ?, ?)")
        .bind(vm)
        .bind(host)
        .bind(amount.cpu_mhz)
        .bind(amount.memory)
        .bind(now_micros());
    tx.exec(sql).await.map(drop)
}

/// What a VM holds, and of which host.
pub async fn held(tx: &mut Tx, vm: i64) -> Result<Option<(i64, Amount)>> {
    let row =
        tx.optional(Sql::new("SELECT host_id, cpu_mhz, memory FROM vm_capacity WHERE vm_id = ?").bind(vm)).await?;
    row.map(|r| Ok((r.at(0)?, Amount { cpu_mhz: r.at(1)?, memory: r.at(2)? }))).transpose()
}

/// Forgets what a VM holds. Gives whether this call did.
pub async fn drop_hold(tx: &mut Tx, vm: i64, host: i64) -> Result<bool> {
    let sql = Sql::new("DELETE FROM vm_capacity WHERE vm_id = ? AND host_id = ?").bind(vm).bind(host);
    Ok(tx.exec(sql).await? == 1)
}

/// Whether a host is known to be down, or gone.
pub async fn is_down(db: &Db, host: i64) -> Result<bool> {
    let row = db.optional(Sql::new("SELECT status FROM hosts WHERE id = ? AND removed IS NULL").bind(host)).await?;
    Ok(matches!(row.map(|r| r.at::<HostStatus>(0)).transpose()?, None | Some(HostStatus::Down)))
}

/// Whether a host's agent is connected, as far as the database knows.
pub async fn is_up(db: &Db, host: i64) -> Result<bool> {
    let row = db.optional(Sql::new("SELECT status FROM hosts WHERE id = ? AND removed IS NULL").bind(host)).await?;
    Ok(matches!(row.map(|r| r.at::<HostStatus>(0)).transpose()?, Some(HostStatus::Up)))
}
