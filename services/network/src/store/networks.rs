//! Networks.

use super::page;
use model::state::NetworkState;
use model::{ListScope, Owner};
use std::collections::HashMap;
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// A network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: Option<String>,
    /// Text for users.
    pub display_text: Option<String>,
    /// Zone.
    pub zone_id: i64,
    /// Physical network.
    pub physical_network_id: Option<i64>,
    /// Offering.
    pub offering_id: i64,
    /// Guest, Public, …
    pub traffic_type: String,
    /// Isolated, Shared, L2.
    pub guest_type: Option<String>,
    /// Vlan, Vxlan, Native, LinkLocal.
    pub broadcast_type: String,
    /// "vlan://77" once a VLAN is taken.
    pub broadcast_uri: Option<String>,
    /// The VLAN.
    pub vnet: Option<i64>,
    /// Whether an administrator gave the VLAN.
    pub specified_vlan: bool,
    /// Gateway.
    pub gateway: Option<String>,
    /// Netmask.
    pub netmask: Option<String>,
    /// CIDR from which guests get addresses.
    pub cidr: Option<String>,
    /// CIDR of the whole network, where a part is reserved.
    pub network_cidr: Option<String>,
    /// DNS domain.
    pub network_domain: Option<String>,
    /// Id in another system.
    pub external_id: Option<String>,
    /// State.
    pub state: NetworkState,
    /// Account, Domain.
    pub acl_type: Option<String>,
    /// Whether subdomains may use it.
    pub subdomain_access: bool,
    /// Whether all accounts may.
    pub is_public: bool,
    /// Whether the system made it for itself.
    pub is_system: bool,
    /// Whether its owner sees it.
    pub display_network: bool,
    /// Whether it runs with settings older than its own.
    pub restart_required: bool,
    /// Owner.
    pub owner: Owner,
    /// Where the next router's count begins.
    pub generation: i64,
}

impl Network {
    /// Whether it is of this guest type.
    pub fn is(&self, guest_type: &str) -> bool {
        self.guest_type.as_deref() == Some(guest_type)
    }

    /// Name for texts.
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.uuid)
    }
}

const COLUMNS: &str = "n.id, n.uuid, n.name, n.display_text, n.zone_id, n.physical_network_id, n.offering_id, n.traffic_type, \
     n.guest_type, n.broadcast_type, n.broadcast_uri, n.vnet, n.specified_vlan, n.gateway, n.netmask, n.cidr, n.network_cidr, \
     n.network_domain, n.external_id, n.state, n.acl_type, n.subdomain_access, n.is_public, n.is_system, n.display_network, \
     n.restart_required, n.account_id, n.domain_id, n.domain_path, n.generation";

fn read(r: &Row) -> Result<Network> {
    Ok(Network {
        id: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        display_text: r.at(3)?,
        zone_id: r.at(4)?,
        physical_network_id: r.at(5)?,
        offering_id: r.at(6)?,
        traffic_type: r.at(7)?,
        guest_type: r.at(8)?,
        broadcast_type: r.at(9)?,
        broadcast_uri: r.at(10)?,
        vnet: r.at(11)?,
        specified_vlan: r.at(12)?,
        gateway: r.at(13)?,
        netmask: r.at(14)?,
        cidr: r.at(15)?,
        network_cidr: r.at(16)?,
        network_domain: r.at(17)?,
        external_id: r.at(18)?,
        state: r.at(19)?,
        acl_type: r.at(20)?,
        subdomain_access: r.at(21)?,
        is_public: r.at(22)?,
        is_system: r.at(23)?,
        display_network: r.at(24)?,
        restart_required: r.at(25)?,
        owner: Owner { account_id: r.at(26)?, domain_id: r.at(27)?, domain_path: r.at(28)? },
        generation: r.at(29)?,
    })
}

/// The living networks with these numbers.
pub async fn by_ids(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, Network>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM networks n WHERE n.removed IS NULL AND "))
        .in_list("n.id", super::zones::distinct(ids));
    db.all(sql).await?.iter().map(|r| read(r).map(|n| (n.id, n))).collect()
}

