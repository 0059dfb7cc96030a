//! Rows of `vm_moves`: what a VM that moves holds of a host beside what `vm_capacity` says. Before it has moved that is the
//! host where it goes, after it the one that it left.

use crate::placement::Amount;
use store::{Db, Result, Sql, Tx, now_micros};

/// Notes what a VM holds of the host where it goes.
pub async fn hold(tx: &mut Tx, vm: i64, host: i64, amount: Amount) -> Result<()> {
    let sql = Sql::new("INSERT INTO vm_moves (vm_id, host_id, cpu_mhz, memory, taken) VALUES (?, ?, ?, ?, ?)")
        .bind(vm)
        .bind(host)
        .bind(amount.cpu_mhz)
        .bind(amount.memory)
        .bind(now_micros());
    tx.exec(sql).await.map(drop)
}

/// The VM moved: what it is at home with and what it holds beside change places. Gives whether it was so before.
pub async fn swap(tx: &mut Tx, vm: i64, source: i64, host: i64) -> Result<bool> {
    let home = Sql::new("UPDATE vm_capacity SET host_id = ? WHERE vm_id = ? AND host_id = ?");
    let beside = Sql::new("UPDATE vm_moves SET host_id = ? WHERE vm_id = ? AND host_id = ?");
    Ok(tx.exec(home.bind(host).bind(vm).bind(source)).await? == 1
        && tx.exec(beside.bind(source).bind(vm).bind(host)).await? == 1)
}

/// Forgets what a VM holds beside; gives it when this call did.
pub async fn drop_hold(tx: &mut Tx, vm: i64) -> Result<Option<(i64, Amount)>> {
    let sql = Sql::new("SELECT host_id, cpu_mhz, memory FROM vm_moves WHERE vm_id = ?");
    let Some(row) = tx.optional(sql.bind(vm)).await? else { return Ok(None) };
    let held = (row.at(0)?, Amount { cpu_mhz: row.at(1)?, memory: row.at(2)? });
    let dropped = tx.exec(Sql::new("DELETE FROM vm_moves WHERE vm_id = ?").bind(vm)).await? == 1;
    Ok(dropped.then_some(held))
}

/// Whether a disk of the VM lies on a host's own storage.
pub async fn is_local(db: &Db, vm: i64) -> Result<bool> {
    let sql = Sql::new(
        "SELECT 1 FROM volumes v JOIN storage_pools p ON p.id = v.pool_id WHERE v.vm_id = ? AND v.removed IS NULL \
         AND p.scope = 'HOST' LIMIT 1",
    );
    Ok(db.optional(sql.bind(vm)).await?.is_some())
}
