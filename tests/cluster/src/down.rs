//! `arcus-cluster down`.

use crate::{lock, say};
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The supervisor gives each part a minute, in four groups.
const PATIENCE: Duration = Duration::from_secs(300);

/// Ends the cluster in `dir` and waits for it.
pub async fn run(dir: &Path) -> Result<ExitCode> {
    let Some(pid) = lock::holder(dir)? else {
        say!("No cluster runs in {}.", dir.display());
        return Ok(ExitCode::SUCCESS);
    };
    if pid == 0 {
        bail!("the supervisor is just starting: try again");
    }
    let begun = Instant::now();
    let parts = cluster::Report::read(dir)?.map_or(0, |r| r.parts.len());
    let told = Command::new("kill").arg("-TERM").arg(pid.to_string()).status().context("kill")?;
    if !told.success() && lock::holder(dir)?.is_some() {
        bail!("the supervisor {pid} can't be told to end");
    }
    say!("ending {parts} processes");
    while lock::holder(dir)?.is_some() {
        if begun.elapsed() > PATIENCE {
            bail!("the supervisor {pid} doesn't end; kill -9 it, and all its processes end with it");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    say!("ended after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}
