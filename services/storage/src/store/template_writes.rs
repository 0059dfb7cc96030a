//! Templates and ISOs as their owners make, change and delete them.

use super::templates::{COLUMNS, TemplateRow};
use model::Owner;
use std::collections::HashMap;
use store::{Db, Result, Sql, Tx, now_micros};

/// A template or ISO to be registered.
#[derive(Clone, Debug)]
pub struct NewTemplate {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub display_text: String,
    pub owner: Owner,
    pub public: bool,
    pub featured: bool,
    pub extractable: bool,
    /// In all zones, also those that come later.
    pub cross_zones: bool,
    pub bootable: bool,
    pub password_enabled: bool,
    pub ssh_key_enabled: bool,
    pub dynamically_scalable: bool,
    pub requires_hvm: bool,
    pub format: String,
    pub hypervisor: String,
    pub os_type_id: i64,
    pub bits: i64,
    pub checksum: Option<String>,
    /// The URL without what may be secret; none: made here.
    pub url: Option<String>,
    pub url_sealed: Option<String>,
    pub tag: Option<String>,
    pub details: HashMap<String, String>,
    /// What the disk was made from that it is made of.
    pub source_template_id: Option<i64>,
}

/// Writes a template, with its details.
pub async fn insert(tx: &mut Tx, t: &NewTemplate) -> Result<()> {
    tx.exec(
        Sql::new(
            "INSERT INTO templates (id, uuid, name, name_lower, display_text, account_id, domain_id, domain_path, is_public, \
             featured, extractable, cross_zones, bootable, password_enabled, ssh_key_enabled, dynamically_scalable, \
             direct_download, requires_hvm, format, hypervisor, template_type, os_type_id, bits, size, physical_size, checksum, \
             url, url_sealed, template_tag, source_template_id, state, sort_key, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, \
             ?, ?, ?, 0, ?, ?, ?, 'USER', ?, ?, 0, 0, ?, ?, ?, ?, ?, 'Active', 0, ?)",
        )
        .bind(t.id)
        .bind(t.uuid.as_str())
        .bind(t.name.as_str())
        .bind(t.name.to_lowercase())
        .bind(t.display_text.as_str())
        .bind(t.owner.account_id)
        .bind(t.owner.domain_id)
        .bind(t.owner.domain_path.as_str())
        .bind(t.public)
        .bind(t.featured)
        .bind(t.extractable)
        .bind(t.cross_zones)
        .bind(t.bootable)
        .bind(t.password_enabled)
        .bind(t.ssh_key_enabled)
        .bind(t.dynamically_scalable)
        .bind(t.requires_hvm)
        .bind(t.format.as_str())
        .bind(t.hypervisor.as_str())
        .bind(t.os_type_id)
        .bind(t.bits)
        .bind(t.checksum.as_deref())
        .bind(t.url.as_deref())
        .bind(t.url_sealed.as_deref())
        .bind(t.tag.as_deref())
        .bind(t.source_template_id)
        .bind(now_micros()),
    )
    .await?;
    set_details(tx, t.id, &t.details).await
}

/// Replaces a template's details.
pub async fn set_details(tx: &mut Tx, template: i64, details: &HashMap<String, String>) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM template_details WHERE template_id = ?").bind(template)).await?;
    for (name, value) in details {
        let sql = Sql::new("INSERT INTO template_details (template_id, name, value) VALUES (?, ?, ?)");
        tx.exec(sql.bind(template).bind(name.as_str()).bind(value.as_str())).await?;
    }
    Ok(())
}

/// The living template with this number.
pub async fn find(db: &Db, id: i64) -> Result<Option<TemplateRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM templates t WHERE t.id = ? AND t.removed IS NULL")).bind(id);
    db.optional(sql).await?.as_ref().map(TemplateRow::read).transpose()
}

/// The same, within a transaction.
pub async fn find_in(tx: &mut Tx, id: i64) -> Result<Option<TemplateRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM templates t WHERE t.id = ? AND t.removed IS NULL")).bind(id);
    tx.optional(sql).await?.as_ref().map(TemplateRow::read).transpose()
}

/// The number of the template with this UUID.
pub async fn number(db: &Db, uuid: &str) -> Result<Option<i64>> {
    db.optional(Sql::new("SELECT id FROM templates WHERE uuid = ?").bind(uuid)).await?.map(|r| r.at(0)).transpose()
}

/// Whether users may download a template, removed or not.
pub async fn extractable(db: &Db, id: i64) -> Result<bool> {
    let sql = Sql::new("SELECT extractable FROM templates WHERE id = ?").bind(id);
    db.optional(sql).await?.map_or(Ok(false), |r| r.at(0))
}

/// Where a template was registered from, sealed.
pub async fn url_sealed(db: &Db, id: i64) -> Result<Option<String>> {
    match db.optional(Sql::new("SELECT url_sealed FROM templates WHERE id = ?").bind(id)).await? {
        Some(r) => r.at(0),
        None => Ok(None),
    }
}

