//! A host for work that any host can do: a router, a copy of a template.

use crate::store::hosts::{self as rows, PickFilter};
use crate::world::World;
use contract::ApiError;
use contract_infra::{PickHostRequest, PickHostResponse};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

/// Candidates that are looked at: enough for chance, few whatever the zone's size.
const CANDIDATES: i64 = 32;

/// Picks a host that is Up and takes work, at random.
///
/// # Errors
/// 533 when there is none.
pub async fn host(world: &World, r: PickHostRequest) -> Result<PickHostResponse, ApiError> {
    let db = &world.node.db;
    let mut filter = PickFilter {
        zone: r.zone_id,
        pod: r.pod_id,
        cluster: r.cluster_id,
        hypervisor: r.hypervisor,
        avoid: r.avoid_host_ids,
        without_tag: super::host::ha_tag(&world.node.settings),
        shared: true,
    };
    let zone = filter.zone;
    let none = || ApiError::capacity(format!("no host of zone {zone} is Up and enabled for this work"));
    let (low, high) = rows::bounds(db, zone).await?.ok_or_else(none)?;
    let from = rand::rng().random_range(low..=high);
    let mut found = rows::candidates(db, &filter, from, CANDIDATES).await?;
    if found.is_empty() {
        found = rows::candidates(db, &filter, low, CANDIDATES).await?;
    }
    if found.is_empty() {
        // Better on a host that an account has to itself than nowhere.
        filter.shared = false;
        found = rows::candidates(db, &filter, low, CANDIDATES).await?;
    }
    let (host_id, host_uuid, pod_id, cluster_id) = found.choose(&mut rand::rng()).cloned().ok_or_else(none)?;
    Ok(PickHostResponse { host_id, host_uuid, pod_id, cluster_id })
}
