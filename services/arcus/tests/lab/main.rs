//! Hosts with a kernel of their own, set up as the guide says: Debian's systemd, libvirt and AppArmor, the agent as a service, primary
//! and secondary storage on a real NFS server, guests' networks on 802.1Q. Guests are machines ([`host`]) or containers ([`containers`]).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod containers;
#[path = "../host/control.rs"]
#[allow(dead_code)] // the other tests use more of it
mod control;
mod host;
mod service;
mod site;
