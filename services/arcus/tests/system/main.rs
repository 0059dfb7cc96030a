//! The whole system, as a process: life cycle, concurrency, idempotency, kills.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod affinity;
mod assign;
mod bad_input;
mod books;
mod changes;
mod concurrency;
mod dev;
mod downloads;
mod golden;
mod idempotency;
mod isos;
mod kill;
mod load_balancing;
mod owners;
mod planners;
mod snapshots;
mod templates;
mod tenants;
mod wire;