/// One living network.
pub async fn one(db: &Db, id: i64) -> Result<Option<Network>> {
    let sql = format!("SELECT {COLUMNS} FROM networks n WHERE n.id = ? AND n.removed IS NULL");
    db.optional(Sql::new(&sql).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// One living network, within a transaction.
pub async fn one_in(tx: &mut Tx, id: i64) -> Result<Option<Network>> {
    let sql = format!("SELECT {COLUMNS} FROM networks n WHERE n.id = ? AND n.removed IS NULL");
    tx.optional(Sql::new(&sql).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// The system's own network of a zone and traffic type.
pub async fn system(db: &Db, zone: i64, traffic: &str) -> Result<Option<Network>> {
    let sql = format!("SELECT {COLUMNS} FROM networks n WHERE n.live_key = ?");
    db.optional(Sql::new(&sql).bind(format!("system/{zone}/{traffic}"))).await?.map(|r| read(&r)).transpose()
}

/// Isolated networks with source NAT that an account owns in a zone.
pub async fn isolated_of(db: &Db, zone: i64, account: i64) -> Result<Vec<Network>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM networks n JOIN network_offerings o ON o.id = n.offering_id WHERE n.account_id = ? AND n.zone_id = ? \
         AND n.guest_type = 'Isolated' AND n.removed IS NULL AND n.is_system = 0 AND o.services LIKE '%\"SourceNat\"%' ORDER BY n.id"
    );
    db.all(Sql::new(&sql).bind(account).bind(zone)).await?.iter().map(read).collect()
}

/// Filters of a list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Number.
    pub id: Option<i64>,
    /// Zone.
    pub zone_id: Option<i64>,
    /// Guest type.
    pub guest_type: Option<String>,
    /// The system's own ones, or the others.
    pub system: Option<bool>,
    /// ACL type.
    pub acl_type: Option<String>,
    /// Traffic type.
    pub traffic_type: Option<String>,
    /// Physical network.
    pub physical_network_id: Option<i64>,
    /// Restart required.
    pub restart_required: Option<bool>,
    /// Visible to owners.
    pub display: Option<bool>,
    /// Ranges given by administrators.
    pub specify_ip_ranges: Option<bool>,
    /// Services that the offering must have.
    pub services: Vec<String>,
    /// Part of name or UUID, lower-cased.
    pub keyword: Option<String>,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

/// Shared networks that a caller may use beside what the scope shows: those for everybody, those of its domain, and those
/// of domains above that let subdomains in.
#[derive(Clone, Debug)]
pub struct SharedWith {
    /// The caller's domain.
    pub domain_id: i64,
    /// Its id path.
    pub domain_path: String,
}

fn visible(sql: Sql, scope: &ListScope, shared: Option<&SharedWith>) -> Sql {
    if matches!(scope, ListScope::All) {
        return sql;
    }
    let Some(shared) = shared else { return scope.and(sql, "n.") };
    // `and` begins with AND: the neutral condition in front makes it a term of the OR.
    let sql = scope
        .and(sql.push(" AND ((1 = 1"), "n.")
        .push(") OR n.is_public = 1 OR (n.acl_type = 'Domain' AND (n.domain_id = ?");
    sql.bind(shared.domain_id)
        .push(" OR (n.subdomain_access = 1 AND ")
        .in_list("n.domain_path", paths_above(&shared.domain_path))
        .push("))))")
}

/// "/1/", "/1/5/" for "/1/5/".
pub fn paths_above(path: &str) -> Vec<String> {
    path.char_indices().skip(1).filter(|(_, c)| *c == '/').map(|(i, _)| path[..=i].to_owned()).collect()
}

/// A page of them.
pub async fn list(
    db: &Db,
    f: &Filter,
    scope: &ListScope,
    shared: Option<&SharedWith>,
    p: &model::Page,
) -> Result<(Vec<Network>, i64)> {
    let query = |head: &str| {
        let joined = f.specify_ip_ranges.is_some() || !f.services.is_empty();
        let mut sql = Sql::new(head).push(" FROM networks n");
        if joined {
            sql = sql.push(" JOIN network_offerings o ON o.id = n.offering_id");
        }
        sql = sql
            .push(" WHERE n.removed IS NULL")
            .push_if(" AND n.id = ?", f.id)
            .push_if(" AND n.zone_id = ?", f.zone_id)
            .push_if(" AND n.guest_type = ?", f.guest_type.as_ref())
            .push_if(" AND n.is_system = ?", f.system)
            .push_if(" AND n.acl_type = ?", f.acl_type.as_ref())
            .push_if(" AND n.traffic_type = ?", f.traffic_type.as_ref())
            .push_if(" AND n.physical_network_id = ?", f.physical_network_id)
            .push_if(" AND n.restart_required = ?", f.restart_required)
            .push_if(" AND n.display_network = ?", f.display)
            .push_if(" AND o.specify_ip_ranges = ?", f.specify_ip_ranges);
        for service in &f.services {
            sql = sql.push(" AND ").contains("o.services", &format!("\"{service}\""));
        }
        if let Some(k) = &f.keyword {
            sql = sql.push(" AND (").contains("n.name_lower", k).push(" OR ").contains("n.uuid", k).push(")");
        }
        visible(model::tags::filter(sql, "Network", "n.id", &f.tags), scope, shared)
    };
    page(db, p, COLUMNS, query, " ORDER BY n.id", read).await
}

/// Writes a new network.
pub async fn insert(tx: &mut Tx, n: &Network, live_key: Option<String>) -> Result<()> {
    let now = now_micros();
    tx.exec(
        Sql::new(
            "INSERT INTO networks (id, uuid, name, name_lower, display_text, live_key, zone_id, physical_network_id, offering_id, \
             traffic_type, guest_type, broadcast_type, broadcast_uri, vnet, specified_vlan, gateway, netmask, cidr, network_cidr, \
             network_domain, external_id, state, acl_type, subdomain_access, is_public, is_system, is_default, display_network, \
             restart_required, account_id, domain_id, domain_path, generation, touched, created) VALUES ",
        )
        .tuple([
            Value::from(n.id),
            (&n.uuid).into(),
            n.name.clone().into(),
            n.name.as_deref().unwrap_or_default().to_lowercase().into(),
            n.display_text.clone().into(),
            live_key.into(),
            n.zone_id.into(),
            n.physical_network_id.into(),
            n.offering_id.into(),
            (&n.traffic_type).into(),
            n.guest_type.clone().into(),
            (&n.broadcast_type).into(),
            n.broadcast_uri.clone().into(),
            n.vnet.into(),
            n.specified_vlan.into(),
            n.gateway.clone().into(),
            n.netmask.clone().into(),
            n.cidr.clone().into(),
            n.network_cidr.clone().into(),
            n.network_domain.clone().into(),
            n.external_id.clone().into(),
            n.state.into(),
            n.acl_type.clone().into(),
            n.subdomain_access.into(),
            n.is_public.into(),
            n.is_system.into(),
            false.into(),
            n.display_network.into(),
            n.restart_required.into(),
            n.owner.account_id.into(),
            n.owner.domain_id.into(),
            (&n.owner.domain_path).into(),
            n.generation.into(),
            now.into(),
            now.into(),
        ]),
    )
    .await
    .map(drop)
}

/// Locks a living network's row for this transaction by writing it. False: it is gone, or being deleted.
pub async fn touch(tx: &mut Tx, id: i64) -> Result<bool> {
    let sql = Sql::new("UPDATE networks SET touched = ? WHERE id = ? AND removed IS NULL AND state <> 'Destroy'");
    Ok(tx.exec(sql.bind(now_micros()).bind(id)).await? > 0)
}

/// As [`touch`], for a network that must be in `state`.
pub async fn touch_in(tx: &mut Tx, id: i64, state: NetworkState) -> Result<bool> {
    let sql = Sql::new("UPDATE networks SET touched = ? WHERE id = ? AND removed IS NULL AND state = ?");
    Ok(tx.exec(sql.bind(now_micros()).bind(id).bind(state)).await? > 0)
}

/// Moves a network from one of `from` to `to`. False: it isn't in any of them.
pub async fn set_state(tx: &mut Tx, id: i64, from: &[NetworkState], to: NetworkState) -> Result<bool> {
    let sql = Sql::new("UPDATE networks SET state = ?, touched = ? WHERE id = ? AND removed IS NULL AND ")
        .bind(to)
        .bind(now_micros())
        .bind(id)
        .in_list("state", from.iter().copied());
    Ok(tx.exec(sql).await? > 0)
}

/// Writes the VLAN that a network has taken, or lets it go.
pub async fn set_broadcast(tx: &mut Tx, id: i64, vnet: Option<i64>, uri: Option<&str>) -> Result<()> {
    let sql = Sql::new("UPDATE networks SET vnet = ?, broadcast_uri = ? WHERE id = ?");
    tx.exec(sql.bind(vnet).bind(uri).bind(id)).await.map(drop)
}

/// Keeps where the next router's count begins.
pub async fn set_generation(tx: &mut Tx, id: i64, generation: i64) -> Result<()> {
    let sql = Sql::new("UPDATE networks SET generation = ? WHERE id = ? AND generation < ?");
    tx.exec(sql.bind(generation).bind(id).bind(generation)).await.map(drop)
}

/// What updateNetwork changes.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Change {
    /// Name.
    pub name: Option<String>,
    /// Text.
    pub display_text: Option<String>,
    /// DNS domain.
    pub network_domain: Option<String>,
    /// Offering.
    pub offering_id: Option<i64>,
    /// Guest CIDR and, where it is only a part, the whole one.
    pub cidr: Option<(String, Option<String>)>,
    /// Visible to its owner.
    pub display: Option<bool>,
    /// UUID.
    pub uuid: Option<String>,
}

/// Applies a change.
pub async fn update(tx: &mut Tx, id: i64, c: &Change) -> Result<bool> {
    let mut sql = Sql::new("UPDATE networks SET restart_required = 0");
    if let Some(name) = &c.name {
        sql = sql.push(", name = ?, name_lower = ?").bind(name).bind(name.to_lowercase());
    }
    if let Some((cidr, whole)) = &c.cidr {
        sql = sql.push(", cidr = ?, network_cidr = ?").bind(cidr).bind(whole.clone());
    }
    sql = sql
        .push_if(", display_text = ?", c.display_text.as_ref())
        .push_if(", network_domain = ?", c.network_domain.as_ref())
        .push_if(", offering_id = ?", c.offering_id)
        .push_if(", display_network = ?", c.display)
        .push_if(", uuid = ?", c.uuid.as_ref());
    Ok(tx.exec(sql.push(" WHERE id = ? AND removed IS NULL").bind(id)).await? > 0)
}

/// Zone and offering of networks, for accounting.
pub async fn accounting(tx: &mut Tx, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, (i64, i64)>> {
    let sql =
        Sql::new("SELECT id, zone_id, offering_id FROM networks WHERE ").in_list("id", super::zones::distinct(ids));
    tx.all(sql).await?.iter().map(|r| Ok((r.at(0)?, (r.at(1)?, r.at(2)?)))).collect()
}

/// Marks a network removed.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
    let sql = Sql::new(
        "UPDATE networks SET removed = ?, live_key = NULL, state = 'Destroy', vnet = NULL, broadcast_uri = NULL WHERE id = ? AND removed IS NULL",
    );
    tx.exec(sql.bind(now_micros()).bind(id)).await.map(drop)
}

/// Implemented networks whose offering isn't persistent, where nothing happened since `before` and no VM runs.
pub async fn idle(db: &Db, before: i64) -> Result<Vec<i64>> {
    db.all(
        Sql::new(
            "SELECT n.id FROM networks n JOIN network_offerings o ON o.id = n.offering_id LEFT JOIN routers r ON \
             r.live_network = n.id WHERE n.state = 'Implemented' AND n.removed IS NULL AND o.is_persistent = 0 AND \
             n.touched < ? AND (r.id IS NULL OR r.touched < ?) AND NOT EXISTS (SELECT 1 FROM nics c WHERE \
             c.live_network = n.id AND c.vm_id IS NOT NULL AND c.state <> 'Allocated')",
        )
        .bind(before)
        .bind(before),
    )
    .await?
    .iter()
    .map(|r| r.at(0))
    .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn domains_above_are_prefixes() {
        assert_eq!(super::paths_above("/1/5/12/"), ["/1/", "/1/5/", "/1/5/12/"]);
        assert_eq!(super::paths_above("/1/"), ["/1/"]);
    }
}
