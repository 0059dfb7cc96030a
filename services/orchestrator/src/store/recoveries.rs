//! Rows of `vm_recoveries`: VMs that ended by themselves and were started again.

use store::{Db, Result, Sql, Tx, now_micros};

/// A VM that had ended by itself was started again, with this generation.
pub async fn started(tx: &mut Tx, vm: i64, generation: i64) -> Result<()> {
    let now = now_micros();
    let sql = Sql::new("UPDATE vm_recoveries SET in_a_row = in_a_row + 1, generation = ?, started = ? WHERE vm_id = ?");
    if tx.exec(sql.bind(generation).bind(now).bind(vm)).await? > 0 {
        return Ok(());
    }
    let sql = Sql::new("INSERT INTO vm_recoveries (vm_id, in_a_row, generation, started) VALUES (?, 1, ?, ?)");
    tx.exec(sql.bind(vm).bind(generation).bind(now)).await.map(drop)
}

/// How often in a row the VM was started again, the last time with this generation and after `since` (UTC µs). Anything
/// older is forgotten: somebody else has started it since, or it has been well.
pub async fn in_a_row(tx: &mut Tx, vm: i64, generation: i64, since: i64) -> Result<i64> {
    let sql = Sql::new("SELECT in_a_row FROM vm_recoveries WHERE vm_id = ? AND generation = ? AND started > ?");
    match tx.optional(sql.bind(vm).bind(generation).bind(since)).await? {
        Some(row) => row.at(0),
        None => forget(tx, vm).await.map(|()| 0),
    }
}

/// The count begins anew.
pub async fn forget(tx: &mut Tx, vm: i64) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM vm_recoveries WHERE vm_id = ?").bind(vm)).await.map(drop)
}

/// Recoveries from before `before` (UTC µs) of VMs that don't wait for the next one: they are over.
const OVER: &str = "started < ? AND NOT EXISTS (SELECT 1 FROM vm_restarts w WHERE w.vm_id = vm_recoveries.vm_id)";

/// Whether there are any.
pub async fn any_over(db: &Db, before: i64) -> Result<bool> {
    let sql = Sql::new(&format!("SELECT vm_id FROM vm_recoveries WHERE {OVER} LIMIT 1"));
    Ok(db.optional(sql.bind(before)).await?.is_some())
}

/// Forgets them.
pub async fn forget_over(tx: &mut Tx, before: i64) -> Result<()> {
    tx.exec(Sql::new(&format!("DELETE FROM vm_recoveries WHERE {OVER}")).bind(before)).await.map(drop)
}
