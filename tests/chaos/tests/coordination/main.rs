//! Leader election, membership, recovery and graceful stop, with processes that are killed, paused, cut off, given another
//! clock, and stopped in order; agents that are replaced, and hubs that a thousand hosts lose.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod agent;
mod clock;
mod duties;
mod etcd;
mod hub;
mod load;
mod outage;
mod replicas;
mod rolling;
mod scene;
mod takeover;
mod zombie;
