//! Names that responses show beside ids: one query a kind and page, never one a row.

use std::collections::{HashMap, HashSet};
use store::{Db, Result, Sql};

/// UUID and name of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
}

/// Tables that have `id, uuid, name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Accounts.
    Accounts,
    /// Zones.
    Zones,
    /// Pods.
    Pods,
    /// Clusters.
    Clusters,
    /// Hosts.
    Hosts,
    /// Compute offerings.
    ServiceOfferings,
    /// Disk offerings.
    DiskOfferings,
    /// Network offerings.
    NetworkOfferings,
    /// Networks.
    Networks,
    /// Physical networks.
    PhysicalNetworks,
    /// Storage pools.
    StoragePools,
    /// Image stores.
    ImageStores,
    /// Templates and ISOs.
    Templates,
    /// Guest OS types.
    OsTypes,
    /// Guest OS categories.
    OsCategories,
    /// Roles.
    Roles,
    /// Virtual machines.
    Vms,
    /// Volumes.
    Volumes,
}

impl Table {
    const fn name(self) -> &'static str {
        match self {
            Table::Accounts => "accounts",
            Table::Zones => "zones",
            Table::Pods => "pods",
            Table::Clusters => "clusters",
            Table::Hosts => "hosts",
            Table::ServiceOfferings => "service_offerings",
            Table::DiskOfferings => "disk_offerings",
            Table::NetworkOfferings => "network_offerings",
            Table::Networks => "networks",
            Table::PhysicalNetworks => "physical_networks",
            Table::StoragePools => "storage_pools",
            Table::ImageStores => "image_stores",
            Table::Templates => "templates",
            Table::OsTypes => "os_types",
            Table::OsCategories => "os_categories",
            Table::Roles => "roles",
            Table::Vms => "vms",
            Table::Volumes => "volumes",
        }
    }
}

/// UUID and name of the rows with these numbers, removed ones included.
pub async fn named(db: &Db, table: Table, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, Named>> {
    let ids = distinct(ids);
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = Sql::new(&format!("SELECT id, uuid, name FROM {} WHERE ", table.name())).in_list("id", ids);
    db.all(sql)
        .await?
        .iter()
        .map(|r| Ok((r.at(0)?, Named { uuid: r.at(1)?, name: r.at::<Option<String>>(2)?.unwrap_or_default() })))
        .collect()
}

/// What responses show of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainName {
    /// UUID.
    pub uuid: String,
    /// Own name.
    pub name: String,
    /// Path of names from the root: "ROOT/a/b".
    pub name_path: String,
    /// Path of ids: "/1/5/".
    pub path: String,
}

/// The domains with these numbers.
pub async fn domains(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, DomainName>> {
    let ids = distinct(ids);
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    db.all(Sql::new("SELECT id, uuid, name, name_path, path FROM domains WHERE ").in_list("id", ids))
        .await?
        .iter()
        .map(|r| Ok((r.at(0)?, DomainName { uuid: r.at(1)?, name: r.at(2)?, name_path: r.at(3)?, path: r.at(4)? })))
        .collect()
}

fn distinct(ids: impl IntoIterator<Item = i64>) -> Vec<i64> {
    let set: HashSet<i64> = ids.into_iter().collect();
    let mut ids: Vec<i64> = set.into_iter().collect();
    ids.sort_unstable();
    ids
}
