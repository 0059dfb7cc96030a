//! What a restored VM needs to know of its ROOT disk and of templates, and what becomes of its row. Volumes and snapshots are
//! the storage service's.

use store::{Db, Result, Row, Sql, Tx, now_micros};

/// A VM's ROOT disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Number of the volume.
    pub volume: i64,
    /// Bytes.
    pub size: i64,
    /// Snapshots of it that are being taken.
    pub snapshots: i64,
}

/// The ROOT disk of a VM.
pub async fn root(db: &Db, vm: i64) -> Result<Option<Root>> {
    let sql = Sql::new(
        "SELECT o.id, o.size, (SELECT COUNT(*) FROM snapshots s WHERE s.volume_id = o.id AND s.removed IS NULL \
         AND s.state IN ('Allocated', 'Creating', 'BackingUp')) FROM volumes o WHERE o.vm_id = ? AND o.kind = 'ROOT' \
         AND o.removed IS NULL LIMIT 1",
    );
    let read = |r: Row| Ok(Root { volume: r.at(0)?, size: r.at(1)?, snapshots: r.at(2)? });
    db.optional(sql.bind(vm)).await?.map(read).transpose()
}

/// Whether a volume has been removed.
pub async fn is_gone(db: &Db, volume: i64) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM volumes WHERE id = ? AND removed IS NULL").bind(volume);
    Ok(db.optional(sql).await?.is_none())
}

/// Whether there is a volume with this UUID.
pub async fn lives(db: &Db, uuid: &str) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM volumes WHERE uuid = ? AND removed IS NULL").bind(uuid);
    Ok(db.optional(sql).await?.is_some())
}

/// What of a VM's row comes from its template.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// Template.
    pub template: i64,
    /// The ISO in its CD drive: another one, when the VM boots from that.
    #[serde(default)]
    pub iso: Option<i64>,
    /// Guest OS type.
    pub os_type: Option<i64>,
    /// Whether it can set passwords.
    pub password_enabled: bool,
    /// Whether it may be scaled while it runs.
    pub dynamic_scaling: bool,
    /// The guest's password, sealed for [`model::sealed::vm_password`].
    pub password_sealed: Option<String>,
}

/// Where a VM comes from.
pub async fn origin(tx: &mut Tx, vm: i64) -> Result<Option<Origin>> {
    let sql = Sql::new(
        "SELECT template_id, os_type_id, password_enabled, dynamic_scaling, password_sealed, iso_id FROM vms WHERE id = ? \
         AND removed IS NULL",
    );
    let read = |r: Row| {
        Ok(Origin {
            template: r.at(0)?,
            os_type: r.at(1)?,
            password_enabled: r.at(2)?,
            dynamic_scaling: r.at(3)?,
            password_sealed: r.at(4)?,
            iso: r.at(5)?,
        })
    };
    tx.optional(sql.bind(vm)).await?.map(read).transpose()
}

/// Lets a VM come from elsewhere.
pub async fn set_origin(tx: &mut Tx, vm: i64, origin: &Origin) -> Result<()> {
    let sql = Sql::new(
        "UPDATE vms SET template_id = ?, os_type_id = ?, password_enabled = ?, dynamic_scaling = ?, password_sealed = ?, \
         iso_id = ?, changed = ? WHERE id = ? AND removed IS NULL",
    );
    let sql = sql.bind(origin.template).bind(origin.os_type).bind(origin.password_enabled).bind(origin.dynamic_scaling);
    tx.exec(sql.bind(origin.password_sealed.as_deref()).bind(origin.iso).bind(now_micros()).bind(vm)).await.map(drop)
}

/// Whether a VM's ROOT disk is made anew at each reboot: its offering is volatile (VM-027).
pub async fn is_volatile(db: &Db, service_offering: i64) -> Result<bool> {
    let sql = Sql::new("SELECT is_volatile FROM service_offerings WHERE id = ?").bind(service_offering);
    Ok(db.optional(sql).await?.map(|r| r.at(0)).transpose()?.unwrap_or_default())
}