/// What updateTemplate changes; nothing where nothing is given.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    pub display_text: Option<String>,
    pub os_type_id: Option<i64>,
    pub bootable: Option<bool>,
    pub requires_hvm: Option<bool>,
    pub password_enabled: Option<bool>,
    pub dynamically_scalable: Option<bool>,
    pub sort_key: Option<i64>,
    pub public: Option<bool>,
    pub featured: Option<bool>,
    pub extractable: Option<bool>,
    pub details: Option<HashMap<String, String>>,
}

/// Changes a living template; false when it is gone.
pub async fn update(tx: &mut Tx, id: i64, c: &Change) -> Result<bool> {
    let mut sql = Sql::new("UPDATE templates SET id = id");
    if let Some(name) = &c.name {
        sql = sql.push(", name = ?, name_lower = ?").bind(name.as_str()).bind(name.to_lowercase());
    }
    let sql = sql
        .push_if(", display_text = ?", c.display_text.as_deref())
        .push_if(", os_type_id = ?", c.os_type_id)
        .push_if(", bootable = ?", c.bootable)
        .push_if(", requires_hvm = ?", c.requires_hvm)
        .push_if(", password_enabled = ?", c.password_enabled)
        .push_if(", dynamically_scalable = ?", c.dynamically_scalable)
        .push_if(", sort_key = ?", c.sort_key)
        .push_if(", is_public = ?", c.public)
        .push_if(", featured = ?", c.featured)
        .push_if(", extractable = ?", c.extractable)
        .push(" WHERE removed IS NULL AND id = ?")
        .bind(id);
    if tx.exec(sql).await? == 0 {
        return Ok(false);
    }
    if let Some(details) = &c.details {
        set_details(tx, id, details).await?;
    }
    Ok(true)
}

/// Notes what the first copy that came in was.
pub async fn note_facts(tx: &mut Tx, id: i64, size: i64, physical: i64) -> Result<()> {
    let sql = Sql::new("UPDATE templates SET size = ?, physical_size = ? WHERE id = ? AND size = 0");
    tx.exec(sql.bind(size).bind(physical).bind(id)).await.map(drop)
}

/// The zones in which a template is.
pub async fn zones_in(tx: &mut Tx, id: i64) -> Result<Vec<i64>> {
    let sql = Sql::new("SELECT zone_id FROM template_zones WHERE template_id = ? AND removed IS NULL ORDER BY zone_id")
        .bind(id);
    tx.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// The same, outside of a transaction.
pub async fn zones(db: &Db, id: i64) -> Result<Vec<i64>> {
    let sql = Sql::new("SELECT zone_id FROM template_zones WHERE template_id = ? AND removed IS NULL ORDER BY zone_id")
        .bind(id);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// Takes a template out of a zone, or of all. Gives the zones.
pub async fn leave(tx: &mut Tx, id: i64, zone: Option<i64>) -> Result<Vec<i64>> {
    let left: Vec<i64> = zones_in(tx, id).await?.into_iter().filter(|z| zone.is_none_or(|only| only == *z)).collect();
    let sql = Sql::new("UPDATE template_zones SET removed = ? WHERE template_id = ? AND removed IS NULL")
        .bind(now_micros())
        .bind(id)
        .push_if(" AND zone_id = ?", zone);
    tx.exec(sql).await?;
    Ok(left)
}

/// Marks a template as removed; false when it is so already.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new("UPDATE templates SET removed = ? WHERE id = ? AND removed IS NULL");
    Ok(tx.exec(sql.bind(now_micros()).bind(id)).await? > 0)
}

/// UUIDs of VMs that aren't expunged, didn't fail and have an ISO in their CD drive, at most `limit`: in a zone, or anywhere.
pub async fn readers(tx: &mut Tx, id: i64, zone: Option<i64>, limit: i64) -> Result<Vec<String>> {
    let sql =
        Sql::new("SELECT uuid FROM vms WHERE iso_id = ? AND removed IS NULL AND state NOT IN ('Expunging', 'Error')")
            .bind(id)
            .push_if(" AND zone_id = ?", zone)
            .push(" ORDER BY id LIMIT ?")
            .bind(limit);
    tx.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// UUIDs of VMs that aren't expunged and were made from a template, at most `limit`: in a zone, or anywhere.
pub async fn users(tx: &mut Tx, id: i64, zone: Option<i64>, limit: i64) -> Result<Vec<String>> {
    let sql = Sql::new("SELECT uuid FROM vms WHERE template_id = ? AND removed IS NULL AND state <> 'Expunging'")
        .bind(id)
        .push_if(" AND zone_id = ?", zone)
        .push(" ORDER BY id LIMIT ?")
        .bind(limit);
    tx.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// Living templates of users that a new store gets: public ones of its zone, and those of all zones.
pub async fn for_store(tx: &mut Tx, zone: i64) -> Result<Vec<TemplateRow>> {
    let sql = Sql::new(&format!(
        "SELECT {COLUMNS} FROM templates t WHERE t.removed IS NULL AND t.template_type = 'USER' AND t.url_sealed IS NOT NULL \
         AND (t.cross_zones = 1 OR (t.is_public = 1 AND EXISTS (SELECT 1 FROM template_zones z WHERE z.template_id = t.id \
         AND z.zone_id = ? AND z.removed IS NULL))) ORDER BY t.id"
    ))
    .bind(zone);
    tx.all(sql).await?.iter().map(TemplateRow::read).collect()
}
