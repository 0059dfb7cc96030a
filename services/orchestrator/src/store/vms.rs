//! Rows of `vms`, `vm_names` and `host_debts`: writes, and reads by number. Lists are in `vm_list`.

use crate::placement::Amount;
use model::Owner;
use model::state::VmState;
use std::collections::BTreeMap;
use store::{Db, Error, Result, Row, Sql, Tx, Value, now_micros};

/// A virtual machine.
#[derive(Clone, Debug)]
pub struct VmRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Host name.
    pub name: String,
    /// Name shown to users.
    pub display_name: String,
    /// Name on the hypervisor, "i-2-10-VM".
    pub instance_name: String,
    /// State.
    pub state: VmState,
    /// Who owns it.
    pub owner: Owner,
    /// Who made it.
    pub user_id: i64,
    /// Zone.
    pub zone_id: i64,
    /// Host while it runs or is promised a place there.
    pub host_id: Option<i64>,
    /// Host where it ran last.
    pub last_host_id: Option<i64>,
    /// Template.
    pub template_id: i64,
    /// The ISO in its CD drive.
    pub iso_id: Option<i64>,
    /// Guest OS type.
    pub os_type_id: Option<i64>,
    /// Hypervisor.
    pub hypervisor: String,
    /// Compute offering.
    pub service_offering_id: i64,
    /// CPUs.
    pub cpu: i64,
    /// MHz of each.
    pub cpu_mhz: i64,
    /// MiB.
    pub memory_mb: i64,
    /// Base64.
    pub user_data: Option<String>,
    /// Public SSH key.
    pub public_key: Option<String>,
    /// Free details.
    pub details: BTreeMap<String, String>,
    /// Rises with every start.
    pub generation: i64,
    /// Reservation in identity.
    pub limits_key: String,
    /// When it last changed its state, UTC µs.
    pub changed: i64,
    /// Whether it has been expunged.
    pub removed: bool,
}

impl VmRow {
    /// What it takes of a host.
    pub fn amount(&self) -> Amount {
        Amount { cpu_mhz: self.cpu * self.cpu_mhz, memory: self.memory_mb * 1024 * 1024 }
    }
}

/// What a new VM's row says beyond [`VmRow`].
#[derive(Clone, Debug)]
pub struct NewVm {
    /// The row; `state` is the first one.
    pub vm: VmRow,
    /// Data disk offering that was asked for.
    pub disk_offering_id: Option<i64>,
    /// Name of the SSH key pair.
    pub key_pair: Option<String>,
    /// Name of its group, and the number that this gets if it has to be made.
    pub group: Option<(String, i64)>,
    /// Whether users see it.
    pub display_vm: bool,
    /// Whether its offering wants it restarted after a failure.
    pub ha_enabled: bool,
    /// Whether it may be scaled while it runs.
    pub dynamic_scaling: bool,
    /// Whether its template can set passwords.
    pub password_enabled: bool,
    /// The password of its guest, sealed for [`model::sealed::vm_password`].
    pub password_sealed: Option<String>,
    /// Networks in which its host name must be its own.
    pub networks: Vec<i64>,
}

const COLUMNS: &str = "id, uuid, name, display_name, instance_name, state, account_id, domain_id, domain_path, user_id, \
    zone_id, host_id, last_host_id, template_id, iso_id, os_type_id, hypervisor, service_offering_id, cpu, cpu_mhz, memory_mb, \
    user_data, public_key, details, generation, limits_key, changed, removed";

