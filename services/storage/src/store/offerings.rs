//! Disk offerings.

use crate::offering::{NewOffering, split_tags};
use contract::api::{Caller, RoleType};
use contract::{ApiError, Page};
use store::{Db, Result, Row, Sql, Tx, now_micros};

/// A disk offering.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferingRow {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub display_text: String,
    pub disk_size: i64,
    pub customized: bool,
    pub customized_iops: Option<bool>,
    pub min_iops: Option<i64>,
    pub max_iops: Option<i64>,
    pub snapshot_reserve: Option<i64>,
    pub tags: Option<String>,
    pub storage_type: String,
    pub provisioning_type: String,
    pub display: bool,
    pub bytes_read_rate: Option<i64>,
    pub bytes_write_rate: Option<i64>,
    pub iops_read_rate: Option<i64>,
    pub iops_write_rate: Option<i64>,
    pub cache_mode: Option<String>,
    pub domain_id: Option<i64>,
    pub domain_path: Option<String>,
    pub created: i64,
}

const COLUMNS: &str = "id, uuid, name, display_text, disk_size, customized, customized_iops, min_iops, max_iops, \
     hypervisor_snapshot_reserve, tags, storage_type, provisioning_type, display_offering, bytes_read_rate, bytes_write_rate, \
     iops_read_rate, iops_write_rate, cache_mode, domain_id, domain_path, created";

impl OfferingRow {
    fn read(r: &Row) -> Result<OfferingRow> {
        Ok(OfferingRow {
            id: r.at(0)?,
            uuid: r.at(1)?,
            name: r.at(2)?,
            display_text: r.at(3)?,
            disk_size: r.at(4)?,
            customized: r.at(5)?,
            customized_iops: r.at(6)?,
            min_iops: r.at(7)?,
            max_iops: r.at(8)?,
            snapshot_reserve: r.at(9)?,
            tags: r.at(10)?,
            storage_type: r.at(11)?,
            provisioning_type: r.at(12)?,
            display: r.at(13)?,
            bytes_read_rate: r.at(14)?,
            bytes_write_rate: r.at(15)?,
            iops_read_rate: r.at(16)?,
            iops_write_rate: r.at(17)?,
            cache_mode: r.at(18)?,
            domain_id: r.at(19)?,
            domain_path: r.at(20)?,
            created: r.at(21)?,
        })
    }

    /// Its tags.
    pub fn tag_list(&self) -> Vec<String> {
        split_tags(self.tags.as_deref().unwrap_or_default()).map(str::to_owned).collect()
    }

    /// Whether its disks lie on the host itself.
    pub fn local(&self) -> bool {
        self.storage_type == "local"
    }

    /// Whether `caller` may use it for something in the domain with this id path.
    pub fn usable_in(&self, caller: &Caller, domain_path: &str) -> bool {
        match &self.domain_path {
            None => true,
            Some(path) => caller.is_root_admin() || domain_path.starts_with(path.as_str()),
        }
    }
}

/// The living offering with this number.
pub async fn find(db: &Db, id: i64) -> Result<Option<OfferingRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM disk_offerings WHERE removed IS NULL AND id = ?")).bind(id);
    db.optional(sql).await?.as_ref().map(OfferingRow::read).transpose()
}

/// The offerings with these numbers, removed ones included.
pub async fn by_ids(db: &Db, ids: &[i64]) -> Result<Vec<OfferingRow>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM disk_offerings WHERE ")).in_list("id", ids.iter().copied());
    db.all(sql).await?.iter().map(OfferingRow::read).collect()
}

/// What a list asks for.
#[derive(Clone, Debug, Default)]
pub struct Query<'a> {
    pub id: Option<i64>,
    pub name: Option<&'a str>,
    pub keyword: Option<&'a str>,
    pub domain: Option<(i64, &'a str)>,
    pub recursive: bool,
}

