//! A whole run: load, faults, quiet, check.

use crate::aftermath::{self, Aftermath};
use crate::check::{AFTERGLOW, Report, check};
use crate::client::Client;
use crate::faults::{self, Plan};
use crate::history::History;
use crate::system::System;
use crate::workload::{Load, Workers, prepare};
use anyhow::{Context as _, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// The faults.
    pub plan: Plan,
    /// The load.
    pub load: Load,
    /// Accounts that the workers share.
    pub accounts: usize,
    /// How long the load goes on when all has been mended and nothing of the faults is felt any more: everything must work.
    pub calm: Duration,
    /// Where history and aftermath are kept.
    pub keep: Option<PathBuf>,
}

/// Whether this process may make network namespaces.
pub fn am_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// What came of it.
#[derive(Debug)]
pub struct Run {
    /// Faults.
    pub faults: u64,
    /// Seconds from the first fault until all was mended.
    pub seconds: f64,
    /// Seconds from then until all was quiet.
    pub quiet_seconds: f64,
    /// Lines of history.
    pub lines: usize,
    /// What the checker says.
    pub report: Report,
}

/// Runs it.
///
/// # Errors
/// When the run itself broke; what the system did wrong is in the report.
pub async fn run(system: Arc<dyn System>, options: &Options) -> Result<Run> {
    let file = |name: &str| options.keep.as_ref().map(|dir| dir.join(name));
    if let Some(dir) = &options.keep {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let history = Arc::new(History::new(file("history.jsonl").as_deref())?);
    let (key, secret) = system.keys();
    let mut endpoints = vec![system.front()];
    endpoints.extend(system.endpoints().into_iter().filter(|e| *e != system.front()));
    let admin = Client::new(0, "admin", (&key, &secret), endpoints, history.clone());
    let (ground, accounts) = prepare(&admin, options.accounts).await.context("setting up")?;
    let workers = Workers::start(&options.load, &Arc::new(ground), &accounts);
    let begun = Instant::now();
    let done = faults::run(&system, &history, &options.plan).await;
    let seconds = begun.elapsed().as_secs_f64();
    if done.is_ok() {
        tokio::time::sleep(Duration::from_micros(AFTERGLOW) + options.calm).await;
    }
    workers.finish().await.context("a worker")?;
    let faults = done?;
    let begun = Instant::now();
    let after = aftermath::read(&*system, &admin, || history.now()).await.context("what is there afterwards")?;
    let quiet_seconds = begun.elapsed().as_secs_f64();
    let entries = history.entries();
    let mut report = check(&entries, &after);
    if report.calm == 0 && !options.calm.is_zero() {
        report.find("dead-calm", None, "nothing went well after all had been mended");
    }
    if let Some(file) = file("aftermath.json") {
        write(&after, &file)?;
    }
    if let Some(dir) = file("logs") {
        std::fs::create_dir_all(&dir)?;
        for part in system.parts() {
            std::fs::copy(system.log(&part.name), dir.join(part.name)).context("keeping a log")?;
        }
    }
    Ok(Run { faults, seconds, quiet_seconds, lines: entries.len(), report })
}

fn write(after: &Aftermath, file: &std::path::Path) -> Result<()> {
    std::fs::write(file, serde_json::to_vec_pretty(after)?).with_context(|| file.display().to_string())
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let r = &self.report;
        let operations: u64 = r.outcomes.values().sum();
        writeln!(
            f,
            "{} faults in {:.0} s, {operations} operations ({} lines), checked {:.1} s later",
            self.faults, self.seconds, self.lines, self.quiet_seconds
        )?;
        for (what, of) in
            [("faults", &r.faults), ("commands", &r.commands), ("outcomes", &r.outcomes), ("tolerated", &r.tolerated)]
        {
            let all: Vec<String> = of.iter().map(|(k, n)| format!("{k}: {n}")).collect();
            writeln!(f, "{what}: {}", all.join(", "))?;
        }
        writeln!(f, "{} operations went well after all had been mended", r.calm)?;
        writeln!(f, "{} findings", r.findings.len())?;
        for finding in &r.findings {
            let op = finding.op.map(|op| format!(" (operation {op})")).unwrap_or_default();
            writeln!(f, "  {}{op}: {}", finding.rule, finding.what)?;
        }
        Ok(())
    }
}
