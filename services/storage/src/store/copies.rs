//! Copies of templates on secondary storage, and how far those are that still come in.
//!
//! Every write names the path as well: a copy that was deleted and made anew isn't taken for the old one.

use super::deletions;
use model::Owner;
use std::collections::{HashMap, HashSet};
use store::{Db, Result, Row, Sql, Tx, now_micros};

/// A copy of a template on a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub template_id: i64,
    pub store_id: i64,
    /// The store's zone; none: all zones reach it.
    pub zone_id: Option<i64>,
    /// Creating, Ready, Failed.
    pub state: String,
    /// As 4.11 names them: NOT_DOWNLOADED, DOWNLOAD_IN_PROGRESS, DOWNLOADED, DOWNLOAD_ERROR.
    pub download_state: String,
    pub error: Option<String>,
    pub path: String,
    pub size: i64,
    pub physical_size: i64,
    pub percent: i64,
    pub held_bytes: i64,
    pub host_id: Option<i64>,
    pub hypervisor: Option<String>,
    pub content_sum: Option<String>,
    /// Another zone had it before.
    pub copied: bool,
}

const COLUMNS: &str = "r.template_id, r.store_id, r.zone_id, r.state, r.download_state, r.error, r.path, r.size, \
     r.physical_size, r.percent, r.held_bytes, r.host_id, r.hypervisor, r.content_sum, r.copied";

impl Copy {
    fn read(r: &Row) -> Result<Copy> {
        Ok(Copy {
            template_id: r.at(0)?,
            store_id: r.at(1)?,
            zone_id: r.at(2)?,
            state: r.at(3)?,
            download_state: r.at(4)?,
            error: r.at(5)?,
            path: r.at(6)?,
            size: r.at(7)?,
            physical_size: r.at(8)?,
            percent: r.at(9)?,
            held_bytes: r.at(10)?,
            host_id: r.at(11)?,
            hypervisor: r.at(12)?,
            content_sum: r.at(13)?,
            copied: r.at(14)?,
        })
    }

    /// Whether hosts of `zone` reach it.
    pub fn serves(&self, zone: i64) -> bool {
        self.zone_id.is_none_or(|z| z == zone)
    }

    /// Whether it is there.
    pub fn is_ready(&self) -> bool {
        self.state == "Ready"
    }

    /// Whether it is on its way.
    pub fn is_coming(&self) -> bool {
        self.state == "Creating"
    }
}

/// All copies of these templates.
pub async fn of_templates(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, Vec<Copy>>> {
    let ids: HashSet<i64> = ids.into_iter().collect();
    let mut found: HashMap<i64, Vec<Copy>> = HashMap::new();
    if ids.is_empty() {
        return Ok(found);
    }
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM template_store_refs r WHERE ")).in_list("r.template_id", ids);
    for r in db.all(sql.push(" ORDER BY r.store_id")).await? {
        let copy = Copy::read(&r)?;
        found.entry(copy.template_id).or_default().push(copy);
    }
    Ok(found)
}

/// The same for one template, within a transaction.
pub async fn of_template_in(tx: &mut Tx, id: i64) -> Result<Vec<Copy>> {
    let sql =
        Sql::new(&format!("SELECT {COLUMNS} FROM template_store_refs r WHERE r.template_id = ? ORDER BY r.store_id"));
    tx.all(sql.bind(id)).await?.iter().map(Copy::read).collect()
}

/// The bytes that a template's copies count against the limits of its owner, those in `zone` left out.
pub async fn held(db: &Db, template: i64, without_zone: Option<i64>) -> Result<i64> {
    let sql =
        Sql::new("SELECT CAST(COALESCE(SUM(held_bytes), 0) AS SIGNED) FROM template_store_refs WHERE template_id = ?")
            .bind(template)
            .push_if(" AND (zone_id IS NULL OR zone_id <> ?)", without_zone);
    db.one(sql).await?.at(0)
}

/// A copy that is to come in, with what is needed for that.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub copy: Copy,
    pub uuid: String,
    pub name: String,
    pub owner: Owner,
    pub format: String,
    /// Whose hosts fetch it; "None" for ISOs.
    pub hypervisor: String,
    pub checksum: Option<String>,
    pub url_sealed: Option<String>,
    /// The virtual size of the copies there are; 0: none is there yet.
    pub size: i64,
}

impl Wanted {
    /// The kind of the entity, as events name it.
    pub fn kind(&self) -> &'static str {
        if self.format == "ISO" { "Iso" } else { "Template" }
    }
}

