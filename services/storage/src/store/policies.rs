//! When snapshots of volumes are taken by themselves.

use contract::{ApiError, Page};
use model::Owner;
use store::{Db, Result, Row, Sql, Tx, now_micros};

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRow {
    pub id: i64,
    pub uuid: String,
    pub volume_id: i64,
    pub owner: Owner,
    pub kind: String,
    pub schedule: String,
    pub timezone: String,
    pub max_snaps: i64,
    pub display: bool,
    pub next_run: i64,
    pub removed: bool,
}

const COLUMNS: &str = "p.id, p.uuid, p.volume_id, p.account_id, p.domain_id, p.domain_path, p.kind, p.schedule, p.timezone, \
     p.max_snaps, p.display, p.next_run, p.removed";

impl PolicyRow {
    fn read(r: &Row) -> Result<PolicyRow> {
        Ok(PolicyRow {
            id: r.at(0)?,
            uuid: r.at(1)?,
            volume_id: r.at(2)?,
            owner: Owner { account_id: r.at(3)?, domain_id: r.at(4)?, domain_path: r.at(5)? },
            kind: r.at(6)?,
            schedule: r.at(7)?,
            timezone: r.at(8)?,
            max_snaps: r.at(9)?,
            display: r.at(10)?,
            next_run: r.at(11)?,
            removed: r.at::<Option<i64>>(12)?.is_some(),
        })
    }
}

/// The policy with this number, removed or not.
pub async fn find(db: &Db, id: i64) -> Result<Option<PolicyRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM snapshot_policies p WHERE p.id = ?")).bind(id);
    db.optional(sql).await?.as_ref().map(PolicyRow::read).transpose()
}

/// The living policy with this UUID.
pub async fn by_uuid(db: &Db, uuid: &str) -> Result<Option<PolicyRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM snapshot_policies p WHERE p.uuid = ? AND p.removed IS NULL"));
    db.optional(sql.bind(uuid)).await?.as_ref().map(PolicyRow::read).transpose()
}

/// The living policies with these numbers.
pub async fn by_ids_in(tx: &mut Tx, ids: &[i64]) -> Result<Vec<PolicyRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM snapshot_policies p WHERE p.removed IS NULL AND "))
        .in_list("p.id", ids.iter().copied());
    tx.all(sql.push(" ORDER BY p.id")).await?.iter().map(PolicyRow::read).collect()
}

/// The living policy of this kind of a volume.
pub async fn of_kind(tx: &mut Tx, volume: i64, kind: &str) -> Result<Option<PolicyRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM snapshot_policies p WHERE p.live_key = ?"));
    tx.optional(sql.bind(key(volume, kind))).await?.as_ref().map(PolicyRow::read).transpose()
}

fn key(volume: i64, kind: &str) -> String {
    format!("{volume}/{kind}")
}

/// Writes a policy. [`store::Error::Unique`] on `live_key` when the volume has one of this kind.
pub async fn insert(tx: &mut Tx, p: &PolicyRow) -> Result<()> {
    let now = now_micros();
    let sql = Sql::new(
        "INSERT INTO snapshot_policies (id, uuid, live_key, volume_id, account_id, domain_id, domain_path, kind, schedule, \
         timezone, max_snaps, display, next_run, created, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(p.id)
    .bind(p.uuid.as_str())
    .bind(key(p.volume_id, &p.kind))
    .bind(p.volume_id)
    .bind(p.owner.account_id)
    .bind(p.owner.domain_id)
    .bind(p.owner.domain_path.as_str())
    .bind(p.kind.as_str())
    .bind(p.schedule.as_str())
    .bind(p.timezone.as_str())
    .bind(p.max_snaps)
    .bind(p.display)
    .bind(p.next_run)
    .bind(now)
    .bind(now);
    tx.exec(sql).await.map(drop)
}

/// Gives a living policy another schedule. False when it is gone.
pub async fn update(tx: &mut Tx, p: &PolicyRow) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE snapshot_policies SET schedule = ?, timezone = ?, max_snaps = ?, display = ?, next_run = ?, changed = ? \
         WHERE id = ? AND removed IS NULL",
    )
    .bind(p.schedule.as_str())
    .bind(p.timezone.as_str())
    .bind(p.max_snaps)
    .bind(p.display)
    .bind(p.next_run)
    .bind(now_micros())
    .bind(p.id);
    Ok(tx.exec(sql).await? > 0)
}

/// Changes whether users see a living policy, and its UUID. [`store::Error::Unique`] on `uuid` when another has it. False when
/// it is gone.
pub async fn show(tx: &mut Tx, id: i64, display: Option<bool>, uuid: Option<&str>) -> Result<bool> {
    let sql = Sql::new("UPDATE snapshot_policies SET changed = ?")
        .bind(now_micros())
        .push_if(", display = ?", display)
        .push_if(", uuid = ?", uuid)
        .push(" WHERE id = ? AND removed IS NULL")
        .bind(id);
    Ok(tx.exec(sql).await? > 0)
}

