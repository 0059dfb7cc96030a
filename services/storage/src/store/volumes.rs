//! Volumes.

use crate::offering::split_tags;
use crate::store::pools;
use contract::{ApiError, Page};
use model::{ListScope, Owner};
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// A ROOT disk.
pub const ROOT: &str = "ROOT";
/// A data disk.
pub const DATA: &str = "DATADISK";

/// A volume.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeRow {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub kind: String,
    pub state: String,
    pub owner: Owner,
    pub zone_id: i64,
    pub vm_id: Option<i64>,
    pub device_id: Option<i64>,
    pub pool_id: Option<i64>,
    pub last_pool_id: Option<i64>,
    pub disk_offering_id: Option<i64>,
    pub template_id: Option<i64>,
    pub size: i64,
    pub min_iops: Option<i64>,
    pub max_iops: Option<i64>,
    pub format: Option<String>,
    pub hypervisor: Option<String>,
    pub provisioning_type: String,
    pub tags: Vec<String>,
    pub local_storage: bool,
    pub path: Option<String>,
    pub chain: Option<String>,
    pub display: bool,
    pub attached: Option<i64>,
    pub created: i64,
    pub removed: bool,
    /// The snapshot that it was made from.
    pub snapshot_id: Option<i64>,
}

const COLUMNS: &str = "v.id, v.uuid, v.name, v.kind, v.state, v.account_id, v.domain_id, v.domain_path, v.zone_id, v.vm_id, \
     v.device_id, v.pool_id, v.last_pool_id, v.disk_offering_id, v.template_id, v.size, v.min_iops, v.max_iops, v.format, \
     v.hypervisor, v.provisioning_type, v.tags, v.local_storage, v.path, v.chain, v.display_volume, v.attached, v.created, \
     v.removed, v.snapshot_id";

impl VolumeRow {
    fn read(r: &Row) -> Result<VolumeRow> {
        Ok(VolumeRow {
            id: r.at(0)?,
            uuid: r.at(1)?,
            name: r.at(2)?,
            kind: r.at(3)?,
            state: r.at(4)?,
            owner: Owner { account_id: r.at(5)?, domain_id: r.at(6)?, domain_path: r.at(7)? },
            zone_id: r.at(8)?,
            vm_id: r.at(9)?,
            device_id: r.at(10)?,
            pool_id: r.at(11)?,
            last_pool_id: r.at(12)?,
            disk_offering_id: r.at(13)?,
            template_id: r.at(14)?,
            size: r.at(15)?,
            min_iops: r.at(16)?,
            max_iops: r.at(17)?,
            format: r.at(18)?,
            hypervisor: r.at(19)?,
            provisioning_type: r.at(20)?,
            tags: split_tags(&r.at::<String>(21)?).map(str::to_owned).collect(),
            local_storage: r.at(22)?,
            path: r.at(23)?,
            chain: r.at(24)?,
            display: r.at(25)?,
            attached: r.at(26)?,
            created: r.at(27)?,
            removed: r.at::<Option<i64>>(28)?.is_some(),
            snapshot_id: r.at(29)?,
        })
    }

    /// Whether it is a ROOT disk.
    pub fn is_root(&self) -> bool {
        self.kind == ROOT
    }

    /// The path of its bytes on the pool: chosen once, so that making them twice is making them once.
    pub fn path_on_pool(&self) -> &str {
        self.path.as_deref().unwrap_or(&self.uuid)
    }
}

/// The volume with this number, removed or not.
pub async fn find(db: &Db, id: i64) -> Result<Option<VolumeRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM volumes v WHERE v.id = ?")).bind(id);
    db.optional(sql).await?.as_ref().map(VolumeRow::read).transpose()
}

/// Whether a volume, living or not, has this UUID.
pub async fn uuid_taken(db: &Db, uuid: &str) -> Result<bool> {
    Ok(db.optional(Sql::new("SELECT 1 FROM volumes WHERE uuid = ?").bind(uuid)).await?.is_some())
}

/// The same within a transaction.
pub async fn find_in(tx: &mut Tx, id: i64) -> Result<Option<VolumeRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM volumes v WHERE v.id = ?")).bind(id);
    tx.optional(sql).await?.as_ref().map(VolumeRow::read).transpose()
}

/// The living volumes of a VM, ROOT first.
pub async fn of_vm(db: &Db, vm: i64) -> Result<Vec<VolumeRow>> {
    let sql = Sql::new(&format!(
        "SELECT {COLUMNS} FROM volumes v WHERE v.vm_id = ? AND v.removed IS NULL ORDER BY v.device_id, v.id"
    ))
    .bind(vm);
    db.all(sql).await?.iter().map(VolumeRow::read).collect()
}

