//! Changing, deleting and restarting networks.

use super::router::{back_up, begin_down};
use crate::job::Nothing;
use crate::network::change::{self, Wish};
use crate::network::implement;
use crate::network::shutdown::drop_router;
use crate::present;
use crate::router::give_up;
use crate::store::networks::{self, Network};
use crate::store::{ips, nics, offerings, physical, ranges, routers, rules};
use crate::world::World;
use contract::ApiError;
use contract::api::Success;
use events::Record;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use model::state::NetworkState;
use std::sync::Arc;
use std::time::Duration;
use store::Tx;

/// How long a router may take to follow.
const ROUTER_TIME: Duration = Duration::from_secs(60);

fn gone() -> ApiError {
    ApiError::param("the network has been removed meanwhile".to_owned())
}

fn success() -> Success {
    Success { success: true, display_text: None }
}

/// updateNetwork.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct UpdateNetwork {
    /// The network.
    pub id: i64,
    /// What is asked for.
    pub wish: Wish,
    /// The new offering.
    pub offering: Option<i64>,
}

impl Job for UpdateNetwork {
    const KIND: &'static str = "network.update";
    type World = World;
    type Undo = Nothing;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        let id = self.id;
        let view = world.views.fresh(db, id).await?;
        let offering = match self.offering {
            Some(o) => offerings::one(db, o).await?,
            None => None,
        };
        jobs::step!(ctx, "update", |tx| {
            let change = change::plan(&view, &self.wish, offering.as_ref())?;
            if !networks::touch(tx, id).await? {
                return Err(gone());
            }
            change::check_guests(tx, id, &change).await?;
            routers::raise_for_spec(tx, id).await?;
            networks::update(tx, id, &change).await?;
            Ok(())
        })
        .await?;
        world.changed(id);
        world.pools.forget(id);
        let view = world.views.fresh(db, id).await?;
        if let Some(router) = &view.router {
            world.routers.applied(router.id, ROUTER_TIME).await?;
        } else if view.offering.is_persistent {
            implement::ready(&world, ctx.caller(), id).await?;
        }
        let view = world.views.fresh(db, id).await?;
        let mut answer = present::networks(db, ctx.caller(), std::slice::from_ref(&view.network)).await?;
        let answer = answer.pop().ok_or_else(gone)?;
        jobs::finish!(ctx, |tx| {
            let _ = tx;
            Ok(answer.clone())
        })
        .await
    }

    async fn undo(self, _: Arc<World>, undo: Nothing, _: UndoCx) -> Result<(), ApiError> {
        match undo {}
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// deleteNetwork.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct DeleteNetwork {
    /// The network.
    pub id: i64,
}

/// What a deletion owes once the network is gone: there is no way back from there, only on.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Deleted {
    /// Reservations with identity, whose keys the step gave.
    Limits,
}

impl Job for DeleteNetwork {
    const KIND: &'static str = "network.delete";
    type World = World;
    type Undo = Deleted;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let id = self.id;
        let keys: Vec<String> = jobs::step!(ctx, "destroy", undo: Deleted::Limits, |tx| {
            let network = networks::one_in(tx, id).await?.ok_or_else(gone)?;
            destroy(tx, &network).await
        })
        .await?;
        world.changed(id);
        world.pools.forget(id);
        if let Err(error) = crate::router::clear_leftovers(&world.node).await {
            tracing::debug!(%error, "the network's router goes from its host later");
        }
        for key in &keys {
            world.release(ctx.caller(), key).await;
        }
        jobs::finish!(ctx, |tx| {
            let _ = tx;
            Ok(success())
        })
        .await
    }

    async fn undo(self, world: Arc<World>, _: Deleted, cx: UndoCx) -> Result<(), ApiError> {
        for key in cx.value::<Vec<String>>().unwrap_or_default() {
            world.release(cx.caller(), &key).await;
        }
        jobs::undo_step!(cx, |tx| {
            let _ = tx;
            Ok(())
        })
        .await
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Deletes a network with all that it holds; gives the keys of its reservations.
async fn destroy(tx: &mut Tx, network: &Network) -> Result<Vec<String>, ApiError> {
    let id = network.id;
    // Written first: who is about to add an interface waits for this, or makes this see it.
    if !networks::touch(tx, id).await? {
        return Err(gone());
    }
    drop_router(tx, id).await?;
    let (vms, _) = nics::of_vms(tx, id).await?;
    if vms > 0 {
        return Err(ApiError::failed(format!(
            "Can't delete network {}: not all user vms are expunged, it has {vms} interfaces of virtual machines",
            network.title()
        ))
        .with_entity(&network.uuid, "id"));
    }
    let mut keys = Vec::new();
    if crate::network::create::counts(network) {
        keys.push(crate::network::create::limit_key(network));
    }
    let held = ips::of_network_in(tx, id).await?;
    let mut records = Vec::new();
    for ip in &held {
        keys.extend(ip.limit_key());
        records.push(Record::Usage(implement::ip_usage("NET.IPRELEASE", ip, &ip.owner, ip.is_source_nat)));
    }
    let gone = rules::of_network_in(tx, id).await?;
    crate::rule::drop_all(tx, &gone, network.zone_id).await?;
    ips::free(tx, &held.iter().map(|ip| ip.id).collect::<Vec<_>>()).await?;
    physical::free_vnets(tx, id).await?;
    ranges::remove_of_network(tx, id).await?;
    networks::remove(tx, id).await?;
    events::record(tx, &records).await?;
    Ok(keys)
}

/// restartNetwork.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct RestartNetwork {
    /// The network.
    pub id: i64,
    /// Whether the router is made anew.
    pub cleanup: bool,
}

