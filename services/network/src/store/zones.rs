//! What this service reads of the orchestrator's, identity's and the VMs' tables.

use model::state::{HostStatus, ResourceState};
use store::{Db, Result, Sql};

/// A zone as networks need it.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Basic, Advanced.
    pub network_type: String,
    /// Default CIDR of guest networks.
    pub guest_cidr: Option<String>,
    /// First DNS server.
    pub dns1: String,
    /// Second DNS server.
    pub dns2: Option<String>,
    /// DNS domain of the zone's networks.
    pub network_domain: Option<String>,
    /// Whether it takes new things.
    pub enabled: bool,
    /// Domain that it is dedicated to.
    pub domain_id: Option<i64>,
}

impl Zone {
    /// Whether it is a basic zone.
    pub fn is_basic(&self) -> bool {
        self.network_type.eq_ignore_ascii_case("Basic")
    }
}

/// The living zones with these numbers, or all.
pub async fn zones(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<Vec<Zone>> {
    let sql = Sql::new(
        "SELECT id, uuid, name, network_type, guest_cidr, dns1, dns2, network_domain, allocation_state, domain_id \
         FROM zones WHERE ",
    )
    .in_list("id", distinct(ids));
    db.all(sql)
        .await?
        .iter()
        .map(|r| {
            Ok(Zone {
                id: r.at(0)?,
                uuid: r.at(1)?,
                name: r.at(2)?,
                network_type: r.at(3)?,
                guest_cidr: r.at(4)?,
                dns1: r.at(5)?,
                dns2: r.at(6)?,
                network_domain: r.at(7)?,
                enabled: r.at::<String>(8)?.eq_ignore_ascii_case("Enabled"),
                domain_id: r.at(9)?,
            })
        })
        .collect()
}

/// One zone.
pub async fn zone(db: &Db, id: i64) -> Result<Option<Zone>> {
    Ok(zones(db, [id]).await?.pop())
}

/// Name of an account.
pub async fn account_name(db: &Db, id: i64) -> Result<String> {
    let row = db.optional(Sql::new("SELECT name FROM accounts WHERE id = ?").bind(id)).await?;
    row.map_or_else(|| Ok(id.to_string()), |r| r.at(0))
}

/// DNS domains set for an account and for its domain.
pub async fn network_domains(db: &Db, account: i64, domain: i64) -> Result<(Option<String>, Option<String>)> {
    let account = db.optional(Sql::new("SELECT network_domain FROM accounts WHERE id = ?").bind(account)).await?;
    let domain = db.optional(Sql::new("SELECT network_domain FROM domains WHERE id = ?").bind(domain)).await?;
    let read = |row: Option<store::Row>| row.map_or(Ok(None), |r| r.at::<Option<String>>(0));
    Ok((read(account)?, read(domain)?))
}

/// Management ranges of a zone's pods: (name, first, last).
pub async fn pod_ranges(db: &Db, zone: i64) -> Result<Vec<(String, String, String)>> {
    db.all(Sql::new("SELECT name, start_ip, end_ip FROM pods WHERE zone_id = ? AND removed IS NULL").bind(zone))
        .await?
        .iter()
        .map(|r| Ok((r.at(0)?, r.at(1)?, r.at(2)?)))
        .collect()
}

/// Hypervisors of hosts.
pub async fn hypervisors(
    db: &Db,
    hosts: impl IntoIterator<Item = i64>,
) -> Result<std::collections::HashMap<i64, String>> {
    let sql = Sql::new("SELECT id, hypervisor FROM hosts WHERE ").in_list("id", distinct(hosts));
    db.all(sql).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

/// How a host stands, as whoever wants routers from it must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Connected, and may carry routers.
    Up,
    /// Connected, and being emptied.
    Leaving,
    /// It may well live, but nobody can tell it anything: the status that it has.
    Silent(String),
    /// Known dead, or deleted: nothing runs there any more.
    Gone,
}

/// How a host stands.
pub async fn standing(db: &Db, host: i64) -> Result<Standing> {
    let sql = Sql::new("SELECT status, resource_state FROM hosts WHERE id = ? AND removed IS NULL").bind(host);
    let Some(row) = db.optional(sql).await? else { return Ok(Standing::Gone) };
    let (status, resource): (HostStatus, ResourceState) = (row.at(0)?, row.at(1)?);
    Ok(match (status, resource) {
        (HostStatus::Down | HostStatus::Removed, _) => Standing::Gone,
        (HostStatus::Up, ResourceState::Enabled | ResourceState::Disabled) => Standing::Up,
        (HostStatus::Up, _) => Standing::Leaving,
        (other, _) => Standing::Silent(other.to_string()),
    })
}

/// The smallest numbers, without repeats.
pub(crate) fn distinct(ids: impl IntoIterator<Item = i64>) -> Vec<i64> {
    let mut ids: Vec<i64> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
