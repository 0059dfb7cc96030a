//! What VMs' jobs need of NICs and of how guests let people in. The NICs' own table is the network service's.

use store::{Db, Result, Row, Sql, Tx};

/// A VM's NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmNic {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Network.
    pub network_id: i64,
    /// UUID of the network.
    pub network_uuid: String,
    /// Whether the VM's default route goes by it.
    pub is_default: bool,
    /// "vlan://77"; none while its network isn't implemented.
    pub broadcast_uri: Option<String>,
}

const SELECT: &str = "SELECT n.id, n.uuid, n.network_id, w.uuid, n.is_default, n.broadcast_uri FROM nics n JOIN networks w ON w.id = n.network_id WHERE ";

fn read(r: &Row) -> Result<VmNic> {
    Ok(VmNic {
        id: r.at(0)?,
        uuid: r.at(1)?,
        network_id: r.at(2)?,
        network_uuid: r.at(3)?,
        is_default: r.at(4)?,
        broadcast_uri: r.at(5)?,
    })
}

fn of(vm: i64) -> Sql {
    Sql::new(SELECT).push("n.vm_id = ? AND n.removed IS NULL ORDER BY n.device_id").bind(vm)
}

/// A VM's NICs.
pub async fn of_vm(db: &Db, vm: i64) -> Result<Vec<VmNic>> {
    db.all(of(vm)).await?.iter().map(read).collect()
}

/// The same within a transaction.
pub async fn of_vm_in(tx: &mut Tx, vm: i64) -> Result<Vec<VmNic>> {
    tx.all(of(vm)).await?.iter().map(read).collect()
}

/// Whether rules are made for a VM in a network: port forwarding, static NAT, load balancing.
pub async fn has_rules(db: &Db, vm: i64, nic: &VmNic) -> Result<bool> {
    let sql = Sql::new(
        "SELECT (SELECT COUNT(*) FROM firewall_rules WHERE vm_id = ? AND network_id = ?) + (SELECT COUNT(*) FROM ip_addresses \
         WHERE vm_id = ? AND network_id = ?) + (SELECT COUNT(*) FROM lb_members WHERE nic_id = ?)",
    );
    let sql = sql.bind(vm).bind(nic.network_id).bind(vm).bind(nic.network_id).bind(nic.id);
    Ok(db.one(sql).await?.at::<i64>(0)? > 0)
}

/// Takes a VM's host name in a network.
///
/// # Errors
/// [`store::Error::Unique`] when another VM has it there, or this one has a NIC there.
pub async fn take_name(tx: &mut Tx, network: i64, vm: i64, name: &str) -> Result<()> {
    let sql = Sql::new("INSERT INTO vm_names (network_id, name_lower, vm_id) VALUES (?, ?, ?)");
    tx.exec(sql.bind(network).bind(name.to_lowercase()).bind(vm)).await.map(drop)
}

/// Gives it back.
pub async fn leave_name(tx: &mut Tx, network: i64, vm: i64) -> Result<()> {
    let sql = Sql::new("DELETE FROM vm_names WHERE network_id = ? AND vm_id = ?");
    tx.exec(sql.bind(network).bind(vm)).await.map(drop)
}

/// How a VM's guest lets people in.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Access {
    /// The password, sealed for [`model::sealed::vm_password`].
    pub password_sealed: Option<String>,
    /// Name of the SSH key pair.
    pub key_pair: Option<String>,
    /// Its public half.
    pub public_key: Option<String>,
}

fn access_sql(vm: i64) -> Sql {
    Sql::new("SELECT password_sealed, key_pair, public_key, password_enabled FROM vms WHERE id = ?").bind(vm)
}

fn read_access(r: &Row) -> Result<(Access, bool)> {
    Ok((Access { password_sealed: r.at(0)?, key_pair: r.at(1)?, public_key: r.at(2)? }, r.at(3)?))
}

/// How a VM's guest lets people in, and whether its template can set passwords.
pub async fn access(db: &Db, vm: i64) -> Result<Option<(Access, bool)>> {
    db.optional(access_sql(vm)).await?.map(|r| read_access(&r)).transpose()
}

/// The same within a transaction.
pub async fn access_in(tx: &mut Tx, vm: i64) -> Result<Option<(Access, bool)>> {
    tx.optional(access_sql(vm)).await?.map(|r| read_access(&r)).transpose()
}

/// Sets how a VM's guest lets people in.
pub async fn set_access(tx: &mut Tx, vm: i64, access: &Access) -> Result<()> {
    let sql = Sql::new("UPDATE vms SET password_sealed = ?, key_pair = ?, public_key = ? WHERE id = ?");
    let sql = sql.bind(access.password_sealed.as_deref()).bind(access.key_pair.as_deref());
    tx.exec(sql.bind(access.public_key.as_deref()).bind(vm)).await.map(drop)
}
