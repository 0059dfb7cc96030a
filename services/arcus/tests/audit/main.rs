//! The audit: every check finds the corruption that it is for and names it, a sound world is clean, hosts that were
//! tampered with are found out, and nothing false is told while work goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod cases;
mod corruption;
mod duty;
mod guests;
mod hosts;
mod large;
mod online;
mod routers;
mod sample;
#[allow(dead_code)] // its other users need all of it
#[path = "../vm_jobs/template.rs"]
mod template;
mod world;
