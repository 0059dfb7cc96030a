//! Routers that are stopped, started and moved: rows. Whatever takes a router from its host raises its epoch, so that
//! nothing of what its host had is recorded later.

use super::routers::{self, Router};
use contract_infra::PickHostResponse;
use store::{Result, Sql, Tx, now_micros};

/// State while its host gives it up.
pub const STOPPING: &str = "Stopping";
/// State while no host has it. Its addresses stay.
pub const STOPPED: &str = "Stopped";

/// A router runs no more from here on, whether or not its host gave it up by now. False: it isn't on its way up, nor runs.
pub async fn stopping(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE routers SET state = 'Stopping', epoch = epoch + 1, applied = 0, touched = ? WHERE id = ? AND \
         state IN ('Starting', 'Running') AND removed IS NULL",
    );
    Ok(tx.exec(sql.bind(now_micros()).bind(id)).await? > 0)
}

/// A router that was on its way down is wanted again. False: it wasn't.
pub async fn unstop(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE routers SET state = 'Starting', epoch = epoch + 1, applied = 0, touched = ? WHERE id = ? AND \
         state = 'Stopping' AND removed IS NULL",
    );
    Ok(tx.exec(sql.bind(now_micros()).bind(id)).await? > 0)
}

/// A router is stopped. Its host is asked once more to drop it, whenever it can be asked. False: it wasn't on its way down.
pub async fn stopped(tx: &mut Tx, r: &Router) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE routers SET state = 'Stopped', host_id = NULL, epoch = epoch + 1, applied = 0, touched = ? WHERE id = ? AND \
         state = 'Stopping' AND removed IS NULL",
    );
    let done = tx.exec(sql.bind(now_micros()).bind(r.id)).await? > 0;
    if done && let Some(host) = r.host_id {
        routers::leave(tx, &r.uuid, host).await?;
    }
    Ok(done)
}

/// A router that is down, or has just been taken down, is wanted on a host. False: it isn't down any more.
pub async fn starting(tx: &mut Tx, r: &Router, host: &PickHostResponse) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE routers SET state = 'Starting', host_id = ?, pod_id = ?, cluster_id = ?, epoch = epoch + 1, applied = 0, \
         touched = ? WHERE id = ? AND state IN ('Stopping', 'Stopped') AND removed IS NULL",
    );
    let sql = sql.bind(host.host_id).bind(host.pod_id).bind(host.cluster_id).bind(now_micros()).bind(r.id);
    let done = tx.exec(sql).await? > 0;
    if done {
        if let Some(old) = r.host_id.filter(|old| *old != host.host_id) {
            routers::leave(tx, &r.uuid, old).await?;
        }
        routers::forget_leftover(tx, &r.uuid, host.host_id).await?;
    }
    Ok(done)
}

/// A start came to nothing: the router is down as before. False: it runs, or another wanted it meanwhile.
pub async fn unstart(tx: &mut Tx, r: &Router) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE routers SET state = 'Stopped', host_id = NULL, epoch = epoch + 1, applied = 0, touched = ? WHERE id = ? AND \
         epoch = ? AND state = 'Starting' AND removed IS NULL",
    );
    let done = tx.exec(sql.bind(now_micros()).bind(r.id).bind(r.epoch)).await? > 0;
    if done && let Some(host) = r.host_id {
        routers::leave(tx, &r.uuid, host).await?;
    }
    Ok(done)
}
