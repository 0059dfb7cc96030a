//! Traffic types of physical networks.

use super::page;
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// A traffic type with its labels.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Physical network.
    pub physical_network_id: i64,
    /// Zone.
    pub zone_id: i64,
    /// Guest, Management, Public, Storage.
    pub kind: String,
    /// Labels: XenServer, KVM, VMware, Hyper-V, OVM3.
    pub labels: [Option<String>; 5],
    /// VLAN.
    pub vlan: Option<String>,
    /// Isolation method.
    pub isolation_method: Option<String>,
}

const COLUMNS: &str = "id, uuid, physical_network_id, zone_id, traffic_type, xen_label, kvm_label, vmware_label, hyperv_label, \
     ovm3_label, vlan, isolation_method";

fn read(r: &Row) -> Result<Traffic> {
    Ok(Traffic {
        id: r.at(0)?,
        uuid: r.at(1)?,
        physical_network_id: r.at(2)?,
        zone_id: r.at(3)?,
        kind: r.at(4)?,
        labels: [r.at(5)?, r.at(6)?, r.at(7)?, r.at(8)?, r.at(9)?],
        vlan: r.at(10)?,
        isolation_method: r.at(11)?,
    })
}

/// One living traffic type.
pub async fn one(db: &Db, id: i64) -> Result<Option<Traffic>> {
    let sql = format!("SELECT {COLUMNS} FROM traffic_types WHERE id = ? AND removed IS NULL");
    db.optional(Sql::new(&sql).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// Those of a physical network.
pub async fn list(db: &Db, physical: i64, keyword: Option<&str>, p: &model::Page) -> Result<(Vec<Traffic>, i64)> {
    let query = |head: &str| {
        let sql =
            Sql::new(head).push(" FROM traffic_types WHERE removed IS NULL AND physical_network_id = ?").bind(physical);
        match keyword {
            Some(k) => sql.push(" AND ").contains("LOWER(traffic_type)", k),
            None => sql,
        }
    };
    page(db, p, COLUMNS, query, " ORDER BY id", read).await
}

/// Physical networks of a zone that carry a kind of traffic.
pub async fn carriers(db: &Db, zone: i64, kind: &str) -> Result<Vec<i64>> {
    db.all(
        Sql::new("SELECT physical_network_id FROM traffic_types WHERE zone_id = ? AND traffic_type = ? AND removed IS NULL ORDER BY id")
            .bind(zone)
            .bind(kind),
    )
    .await?
    .iter()
    .map(|r| r.at(0))
    .collect()
}

/// Writes a new one; a unique violation means that the zone or network has such a type.
pub async fn insert(tx: &mut Tx, t: &Traffic) -> Result<()> {
    let live_key = if t.kind == "Guest" {
        format!("pn/{}/Guest", t.physical_network_id)
    } else {
        format!("zone/{}/{}", t.zone_id, t.kind)
    };
    let [xen, kvm, vmware, hyperv, ovm3] = t.labels.clone();
    tx.exec(
        Sql::new(
            "INSERT INTO traffic_types (id, uuid, physical_network_id, zone_id, traffic_type, live_key, xen_label, kvm_label, \
             vmware_label, hyperv_label, ovm3_label, vlan, isolation_method, created) VALUES ",
        )
        .tuple([
            Value::from(t.id),
            (&t.uuid).into(),
            t.physical_network_id.into(),
            t.zone_id.into(),
            (&t.kind).into(),
            live_key.into(),
            xen.into(),
            kvm.into(),
            vmware.into(),
            hyperv.into(),
            ovm3.into(),
            t.vlan.clone().into(),
            t.isolation_method.clone().into(),
            now_micros().into(),
        ]),
    )
    .await
    .map(drop)
}

/// Writes the labels. False: it is gone.
pub async fn set_labels(tx: &mut Tx, id: i64, labels: &[Option<String>; 5]) -> Result<bool> {
    let [xen, kvm, vmware, hyperv, ovm3] = labels.clone();
    let n = tx
        .exec(
            Sql::new(
                "UPDATE traffic_types SET xen_label = ?, kvm_label = ?, vmware_label = ?, hyperv_label = ?, ovm3_label = ? \
                 WHERE id = ? AND removed IS NULL",
            )
            .bind_all([Value::from(xen), kvm.into(), vmware.into(), hyperv.into(), ovm3.into(), id.into()]),
        )
        .await?;
    Ok(n > 0)
}

/// Marks it removed.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
    tx.exec(
        Sql::new("UPDATE traffic_types SET removed = ?, live_key = NULL WHERE id = ? AND removed IS NULL")
            .bind(now_micros())
            .bind(id),
    )
    .await
    .map(drop)
}

/// How many things use a kind of traffic on a physical network: guest networks, or public ranges.
pub async fn uses(tx: &mut Tx, t: &Traffic) -> Result<i64> {
    let sql = match t.kind.as_str() {
        "Guest" => "SELECT COUNT(*) FROM networks WHERE physical_network_id = ? AND removed IS NULL AND is_system = 0",
        "Public" => {
            "SELECT COUNT(*) FROM vlan_ranges WHERE physical_network_id = ? AND removed IS NULL AND kind = 'VirtualNetwork'"
        }
        _ => return Ok(0),
    };
    tx.one(Sql::new(sql).bind(t.physical_network_id)).await?.at(0)
}
