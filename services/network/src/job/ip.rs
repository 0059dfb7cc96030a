//! Acquiring and releasing public addresses.

use super::Nothing;
use super::rule::taken;
use crate::network::implement::ip_usage;
use crate::present;
use crate::rule;
use crate::store::routers::{self, Section};
use crate::store::{ips, networks, nics};
use crate::world::World;
use contract::ApiError;
use contract::api::Success;
use events::Record;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use std::sync::Arc;
use std::time::Duration;
use store::Tx;

/// How long a router may take to follow.
const ROUTER_TIME: Duration = Duration::from_secs(60);

/// What acceptance or a step did.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Undo {
    /// The address goes back to the pool.
    Free,
    /// The address stays with its network.
    Keep,
    /// The address is back in the pool: no way back from there, its reservation goes too.
    LetGo,
}

/// What goes with an address: itself, and its rules.
const RELEASED: &[Section] = &[Section::Interfaces, Section::Nat, Section::Firewall, Section::Balancers];

/// The router lets go of an address, or takes it back. What guests are told of themselves names it where it stands for one.
async fn raise_for_release(tx: &mut Tx, ip: i64, network: i64) -> Result<(), ApiError> {
    match ips::one_in(tx, ip).await? {
        Some(ip) if ip.is_static_nat => routers::raise_for_spec(tx, network).await?,
        _ => routers::raise_for(tx, network, RELEASED).await?,
    };
    Ok(())
}

async fn applied(world: &World, network: i64) -> Result<(), ApiError> {
    world.changed(network);
    match routers::of_network(&world.node.db, network).await? {
        Some(router) => world.routers.applied(router.id, ROUTER_TIME).await,
        None => Ok(()),
    }
}

/// associateIpAddress: acceptance has taken the address, in state Allocating.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct AssociateIp {
    /// The address.
    pub id: i64,
    /// The network that it serves.
    pub network: i64,
    /// Key of its reservation.
    pub limit: String,
}

