//! Interfaces that come, go and change while their VM lives.

use super::allocate::nic_usage;
use super::{ROUTER_TIME, response};
use crate::job::wake_after;
use crate::store::nics::{self, Nic};
use crate::store::{networks, routers};
use crate::world::World;
use contract::ApiError;
use contract_network::{NicsResponse, RemoveNicRequest, SetDefaultNicRequest, TellRequest};
use events::Record;
use jobs::StepKey;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::Tx;

/// Takes an interface from a VM, and gives its address back. Also the undo of an allocation for a VM that has others.
///
/// # Errors
/// 431 for the default one, and for one that rules are made for.
pub async fn remove(world: &Arc<World>, key: StepKey, request: &RemoveNicRequest) -> Result<NicsResponse, ApiError> {
    let (db, vm) = (&world.node.db, request.vm_id);
    let mut gone: Vec<Nic> = Vec::new();
    let answer = if key.is_undo() {
        jobs::undo_effect!(db, key, |tx, done: Option<NicsResponse>| {
            gone.clear();
            let made: Vec<i64> = done.into_iter().flat_map(|d| d.nics).map(|n| n.id).collect();
            let there = nics::of_vm_in(tx, vm).await?;
            gone.extend(there.into_iter().filter(|n| made.contains(&n.id)));
            take(tx, world, &gone).await
        })
        .await?;
        response(&gone)
    } else {
        jobs::effect!(db, key, |tx| {
            gone.clear();
            let there = nics::of_vm_in(tx, vm).await?;
            gone.extend(there.into_iter().filter(|n| n.id == request.nic_id));
            take(tx, world, &gone).await?;
            for nic in &gone {
                if nic.is_default {
                    return Err(ApiError::param("Unable to remove the NIC: it is the VM's default one")
                        .with_entity(&nic.uuid, "nicid"));
                }
                // Who makes a rule writes the interface first: none comes after this.
                if nics::has_rules(tx, nic).await? {
                    return Err(ApiError::param(
                        "Unable to remove the NIC: port forwarding, load balancing or static NAT is set up for it",
                    )
                    .with_entity(&nic.uuid, "nicid"));
                }
            }
            Ok(response(&gone))
        })
        .await?
    };
    for nic in &gone {
        if let Some(address) = nic.ip_number.and_then(|n| u32::try_from(n).ok()) {
            world.pools.give_back(nic.network_id, address);
        }
    }
    Ok(answer)
}

async fn take(tx: &mut Tx, world: &Arc<World>, going: &[Nic]) -> Result<(), ApiError> {
    let facts = networks::accounting(tx, going.iter().map(|n| n.network_id)).await?;
    let mut records = Vec::with_capacity(going.len());
    for nic in going {
        if !routers::raise_for(tx, nic.network_id, &[]).await? {
            networks::touch(tx, nic.network_id).await?;
        }
        nics::remove(tx, nic.id).await?;
        wake_after(tx, world, nic.network_id);
        if let Some((zone, offering)) = facts.get(&nic.network_id) {
            records.push(Record::Usage(nic_usage("NETWORK.OFFERING.REMOVE", nic, *zone, *offering)));
        }
    }
    events::record(tx, &records).await?;
    Ok(())
}

/// Makes another interface the VM's default one: it trades places with the one before. The undo names that one.
///
/// # Errors
/// 431 when the VM has no such interface.
pub async fn set_default(
    world: &Arc<World>,
    key: StepKey,
    request: &SetDefaultNicRequest,
) -> Result<NicsResponse, ApiError> {
    let (db, vm, nic) = (&world.node.db, request.vm_id, request.nic_id);
    if key.is_undo() {
        jobs::undo_effect!(db, key, |tx, done: Option<NicsResponse>| {
            if done.is_some() {
                trade(tx, world, vm, nic).await?;
            }
            Ok(())
        })
        .await?;
        return Ok(NicsResponse::default());
    }
    jobs::effect!(db, key, |tx| {
        trade(tx, world, vm, nic).await?;
        Ok(response(&nics::of_vm_in(tx, vm).await?))
    })
    .await
}

async fn trade(tx: &mut Tx, world: &Arc<World>, vm: i64, nic: i64) -> Result<(), ApiError> {
    // Routers before interfaces, as everybody writes them. By DHCP only the default network gives a way out.
    routers::raise_for_vm(tx, vm).await?;
    let all = nics::of_vm_in(tx, vm).await?;
    let chosen = all.iter().find(|n| n.id == nic);
    let chosen = chosen.ok_or_else(|| ApiError::param("the NIC isn't one of the virtual machine"))?;
    if chosen.is_default {
        return Ok(());
    }
    let former = all.iter().find(|n| n.is_default);
    let first = former.map_or(chosen.device_id, |n| n.device_id);
    let facts = networks::accounting(tx, all.iter().map(|n| n.network_id)).await?;
    let mut records = Vec::new();
    let changes = [former.map(|n| (n, chosen.device_id, false)), Some((chosen, first, true))];
    for (nic, device_id, is_default) in changes.into_iter().flatten() {
        nics::set_place(tx, nic.id, device_id, is_default).await?;
        if let Some((zone, offering)) = facts.get(&nic.network_id) {
            // Accounted under whether it is the default one.
            let after = Nic { is_default, ..nic.clone() };
            records.push(Record::Usage(nic_usage("NETWORK.OFFERING.REMOVE", nic, *zone, *offering)));
            records.push(Record::Usage(nic_usage("NETWORK.OFFERING.ASSIGN", &after, *zone, *offering)));
        }
    }
    events::record(tx, &records).await?;
    noted(tx, world, vm, None, None).await
}

/// What a VM's guest is told has changed: its routers follow. Whoever doesn't wait needn't: a start prepares all of it.
///
/// # Errors
/// Those of the database.
pub async fn tell(world: &Arc<World>, request: &TellRequest) -> Result<NicsResponse, ApiError> {
    let name = request.host_name.as_deref().filter(|name| !name.is_empty());
    let uuid = request.vm_uuid.as_deref();
    let nics = store::tx!(world.node.db, "tell-guest", |tx| {
        told(tx, world, request.vm_id, name, uuid).await?;
        Ok::<_, ApiError>(nics::of_vm_in(tx, request.vm_id).await?)
    })
    .await?;
    if request.wait {
        let networks: BTreeSet<i64> = nics.iter().map(|n| n.network_id).collect();
        for network in networks {
            let Some(router) = routers::of_network(&world.node.db, network).await? else { continue };
            if let Err(error) = world.routers.applied(router.id, ROUTER_TIME).await {
                tracing::info!(router = router.name, %error, "a router hears later of what has changed for a guest");
            }
        }
    }
    Ok(response(&nics))
}

async fn told(
    tx: &mut Tx,
    world: &Arc<World>,
    vm: i64,
    name: Option<&str>,
    uuid: Option<&str>,
) -> Result<(), ApiError> {
    routers::raise_for_vm(tx, vm).await?;
    noted(tx, world, vm, name, uuid).await
}

/// The same once the routers' generations are raised.
async fn noted(
    tx: &mut Tx,
    world: &Arc<World>,
    vm: i64,
    name: Option<&str>,
    uuid: Option<&str>,
) -> Result<(), ApiError> {
    nics::tell_vm(tx, vm, name, uuid).await?;
    let networks: BTreeSet<i64> = nics::of_vm_in(tx, vm).await?.iter().map(|n| n.network_id).collect();
    networks.into_iter().for_each(|network| wake_after(tx, world, network));
    Ok(())
}
