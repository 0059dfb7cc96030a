//! The duty of auditing: every `arcus.audit.interval` seconds all checks run beside the working system, over the database
//! and over what hosts say. What appears and what disappears is told by an alert; what is there, by a metric and the log.

use crate::store::violations::{self, Name};
use crate::world::World;
use ::audit::{Auditor, CHECKS, HOST_CHECKS, HostReport, Outcome, Reports, Violation};
use config::keys;
use contract::ApiError;
use contract_agent::{Command, DiskState, Inventory, command};
use coord::Term;
use events::{Alert, Record};
use hub::Hub;
use model::HostId;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use telemetry::metrics::{Gauges, gauges, histograms};

/// How long after the beginning of a term the first audit is: who has just started has other things to do.
const FIRST: Duration = Duration::from_secs(30);
/// How often the interval is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long a host may take to tell what it runs.
const DEADLINE: Duration = Duration::from_secs(10);
/// Resources that an alert names.
const NAMED: usize = 5;

/// Asks hosts by the hub, whichever replica holds their line.
pub struct HubReports(pub Hub);

impl HubReports {
    async fn ask(&self, host: i64, body: command::Body) -> Result<Option<contract_agent::outcome::Body>, ApiError> {
        let command = Command { body: Some(body) };
        Ok(self.0.execute(HostId(host), None, false, command, DEADLINE).await?.body)
    }
}

#[tonic::async_trait]
impl Reports for HubReports {
    async fn host(&self, host: i64) -> Result<HostReport, ApiError> {
        ::audit::inventory(self.ask(host, command::Body::Inventory(Inventory {})).await?)
    }

    async fn disks(&self, host: i64, pool: &str, after: &str) -> Result<(Vec<DiskState>, bool), ApiError> {
        ::audit::disks(self.ask(host, ::audit::page(pool, after)).await?)
    }
}

/// Audits for as long as this replica leads.
pub fn start(world: &World) {
    let world = world.clone();
    world.node.clone().duty("audit", move |term| {
        let world = world.clone();
        async move { lead(&world, &term).await }
    });
}

/// What the leader shows; dropped with its term, when another replica's figures count.
struct Shown;

impl Drop for Shown {
    fn drop(&mut self) {
        violations_by_check().clear();
    }
}

async fn lead(world: &World, term: &Term) {
    let _shown = Shown;
    let mut wait = FIRST;
    loop {
        let mut waited = Duration::ZERO;
        loop {
            let interval = interval(world);
            // The setting may change while it waits; 0 waits for one.
            if interval.is_some_and(|interval| waited >= interval.min(wait)) {
                break;
            }
            tokio::select! {
                () = term.lost() => return,
                () = tokio::time::sleep(TICK) => waited += TICK,
            }
        }
        wait = Duration::MAX;
        if let Err(error) = round(world, Some(term)).await {
            tracing::warn!(%error, "the audit couldn't run; the next one tries again");
        }
    }
}

fn interval(world: &World) -> Option<Duration> {
    let seconds: i64 = world.node.settings.get(keys::ARCUS_AUDIT_INTERVAL);
    u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs)
}

/// One audit: runs all checks, and tells of what is new and what is over.
///
/// # Errors
/// When a check couldn't run, or `term` is over.
pub async fn round(world: &World, term: Option<&Term>) -> Result<Outcome, ApiError> {
    let reports = HubReports(world.hub.clone());
    let outcome = Auditor::new(&world.node.db).ask(&reports).run().await?;
    tell(world, term, &outcome.violations).await?;
    measure(&outcome);
    if outcome.violations.is_empty() {
        tracing::debug!(seconds = outcome.took.as_secs_f64(), hosts = outcome.hosts, "the books agree");
    } else {
        let names: HashSet<&str> = outcome.violations.iter().map(|v| v.check).collect();
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_unstable();
        let first = outcome.violations.first().map(ToString::to_string);
        tracing::error!(
            violations = outcome.violations.len(),
            checks = names.join(", "),
            first,
            "the books don't agree"
        );
    }
    Ok(outcome)
}

async fn tell(world: &World, term: Option<&Term>, found: &[Violation]) -> Result<(), ApiError> {
    let db = &world.node.db;
    ::store::tx!(db, "audit", |tx| {
        if let Some(term) = term {
            term.fence(tx).await?;
        }
        let known: HashMap<Name, String> = violations::known(tx).await?.into_iter().collect();
        let now: HashSet<Name> = found.iter().map(violations::name).collect();
        let new: Vec<&Violation> = found.iter().filter(|v| !known.contains_key(&violations::name(v))).collect();
        let over: Vec<(&Name, &String)> = known.iter().filter(|(name, _)| !now.contains(*name)).collect();
        violations::add(tx, &new).await?;
        let mut appeared: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for v in &new {
            appeared.entry(v.check).or_default().push(format!("{}: {}", v.resource, v.what));
        }
        let mut passed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, what) in over {
            violations::forget(tx, name).await?;
            passed.entry(&name.0).or_default().push(format!("{}: {what}", name.1));
        }
        let mut records: Vec<Record> = Vec::new();
        for (check, what) in &appeared {
            records.push(Alert::management("Audit", check).raise(told(check, "found", what)));
        }
        for (check, what) in &passed {
            records.push(Alert::management("Audit", check).clear(told(check, "no longer found", what)));
        }
        Ok::<_, ApiError>(events::record(tx, &records).await?)
    })
    .await
}

/// "Audit: vm-host found 7 times: vm/…: …; and 2 more".
fn told(check: &str, how: &str, what: &[String]) -> String {
    let named: Vec<&str> = what.iter().take(NAMED).map(String::as_str).collect();
    let more = what.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("Audit: {check} {how} {} times: {}{more}", what.len(), named.join("; "))
}

fn violations_by_check() -> Gauges {
    gauges("audit_violations", "Violations of invariants that the last audit found, by check")
}

fn measure(outcome: &Outcome) {
    let family = violations_by_check();
    let mut counts: HashMap<&str, i64> = HashMap::new();
    for violation in &outcome.violations {
        *counts.entry(violation.check).or_default() += 1;
    }
    for name in CHECKS.iter().map(|c| c.name).chain(HOST_CHECKS.iter().map(|c| c.name)) {
        let labels = vec![("check", name.to_owned())];
        family.get_or_create(&labels).set(counts.get(name).copied().unwrap_or(0));
    }
    let last = gauges("audit_last_run_timestamp_seconds", "When the last audit ended, UTC");
    last.get_or_create(&Vec::new()).set(::store::now_micros() / 1_000_000);
    let unanswered = gauges("audit_unanswered", "Hosts and pools that couldn't be asked by the last audit");
    unanswered.get_or_create(&Vec::new()).set(i64::try_from(outcome.unanswered.len()).unwrap_or(i64::MAX));
    let seconds = histograms("audit_seconds", "How long audits take");
    seconds.get_or_create(&Vec::new()).observe(outcome.took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_name_some_and_count_the_rest() {
        let what: Vec<String> = (0..7).map(|n| format!("vm/{n}: is lost")).collect();
        let text = told("vm-host", "found", &what);
        assert!(text.starts_with("Audit: vm-host found 7 times: vm/0: is lost; "), "{text}");
        assert!(text.ends_with("vm/4: is lost; and 2 more"), "{text}");
    }
}