fn read(r: &Row) -> Result<VmRow> {
    Ok(VmRow {
        id: r.get("id")?,
        uuid: r.get("uuid")?,
        name: r.get("name")?,
        display_name: r.get("display_name")?,
        instance_name: r.get("instance_name")?,
        state: r.get("state")?,
        owner: Owner {
            account_id: r.get("account_id")?,
            domain_id: r.get("domain_id")?,
            domain_path: r.get("domain_path")?,
        },
        user_id: r.get("user_id")?,
        zone_id: r.get("zone_id")?,
        host_id: r.get("host_id")?,
        last_host_id: r.get("last_host_id")?,
        template_id: r.get("template_id")?,
        iso_id: r.get("iso_id")?,
        os_type_id: r.get("os_type_id")?,
        hypervisor: r.get("hypervisor")?,
        service_offering_id: r.get("service_offering_id")?,
        cpu: r.get("cpu")?,
        cpu_mhz: r.get("cpu_mhz")?,
        memory_mb: r.get("memory_mb")?,
        user_data: r.get("user_data")?,
        public_key: r.get("public_key")?,
        details: details(&r.get::<String>("details")?)?,
        generation: r.get("generation")?,
        limits_key: r.get("limits_key")?,
        changed: r.get("changed")?,
        removed: r.get::<Option<i64>>("removed")?.is_some(),
    })
}

/// Reads the details column.
pub fn details(text: &str) -> Result<BTreeMap<String, String>> {
    serde_json::from_str(text).map_err(|e| Error::Column { column: "details".into(), reason: e.to_string() })
}

fn encode(details: &BTreeMap<String, String>) -> Result<String> {
    serde_json::to_string(details).map_err(|e| Error::Other(e.to_string()))
}

fn select() -> Sql {
    Sql::new("SELECT ").push(COLUMNS).push(" FROM vms WHERE ")
}

/// The VM with this number.
pub async fn find(db: &Db, id: i64) -> Result<Option<VmRow>> {
    db.optional(select().push("id = ?").bind(id)).await?.map(|r| read(&r)).transpose()
}

/// The same within a transaction.
pub async fn find_in(tx: &mut Tx, id: i64) -> Result<Option<VmRow>> {
    tx.optional(select().push("id = ?").bind(id)).await?.map(|r| read(&r)).transpose()
}

/// VMs that are, or are promised to be, on a host.
pub async fn on_host(db: &Db, host: i64) -> Result<Vec<VmRow>> {
    db.all(select().push("host_id = ? AND removed IS NULL").bind(host)).await?.iter().map(read).collect()
}

/// VMs by UUID.
pub async fn by_uuids(db: &Db, uuids: &[String]) -> Result<Vec<VmRow>> {
    db.all(select().in_list("uuid", uuids.iter().map(String::as_str))).await?.iter().map(read).collect()
}

/// Destroyed and failed VMs that wait for their end since before `before` (UTC µs).
pub async fn to_expunge(db: &Db, before: i64, most: i64) -> Result<Vec<VmRow>> {
    db.all(
        select()
            .push("state IN (?, ?) AND destroyed < ? AND removed IS NULL ORDER BY destroyed LIMIT ?")
            .bind(VmState::Destroyed)
            .bind(VmState::Error)
            .bind(before)
            .bind(most),
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Inserts a VM and its host names.
///
/// # Errors
/// [`Error::Unique`] on `vm_names` when a network has a VM of that name.
pub async fn insert(tx: &mut Tx, new: &NewVm) -> Result<()> {
    let vm = &new.vm;
    let now = now_micros();
    let sql = Sql::new(
        "INSERT INTO vms (id, uuid, name, name_lower, display_name, display_lower, instance_name, state, account_id, \
         domain_id, domain_path, user_id, zone_id, template_id, iso_id, os_type_id, hypervisor, service_offering_id, \
         disk_offering_id, cpu, cpu_mhz, memory_mb, user_data, key_pair, public_key, details, display_vm, ha_enabled, \
         dynamic_scaling, password_enabled, password_sealed, generation, limits_key, created, changed) VALUES ",
    )
    .tuple([
        Value::from(vm.id),
        Value::from(&vm.uuid),
        Value::from(&vm.name),
        Value::from(vm.name.to_lowercase()),
        Value::from(&vm.display_name),
        Value::from(vm.display_name.to_lowercase()),
        Value::from(&vm.instance_name),
        Value::from(vm.state),
        Value::from(vm.owner.account_id),
        Value::from(vm.owner.domain_id),
        Value::from(&vm.owner.domain_path),
        Value::from(vm.user_id),
        Value::from(vm.zone_id),
        Value::from(vm.template_id),
        Value::from(vm.iso_id),
        Value::from(vm.os_type_id),
        Value::from(&vm.hypervisor),
        Value::from(vm.service_offering_id),
        Value::from(new.disk_offering_id),
        Value::from(vm.cpu),
        Value::from(vm.cpu_mhz),
        Value::from(vm.memory_mb),
        Value::from(vm.user_data.as_deref()),
        Value::from(new.key_pair.as_deref()),
        Value::from(vm.public_key.as_deref()),
        Value::from(encode(&vm.details)?),
        Value::from(new.display_vm),
        Value::from(new.ha_enabled),
        Value::from(new.dynamic_scaling),
        Value::from(new.password_enabled),
        Value::from(new.password_sealed.as_deref()),
        Value::from(vm.generation),
        Value::from(&vm.limits_key),
        Value::from(now),
        Value::from(now),
    ]);
    tx.exec(sql).await?;
    if let Some((group, id)) = &new.group {
        super::instance_groups::join(tx, vm.id, &vm.owner, group, *id).await?;
    }
    if new.networks.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("INSERT INTO vm_names (network_id, name_lower, vm_id) VALUES ");
    for (i, network) in new.networks.iter().enumerate() {
        sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
            Value::from(*network),
            Value::from(vm.name.to_lowercase()),
            Value::from(vm.id),
        ]);
    }
    tx.exec(sql).await.map(drop)
}

