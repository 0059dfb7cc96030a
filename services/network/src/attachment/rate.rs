//! How fast interfaces may be. As 4.11: a VM's default interface by its service offering, else by
//! `vm.network.throttling.rate`; the others by their network's offering, else by the zone's `network.throttling.rate`.

use crate::store::rates::{self, Rate};
use crate::world::World;
use config::{Scope, keys};
use contract::ApiError;
use contract_network::NicsResponse;

/// Writes the rates into an answer.
///
/// # Errors
/// Those of the database.
pub async fn rated(world: &World, mut answer: NicsResponse) -> Result<NicsResponse, ApiError> {
    let ids: Vec<i64> = answer.nics.iter().map(|n| n.id).collect();
    if ids.is_empty() {
        return Ok(answer);
    }
    let rates = rates::of_nics(&world.node.db, &ids).await?;
    for nic in &mut answer.nics {
        if let Some(rate) = rates.get(&nic.id) {
            nic.rate_mbps = Some(mbps(world, rate));
        }
    }
    Ok(answer)
}

fn mbps(world: &World, rate: &Rate) -> u64 {
    let settings = &world.node.settings;
    let said = match rate.is_default {
        true => rate.vm.unwrap_or_else(|| settings.get(keys::VM_NETWORK_THROTTLING_RATE)),
        false => {
            rate.network.unwrap_or_else(|| settings.get_in(keys::NETWORK_THROTTLING_RATE, Scope::Zone(rate.zone_id)))
        }
    };
    // Negative is unlimited, too.
    u64::try_from(said).unwrap_or_default()
}
