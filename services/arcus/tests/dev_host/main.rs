//! `arcus dev --hypervisor kvm`: the very machine as the one host.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod binary;
mod machine;
mod namespace;
mod newcomer;
