//! Compute offerings.

use super::{Changes, Reader, lower, paged};
use ::store::{Db, Result, Row, Sql, Tx, Value};
use model::Page;

/// A compute offering.
#[derive(Clone, Debug, Default)]
pub struct OfferingRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Name by which code finds it; seeded ones only.
    pub unique_name: Option<String>,
    /// What users read.
    pub display_text: String,
    /// CPUs; none: the user chooses.
    pub cpu: Option<i64>,
    /// MHz of each.
    pub cpu_mhz: Option<i64>,
    /// MiB.
    pub memory_mb: Option<i64>,
    /// Mbit/s of the default NIC.
    pub rate_mbps: Option<i64>,
    /// Whether its VMs are started elsewhere when their host fails.
    pub offer_ha: bool,
    /// Whether its VMs get no more than their MHz.
    pub limit_cpu_use: bool,
    /// Whether its VMs get a new root disk with each boot.
    pub is_volatile: bool,
    /// shared or local.
    pub storage_type: String,
    /// thin, sparse or fat.
    pub provisioning_type: String,
    /// Tags that pools must have.
    pub tags: Option<String>,
    /// Tag that hosts must have.
    pub host_tags: Option<String>,
    /// The domain that it is for: number and id path.
    pub domain: Option<(i64, String)>,
    /// That domain's UUID and name.
    pub domain_name: Option<(String, String)>,
    /// Whether it is for system VMs.
    pub is_system: bool,
    /// For which.
    pub system_vm_type: Option<String>,
    /// Whether it is what such system VMs get.
    pub default_use: bool,
    /// Whether the user chooses CPU and memory.
    pub customized: bool,
    /// Whether the user chooses IOPS.
    pub customized_iops: Option<bool>,
    /// Least and most IOPS.
    pub iops: (Option<i64>, Option<i64>),
    /// Percent kept for the hypervisor's snapshots.
    pub hypervisor_snapshot_reserve: Option<i64>,
    /// Bytes/s: read, write.
    pub bytes_rate: (Option<i64>, Option<i64>),
    /// Operations/s: read, write.
    pub iops_rate: (Option<i64>, Option<i64>),
    /// Planner that places its VMs.
    pub deployment_planner: Option<String>,
    /// When it was made.
    pub created: i64,
}

const COLUMNS: &str = "s.id, s.uuid, s.name, s.unique_name, s.display_text, s.cpu, s.cpu_mhz, s.memory_mb, s.rate_mbps, s.offer_ha, \
    s.limit_cpu_use, s.is_volatile, s.storage_type, s.provisioning_type, s.tags, s.host_tags, s.domain_id, s.domain_path, \
    d.uuid AS domain_uuid, d.name AS domain_name, s.is_system, s.system_vm_type, s.default_use, s.customized, s.customized_iops, \
    s.min_iops, s.max_iops, s.hypervisor_snapshot_reserve, s.bytes_read_rate, s.bytes_write_rate, s.iops_read_rate, \
    s.iops_write_rate, s.deployment_planner, s.created";
const FROM: &str = " FROM service_offerings s LEFT JOIN domains d ON d.id = s.domain_id";

fn read(r: &Row) -> Result<OfferingRow> {
    let (domain, path): (Option<i64>, Option<String>) = (r.get("domain_id")?, r.get("domain_path")?);
    let (domain_uuid, domain_name): (Option<String>, Option<String>) = (r.get("domain_uuid")?, r.get("domain_name")?);
    Ok(OfferingRow {
        id: r.get("id")?,
        uuid: r.get("uuid")?,
        name: r.get("name")?,
        unique_name: r.get("unique_name")?,
        display_text: r.get("display_text")?,
        cpu: r.get("cpu")?,
        cpu_mhz: r.get("cpu_mhz")?,
        memory_mb: r.get("memory_mb")?,
        rate_mbps: r.get("rate_mbps")?,
        offer_ha: r.get("offer_ha")?,
        limit_cpu_use: r.get("limit_cpu_use")?,
        is_volatile: r.get("is_volatile")?,
        storage_type: r.get("storage_type")?,
        provisioning_type: r.get("provisioning_type")?,
        tags: r.get("tags")?,
        host_tags: r.get("host_tags")?,
        domain: domain.zip(path),
        domain_name: domain_uuid.zip(domain_name),
        is_system: r.get("is_system")?,
        system_vm_type: r.get("system_vm_type")?,
        default_use: r.get("default_use")?,
        customized: r.get("customized")?,
        customized_iops: r.get("customized_iops")?,
        iops: (r.get("min_iops")?, r.get("max_iops")?),
        hypervisor_snapshot_reserve: r.get("hypervisor_snapshot_reserve")?,
        bytes_rate: (r.get("bytes_read_rate")?, r.get("bytes_write_rate")?),
        iops_rate: (r.get("iops_read_rate")?, r.get("iops_write_rate")?),
        deployment_planner: r.get("deployment_planner")?,
        created: r.get("created")?,
    })
}

