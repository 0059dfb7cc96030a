//! `arcus audit`: whether the books agree.

use crate::replica::Installation;
use crate::schema;
use crate::settings::CommonArgs;
use anyhow::{Context, Result, ensure};
use audit::{Auditor, GrpcReports, Outcome};
use clap::Args;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// The flags of `arcus audit`.
#[derive(Args, Clone, Debug)]
pub struct AuditArgs {
    /// The folder of `arcus dev`.
    #[arg(long, default_value = "data", conflicts_with_all = ["database", "config"])]
    data_dir: PathBuf,
    /// Prints what is checked, what it means and how it is repaired, and checks nothing.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    common: CommonArgs,
}

/// Most connections with the database: checks run one after the other.
const CONNECTIONS: u32 = 4;

/// Runs all checks and prints what they find. Gives the number of violations. Writes nothing to the database, which may
/// refuse it.
///
/// Where the installation is reached through etcd, hosts are asked what they run, too.
///
/// # Errors
/// When it couldn't check.
pub async fn run(args: AuditArgs) -> Result<usize> {
    if args.list {
        print!("{}", audit::list());
        return Ok(0);
    }
    let common = args.common.settings()?.common;
    let outcome = match &common.database {
        Some(_) if !common.etcd.is_empty() => {
            let installation = Installation::look(&common).await?;
            let stop = CancellationToken::new();
            let peers = installation.channels(stop.clone())?;
            let reports = GrpcReports::new(peers.orchestrator());
            let outcome = Auditor::new(&installation.db).ask(&reports).run().await;
            stop.cancel();
            outcome
        }
        Some(url) => Auditor::new(&schema::look(url, CONNECTIONS).await?).run().await,
        None => {
            let file = args.data_dir.join("arcus.db");
            ensure!(file.exists(), "{} doesn't exist", file.display());
            Auditor::new(&schema::look(&format!("sqlite:{}", file.display()), CONNECTIONS).await?).run().await
        }
    };
    let outcome = outcome.context("checking")?;
    print(&outcome);
    Ok(outcome.violations.len())
}

fn print(outcome: &Outcome) {
    for violation in &outcome.violations {
        println!("{violation}");
    }
    for who in &outcome.unanswered {
        println!("not asked: {who}");
    }
    let hosts = match outcome.hosts {
        Some(hosts) => format!("{hosts} hosts told what they run"),
        None => "only the database was looked at: hosts are asked when --config names the etcd".to_owned(),
    };
    let (checks, violations) = (outcome.checks, outcome.violations.len());
    println!("{checks} checks, {violations} violations ({hosts}; {:.1} s)", outcome.took.as_secs_f64());
}
