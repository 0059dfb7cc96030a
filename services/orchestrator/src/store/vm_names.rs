//! UUIDs and names of what VMs refer to.

use store::{Db, Result, Sql};

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Accounts.
    Account,
    /// Domains.
    Domain,
    /// Users.
    User,
    /// Zones.
    Zone,
    /// Hosts.
    Host,
    /// Templates; `text` is the display text.
    Template,
    /// ISOs in CD drives; `text` is the display text.
    Iso,
    /// Compute offerings.
    ServiceOffering,
    /// Disk offerings.
    DiskOffering,
    /// Guest OS types.
    OsType,
    /// Groups of VMs.
    InstanceGroup,
}

/// A row's UUID and names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// A longer text, where the table has one.
    pub text: String,
}

/// The rows with these numbers, removed ones included.
pub async fn named(db: &Db, kind: Kind, ids: Vec<i64>) -> Result<Vec<(i64, Named)>> {
    let select = match kind {
        Kind::Account => "SELECT id, uuid, name, '' FROM accounts WHERE ",
        Kind::Domain => "SELECT id, uuid, name, '' FROM domains WHERE ",
        Kind::User => "SELECT id, uuid, username, '' FROM users WHERE ",
        Kind::Zone => "SELECT id, uuid, name, '' FROM zones WHERE ",
        Kind::Host => "SELECT id, uuid, name, '' FROM hosts WHERE ",
        Kind::Template | Kind::Iso => "SELECT id, uuid, name, display_text FROM templates WHERE ",
        Kind::ServiceOffering => "SELECT id, uuid, name, '' FROM service_offerings WHERE ",
        Kind::DiskOffering => "SELECT id, uuid, name, '' FROM disk_offerings WHERE ",
        Kind::InstanceGroup => "SELECT id, uuid, name, '' FROM instance_groups WHERE ",
        Kind::OsType => "SELECT id, uuid, name, '' FROM os_types WHERE ",
    };
    db.all(Sql::new(select).in_list("id", ids))
        .await?
        .iter()
        .map(|r| Ok((r.at(0)?, Named { uuid: r.at(1)?, name: r.at(2)?, text: r.at(3)? })))
        .collect()
}