/// Copies that are to come in and aren't in `at_work` (by path), oldest first.
pub async fn wanted(db: &Db, at_work: &HashSet<String>, limit: i64) -> Result<Vec<Wanted>> {
    let mut sql = Sql::new(&format!(
        "SELECT {COLUMNS}, t.uuid, t.name, t.account_id, t.domain_id, t.domain_path, t.format, t.hypervisor, t.checksum, \
         t.url_sealed, t.size FROM template_store_refs r JOIN templates t ON t.id = r.template_id \
         WHERE r.state = 'Creating' AND t.removed IS NULL"
    ));
    if !at_work.is_empty() {
        sql = sql.push(" AND NOT ").in_list("r.path", at_work.iter().map(String::as_str));
    }
    let rows = db.all(sql.push(" ORDER BY r.created, r.path LIMIT ?").bind(limit)).await?;
    rows.iter()
        .map(|r| {
            Ok(Wanted {
                copy: Copy::read(r)?,
                uuid: r.at(15)?,
                name: r.at(16)?,
                owner: Owner { account_id: r.at(17)?, domain_id: r.at(18)?, domain_path: r.at(19)? },
                format: r.at(20)?,
                hypervisor: r.at(21)?,
                checksum: r.at(22)?,
                url_sealed: r.at(23)?,
                size: r.at(24)?,
            })
        })
        .collect()
}

/// A copy that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NewCopy {
    /// The store.
    pub store_id: i64,
    /// Its zone.
    pub zone_id: Option<i64>,
    /// Where it comes to lie.
    pub path: String,
}

