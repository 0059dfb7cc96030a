//! Templates, ISOs, and where their copies are.

use super::images::Site;
use crate::filter::Filter;
use contract::api::{Caller, RoleType};
use contract::{ApiError, Page};
use model::ListScope;
use std::collections::{HashMap, HashSet};
use store::{Db, Result, Row, Sql, Tx, now_micros};

/// A template or ISO.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateRow {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub display_text: String,
    pub account_id: i64,
    pub domain_id: i64,
    pub domain_path: String,
    pub is_public: bool,
    pub featured: bool,
    pub extractable: bool,
    pub cross_zones: bool,
    pub bootable: bool,
    pub password_enabled: bool,
    pub ssh_key_enabled: bool,
    pub dynamically_scalable: bool,
    pub direct_download: bool,
    pub format: String,
    pub hypervisor: String,
    pub template_type: String,
    pub os_type_id: i64,
    pub bits: i64,
    pub size: i64,
    pub physical_size: i64,
    pub checksum: Option<String>,
    pub template_tag: Option<String>,
    pub source_template_id: Option<i64>,
    pub created: i64,
    pub removed: Option<i64>,
}

pub(super) const COLUMNS: &str = "t.id, t.uuid, t.name, t.display_text, t.account_id, t.domain_id, t.domain_path, t.is_public, t.featured, \
     t.extractable, t.cross_zones, t.bootable, t.password_enabled, t.ssh_key_enabled, t.dynamically_scalable, \
     t.direct_download, t.format, t.hypervisor, t.template_type, t.os_type_id, t.bits, t.size, t.physical_size, t.checksum, \
     t.template_tag, t.source_template_id, t.created, t.removed";
const ZONE_COLUMN: usize = 28;

impl TemplateRow {
    pub(super) fn read(r: &Row) -> Result<TemplateRow> {
        Ok(TemplateRow {
            id: r.at(0)?,
            uuid: r.at(1)?,
            name: r.at(2)?,
            display_text: r.at(3)?,
            account_id: r.at(4)?,
            domain_id: r.at(5)?,
            domain_path: r.at(6)?,
            is_public: r.at(7)?,
            featured: r.at(8)?,
            extractable: r.at(9)?,
            cross_zones: r.at(10)?,
            bootable: r.at(11)?,
            password_enabled: r.at(12)?,
            ssh_key_enabled: r.at(13)?,
            dynamically_scalable: r.at(14)?,
            direct_download: r.at(15)?,
            format: r.at(16)?,
            hypervisor: r.at(17)?,
            template_type: r.at(18)?,
            os_type_id: r.at(19)?,
            bits: r.at(20)?,
            size: r.at(21)?,
            physical_size: r.at(22)?,
            checksum: r.at(23)?,
            template_tag: r.at(24)?,
            source_template_id: r.at(25)?,
            created: r.at(26)?,
            removed: r.at(27)?,
        })
    }

    /// Whether it is an ISO: disks of VMs that boot from it are empty.
    pub fn is_iso(&self) -> bool {
        self.format == "ISO"
    }
}

/// What a list asks for.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    pub iso: bool,
    pub filter: Filter,
    pub scope: ListScope,
    /// Whether an owner is named: then public ones of others are left out.
    pub owner_named: bool,
    pub ids: Vec<i64>,
    pub name: Option<&'a str>,
    pub keyword: Option<&'a str>,
    pub zone: Option<i64>,
    pub hypervisor: Option<&'a str>,
    pub show_removed: bool,
    pub bootable: Option<bool>,
    pub public: Option<bool>,
    pub ready: Option<bool>,
    pub tags: Vec<(String, String)>,
}

const READY: &str = "EXISTS (SELECT 1 FROM template_store_refs r WHERE r.template_id = t.id AND r.state = 'Ready' \
     AND (r.zone_id = z.zone_id OR r.zone_id IS NULL))";

