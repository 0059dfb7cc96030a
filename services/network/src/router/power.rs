//! Taking routers down and up.
//!
//! Down: the row says Stopping, the host gives the router up, the row says Stopped. Nobody else tells the host anything of
//! it meanwhile, for workers leave such a router alone; whatever a worker of another replica was just sending is dropped
//! by the leftover that the last commit writes. So no other host is given the router before the former one gave it up, was
//! found dead, or somebody said `forced`.

use crate::router::worker::{execute, pick_host};
use crate::store::power::{self, STOPPED, STOPPING};
use crate::store::routers::{self, Router};
use crate::store::zones::{self, Standing};
use crate::world::World;
use contract::ApiError;
use contract_agent::{RemoveRouter, command::Body};
use contract_infra::PickHostResponse;
use std::time::Duration;

/// How long a worker that is just telling the host something is waited for.
const QUIET: Duration = Duration::from_secs(5);

/// Whether nobody works on a router: it is down, or on its way there.
pub(crate) fn rests(router: &Router) -> bool {
    router.state == STOPPED || router.state == STOPPING
}

/// Lets the host of a router that is Stopping give it up. `forced`: a host that can't be told does it when it is back.
///
/// # Errors
/// 534 when the host can't be told and may still run it; what the host said.
pub(crate) async fn give_up(world: &World, router: &Router, forced: bool) -> Result<(), ApiError> {
    let Some(host) = router.host_id else { return Ok(()) };
    if let Err(error) = world.routers.applied(router.id, QUIET).await {
        tracing::debug!(router = router.name, %error, "its worker isn't done");
    }
    let told = match zones::standing(&world.node.db, host).await? {
        Standing::Gone => return Ok(()),
        Standing::Silent(status) => Err(ApiError::unavailable(format!(
            "router {} can't be stopped: its host is {status}, and may still run it. With forced=true it counts as stopped, and \
             the host drops it when it is back",
            router.name
        ))),
        Standing::Up | Standing::Leaving => {
            let body = Body::RemoveRouter(RemoveRouter { router_uuid: router.uuid.clone() });
            execute(&world.node, host, body).await.map(drop)
        }
    };
    match told {
        Err(error) if forced => {
            tracing::warn!(router = router.name, host, %error, "a router is stopped by force");
            Ok(())
        }
        told => told,
    }
}

/// Where a router that is down comes up: where it was, as long as that host can carry it.
///
/// # Errors
/// 533 when no host can.
pub(crate) async fn place(world: &World, router: &Router) -> Result<PickHostResponse, ApiError> {
    let db = &world.node.db;
    if let Some(host) = router.host_id
        && zones::standing(db, host).await? == Standing::Up
        && let (Some(pod_id), Some(cluster_id)) = (router.pod_id, router.cluster_id)
    {
        return Ok(PickHostResponse { host_id: host, pod_id, cluster_id, ..PickHostResponse::default() });
    }
    pick_host(&world.node, router.zone_id, router.host_id.into_iter().collect()).await
}

/// Starts a router that is stopped, because its network is used again (as 4.11 when a VM starts in it). Who comes second
/// finds it done.
///
/// # Errors
/// 533 when no host can carry it.
pub(crate) async fn wake_up(world: &World, router: &Router) -> Result<(), ApiError> {
    let host = place(world, router).await?;
    store::tx!(world.node.db, "start-router", |tx| {
        // One that is only on its way down is its job's.
        if routers::by_id_in(tx, router.id).await?.is_some_and(|now| now.state == STOPPED) {
            power::starting(tx, router, &host).await?;
        }
        Ok::<_, ApiError>(())
    })
    .await?;
    world.changed(router.network_id);
    Ok(())
}
