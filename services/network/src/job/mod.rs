//! The asynchronous commands of this service.

mod admin;
mod ip;
mod network;
#[cfg(test)]
mod prove;

pub use admin::{Action, AdminJob};
pub use ip::{AssociateIp, DisassociateIp};
pub use network::{DeleteNetwork, RestartNetwork, UpdateNetwork};

use crate::world::World;
use contract::api::{Caller, JobRef};
use contract::{ApiError, CommandInfo};
use jobs::{Accept, Builder, Claim, Job};
use model::Owner;
use std::sync::Arc;

/// Declares the kinds of this service.
pub fn register(builder: Builder, world: &Arc<World>) -> Builder {
    builder
        .register::<AdminJob>(world.clone())
        .register::<UpdateNetwork>(world.clone())
        .register::<DeleteNetwork>(world.clone())
        .register::<RestartNetwork>(world.clone())
        .register::<AssociateIp>(world.clone())
        .register::<DisassociateIp>(world.clone())
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