/// A page of templates, each with a zone in which it is, in a stable order.
pub async fn list(
    db: &Db,
    caller: &Caller,
    q: &Query<'_>,
    page: Page,
) -> std::result::Result<(Vec<(TemplateRow, i64)>, i64), ApiError> {
    let tag_type = if q.iso { "ISO" } else { "Template" };
    let body = |sql: Sql| {
        let mut sql = sql.push(
            " FROM templates t JOIN template_zones z ON z.template_id = t.id JOIN zones dc ON dc.id = z.zone_id \
             WHERE dc.removed IS NULL AND t.state = 'Active'",
        );
        if !q.show_removed {
            sql = sql.push(" AND t.removed IS NULL AND z.removed IS NULL");
        }
        sql = sql.push(if q.iso { " AND t.format = 'ISO'" } else { " AND t.format <> 'ISO'" });
        sql = sql.push_if(" AND z.zone_id = ?", q.zone);
        sql = visible_zones(sql, caller);
        sql =
            if q.ids.is_empty() { filtered(sql, caller, q) } else { sql.push(" AND ").in_list("t.id", q.ids.clone()) };
        // A template that ships with the system is there for the hypervisors that a zone has.
        sql = sql.push(
            " AND (t.template_type <> 'BUILTIN' OR EXISTS (SELECT 1 FROM clusters c WHERE c.zone_id = z.zone_id \
             AND c.hypervisor = t.hypervisor AND c.removed IS NULL))",
        );
        sql = sql
            .push_if(" AND t.name = ?", q.name)
            .push_if(" AND t.hypervisor = ?", q.hypervisor)
            .push_if(" AND t.bootable = ?", q.bootable)
            .push_if(" AND t.is_public = ?", q.public);
        if let Some(word) = q.keyword {
            sql = sql.push(" AND ").contains("t.name_lower", &word.to_lowercase());
        }
        sql = match q.ready {
            Some(true) => sql.push(" AND ").push(READY),
            Some(false) => sql.push(" AND NOT ").push(READY),
            None => sql,
        };
        model::tags::filter(sql, tag_type, "t.id", &q.tags)
    };
    let columns = format!("{COLUMNS}, z.zone_id");
    let (rows, count) = super::page(db, &columns, body, "t.sort_key, t.id, z.zone_id", page).await?;
    let rows = rows.iter().map(|r| Ok((TemplateRow::read(r)?, r.at(ZONE_COLUMN)?))).collect::<Result<_>>()?;
    Ok((rows, count))
}

/// Zones that are dedicated to a domain are for its subtree.
fn visible_zones(sql: Sql, caller: &Caller) -> Sql {
    if caller.role() == RoleType::Admin {
        return sql;
    }
    let above: Vec<i64> = caller.domain_path.split('/').filter_map(|part| part.parse().ok()).collect();
    sql.push(" AND (dc.domain_id IS NULL OR ").in_list("dc.domain_id", above).push(")")
}

fn filtered(sql: Sql, caller: &Caller, q: &Query<'_>) -> Sql {
    let sql = match q.filter {
        Filter::Featured => sql.push(" AND t.is_public = 1 AND t.featured = 1"),
        Filter::Community => sql.push(" AND t.is_public = 1 AND t.featured = 0"),
        Filter::OwnAll | Filter::OwnExecutable => q.scope.and(sql, "t."),
        Filter::Shared => sql
            .push(" AND t.account_id <> ? AND EXISTS (SELECT 1 FROM template_shares sh WHERE sh.template_id = t.id AND sh.account_id = ?)")
            .bind(caller.account_id)
            .bind(caller.account_id),
        Filter::Executable if !q.owner_named => {
            let sql = sql.push(" AND (t.is_public = 1 OR (1 = 1");
            model::scope::widest(caller).and(sql, "t.").push("))")
        }
        Filter::Executable => q.scope.and(sql, "t."),
        Filter::All => q.scope.and(sql, "t."),
    };
    if !q.filter.only_ready() {
        return sql;
    }
    // 4.11: what only the system boots is no template for users.
    sql.push(" AND t.template_type <> 'SYSTEM' AND ").push(READY)
}

/// The details of templates.
pub async fn details(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, HashMap<String, String>>> {
    let ids: HashSet<i64> = ids.into_iter().collect();
    let mut found: HashMap<i64, HashMap<String, String>> = HashMap::new();
    if ids.is_empty() {
        return Ok(found);
    }
    for r in db
        .all(Sql::new("SELECT template_id, name, value FROM template_details WHERE ").in_list("template_id", ids))
        .await?
    {
        found.entry(r.at(0)?).or_default().insert(r.at(1)?, r.at(2)?);
    }
    Ok(found)
}

/// A template and the copy that a zone's hosts fetch it from.
#[derive(Clone, Debug)]
pub struct Source {
    pub template: TemplateRow,
    /// The store and the path in it; none when no store of the zone has it.
    pub copy: Option<(Site, String)>,
}

/// The living template with this number, with its copy in `zone`: in a store of the zone's own where there is one.
pub async fn source(db: &Db, id: i64, zone: i64) -> Result<Option<Source>> {
    let sql = Sql::new(&format!(
        "SELECT {COLUMNS}, s.id, s.uuid, s.url, s.details_sealed, r.path FROM templates t \
         LEFT JOIN template_store_refs r ON r.template_id = t.id AND r.state = 'Ready' AND (r.zone_id = ? OR r.zone_id IS NULL) \
         LEFT JOIN image_stores s ON s.id = r.store_id AND s.removed IS NULL \
         WHERE t.id = ? AND t.removed IS NULL ORDER BY s.id IS NULL, r.zone_id IS NULL, r.store_id DESC"
    ))
    .bind(zone)
    .bind(id);
    let Some(r) = db.optional(sql).await? else {
        return Ok(None);
    };
    let copy = match (r.at::<Option<i64>>(28)?, r.at::<Option<String>>(32)?) {
        (Some(id), Some(path)) => Some((Site { id, uuid: r.at(29)?, url: r.at(30)?, details_sealed: r.at(31)? }, path)),
        _ => None,
    };
    Ok(Some(Source { template: TemplateRow::read(&r)?, copy }))
}

/// A template as lists show it: once for each of these zones.
pub async fn in_zones(db: &Db, id: i64, zones: &[i64]) -> Result<Vec<(TemplateRow, i64)>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM templates t WHERE t.id = ?")).bind(id);
    let Some(r) = db.optional(sql).await? else { return Ok(Vec::new()) };
    let row = TemplateRow::read(&r)?;
    Ok(zones.iter().map(|zone| (row.clone(), *zone)).collect())
}

