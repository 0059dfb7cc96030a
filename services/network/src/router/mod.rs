//! Routers: what each is to be, and the workers that make it so.
//!
//! Whoever wants a change raises the router's generation in its own commit and then asks for [`Routers::applied`]. One
//! worker a router and replica turns many wishes into one command: it compiles what changed since the generation that the
//! host has, together with the present generation, in one statement: the leases by their own generations, the sections by
//! those of the router's row. Only what changed is read, sent and applied; a host that lacks the base gets the whole spec.
//! Two replicas may work on one router: generations only
//! rise, so the newer state wins on the host, and `routers.epoch` fences what is recorded after a move.

mod balance;
mod power;
mod spec;
mod watch;
mod worker;

pub(crate) use power::{give_up, place, rests, wake_up};
pub use watch::{clear_leftovers, watch};
pub use worker::Routers;
pub(crate) use worker::pick_host;
