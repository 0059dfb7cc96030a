//! Durable jobs: every asynchronous command is one.
//!
//! A job ([`Job`]) is an `async fn` of named steps that is run again after a crash: finished steps return what they
//! returned the first time. Local steps ([`step!`]) commit their writes together with their checkpoint. Remote steps
//! ([`Ctx::call`]) carry a key; receivers ([`effect!`]) answer a repeat as the first time. When a job fails, every step
//! that finished or may have taken place is undone, last first, until that has succeeded; then the job ends as failed.
//!
//! What holds at every instant, whoever is killed:
//! * A job in the database ends, as done or as failed, while a replica that knows its kind lives; only a job that keeps
//!   killing its workers, or whose code changed under it, is parked, with an alert.
//! * A worker that was replaced writes nothing: every write begins with a conditional update of the job's row.
//! * A resource is worked on by the jobs that claim it ([`Claim`]) and nobody else.
//!
//! What this crate doesn't know: what jobs do, and who else is a member.
//!
//! Synchronous commands go through [`mutate!`], which is where idempotency keys live.

mod accept;
mod backlog;
mod backoff;
pub mod claims;
mod ctx;
mod effect;
mod engine;
mod faults;
pub mod harness;
mod housekeeping;
mod job;
mod key;
mod mutate;
mod rows;
mod run;
mod step;
mod takeover;
mod undo;
pub mod view;
mod worker;

pub use backlog::Bounds;
pub use claims::{Claim, free};
pub use ctx::{AbortCx, Ctx, NO_UNDO};
pub use engine::{Builder, JobStats, Jobs, Pace};
pub use faults::{Fault, Faults};
pub use job::{Accept, Finished, Job, Ticket};
pub use key::{Answer, Call, StepKey};
pub use undo::UndoCx;
pub use view::{JobFilter, JobState, JobView};

#[doc(hidden)]
pub use effect::{Effect, Receive, UndoEffect};
#[doc(hidden)]
pub use mutate::{Mutation, answered};
#[doc(hidden)]
pub use step::{Attempt, Begun, LastStep, LocalStep, LocalUndo};
#[doc(hidden)]
pub use store::Tx;

use store::Migration;

/// Jobs, claims, effects and answers, migrated by whichever service starts first.
pub const MIGRATIONS: &[Migration] =
    &[Migration { owner: "jobs", file: "0001_jobs.sql", sql: include_str!("../migrations/0001_jobs.sql") }];
