//! Copies of templates and ISOs on primary storage: which of them nothing needs. A template is needed by the volumes that were made
//! from it, an ISO by the VMs that have it in their CD drive and their ROOT volume on the pool.
//!
//! Who places a volume updates its pool's row before it looks whether the template lies there, and so does whoever removes a
//! copy before he looks for volumes: of the two, the later one sees the other.

use super::deletions::{self, Deletion};
use super::pools;
use store::{Db, Result, Sql, Tx, now_micros};

/// A copy that nothing has needed for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    pub template_id: i64,
    pub template_uuid: String,
    pub pool_id: i64,
    pub size: i64,
    pub since: i64,
}

const USED: &str = "(EXISTS (SELECT 1 FROM volumes v JOIN templates f ON f.id = v.template_id WHERE v.pool_id = template_pool_refs.pool_id \
     AND v.template_id = template_pool_refs.template_id AND v.removed IS NULL AND f.format <> 'ISO') \
     OR EXISTS (SELECT 1 FROM vms m JOIN volumes r ON r.vm_id = m.id WHERE m.iso_id = template_pool_refs.template_id \
     AND m.removed IS NULL AND r.kind = 'ROOT' AND r.removed IS NULL AND r.pool_id = template_pool_refs.pool_id))";

/// Notes which copies are used and which aren't, as of now.
pub async fn mark(tx: &mut Tx) -> Result<()> {
    let used = format!("UPDATE template_pool_refs SET unused_since = NULL WHERE unused_since IS NOT NULL AND {USED}");
    tx.exec(Sql::new(&used)).await?;
    let unused = format!("UPDATE template_pool_refs SET unused_since = ? WHERE unused_since IS NULL AND NOT {USED}");
    tx.exec(Sql::new(&unused).bind(now_micros())).await.map(drop)
}

/// Copies that have been unused for `micros`.
pub async fn unused(db: &Db, micros: i64, most: i64) -> Result<Vec<Unused>> {
    let sql = Sql::new(
        "SELECT r.template_id, t.uuid, r.pool_id, r.size, r.unused_since FROM template_pool_refs r \
         JOIN templates t ON t.id = r.template_id JOIN storage_pools p ON p.id = r.pool_id \
         WHERE r.unused_since <= ? AND p.removed IS NULL AND p.state = 'Up' ORDER BY r.unused_since LIMIT ?",
    )
    .bind(now_micros() - micros)
    .bind(most);
    db.all(sql)
        .await?
        .iter()
        .map(|r| {
            Ok(Unused {
                template_id: r.at(0)?,
                template_uuid: r.at(1)?,
                pool_id: r.at(2)?,
                size: r.at(3)?,
                since: r.at(4)?,
            })
        })
        .collect()
}

/// Forgets a copy, gives its bytes back, and notes that it is to be deleted. False when a volume needs it after all.
pub async fn evict(tx: &mut Tx, copy: &Unused) -> Result<bool> {
    // First, as above.
    if !pools::hold(tx, copy.pool_id).await? {
        return Ok(false);
    }
    let sql = format!(
        "DELETE FROM template_pool_refs WHERE template_id = ? AND pool_id = ? AND unused_since = ? AND NOT {USED}"
    );
    let sql = Sql::new(&sql).bind(copy.template_id).bind(copy.pool_id).bind(copy.since);
    if tx.exec(sql).await? == 0 {
        return Ok(false);
    }
    pools::give_back(tx, copy.pool_id, copy.size).await?;
    let debt = Deletion {
        volume_uuid: copy.template_uuid.clone(),
        pool_id: copy.pool_id,
        path: debt(copy.template_id, copy.pool_id),
        ended_vm: None,
        tries: 0,
    };
    deletions::owe(tx, &debt, 0).await?;
    Ok(true)
}

/// The name of the debt of a copy: it isn't that of its file, which is the same on all pools.
pub fn debt(template: i64, pool: i64) -> String {
    format!("{DEBT}{pool}/{template}")
}

const DEBT: &str = "template/";

/// Whether a debt is that of a template's copy.
pub fn is_copy(path: &str) -> bool {
    path.starts_with(DEBT)
}

/// Whether a template lies on a pool; then it is needed again from now on.
pub async fn keep(tx: &mut Tx, template: i64, pool: i64) -> Result<bool> {
    if !lies(tx, template, pool).await? {
        return Ok(false);
    }
    let sql = Sql::new(
        "UPDATE template_pool_refs SET unused_since = NULL WHERE template_id = ? AND pool_id = ? AND unused_since IS NOT NULL",
    );
    tx.exec(sql.bind(template).bind(pool)).await?;
    Ok(true)
}

/// Whether a template lies on a pool.
pub async fn lies(tx: &mut Tx, template: i64, pool: i64) -> Result<bool> {
    let sql = Sql::new("SELECT 1 FROM template_pool_refs WHERE template_id = ? AND pool_id = ?");
    Ok(tx.optional(sql.bind(template).bind(pool)).await?.is_some())
}