/// What volumes show of their template.
#[derive(Clone, Debug)]
pub struct Label {
    pub uuid: String,
    pub name: String,
    pub display_text: String,
    pub iso: bool,
    pub extractable: bool,
}

/// What volumes show of templates, removed ones included.
pub async fn labels(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, Label>> {
    let ids: HashSet<i64> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    db.all(
        Sql::new("SELECT id, uuid, name, display_text, format, extractable FROM templates WHERE ").in_list("id", ids),
    )
    .await?
    .iter()
    .map(|r| {
        let iso = r.at::<String>(4)? == "ISO";
        Ok((r.at(0)?, Label { uuid: r.at(1)?, name: r.at(2)?, display_text: r.at(3)?, iso, extractable: r.at(5)? }))
    })
    .collect()
}

/// A template that ships with the system.
#[derive(Clone, Debug)]
pub struct Builtin {
    pub id: i64,
    pub unique_name: &'static str,
    pub name: &'static str,
    pub format: &'static str,
    pub hypervisor: &'static str,
    pub os_type_id: i64,
    pub bits: i64,
    pub size: i64,
}

/// Writes a template that ships with the system: public, featured, in all zones.
pub async fn insert_builtin(tx: &mut Tx, uuid: &str, b: &Builtin) -> Result<()> {
    tx.exec(
        Sql::new(
            "INSERT INTO templates (id, uuid, name, name_lower, unique_name, display_text, account_id, domain_id, domain_path, \
             is_public, featured, extractable, cross_zones, bootable, password_enabled, ssh_key_enabled, dynamically_scalable, \
             direct_download, requires_hvm, format, hypervisor, template_type, os_type_id, bits, size, physical_size, state, \
             sort_key, created) VALUES (?, ?, ?, ?, ?, ?, 1, 1, '/1/', 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, ?, ?, 'BUILTIN', ?, ?, ?, \
             ?, 'Active', 0, ?)",
        )
        .bind(b.id)
        .bind(uuid)
        .bind(b.name)
        .bind(b.name.to_lowercase())
        .bind(b.unique_name)
        .bind(b.name)
        .bind(b.format)
        .bind(b.hypervisor)
        .bind(b.os_type_id)
        .bind(b.bits)
        .bind(b.size)
        .bind(b.size)
        .bind(now_micros()),
    )
    .await
    .map(drop)
}

/// Puts the templates that ship with the system into a zone whose image store has just been added. Those of simulated
/// hosts need no download: they are ready at once.
pub async fn offer_builtins(tx: &mut Tx, zone: i64, store: i64) -> Result<()> {
    let builtins = tx
        .all(Sql::new(
            "SELECT id, unique_name, size, physical_size, format FROM templates \
             WHERE template_type = 'BUILTIN' AND hypervisor = 'Simulator' AND removed IS NULL AND cross_zones = 1",
        ))
        .await?;
    for t in builtins {
        let id: i64 = t.at(0)?;
        offer(tx, id, zone).await?;
        let path = format!("template/tmpl/1/{id}/{}.{}", t.at::<String>(1)?, t.at::<String>(4)?.to_lowercase());
        tx.exec(
            Sql::new(
                "INSERT INTO template_store_refs (template_id, store_id, zone_id, state, download_state, path, size, \
                 physical_size, created) VALUES (?, ?, ?, 'Ready', 'DOWNLOADED', ?, ?, ?, ?)",
            )
            .bind(id)
            .bind(store)
            .bind(zone)
            .bind(path)
            .bind(t.at::<i64>(2)?)
            .bind(t.at::<i64>(3)?)
            .bind(now_micros()),
        )
        .await?;
    }
    Ok(())
}

/// Puts a template into a zone; once is enough.
pub async fn offer(tx: &mut Tx, template: i64, zone: i64) -> Result<()> {
    let back = Sql::new("UPDATE template_zones SET removed = NULL WHERE template_id = ? AND zone_id = ?")
        .bind(template)
        .bind(zone);
    if tx.exec(back).await? > 0 {
        return Ok(());
    }
    let sql = Sql::new("INSERT INTO template_zones (template_id, zone_id, created) VALUES (?, ?, ?)")
        .bind(template)
        .bind(zone)
        .bind(now_micros());
    match tx.exec(sql).await {
        Ok(_) | Err(store::Error::Unique { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}
