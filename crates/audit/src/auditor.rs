//! Runs checks, and tells only of what lasts.

use crate::check::{Check, Settle, Severity, Violation};
use crate::checks::{CHECKS, HOST_CHECKS};
use crate::hosts::{self, Census};
use crate::look::{Findings, Found, Looker};
use crate::reports::Reports;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;
use store::Db;
use tokio::time::Instant;

/// First wait before what was found is looked at again, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What breaks invariants, the gravest first.
    pub violations: Vec<Violation>,
    /// How many checks ran.
    pub checks: usize,
    /// How many hosts told what they run; `None`: hosts weren't asked.
    pub hosts: Option<usize>,
    /// Hosts and pools that couldn't be asked, and why.
    pub unanswered: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Runs the checks. Reads only.
pub struct Auditor<'a> {
    db: &'a Db,
    reports: Option<&'a dyn Reports>,
    patience: Option<Duration>,
    gently: bool,
}

/// Which look a suspicion is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Source {
    Table(usize),
    Host(usize),
}

/// Something that was found and may pass.
struct Suspect {
    found: Found,
    since: Instant,
}

impl<'a> Auditor<'a> {
    /// Of this database, hosts unasked.
    pub fn new(db: &'a Db) -> Auditor<'a> {
        Auditor { db, reports: None, patience: None, gently: true }
    }

    /// Asks hosts, too, what they run.
    #[must_use]
    pub fn ask(mut self, reports: &'a dyn Reports) -> Auditor<'a> {
        self.reports = Some(reports);
        self
    }

    /// Nobody works on this database: what is found once counts, and nothing needs to rest.
    #[must_use]
    pub fn at_rest(self) -> Auditor<'a> {
        Auditor { patience: Some(Duration::ZERO), gently: false, ..self }
    }

    /// Whatever a check says, nothing has to last longer than this.
    #[must_use]
    pub fn patience(mut self, longest: Duration) -> Auditor<'a> {
        self.patience = Some(longest);
        self
    }

    /// Runs all checks. Takes as long as the slowest of the things that it finds need to be believed.
    ///
    /// # Errors
    /// When a check couldn't run.
    pub async fn run(&self) -> store::Result<Outcome> {
        let begun = Instant::now();
        let mut outcome = Outcome { checks: CHECKS.len(), ..Outcome::default() };
        let mut suspects: BTreeMap<(Source, String), Suspect> = BTreeMap::new();
        for (n, check) in CHECKS.iter().enumerate() {
            suspect(&mut suspects, Source::Table(n), self.looker().look(check).await?);
        }
        if let Some(reports) = self.reports {
            let census = hosts::look(&self.looker(), reports, None).await?;
            outcome.checks += HOST_CHECKS.len();
            outcome.hosts = Some(census.asked);
            outcome.unanswered = census.unanswered;
            for (n, findings) in census.findings.into_iter().enumerate() {
                suspect(&mut suspects, Source::Host(n), findings);
            }
        }
        let mut wait = AGAIN.0;
        while self.sift(&mut suspects, &mut outcome.violations) {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
            self.look_again(&mut suspects).await?;
        }
        outcome.violations.sort();
        outcome.took = begun.elapsed();
        Ok(outcome)
    }

    fn looker(&self) -> Looker<'a> {
        Looker { db: self.db, gently: self.gently }
    }

    /// Moves what has lasted long enough to the violations. Whether anything is left.
    fn sift(&self, suspects: &mut BTreeMap<(Source, String), Suspect>, out: &mut Vec<Violation>) -> bool {
        suspects.retain(|(source, resource), suspect| {
            let (name, severity, settle) = source.of();
            let time = self.patience.map_or(settle.time(), |longest| longest.min(settle.time()));
            // Without any patience the first look is enough; else there was a second one by now.
            if suspect.since.elapsed() < time {
                return true;
            }
            let (resource, what) = (resource.clone(), suspect.found.what.clone());
            out.push(Violation { severity, check: name, resource, what });
            false
        });
        !suspects.is_empty()
    }

    /// Looks again at what is suspected; what is gone or has changed since isn't any more.
    async fn look_again(&self, suspects: &mut BTreeMap<(Source, String), Suspect>) -> store::Result<()> {
        let sources: HashSet<Source> = suspects.keys().map(|(source, _)| *source).collect();
        let mut now: BTreeMap<Source, Findings> = BTreeMap::new();
        let mut asked: Option<Census> = None;
        for source in sources {
            match (source, self.reports) {
                (Source::Table(n), _) => {
                    if let Some(check) = CHECKS.get(n) {
                        now.insert(source, self.looker().look(check).await?);
                    }
                }
                (Source::Host(n), Some(reports)) => {
                    if asked.is_none() {
                        let hosts = suspects.keys().filter(|(s, _)| matches!(s, Source::Host(_)));
                        let among: HashSet<String> = hosts.map(|(_, resource)| resource.clone()).collect();
                        asked = Some(hosts::look(&self.looker(), reports, Some(&among)).await?);
                    }
                    let findings = asked.as_ref().and_then(|census| census.findings.get(n)).cloned();
                    now.insert(source, findings.unwrap_or_default());
                }
                (Source::Host(_), None) => {}
            }
        }
        suspects.retain(|(source, resource), suspect| {
            let still = now.get(source).and_then(|findings| findings.get(resource));
            still.is_some_and(|found| {
                let same = found.stamp == suspect.found.stamp;
                suspect.found.what.clone_from(&found.what);
                same
            })
        });
        Ok(())
    }
}

impl Source {
    fn of(self) -> (&'static str, Severity, Settle) {
        let unknown = ("unknown", Severity::Grave, Settle::Moment);
        match self {
            Source::Table(n) => CHECKS.get(n).map_or(unknown, |c: &Check| (c.name, c.severity, c.settle)),
            Source::Host(n) => HOST_CHECKS.get(n).map_or(unknown, |c| (c.name, c.severity, c.settle)),
        }
    }
}

fn suspect(suspects: &mut BTreeMap<(Source, String), Suspect>, source: Source, findings: Findings) {
    let since = Instant::now();
    suspects.extend(findings.into_iter().map(|(resource, found)| ((source, resource), Suspect { found, since })));
}
