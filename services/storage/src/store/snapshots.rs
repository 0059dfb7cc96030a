//! Snapshots of volumes.

use contract::{ApiError, Page};
use model::{ListScope, Owner};
use std::collections::{HashMap, HashSet};
use store::{Db, Result, Row, Sql, Tx, now_micros};

/// Waiting for its job.
pub const ALLOCATED: &str = "Allocated";
/// On secondary storage.
pub const BACKED_UP: &str = "BackedUp";
/// It couldn't be made.
pub const ERROR: &str = "Error";

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub owner: Owner,
    pub zone_id: i64,
    pub volume_id: i64,
    pub kind: String,
    pub state: String,
    /// Bytes of the disk.
    pub size: i64,
    /// Bytes of the file; 0 before it is there.
    pub physical_size: i64,
    /// Bytes that it counts.
    pub held_bytes: i64,
    pub hypervisor: String,
    pub format: String,
    pub store_id: i64,
    pub path: String,
    pub host_id: Option<i64>,
    pub created: i64,
    pub removed: bool,
    /// The policy that wanted it.
    pub policy_id: Option<i64>,
}

const COLUMNS: &str = "s.id, s.uuid, s.name, s.account_id, s.domain_id, s.domain_path, s.zone_id, s.volume_id, s.kind, s.state, \
     s.size, s.physical_size, s.held_bytes, s.hypervisor, s.format, s.store_id, s.path, s.host_id, s.created, s.removed, s.policy_id";

impl SnapshotRow {
    fn read(r: &Row) -> Result<SnapshotRow> {
        Ok(SnapshotRow {
            id: r.at(0)?,
            uuid: r.at(1)?,
            name: r.at(2)?,
            owner: Owner { account_id: r.at(3)?, domain_id: r.at(4)?, domain_path: r.at(5)? },
            zone_id: r.at(6)?,
            volume_id: r.at(7)?,
            kind: r.at(8)?,
            state: r.at(9)?,
            size: r.at(10)?,
            physical_size: r.at(11)?,
            held_bytes: r.at(12)?,
            hypervisor: r.at(13)?,
            format: r.at(14)?,
            store_id: r.at(15)?,
            path: r.at(16)?,
            host_id: r.at(17)?,
            created: r.at(18)?,
            removed: r.at::<Option<i64>>(19)?.is_some(),
            policy_id: r.at(20)?,
        })
    }

    /// Whether it is on secondary storage.
    pub fn is_there(&self) -> bool {
        self.state == BACKED_UP && !self.removed
    }
}

/// The snapshot with this number, removed or not.
pub async fn find(db: &Db, id: i64) -> Result<Option<SnapshotRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM snapshots s WHERE s.id = ?")).bind(id);
    db.optional(sql).await?.as_ref().map(SnapshotRow::read).transpose()
}

/// The same, within a transaction.
pub async fn find_in(tx: &mut Tx, id: i64) -> Result<Option<SnapshotRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM snapshots s WHERE s.id = ?")).bind(id);
    tx.optional(sql).await?.as_ref().map(SnapshotRow::read).transpose()
}

/// Writes a snapshot.
pub async fn insert(tx: &mut Tx, s: &SnapshotRow) -> Result<()> {
    tx.exec(
        Sql::new(
            "INSERT INTO snapshots (id, uuid, name, name_lower, account_id, domain_id, domain_path, zone_id, volume_id, kind, state, \
             size, physical_size, held_bytes, hypervisor, format, store_id, path, policy_id, created, changed) VALUES (?, ?, ?, ?, ?, \
             ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(s.id)
        .bind(s.uuid.as_str())
        .bind(s.name.as_str())
        .bind(s.name.to_lowercase())
        .bind(s.owner.account_id)
        .bind(s.owner.domain_id)
        .bind(s.owner.domain_path.as_str())
        .bind(s.zone_id)
        .bind(s.volume_id)
        .bind(s.kind.as_str())
        .bind(s.state.as_str())
        .bind(s.size)
        .bind(s.physical_size)
        .bind(s.held_bytes)
        .bind(s.hypervisor.as_str())
        .bind(s.format.as_str())
        .bind(s.store_id)
        .bind(s.path.as_str())
        .bind(s.policy_id)
        .bind(s.created)
        .bind(s.created),
    )
    .await
    .map(drop)
}

/// Notes that its job begins. False when it isn't waiting for that.
pub async fn begin(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new("UPDATE snapshots SET state = 'Creating', changed = ? WHERE id = ? AND state = 'Allocated'");
    Ok(tx.exec(sql.bind(now_micros()).bind(id)).await? > 0)
}

/// Notes which host copies it. False when it isn't wanted any more.
pub async fn progress(tx: &mut Tx, id: i64, host: i64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE snapshots SET state = 'BackingUp', host_id = ?, changed = ? WHERE id = ? AND state IN ('Creating', 'BackingUp')",
    );
    Ok(tx.exec(sql.bind(host).bind(now_micros()).bind(id)).await? > 0)
}

