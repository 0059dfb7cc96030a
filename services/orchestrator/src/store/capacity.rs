//! What there is and what is in use, from the tables of those who own it. One query a kind, whatever the size of the cloud.

use ::store::{Db, Result, Sql};
use model::names::{self, Named, Table};
use std::collections::HashMap;

/// A place and two amounts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Type of 4.11: 0 memory, 1 CPU and so on.
    pub kind: i32,
    /// Zone.
    pub zone: i64,
    /// Pod, for what is in one.
    pub pod: Option<i64>,
    /// Cluster, for what is in one.
    pub cluster: Option<i64>,
    /// What is in use.
    pub used: i64,
    /// What there is.
    pub total: i64,
}

/// Numbers of the types.
pub mod kind {
    /// Memory of hosts.
    pub const MEMORY: i32 = 0;
    /// MHz of hosts.
    pub const CPU: i32 = 1;
    /// Bytes that pools say are in use.
    pub const STORAGE: i32 = 2;
    /// Bytes of pools that are promised.
    pub const STORAGE_ALLOCATED: i32 = 3;
    /// Public addresses.
    pub const PUBLIC_IP: i32 = 4;
    /// Management addresses.
    pub const PRIVATE_IP: i32 = 5;
    /// Bytes of secondary storage.
    pub const SECONDARY_STORAGE: i32 = 6;
    /// Guest VLANs.
    pub const VLAN: i32 = 7;
    /// Addresses of shared networks.
    pub const DIRECT_IP: i32 = 8;
    /// Bytes of hosts' own disks that are promised.
    pub const LOCAL_STORAGE: i32 = 9;
}

/// Restricts a query to a zone, pod and cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Within {
    /// Zone.
    pub zone: Option<i64>,
    /// Pod.
    pub pod: Option<i64>,
    /// Cluster.
    pub cluster: Option<i64>,
}

impl Within {
    fn zone(self, sql: Sql, column: &str) -> Sql {
        sql.push_if(&format!(" AND {column} = ?"), self.zone)
    }

    fn all(self, sql: Sql) -> Sql {
        sql.push_if(" AND zone_id = ?", self.zone)
            .push_if(" AND pod_id = ?", self.pod)
            .push_if(" AND cluster_id = ?", self.cluster)
    }
}

#[allow(clippy::cast_possible_truncation)] // capacities are far below 2^53
fn whole(value: f64) -> i64 {
    value.floor() as i64
}

/// Memory and CPU of the hosts that take VMs or have some; those that take none offer only what is in use on them.
pub async fn hosts(db: &Db, within: Within) -> Result<Vec<Figure>> {
    let sql = Sql::new(
        "SELECT zone_id, pod_id, cluster_id, CAST(SUM(mem_used + mem_reserved) AS SIGNED), \
         SUM(CASE WHEN accepting = 1 THEN mem_total * mem_overcommit ELSE (mem_used + mem_reserved) * 1.0 END), \
         CAST(SUM(cpu_used_mhz + cpu_reserved) AS SIGNED), \
         SUM(CASE WHEN accepting = 1 THEN cpu_total_mhz * cpu_overcommit ELSE (cpu_used_mhz + cpu_reserved) * 1.0 END) \
         FROM host_capacity WHERE (accepting = 1 OR vms > 0)",
    );
    let mut figures = Vec::new();
    for r in db.all(within.all(sql).push(" GROUP BY zone_id, pod_id, cluster_id")).await? {
        let (zone, pod, cluster) = (r.at(0)?, Some(r.at(1)?), Some(r.at(2)?));
        figures.push(Figure { kind: kind::MEMORY, zone, pod, cluster, used: r.at(3)?, total: whole(r.at(4)?) });
        figures.push(Figure { kind: kind::CPU, zone, pod, cluster, used: r.at(5)?, total: whole(r.at(6)?) });
    }
    Ok(figures)
}

/// Bytes of pools: said to be in use, and promised; those of hosts' own disks apart.
pub async fn pools(db: &Db, within: Within) -> Result<Vec<Figure>> {
    let sql = Sql::new(
        "SELECT zone_id, pod_id, cluster_id, scope, CAST(SUM(used_bytes) AS SIGNED), CAST(SUM(capacity_bytes) AS SIGNED), \
         CAST(SUM(allocated_bytes) AS SIGNED), SUM(capacity_bytes * overcommit) FROM storage_pools \
         WHERE removed IS NULL AND state = 'Up'",
    );
    let mut figures = Vec::new();
    for r in db.all(within.all(sql).push(" GROUP BY zone_id, pod_id, cluster_id, scope")).await? {
        let (zone, pod, cluster) = (r.at(0)?, r.at(1)?, r.at(2)?);
        let promised = if r.at::<String>(3)? == "HOST" { kind::LOCAL_STORAGE } else { kind::STORAGE_ALLOCATED };
        if promised == kind::STORAGE_ALLOCATED {
            figures.push(Figure { kind: kind::STORAGE, zone, pod, cluster, used: r.at(4)?, total: r.at(5)? });
        }
        figures.push(Figure { kind: promised, zone, pod, cluster, used: r.at(6)?, total: whole(r.at(7)?) });
    }
    Ok(figures)
}

