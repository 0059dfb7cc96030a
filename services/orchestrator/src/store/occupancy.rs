//! What an account has on hosts, and who is there beside it: for planners that mind it. Reads only, but for the turns.

use super::Reader;
use crate::placement::{Mine, Mode, Planner};
use std::collections::{BTreeMap, BTreeSet};
use store::{Result, Row, Sql, Tx};

/// Rows of `placement_turns`.
const SLOTS: i64 = 64;

/// Until `tx` ends nobody else places a VM of the account by looking at what it has: what is read now stays so.
pub async fn turn(tx: &mut Tx, account: i64) -> Result<()> {
    let sql = Sql::new("UPDATE placement_turns SET touched = touched + 1 WHERE slot = ?");
    tx.exec(sql.bind(account.rem_euclid(SLOTS))).await.map(drop)
}

/// The planner that an offering names, and how strictly it dedicates.
pub async fn planner_of(from: impl Reader, offering: i64) -> Result<(Option<String>, Option<String>)> {
    let sql = Sql::new(
        "SELECT o.deployment_planner, d.value FROM service_offerings o LEFT JOIN infra_details d \
         ON d.resource_type = 'ServiceOffering' AND d.resource_id = o.id AND d.name = ? WHERE o.id = ?",
    )
    .bind(Mode::DETAIL)
    .bind(offering);
    let found = from.rows(sql).await?;
    found.first().map_or(Ok((None, None)), |r| Ok((r.at(0)?, r.at(1)?)))
}

/// Where the account's VMs are in a zone, `vm` left out.
pub async fn of_account(from: impl Reader, account: i64, zone: i64, vm: i64) -> Result<Mine> {
    let sql = Sql::new(
        "SELECT host_id, cluster_id, pod_id, COUNT(*) FROM vms WHERE account_id = ? AND removed IS NULL AND zone_id = ? \
         AND host_id IS NOT NULL AND id <> ? GROUP BY host_id, cluster_id, pod_id",
    )
    .bind(account)
    .bind(zone)
    .bind(vm);
    let mut mine = Mine::default();
    for r in from.rows(sql).await? {
        let n: i64 = r.at(3)?;
        *mine.hosts.entry(r.at(0)?).or_default() += n;
        if let Some(cluster) = r.at(1)? {
            *mine.clusters.entry(cluster).or_default() += n;
        }
        if let Some(pod) = r.at(2)? {
            *mine.pods.entry(pod).or_default() += n;
        }
    }
    Ok(mine)
}

/// What is on hosts: VMs that hold room there, or come there, or were stopped there after `since`. `hosts` ends in a condition on
/// a column of that name.
fn present(hosts: impl Fn(Sql, &str) -> Sql, since: i64) -> Sql {
    let mut sql = Sql::new("SELECT p.host_id, p.id, p.account_id, o.deployment_planner FROM (");
    for table in ["vm_capacity", "vm_moves"] {
        sql = sql.push("SELECT c.host_id, v.id, v.account_id, v.service_offering_id FROM ").push(table);
        sql = hosts(sql.push(" c JOIN vms v ON v.id = c.vm_id WHERE "), "c.host_id").push(" UNION ALL ");
    }
    sql = sql.push("SELECT v.last_host_id AS host_id, v.id, v.account_id, v.service_offering_id FROM vms v WHERE ");
    hosts(sql, "v.last_host_id")
        .push(" AND v.state = 'Stopped' AND v.host_id IS NULL AND v.removed IS NULL AND v.changed > ?")
        .bind(since)
        .push(") p JOIN service_offerings o ON o.id = p.service_offering_id")
}

/// Whether a row of [`present`] is the account's, of an offering with implicit dedication.
fn is_own(r: &Row, account: i64) -> Result<bool> {
    let planner: Option<String> = r.at(3)?;
    Ok(r.at::<i64>(2)? == account && planner.as_deref() == Some(Planner::ImplicitDedication.name()))
}

/// The hosts that the account has for itself: where it has VMs, and all of them by implicit dedication.
pub async fn own(from: impl Reader, account: i64, vm: i64, since: i64) -> Result<BTreeSet<i64>> {
    let hosts = |sql: Sql, column: &str| {
        sql.push(column)
            .push(
                " IN (SELECT w.host_id FROM vms w WHERE w.account_id = ? AND w.removed IS NULL AND w.host_id IS NOT NULL \
                 UNION SELECT w.last_host_id FROM vms w WHERE w.account_id = ? AND w.removed IS NULL AND w.state = 'Stopped' \
                 AND w.last_host_id IS NOT NULL)",
            )
            .bind(account)
            .bind(account)
    };
    let mut found: BTreeMap<i64, bool> = BTreeMap::new();
    for r in from.rows(present(hosts, since)).await? {
        if r.at::<i64>(1)? != vm {
            let own = is_own(&r, account)?;
            *found.entry(r.at(0)?).or_insert(true) &= own;
        }
    }
    Ok(found.into_iter().filter(|(_, own)| *own).map(|(host, _)| host).collect())
}

/// Hosts of a zone that aren't empty though no VM may run there: one other than `vm` was stopped there after `since`, or a router
/// is there (IAM-079).
pub async fn taken(from: impl Reader, zone: i64, vm: i64, since: i64) -> Result<BTreeSet<i64>> {
    let sql = Sql::new(
        "SELECT last_host_id FROM vms WHERE zone_id = ? AND removed IS NULL AND state = 'Stopped' AND host_id IS NULL \
         AND last_host_id IS NOT NULL AND changed > ? AND id <> ? UNION SELECT host_id FROM routers WHERE zone_id = ? AND \
         removed IS NULL AND host_id IS NOT NULL",
    )
    .bind(zone)
    .bind(since)
    .bind(vm)
    .bind(zone);
    from.rows(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// Whether nothing is on a host but what the account has there by implicit dedication, `vm` aside. No router either, unless the
/// account has the host to itself already: routers avoid such hosts while there are others.
pub async fn is_alone(tx: &mut Tx, vm: i64, host: i64, account: i64, since: i64) -> Result<bool> {
    let hosts = |sql: Sql, column: &str| sql.push(column).push(" = ?").bind(host);
    for r in tx.all(present(hosts, since)).await? {
        if r.at::<i64>(1)? != vm && !is_own(&r, account)? {
            return Ok(false);
        }
    }
    let kept = tx.one(Sql::new("SELECT kept_for FROM host_capacity WHERE host_id = ?").bind(host)).await?;
    if kept.at::<Option<i64>>(0)? == Some(account) {
        return Ok(true);
    }
    let routers = Sql::new("SELECT COUNT(*) FROM routers WHERE host_id = ? AND removed IS NULL").bind(host);
    Ok(tx.one(routers).await?.at::<i64>(0)? == 0)
}
