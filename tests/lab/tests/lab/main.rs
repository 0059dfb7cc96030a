//! The lab itself: what its machines can do that this machine's kernel needn't.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hypervisor;
mod life;
mod nfs;
mod systemd;
mod vlan;