/// The same within a transaction.
pub async fn of_vm_in(tx: &mut Tx, vm: i64) -> Result<Vec<VolumeRow>> {
    let sql = Sql::new(&format!(
        "SELECT {COLUMNS} FROM volumes v WHERE v.vm_id = ? AND v.removed IS NULL ORDER BY v.device_id, v.id"
    ))
    .bind(vm);
    tx.all(sql).await?.iter().map(VolumeRow::read).collect()
}

/// Gives a volume, with its policies of snapshots, another owner. False when it isn't `from`'s any more, or is being changed.
pub async fn assign(tx: &mut Tx, id: i64, from: i64, to: &Owner) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE volumes SET account_id = ?, domain_id = ?, domain_path = ?, changed = ? WHERE id = ? AND account_id = ? \
         AND state IN ('Ready', 'Allocated') AND removed IS NULL",
    )
    .bind(to.account_id)
    .bind(to.domain_id)
    .bind(&to.domain_path)
    .bind(now_micros())
    .bind(id)
    .bind(from);
    if tx.exec(sql).await? == 0 {
        return Ok(false);
    }
    super::policies::assign(tx, id, to).await?;
    Ok(true)
}

/// The volume at a device of a VM.
pub async fn at_device(db: &Db, vm: i64, device: i64) -> Result<Option<VolumeRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM volumes v WHERE v.slot = ? AND v.removed IS NULL"))
        .bind(slot(vm, device));
    db.optional(sql).await?.as_ref().map(VolumeRow::read).transpose()
}

/// The devices of a VM that are taken.
pub async fn devices(tx: &mut Tx, vm: i64) -> Result<Vec<i64>> {
    let sql = Sql::new("SELECT device_id FROM volumes WHERE vm_id = ? AND removed IS NULL AND device_id IS NOT NULL")
        .bind(vm);
    tx.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

fn slot(vm: i64, device: i64) -> String {
    format!("{vm}/{device}")
}

/// Writes volumes, in one statement.
pub async fn insert(tx: &mut Tx, volumes: &[VolumeRow]) -> Result<()> {
    if volumes.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new(
        "INSERT INTO volumes (id, uuid, name, name_lower, kind, state, account_id, domain_id, domain_path, zone_id, vm_id, \
         device_id, slot, pool_id, disk_offering_id, template_id, size, min_iops, max_iops, format, hypervisor, \
         provisioning_type, tags, local_storage, path, display_volume, attached, created, changed, snapshot_id) VALUES ",
    );
    for (i, v) in volumes.iter().enumerate() {
        let place = v.vm_id.zip(v.device_id).map(|(vm, device)| slot(vm, device));
        sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
            Value::from(v.id),
            Value::from(v.uuid.as_str()),
            Value::from(v.name.as_str()),
            Value::from(v.name.to_lowercase()),
            Value::from(v.kind.as_str()),
            Value::from(v.state.as_str()),
            Value::from(v.owner.account_id),
            Value::from(v.owner.domain_id),
            Value::from(v.owner.domain_path.as_str()),
            Value::from(v.zone_id),
            Value::from(v.vm_id),
            Value::from(v.device_id),
            Value::from(place),
            Value::from(v.pool_id),
            Value::from(v.disk_offering_id),
            Value::from(v.template_id),
            Value::from(v.size),
            Value::from(v.min_iops),
            Value::from(v.max_iops),
            Value::from(v.format.as_deref()),
            Value::from(v.hypervisor.as_deref()),
            Value::from(v.provisioning_type.as_str()),
            Value::from(v.tags.join(",")),
            Value::from(v.local_storage),
            Value::from(v.path.as_deref()),
            Value::from(v.display),
            Value::from(v.attached),
            Value::from(v.created),
            Value::from(v.created),
            Value::from(v.snapshot_id),
        ]);
    }
    tx.exec(sql).await.map(drop)
}

/// Where a volume is put.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub pool: i64,
    pub path: &'a str,
    pub format: &'a str,
    pub hypervisor: &'a str,
}

/// Notes that a volume without a pool now lies on one, whose bytes the caller has taken; it is `Creating` until a host has
/// made them. False when it has one already or is gone.
pub async fn place(tx: &mut Tx, id: i64, at: Place<'_>) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE volumes SET pool_id = ?, path = ?, format = ?, hypervisor = ?, state = 'Creating', changed = ? \
         WHERE id = ? AND pool_id IS NULL AND removed IS NULL",
    )
    .bind(at.pool)
    .bind(at.path)
    .bind(at.format)
    .bind(at.hypervisor)
    .bind(now_micros())
    .bind(id);
    Ok(tx.exec(sql).await? > 0)
}