/// The password of a VM's guest, sealed for [`model::sealed::vm_password`].
pub async fn password_sealed(db: &Db, id: i64) -> Result<Option<String>> {
    let row = db.optional(Sql::new("SELECT password_sealed FROM vms WHERE id = ?").bind(id)).await?;
    row.map_or(Ok(None), |row| row.at(0))
}

/// Notes that a VM's guest took a password. Gives whether that is news: of a password that isn't its any more it is none. A fact that
/// nobody else writes: the VM needn't be claimed.
pub async fn took_password(tx: &mut Tx, uuid: &str, id: &str) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE vms SET password_taken = ? WHERE uuid = ? AND SUBSTR(password_sealed, -24) = ? AND \
         (password_taken IS NULL OR password_taken <> ?)",
    );
    Ok(tx.exec(sql.bind(id).bind(uuid).bind(id).bind(id)).await? > 0)
}

/// Moves a VM from one of `from` to `to`. Gives whether it was in one of them.
pub async fn transit(tx: &mut Tx, id: i64, from: &[VmState], to: VmState) -> Result<bool> {
    let sql = Sql::new("UPDATE vms SET state = ?, changed = ? WHERE id = ? AND removed IS NULL AND ")
        .bind(to)
        .bind(now_micros())
        .bind(id)
        .in_list("state", from.iter().copied());
    Ok(tx.exec(sql).await? == 1)
}

/// A place was found: the VM belongs there, one generation up. It must be in `state`.
pub async fn place(tx: &mut Tx, id: i64, state: VmState, host: i64, cluster: i64, pod: i64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE vms SET host_id = ?, cluster_id = ?, pod_id = ?, \
         generation = CASE WHEN promised > generation THEN promised ELSE generation END + 1 WHERE id = ? AND state = ?",
    )
    .bind(host)
    .bind(cluster)
    .bind(pod)
    .bind(id)
    .bind(state);
    Ok(tx.exec(sql).await? == 1)
}

/// A generation for the host where the VM moves: it has never had it, nor will anything else have it.
pub async fn promise(tx: &mut Tx, id: i64) -> Result<i64> {
    let sql = Sql::new(
        "UPDATE vms SET promised = CASE WHEN promised > generation THEN promised ELSE generation END + 1 WHERE id = ?",
    );
    tx.exec(sql.bind(id)).await?;
    tx.one(Sql::new("SELECT promised FROM vms WHERE id = ?").bind(id)).await?.at(0)
}

