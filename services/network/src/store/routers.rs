//! Routers: rows and generations.

use super::page;
use model::{ListScope, Owner};
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// State while its first spec isn't applied on its host.
pub const STARTING: &str = "Starting";
/// State once a spec is applied.
pub const RUNNING: &str = "Running";

/// A part of a router's spec that changes by itself. Leases have a way of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// NICs and addresses.
    Interfaces,
    /// Source NAT, static NAT, port forwarding.
    Nat,
    /// What may pass.
    Firewall,
    /// Load balancing.
    Balancers,
}

impl Section {
    fn column(self) -> &'static str {
        match self {
            Section::Interfaces => "interfaces_generation",
            Section::Nat => "nat_generation",
            Section::Firewall => "firewall_generation",
            Section::Balancers => "balancers_generation",
        }
    }
}

/// The generations that brought the last change of each section; 0: none since the whole spec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sections {
    interfaces: i64,
    nat: i64,
    firewall: i64,
    balancers: i64,
}

impl Sections {
    /// Whether a section changed after a generation.
    pub fn after(&self, section: Section, base: i64) -> bool {
        let last = match section {
            Section::Interfaces => self.interfaces,
            Section::Nat => self.nat,
            Section::Firewall => self.firewall,
            Section::Balancers => self.balancers,
        };
        last > base
    }

    /// Whether any of them did.
    pub fn any_after(&self, base: i64) -> bool {
        self.interfaces.max(self.nat).max(self.firewall).max(self.balancers) > base
    }
}

/// A router.
#[derive(Clone, Debug)]
pub struct Router {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// "r-5-VM".
    pub name: String,
    /// Network that it serves.
    pub network_id: i64,
    /// Zone.
    pub zone_id: i64,
    /// Pod of its host.
    pub pod_id: Option<i64>,
    /// Cluster of its host.
    pub cluster_id: Option<i64>,
    /// Host.
    pub host_id: Option<i64>,
    /// Starting, Running, Stopping, Stopped.
    pub state: String,
    /// Address on the guest network.
    pub guest_ip: Option<String>,
    /// MAC on the guest network.
    pub guest_mac: Option<String>,
    /// Public address.
    pub public_ip: Option<String>,
    /// Number of that address.
    pub public_ip_id: Option<i64>,
    /// MAC on the public network.
    pub public_mac: Option<String>,
    /// Last wanted change.
    pub generation: i64,
    /// Last wanted change that concerns the whole spec.
    pub spec_generation: i64,
    /// Last wanted change of each section.
    pub sections: Sections,
    /// What its host has.
    pub applied: i64,
    /// Rises when it moves.
    pub epoch: i64,
    /// Owner.
    pub owner: Owner,
    /// When made, UTC µs.
    pub created: i64,
}

/// How many columns [`COLUMNS`] are.
pub(super) const WIDTH: usize = 26;

pub(super) const COLUMNS: &str = "r.id, r.uuid, r.name, r.network_id, r.zone_id, r.pod_id, r.cluster_id, r.host_id, r.state, r.guest_ip, \
     r.guest_mac, r.public_ip, r.public_ip_id, r.public_mac, r.generation, r.spec_generation, r.applied, r.epoch, r.account_id, \
     r.domain_id, r.domain_path, r.created, r.interfaces_generation, r.nat_generation, r.firewall_generation, \
     r.balancers_generation";

pub(super) fn read(r: &Row) -> Result<Router> {
    Ok(Router {
        id: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        network_id: r.at(3)?,
        zone_id: r.at(4)?,
        pod_id: r.at(5)?,
        cluster_id: r.at(6)?,
        host_id: r.at(7)?,
        state: r.at(8)?,
        guest_ip: r.at(9)?,
        guest_mac: r.at(10)?,
        public_ip: r.at(11)?,
        public_ip_id: r.at(12)?,
        public_mac: r.at(13)?,
        generation: r.at(14)?,
        spec_generation: r.at(15)?,
        applied: r.at(16)?,
        epoch: r.at(17)?,
        owner: Owner { account_id: r.at(18)?, domain_id: r.at(19)?, domain_path: r.at(20)? },
        created: r.at(21)?,
        sections: Sections { interfaces: r.at(22)?, nat: r.at(23)?, firewall: r.at(24)?, balancers: r.at(25)? },
    })
}

