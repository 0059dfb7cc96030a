//! Leader election, membership, recovery and graceful stop, with processes that are killed, paused, cut off, given another
//! clock, and stopped in order.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod clock;
mod duties;
mod etcd;
mod load;
mod outage;
mod replicas;
mod rolling;
mod scene;
mod takeover;
mod zombie;
