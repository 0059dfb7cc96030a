//! The storage service: primary storage pools, secondary storage, templates, volumes, and the disks of virtual machines.
//!
//! * `api`: handlers, one file a proto service.
//! * Concepts without SQL: [`target`] (where a pool is), [`choice`] (which pool takes a disk), [`size`] (how large a disk may
//!   be), [`offering`], [`filter`] (which templates a list shows), [`hosts`] (what hosts are told), [`bytes`] (what lies on
//!   pools), [`disks`] (the disks of a VM), [`templates`] (what may be registered), [`images`] (copies on secondary storage, and
//!   the driver of hosts' long work), [`snapshots`] (of volumes), [`downloads`] (URLs of files), [`limits`] (what volumes, templates and snapshots count), [`view`] (what answers show).
//! * [`tasks`]: the jobs of asynchronous commands. [`cleaner`], [`overcommit`], [`stats`], [`images::duty`],
//!   [`mounts`] (hosts are told of pools), [`snapshots::clock`] (policies), [`mod@template_copies`] (those on pools): background duties. [`news`]: what they and jobs hear of hosts.
//! * `store`: the SQL.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod api;
pub mod bytes;
pub mod choice;
pub mod cleaner;
pub mod disks;
pub mod downloads;
pub mod filter;
pub mod hosts;
pub mod images;
pub mod limits;
pub mod mounts;
pub mod news;
pub mod offering;
pub mod overcommit;
mod seed;
pub mod size;
pub mod snapshots;
pub mod stats;
mod store;
pub mod target;
pub mod tasks;
pub mod template_copies;
pub mod templates;
pub mod view;

pub use api::routes;

use contract::ApiError;
use jobs::{Builder, Jobs};
use node::Node;
use std::sync::Arc;
use tonic::service::Routes;

/// The tables that this service owns.
pub const MIGRATIONS: &[::store::Migration] = &[
    migration("0001_offerings.sql", include_str!("../migrations/0001_offerings.sql")),
    migration("0002_pools.sql", include_str!("../migrations/0002_pools.sql")),
    migration("0003_images.sql", include_str!("../migrations/0003_images.sql")),
    migration("0004_volumes.sql", include_str!("../migrations/0004_volumes.sql")),
    migration("0005_secondary.sql", include_str!("../migrations/0005_secondary.sql")),
    migration("0006_snapshots.sql", include_str!("../migrations/0006_snapshots.sql")),
    migration("0007_policies.sql", include_str!("../migrations/0007_policies.sql")),
    migration("0008_template_copies.sql", include_str!("../migrations/0008_template_copies.sql")),
    migration("0010_ended_vms.sql", include_str!("../migrations/0010_ended_vms.sql")),
];

const fn migration(file: &'static str, sql: &'static str) -> ::store::Migration {
    ::store::Migration { owner: "storage", file, sql }
}

/// One replica of the service.
#[derive(Clone)]
pub struct Storage {
    /// Its surroundings.
    pub node: Node,
    /// Accepts jobs.
    pub jobs: Jobs,
    /// Talks to hosts.
    pub hosts: hosts::Hosts,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("replica", &self.node.replica).finish_non_exhaustive()
    }
}

/// Seeds first-install data, starts the background work on `node`, and gives the gRPC routes.
///
/// # Errors
/// Those of the database.
pub async fn start(node: Node) -> Result<Routes, ApiError> {
    seed::run(&node.db).await?;
    let builder = Jobs::builder(node.db.clone(), node.coord.clone(), "storage", node.replica.clone());
    let (storage, builder) = wire(node, builder);
    let node = &storage.node;
    builder.start(node.stop.clone(), &node.tasks);
    overcommit::start(node);
    stats::start(&storage);
    cleaner::start(&storage);
    images::duty::start(&storage);
    mounts::start(&storage);
    template_copies::start(&storage);
    snapshots::clock::start(&storage);
    Ok(routes(storage))
}

/// Joins the service with an engine that isn't started yet, and declares its kinds of jobs.
pub fn wire(node: Node, builder: Builder) -> (Storage, Builder) {
    let hosts = hosts::Hosts::new(node.peers.orchestrator());
    let storage = Storage { node, jobs: builder.handle(), hosts };
    let builder = tasks::register(builder, &Arc::new(storage.clone()));
    (storage, builder)
}
