//! The KVM driver against a real libvirtd and QEMU, by orders through a hub. Guests are emulated; see [`world::SECTOR`].
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod cds;
mod disks;
mod leases;
mod life;
mod line;
mod migrate;
mod networks;
mod nics;
mod world;
