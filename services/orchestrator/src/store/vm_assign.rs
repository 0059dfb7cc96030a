//! What of a VM changes when another account gets it. Volumes and NICs are written by their services.

use super::vm_order::Access;
use ::store::{Db, Result, Row, Sql, Tx, now_micros};
use model::Owner;

/// Rules that are made for a VM, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Port forwarding rules.
    pub forwarded: i64,
    /// IP forwarding rules of static NAT.
    pub static_nat: i64,
    /// Load balancing rules that it is behind.
    pub balanced: i64,
    /// Addresses that stand for it.
    pub addresses: i64,
}

/// The rules that are made for a VM.
pub async fn rules(db: &Db, vm: i64) -> Result<Rules> {
    let sql = Sql::new(
        "SELECT (SELECT COUNT(*) FROM firewall_rules WHERE vm_id = ? AND purpose = 'PortForwarding'), \
         (SELECT COUNT(*) FROM firewall_rules WHERE vm_id = ? AND purpose <> 'PortForwarding'), \
         (SELECT COUNT(*) FROM lb_members WHERE vm_id = ?), (SELECT COUNT(*) FROM ip_addresses WHERE vm_id = ?)",
    );
    let r = db.one(sql.bind(vm).bind(vm).bind(vm).bind(vm)).await?;
    Ok(Rules { forwarded: r.at(0)?, static_nat: r.at(1)?, balanced: r.at(2)?, addresses: r.at(3)? })
}

/// A volume of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmVolume {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Snapshots of it: those that failed don't count.
    pub snapshots: i64,
    /// Its disk offering is only for this domain and those below it: id path.
    pub domain_path: Option<String>,
}

const VOLUMES: &str = "SELECT o.id, o.uuid, o.name, (SELECT COUNT(*) FROM snapshots s WHERE s.volume_id = o.id AND s.removed IS NULL \
    AND s.state <> 'Error'), d.domain_path FROM volumes o LEFT JOIN disk_offerings d ON d.id = o.disk_offering_id \
    WHERE o.vm_id = ? AND o.removed IS NULL ORDER BY o.id";

fn volume(r: &Row) -> Result<VmVolume> {
    Ok(VmVolume { id: r.at(0)?, uuid: r.at(1)?, name: r.at(2)?, snapshots: r.at(3)?, domain_path: r.at(4)? })
}

/// The volumes of a VM.
pub async fn volumes(db: &Db, vm: i64) -> Result<Vec<VmVolume>> {
    db.all(Sql::new(VOLUMES).bind(vm)).await?.iter().map(volume).collect()
}

/// The same within a transaction.
pub async fn volumes_in(tx: &mut Tx, vm: i64) -> Result<Vec<VmVolume>> {
    tx.all(Sql::new(VOLUMES).bind(vm)).await?.iter().map(volume).collect()
}

/// The id path of the domain that a compute offering is only for; removed ones included.
pub async fn offering_domain(db: &Db, offering: i64) -> Result<Option<String>> {
    let sql = Sql::new("SELECT domain_path FROM service_offerings WHERE id = ?").bind(offering);
    db.optional(sql).await?.map_or(Ok(None), |r| r.at(0))
}

/// Whether an account may use a template: everybody's, its own, one that was shared with it, or one within its reach as an
/// administrator. Removed ones are judged, too.
pub async fn may_use_template(db: &Db, template: i64, owner: &Owner) -> Result<bool> {
    let sql = Sql::new(
        "SELECT t.is_public, t.account_id, t.domain_path, a.type, (SELECT COUNT(*) FROM template_shares s WHERE s.template_id = t.id \
         AND s.account_id = a.id) FROM templates t JOIN accounts a ON a.id = ? WHERE t.id = ?",
    );
    let Some(r) = db.optional(sql.bind(owner.account_id).bind(template)).await? else { return Ok(false) };
    let access = Access {
        public: r.at(0)?,
        account: r.at(1)?,
        domain_path: r.at(2)?,
        user_type: r.at(3)?,
        shared: r.at::<i64>(4)? > 0,
    };
    Ok(access.admits(owner))
}

/// The network of a VM's default NIC, if that is a shared one of a domain: several accounts are in it.
pub async fn shared_default(db: &Db, vm: i64) -> Result<Option<i64>> {
    let sql = Sql::new(
        "SELECT n.network_id FROM nics n JOIN networks w ON w.id = n.network_id WHERE n.vm_id = ? AND n.is_default = 1 AND n.removed \
         IS NULL AND w.guest_type = 'Shared' AND w.acl_type = 'Domain'",
    );
    db.optional(sql.bind(vm)).await?.map(|r| r.at(0)).transpose()
}

/// Whether a VM has NICs of this account.
pub async fn has_nics_of(db: &Db, vm: i64, account: i64) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM nics WHERE vm_id = ? AND account_id = ? AND removed IS NULL LIMIT 1");
    Ok(db.optional(sql.bind(vm).bind(account)).await?.is_some())
}

/// The VM's instance group.
pub async fn group(tx: &mut Tx, vm: i64) -> Result<Option<i64>> {
    tx.one(Sql::new("SELECT group_id FROM vms WHERE id = ?").bind(vm)).await?.at(0)
}

/// The networks in which the VM's host name is taken.
pub async fn named_in(tx: &mut Tx, vm: i64) -> Result<Vec<i64>> {
    let sql = Sql::new("SELECT network_id FROM vm_names WHERE vm_id = ? ORDER BY network_id").bind(vm);
    tx.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// Gives a stopped VM another owner; it leaves its group. False when it isn't `from`'s any more, or not stopped.
pub async fn hand_over(tx: &mut Tx, vm: i64, from: i64, to: &Owner) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE vms SET account_id = ?, domain_id = ?, domain_path = ?, group_id = NULL, changed = ? WHERE id = ? AND account_id = ? \
         AND state = 'Stopped' AND removed IS NULL",
    )
    .bind(to.account_id)
    .bind(to.domain_id)
    .bind(&to.domain_path)
    .bind(now_micros())
    .bind(vm)
    .bind(from);
    Ok(tx.exec(sql).await? == 1)
}

/// Puts a VM back into a group, unless that has been deleted.
pub async fn rejoin(tx: &mut Tx, vm: i64, group: i64) -> Result<()> {
    let sql = Sql::new("UPDATE vms SET group_id = (SELECT g.id FROM instance_groups g WHERE g.id = ?) WHERE id = ?");
    tx.exec(sql.bind(group).bind(vm)).await.map(drop)
}

/// Takes a VM out of these affinity groups.
pub async fn leave_affinity(tx: &mut Tx, vm: i64, groups: &[i64]) -> Result<()> {
    let sql = Sql::new("DELETE FROM affinity_group_vms WHERE vm_id = ? AND ").bind(vm);
    tx.exec(sql.in_list("group_id", groups.iter().copied())).await.map(drop)
}

/// The tags of a VM and of volumes are their new owner's.
pub async fn hand_over_tags(tx: &mut Tx, vm: i64, volumes: &[i64], to: &Owner) -> Result<()> {
    for (kind, ids) in [("UserVm", &[vm][..]), ("Volume", volumes)] {
        let sql =
            Sql::new("UPDATE tags SET account_id = ?, domain_id = ?, domain_path = ? WHERE resource_type = ? AND ");
        let sql = sql.bind(to.account_id).bind(to.domain_id).bind(&to.domain_path).bind(kind);
        tx.exec(sql.in_list("resource_id", ids.iter().copied())).await?;
    }
    Ok(())
}