/// A living offering.
pub async fn find(from: impl Reader, id: i64) -> Result<Option<OfferingRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS}{FROM} WHERE s.id = ? AND s.removed IS NULL")).bind(id);
    from.rows(sql).await?.first().map(read).transpose()
}

/// Writes offerings, in one statement.
pub async fn insert(tx: &mut Tx, rows: &[OfferingRow]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new(
        "INSERT INTO service_offerings (id, uuid, name, name_lower, unique_name, display_text, cpu, cpu_mhz, memory_mb, rate_mbps, \
         offer_ha, limit_cpu_use, is_volatile, storage_type, provisioning_type, tags, host_tags, domain_id, domain_path, is_system, \
         system_vm_type, default_use, customized, customized_iops, min_iops, max_iops, hypervisor_snapshot_reserve, bytes_read_rate, \
         bytes_write_rate, iops_read_rate, iops_write_rate, deployment_planner, sort_key, created) VALUES ",
    );
    for (i, o) in rows.iter().enumerate() {
        let (domain_id, domain_path) = o.domain.clone().unzip();
        sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
            Value::from(o.id),
            Value::from(&o.uuid),
            Value::from(&o.name),
            Value::from(lower(&o.name)),
            Value::from(o.unique_name.clone()),
            Value::from(&o.display_text),
            Value::from(o.cpu),
            Value::from(o.cpu_mhz),
            Value::from(o.memory_mb),
            Value::from(o.rate_mbps),
            Value::from(o.offer_ha),
            Value::from(o.limit_cpu_use),
            Value::from(o.is_volatile),
            Value::from(&o.storage_type),
            Value::from(&o.provisioning_type),
            Value::from(o.tags.clone()),
            Value::from(o.host_tags.clone()),
            Value::from(domain_id),
            Value::from(domain_path),
            Value::from(o.is_system),
            Value::from(o.system_vm_type.clone()),
            Value::from(o.default_use),
            Value::from(o.customized),
            Value::from(o.customized_iops),
            Value::from(o.iops.0),
            Value::from(o.iops.1),
            Value::from(o.hypervisor_snapshot_reserve),
            Value::from(o.bytes_rate.0),
            Value::from(o.bytes_rate.1),
            Value::from(o.iops_rate.0),
            Value::from(o.iops_rate.1),
            Value::from(o.deployment_planner.clone()),
            Value::from(0i64),
            Value::from(o.created),
        ]);
    }
    tx.exec(sql).await.map(drop)
}

/// Changes what may be changed; whether it lives.
pub async fn update(
    tx: &mut Tx,
    id: i64,
    name: Option<&str>,
    display_text: Option<&str>,
    sort_key: Option<i64>,
) -> Result<bool> {
    Changes::default()
        .set_if("name", name)
        .set_if("name_lower", name.map(lower))
        .set_if("display_text", display_text)
        .set_if("sort_key", sort_key)
        .apply(tx, "service_offerings", id)
        .await
}

/// Ends an offering's life; VMs keep what they have. Whether it lived.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    Changes::default().set("removed", ::store::now_micros()).apply(tx, "service_offerings", id).await
}