/// Bytes of secondary storage, by zone.
pub async fn image_stores(db: &Db, within: Within) -> Result<Vec<Figure>> {
    let sql = Sql::new(
        "SELECT zone_id, CAST(SUM(used_bytes) AS SIGNED), CAST(SUM(total_bytes) AS SIGNED) FROM image_stores \
         WHERE removed IS NULL AND zone_id IS NOT NULL",
    );
    by_zone(db, within.zone(sql, "zone_id").push(" GROUP BY zone_id"), kind::SECONDARY_STORAGE).await
}

/// Public addresses, by zone.
pub async fn public_ips(db: &Db, within: Within) -> Result<Vec<Figure>> {
    let sql = Sql::new(
        "SELECT zone_id, CAST(SUM(CASE WHEN state = 'Free' THEN 0 ELSE 1 END) AS SIGNED), COUNT(*) FROM ip_addresses \
         WHERE removed IS NULL",
    );
    by_zone(db, within.zone(sql, "zone_id").push(" GROUP BY zone_id"), kind::PUBLIC_IP).await
}

async fn by_zone(db: &Db, sql: Sql, kind: i32) -> Result<Vec<Figure>> {
    db.all(sql)
        .await?
        .iter()
        .map(|r| Ok(Figure { kind, zone: r.at(0)?, pod: None, cluster: None, used: r.at(1)?, total: r.at(2)? }))
        .collect()
}

/// Management addresses, by pod.
pub async fn private_ips(db: &Db, within: Within) -> Result<Vec<Figure>> {
    let sql = Sql::new(
        "SELECT p.zone_id, p.id, p.start_ip, p.end_ip, (SELECT COUNT(*) FROM pod_ips i WHERE i.pod_id = p.id) AS used \
         FROM pods p WHERE p.removed IS NULL",
    );
    let sql = within.zone(sql, "p.zone_id").push_if(" AND p.id = ?", within.pod);
    db.all(sql)
        .await?
        .iter()
        .map(|r| {
            let bound = |column: &str| -> Result<i64> {
                Ok(r.get::<String>(column)?.parse::<std::net::Ipv4Addr>().map_or(0, crate::subnet::number))
            };
            let total = bound("end_ip")? - bound("start_ip")? + 1;
            Ok(Figure {
                kind: kind::PRIVATE_IP,
                zone: r.at(0)?,
                pod: Some(r.at(1)?),
                cluster: None,
                used: r.get("used")?,
                total,
            })
        })
        .collect()
}

/// Guest VLANs, by zone. `size` counts the VLANs of a text such as "100-200,300-400".
pub async fn vlans(db: &Db, within: Within, size: fn(&str) -> i64) -> Result<Vec<Figure>> {
    let sql = Sql::new(
        "SELECT n.zone_id, n.vlan, (SELECT COUNT(*) FROM vnets v WHERE v.physical_network_id = n.id) AS used \
         FROM physical_networks n WHERE n.removed IS NULL AND n.vlan IS NOT NULL",
    );
    db.all(within.zone(sql, "n.zone_id"))
        .await?
        .iter()
        .map(|r| {
            let total = size(&r.at::<String>(1)?);
            Ok(Figure { kind: kind::VLAN, zone: r.at(0)?, pod: None, cluster: None, used: r.at(2)?, total })
        })
        .collect()
}

/// Addresses of shared networks, by zone.
pub async fn direct_ips(db: &Db, within: Within) -> Result<Vec<Figure>> {
    let sql = Sql::new(
        "SELECT r.zone_id, (SELECT COUNT(*) FROM nics n WHERE n.live_network = r.network_id AND n.ip_number >= r.start_number \
         AND n.ip_number <= r.end_number) AS used, r.end_number - r.start_number + 1 AS total FROM vlan_ranges r \
         WHERE r.removed IS NULL AND r.kind = 'DirectAttached'",
    );
    by_zone(db, within.zone(sql, "r.zone_id"), kind::DIRECT_IP).await
}

/// The zones that have a capacity at all.
pub async fn zones(db: &Db, within: Within) -> Result<Vec<i64>> {
    let sql = within.zone(Sql::new("SELECT id FROM zones WHERE removed IS NULL"), "id");
    db.all(sql.push(" ORDER BY id")).await?.iter().map(|r| r.at(0)).collect()
}

/// Names of the places of figures: zones, pods, clusters.
pub async fn places(db: &Db, figures: &[Figure]) -> Result<[HashMap<i64, Named>; 3]> {
    Ok([
        names::named(db, Table::Zones, figures.iter().map(|f| f.zone)).await?,
        names::named(db, Table::Pods, figures.iter().filter_map(|f| f.pod)).await?,
        names::named(db, Table::Clusters, figures.iter().filter_map(|f| f.cluster)).await?,
    ])
}
