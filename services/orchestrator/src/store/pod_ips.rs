//! Management addresses in use. Free ones have no row.

use crate::subnet::{PodRange, address, number};
use ::store::{Error, Result, Sql, Tx, now_micros};
use std::net::Ipv4Addr;

/// Takes a free address of the pod's range for `holder`; none when all are taken.
pub async fn take(tx: &mut Tx, zone: i64, pod: i64, range: &PodRange, holder: &str) -> Result<Option<Ipv4Addr>> {
    let last = Sql::new("SELECT MAX(ip_number) FROM pod_ips WHERE pod_id = ? AND ip_number >= ? AND ip_number <= ?")
        .bind(pod)
        .bind(number(range.start))
        .bind(number(range.end));
    let last: Option<i64> = tx.one(last).await?.at(0)?;
    // Above the highest one as long as there is room: one look whatever the number of hosts.
    let mut candidate = last.map_or(number(range.start), |n| n + 1);
    while candidate <= number(range.end) {
        if put(tx, zone, pod, candidate, holder).await? {
            return Ok(address(candidate));
        }
        candidate += 1; // somebody else was faster
    }
    for gap in gaps(tx, pod, range).await? {
        if put(tx, zone, pod, gap, holder).await? {
            return Ok(address(gap));
        }
    }
    Ok(None)
}

async fn gaps(tx: &mut Tx, pod: i64, range: &PodRange) -> Result<Vec<i64>> {
    let sql = Sql::new("SELECT ip_number FROM pod_ips WHERE pod_id = ? ORDER BY ip_number").bind(pod);
    let taken: std::collections::HashSet<i64> = tx.all(sql).await?.iter().map(|r| r.at(0)).collect::<Result<_>>()?;
    Ok((number(range.start)..=number(range.end)).filter(|n| !taken.contains(n)).collect())
}

async fn put(tx: &mut Tx, zone: i64, pod: i64, ip: i64, holder: &str) -> Result<bool> {
    let text = address(ip).map(|a| a.to_string()).unwrap_or_default();
    let sql = Sql::new("INSERT INTO pod_ips (pod_id, ip_number, ip, zone_id, holder, taken) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(pod)
        .bind(ip)
        .bind(text)
        .bind(zone)
        .bind(holder)
        .bind(now_micros());
    match tx.exec(sql).await {
        Ok(_) => Ok(true),
        Err(Error::Unique { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Gives back all that `holder` has.
pub async fn free(tx: &mut Tx, holder: &str) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM pod_ips WHERE holder = ?").bind(holder)).await.map(drop)
}

/// An address in use outside of `range`.
pub async fn outside(tx: &mut Tx, pod: i64, range: &PodRange) -> Result<Option<String>> {
    let sql = Sql::new(
        "SELECT ip FROM pod_ips WHERE pod_id = ? AND (ip_number < ? OR ip_number > ?) ORDER BY ip_number LIMIT 1",
    )
    .bind(pod)
    .bind(number(range.start))
    .bind(number(range.end));
    tx.optional(sql).await?.map(|r| r.at(0)).transpose()
}