/// What was found where a snapshot is now.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Bytes of the disk.
    pub size: i64,
    /// Bytes of the file.
    pub physical: i64,
    /// Checksum of the file.
    pub sum: Option<&'a str>,
}

/// Notes that it is there. False when it isn't wanted any more.
pub async fn backed_up(tx: &mut Tx, id: i64, found: Found<'_>) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE snapshots SET state = 'BackedUp', size = ?, physical_size = ?, held_bytes = ?, content_sum = ?, changed = ? \
         WHERE id = ? AND state IN ('Creating', 'BackingUp')",
    )
    .bind(found.size)
    .bind(found.physical)
    .bind(found.physical)
    .bind(found.sum)
    .bind(now_micros())
    .bind(id);
    Ok(tx.exec(sql).await? > 0)
}

/// Notes that it can't be made: it counts nothing then. False when it is neither waiting nor being made.
pub async fn failed(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE snapshots SET state = 'Error', held_bytes = 0, changed = ? \
         WHERE id = ? AND state IN ('Allocated', 'Creating', 'BackingUp')",
    );
    Ok(tx.exec(sql.bind(now_micros()).bind(id)).await? > 0)
}

/// Marks it as removed. False when it is removed, or being made.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    let now = now_micros();
    let sql = Sql::new(
        "UPDATE snapshots SET state = 'Destroyed', removed = ?, changed = ? \
         WHERE id = ? AND removed IS NULL AND state IN ('BackedUp', 'Error')",
    );
    Ok(tx.exec(sql.bind(now).bind(now).bind(id)).await? > 0)
}

/// Whether a volume has snapshots: those that failed don't count.
pub async fn any_of(tx: &mut Tx, volume: i64) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM snapshots WHERE volume_id = ? AND removed IS NULL AND state <> 'Error' LIMIT 1");
    Ok(tx.optional(sql.bind(volume)).await?.is_some())
}

/// Whether snapshots lie, or come to lie, on an image store.
pub async fn any_on(tx: &mut Tx, store: i64) -> Result<bool> {
    let sql =
        Sql::new("SELECT 1 FROM snapshots WHERE store_id = ? AND removed IS NULL AND state <> 'Error'").bind(store);
    Ok(tx.optional(sql).await?.is_some())
}

/// What a list asks for.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    pub scope: ListScope,
    pub ids: Vec<i64>,
    pub name: Option<&'a str>,
    pub keyword: Option<&'a str>,
    /// One of these kinds; empty: any.
    pub kinds: Vec<&'static str>,
    pub volume: Option<i64>,
    pub zone: Option<i64>,
    pub tags: Vec<(String, String)>,
}

/// A page of living snapshots.
pub async fn list(db: &Db, q: &Query<'_>, page: Page) -> std::result::Result<(Vec<SnapshotRow>, i64), ApiError> {
    let body = |sql: Sql| {
        let mut sql = sql.push(" FROM snapshots s WHERE s.removed IS NULL");
        if !q.ids.is_empty() {
            sql = sql.push(" AND ").in_list("s.id", q.ids.clone());
        }
        if !q.kinds.is_empty() {
            sql = sql.push(" AND ").in_list("s.kind", q.kinds.iter().copied());
        }
        sql = sql
            .push_if(" AND s.name = ?", q.name)
            .push_if(" AND s.volume_id = ?", q.volume)
            .push_if(" AND s.zone_id = ?", q.zone);
        if let Some(word) = q.keyword {
            sql = sql.push(" AND ").contains("s.name_lower", &word.to_lowercase());
        }
        model::tags::filter(q.scope.and(sql, "s."), "Snapshot", "s.id", &q.tags)
    };
    let (rows, count) = super::page(db, COLUMNS, body, "s.id", page).await?;
    Ok((rows.iter().map(SnapshotRow::read).collect::<Result<_>>()?, count))
}

/// UUIDs of snapshots, removed ones included.
pub async fn uuids(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, String>> {
    let ids: HashSet<i64> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = db.all(Sql::new("SELECT id, uuid FROM snapshots WHERE ").in_list("id", ids)).await?;
    rows.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

/// What a snapshot shows of its volume.
#[derive(Clone, Debug)]
pub struct Of {
    pub uuid: String,
    pub name: String,
    pub kind: String,
    /// The OS type of what a ROOT disk was made from.
    pub os_type_id: Option<i64>,
    pub removed: bool,
}

/// What snapshots show of their volumes, removed ones included.
pub async fn volumes(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, Of>> {
    let ids: HashSet<i64> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = Sql::new(
        "SELECT v.id, v.uuid, v.name, v.kind, t.os_type_id, v.removed FROM volumes v \
         LEFT JOIN templates t ON t.id = v.template_id AND v.kind = 'ROOT' WHERE ",
    );
    let rows = db.all(sql.in_list("v.id", ids)).await?;
    rows.iter()
        .map(|r| {
            let removed = r.at::<Option<i64>>(5)?.is_some();
            Ok((r.at(0)?, Of { uuid: r.at(1)?, name: r.at(2)?, kind: r.at(3)?, os_type_id: r.at(4)?, removed }))
        })
        .collect()
}
