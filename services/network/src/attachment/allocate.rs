//! A new VM's interfaces: one commit, whatever the number of rivals.

use super::check::{check_network, mac_taken, owner};
use super::{ROUTER_TIME, TRIES, response};
use crate::address::{Mac, mac_of, parse_ip};
use crate::network::{Proposal, View, implement};
use crate::store::nics::{self, Nic};
use crate::store::{networks, routers};
use crate::world::World;
use contract::ApiError;
use contract::api::Caller;
use contract_network::{AllocateNicsRequest, NicsResponse};
use events::{Record, UsageRecord};
use jobs::StepKey;
use std::collections::HashMap;
use std::sync::Arc;
use store::{Error, Tx, now_micros};

/// One interface in the making.
pub(super) struct Draft {
    pub(super) view: Arc<View>,
    pub(super) nic: Nic,
    pub(super) proposal: Option<Proposal>,
    mac_wanted: bool,
}

impl Draft {
    /// Its network sees it coming: with a router, that is noted in `routers`, by network.
    pub(super) async fn enter(&self, tx: &mut Tx, routers: &mut HashMap<i64, i64>) -> Result<(), Refused> {
        let network = &self.view.network;
        let good = match &self.view.router {
            Some(router) => {
                routers.insert(network.id, router.id);
                routers::raise_for_lease(tx, router.id, router.spec_generation).await?
            }
            None => networks::touch_in(tx, network.id, network.state).await?,
        };
        if good { Ok(()) } else { Err(Refused::Stale) }
    }
}

/// Makes the interfaces of a new VM, or further ones of one that has some; with a host, also makes their networks ready there.
///
/// # Errors
/// 431 for wishes that can't be met, 533 when a network is full, 534 when a router can't be brought up to date.
pub async fn allocate(
    world: &World,
    caller: &Caller,
    key: StepKey,
    request: &AllocateNicsRequest,
) -> Result<NicsResponse, ApiError> {
    for _ in 0..TRIES {
        let mut drafts = draft(world, caller, request).await?;
        let routers: Vec<i64> = drafts.iter().filter_map(|d| d.view.router.as_ref().map(|r| r.id)).collect();
        let mut refused = None;
        let made = jobs::effect!(world.node.db, key, |tx| {
            refused = None;
            match write(tx, &drafts).await {
                Ok(()) => Ok(response(drafts.iter().map(|d| &d.nic))),
                Err(Refused::Error(error)) => Err(error),
                Err(why) => {
                    refused = Some(why);
                    Err(ApiError::concurrent("a network changed meanwhile".to_owned()))
                }
            }
        })
        .await;
        let answer = match (made, refused) {
            (Ok(answer), _) => answer,
            (Err(_), Some(why)) => {
                give_way(world, &mut drafts, &why)?;
                continue;
            }
            (Err(error), None) => return Err(error),
        };
        // A repeat answers with the first one's interfaces: today's proposals go back.
        if answer.nics.first().map(|n| n.id) == drafts.first().map(|d| d.nic.id) {
            drafts.iter_mut().filter_map(|d| d.proposal.take()).for_each(Proposal::keep);
        }
        drop(drafts);
        if request.host_id.is_some() {
            wait(world, &routers).await?;
        } else {
            routers.iter().for_each(|r| world.routers.wake(*r));
        }
        return Ok(answer);
    }
    Err(ApiError::concurrent("the VM's networks changed too often meanwhile: try again".to_owned()))
}

/// Prepares the next try.
pub(super) fn give_way(world: &World, drafts: &mut [Draft], why: &Refused) -> Result<(), ApiError> {
    match why {
        Refused::Stale => drafts.iter().for_each(|d| world.views.forget(d.view.network.id)),
        // What another has stays out of the pool; one that was asked for is told so by the next proposal.
        Refused::Address => drafts.iter_mut().filter_map(|d| d.proposal.take()).for_each(Proposal::lost),
        Refused::Mac => {
            if let Some(draft) = drafts.iter().find(|d| d.mac_wanted) {
                return Err(mac_taken(&Mac(draft.nic.mac.clone())));
            }
        }
        Refused::Error(error) => return Err(error.clone()),
    }
    Ok(())
}

/// Waits until all routers have what was committed.
pub(super) async fn wait(world: &World, routers: &[i64]) -> Result<(), ApiError> {
    let waits = routers.iter().map(|r| world.routers.applied(*r, ROUTER_TIME));
    futures::future::try_join_all(waits).await.map(drop)
}

