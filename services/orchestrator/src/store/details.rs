//! Free details of zones, clusters, hosts and offerings.

use super::Reader;
use ::store::{Result, Sql, Tx, Value};
use std::collections::{BTreeMap, HashMap};

/// What may have details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// A zone.
    Zone,
    /// A cluster.
    Cluster,
    /// A compute offering.
    ServiceOffering,
}

impl Of {
    const fn word(self) -> &'static str {
        match self {
            Of::Zone => "Zone",
            Of::Cluster => "Cluster",
            Of::ServiceOffering => "ServiceOffering",
        }
    }
}

/// The details of several, by number.
pub async fn read(from: impl Reader, of: Of, ids: &[i64]) -> Result<HashMap<i64, BTreeMap<String, String>>> {
    let mut found: HashMap<i64, BTreeMap<String, String>> = HashMap::new();
    if ids.is_empty() {
        return Ok(found);
    }
    let sql = Sql::new("SELECT resource_id, name, value FROM infra_details WHERE resource_type = ? AND ")
        .bind(of.word())
        .in_list("resource_id", ids.iter().copied());
    for row in from.rows(sql).await? {
        found.entry(row.at(0)?).or_default().insert(row.at(1)?, row.at(2)?);
    }
    Ok(found)
}

/// Sets details; those that aren't named stay.
pub async fn set(tx: &mut Tx, of: Of, id: i64, details: &BTreeMap<String, String>) -> Result<()> {
    if details.is_empty() {
        return Ok(());
    }
    let delete = Sql::new("DELETE FROM infra_details WHERE resource_type = ? AND resource_id = ? AND ")
        .bind(of.word())
        .bind(id)
        .in_list("name", details.keys());
    tx.exec(delete).await?;
    let mut sql = Sql::new("INSERT INTO infra_details (resource_type, resource_id, name, value) VALUES ");
    for (i, (name, value)) in details.iter().enumerate() {
        sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
            Value::from(of.word()),
            Value::from(id),
            Value::from(name),
            Value::from(value),
        ]);
    }
    tx.exec(sql).await.map(drop)
}
