//! Implementing a network on first use: a VLAN, a source NAT address, a router on a host. One commit; then the router's
//! worker applies the spec, which ends in state Implemented. A crash in between leaves a router whose generation isn't
//! applied: any replica's worker goes on from there.

use crate::address::{VlanRanges, ip, mac_of, number};
use crate::network::View;
use crate::store::ips::{self, PublicIp, Taking};
use crate::store::nics::{self, Nic};
use crate::store::physical::{self, Physical};
use crate::store::routers::{self, Router};
use crate::store::{networks, power, providers, ranges};
use crate::world::{LIMIT_PUBLIC_IP, World};
use contract::ApiError;
use contract::api::Caller;
use contract_infra::PickHostResponse;
use events::{EventRecord, EventState, Record, UsageRecord};
use model::state::NetworkState;
use rand::Rng;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Error, Tx, now_micros};

/// How long a use of a network waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The network, implemented: the first who asks does it, the others wait.
///
/// # Errors
/// 533 when no VLAN, address or host is free, 534 when the host doesn't answer, 431 when the network can't be implemented.
pub async fn ready(world: &World, caller: &Caller, id: i64) -> Result<Arc<View>, ApiError> {
    let db = &world.node.db;
    let view = world.views.get(db, id).await?;
    if view.is_ready() {
        return Ok(view);
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        // Many deploys at once in a fresh network: one implements it, the others find it done.
        let name = format!("implement/{id}");
        let Ok(gate) = tokio::time::timeout_at(deadline, world.gates.enter(&name)).await else {
            // Whoever is at it waits for a host: a caller who would only stand behind it is told to come again.
            return Err(ApiError::unavailable(format!(
                "network {} isn't implemented yet after {PATIENCE:?}",
                view.network.title()
            )));
        };
        let view = world.views.fresh(db, id).await?;
        if view.is_ready() {
            return Ok(view);
        }
        match (&view.router, view.network.state) {
            // As in 4.11, a network that is used starts its router, whoever stopped it.
            (Some(router), _) if router.state == power::STOPPED => crate::router::wake_up(world, router).await?,
            // Its job brings it there, or back.
            (Some(router), _) if router.state == power::STOPPING => {
                drop(gate);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (Some(router), _) => {
                let router = router.id;
                drop(gate);
                world.routers.applied(router, PATIENCE).await?;
            }
            // One that is Implemented has lost its router: it gets a new one.
            (None, NetworkState::Allocated | NetworkState::Implemented) => implement(world, caller, &view).await?,
            // Another replica is at it.
            (None, NetworkState::Implementing | NetworkState::Shutdown) => {
                drop(gate);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (None, state) => {
                return Err(ApiError::param(format!(
                    "network {} can't be used: it is in state {state}",
                    view.network.title()
                )));
            }
        }
        if tokio::time::Instant::now() > deadline {
            return Err(ApiError::unavailable(format!(
                "network {} isn't implemented yet after {PATIENCE:?}",
                view.network.title()
            )));
        }
    }
}

/// What one implementation takes.
struct Plan {
    physical: Physical,
    ranges: VlanRanges,
    taken: HashSet<i64>,
    address: Option<Address>,
    host: Option<PickHostResponse>,
    router: Option<Router>,
    nics: Vec<Nic>,
}

/// The source NAT address.
struct Address {
    ip: PublicIp,
    /// Whether the network has it already.
    owned: bool,
    holder: String,
}

impl Address {
    fn key(&self) -> String {
        ips::limit_key(&self.ip.uuid, &self.holder)
    }
}

async fn implement(world: &World, caller: &Caller, view: &View) -> Result<(), ApiError> {
    let db = &world.node.db;
    let physical = physical_of(world, view).await?;
    let host = match view.offering.needs_router() {
        true => Some(crate::router::pick_host(&world.node, view.network.zone_id, Vec::new()).await?),
        false => None,
    };
    for _ in 0..16 {
        let mut plan = Plan {
            ranges: VlanRanges::stored(physical.vlan.as_deref()),
            taken: physical::vnets(db, physical.id).await?,
            physical: physical.clone(),
            address: source_nat(world, caller, view).await?,
            host: host.clone(),
            router: None,
            nics: Vec::new(),
        };
        let made = carry_out(world, caller, view, &mut plan).await;
        if !matches!(made, Ok(true))
            && let Some(address) = plan.address.as_ref().filter(|a| !a.owned)
        {
            world.release(caller, &address.key()).await;
        }
        if made? {
            world.changed(view.network.id);
            if let Some(router) = plan.router {
                world.routers.applied(router.id, PATIENCE).await?;
            }
            return Ok(());
        }
        let now = world.views.fresh(db, view.network.id).await?;
        if now.network.state != NetworkState::Allocated {
            return Ok(()); // another replica was faster
        }
    }
    Err(ApiError::concurrent(format!(
        "network {} could not be implemented: others were always faster",
        view.network.title()
    )))
}

/// False: what was planned is no longer free.
async fn carry_out(world: &World, caller: &Caller, view: &View, plan: &mut Plan) -> Result<bool, ApiError> {
    let db = &world.node.db;
    let network = &view.network;
    let mut guest = None;
    if let Some(host) = &plan.host {
        let number = db.next_id("routers").await?;
        if !view.offering.source_nat() && view.has_addresses() {
            guest = Some(world.pools.propose(db, view, None).await?);
        }
        let guest_ip = match &guest {
            Some(proposal) => Some(ip(i64::from(proposal.address())).to_string()),
            None => network.gateway.clone(),
        };
        let identifier = world.node.settings.get(config::keys::MAC_IDENTIFIER);
        let first_mac = db.next_ids("macs", 2).await?;
        let router = Router {
            id: number,
            uuid: model::new_uuid(),
            name: format!("r-{number}-VM"),
            network_id: network.id,
            zone_id: network.zone_id,
            pod_id: Some(host.pod_id),
            cluster_id: Some(host.cluster_id),
            host_id: Some(host.host_id),
            state: routers::STARTING.into(),
            guest_ip,
            guest_mac: Some(mac_of(identifier, first_mac).0),
            public_ip: plan.address.as_ref().map(|a| a.ip.ip.clone()),
            public_ip_id: plan.address.as_ref().map(|a| a.ip.id),
            public_mac: plan.address.as_ref().map(|_| mac_of(identifier, first_mac + 1).0),
            generation: network.generation + 1,
            spec_generation: network.generation + 1,
            sections: routers::Sections::default(),
            applied: 0,
            epoch: 1,
            owner: network.owner.clone(),
            created: now_micros(),
        };
        plan.nics = router_nics(world, view, plan, &router).await?;
        plan.router = Some(router);
    }
    let mut stale = false;
    let done = store::tx!(db, "implement-network", |tx| {
        stale = false;
        match write(tx, caller, view, plan).await {
            Ok(()) => Ok(()),
            Err(Refused::Error(error)) => Err(error),
            Err(Refused::Stale) => {
                stale = true;
                Err(ApiError::concurrent("what was planned is no longer free".to_owned()))
            }
        }
    })
    .await;
    match done {
        Ok(()) => {
            if let Some(proposal) = guest {
                proposal.keep();
            }
            Ok(true)
        }
        Err(_) if stale => {
            if let Some(proposal) = guest {
                proposal.lost();
            }
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

enum Refused {
    Stale,
    Error(ApiError),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error {
            Error::Unique { .. } => Refused::Stale,
            other => Refused::Error(other.into()),
        }
    }
}

async fn write(tx: &mut Tx, caller: &Caller, view: &View, plan: &Plan) -> Result<(), Refused> {
    let network = &view.network;
    let next = if plan.router.is_some() { NetworkState::Implementing } else { NetworkState::Implemented };
    // One that is Implemented lacks its router; that nobody made one since is seen by the router's unique network.
    let from: &[NetworkState] = match plan.router {
        Some(_) => &[NetworkState::Allocated, NetworkState::Implemented],
        None => &[NetworkState::Allocated],
    };
    if !networks::set_state(tx, network.id, from, next).await? {
        return Err(Refused::Stale);
    }
    let mut records = Vec::new();
    // A network that restarts keeps its VLAN: VMs run on it.
    if network.broadcast_uri.is_none() {
        let vnet = take_vlan(tx, view, plan).await?;
        let uri = crate::address::uri_of(plan.physical.scheme(), &vnet.to_string());
        networks::set_broadcast(tx, network.id, Some(vnet), Some(&uri)).await?;
        nics::set_broadcast(tx, network.id, Some(&uri)).await?;
        records.push(event(
            caller,
            view,
            "ZONE.VLAN.ASSIGN",
            format!("Assigned zone vlan {vnet} to network {}", network.title()),
        ));
    }
    if let Some(address) = plan.address.as_ref().filter(|a| !a.owned) {
        let taking = Taking {
            owner: &network.owner,
            network_id: network.id,
            source_nat: true,
            state: "Allocated",
            display: true,
            holder: &address.holder,
        };
        if !ips::take(tx, address.ip.id, &taking).await? {
            return Err(Refused::Stale);
        }
        let text = format!("Allocated source NAT address {} for network {}", address.ip.ip, network.title());
        records.push(event(caller, view, "NET.IPASSIGN", text));
        records.push(Record::Usage(ip_usage("NET.IPASSIGN", &address.ip, &network.owner, true)));
    }
    if let Some(router) = &plan.router {
        routers::insert(tx, router, None).await?;
        nics::insert(tx, &plan.nics, &HashMap::new()).await?;
        records.push(event(
            caller,
            view,
            "ROUTER.CREATE",
            format!("Creating router {} for network {}", router.name, network.title()),
        ));
    }
    events::record(tx, &records).await?;
    Ok(())
}

async fn take_vlan(tx: &mut Tx, view: &View, plan: &Plan) -> Result<i64, Refused> {
    let mut taken = plan.taken.clone();
    loop {
        let Some(vnet) = plan.ranges.pick(&taken, &mut rand::rng()) else {
            return Err(Refused::Error(
                ApiError::capacity(format!(
                    "Unable to allocate vnet as a part of network {} implement: physical network {} has no free VLAN in {}",
                    view.network.title(),
                    plan.physical.name,
                    plan.ranges
                ))
                .with_entity(&plan.physical.uuid, "physicalnetworkid"),
            ));
        };
        match physical::take_vnet(tx, plan.physical.id, vnet, 0, view.network.id).await {
            Ok(()) => return Ok(vnet),
            Err(Error::Unique { .. }) => taken.insert(vnet),
            Err(e) => return Err(e.into()),
        };
    }
}

async fn physical_of(world: &World, view: &View) -> Result<Physical, ApiError> {
    let db = &world.node.db;
    let network = &view.network;
    let none = || ApiError::param(format!("network {} has no physical network", network.title()));
    let physical = physical::one(db, network.physical_network_id.ok_or_else(none)?).await?.ok_or_else(none)?;
    if view.offering.needs_router() {
        check_provider(world, &physical).await?;
    }
    Ok(physical)
}

/// Fails where the router provider isn't enabled on a physical network.
///
/// # Errors
/// 431 that says what to do.
pub async fn check_provider(world: &World, physical: &Physical) -> Result<(), ApiError> {
    let provider = crate::catalogue::VIRTUAL_ROUTER;
    if providers::state(&world.node.db, physical.id, provider).await?.as_deref() == Some("Enabled") {
        return Ok(());
    }
    Err(ApiError::param(format!(
        "Provider {provider} is either not enabled or not added to physical network {}: enable it with updateNetworkServiceProvider",
        physical.name
    ))
    .with_entity(&physical.uuid, "physicalnetworkid"))
}

/// The address that the network's guests go out by: its own, or a free one with its reservation made.
async fn source_nat(world: &World, caller: &Caller, view: &View) -> Result<Option<Address>, ApiError> {
    let db = &world.node.db;
    let network = &view.network;
    if !view.offering.source_nat() {
        return Ok(None);
    }
    if let Some(own) = ips::of_network(db, network.id).await?.into_iter().find(|ip| ip.is_source_nat) {
        let holder = own.holder.clone().unwrap_or_default();
        return Ok(Some(Address { ip: own, owned: true, holder }));
    }
    let ip = free_address(world, view, network.owner.account_id).await?;
    let address = Address { ip, owned: false, holder: model::new_uuid() };
    world.reserve(caller, &address.key(), network.owner.account_id, LIMIT_PUBLIC_IP).await?;
    Ok(Some(address))
}

/// A free public address of the network's zone, random among the next few.
///
/// # Errors
/// 533 when there is none.
pub async fn free_address(world: &World, view: &View, account: i64) -> Result<PublicIp, ApiError> {
    let db = &world.node.db;
    let zone = view.network.zone_id;
    let system_too = world.node.settings.get_in(config::keys::USE_SYSTEM_PUBLIC_IPS, config::Scope::Account(account));
    let own_only = !system_too && ranges::has_dedicated(db, zone, account).await?;
    let candidates = ips::candidates(db, zone, account, own_only, 0).await?;
    // Those dedicated to the account come first and stay first.
    let Some(first) = candidates.first() else {
        return Err(ApiError::capacity(format!(
            "Insufficient address capacity: no public address is free in the zone of network {}; add a range with createVlanIpRange",
            view.network.title()
        ))
        .with_entity(&view.network.uuid, "networkid"));
    };
    let same = candidates.iter().take_while(|c| c.vlan_range_id == first.vlan_range_id).count();
    let n = rand::rng().random_range(0..same);
    candidates.into_iter().nth(n).ok_or_else(|| ApiError::internal("an address vanished from a list".to_owned()))
}

async fn router_nics(world: &World, view: &View, plan: &Plan, router: &Router) -> Result<Vec<Nic>, ApiError> {
    let db = &world.node.db;
    let first = db.next_ids("nics", 2).await?;
    let blank = |id: i64, network_id: i64, device_id: i64, mac: &str| Nic {
        id,
        uuid: model::new_uuid(),
        network_id,
        vm_id: None,
        router_id: Some(router.id),
        device_id,
        is_default: false,
        mac: mac.to_owned(),
        ip: None,
        ip_number: None,
        netmask: None,
        gateway: None,
        broadcast_uri: None,
        traffic_type: "Guest".into(),
        guest_type: None,
        state: nics::RESERVED.into(),
        host_id: None,
        host_name: None,
        vm_uuid: None,
        lease_generation: 0,
        owner: router.owner.clone(),
    };
    let mut all = Vec::new();
    if let Some(mac) = &router.guest_mac {
        let mut nic = blank(first, view.network.id, 0, mac);
        let address: Option<std::net::Ipv4Addr> = router.guest_ip.as_deref().and_then(|ip| ip.parse().ok());
        view.dress(&mut nic, address.map(u32::from));
        nic.netmask = nic.netmask.or_else(|| view.network.netmask.clone());
        all.push(nic);
    }
    if let (Some(mac), Some(address)) = (&router.public_mac, &plan.address) {
        let mut nic = blank(first + 1, address.ip.source_network_id, 2, mac);
        nic.is_default = true;
        nic.traffic_type = "Public".into();
        nic.ip = Some(address.ip.ip.clone());
        nic.ip_number = address.ip.ip.parse().ok().map(number);
        if let Some(range) = ranges::one(db, address.ip.vlan_range_id).await? {
            nic.broadcast_uri = Some(crate::address::uri_of("vlan", &range.vlan));
            nic.gateway = Some(range.gateway);
            nic.netmask = Some(range.netmask);
        }
        all.push(nic);
    }
    Ok(all)
}

fn event(caller: &Caller, view: &View, kind: &str, text: String) -> Record {
    Record::Event(
        EventRecord::new(caller, kind, EventState::Completed, text)
            .about("Network", &view.network.uuid)
            .owned_by(&view.network.owner),
    )
}

/// The accounting fact of a public address.
pub fn ip_usage(kind: &str, ip: &PublicIp, owner: &model::Owner, source_nat: bool) -> UsageRecord {
    UsageRecord {
        kind: kind.to_owned(),
        owner: owner.clone(),
        zone_id: ip.zone_id,
        resource_id: ip.id,
        resource_uuid: ip.uuid.clone(),
        resource_name: ip.ip.clone(),
        offering_id: None,
        template_id: None,
        // As 4.11: whether the address is the network's source NAT.
        size: Some(i64::from(source_nat)),
        resource_type: Some("VirtualNetwork".into()),
        created: now_micros(),
    }
}