impl Job for AssociateIp {
    const KIND: &'static str = "network.ip.associate";
    type World = World;
    type Undo = Undo;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        jobs::step!(ctx, "associate", undo: Undo::Free, |tx| {
            routers::raise_for(tx, self.network, &[Section::Interfaces]).await?;
            Ok(())
        })
        .await?;
        applied(&world, self.network).await?;
        let gone = || ApiError::concurrent("the address has been released meanwhile".to_owned());
        let mut ip = ips::one(db, self.id).await?.ok_or_else(gone)?;
        ip.state = "Allocated".into();
        let answer = present::ips(db, std::slice::from_ref(&ip)).await?.pop().ok_or_else(gone)?;
        jobs::finish!(ctx, |tx| {
            if !ips::set_state(tx, self.id, "Allocating", "Allocated").await? {
                return Err(gone());
            }
            events::record(tx, &[Record::Usage(ip_usage("NET.IPASSIGN", &ip, &ip.owner, ip.is_source_nat))]).await?;
            Ok(answer.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<World>, _: Undo, cx: UndoCx) -> Result<(), ApiError> {
        jobs::undo_step!(cx, |tx| free_if(tx, self.id, self.network, "Allocating").await).await?;
        world.release(cx.caller(), &self.limit).await;
        // Nobody waits: what is gone from the wanted state goes from the router when it can.
        let _ = routers::of_network(&world.node.db, self.network)
            .await
            .map(|r| r.iter().for_each(|r| world.routers.wake(r.id)));
        Ok(())
    }

    async fn abort(self, world: Arc<World>, _: &ApiError, tx: &mut Tx, cx: &AbortCx) -> Result<(), ApiError> {
        free_if(tx, self.id, self.network, "Allocating").await?;
        // After the commit: identity can't write while this transaction does (SQLite).
        let (caller, key) = (cx.caller().clone(), self.limit.clone());
        let node = world.node.clone();
        tx.after_commit(move || node.spawn("release-limit", async move { world.release(&caller, &key).await }));
        Ok(())
    }
}

async fn free_if(tx: &mut Tx, id: i64, network: i64, state: &str) -> Result<(), ApiError> {
    if ips::set_state(tx, id, state, "Releasing").await? {
        ips::free(tx, &[id]).await?;
        routers::raise_for(tx, network, &[Section::Interfaces]).await?;
    }
    Ok(())
}

/// The guest that the address stands for is told whether it still does.
async fn tell(tx: &mut Tx, id: i64, network: i64) -> Result<(), ApiError> {
    if let Some(vm_ip) = ips::one_in(tx, id).await?.and_then(|ip| ip.vm_ip) {
        nics::tell_at(tx, network, &vm_ip).await?;
    }
    Ok(())
}

/// disassociateIpAddress. The address's rules leave the router with it, and are deleted when it is free.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct DisassociateIp {
    /// The address.
    pub id: i64,
    /// The network that it serves.
    pub network: i64,
    /// Key of its reservation.
    pub limit: Option<String>,
}

impl Job for DisassociateIp {
    const KIND: &'static str = "network.ip.disassociate";
    type World = World;
    type Undo = Undo;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        let gone = || ApiError::concurrent("the address isn't allocated any more".to_owned());
        jobs::step!(ctx, "release", undo: Undo::Keep, |tx| {
            // Who makes rules writes it, too: from here to the commit none is made.
            networks::touch(tx, self.network).await?;
            if !ips::set_state(tx, self.id, "Allocated", "Releasing").await? {
                return Err(gone());
            }
            raise_for_release(tx, self.id, self.network).await?;
            tell(tx, self.id, self.network).await
        })
        .await?;
        applied(&world, self.network).await?;
        let ip = ips::one(db, self.id).await?.ok_or_else(gone)?;
        jobs::step!(ctx, "free", undo: Undo::LetGo, |tx| {
            rule::leave_ips(tx, &[self.id], ip.zone_id).await?;
            ips::free(tx, &[self.id]).await?;
            events::record(tx, &[Record::Usage(ip_usage("NET.IPRELEASE", &ip, &ip.owner, ip.is_source_nat))]).await?;
            Ok(())
        })
        .await?;
        if let Some(key) = &self.limit {
            world.release(ctx.caller(), key).await;
        }
        jobs::finish!(ctx, |tx| {
            let _ = tx;
            Ok(Success { success: true, display_text: None })
        })
        .await
    }

    async fn undo(self, world: Arc<World>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        // `value` is there when the step's commit is.
        if matches!(undo, Undo::LetGo)
            && cx.value::<()>().is_some()
            && let Some(key) = &self.limit
        {
            world.release(cx.caller(), key).await;
        }
        jobs::undo_step!(cx, |tx| {
            // Only what is still on its way out can stay.
            if matches!(undo, Undo::Keep) && ips::set_state(tx, self.id, "Releasing", "Allocated").await? {
                raise_for_release(tx, self.id, self.network).await?;
                tell(tx, self.id, self.network).await?;
            }
            Ok(())
        })
        .await?;
        let _ = routers::of_network(&world.node.db, self.network)
            .await
            .map(|r| r.iter().for_each(|r| world.routers.wake(r.id)));
        Ok(())
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// updateIpAddress: nothing that the router sees.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct UpdateIp {
    /// The address.
    pub id: i64,
    /// Whether its owner sees it.
    pub display: Option<bool>,
    /// Another UUID.
    pub uuid: Option<String>,
}

impl Job for UpdateIp {
    const KIND: &'static str = "network.ip.update";
    type World = World;
    type Undo = Nothing;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        let gone = || ApiError::param("the address has been released meanwhile".to_owned());
        let mut ip = ips::one(db, self.id).await?.filter(|ip| ip.state != "Free").ok_or_else(gone)?;
        ip.display = self.display.unwrap_or(ip.display);
        ip.uuid = self.uuid.clone().unwrap_or(ip.uuid);
        let answer = present::ips(db, std::slice::from_ref(&ip)).await?.pop().ok_or_else(gone)?;
        jobs::finish!(ctx, |tx| {
            ips::update(tx, self.id, self.display, self.uuid.as_deref()).await.map_err(taken)?;
            if ips::one_in(tx, self.id).await?.is_none_or(|ip| ip.state == "Free") {
                return Err(gone());
            }
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