pub(super) async fn draft(
    world: &World,
    caller: &Caller,
    request: &AllocateNicsRequest,
) -> Result<Vec<Draft>, ApiError> {
    let db = &world.node.db;
    let owner = owner(request);
    let count = i64::try_from(request.nics.len()).unwrap_or_default();
    let first_id = db.next_ids("nics", count).await?;
    let first_mac = db.next_ids("macs", count).await?;
    let identifier = world.node.settings.get(config::keys::MAC_IDENTIFIER);
    let others = if request.additional { nics::of_vm(db, request.vm_id).await? } else { Vec::new() };
    let mut places = (0i64..).filter(|place| others.iter().all(|other| other.device_id != *place));
    let mut drafts = Vec::with_capacity(request.nics.len());
    for (i, wish) in (0i64..).zip(&request.nics) {
        let view = match request.host_id {
            Some(_) => implement::ready(world, caller, wish.network_id).await?,
            None => world.views.get(db, wish.network_id).await?,
        };
        check_network(&view, request.zone_id, &owner)?;
        let wanted = wish.ip.as_deref().map(|ip| parse_ip(ip, "IP address")).transpose()?;
        let proposal = match view.has_addresses() {
            true => Some(world.pools.propose(db, &view, wanted).await?),
            false => None,
        };
        let mac = match &wish.mac {
            Some(mac) => Mac::parse(mac)?,
            None => mac_of(identifier, first_mac + i),
        };
        let place = places.next().unwrap_or(i);
        let mut nic = Nic {
            id: first_id + i,
            uuid: model::new_uuid(),
            network_id: wish.network_id,
            vm_id: Some(request.vm_id),
            router_id: None,
            device_id: place,
            is_default: others.is_empty() && i == 0,
            mac: mac.0,
            ip: None,
            ip_number: None,
            netmask: None,
            gateway: None,
            broadcast_uri: None,
            traffic_type: String::new(),
            guest_type: None,
            state: if request.host_id.is_some() { nics::RESERVED } else { nics::ALLOCATED }.to_owned(),
            host_id: request.host_id,
            host_name: Some(request.host_name.clone()),
            vm_uuid: Some(request.vm_uuid.clone()),
            lease_generation: 0,
            owner: owner.clone(),
        };
        view.dress(&mut nic, proposal.as_ref().map(Proposal::address));
        drafts.push(Draft { view, nic, proposal, mac_wanted: wish.mac.is_some() });
    }
    Ok(drafts)
}

pub(super) enum Refused {
    /// A network isn't what it was.
    Stale,
    /// Another had an address first.
    Address,
    /// Another has a MAC.
    Mac,
    Error(ApiError),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error {
            Error::Unique { key } if key.contains("mac") => Refused::Mac,
            Error::Unique { .. } => Refused::Address,
            other => Refused::Error(other.into()),
        }
    }
}

async fn write(tx: &mut Tx, drafts: &[Draft]) -> Result<(), Refused> {
    events::record(tx, &usage("NETWORK.OFFERING.ASSIGN", drafts.iter().map(|d| (&*d.view, &d.nic)))).await?;
    let mut routers = HashMap::new();
    // In the order of networks, so that VMs with several don't wait for each other crosswise. Last, because rivals wait
    // from here to the commit.
    let mut order: Vec<&Draft> = drafts.iter().collect();
    order.sort_by_key(|d| d.nic.network_id);
    for draft in order {
        draft.enter(tx, &mut routers).await?;
    }
    let rows: Vec<Nic> = drafts.iter().map(|d| d.nic.clone()).collect();
    Ok(nics::insert(tx, &rows, &routers).await?)
}

pub(super) fn usage<'a>(kind: &str, nics: impl Iterator<Item = (&'a View, &'a Nic)>) -> Vec<Record> {
    nics.map(|(view, nic)| Record::Usage(nic_usage(kind, nic, view.network.zone_id, view.network.offering_id)))
        .collect()
}

/// The accounting fact of an interface, as 4.11 writes it: the VM, the interface's number for a name, and in `size` whether
/// it is the default one.
pub(super) fn nic_usage(kind: &str, nic: &Nic, zone_id: i64, offering_id: i64) -> UsageRecord {
    UsageRecord {
        kind: kind.to_owned(),
        owner: nic.owner.clone(),
        zone_id,
        resource_id: nic.vm_id.unwrap_or_default(),
        resource_uuid: nic.vm_uuid.clone().unwrap_or_default(),
        resource_name: nic.id.to_string(),
        offering_id: Some(offering_id),
        template_id: None,
        size: Some(i64::from(nic.is_default)),
        resource_type: Some("VirtualMachine".into()),
        created: now_micros(),
    }
}
