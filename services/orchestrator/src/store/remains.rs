//! What is still inside a zone, pod or cluster that is to be deleted.

use ::store::{Result, Sql, Tx};

/// A place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A zone.
    Zone(i64),
    /// A pod.
    Pod(i64),
    /// A cluster.
    Cluster(i64),
}

/// A kind of thing that may be inside: how texts call it, and the condition under which it is.
type Kind = (&'static str, &'static str);

const IN_ZONE: &[Kind] = &[
    ("there are servers in this zone.", "SELECT id FROM hosts WHERE zone_id = ? AND removed IS NULL"),
    ("there are pods in this zone.", "SELECT id FROM pods WHERE zone_id = ? AND removed IS NULL"),
    ("there are private IP addresses allocated in this zone.", "SELECT pod_id FROM pod_ips WHERE zone_id = ?"),
    (
        "there are public IP addresses allocated in this zone.",
        "SELECT id FROM ip_addresses WHERE zone_id = ? AND state <> 'Free' AND removed IS NULL",
    ),
    ("there are virtual machines in this zone.", "SELECT id FROM vms WHERE zone_id = ? AND removed IS NULL"),
    ("there are storage volumes in this zone.", "SELECT id FROM volumes WHERE zone_id = ? AND removed IS NULL"),
    (
        "there are physical networks in this zone.",
        "SELECT id FROM physical_networks WHERE zone_id = ? AND removed IS NULL",
    ),
    ("there are storage pools in this zone.", "SELECT id FROM storage_pools WHERE zone_id = ? AND removed IS NULL"),
    ("there are secondary storages in this zone.", "SELECT id FROM image_stores WHERE zone_id = ? AND removed IS NULL"),
];

const IN_POD: &[Kind] = &[
    ("there are private IP addresses allocated in this pod.", "SELECT pod_id FROM pod_ips WHERE pod_id = ?"),
    ("there are servers in this pod.", "SELECT id FROM hosts WHERE pod_id = ? AND removed IS NULL"),
    ("there are virtual machines in this pod.", "SELECT id FROM vms WHERE pod_id = ? AND removed IS NULL"),
    ("there are clusters in this pod.", "SELECT id FROM clusters WHERE pod_id = ? AND removed IS NULL"),
    ("there are storage pools in this pod.", "SELECT id FROM storage_pools WHERE pod_id = ? AND removed IS NULL"),
];

const IN_CLUSTER: &[Kind] = &[
    ("it still has hosts", "SELECT id FROM hosts WHERE cluster_id = ? AND removed IS NULL"),
    ("it still has storage pools", "SELECT id FROM storage_pools WHERE cluster_id = ? AND removed IS NULL"),
];

/// The first kind of thing that is still inside; none: it is empty. One query.
pub async fn first(tx: &mut Tx, place: Place) -> Result<Option<&'static str>> {
    let (kinds, id) = match place {
        Place::Zone(id) => (IN_ZONE, id),
        Place::Pod(id) => (IN_POD, id),
        Place::Cluster(id) => (IN_CLUSTER, id),
    };
    let mut sql = Sql::new("SELECT ");
    for (i, (_, condition)) in kinds.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        sql = sql.push(&format!("{comma}CASE WHEN EXISTS ({condition}) THEN 1 ELSE 0 END")).bind(id);
    }
    let row = tx.one(sql).await?;
    for (i, (text, _)) in kinds.iter().enumerate() {
        if row.at::<bool>(i)? {
            return Ok(Some(text));
        }
    }
    Ok(None)
}
