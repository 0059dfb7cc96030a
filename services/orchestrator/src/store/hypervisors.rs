//! What hypervisors can do.

use super::paged;
use ::store::{Db, Result, Sql};
use model::Page;

/// What a version of a hypervisor can do.
#[derive(Clone, Debug)]
pub struct CapsRow {
    /// UUID.
    pub uuid: String,
    /// Hypervisor.
    pub hypervisor: String,
    /// Version, or "default".
    pub version: String,
    /// Most guests of a host.
    pub max_guests: Option<i64>,
    /// Whether it does security groups.
    pub security_groups: bool,
    /// Most data disks of a VM.
    pub max_data_volumes: Option<i64>,
    /// Most hosts of a cluster.
    pub max_hosts_per_cluster: Option<i64>,
    /// Whether disks move with running VMs.
    pub storage_motion: bool,
}

/// A page of capabilities, and how many there are.
pub async fn list(
    db: &Db,
    id: Option<i64>,
    hypervisor: Option<&str>,
    keyword: Option<&str>,
    page: Page,
) -> Result<(Vec<CapsRow>, i64)> {
    let body = |sql: Sql| {
        let sql = sql
            .push(" FROM hypervisor_caps WHERE removed IS NULL")
            .push_if(" AND id = ?", id)
            .push_if(" AND hypervisor = ?", hypervisor);
        match keyword {
            Some(keyword) => sql.push(" AND ").contains("LOWER(hypervisor)", &keyword.to_lowercase()),
            None => sql,
        }
    };
    let columns = "uuid, hypervisor, version, max_guests, security_groups, max_data_volumes, max_hosts_per_cluster, storage_motion";
    let (rows, count) = paged(db, columns, body, "id", page).await?;
    let rows = rows.iter().map(|r| {
        Ok(CapsRow {
            uuid: r.at(0)?,
            hypervisor: r.at(1)?,
            version: r.at(2)?,
            max_guests: r.at(3)?,
            security_groups: r.at(4)?,
            max_data_volumes: r.at(5)?,
            max_hosts_per_cluster: r.at(6)?,
            storage_motion: r.at(7)?,
        })
    });
    Ok((rows.collect::<Result<_>>()?, count))
}