/// Notes that a copy is to be made. False when the store has one, or gets one, already.
pub async fn insert(tx: &mut Tx, template: i64, new: &NewCopy, copied: bool) -> Result<bool> {
    let now = now_micros();
    // One that failed makes room.
    tx.exec(
        Sql::new("DELETE FROM template_store_refs WHERE template_id = ? AND store_id = ? AND state = 'Failed'")
            .bind(template)
            .bind(new.store_id),
    )
    .await?;
    let sql = Sql::new(
        "INSERT INTO template_store_refs (template_id, store_id, zone_id, state, download_state, path, size, physical_size, \
         copied, created, changed) VALUES (?, ?, ?, 'Creating', 'NOT_DOWNLOADED', ?, 0, 0, ?, ?, ?)",
    )
    .bind(template)
    .bind(new.store_id)
    .bind(new.zone_id)
    .bind(new.path.as_str())
    .bind(copied)
    .bind(now)
    .bind(now);
    match tx.exec(sql).await {
        Ok(_) => Ok(true),
        Err(store::Error::Unique { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A copy that was made here.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// Bytes of the disk.
    pub size: i64,
    /// Bytes of the file.
    pub physical: i64,
    /// Checksum of the file.
    pub sum: Option<&'a str>,
    /// Whose hosts can delete it.
    pub hypervisor: &'a str,
}

/// Writes a copy that is there.
pub async fn insert_made(tx: &mut Tx, template: i64, new: &NewCopy, made: Made<'_>) -> Result<()> {
    let now = now_micros();
    let sql = Sql::new(
        "INSERT INTO template_store_refs (template_id, store_id, zone_id, state, download_state, path, size, physical_size, percent, \
         held_bytes, hypervisor, content_sum, copied, created, changed) VALUES (?, ?, ?, 'Ready', 'DOWNLOADED', ?, ?, ?, 100, ?, ?, ?, \
         0, ?, ?)",
    )
    .bind(template)
    .bind(new.store_id)
    .bind(new.zone_id)
    .bind(new.path.as_str())
    .bind(made.size)
    .bind(made.physical)
    .bind(made.physical)
    .bind(made.hypervisor)
    .bind(made.sum)
    .bind(now)
    .bind(now);
    tx.exec(sql).await.map(drop)
}

async fn write(tx: &mut Tx, copy: &Copy, set: &str, values: impl FnOnce(Sql) -> Sql) -> Result<bool> {
    let text = format!(
        "UPDATE template_store_refs SET changed = ?, {set} WHERE template_id = ? AND store_id = ? AND path = ? \
         AND state = 'Creating'"
    );
    let sql = values(Sql::new(&text).bind(now_micros()));
    Ok(tx.exec(sql.bind(copy.template_id).bind(copy.store_id).bind(copy.path.as_str())).await? > 0)
}

/// Notes that work on a copy begins. False when it isn't wanted any more.
pub async fn begin(tx: &mut Tx, copy: &Copy) -> Result<bool> {
    write(tx, copy, "download_state = 'DOWNLOAD_IN_PROGRESS'", |sql| sql).await
}

/// Notes how far a copy is, and who works on it. False when it isn't wanted any more.
pub async fn progress(tx: &mut Tx, copy: &Copy, percent: i64, host: i64, hypervisor: &str) -> Result<bool> {
    write(tx, copy, "download_state = 'DOWNLOAD_IN_PROGRESS', percent = ?, host_id = ?, hypervisor = ?", |sql| {
        sql.bind(percent).bind(host).bind(hypervisor)
    })
    .await
}

/// Notes what a copy counts. False when it isn't wanted any more.
pub async fn hold(tx: &mut Tx, copy: &Copy, bytes: i64) -> Result<bool> {
    write(tx, copy, "held_bytes = ?", |sql| sql.bind(bytes)).await
}

/// Notes that a copy is there. False when it isn't wanted any more.
pub async fn ready(tx: &mut Tx, copy: &Copy, size: i64, physical: i64, sum: Option<&str>) -> Result<bool> {
    let set = "state = 'Ready', download_state = 'DOWNLOADED', percent = 100, error = NULL, size = ?, physical_size = ?, \
               held_bytes = ?, content_sum = ?";
    write(tx, copy, set, |sql| sql.bind(size).bind(physical).bind(physical).bind(sum)).await
}

/// Notes that a copy can't be made; it counts nothing. False when it isn't wanted any more.
pub async fn failed(tx: &mut Tx, copy: &Copy, error: &str) -> Result<bool> {
    let error: String = error.chars().take(1000).collect();
    let set = "state = 'Failed', download_state = 'DOWNLOAD_ERROR', held_bytes = 0, error = ?";
    write(tx, copy, set, |sql| sql.bind(error)).await
}

/// Forgets the copies of a template that only serve `zone`, or all, and notes that their images are to be deleted: those
/// that were still on their way only after `wait` µs, when nobody asks for them any more.
pub async fn remove(tx: &mut Tx, template: i64, zone: Option<i64>, wait: i64) -> Result<Vec<Copy>> {
    let gone: Vec<Copy> =
        of_template_in(tx, template).await?.into_iter().filter(|c| zone.is_none_or(|z| c.zone_id == Some(z))).collect();
    for copy in &gone {
        forget(tx, copy, wait).await?;
    }
    Ok(gone)
}

/// The same for one copy, when it is still the one that was made.
pub async fn remove_one(tx: &mut Tx, template: i64, made: &NewCopy, wait: i64) -> Result<()> {
    let found = of_template_in(tx, template).await?;
    match found.iter().find(|c| c.store_id == made.store_id && c.path == made.path) {
        Some(copy) => forget(tx, copy, wait).await,
        None => Ok(()),
    }
}

async fn forget(tx: &mut Tx, copy: &Copy, wait: i64) -> Result<()> {
    let sql = Sql::new("DELETE FROM template_store_refs WHERE template_id = ? AND store_id = ? AND path = ?")
        .bind(copy.template_id)
        .bind(copy.store_id)
        .bind(copy.path.as_str());
    tx.exec(sql).await?;
    let wait = if copy.is_ready() { 0 } else { wait };
    deletions::owe_image(tx, copy.store_id, &copy.path, copy.hypervisor.as_deref(), wait).await
}

/// Whether a template is ready in a zone.
pub async fn ready_in(tx: &mut Tx, template: i64, zone: i64) -> Result<bool> {
    let sql = Sql::new(
        "SELECT 1 FROM template_store_refs WHERE template_id = ? AND state = 'Ready' AND (zone_id = ? OR zone_id IS NULL)",
    )
    .bind(template)
    .bind(zone);
    Ok(tx.optional(sql).await?.is_some())
}

/// Whether a template has a copy, or gets one, that hosts of a zone reach.
pub async fn any_for(tx: &mut Tx, template: i64, zone: i64) -> Result<bool> {
    let sql = Sql::new(
        "SELECT 1 FROM template_store_refs WHERE template_id = ? AND state <> 'Failed' AND (zone_id = ? OR zone_id IS NULL)",
    )
    .bind(template)
    .bind(zone);
    Ok(tx.optional(sql).await?.is_some())
}

/// The content of the copies that are there, by their checksums, and their virtual size.
pub async fn content(tx: &mut Tx, template: i64) -> Result<Option<(Option<String>, i64)>> {
    let sql = Sql::new(
        "SELECT content_sum, size FROM template_store_refs WHERE template_id = ? AND state = 'Ready' ORDER BY created LIMIT 1",
    )
    .bind(template);
    tx.optional(sql).await?.map(|r| Ok((r.at(0)?, r.at(1)?))).transpose()
}
