//! Interfaces of VMs and routers.

use super::page;
use model::Owner;
use std::collections::HashMap;
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// State of an interface whose VM runs on a host.
pub const RESERVED: &str = "Reserved";
/// State of an interface whose VM doesn't.
pub const ALLOCATED: &str = "Allocated";

/// An interface.
#[derive(Clone, Debug)]
pub struct Nic {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Network.
    pub network_id: i64,
    /// VM, for those of VMs.
    pub vm_id: Option<i64>,
    /// Router, for those of routers.
    pub router_id: Option<i64>,
    /// Place on the VM.
    pub device_id: i64,
    /// Whether the VM's default route goes by it.
    pub is_default: bool,
    /// MAC.
    pub mac: String,
    /// Address.
    pub ip: Option<String>,
    /// Address as a number.
    pub ip_number: Option<i64>,
    /// Netmask.
    pub netmask: Option<String>,
    /// Gateway.
    pub gateway: Option<String>,
    /// "vlan://77".
    pub broadcast_uri: Option<String>,
    /// Traffic type of the network.
    pub traffic_type: String,
    /// Guest type of the network.
    pub guest_type: Option<String>,
    /// [`ALLOCATED`] or [`RESERVED`].
    pub state: String,
    /// Host, while reserved.
    pub host_id: Option<i64>,
    /// Name of the VM for DHCP and DNS.
    pub host_name: Option<String>,
    /// UUID of the VM.
    pub vm_uuid: Option<String>,
    /// Router generation that brought the last change of the lease.
    pub lease_generation: i64,
    /// Owner.
    pub owner: Owner,
}

const COLUMNS: &str = "id, uuid, network_id, vm_id, router_id, device_id, is_default, mac, ip, ip_number, netmask, gateway, \
     broadcast_uri, traffic_type, guest_type, state, host_id, host_name, vm_uuid, lease_generation, account_id, domain_id, \
     domain_path";

fn read(r: &Row) -> Result<Nic> {
    Ok(Nic {
        id: r.at(0)?,
        uuid: r.at(1)?,
        network_id: r.at(2)?,
        vm_id: r.at(3)?,
        router_id: r.at(4)?,
        device_id: r.at(5)?,
        is_default: r.at(6)?,
        mac: r.at(7)?,
        ip: r.at(8)?,
        ip_number: r.at(9)?,
        netmask: r.at(10)?,
        gateway: r.at(11)?,
        broadcast_uri: r.at(12)?,
        traffic_type: r.at(13)?,
        guest_type: r.at(14)?,
        state: r.at(15)?,
        host_id: r.at(16)?,
        host_name: r.at(17)?,
        vm_uuid: r.at(18)?,
        lease_generation: r.at(19)?,
        owner: Owner { account_id: r.at(20)?, domain_id: r.at(21)?, domain_path: r.at(22)? },
    })
}

/// Writes interfaces in one statement. Those with a router named in `routers` (by network) get that router's present
/// generation, which the transaction has just raised. A unique violation of `nics_address` or `mac` means that another
/// was faster.
pub async fn insert(tx: &mut Tx, nics: &[Nic], routers: &HashMap<i64, i64>) -> Result<()> {
    let now = now_micros();
    let mut sql = Sql::new(
        "INSERT INTO nics (id, uuid, network_id, vm_id, router_id, device_id, is_default, mac, ip, ip_number, netmask, gateway, \
         broadcast_uri, traffic_type, guest_type, state, host_id, host_name, vm_uuid, display, account_id, domain_id, domain_path, \
         live_network, live_mac, created, lease_generation) VALUES ",
    );
    for (i, n) in nics.iter().enumerate() {
        sql = sql
            .push(if i == 0 { "(" } else { ", (" })
            .push("?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ");
        sql = sql.bind_all([
            Value::from(n.id),
            (&n.uuid).into(),
            n.network_id.into(),
            n.vm_id.into(),
            n.router_id.into(),
            n.device_id.into(),
            n.is_default.into(),
            (&n.mac).into(),
            n.ip.clone().into(),
            n.ip_number.into(),
            n.netmask.clone().into(),
            n.gateway.clone().into(),
            n.broadcast_uri.clone().into(),
            (&n.traffic_type).into(),
            n.guest_type.clone().into(),
            (&n.state).into(),
            n.host_id.into(),
            n.host_name.clone().into(),
            n.vm_uuid.clone().into(),
            n.owner.account_id.into(),
            n.owner.domain_id.into(),
            (&n.owner.domain_path).into(),
            n.network_id.into(),
            (&n.mac).into(),
            now.into(),
        ]);
        sql = match routers.get(&n.network_id) {
            Some(router) => sql.push("(SELECT generation FROM routers WHERE id = ?))").bind(*router),
            None => sql.push("?)").bind(n.lease_generation),
        };
    }
    tx.exec(sql).await.map(drop)
}

