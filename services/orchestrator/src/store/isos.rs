//! ISOs, as virtual machines see them, and which of them lies in a machine's CD drive. ISOs themselves are the storage service's.

use super::vm_order::Access;
use model::Owner;
use store::{Db, Result, Row, Sql, Tx, now_micros};

/// A living ISO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsoFacts {
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Whether the zone has it.
    pub offered: bool,
    /// Whether a store of the zone has its bytes.
    pub ready: bool,
    /// Whether the owner of the machine may use it.
    pub admitted: bool,
}

/// An ISO as seen by a machine of `owner` in a zone. None: there is none with this number.
pub async fn find(db: &Db, id: i64, zone: i64, owner: &Owner) -> Result<Option<IsoFacts>> {
    let sql = Sql::new(
        "SELECT t.uuid, t.name, t.is_public, t.account_id, t.domain_path, a.type AS owner_type, \
         CASE WHEN EXISTS (SELECT 1 FROM template_zones z WHERE z.template_id = t.id AND z.zone_id = ? AND z.removed IS NULL) \
         THEN 1 ELSE 0 END AS offered, CASE WHEN EXISTS (SELECT 1 FROM template_store_refs r JOIN image_stores s ON \
         s.id = r.store_id WHERE r.template_id = t.id AND r.state = 'Ready' AND s.removed IS NULL AND (s.zone_id = ? OR \
         s.zone_id IS NULL)) THEN 1 ELSE 0 END AS ready, CASE WHEN EXISTS (SELECT 1 FROM template_shares h WHERE \
         h.template_id = t.id AND h.account_id = ?) THEN 1 ELSE 0 END AS shared \
         FROM templates t LEFT JOIN accounts a ON a.id = ? WHERE t.id = ? AND t.removed IS NULL AND t.format = 'ISO'",
    )
    .bind(zone)
    .bind(zone)
    .bind(owner.account_id)
    .bind(owner.account_id)
    .bind(id);
    db.optional(sql).await?.map(|r| read(&r, owner)).transpose()
}

fn read(r: &Row, owner: &Owner) -> Result<IsoFacts> {
    let access = Access {
        public: r.get("is_public")?,
        shared: r.get("shared")?,
        account: r.get("account_id")?,
        domain_path: r.get("domain_path")?,
        user_type: r.get("owner_type")?,
    };
    Ok(IsoFacts {
        uuid: r.get("uuid")?,
        name: r.get("name")?,
        offered: r.get("offered")?,
        ready: r.get("ready")?,
        admitted: access.admits(owner),
    })
}

/// The UUID of an ISO, also of one that is gone.
pub async fn uuid(tx: &mut Tx, id: i64) -> Result<Option<String>> {
    tx.optional(Sql::new("SELECT uuid FROM templates WHERE id = ?").bind(id)).await?.map(|r| r.at(0)).transpose()
}

/// Whether a template, or one that was, is an ISO.
pub async fn is_iso(db: &Db, template: i64) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM templates WHERE id = ? AND format = 'ISO'").bind(template);
    Ok(db.optional(sql).await?.is_some())
}

/// Puts an ISO into a machine's drive, or (none) empties it.
pub async fn put(tx: &mut Tx, vm: i64, iso: Option<i64>) -> Result<()> {
    let sql = Sql::new("UPDATE vms SET iso_id = ?, changed = ? WHERE id = ? AND removed IS NULL");
    tx.exec(sql.bind(iso).bind(now_micros()).bind(vm)).await.map(drop)
}

/// The hypervisors of a zone's hosts.
pub async fn hypervisors(db: &Db, zone: i64) -> Result<Vec<String>> {
    let sql =
        Sql::new("SELECT DISTINCT hypervisor FROM clusters WHERE zone_id = ? AND removed IS NULL ORDER BY hypervisor");
    db.all(sql.bind(zone)).await?.iter().map(|r| r.at(0)).collect()
}
