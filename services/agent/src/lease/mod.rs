//! Whose a VM is: never two writers to one disk. The protocol is told in `proto/arcus/agent/v1/lease.proto`.
//!
//! [`machine`] is the protocol as pure state machines, which the model test explores; [`area`] is where it is kept on a
//! pool; [`clock`] is what it is timed by; [`beats`], [`claims`] and [`orders`] are what drivers share.

mod area;
mod beats;
mod claims;
mod clock;
mod machine;
#[cfg(test)]
mod model;
mod orders;
mod writes;

pub(crate) use area::{Area, Areas};
pub(crate) use beats::Beats;
pub(crate) use claims::{Claims, Holder, held, look, pause};
pub(crate) use clock::now;
pub(crate) use machine::{Claimed, Glance, Missing, Rules, Sight, Standing, Step, Taker, Tenure};
pub(crate) use orders::{
    Reach, Wanted, fenced, inspect, inspect_host, lease_pool, millis, outdated, take, unreachable,
};
pub(crate) use writes::Written;
pub use writes::{Overlap, overlaps};