/// A VM's living interfaces, in device order.
pub async fn of_vm(db: &Db, vm: i64) -> Result<Vec<Nic>> {
    let sql = format!("SELECT {COLUMNS} FROM nics WHERE vm_id = ? AND removed IS NULL ORDER BY device_id");
    db.all(Sql::new(&sql).bind(vm)).await?.iter().map(read).collect()
}

/// The same within a transaction.
pub async fn of_vm_in(tx: &mut Tx, vm: i64) -> Result<Vec<Nic>> {
    let sql = format!("SELECT {COLUMNS} FROM nics WHERE vm_id = ? AND removed IS NULL ORDER BY device_id");
    tx.all(Sql::new(&sql).bind(vm)).await?.iter().map(read).collect()
}

/// The living interfaces of routers.
pub async fn of_routers(db: &Db, routers: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, Vec<Nic>>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM nics WHERE removed IS NULL AND "))
        .in_list("router_id", super::zones::distinct(routers))
        .push(" ORDER BY device_id");
    let mut found: HashMap<i64, Vec<Nic>> = HashMap::new();
    for row in db.all(sql).await? {
        let nic = read(&row)?;
        found.entry(nic.router_id.unwrap_or_default()).or_default().push(nic);
    }
    Ok(found)
}

/// A VM's living interface in a network.
pub async fn of_vm_on(db: &Db, vm: i64, network: i64) -> Result<Option<Nic>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM nics WHERE vm_id = ? AND network_id = ? AND removed IS NULL ORDER BY device_id LIMIT 1"
    );
    db.optional(Sql::new(&sql).bind(vm).bind(network)).await?.map(|r| read(&r)).transpose()
}

/// Locks a VM's living interface with this address by writing it: whoever removes it waits, and then sees what was made for
/// it. False: there is none.
pub async fn pin(tx: &mut Tx, vm: i64, network: i64, ip: &str) -> Result<bool> {
    let sql =
        Sql::new("UPDATE nics SET rules = rules + 1 WHERE vm_id = ? AND network_id = ? AND ip = ? AND removed IS NULL");
    Ok(tx.exec(sql.bind(vm).bind(network).bind(ip)).await? > 0)
}

/// A page of a VM's interfaces.
pub async fn list(
    db: &Db,
    vm: i64,
    nic: Option<i64>,
    network: Option<i64>,
    p: &model::Page,
) -> Result<(Vec<Nic>, i64)> {
    let query = |head: &str| {
        Sql::new(head)
            .push(" FROM nics WHERE removed IS NULL AND vm_id = ?")
            .bind(vm)
            .push_if(" AND id = ?", nic)
            .push_if(" AND network_id = ?", network)
    };
    page(db, p, COLUMNS, query, " ORDER BY device_id, id", read).await
}

/// The addresses in use of a network.
pub async fn addresses(db: &Db, network: i64) -> Result<Vec<i64>> {
    db.all(Sql::new("SELECT ip_number FROM nics WHERE live_network = ? AND ip_number IS NOT NULL").bind(network))
        .await?
        .iter()
        .map(|r| r.at(0))
        .collect()
}

