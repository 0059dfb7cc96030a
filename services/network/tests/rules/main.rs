//! Firewall, egress, port forwarding and static NAT over the wire, on both databases, with a host that tells what it has.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod firewall;
mod life;
mod nat;
mod routers;
mod speed;
#[path = "../support/mod.rs"]
mod support;
mod world;