/// The living router of a network.
pub async fn of_network(db: &Db, network: i64) -> Result<Option<Router>> {
    let sql = format!("SELECT {COLUMNS} FROM routers r WHERE r.live_network = ?");
    db.optional(Sql::new(&sql).bind(network)).await?.map(|r| read(&r)).transpose()
}

/// The same within a transaction.
pub async fn of_network_in(tx: &mut Tx, network: i64) -> Result<Option<Router>> {
    let sql = format!("SELECT {COLUMNS} FROM routers r WHERE r.live_network = ?");
    tx.optional(Sql::new(&sql).bind(network)).await?.map(|r| read(&r)).transpose()
}

/// A living router.
pub async fn one(db: &Db, id: i64) -> Result<Option<Router>> {
    let sql = format!("SELECT {COLUMNS} FROM routers r WHERE r.id = ? AND r.removed IS NULL");
    db.optional(Sql::new(&sql).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// The same within a transaction.
pub async fn by_id_in(tx: &mut Tx, id: i64) -> Result<Option<Router>> {
    let sql = format!("SELECT {COLUMNS} FROM routers r WHERE r.id = ? AND r.removed IS NULL");
    tx.optional(Sql::new(&sql).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// Filters of a list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Number.
    pub id: Option<i64>,
    /// Name.
    pub name: Option<String>,
    /// Host.
    pub host_id: Option<i64>,
    /// Pod.
    pub pod_id: Option<i64>,
    /// Cluster.
    pub cluster_id: Option<i64>,
    /// Zone.
    pub zone_id: Option<i64>,
    /// Network.
    pub network_id: Option<i64>,
    /// State.
    pub state: Option<String>,
    /// Part of the name, lower-cased.
    pub keyword: Option<String>,
}

/// A page of them.
pub async fn list(db: &Db, f: &Filter, scope: &ListScope, p: &model::Page) -> Result<(Vec<Router>, i64)> {
    let query = |head: &str| {
        let mut sql = Sql::new(head)
            .push(" FROM routers r WHERE r.removed IS NULL")
            .push_if(" AND r.id = ?", f.id)
            .push_if(" AND r.name = ?", f.name.as_ref())
            .push_if(" AND r.host_id = ?", f.host_id)
            .push_if(" AND r.pod_id = ?", f.pod_id)
            .push_if(" AND r.cluster_id = ?", f.cluster_id)
            .push_if(" AND r.zone_id = ?", f.zone_id)
            .push_if(" AND r.network_id = ?", f.network_id)
            .push_if(" AND LOWER(r.state) = ?", f.state.as_ref().map(|s| s.to_lowercase()));
        if let Some(k) = &f.keyword {
            sql = sql.push(" AND ").contains("r.name_lower", k);
        }
        scope.and(sql, "r.")
    };
    page(db, p, COLUMNS, query, " ORDER BY r.id", read).await
}

/// Writes a new router. A unique violation means that the network has one.
pub async fn insert(tx: &mut Tx, r: &Router, hypervisor: Option<&str>) -> Result<()> {
    let now = now_micros();
    tx.exec(
        Sql::new(
            "INSERT INTO routers (id, uuid, name, name_lower, network_id, live_network, zone_id, pod_id, cluster_id, host_id, \
             hypervisor, state, role, guest_ip, guest_mac, public_ip, public_ip_id, public_mac, generation, spec_generation, \
             applied, epoch, touched, account_id, domain_id, domain_path, created) VALUES ",
        )
        .tuple([
            Value::from(r.id),
            (&r.uuid).into(),
            (&r.name).into(),
            r.name.to_lowercase().into(),
            r.network_id.into(),
            r.network_id.into(),
            r.zone_id.into(),
            r.pod_id.into(),
            r.cluster_id.into(),
            r.host_id.into(),
            hypervisor.into(),
            (&r.state).into(),
            "VIRTUAL_ROUTER".into(),
            r.guest_ip.clone().into(),
            r.guest_mac.clone().into(),
            r.public_ip.clone().into(),
            r.public_ip_id.into(),
            r.public_mac.clone().into(),
            r.generation.into(),
            r.spec_generation.into(),
            0i64.into(),
            r.epoch.into(),
            now.into(),
            r.owner.account_id.into(),
            r.owner.domain_id.into(),
            (&r.owner.domain_path).into(),
            now.into(),
        ]),
    )
    .await
    .map(drop)
}

/// Raises the generation for a change of leases, if the router is still the one that the caller knows. It locks the row:
/// from here to the commit the network can't be shut down. False: look again.
pub async fn raise_for_lease(tx: &mut Tx, id: i64, spec_generation: i64) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE routers SET generation = generation + 1, touched = ? WHERE id = ? AND spec_generation = ? AND state = 'Running' AND removed IS NULL",
    );
    Ok(tx.exec(sql.bind(now_micros()).bind(id).bind(spec_generation)).await? > 0)
}

/// Raises the generation of the routers of a VM's networks: its leases go.
pub async fn raise_for_vm(tx: &mut Tx, vm: i64) -> Result<()> {
    let sql = Sql::new(
        "UPDATE routers SET generation = generation + 1, touched = ? WHERE live_network IN (SELECT network_id FROM nics WHERE vm_id = ? AND removed IS NULL)",
    );
    tx.exec(sql.bind(now_micros()).bind(vm)).await.map(drop)
}

/// Raises the generation for a change of some sections, which are all that the router is told. False: the network has no
/// router.
pub async fn raise_for(tx: &mut Tx, network: i64, sections: &[Section]) -> Result<bool> {
    // The order matters where assignments see each other (MySQL): all end at the old generation plus one.
    let columns: String = sections.iter().map(|s| format!("{} = generation + 1, ", s.column())).collect();
    let sql = format!("UPDATE routers SET {columns}generation = generation + 1, touched = ? WHERE live_network = ?");
    Ok(tx.exec(Sql::new(&sql).bind(now_micros()).bind(network)).await? > 0)
}

/// Raises the generation for a change that concerns the whole spec. False: the network has no router.
pub async fn raise_for_spec(tx: &mut Tx, network: i64) -> Result<bool> {
    // The order matters where assignments see each other (MySQL): both columns end at the old generation plus one.
    let sql = Sql::new(
        "UPDATE routers SET spec_generation = generation + 1, generation = generation + 1, touched = ? WHERE live_network = ?",
    );
    Ok(tx.exec(sql.bind(now_micros()).bind(network)).await? > 0)
}

/// Locks the row by writing it, and shows that the router is in use. False: it is gone.
pub async fn touch(tx: &mut Tx, network: i64) -> Result<bool> {
    let sql = Sql::new("UPDATE routers SET touched = ? WHERE live_network = ? AND state = 'Running'");
    Ok(tx.exec(sql.bind(now_micros()).bind(network)).await? > 0)
}

/// Puts a router on another host. What the old one has is left over there. False: another was faster.
pub async fn move_to(tx: &mut Tx, r: &Router, host: &contract_infra::PickHostResponse) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE routers SET host_id = ?, pod_id = ?, cluster_id = ?, epoch = epoch + 1, applied = 0, state = 'Starting', touched = ? \
         WHERE id = ? AND epoch = ? AND removed IS NULL",
    );
    let moved = tx
        .exec(
            sql.bind(host.host_id).bind(host.pod_id).bind(host.cluster_id).bind(now_micros()).bind(r.id).bind(r.epoch),
        )
        .await?;
    if moved > 0
        && let Some(old) = r.host_id
        && old != host.host_id
    {
        leave(tx, &r.uuid, old).await?;
        // It may have been left here before; now it is wanted here.
        let sql = Sql::new("DELETE FROM router_leftovers WHERE router_uuid = ? AND host_id = ?");
        tx.exec(sql.bind(&r.uuid).bind(host.host_id)).await?;
    }
    Ok(moved > 0)
}

