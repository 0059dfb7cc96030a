//! The identity service: domains, accounts, users, API keys, roles and their rules, resource limits and counts.
//!
//! * [`api`]: handlers, one file a proto service.
//! * `domain`, `account`, `user`, `role`, `limits`, `login`: the logic, without SQL and gRPC.
//! * `deletion`, `disabling`: its jobs; `clearing`: what an account owns goes first.
//! * `store`: the SQL.
//!
//! What it doesn't know: sessions and request signatures (the gateway), and how the things that accounts own are made or ended:
//! it asks their services to.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod access;
mod account;
mod api;
mod clearing;
mod deletion;
mod disabling;
mod domain;
mod event;
mod install;
mod keys;
mod limits;
mod login;
mod notify;
mod password;
mod resource;
mod role;
mod role_type;
mod rules;
mod store;
mod text;
mod user;
mod view;

#[cfg(test)]
mod proof;

pub use install::{admin_keys, ensure_admin_keys};

use ::store::Migration;
use contract::ApiError;
use contract::secret::Secret;
use jobs::{Builder, Jobs};
use limits::Limits;
use node::Node;
use password::Passwords;
use std::sync::Arc;
use std::time::Duration;
use store::holdings::Tables;

/// The tables that this service writes.
pub const MIGRATIONS: &[Migration] = &[
    Migration { owner: "identity", file: "0001_identity.sql", sql: include_str!("../migrations/0001_identity.sql") },
    Migration { owner: "identity", file: "0002_limits.sql", sql: include_str!("../migrations/0002_limits.sql") },
];

/// How patient a deletion is unless it is told otherwise: hosts that are away come back, or are known to be dead.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// What a replica is started with.
#[derive(Clone)]
pub struct IdentityOptions {
    /// Password of the user admin on a fresh installation; not looked at afterwards.
    pub admin_password: Secret<String>,
    /// Whether the user admin gets API keys when it has none ([`admin_keys`]).
    pub ensure_admin_keys: bool,
    /// How long the deletion of an account waits while nothing of what it owns goes.
    pub patience: Duration,
}

/// Handles of the service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Identity {
    pub node: Node,
    pub jobs: Jobs,
    pub passwords: Passwords,
    pub limits: Limits,
    pub tables: Tables,
    pub patience: Duration,
}

/// Makes what a fresh installation has, starts jobs and duties on `node`, and gives the service's gRPC routes.
/// The tables of all services exist by then.
///
/// # Errors
/// Those of the database.
pub async fn start(node: Node, options: IdentityOptions) -> Result<tonic::service::Routes, ApiError> {
    let builder = Jobs::builder(node.db.clone(), node.coord.clone(), SERVICE, node.replica.clone());
    let (identity, builder) = assemble(node.clone(), &options, builder).await?;
    builder.start(node.stop.clone(), &node.tasks);
    let limits = identity.limits.clone();
    node.duty("identity.reservations", move |term| limits.clone().sweep(term));
    Ok(api::routes(identity))
}

/// Name of the service, as `option (owner)` has it.
const SERVICE: &str = "identity";

async fn assemble(node: Node, options: &IdentityOptions, builder: Builder) -> Result<(Identity, Builder), ApiError> {
    let passwords = Passwords::new().await?;
    install::install(&node, &passwords, options).await?;
    let tables = Tables::look(&node.db).await?;
    let limits = Limits::new(node.clone(), tables.clone());
    let identity = Identity { node, jobs: builder.handle(), passwords, limits, tables, patience: options.patience };
    let world = Arc::new(identity.clone());
    let builder = builder
        .register::<deletion::DeleteAccount>(world.clone())
        .register::<deletion::DeleteDomain>(world.clone())
        .register::<disabling::DisableAccount>(world.clone())
        .register::<disabling::DisableUser>(world);
    Ok((identity, builder))
}