/// Which offerings a list shows.
#[derive(Clone, Debug, Default)]
pub struct OfferingFilter {
    /// Only this one.
    pub id: Option<i64>,
    /// Only with this name.
    pub name: Option<String>,
    /// Only for system VMs; else only for users' VMs.
    pub is_system: bool,
    /// Only for this kind of system VM.
    pub system_vm_type: Option<String>,
    /// Only for this domain.
    pub domain: Option<i64>,
    /// What the caller may see; none: all.
    pub visible: Option<Visible>,
    /// Only what a VM may change to.
    pub for_vm: Option<ForVm>,
    /// Only whose name or text contains it.
    pub keyword: Option<String>,
}

/// Offerings that somebody who isn't a root admin sees: public ones and those of domains in reach.
#[derive(Clone, Debug)]
pub struct Visible {
    /// The caller's domain and all above it.
    pub line: Vec<i64>,
    /// The domains below this id path too.
    pub below: Option<String>,
}

/// What a VM has, and may change from.
#[derive(Clone, Debug)]
pub struct ForVm {
    /// Its offering.
    pub offering: i64,
    /// Storage type of that.
    pub storage_type: String,
    /// What it has while it runs: CPUs, MHz, MiB. It may not get less then.
    pub at_least: Option<(i64, i64, i64)>,
}

/// A page of offerings, and how many there are.
pub async fn list(db: &Db, filter: &OfferingFilter, page: Page) -> Result<(Vec<OfferingRow>, i64)> {
    let body = |sql: Sql| {
        let mut sql = sql
            .push(FROM)
            .push(" WHERE s.removed IS NULL AND s.is_system = ?")
            .bind(filter.is_system)
            .push_if(" AND s.id = ?", filter.id)
            .push_if(" AND s.name_lower = ?", filter.name.as_deref().map(lower))
            .push_if(" AND s.system_vm_type = ?", filter.system_vm_type.as_deref())
            .push_if(" AND s.domain_id = ?", filter.domain);
        if let Some(visible) = &filter.visible {
            sql = sql.push(" AND (s.domain_id IS NULL OR ").in_list("s.domain_id", visible.line.iter().copied());
            if let Some(path) = &visible.below {
                sql = sql
                    .push(" OR (s.domain_path >= ? AND s.domain_path < ?)")
                    .bind(path)
                    .bind(format!("{}0", path.trim_end_matches('/')));
            }
            sql = sql.push(")");
        }
        if let Some(vm) = &filter.for_vm {
            sql = sql.push(" AND s.id <> ? AND s.storage_type = ?").bind(vm.offering).bind(&vm.storage_type);
            if let Some((cpu, mhz, memory)) = vm.at_least {
                sql = sql
                    .push(" AND (s.customized = 1 OR (s.cpu >= ? AND s.cpu_mhz >= ? AND s.memory_mb >= ?))")
                    .bind(cpu)
                    .bind(mhz)
                    .bind(memory);
            }
        }
        match filter.keyword.as_deref().map(str::to_lowercase) {
            Some(keyword) => sql
                .push(" AND (")
                .contains("s.name_lower", &keyword)
                .push(" OR ")
                .contains("LOWER(s.display_text)", &keyword)
                .push(")"),
            None => sql,
        }
    };
    let (rows, count) = paged(db, COLUMNS, body, "s.sort_key, s.id", page).await?;
    Ok((rows.iter().map(read).collect::<Result<_>>()?, count))
}

/// What a VM has, for [`ForVm`]: its offering, storage type, and CPUs, MHz and MiB when it runs.
pub async fn of_vm(db: &Db, vm: i64) -> Result<Option<ForVm>> {
    let sql = Sql::new(
        "SELECT v.service_offering_id, s.storage_type, v.state, v.cpu, v.cpu_mhz, v.memory_mb FROM vms v \
         JOIN service_offerings s ON s.id = v.service_offering_id WHERE v.id = ? AND v.removed IS NULL",
    );
    let row = db.optional(sql.bind(vm)).await?;
    row.map(|r| {
        let runs = r.at::<String>(2)? == "Running";
        let has = (r.at(3)?, r.at(4)?, r.at(5)?);
        Ok(ForVm { offering: r.at(0)?, storage_type: r.at(1)?, at_least: runs.then_some(has) })
    })
    .transpose()
}

/// Whether there are any offerings at all, dead or alive.
pub async fn seeded(db: &Db) -> Result<bool> {
    Ok(db.optional(Sql::new("SELECT id FROM service_offerings LIMIT 1")).await?.is_some())
}