/// Records what a router's host has. False: the router has moved or gone, or more is recorded.
pub async fn set_applied(tx: &mut Tx, id: i64, epoch: i64, generation: i64, faults: Option<&str>) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE routers SET applied = ?, state = 'Running', faults = ? WHERE id = ? AND epoch = ? AND applied < ? AND \
         state IN ('Starting', 'Running') AND removed IS NULL",
    );
    Ok(tx.exec(sql.bind(generation).bind(faults).bind(id).bind(epoch).bind(generation)).await? > 0)
}

/// Marks a router removed; its host is to drop it.
pub async fn remove(tx: &mut Tx, r: &Router) -> Result<bool> {
    let sql = Sql::new(
        "UPDATE routers SET removed = ?, live_network = NULL, state = 'Stopped' WHERE id = ? AND removed IS NULL",
    );
    let gone = tx.exec(sql.bind(now_micros()).bind(r.id)).await? > 0;
    if gone && let Some(host) = r.host_id {
        leave(tx, &r.uuid, host).await?;
    }
    Ok(gone)
}

/// A host may still have a router: it is to drop it.
pub(super) async fn leave(tx: &mut Tx, uuid: &str, host: i64) -> Result<()> {
    let gone = Sql::new("DELETE FROM router_leftovers WHERE router_uuid = ? AND host_id = ?").bind(uuid).bind(host);
    tx.exec(gone).await?;
    let sql = Sql::new("INSERT INTO router_leftovers (router_uuid, host_id, created) VALUES (?, ?, ?)");
    tx.exec(sql.bind(uuid).bind(host).bind(now_micros())).await.map(drop)
}

