//! Rows as answers show them: names beside ids, one query a kind and page.

mod balancer;
mod ip;
mod network;
mod nic;
mod offering;
mod physical;
mod range;
mod router;
mod rule;

pub use balancer::{balancers, stickiness};
pub use ip::ips;
pub use network::networks;
pub use nic::{nic, nics};
pub use offering::offering;
pub use physical::{element, physical, physicals, provider, providers, traffic, traffics};
pub use range::ranges;
pub use router::routers;
pub use rule::{firewall_rules, ip_forwarding_rules, port_forwarding_rules};

use contract::api::ResourceTag;
use model::names::{DomainName, Named, Table};
use model::tags::Tag;
use std::collections::HashMap;
use store::{Db, Result};

/// Names that most answers show.
pub(crate) struct Names {
    pub zones: HashMap<i64, Named>,
    pub accounts: HashMap<i64, Named>,
    pub domains: HashMap<i64, DomainName>,
    pub physicals: HashMap<i64, Named>,
    pub networks: HashMap<i64, Named>,
}

/// Numbers whose names are wanted.
#[derive(Default)]
pub(crate) struct Wanted {
    pub zones: Vec<i64>,
    pub accounts: Vec<i64>,
    pub domains: Vec<i64>,
    pub physicals: Vec<i64>,
    pub networks: Vec<i64>,
}

impl Names {
    pub async fn of(db: &Db, w: Wanted) -> Result<Names> {
        use model::names::{domains, named};
        Ok(Names {
            zones: named(db, Table::Zones, w.zones).await?,
            accounts: named(db, Table::Accounts, w.accounts).await?,
            domains: domains(db, w.domains).await?,
            physicals: named(db, Table::PhysicalNetworks, w.physicals).await?,
            networks: named(db, Table::Networks, w.networks).await?,
        })
    }

    pub fn zone(&self, id: i64) -> (Option<String>, Option<String>) {
        both(self.zones.get(&id))
    }

    pub fn account(&self, id: i64) -> Option<String> {
        self.accounts.get(&id).map(|n| n.name.clone())
    }

    pub fn domain(&self, id: i64) -> (Option<String>, Option<String>) {
        self.domains.get(&id).map_or((None, None), |d| (Some(d.uuid.clone()), Some(d.name.clone())))
    }

    pub fn physical(&self, id: Option<i64>) -> Option<String> {
        self.physicals.get(&id?).map(|n| n.uuid.clone())
    }

    pub fn network(&self, id: Option<i64>) -> (Option<String>, Option<String>) {
        both(id.and_then(|id| self.networks.get(&id)))
    }
}

fn both(named: Option<&Named>) -> (Option<String>, Option<String>) {
    named.map_or((None, None), |n| (Some(n.uuid.clone()), (!n.name.is_empty()).then(|| n.name.clone())))
}

/// Tags as answers show them.
pub(crate) async fn tags(
    db: &Db,
    kind: &str,
    ids: impl IntoIterator<Item = i64>,
) -> Result<HashMap<i64, Vec<ResourceTag>>> {
    let found = model::tags::of(db, kind, ids).await?;
    if found.is_empty() {
        return Ok(HashMap::new());
    }
    let all = || found.values().flatten();
    let wanted = Wanted {
        accounts: all().map(|t| t.account_id).collect(),
        domains: all().map(|t| t.domain_id).collect(),
        ..Wanted::default()
    };
    let names = Names::of(db, wanted).await?;
    let show = |t: &Tag| {
        let (domain_id, domain) = names.domain(t.domain_id);
        ResourceTag {
            key: Some(t.key.clone()),
            value: Some(t.value.clone()),
            resource_type: Some(t.resource_type.clone()),
            resource_id: Some(t.resource_uuid.clone()),
            account: names.account(t.account_id),
            domain_id,
            domain,
            ..ResourceTag::default()
        }
    };
    Ok(found.iter().map(|(id, tags)| (*id, tags.iter().map(show).collect())).collect())
}