/// Takes a volume off its pool and gives the bytes back, once. False when it isn't on that pool any more.
pub async fn unplace(tx: &mut Tx, v: &VolumeRow, pool: i64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE volumes SET pool_id = NULL, last_pool_id = ?, path = NULL, state = 'Allocated', changed = ? \
         WHERE id = ? AND pool_id = ? AND size = ? AND removed IS NULL",
    )
    .bind(pool)
    .bind(now_micros())
    .bind(v.id)
    .bind(pool)
    .bind(v.size);
    if tx.exec(sql).await? == 0 {
        return Ok(false);
    }
    pools::give_back(tx, pool, v.size).await?;
    Ok(true)
}

/// Removes a volume and gives its bytes back, once. False when it is removed already, or has changed since `v` was read.
pub async fn remove(tx: &mut Tx, v: &VolumeRow) -> Result<bool> {
    let now = now_micros();
    let sql = Sql::new(
        "UPDATE volumes SET removed = ?, changed = ?, state = 'Expunged', slot = NULL, last_pool_id = pool_id, pool_id = NULL \
         WHERE id = ? AND removed IS NULL AND size = ?",
    )
    .bind(now)
    .bind(now)
    .bind(v.id)
    .bind(v.size);
    let sql = match v.pool_id {
        Some(pool) => sql.push(" AND pool_id = ?").bind(pool),
        None => sql.push(" AND pool_id IS NULL"),
    };
    if tx.exec(sql).await? == 0 {
        return Ok(false);
    }
    if let Some(pool) = v.pool_id {
        pools::give_back(tx, pool, v.size).await?;
    }
    Ok(true)
}

/// Puts a detached volume at a device of a VM; [`store::Error::Unique`] on `slot` when another is there. False when it is
/// attached already or gone.
pub async fn attach(tx: &mut Tx, id: i64, vm: i64, device: i64) -> Result<bool> {
    let now = now_micros();
    let sql = Sql::new(
        "UPDATE volumes SET vm_id = ?, device_id = ?, slot = ?, attached = ?, changed = ? \
         WHERE id = ? AND vm_id IS NULL AND removed IS NULL",
    )
    .bind(vm)
    .bind(device)
    .bind(slot(vm, device))
    .bind(now)
    .bind(now)
    .bind(id);
    Ok(tx.exec(sql).await? > 0)
}

/// Takes a volume off a VM. False when it isn't there any more.
pub async fn detach(tx: &mut Tx, id: i64, vm: i64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE volumes SET vm_id = NULL, device_id = NULL, slot = NULL, attached = NULL, changed = ? \
         WHERE id = ? AND vm_id = ? AND removed IS NULL",
    )
    .bind(now_micros())
    .bind(id)
    .bind(vm);
    Ok(tx.exec(sql).await? > 0)
}

/// Takes the ROOT disk of a VM away and sets it aside: whole, nobody's, and of no use to anybody (state Destroy). False when
/// it isn't there any more, or is being changed or copied.
pub async fn set_aside(tx: &mut Tx, id: i64, vm: i64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE volumes SET vm_id = NULL, device_id = NULL, slot = NULL, attached = NULL, state = 'Destroy', changed = ? \
         WHERE id = ? AND vm_id = ? AND state IN ('Ready', 'Allocated') AND removed IS NULL AND NOT EXISTS \
         (SELECT 1 FROM snapshots s WHERE s.volume_id = ? AND s.removed IS NULL AND s.state IN ('Allocated', 'Creating', 'BackingUp'))",
    )
    .bind(now_micros())
    .bind(id)
    .bind(vm)
    .bind(id);
    Ok(tx.exec(sql).await? > 0)
}

/// Gives a VM the ROOT disk back that was set aside. False when it isn't aside any more.
pub async fn put_back(tx: &mut Tx, v: &VolumeRow, vm: i64) -> Result<bool> {
    let now = now_micros();
    let state = if v.pool_id.is_some() { "Ready" } else { "Allocated" };
    let sql = Sql::new(
        "UPDATE volumes SET vm_id = ?, device_id = 0, slot = ?, attached = ?, state = ?, changed = ? \
         WHERE id = ? AND vm_id IS NULL AND state = 'Destroy' AND removed IS NULL",
    )
    .bind(vm)
    .bind(slot(vm, 0))
    .bind(now)
    .bind(state)
    .bind(now)
    .bind(v.id);
    Ok(tx.exec(sql).await? > 0)
}

