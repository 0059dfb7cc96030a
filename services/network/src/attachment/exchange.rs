//! Other interfaces for a VM that another account gets: the ones that it has go and the new ones come in one commit, so that it
//! is never without any, and never in networks of both owners.

use super::allocate::{Draft, Refused, draft, give_way, nic_usage, usage};
use super::{TRIES, response};
use crate::job::wake_after;
use crate::store::nics::{self, Nic};
use crate::store::{networks, routers};
use crate::world::World;
use contract::ApiError;
use contract::api::Caller;
use contract_network::{AllocateNicsRequest, NicsResponse};
use events::Record;
use jobs::StepKey;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use store::Tx;

/// Exchanges the interfaces of a VM that is off. Undone, it doesn't happen any more; if it has happened, it stays.
///
/// # Errors
/// 431 for networks that can't be, and while rules are made for an interface that it has; 531 for networks that the new owner may
/// not use; 533 when one is full.
pub async fn exchange(
    world: &Arc<World>,
    caller: &Caller,
    key: StepKey,
    request: &AllocateNicsRequest,
) -> Result<NicsResponse, ApiError> {
    let (db, vm) = (&world.node.db, request.vm_id);
    if key.is_undo() {
        jobs::undo_effect!(db, key, |_tx, _done: Option<NicsResponse>| Ok(())).await?;
        return Ok(NicsResponse::default());
    }
    for _ in 0..TRIES {
        let mut drafts = draft(world, caller, request).await?;
        let (mut refused, mut gone) = (None, Vec::new());
        let made = jobs::effect!(db, key, |tx| {
            (refused, gone) = (None, Vec::new());
            match swap(tx, world, vm, &drafts).await {
                Ok(old) => {
                    gone = old;
                    Ok(response(drafts.iter().map(|d| &d.nic)))
                }
                Err(Refused::Error(error)) => Err(error),
                Err(why) => {
                    refused = Some(why);
                    Err(ApiError::concurrent("a network changed meanwhile"))
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
            drafts.iter_mut().filter_map(|d| d.proposal.take()).for_each(crate::network::Proposal::keep);
        }
        for nic in &gone {
            if let Some(address) = nic.ip_number.and_then(|n| u32::try_from(n).ok()) {
                world.pools.give_back(nic.network_id, address);
            }
        }
        return Ok(answer);
    }
    Err(ApiError::concurrent("the VM's networks changed too often meanwhile: try again"))
}

/// Gives the interfaces that went.
async fn swap(tx: &mut Tx, world: &Arc<World>, vm: i64, drafts: &[Draft]) -> Result<Vec<Nic>, Refused> {
    let old = nics::of_vm_in(tx, vm).await?;
    let mut touched: BTreeMap<i64, Option<&Draft>> = old.iter().map(|nic| (nic.network_id, None)).collect();
    touched.extend(drafts.iter().map(|draft| (draft.view.network.id, Some(draft))));
    // In the order of networks, so that VMs with several don't wait for each other crosswise.
    let mut routers = HashMap::new();
    for (network, coming) in &touched {
        match coming {
            Some(draft) => draft.enter(tx, &mut routers).await?,
            None if routers::raise_for(tx, *network, &[]).await? => {}
            None => drop(networks::touch(tx, *network).await?),
        }
        wake_after(tx, world, *network);
    }
    let facts = networks::accounting(tx, old.iter().map(|n| n.network_id)).await?;
    let mut records = Vec::with_capacity(old.len() + drafts.len());
    for nic in &old {
        nics::remove(tx, nic.id).await?;
        // Who makes a rule writes the interface first: none comes after this.
        if nics::has_rules(tx, nic).await? {
            let text = "Remove the port forwarding, load balancing and static NAT rules for this VM before assigning to another user.";
            return Err(Refused::Error(ApiError::param(text).with_entity(&nic.uuid, "nicid")));
        }
        if let Some((zone, offering)) = facts.get(&nic.network_id) {
            records.push(Record::Usage(nic_usage("NETWORK.OFFERING.REMOVE", nic, *zone, *offering)));
        }
    }
    records.extend(usage("NETWORK.OFFERING.ASSIGN", drafts.iter().map(|d| (&*d.view, &d.nic))));
    events::record(tx, &records).await?;
    let rows: Vec<Nic> = drafts.iter().map(|d| d.nic.clone()).collect();
    nics::insert(tx, &rows, &routers).await?;
    Ok(old)
}