/// Leftovers on hosts that could drop them now, and on hosts that are gone (false).
pub async fn leftovers(db: &Db) -> Result<Vec<(String, i64, bool)>> {
    db.all(Sql::new(
        "SELECT l.router_uuid, l.host_id, CASE WHEN h.id IS NULL THEN 0 ELSE 1 END FROM router_leftovers l LEFT JOIN hosts h ON \
         h.id = l.host_id AND h.removed IS NULL WHERE h.id IS NULL OR h.status = 'Up' ORDER BY l.created LIMIT 200",
    ))
    .await?
    .iter()
    .map(|r| Ok((r.at(0)?, r.at(1)?, r.at(2)?)))
    .collect()
}

/// A leftover is done with.
pub async fn forget_leftover(tx: &mut Tx, uuid: &str, host: i64) -> Result<()> {
    let sql = Sql::new("DELETE FROM router_leftovers WHERE router_uuid = ? AND host_id = ?");
    tx.exec(sql.bind(uuid).bind(host)).await.map(drop)
}

/// Routers that want work which nobody seems to do: changes not applied since `before`, and those on hosts that are gone,
/// or being emptied. One on a silent host stays: nobody knows whether it still runs there.
pub async fn neglected(db: &Db, before: i64) -> Result<Vec<i64>> {
    db.all(
        Sql::new(
            "SELECT r.id FROM routers r LEFT JOIN hosts h ON h.id = r.host_id AND h.removed IS NULL WHERE r.removed IS NULL AND \
             r.state IN ('Starting', 'Running') AND ((r.applied < r.generation AND r.touched < ? AND (h.status = 'Up' OR h.id IS NULL)) OR h.id IS NULL \
             OR h.status IN ('Down', 'Removed') \
             OR (h.status = 'Up' AND h.resource_state IN ('PrepareForMaintenance', 'Maintenance', 'ErrorInMaintenance')))",
        )
        .bind(before),
    )
    .await?
    .iter()
    .map(|r| r.at(0))
    .collect()
}

/// The routers that a host should have.
pub async fn on_host(db: &Db, host: i64) -> Result<Vec<i64>> {
    db.all(Sql::new("SELECT id FROM routers WHERE host_id = ? AND removed IS NULL").bind(host))
        .await?
        .iter()
        .map(|r| r.at(0))
        .collect()
}

/// The router with this UUID, when it belongs on that host: its number.
pub async fn belongs(db: &Db, uuid: &str, host: i64) -> Result<Option<i64>> {
    let sql = Sql::new("SELECT id FROM routers WHERE uuid = ? AND host_id = ? AND removed IS NULL");
    db.optional(sql.bind(uuid).bind(host)).await?.map(|r| r.at(0)).transpose()
}
