//! Deterministic simulation of `coord` and `jobs`.
//!
//! A seed decides everything: sizes, the jobs that are asked for, delays, which task goes on first, and what breaks when.
//! Time is virtual and jumps. Replicas with real engines, real duties and the real client of etcd run as tasks of one
//! thread, over a simulated database, etcd and network. While faults go on they are killed, paused, cut off and restarted;
//! then everything heals, and the checks of [`check`] must hold. The same seed gives the same run, event by event.
//!
//! Run many seeds with the binary (`cargo run -p simulation -- --seeds 1000`), one again with `--seed N --trace`.

mod cast;
mod check;
mod client;
mod craft;
mod database;
mod dice;
mod etcd;
mod etcd_link;
mod host;
mod many;
mod nemesis;
mod network;
mod plan;
mod receiver;
mod run;
mod scheduler;
mod sim;
mod sqlite;

pub use many::many;
pub use plan::Plan;
pub use run::{Report, Runner};
pub use sim::Options;