/// How many addresses of each network are in use.
pub async fn in_use(db: &Db, networks: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, i64>> {
    let sql = Sql::new("SELECT live_network, COUNT(ip_number) FROM nics WHERE ")
        .in_list("live_network", super::zones::distinct(networks))
        .push(" GROUP BY live_network");
    db.all(sql).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

/// How many interfaces of VMs a network has: all, and those whose VM runs.
pub async fn of_vms(tx: &mut Tx, network: i64) -> Result<(i64, i64)> {
    let row = tx
        .one(
            Sql::new(
                "SELECT COUNT(*), COUNT(CASE WHEN state <> 'Allocated' THEN 1 END) FROM nics WHERE live_network = ? AND \
                 vm_id IS NOT NULL",
            )
            .bind(network),
        )
        .await?;
    Ok((row.at(0)?, row.at(1)?))
}

/// A VM address of the network outside of a span, by one example.
pub async fn outside(tx: &mut Tx, network: i64, first: i64, last: i64) -> Result<Option<String>> {
    tx.optional(
        Sql::new(
            "SELECT ip FROM nics WHERE live_network = ? AND vm_id IS NOT NULL AND ip_number IS NOT NULL AND \
             (ip_number < ? OR ip_number > ?) LIMIT 1",
        )
        .bind(network)
        .bind(first)
        .bind(last),
    )
    .await?
    .map(|r| r.at(0))
    .transpose()
}

/// Whether an interface has an address between two.
pub async fn any_between(tx: &mut Tx, network: i64, first: i64, last: i64) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM nics WHERE live_network = ? AND ip_number BETWEEN ? AND ? LIMIT 1");
    Ok(tx.optional(sql.bind(network).bind(first).bind(last)).await?.is_some())
}

/// Who has an address of a network, or a MAC, by one example: for error texts.
pub async fn taken(db: &Db, network: i64, ip_number: Option<i64>, mac: Option<&str>) -> Result<bool> {
    let mut sql = Sql::new("SELECT 1 FROM nics WHERE ");
    sql = match (ip_number, mac) {
        (Some(n), _) => sql.push("live_network = ? AND ip_number = ?").bind(network).bind(n),
        (None, Some(mac)) => sql.push("live_mac = ?").bind(mac),
        (None, None) => return Ok(false),
    };
    Ok(db.optional(sql.push(" LIMIT 1")).await?.is_some())
}

/// With the present generation of its network's router, which the transaction has just raised, an interface's lease is told
/// anew.
const TOLD_NOW: &str = "lease_generation = COALESCE((SELECT r.generation FROM routers r WHERE r.live_network = nics.network_id), \
     lease_generation)";

/// Has all that a VM's guest is told told anew, with another name or UUID if one is given.
pub async fn tell_vm(tx: &mut Tx, vm: i64, host_name: Option<&str>, uuid: Option<&str>) -> Result<()> {
    let sql = Sql::new("UPDATE nics SET host_name = COALESCE(?, host_name), vm_uuid = COALESCE(?, vm_uuid), ");
    let sql = sql.bind(host_name).bind(uuid).push(TOLD_NOW);
    tx.exec(sql.push(" WHERE vm_id = ? AND removed IS NULL").bind(vm)).await.map(drop)
}

/// The same for the VM with an address; there may be none.
pub async fn tell_at(tx: &mut Tx, network: i64, ip: &str) -> Result<()> {
    let sql =
        Sql::new("UPDATE nics SET ").push(TOLD_NOW).push(" WHERE live_network = ? AND vm_id IS NOT NULL AND ip = ?");
    tx.exec(sql.bind(network).bind(ip)).await.map(drop)
}

/// Marks an interface removed: its lease goes with the present generation of its network's router.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
    let sql = Sql::new("UPDATE nics SET removed = ?, live_network = NULL, live_mac = NULL, ").bind(now_micros());
    tx.exec(sql.push(TOLD_NOW).push(" WHERE id = ? AND removed IS NULL").bind(id)).await.map(drop)
}

