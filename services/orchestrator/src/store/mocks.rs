//! Delays and faults of simulated hosts.

use super::Reader;
use ::store::{Result, Row, Sql, Tx, now_micros};

/// A delay or fault.
#[derive(Clone, Debug)]
pub struct MockRow {
    /// Number.
    pub id: i64,
    /// Zone: number and UUID.
    pub zone: Option<(i64, String)>,
    /// Pod.
    pub pod: Option<(i64, String)>,
    /// Cluster.
    pub cluster: Option<(i64, String)>,
    /// Host.
    pub host: Option<(i64, String)>,
    /// Command that it concerns.
    pub name: String,
    /// What happens.
    pub value: String,
    /// How often; none: for ever.
    pub count: Option<i64>,
}

const SELECT: &str = "SELECT m.id, m.zone_id, z.uuid AS zone_uuid, m.pod_id, p.uuid AS pod_uuid, m.cluster_id, \
    c.uuid AS cluster_uuid, m.host_id, h.uuid AS host_uuid, m.name, m.value, m.remaining FROM simulator_mocks m \
    LEFT JOIN zones z ON z.id = m.zone_id LEFT JOIN pods p ON p.id = m.pod_id LEFT JOIN clusters c ON c.id = m.cluster_id \
    LEFT JOIN hosts h ON h.id = m.host_id WHERE m.removed IS NULL";

fn read(r: &Row) -> Result<MockRow> {
    let place = |id: &str, uuid: &str| -> Result<Option<(i64, String)>> {
        let (id, uuid): (Option<i64>, Option<String>) = (r.get(id)?, r.get(uuid)?);
        Ok(id.zip(uuid))
    };
    Ok(MockRow {
        id: r.get("id")?,
        zone: place("zone_id", "zone_uuid")?,
        pod: place("pod_id", "pod_uuid")?,
        cluster: place("cluster_id", "cluster_uuid")?,
        host: place("host_id", "host_uuid")?,
        name: r.get("name")?,
        value: r.get("value")?,
        count: r.get("remaining")?,
    })
}

/// Writes a delay or fault.
pub async fn insert(tx: &mut Tx, m: &MockRow) -> Result<()> {
    let sql = Sql::new(
        "INSERT INTO simulator_mocks (id, zone_id, pod_id, cluster_id, host_id, name, value, remaining, created) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(m.id)
    .bind(m.zone.as_ref().map(|(id, _)| *id))
    .bind(m.pod.as_ref().map(|(id, _)| *id))
    .bind(m.cluster.as_ref().map(|(id, _)| *id))
    .bind(m.host.as_ref().map(|(id, _)| *id))
    .bind(&m.name)
    .bind(&m.value)
    .bind(m.count)
    .bind(now_micros());
    tx.exec(sql).await.map(drop)
}

/// All that are in force, oldest first.
pub async fn all(from: impl Reader) -> Result<Vec<MockRow>> {
    from.rows(Sql::new(SELECT).push(" ORDER BY m.id")).await?.iter().map(read).collect()
}

/// One that is in force.
pub async fn find(from: impl Reader, id: i64) -> Result<Option<MockRow>> {
    from.rows(Sql::new(SELECT).push(" AND m.id = ?").bind(id)).await?.first().map(read).transpose()
}

/// Ends one; whether it was in force.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql =
        Sql::new("UPDATE simulator_mocks SET removed = ? WHERE id = ? AND removed IS NULL").bind(now_micros()).bind(id);
    Ok(tx.exec(sql).await? == 1)
}
