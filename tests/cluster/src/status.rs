//! `arcus-cluster status`.

use crate::{lock, say};
use anyhow::Result;
use cluster::{Memory, PartReport, Report};
use std::path::Path;
use std::process::ExitCode;

/// Prints what runs and whether it serves.
pub async fn run(dir: &Path) -> Result<ExitCode> {
    let Some(pid) = lock::holder(dir)? else {
        say!("No cluster runs in {}.", dir.display());
        return Ok(ExitCode::from(3));
    };
    let Some(report) = Report::read(dir)? else {
        say!("The cluster in {} is being started or ended (supervisor {pid}).", dir.display());
        return Ok(ExitCode::from(1));
    };
    let mut all = true;
    say!("{:16} {:>8}  {:22} {:9} log", "part", "pid", "address", "state");
    for part in &report.parts {
        let state = state(part).await;
        all &= state == "serves";
        let pid = part.pid.map_or("-".to_owned(), |p| p.to_string());
        let address = part.address.map_or("-".to_owned(), |a| a.to_string());
        say!("{:16} {pid:>8}  {address:22} {state:9} {}", part.name, part.log.display());
    }
    say!("\n{}, memory {}", summary(&report), memory(&report));
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn state(part: &PartReport) -> &'static str {
    let runs = part.pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
    match (runs, part.probe.ask().await) {
        (false, _) => "dead",
        (true, false) => "not ready",
        (true, true) => "serves",
    }
}

/// How much there is.
pub fn summary(report: &Report) -> String {
    let seconds = std::time::Duration::from_millis(report.start_millis).as_secs_f64();
    format!("{} processes, started in {seconds:.1} s", report.parts.len())
}

/// Memory of all of it.
pub fn memory(report: &Report) -> Memory {
    let mut memory = Memory::default();
    for part in &report.parts {
        if let Some(pid) = part.pid {
            memory.add(&part.kind, pid);
        }
    }
    memory
}
