//! The asynchronous commands of this service.

mod admin;
pub mod balance;
mod forward;
mod ip;
mod network;
#[cfg(test)]
mod prove;
#[cfg(test)]
mod prove_balance;
#[cfg(test)]
mod prove_router;
#[cfg(test)]
mod prove_rules;
mod router;
mod rule;
mod static_nat;

pub use admin::{Action, AdminJob};
pub use forward::UpdateForward;
pub use ip::{AssociateIp, DisassociateIp, UpdateIp};
pub use network::{DeleteNetwork, RestartNetwork, UpdateNetwork};
pub use router::{Power, PowerRouter};
pub use rule::{CreateRule, DeleteRule, Shown, UpdateRule};
pub use static_nat::{DisableStaticNat, EnableStaticNat};

use crate::store::routers;
use crate::world::World;
use contract::api::{Caller, JobRef};
use contract::{ApiError, CommandInfo};
use jobs::{Accept, Builder, Claim, Job};
use model::Owner;
use std::sync::Arc;
use std::time::Duration;
use store::Tx;

/// How long a router may take to follow.
const ROUTER_TIME: Duration = Duration::from_secs(60);

/// Waits until the network's router has what was committed, in these sections of its spec. A network without one needs no
/// waiting: its first spec holds what is wanted.
async fn followed(world: &World, network: i64, sections: &[&str]) -> Result<(), ApiError> {
    world.changed(network);
    match routers::of_network(&world.node.db, network).await? {
        Some(router) => world.routers.applied_with(router.id, ROUTER_TIME, sections).await,
        None => Ok(()),
    }
}

/// The same for a change of rules, by UUID: what the router can't do of others' rules doesn't matter.
async fn rules_followed(world: &World, network: i64, sections: &[&str], rules: &[String]) -> Result<(), ApiError> {
    world.changed(network);
    match routers::of_network(&world.node.db, network).await? {
        Some(router) => world.routers.applied_rules(router.id, ROUTER_TIME, sections, rules).await,
        None => Ok(()),
    }
}

/// Lets the network's router follow after the commit, and nobody waits. Should it be forgotten, the duty finds it.
pub(crate) fn wake_after(tx: &mut Tx, world: &Arc<World>, network: i64) {
    let world = world.clone();
    tx.after_commit(move || {
        let node = world.node.clone();
        node.spawn("wake-router", async move {
            world.changed(network);
            match routers::of_network(&world.node.db, network).await {
                Ok(router) => router.iter().for_each(|r| world.routers.wake(r.id)),
                Err(error) => tracing::debug!(network, %error, "a router follows later"),
            }
        });
    });
}

/// Declares the kinds of this service.
pub fn register(builder: Builder, world: &Arc<World>) -> Builder {
    builder
        .register::<AdminJob>(world.clone())
        .register::<UpdateNetwork>(world.clone())
        .register::<DeleteNetwork>(world.clone())
        .register::<RestartNetwork>(world.clone())
        .register::<PowerRouter>(world.clone())
        .register::<AssociateIp>(world.clone())
        .register::<DisassociateIp>(world.clone())
        .register::<UpdateIp>(world.clone())
        .register::<CreateRule>(world.clone())
        .register::<UpdateRule>(world.clone())
        .register::<UpdateForward>(world.clone())
        .register::<DeleteRule>(world.clone())
        .register::<EnableStaticNat>(world.clone())
        .register::<DisableStaticNat>(world.clone())
        .register::<balance::CreateBalancer>(world.clone())
        .register::<balance::UpdateBalancer>(world.clone())
        .register::<balance::DeleteBalancer>(world.clone())
        .register::<balance::Assign>(world.clone())
        .register::<balance::Unassign>(world.clone())
        .register::<balance::CreatePolicy>(world.clone())
        .register::<balance::UpdatePolicy>(world.clone())
        .register::<balance::DeletePolicy>(world.clone())
}

/// What handlers say of a job that they accept.
pub struct Order<'a> {
    /// The command.
    pub command: Option<&'static CommandInfo>,
    /// Who asks.
    pub caller: &'a Caller,
    /// Owner of what it works on; none: the caller.
    pub owner: Option<Owner>,
    /// Kind and UUID of what it works on.
    pub instance: Option<(&'static str, String)>,
    /// What it claims.
    pub claims: Vec<Claim>,
    /// `customjobid`.
    pub custom_id: Option<String>,
    /// Text of its events.
    pub description: String,
    /// UUID that is answered at once.
    pub entity_id: Option<String>,
}

impl Order<'_> {
    /// As the engine takes it.
    pub fn of<J: Job>(&self, job: J) -> Accept<J> {
        Accept {
            job,
            caller: self.caller.clone(),
            command: self.command,
            owner: self.owner.clone().unwrap_or_else(|| Owner::caller(self.caller)),
            instance: self.instance.clone().map(|(kind, uuid)| (kind.to_owned(), uuid)),
            claims: self.claims.clone(),
            custom_id: self.custom_id.clone().filter(|id| !id.is_empty()),
            description: self.description.clone(),
            entity_id: self.entity_id.clone(),
        }
    }
}

/// Accepts a job for which nothing else is to be written.
///
/// # Errors
/// 431 when `customjobid` is taken.
pub async fn accept<J: Job>(world: &World, order: Order<'_>, job: J) -> Result<JobRef, ApiError> {
    let ticket = world.jobs.ticket().await?;
    let accept = order.of(job);
    jobs::mutate!(world.node.db, order.caller, "accept-job", |tx| {
        world.jobs.accept(tx, ticket.clone(), accept.clone()).await
    })
    .await
}

/// Steps that need no undo.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Nothing {}
