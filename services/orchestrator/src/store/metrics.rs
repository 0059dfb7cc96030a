//! Figures for the metrics commands: one query a command, whatever the size of the page.

use std::collections::HashMap;
use store::{Db, Result, Row, Sql};

/// What a host has, has given away and runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostFigures {
    /// Its cluster.
    pub cluster: i64,
    /// MHz.
    pub cpu: Sold,
    /// Bytes.
    pub memory: Sold,
    /// VMs and routers that run.
    pub running: i64,
    /// All of them.
    pub guests: i64,
}

/// What there is of something, how often it is sold, and what is given away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sold {
    /// What there is.
    pub total: i64,
    /// Sold this many times.
    pub factor: f64,
    /// Given away.
    pub given: i64,
}

impl Sold {
    /// What may be given away.
    #[allow(clippy::cast_precision_loss)] // capacities are far below 2^53
    pub fn room(self) -> f64 {
        self.total as f64 * self.factor
    }
}

/// Figures of hosts, by UUID.
pub async fn hosts(db: &Db, uuids: &[String]) -> Result<HashMap<String, HostFigures>> {
    let sql = Sql::new(
        "SELECT h.uuid, h.cluster_id, k.cpu_total_mhz, k.cpu_overcommit, k.cpu_used_mhz + k.cpu_reserved, k.mem_total, \
         k.mem_overcommit, k.mem_used + k.mem_reserved, \
         (SELECT COUNT(*) FROM vms v WHERE v.host_id = h.id AND v.removed IS NULL AND v.state = 'Running') + \
         (SELECT COUNT(*) FROM routers r WHERE r.host_id = h.id AND r.removed IS NULL AND r.state = 'Running'), \
         (SELECT COUNT(*) FROM vms v WHERE v.host_id = h.id AND v.removed IS NULL) + \
         (SELECT COUNT(*) FROM routers r WHERE r.host_id = h.id AND r.removed IS NULL) \
         FROM hosts h JOIN host_capacity k ON k.host_id = h.id WHERE ",
    );
    let read = |r: &Row| {
        let figures = HostFigures {
            cluster: r.at(1)?,
            cpu: Sold { total: r.at(2)?, factor: r.at(3)?, given: r.at(4)? },
            memory: Sold { total: r.at(5)?, factor: r.at(6)?, given: r.at(7)? },
            running: r.at(8)?,
            guests: r.at(9)?,
        };
        Ok((r.at(0)?, figures))
    };
    db.all(sql.in_list("h.uuid", uuids.iter().map(String::as_str))).await?.iter().map(read).collect()
}

/// A place whose hosts are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Zones.
    Zone,
    /// Clusters.
    Cluster,
}

/// What the hosts of a place have and have given away.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlaceFigures {
    /// Number of the place.
    pub id: i64,
    /// Its parts that are well: hosts that are Up, Enabled clusters.
    pub well: i64,
    /// All of its parts.
    pub parts: i64,
    /// MHz that may be given away, and that are.
    pub cpu: (f64, i64),
    /// Bytes that may be given away, and that are.
    pub memory: (f64, i64),
}

/// Figures of places, by UUID: of zones with their clusters, of clusters with their hosts.
pub async fn places(db: &Db, of: Of, uuids: &[String]) -> Result<HashMap<String, PlaceFigures>> {
    let (table, column, well, parts) = match of {
        Of::Zone => (
            "zones",
            "zone_id",
            "(SELECT COUNT(*) FROM clusters c WHERE c.zone_id = p.id AND c.removed IS NULL AND c.allocation_state = 'Enabled')",
            "(SELECT COUNT(*) FROM clusters c WHERE c.zone_id = p.id AND c.removed IS NULL)",
        ),
        Of::Cluster => (
            "clusters",
            "cluster_id",
            "(SELECT COUNT(*) FROM hosts h WHERE h.cluster_id = p.id AND h.removed IS NULL AND h.status = 'Up')",
            "(SELECT COUNT(*) FROM hosts h WHERE h.cluster_id = p.id AND h.removed IS NULL)",
        ),
    };
    let sql = Sql::new(&format!(
        "SELECT p.uuid, p.id, {well}, {parts}, k.cpu_total, k.cpu_given, k.mem_total, k.mem_given FROM {table} p LEFT JOIN \
         (SELECT {column} AS place, SUM(cpu_total_mhz * cpu_overcommit) AS cpu_total, \
         CAST(SUM(cpu_used_mhz + cpu_reserved) AS SIGNED) AS cpu_given, SUM(mem_total * mem_overcommit) AS mem_total, \
         CAST(SUM(mem_used + mem_reserved) AS SIGNED) AS mem_given FROM host_capacity GROUP BY {column}) k ON k.place = p.id WHERE "
    ));
    let read = |r: &Row| {
        let figures = PlaceFigures {
            id: r.at(1)?,
            well: r.at(2)?,
            parts: r.at(3)?,
            cpu: (r.at::<Option<f64>>(4)?.unwrap_or(0.0), r.at::<Option<i64>>(5)?.unwrap_or(0)),
            memory: (r.at::<Option<f64>>(6)?.unwrap_or(0.0), r.at::<Option<i64>>(7)?.unwrap_or(0)),
        };
        Ok((r.at(0)?, figures))
    };
    db.all(sql.in_list("p.uuid", uuids.iter().map(String::as_str))).await?.iter().map(read).collect()
}

/// How many there are: zones, pods, clusters, hosts, primary storage pools, secondary storage, routers, CPU sockets of hosts.
pub async fn infrastructure(db: &Db) -> Result<[i64; 8]> {
    let living = |table: &str| format!("(SELECT COUNT(*) FROM {table} WHERE removed IS NULL)");
    let tables = ["zones", "pods", "clusters", "hosts", "storage_pools", "image_stores", "routers"];
    let counts: Vec<String> = tables.iter().map(|t| living(t)).collect();
    let sockets = "(SELECT CAST(COALESCE(SUM(cpu_sockets), 0) AS SIGNED) FROM hosts WHERE removed IS NULL)";
    let row = db.one(Sql::new(&format!("SELECT {}, {sockets}", counts.join(", ")))).await?;
    let mut figures = [0; 8];
    for (n, figure) in figures.iter_mut().enumerate() {
        *figure = row.at(n)?;
    }
    Ok(figures)
}
