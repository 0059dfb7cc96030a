//! A zone with tenants: two domains with a user in each, who has a machine, a disk, a network and a key pair, and an
//! administrator of the second domain.

use crate::dev::{Dev, deploy_params};
use crate::wire::Wire;
use arcus::api_client::ApiClient;
use conformance::cases::{Actor, Victim};
use contract::api::{Ref, RoleType};
use model::entity::{Ownership, source_of};
use serde_json::Value;
use std::collections::BTreeMap;
use store::{Db, Sql};

/// One who calls.
pub struct Tenant {
    pub wire: Wire,
    pub api: ApiClient,
    pub account: String,
    pub domain: String,
    pub role: RoleType,
}

pub struct Tenants {
    pub dev: Dev,
    pub db: Db,
    pub admin: Tenant,
    pub first: Tenant,
    pub second: Tenant,
    pub domain_admin: Tenant,
}

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

impl Tenants {
    pub async fn settle_in() -> Tenants {
        let dev = Dev::with_zone(2).await;
        let db = dev.db().await;
        let file: Value = serde_json::from_slice(&std::fs::read(dev.data().join("dev.json")).unwrap()).unwrap();
        let wire = Wire::new(&text(&file, "/endpoint"), &text(&file, "/apikey"), &text(&file, "/secretkey"));
        let api = wire.client();
        let root = api.call("listDomains", &[("name", "ROOT"), ("listall", "true")]).await.unwrap();
        let domain = text(&root, "/domain/0/id");
        let admin = Tenant { wire, api, account: "admin".into(), domain, role: RoleType::Admin };
        let mut domains = Vec::new();
        for name in ["first-domain", "second-domain"] {
            let made = admin.api.call("createDomain", &[("name", name)]).await.unwrap();
            domains.push(text(&made, "/domain/id"));
        }
        let first = tenant(&admin, "firstuser", &domains[0], RoleType::User).await;
        let second = tenant(&admin, "seconduser", &domains[1], RoleType::User).await;
        let domain_admin = tenant(&admin, "secondadmin", &domains[1], RoleType::DomainAdmin).await;
        let ids = dev.ids().await;
        for of in [&first, &second] {
            furnish(of, &ids).await;
        }
        dev.settle().await;
        Tenants { dev, db, admin, first, second, domain_admin }
    }

    /// A tenant as cases see it.
    pub async fn actor(&self, of: &Tenant) -> Actor {
        let ids = entities(&self.db, of).await.into_iter().map(|(kind, (uuid, _))| (kind, uuid)).collect();
        let values = [
            ("templatefilter", "executable"),
            ("isofilter", "executable"),
            ("resourcetype", "0"),
            ("resourceids", "x"),
            ("hypervisor", "Simulator"),
            ("networktype", "Advanced"),
            ("password", "x1x1x1x1"),
        ];
        let values = values.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        Actor { role: of.role, account: of.account.clone(), ids, values }
    }

    /// A tenant as one whose things are nobody else's business.
    pub async fn victim(&self, of: &Tenant) -> Victim {
        let ids = entities(&self.db, of).await;
        let owned = |kind: i32| {
            let ownership = Ref::try_from(kind).ok().and_then(source_of).map(|s| s.ownership);
            // The only templates of the zone are everybody's.
            let public = [Ref::Template as i32, Ref::Iso as i32].contains(&kind);
            !public && !matches!(ownership, None | Some(Ownership::None))
        };
        let ids: BTreeMap<i32, (String, i64)> = ids.into_iter().filter(|(kind, _)| owned(*kind)).collect();
        let named =
            [format!("{}-machine", of.account), format!("{}-network", of.account), format!("{}-disk", of.account)];
        let secrets = ids.values().map(|(uuid, _)| uuid.clone()).chain(named).collect();
        Victim { account: of.account.clone(), domain: of.domain.clone(), ids, secrets }
    }
}

/// Makes an account with a user who has keys.
async fn tenant(admin: &Tenant, name: &str, domain: &str, role: RoleType) -> Tenant {
    let kind = if role == RoleType::DomainAdmin { "2" } else { "0" };
    let params = [
        ("accounttype", kind),
        ("username", name),
        ("account", name),
        ("password", "x1x1x1x1"),
        ("firstname", "First"),
        ("lastname", "Last"),
        ("email", "someone@example.org"),
        ("domainid", domain),
    ];
    let made = admin.api.call("createAccount", &params).await.unwrap();
    let keys = admin.api.call("registerUserKeys", &[("id", &text(&made, "/account/user/0/id"))]).await.unwrap();
    let wire = admin.wire.keyed(&text(&keys, "/userkeys/apikey"), &text(&keys, "/userkeys/secretkey"));
    let api = wire.client();
    Tenant { wire, api, account: name.into(), domain: domain.into(), role }
}

