//! The checker: a pure function over a history and what was there afterwards.
//!
//! * [`answers`]: what each single answer may be, and when.
//! * [`effects`]: whether all answers together, and what is there at the end, have an order that the models allow.
//! * [`books`]: whether database, API and hosts agree at the end, every job has ended, and nothing is there twice.

mod answers;
mod books;
mod effects;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests;

use crate::aftermath::Aftermath;
use crate::history::{Entry, Failure, FaultSpan, Operation, Outcome, faults, operations};
use serde::Serialize;
use std::collections::BTreeMap;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule that it breaks.
    pub rule: &'static str,
    /// The operation.
    pub op: Option<u64>,
    /// What happened.
    pub what: String,
}

/// How long after a fault is mended its effects may be felt: leases run out, pools reconnect, agents come back.
pub const AFTERGLOW: u64 = 15_000_000;

/// How long before an operation's failure a fault may have been felt to be its excuse. A step that waits longer than this for
/// what has been mended meanwhile is stuck, whatever happened when the operation began.
pub const PATIENCE: u64 = 30_000_000;

/// What a check gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// What must not be; empty: all is well.
    pub findings: Vec<Finding>,
    /// Operations by how they ended.
    pub outcomes: BTreeMap<String, u64>,
    /// Errors that are allowed while something is hurt, by code.
    pub tolerated: BTreeMap<String, u64>,
    /// Operations by command.
    pub commands: BTreeMap<String, u64>,
    /// Faults by what and how.
    pub faults: BTreeMap<String, u64>,
    /// Operations that began after all was mended, and went well.
    pub calm: u64,
}

/// A history, put together.
struct Run {
    operations: Vec<Operation>,
    faults: Vec<FaultSpan>,
}

impl Run {
    /// Whether the failure of an operation has an excuse: something was hurt while it went on, and not too long before it
    /// failed.
    fn excuses(&self, invoked: u64, failed: u64) -> bool {
        self.hurt(invoked.max(failed.saturating_sub(PATIENCE)), failed)
    }

    /// Since when nothing is hurt and nothing is felt any more of what was.
    fn calm(&self) -> u64 {
        self.faults.iter().map(|f| f.until.saturating_add(AFTERGLOW)).max().unwrap_or(0)
    }

    /// Whether something was hurt, or had been a moment ago, at any time between these two.
    fn hurt(&self, from: u64, until: u64) -> bool {
        self.faults.iter().any(|f| f.from <= until && f.until.saturating_add(AFTERGLOW) >= from)
    }
}

/// Checks a history.
pub fn check(entries: &[Entry], after: &Aftermath) -> Report {
    let run = Run { operations: operations(entries), faults: faults(entries) };
    let mut report = Report::default();
    for o in &run.operations {
        *report.commands.entry(o.command.clone()).or_default() += 1;
        let how = match &o.outcome {
            Some(Outcome::Ok { .. }) => "ok".to_owned(),
            Some(Outcome::Refused { error }) => format!("refused {}", error.code),
            Some(Outcome::Failed { error, .. }) => format!("job failed {}", error.code),
            Some(Outcome::Unknown { .. }) | None => "unknown".to_owned(),
        };
        *report.outcomes.entry(how).or_default() += 1;
    }
    for f in &run.faults {
        *report.faults.entry(format!("{} {}", f.how, kind(&f.part))).or_default() += 1;
    }
    let calm = run.calm();
    let well = |o: &&Operation| o.invoked > calm && matches!(o.outcome, Some(Outcome::Ok { .. }));
    report.calm = run.operations.iter().filter(well).count() as u64;
    answers::check(&run, &mut report);
    effects::check(&run, after, &mut report);
    books::check(&run, after, &mut report);
    report
}

/// "orchestrator-1" is an orchestrator.
fn kind(part: &str) -> &str {
    part.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-')
}

/// Whether an error says that something wasn't there just now, rather than something of the request or of things named.
fn is_transient(error: &Failure) -> bool {
    match error.code {
        // No balancer behind, no service behind, no room because hosts are away, the API's own 534.
        502..=504 | 533 | 534 => true,
        // Another change was faster, or the text says what couldn't be done now. But 4.11 refuses to delete a network with
        // VMs in it with this number, too.
        530 => !error.text.contains("not all user vms are expunged"),
        _ => false,
    }
}

/// What kind of error it is: its numbers, and for 530, which is many things, how its text begins.
fn label(error: &Failure) -> String {
    let text: String = error.text.chars().take(70).map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
    if error.code == 530 { format!("530/{} {text}", error.cs) } else { format!("{}/{}", error.code, error.cs) }
}

/// Whether an error says that the request doesn't fit what is named in it.
fn is_refusal(error: &Failure) -> bool {
    matches!(error.code, 431 | 536 | 537) || error.code == 530 && !is_transient(error)
}

/// Whether an error says what it can't say: that something went wrong inside.
fn is_internal(error: &Failure) -> bool {
    error.code == 500
        || error.code == 530
            && matches!(error.cs, 0 | 4250)
            && (error.text.starts_with("Internal error executing command") || error.text.contains("database error"))
}

impl Report {
    pub(crate) fn find(&mut self, rule: &'static str, op: Option<u64>, what: impl Into<String>) {
        self.findings.push(Finding { rule, op, what: what.into() });
    }

    fn tolerate(&mut self, what: impl Into<String>) {
        *self.tolerated.entry(what.into()).or_default() += 1;
    }
}