/// Removes a policy; its snapshots stay. False when it is gone already.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    let now = now_micros();
    let sql = Sql::new(
        "UPDATE snapshot_policies SET removed = ?, changed = ?, live_key = NULL WHERE id = ? AND removed IS NULL",
    );
    Ok(tx.exec(sql.bind(now).bind(now).bind(id)).await? > 0)
}

/// A volume's policies have another owner.
pub async fn assign(tx: &mut Tx, volume: i64, to: &Owner) -> Result<()> {
    let sql = Sql::new(
        "UPDATE snapshot_policies SET account_id = ?, domain_id = ?, domain_path = ?, changed = ? WHERE volume_id = ? \
         AND removed IS NULL",
    );
    let sql = sql.bind(to.account_id).bind(to.domain_id).bind(&to.domain_path).bind(now_micros()).bind(volume);
    tx.exec(sql).await.map(drop)
}

/// Moves a policy on to its next time. False when somebody else did, or changed it, or it is gone.
pub async fn advance(tx: &mut Tx, id: i64, from: i64, to: i64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE snapshot_policies SET next_run = ?, changed = ? WHERE id = ? AND next_run = ? AND removed IS NULL",
    );
    Ok(tx.exec(sql.bind(to).bind(now_micros()).bind(id).bind(from)).await? > 0)
}

/// The policies that are due, longest first, but those with these numbers.
pub async fn due(db: &Db, but: &[i64], most: i64) -> Result<Vec<PolicyRow>> {
    let mut sql =
        Sql::new(&format!("SELECT {COLUMNS} FROM snapshot_policies p WHERE p.removed IS NULL AND p.next_run <= ?"))
            .bind(now_micros());
    if !but.is_empty() {
        sql = sql.push(" AND NOT ").in_list("p.id", but.iter().copied());
    }
    db.all(sql.push(" ORDER BY p.next_run LIMIT ?").bind(most)).await?.iter().map(PolicyRow::read).collect()
}

/// The µs until another policy is due; none: there is none.
pub async fn next(db: &Db) -> Result<Option<i64>> {
    let now = now_micros();
    let sql = Sql::new("SELECT MIN(next_run) FROM snapshot_policies WHERE removed IS NULL AND next_run > ?").bind(now);
    let at: Option<i64> = db.one(sql).await?.at(0)?;
    Ok(at.map(|at| at - now))
}

/// Living policies that have more snapshots than they keep, and how many more.
pub async fn over(db: &Db, most: i64) -> Result<Vec<(i64, i64)>> {
    let sql = Sql::new(
        "SELECT p.id, COUNT(*) - p.max_snaps FROM snapshot_policies p JOIN snapshots s ON s.policy_id = p.id \
         WHERE p.removed IS NULL AND s.removed IS NULL AND s.state = 'BackedUp' \
         GROUP BY p.id, p.max_snaps HAVING COUNT(*) > p.max_snaps ORDER BY p.id LIMIT ?",
    );
    db.all(sql.bind(most)).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

/// The oldest snapshots of a policy that are there.
pub async fn oldest(db: &Db, policy: i64, most: i64) -> Result<Vec<i64>> {
    let sql = Sql::new(
        "SELECT id FROM snapshots WHERE policy_id = ? AND removed IS NULL AND state = 'BackedUp' ORDER BY created, id LIMIT ?",
    );
    db.all(sql.bind(policy).bind(most)).await?.iter().map(|r| r.at(0)).collect()
}

/// What a list asks for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub volume: Option<i64>,
    pub id: Option<i64>,
    pub display: Option<bool>,
}

/// A page of living policies.
pub async fn list(db: &Db, q: &Query, page: Page) -> std::result::Result<(Vec<PolicyRow>, i64), ApiError> {
    let body = |sql: Sql| {
        sql.push(" FROM snapshot_policies p WHERE p.removed IS NULL")
            .push_if(" AND p.volume_id = ?", q.volume)
            .push_if(" AND p.id = ?", q.id)
            .push_if(" AND p.display = ?", q.display)
    };
    let (rows, count) = super::page(db, COLUMNS, body, "p.id", page).await?;
    Ok((rows.iter().map(PolicyRow::read).collect::<Result<_>>()?, count))
}

/// Whether a volume has been at rest since its last snapshot: it is in no running machine, and nothing was changed about it or
/// its machine after that.
pub async fn at_rest_since_snapshot(db: &Db, volume: i64) -> Result<bool> {
    let sql = Sql::new(
        "SELECT 1 FROM volumes v LEFT JOIN vms m ON m.id = v.vm_id WHERE v.id = ? AND (m.id IS NULL OR m.state <> 'Running') \
         AND EXISTS (SELECT 1 FROM snapshots s WHERE s.volume_id = v.id AND s.removed IS NULL AND s.state <> 'Error' \
         AND s.created > v.changed AND s.created > COALESCE(m.changed, 0))",
    );
    Ok(db.optional(sql.bind(volume)).await?.is_some())
}
