//! Containers by libvirt's driver for LXC, by orders through a hub: real namespaces, control groups and mounts of this kernel.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod jail;
mod leases;
mod life;
mod networks;
mod world;
