//! The network service: physical networks, VLAN and address pools, guest networks and their routers, interfaces of VMs.
//!
//! What always holds:
//! * An address, MAC or VLAN is given by a row that a unique key admits; what memory knows only proposes.
//! * A lease is added in the commit that raises its router's generation; who needs it waits for "applied ≥ mine".
//! * A network is shut down or deleted only by a commit that first writes the router's (or the network's) row, which every
//!   commit that adds an interface writes too: the two see each other.
//! * Nobody but the router's worker talks to hosts; it sends wanted states that may be sent twice.
//!
//! What this crate doesn't know: VMs beyond their number and name, hosts beyond "is it there", how agents do it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))] // a test that can't go on has failed

#[cfg(test)]
extern crate self as arcus_network; // the tests' support speaks of this crate by name

mod address;
mod api;
mod attachment;
mod balance;
mod catalogue;
mod job;
mod network;
mod present;
mod router;
mod rule;
mod store;
mod world;

use ::store::Migration;
use contract::ApiError;
use jobs::Jobs;
use node::Node;
use tonic::service::Routes;
use world::World;

/// The tables of this service.
pub const MIGRATIONS: &[Migration] = &[
    Migration { owner: "network", file: "0001_physical.sql", sql: include_str!("../migrations/0001_physical.sql") },
    Migration { owner: "network", file: "0002_networks.sql", sql: include_str!("../migrations/0002_networks.sql") },
    Migration {
        owner: "network",
        file: "0003_nics_removed.sql",
        sql: include_str!("../migrations/0003_nics_removed.sql"),
    },
    Migration { owner: "network", file: "0004_ip_vm.sql", sql: include_str!("../migrations/0004_ip_vm.sql") },
    Migration { owner: "network", file: "0005_rules.sql", sql: include_str!("../migrations/0005_rules.sql") },
    Migration {
        owner: "network",
        file: "0006_load_balancing.sql",
        sql: include_str!("../migrations/0006_load_balancing.sql"),
    },
    Migration {
        owner: "network",
        file: "0007_router_sections.sql",
        sql: include_str!("../migrations/0007_router_sections.sql"),
    },
];

/// First numbers of a fresh install (4.11's).
const FIRST: &[(&str, i64)] = &[("networks", 200), ("physical_networks", 200)];

/// Starts a replica: seeds what a fresh install has, begins the background work, gives the gRPC routes.
///
/// # Errors
/// Those of the database.
pub async fn start(node: Node) -> Result<Routes, ApiError> {
    store::offerings::seed(&node.db, &catalogue::seeds()?).await?;
    for (kind, first) in FIRST {
        node.db.start_ids(kind, *first).await?;
    }
    let builder = Jobs::builder(node.db.clone(), node.coord.clone(), "network", node.replica.clone());
    let world = World::new(node.clone(), builder.handle());
    job::register(builder, &world).start(node.stop.clone(), &node.tasks);
    let following = world.clone();
    node.spawn("network-views", async move { following.follow().await });
    let watched = world.clone();
    node.duty("network-routers", move |term| router::watch(watched.clone(), term));
    let collected = world.clone();
    node.duty("network-gc", move |term| network::gc::collect(collected.clone(), term));
    Ok(api::routes(&world))
}
