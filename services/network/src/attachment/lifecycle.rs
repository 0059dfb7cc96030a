//! Interfaces of VMs that start, stop and go.

use super::allocate::{nic_usage, wait};
use super::{TRIES, response};
use crate::network::implement;
use crate::store::nics::{self, Nic};
use crate::store::{networks, routers};
use crate::world::World;
use contract::ApiError;
use contract::api::Caller;
use contract_network::{MoveNicsRequest, NicsResponse, VmNicsRequest};
use events::Record;
use jobs::StepKey;
use std::collections::HashSet;
use store::Tx;

/// Makes a VM's networks ready on a host.
///
/// # Errors
/// 533 and 534 as for implementing a network.
pub async fn prepare(
    world: &World,
    caller: &Caller,
    key: StepKey,
    request: &VmNicsRequest,
) -> Result<NicsResponse, ApiError> {
    let db = &world.node.db;
    let host = request.host_id.ok_or_else(|| ApiError::internal("prepare needs a host".to_owned()))?;
    for _ in 0..TRIES {
        let mut ids: Vec<i64> = nics::of_vm(db, request.vm_id).await?.iter().map(|n| n.network_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut routed = Vec::new();
        for id in &ids {
            let view = implement::ready(world, caller, *id).await?;
            routed.push((*id, view.router.as_ref().map(|r| r.id), view.network.state));
        }
        let mut stale = false;
        let made = jobs::effect!(db, key, |tx| {
            stale = false;
            for (network, router, state) in &routed {
                let good = match router {
                    Some(_) => routers::touch(tx, *network).await?,
                    None => networks::touch_in(tx, *network, *state).await?,
                };
                if !good {
                    stale = true;
                    return Err(ApiError::concurrent("a network changed meanwhile".to_owned()));
                }
            }
            nics::set_host(tx, request.vm_id, Some(host)).await?;
            Ok(response(&nics::of_vm_in(tx, request.vm_id).await?))
        })
        .await;
        if made.is_err() && stale {
            ids.iter().for_each(|id| world.views.forget(*id));
            continue;
        }
        let answer = made?;
        let routers: Vec<i64> = routed.iter().filter_map(|(_, router, _)| *router).collect();
        wait(world, &routers).await?;
        return Ok(answer);
    }
    Err(ApiError::concurrent("the VM's networks changed too often meanwhile: try again".to_owned()))
}

/// Makes a VM's networks ready on the host where it moves while it runs; undone, it is plugged where it stays.
///
/// # Errors
/// As [`prepare`].
pub async fn change_host(
    world: &World,
    caller: &Caller,
    key: StepKey,
    request: &MoveNicsRequest,
) -> Result<NicsResponse, ApiError> {
    let vm = request.vm_id;
    if !key.is_undo() {
        return prepare(world, caller, key, &VmNicsRequest { vm_id: vm, host_id: Some(request.host_id) }).await;
    }
    jobs::undo_effect!(&world.node.db, key, |tx, _done: Option<NicsResponse>| {
        match request.stays_on {
            Some(host) => Ok(nics::set_host(tx, vm, Some(host)).await?),
            None => stopped(tx, vm).await,
        }
    })
    .await?;
    Ok(NicsResponse::default())
}

/// The VM no longer runs: its networks may be shut down. Addresses and leases stay. Also the undo of [`prepare`],
/// and of any step of a stop that fails once the VM is off.
///
/// # Errors
/// Those of the database.
pub async fn unprepare(world: &World, key: StepKey, request: &VmNicsRequest) -> Result<NicsResponse, ApiError> {
    let db = &world.node.db;
    let vm = request.vm_id;
    if key.is_undo() {
        // Whatever is undone, and whether it took place: the job that owns the VM knows that it doesn't run.
        jobs::undo_effect!(db, key, |tx, _done: Option<NicsResponse>| stopped(tx, vm).await).await?;
        return Ok(NicsResponse::default());
    }
    jobs::effect!(db, key, |tx| {
        stopped(tx, vm).await?;
        Ok(response(&nics::of_vm_in(tx, vm).await?))
    })
    .await
}

async fn stopped(tx: &mut Tx, vm: i64) -> Result<(), ApiError> {
    let mut networks: Vec<i64> = nics::of_vm_in(tx, vm).await?.iter().map(|n| n.network_id).collect();
    networks.sort_unstable();
    nics::set_host(tx, vm, None).await?;
    for network in networks {
        // When the wait of the garbage collection begins.
        if !routers::touch(tx, network).await? {
            networks::touch(tx, network).await?;
        }
    }
    Ok(())
}

/// Deletes a VM's interfaces and gives their addresses back. Also the undo of `allocate`.
///
/// # Errors
/// Those of the database.
pub async fn release(world: &World, key: StepKey, request: &VmNicsRequest) -> Result<NicsResponse, ApiError> {
    let db = &world.node.db;
    let vm = request.vm_id;
    let mut gone: Vec<Nic> = Vec::new();
    let answer = if key.is_undo() {
        jobs::undo_effect!(db, key, |tx, done: Option<NicsResponse>| {
            gone.clear();
            if done.is_some() {
                gone = remove(tx, vm).await?;
            }
            Ok(())
        })
        .await?;
        response(&gone)
    } else {
        jobs::effect!(db, key, |tx| {
            gone = remove(tx, vm).await?;
            Ok(response(&gone))
        })
        .await?
    };
    for nic in &gone {
        if let Some(address) = nic.ip_number.and_then(|n| u32::try_from(n).ok()) {
            world.pools.give_back(nic.network_id, address);
        }
    }
    // Nobody waits: the next lease of the same address comes with this change.
    let networks: HashSet<i64> = gone.iter().map(|n| n.network_id).collect();
    for network in networks {
        match world.views.get(db, network).await {
            Ok(view) => view.router.iter().for_each(|r| world.routers.wake(r.id)),
            Err(error) => tracing::debug!(network, %error, "a lease went with its network"),
        }
    }
    Ok(answer)
}

async fn remove(tx: &mut Tx, vm: i64) -> Result<Vec<Nic>, ApiError> {
    routers::raise_for_vm(tx, vm).await?;
    let gone = nics::of_vm_in(tx, vm).await?;
    if gone.is_empty() {
        return Ok(gone);
    }
    nics::remove_of_vm(tx, vm).await?;
    crate::balance::leave_vm(tx, vm).await?;
    let facts = networks::accounting(tx, gone.iter().map(|n| n.network_id)).await?;
    crate::rule::leave_vm(tx, vm, facts.values().next().map_or(0, |(zone, _)| *zone)).await?;
    let mut records = Vec::with_capacity(gone.len());
    for nic in &gone {
        if let Some((zone, offering)) = facts.get(&nic.network_id) {
            records.push(Record::Usage(nic_usage("NETWORK.OFFERING.REMOVE", nic, *zone, *offering)));
        }
    }
    events::record(tx, &records).await?;
    Ok(gone)
}
