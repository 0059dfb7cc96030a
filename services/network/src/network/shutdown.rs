//! Taking a network's resources back: VLAN and router. What it was stays in its row; the next use implements it again.

use crate::store::networks;
use crate::store::routers::{self, Router};
use crate::store::{nics, physical};
use contract::ApiError;
use model::state::NetworkState;
use store::Tx;

/// Takes the router from a network that has one: removed here, left over on its host until it has dropped it. The row's
/// write locks out whoever is about to add a lease.
///
/// # Errors
/// Those of the database.
pub async fn drop_router(tx: &mut Tx, network: i64) -> Result<Option<Router>, ApiError> {
    let Some(router) = routers::of_network_in(tx, network).await? else { return Ok(None) };
    if !routers::remove(tx, &router).await? {
        return Ok(None);
    }
    // Read again: a lease may have been added before the write above locked the row.
    let now: i64 = tx
        .one(store::Sql::new("SELECT generation FROM routers WHERE id = ?").bind(router.id))
        .await
        .map_err(ApiError::from)?
        .at(0)?;
    networks::set_generation(tx, network, now).await?;
    nics::remove_of_router(tx, router.id).await?;
    Ok(Some(router))
}

/// Shuts an implemented network down. False: it isn't implemented any more, or a VM runs in it.
///
/// # Errors
/// Those of the database.
pub async fn shut_down(tx: &mut Tx, network: i64, keep_vlan: bool) -> Result<bool, ApiError> {
    if !networks::set_state(tx, network, &[NetworkState::Implemented], NetworkState::Allocated).await? {
        return Ok(false);
    }
    drop_router(tx, network).await?;
    let (_, running) = nics::of_vms(tx, network).await?;
    if running > 0 {
        return Ok(false);
    }
    if !keep_vlan {
        physical::free_vnets(tx, network).await?;
        networks::set_broadcast(tx, network, None, None).await?;
        nics::set_broadcast(tx, network, None).await?;
    }
    Ok(true)
}