/// Whether rules are made for an interface, or an address stands for it.
pub async fn has_rules(tx: &mut Tx, nic: &Nic) -> Result<bool> {
    let sql = Sql::new(
        "SELECT (SELECT COUNT(*) FROM firewall_rules WHERE vm_id = ? AND network_id = ?) + (SELECT COUNT(*) FROM ip_addresses \
         WHERE vm_id = ? AND network_id = ?) + (SELECT COUNT(*) FROM lb_members WHERE nic_id = ?)",
    );
    let sql = sql.bind(nic.vm_id).bind(nic.network_id).bind(nic.vm_id).bind(nic.network_id).bind(nic.id);
    Ok(tx.one(sql).await?.at::<i64>(0)? > 0)
}

/// Gives an interface its place on the VM.
pub async fn set_place(tx: &mut Tx, id: i64, device_id: i64, is_default: bool) -> Result<()> {
    let sql = Sql::new("UPDATE nics SET device_id = ?, is_default = ? WHERE id = ?");
    tx.exec(sql.bind(device_id).bind(is_default).bind(id)).await.map(drop)
}

/// Marks a VM's interfaces removed: their leases go with the present generation of their networks' routers.
pub async fn remove_of_vm(tx: &mut Tx, vm: i64) -> Result<()> {
    tx.exec(
        Sql::new(
            "UPDATE nics SET removed = ?, live_network = NULL, live_mac = NULL, lease_generation = COALESCE((SELECT r.generation \
             FROM routers r WHERE r.live_network = nics.network_id), lease_generation) WHERE vm_id = ? AND removed IS NULL",
        )
        .bind(now_micros())
        .bind(vm),
    )
    .await
    .map(drop)
}

/// Marks a router's interfaces removed.
pub async fn remove_of_router(tx: &mut Tx, router: i64) -> Result<()> {
    tx.exec(
        Sql::new(
            "UPDATE nics SET removed = ?, live_network = NULL, live_mac = NULL WHERE router_id = ? AND removed IS NULL",
        )
        .bind(now_micros())
        .bind(router),
    )
    .await
    .map(drop)
}

/// Marks a VM's interfaces plugged on a host, or unplugged.
pub async fn set_host(tx: &mut Tx, vm: i64, host: Option<i64>) -> Result<()> {
    let state = if host.is_some() { RESERVED } else { ALLOCATED };
    tx.exec(
        Sql::new("UPDATE nics SET state = ?, host_id = ? WHERE vm_id = ? AND removed IS NULL")
            .bind(state)
            .bind(host)
            .bind(vm),
    )
    .await
    .map(drop)
}

/// Writes a network's VLAN into its interfaces.
pub async fn set_broadcast(tx: &mut Tx, network: i64, uri: Option<&str>) -> Result<()> {
    tx.exec(Sql::new("UPDATE nics SET broadcast_uri = ? WHERE live_network = ?").bind(uri).bind(network))
        .await
        .map(drop)
}

/// Whether there is something to [`purge`].
pub async fn has_removed(db: &Db, before: i64) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM nics WHERE removed < ? LIMIT 1").bind(before);
    Ok(db.optional(sql).await?.is_some())
}

/// Deletes removed interfaces whose lease the router has dropped, or whose network has no router.
pub async fn purge(tx: &mut Tx, before: i64) -> Result<u64> {
    tx.exec(
        Sql::new(
            "DELETE FROM nics WHERE removed IS NOT NULL AND removed < ? AND NOT EXISTS (SELECT 1 FROM routers r WHERE \
             r.live_network = nics.network_id AND r.applied < nics.lease_generation)",
        )
        .bind(before),
    )
    .await
}
