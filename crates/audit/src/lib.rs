//! Whether the books agree: invariants over the database, and over what hosts really run.
//!
//! * [`checks`]: what must hold, a query for what breaks it each, what that means and how it is repaired. [`list`] prints
//!   them for people.
//! * [`Auditor`]: runs them beside a working system. It reads only, a page at a time, and rests as long as it works.
//! * [`Reports`]: how hosts are asked what they run; [`GrpcReports`] asks through the orchestrator.
//!
//! # When a finding counts
//! Each check is one statement a page, so it sees one snapshot: what is written in one commit is never seen in halves.
//! What takes several commits is left out while a job holds the claim of the resource (`{free:…}` in a query), in the very
//! same snapshot. What remains (work of duties, of synchronous commands across services) must be found for as long as the
//! check's [`Settle`] says, by this process's monotonic clock, about a resource that hasn't changed meanwhile (the stamp).

mod auditor;
mod check;
pub mod checks;
mod grpc;
mod hosts;
mod look;
mod reports;
mod rows;
mod text;

pub use auditor::{Auditor, Outcome};
pub use check::{Check, Over, Settle, Severity, Violation};
pub use checks::{CHECKS, HOST_CHECKS};
pub use grpc::{GrpcReports, disks, inventory, page};
pub use reports::{HostReport, Reports};
pub use text::list;

use store::Db;

/// Runs the checks over the database.
///
/// # Errors
/// When a check couldn't run.
pub async fn run(db: &Db) -> store::Result<Vec<Violation>> {
    Ok(Auditor::new(db).run().await?.violations)
}