/// A Migrating VM leaves `source` for another host (with its cluster and pod). Gives whether it was there.
pub async fn change_host(
    tx: &mut Tx,
    id: i64,
    source: i64,
    (host, cluster, pod): (i64, i64, i64),
    generation: i64,
) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE vms SET host_id = ?, cluster_id = ?, pod_id = ?, last_host_id = ?, generation = ?, changed = ? \
         WHERE id = ? AND state = ? AND host_id = ?",
    )
    .bind(host)
    .bind(cluster)
    .bind(pod)
    .bind(source)
    .bind(generation)
    .bind(now_micros())
    .bind(id)
    .bind(VmState::Migrating)
    .bind(source);
    Ok(tx.exec(sql).await? == 1)
}

/// The VM's generation.
pub async fn generation(tx: &mut Tx, id: i64) -> Result<i64> {
    tx.one(Sql::new("SELECT generation FROM vms WHERE id = ?").bind(id)).await?.at(0)
}

/// The VM left its host; `ran` says whether it was running there.
pub async fn leave_host(tx: &mut Tx, id: i64, ran: bool) -> Result<()> {
    let sql = if ran {
        Sql::new("UPDATE vms SET last_host_id = host_id, host_id = NULL WHERE id = ? AND host_id IS NOT NULL")
    } else {
        Sql::new("UPDATE vms SET host_id = NULL WHERE id = ?")
    };
    tx.exec(sql.bind(id)).await.map(drop)
}

/// Notes when a VM was destroyed (or failed for good); `None` takes it back.
pub async fn mark_destroyed(tx: &mut Tx, id: i64, when: Option<i64>) -> Result<()> {
    tx.exec(Sql::new("UPDATE vms SET destroyed = ? WHERE id = ?").bind(when).bind(id)).await.map(drop)
}

/// A recovered VM counts under another reservation.
pub async fn set_limits_key(tx: &mut Tx, id: i64, key: &str) -> Result<()> {
    tx.exec(Sql::new("UPDATE vms SET limits_key = ? WHERE id = ?").bind(key).bind(id)).await.map(drop)
}

/// The VM is gone for good: its row stays for names and history, its host names are free again.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM vm_names WHERE vm_id = ?").bind(id)).await?;
    super::affinity::leave(tx, id).await?;
    let now = now_micros();
    let sql = Sql::new(
        "UPDATE vms SET removed = ?, changed = ?, group_id = NULL, iso_id = NULL WHERE id = ? AND removed IS NULL",
    )
    .bind(now)
    .bind(now)
    .bind(id);
    tx.exec(sql).await.map(drop)
}

/// What `updateVirtualMachine` changes; `None` leaves as is.
#[derive(Clone, Debug, Default)]
pub struct VmChange {
    /// Host name.
    pub name: Option<String>,
    /// Name shown to users.
    pub display_name: Option<String>,
    /// Guest OS type.
    pub os_type_id: Option<i64>,
    /// Base64.
    pub user_data: Option<String>,
    /// Whether users see it.
    pub display_vm: Option<bool>,
    /// Whether it is restarted after a failure.
    pub ha_enabled: Option<bool>,
    /// Whether it may be scaled while it runs.
    pub dynamic_scaling: Option<bool>,
    /// Name on the hypervisor.
    pub instance_name: Option<String>,
    /// All details.
    pub details: Option<BTreeMap<String, String>>,
    /// UUID.
    pub uuid: Option<String>,
    /// With another UUID: the guest's password, sealed for that.
    pub reseal: Option<Reseal>,
}

/// The same password, sealed anew.
#[derive(Clone, Debug)]
pub struct Reseal {
    /// As it was.
    pub from: String,
    /// As it is.
    pub to: String,
}

impl VmChange {
    /// Whether it is for a VM only that no host knows.
    pub fn needs_rest(&self) -> bool {
        self.name.is_some() || self.instance_name.is_some() || self.details.is_some() || self.uuid.is_some()
    }
}

/// Whether a host owes something of a VM.
pub async fn is_owed(tx: &mut Tx, vm_uuid: &str) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM host_debts WHERE vm_uuid = ? LIMIT 1").bind(vm_uuid);
    Ok(tx.optional(sql).await?.is_some())
}