/// What a restart owes.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Restarted {
    /// A router, after the old one was taken away.
    Router,
    /// The old router, which was on its way down.
    Down,
}

impl Job for RestartNetwork {
    const KIND: &'static str = "network.restart";
    type World = World;
    type Undo = Restarted;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let id = self.id;
        if self.cleanup {
            // The new one has its addresses: it must not come before the old one went.
            let began: Option<i64> = jobs::step!(ctx, "stopping", undo: Restarted::Down, |tx| {
                match routers::of_network_in(tx, id).await? {
                    Some(old) => begin_down(tx, old.id).await,
                    None => Ok(None),
                }
            })
            .await?;
            world.changed(id);
            if let Some(old) = began
                && let Some(old) = routers::one(&world.node.db, old).await?
            {
                give_up(&world, &old, false).await?;
            }
        }
        jobs::step!(ctx, "restart", undo: Restarted::Router, |tx| {
            let network = networks::one_in(tx, id).await?.ok_or_else(gone)?;
            if self.cleanup || routers::of_network_in(tx, id).await?.is_none() {
                // The VLAN stays: VMs run on it.
                networks::set_state(tx, network.id, &[NetworkState::Implemented], NetworkState::Allocated).await?;
                drop_router(tx, id).await?;
            } else {
                routers::raise_for_spec(tx, id).await?;
            }
            Ok(())
        })
        .await?;
        world.changed(id);
        if let Err(error) = crate::router::clear_leftovers(&world.node).await {
            tracing::debug!(%error, "the network's old router goes from its host later");
        }
        let view = implement::ready(&world, ctx.caller(), id).await?;
        if let Some(router) = &view.router {
            world.routers.applied(router.id, ROUTER_TIME).await?;
        }
        jobs::finish!(ctx, |tx| {
            let _ = tx;
            Ok(success())
        })
        .await
    }

    async fn undo(self, world: Arc<World>, undo: Restarted, cx: UndoCx) -> Result<(), ApiError> {
        if let Restarted::Down = undo {
            return jobs::undo_step!(cx, |tx| {
                match routers::of_network_in(tx, self.id).await? {
                    Some(router) => back_up(tx, &world, router.id, self.id).await,
                    None => Ok(()),
                }
            })
            .await;
        }
        // The old one, if it wasn't taken away.
        store::tx!(world.node.db, "restart-undone", |tx| {
            match routers::of_network_in(tx, self.id).await? {
                Some(router) => back_up(tx, &world, router.id, self.id).await,
                None => Ok(()),
            }
        })
        .await?;
        world.changed(self.id);
        // VMs may run without their router now. Where none can be had, the network's next use makes one.
        if let Err(error) = implement::ready(&world, cx.caller(), self.id).await {
            tracing::warn!(network = self.id, %error, "a network whose restart failed has no router");
        }
        jobs::undo_step!(cx, |tx| {
            let _ = tx;
            Ok(())
        })
        .await
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