/// Takes all data disks off a VM.
pub async fn detach_data(tx: &mut Tx, vm: i64) -> Result<()> {
    let sql = Sql::new(
        "UPDATE volumes SET vm_id = NULL, device_id = NULL, slot = NULL, attached = NULL, changed = ? \
         WHERE vm_id = ? AND kind = 'DATADISK' AND removed IS NULL",
    )
    .bind(now_micros())
    .bind(vm);
    tx.exec(sql).await.map(drop)
}

/// Lets a volume at rest have other bytes on its pool, that stand alone. False when it has others than `old` by now, or is gone.
pub async fn swap(tx: &mut Tx, id: i64, old: &str, new: &str) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE volumes SET path = ?, chain = NULL, changed = ? WHERE id = ? AND path = ? AND state = 'Ready' AND removed IS NULL",
    )
    .bind(new)
    .bind(now_micros())
    .bind(id)
    .bind(old);
    Ok(tx.exec(sql).await? > 0)
}

/// Moves a volume from one state into another. False when it is in neither that state nor alive.
pub async fn transit(tx: &mut Tx, id: i64, from: &str, to: &str) -> Result<bool> {
    let sql = Sql::new("UPDATE volumes SET state = ?, changed = ? WHERE id = ? AND state = ? AND removed IS NULL")
        .bind(to)
        .bind(now_micros())
        .bind(id)
        .bind(from);
    Ok(tx.exec(sql).await? > 0)
}

/// What a volume becomes when it is resized.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub state: String,
    pub size: i64,
    pub offering: Option<i64>,
    pub min_iops: Option<i64>,
    pub max_iops: Option<i64>,
}

/// Gives a volume another shape, whose bytes the caller has taken or gives back. False when it is no longer in state `from`
/// with size `size`.
pub async fn reshape(tx: &mut Tx, id: i64, from: &str, size: i64, to: &Shape) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE volumes SET state = ?, size = ?, disk_offering_id = ?, min_iops = ?, max_iops = ?, changed = ? \
         WHERE id = ? AND state = ? AND size = ? AND removed IS NULL",
    )
    .bind(to.state.as_str())
    .bind(to.size)
    .bind(to.offering)
    .bind(to.min_iops)
    .bind(to.max_iops)
    .bind(now_micros())
    .bind(id)
    .bind(from)
    .bind(size);
    Ok(tx.exec(sql).await? > 0)
}

/// What a list asks for.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    pub scope: ListScope,
    pub ids: Vec<i64>,
    pub name: Option<&'a str>,
    pub keyword: Option<&'a str>,
    pub kind: Option<String>,
    pub vm: Option<i64>,
    pub zone: Option<i64>,
    pub host: Option<i64>,
    pub pod: Option<i64>,
    pub cluster: Option<i64>,
    pub pool: Option<i64>,
    pub offering: Option<i64>,
    pub display: Option<bool>,
    pub tags: Vec<(String, String)>,
}

/// A page of living volumes.
pub async fn list(db: &Db, q: &Query<'_>, page: Page) -> std::result::Result<(Vec<VolumeRow>, i64), ApiError> {
    let body = |sql: Sql| {
        let mut sql = sql.push(" FROM volumes v");
        if q.host.is_some() {
            sql = sql.push(" JOIN vms m ON m.id = v.vm_id");
        }
        if q.pod.is_some() || q.cluster.is_some() {
            sql = sql.push(" JOIN storage_pools p ON p.id = v.pool_id");
        }
        sql = sql.push(" WHERE v.removed IS NULL");
        if !q.ids.is_empty() {
            sql = sql.push(" AND ").in_list("v.id", q.ids.clone());
        }
        sql = sql
            .push_if(" AND v.name = ?", q.name)
            .push_if(" AND v.kind = ?", q.kind.as_deref())
            .push_if(" AND v.vm_id = ?", q.vm)
            .push_if(" AND v.zone_id = ?", q.zone)
            .push_if(" AND v.pool_id = ?", q.pool)
            .push_if(" AND v.disk_offering_id = ?", q.offering)
            .push_if(" AND v.display_volume = ?", q.display)
            .push_if(" AND m.host_id = ?", q.host)
            .push_if(" AND p.pod_id = ?", q.pod)
            .push_if(" AND p.cluster_id = ?", q.cluster);
        if let Some(word) = q.keyword {
            let lower = word.to_lowercase();
            sql = sql
                .push(" AND (")
                .contains("v.name_lower", &lower)
                .push(" OR v.kind = ? OR v.state = ?)")
                .bind(word.to_uppercase())
                .bind(word);
        }
        model::tags::filter(q.scope.and(sql, "v."), "Volume", "v.id", &q.tags)
    };
    let (rows, count) = super::page(db, COLUMNS, body, "v.id", page).await?;
    Ok((rows.iter().map(VolumeRow::read).collect::<Result<_>>()?, count))
}