/// A network, a machine in it, a disk, a key pair, an address with a load balancing rule and its stickiness policy.
async fn furnish(of: &Tenant, ids: &[String; 4]) {
    let by_name = [("name", "DefaultIsolatedNetworkOfferingWithSourceNatService")];
    let offering = of.api.call("listNetworkOfferings", &by_name).await.unwrap();
    let network = format!("{}-network", of.account);
    let params = [
        ("zoneid", ids[0].as_str()),
        ("name", network.as_str()),
        ("displaytext", network.as_str()),
        ("networkofferingid", &text(&offering, "/networkoffering/0/id")),
    ];
    let network = text(&of.api.call("createNetwork", &params).await.unwrap(), "/network/id");
    let machine = format!("{}-machine", of.account);
    let mut ids = ids.clone();
    ids[3] = network.clone();
    let machine = of.api.run("deployVirtualMachine", &deploy_params(&ids, &machine)).await.unwrap();
    let offerings = of.api.call("listDiskOfferings", &[("name", "Small")]).await.unwrap();
    let disk = format!("{}-disk", of.account);
    let offering = text(&offerings, "/diskoffering/0/id");
    let params = [("zoneid", ids[0].as_str()), ("name", disk.as_str()), ("diskofferingid", offering.as_str())];
    of.api.run("createVolume", &params).await.unwrap();
    of.api.call("createSSHKeyPair", &[("name", &format!("{}-key", of.account))]).await.unwrap();
    of.api.call("createInstanceGroup", &[("name", &format!("{}-group", of.account))]).await.unwrap();
    let group = format!("{}-affinity", of.account);
    of.api.run("createAffinityGroup", &[("name", &group), ("type", "host anti-affinity")]).await.unwrap();
    let address = of.api.run("associateIpAddress", &[("networkid", &network)]).await.unwrap();
    let address = text(&address, "/ipaddress/id");
    let rule = [
        ("publicipid", address.as_str()),
        ("name", "web"),
        ("algorithm", "roundrobin"),
        ("publicport", "80"),
        ("privateport", "8080"),
    ];
    let rule = text(&of.api.run("createLoadBalancerRule", &rule).await.unwrap(), "/loadbalancer/id");
    let members = [("id", rule.as_str()), ("virtualmachineids", &text(&machine, "/virtualmachine/id"))];
    of.api.run("assignToLoadBalancerRule", &members).await.unwrap();
    let policy = [("lbruleid", rule.as_str()), ("name", "sticky"), ("methodname", "SourceBased")];
    of.api.run("createLBStickinessPolicy", &policy).await.unwrap();
}

/// All kinds that exist.
pub fn kinds() -> impl Iterator<Item = Ref> {
    (1..100).filter_map(|n| Ref::try_from(n).ok()).filter(|kind| source_of(*kind).is_some())
}

/// One entity a kind that `of` may use: of those that have owners, one of its own, or for administrators one in its domain.
async fn entities(db: &Db, of: &Tenant) -> BTreeMap<i32, (String, i64)> {
    let account =
        Sql::new("SELECT id, domain_path FROM accounts WHERE name = ? AND removed IS NULL").bind(of.account.as_str());
    let row = db.one(account).await.unwrap();
    let (account, path): (i64, String) = (row.at(0).unwrap(), row.at(1).unwrap());
    let mut out = BTreeMap::new();
    for kind in kinds() {
        let source = source_of(kind).unwrap();
        let alive = if kind == Ref::Job { "1 = 1" } else { "removed IS NULL" };
        let mut sql = Sql::new(&format!("SELECT uuid, id FROM {} WHERE {alive}", source.table));
        if let Some(condition) = source.condition {
            sql = sql.push(" AND ").push(condition);
        }
        sql = match source.ownership {
            Ownership::None => sql,
            Ownership::Domain => sql.push(" AND path = ?").bind(path.as_str()),
            Ownership::IsAccount => sql.push(" AND id = ?").bind(account),
            Ownership::AccountOrPublic if kind == Ref::Template || kind == Ref::Iso => sql.push(" AND is_public = 1"),
            _ if of.role == RoleType::DomainAdmin => sql.push(" AND domain_path = ?").bind(path.as_str()),
            _ => sql.push(" AND account_id = ?").bind(account),
        };
        // Some commands look closer than at the kind: what they take comes first.
        let preferred = match kind {
            Ref::ServiceOffering => "CASE name WHEN 'Small Instance' THEN 0 ELSE 1 END, ",
            Ref::DiskOffering => "CASE name WHEN 'Small' THEN 0 ELSE 1 END, ",
            Ref::NetworkOffering => {
                "CASE name WHEN 'DefaultIsolatedNetworkOfferingWithSourceNatService' THEN 0 ELSE 1 END, "
            }
            Ref::Volume => "CASE WHEN name LIKE '%-disk' THEN 0 ELSE 1 END, ",
            _ => "",
        };
        sql = sql.push(&format!(" ORDER BY {preferred}id LIMIT 1"));
        if let Some(row) = db.optional(sql).await.unwrap() {
            out.insert(kind as i32, (row.at(0).unwrap(), row.at(1).unwrap()));
        }
    }
    out
}
