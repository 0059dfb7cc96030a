//! What can be said of a VM's networks before anything is written.

use crate::address::{Mac, number, parse_ip};
use crate::network::View;
use crate::network::access::check_use;
use crate::store::nics;
use crate::world::World;
use contract::ApiError;
use contract_network::AllocateNicsRequest;
use model::Owner;
use model::state::NetworkState;
use std::collections::HashSet;

/// The owner that a request speaks of.
pub(super) fn owner(request: &AllocateNicsRequest) -> Owner {
    Owner { account_id: request.account_id, domain_id: request.domain_id, domain_path: request.domain_path.clone() }
}

/// Checks the networks and addresses that a VM asks for.
///
/// # Errors
/// 431 for what can't be, 531 for networks out of reach, 533 for networks that are full.
pub async fn check(world: &World, request: &AllocateNicsRequest) -> Result<usize, ApiError> {
    let db = &world.node.db;
    let owner = owner(request);
    let mut networks = HashSet::new();
    let mut macs = HashSet::new();
    if request.nics.is_empty() {
        return Err(ApiError::param("a VM needs at least one network".to_owned()));
    }
    for nic in &request.nics {
        // Perhaps a little old: what allocates looks again.
        let view = world.views.get(db, nic.network_id).await?;
        check_network(&view, request.zone_id, &owner)?;
        if !networks.insert(nic.network_id) {
            return Err(ApiError::param(format!("network {} is named twice", view.network.title()))
                .with_entity(&view.network.uuid, "networkids"));
        }
        if let Some(mac) = &nic.mac {
            let mac = Mac::parse(mac)?;
            if !macs.insert(mac.clone()) || nics::taken(db, 0, None, Some(&mac.0)).await? {
                return Err(mac_taken(&mac));
            }
        }
        match &nic.ip {
            Some(ip) => check_address(world, &view, ip).await?,
            None if view.has_addresses() && world.pools.free(db, &view).await? == 0 => {
                return Err(ApiError::capacity(format!(
                    "Insufficient address capacity: none of the {} addresses of network {} is free",
                    view.size(),
                    view.network.title()
                ))
                .with_entity(&view.network.uuid, "networkids"));
            }
            None => {}
        }
    }
    Ok(request.nics.len())
}

pub(super) fn mac_taken(mac: &Mac) -> ApiError {
    ApiError::param(format!("Mac address {} is in use by another interface", mac.0))
}

/// Whether VMs of `owner` in `zone` may be attached.
pub(super) fn check_network(view: &View, zone: i64, owner: &Owner) -> Result<(), ApiError> {
    let network = &view.network;
    let refuse = |text: String| Err(ApiError::param(text).with_entity(&network.uuid, "networkids"));
    if network.is_system || network.traffic_type != "Guest" {
        return refuse(format!("network {} is the system's own: VMs can't be attached to it", network.title()));
    }
    if network.zone_id != zone {
        return refuse(format!("network {} belongs to another zone than the VM", network.title()));
    }
    if network.state == NetworkState::Destroy {
        return refuse(format!("network {} is being deleted", network.title()));
    }
    check_use(network, owner)?;
    view.offering.check_supported()
}

async fn check_address(world: &World, view: &View, text: &str) -> Result<(), ApiError> {
    if !view.has_addresses() {
        return Err(ApiError::param(format!("network {} has no addresses to ask for", view.network.title())));
    }
    let ip = parse_ip(text, "IP address")?;
    // A proposal that is dropped at once: outside and reserved addresses are told apart from taken ones.
    world.pools.propose(&world.node.db, view, Some(ip)).await?;
    if nics::taken(&world.node.db, view.network.id, Some(number(ip)), None).await? {
        return Err(ApiError::param(format!("IP address {ip} of network {} is in use", view.network.title())));
    }
    Ok(())
}