/// A page of the offerings that `caller` may see: public ones, and those of the domains above and (for administrators)
/// below its own.
pub async fn list(
    db: &Db,
    caller: &Caller,
    q: &Query<'_>,
    page: Page,
) -> std::result::Result<(Vec<OfferingRow>, i64), ApiError> {
    let above: Vec<i64> = caller.domain_path.split('/').filter_map(|part| part.parse().ok()).collect();
    let body = |sql: Sql| {
        let mut sql = sql
            .push(" FROM disk_offerings WHERE removed IS NULL")
            .push_if(" AND id = ?", q.id)
            .push_if(" AND name = ?", q.name);
        if let Some(word) = q.keyword {
            sql = sql.push(" AND ").contains("name_lower", &word.to_lowercase());
        }
        if let Some((id, path)) = q.domain {
            sql = if q.recursive {
                sql.push(" AND domain_path >= ? AND domain_path < ?")
                    .bind(path)
                    .bind(format!("{}0", path.trim_end_matches('/')))
            } else {
                sql.push(" AND domain_id = ?").bind(id)
            };
        }
        if caller.role() == RoleType::Admin {
            return sql;
        }
        sql = sql.push(" AND display_offering = 1 AND (domain_id IS NULL OR ").in_list("domain_id", above.clone());
        if caller.is_admin() {
            sql = sql
                .push(" OR (domain_path >= ? AND domain_path < ?)")
                .bind(caller.domain_path.as_str())
                .bind(format!("{}0", caller.domain_path.trim_end_matches('/')));
        }
        sql.push(")")
    };
    let (rows, count) = super::page(db, COLUMNS, body, "sort_key, id", page).await?;
    Ok((rows.iter().map(OfferingRow::read).collect::<Result<_>>()?, count))
}

/// Writes an offering; `unique_name` is for seeded ones.
pub async fn insert(
    tx: &mut Tx,
    id: i64,
    uuid: &str,
    unique_name: Option<&str>,
    o: &NewOffering,
) -> Result<OfferingRow> {
    let created = now_micros();
    let (domain_id, domain_path) = match &o.domain {
        Some((id, path)) => (Some(*id), Some(path.clone())),
        None => (None, None),
    };
    tx.exec(
        Sql::new(
            "INSERT INTO disk_offerings (id, uuid, name, name_lower, unique_name, display_text, disk_size, customized, \
             customized_iops, min_iops, max_iops, hypervisor_snapshot_reserve, tags, storage_type, provisioning_type, \
             display_offering, bytes_read_rate, bytes_write_rate, iops_read_rate, iops_write_rate, domain_id, domain_path, \
             sort_key, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
        )
        .bind(id)
        .bind(uuid)
        .bind(o.name.as_str())
        .bind(o.name.to_lowercase())
        .bind(unique_name)
        .bind(o.display_text.as_str())
        .bind(o.disk_size)
        .bind(o.customized)
        .bind(o.customized_iops)
        .bind(o.min_iops)
        .bind(o.max_iops)
        .bind(o.snapshot_reserve)
        .bind(o.tags.as_deref())
        .bind(o.storage_type.as_str())
        .bind(o.provisioning_type.as_str())
        .bind(o.display)
        .bind(o.bytes_read_rate)
        .bind(o.bytes_write_rate)
        .bind(o.iops_read_rate)
        .bind(o.iops_write_rate)
        .bind(domain_id)
        .bind(domain_path)
        .bind(created),
    )
    .await?;
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM disk_offerings WHERE id = ?")).bind(id);
    OfferingRow::read(&tx.one(sql).await?)
}

/// What updateDiskOffering changes.
#[derive(Clone, Debug, Default)]
pub struct Change<'a> {
    pub name: Option<&'a str>,
    pub display_text: Option<&'a str>,
    pub sort_key: Option<i64>,
    pub display: Option<bool>,
}

/// Changes a living offering; none when it is gone.
pub async fn update(tx: &mut Tx, id: i64, change: &Change<'_>) -> Result<Option<OfferingRow>> {
    let lower = change.name.map(str::to_lowercase);
    let sql = Sql::new("UPDATE disk_offerings SET id = id")
        .push_if(", name = ?", change.name)
        .push_if(", name_lower = ?", lower)
        .push_if(", display_text = ?", change.display_text)
        .push_if(", sort_key = ?", change.sort_key)
        .push_if(", display_offering = ?", change.display)
        .push(" WHERE removed IS NULL AND id = ?")
        .bind(id);
    if tx.exec(sql).await? == 0 {
        return Ok(None);
    }
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM disk_offerings WHERE id = ?")).bind(id);
    OfferingRow::read(&tx.one(sql).await?).map(Some)
}

/// Removes an offering; volumes that were made from it keep showing it. False when it is gone already.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql =
        Sql::new("UPDATE disk_offerings SET removed = ? WHERE removed IS NULL AND id = ?").bind(now_micros()).bind(id);
    Ok(tx.exec(sql).await? > 0)
}