/// Applies a change.
///
/// # Errors
/// [`Error::Unique`] when a host name, instance name or UUID is taken.
pub async fn change(tx: &mut Tx, id: i64, change: &VmChange) -> Result<()> {
    let mut sql = Sql::new("UPDATE vms SET changed = ?").bind(now_micros());
    if let Some(name) = &change.name {
        sql = sql.push(", name = ?, name_lower = ?").bind(name).bind(name.to_lowercase());
    }
    if let Some(name) = &change.display_name {
        sql = sql.push(", display_name = ?, display_lower = ?").bind(name).bind(name.to_lowercase());
    }
    sql = sql
        .push_if(", os_type_id = ?", change.os_type_id)
        .push_if(", user_data = ?", change.user_data.as_deref())
        .push_if(", display_vm = ?", change.display_vm)
        .push_if(", ha_enabled = ?", change.ha_enabled)
        .push_if(", dynamic_scaling = ?", change.dynamic_scaling)
        .push_if(", instance_name = ?", change.instance_name.as_deref())
        .push_if(", uuid = ?", change.uuid.as_deref());
    if let Some(details) = &change.details {
        sql = sql.push(", details = ?").bind(encode(details)?);
    }
    tx.exec(sql.push(" WHERE id = ? AND removed IS NULL").bind(id)).await?;
    if let Some(uuid) = &change.uuid {
        let sql = Sql::new("UPDATE tags SET resource_uuid = ? WHERE resource_type = 'UserVm' AND resource_id = ?");
        tx.exec(sql.bind(uuid).bind(id)).await?;
    }
    if let Some(Reseal { from, to }) = &change.reseal {
        // One that the guest took stays taken. The order matters: the second assignment may see the first (MySQL).
        let sql = Sql::new(
            "UPDATE vms SET password_taken = CASE WHEN password_taken = SUBSTR(password_sealed, -24) THEN ? ELSE password_taken END, \
             password_sealed = ? WHERE id = ? AND password_sealed = ?",
        );
        tx.exec(sql.bind(model::sealed::password_id(to)).bind(to).bind(id).bind(from)).await?;
    }
    if let Some(name) = &change.name {
        let sql = Sql::new("UPDATE vm_names SET name_lower = ? WHERE vm_id = ?").bind(name.to_lowercase()).bind(id);
        tx.exec(sql).await?;
    }
    Ok(())
}

/// Something that a host owes: a command to run before anything else when it returns.
#[derive(Clone, Debug)]
pub struct Debt {
    /// Number.
    pub id: i64,
    /// The encoded `arcus.agent.v1.Command`.
    pub command: Vec<u8>,
}

/// Notes a debt. The same number again changes nothing.
pub async fn owe(tx: &mut Tx, id: i64, host: i64, vm_uuid: &str, command: Vec<u8>) -> Result<()> {
    let known = tx.optional(Sql::new("SELECT id FROM host_debts WHERE id = ?").bind(id)).await?.is_some();
    if known {
        return Ok(());
    }
    let sql = Sql::new("INSERT INTO host_debts (id, host_id, vm_uuid, command, created) VALUES (?, ?, ?, ?, ?)")
        .bind(id)
        .bind(host)
        .bind(vm_uuid)
        .bind(command)
        .bind(now_micros());
    tx.exec(sql).await.map(drop)
}

/// What a host owes, the oldest first.
pub async fn debts(db: &Db, host: i64) -> Result<Vec<Debt>> {
    db.all(Sql::new("SELECT id, command FROM host_debts WHERE host_id = ? ORDER BY id").bind(host))
        .await?
        .iter()
        .map(|r| Ok(Debt { id: r.at(0)?, command: r.at(1)? }))
        .collect()
}

/// The hosts that owe something and are connected with this replica.
pub async fn debtors(db: &Db, replica: &str) -> Result<Vec<i64>> {
    let sql = Sql::new(
        "SELECT DISTINCT d.host_id FROM host_debts d JOIN hosts h ON h.id = d.host_id WHERE h.status = 'Up' AND h.hub = ?",
    );
    db.all(sql.bind(replica)).await?.iter().map(|r| r.at(0)).collect()
}

/// A debt was paid.
pub async fn paid(tx: &mut Tx, id: i64) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM host_debts WHERE id = ?").bind(id)).await.map(drop)
}
