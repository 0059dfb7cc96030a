//! `arcus-chaos`: hurts a running Arcus for as long as told, and checks what it did meanwhile.
//!
//! ```text
//! arcus-chaos run --faults 2000 --seed 7 --keep target/chaos
//! arcus-chaos check target/chaos
//! ```

use anyhow::{Context as _, Result};
use chaos::aftermath::Aftermath;
use chaos::check::check;
use chaos::faults::Plan;
use chaos::history;
use chaos::run::{Options, run};
use chaos::system::System;
use chaos::system::cluster::Production;
use chaos::system::dev::Dev;
use chaos::workload::Load;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

#[derive(Parser)]
#[command(name = "arcus-chaos", about = "Hurts a running Arcus and checks what it did meanwhile")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a system, hurts it under load, checks.
    Run(RunArgs),
    /// Checks a kept run again.
    Check {
        /// The folder of `--keep`.
        dir: PathBuf,
    },
}

/// What is hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum On {
    /// Three nodes of Galera, three of etcd, two replicas of each service.
    Cluster,
    /// The same with one MariaDB and one etcd, which aren't hurt.
    Small,
    /// `arcus dev` with a MariaDB and an etcd, all of which are hurt.
    Dev,
}

#[derive(Args)]
struct RunArgs {
    /// What is hurt.
    #[arg(long, value_enum, default_value = "cluster")]
    on: On,
    /// Each process in a network namespace, which partitions need. Needs root.
    #[arg(long)]
    isolated: bool,
    /// Faults.
    #[arg(long, default_value_t = 100)]
    faults: u64,
    /// Ends after so many minutes, whatever `--faults` says.
    #[arg(long)]
    minutes: Option<u64>,
    /// Seed; drawn when there is none.
    #[arg(long)]
    seed: Option<u64>,
    /// More faults at once than the redundancy bears.
    #[arg(long)]
    wild: bool,
    /// Clients.
    #[arg(long, default_value_t = 8)]
    workers: usize,
    /// Longest pause of a client between two operations, in milliseconds.
    #[arg(long, default_value_t = 300)]
    think: u64,
    /// Simulated hosts.
    #[arg(long, default_value_t = 8)]
    hosts: usize,
    /// Least and most milliseconds between two faults.
    #[arg(long, num_args = 2, default_values_t = [500, 2500])]
    every: Vec<u64>,
    /// Seconds for which the load goes on when all is mended.
    #[arg(long, default_value_t = 20)]
    calm: u64,
    /// The binary.
    #[arg(long, default_value = "target/release/arcus")]
    arcus: PathBuf,
    /// Keep history and aftermath there.
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => start(args).await,
        Command::Check { dir } => again(&dir),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("arcus-chaos: {e:#}");
            ExitCode::from(2)
        }
    }
}

async fn start(args: RunArgs) -> Result<bool> {
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let dir = testkit::temp_dir();
    let system: Arc<dyn System> = match args.on {
        On::Dev => Arc::new(Dev::start(&args.arcus, args.hosts).await?),
        on => {
            let few = on == On::Small;
            Arc::new(
                Production::start(cluster::Options {
                    arcus: args.arcus.clone(),
                    galera: if few { 1 } else { 3 },
                    etcd: if few { 1 } else { 3 },
                    replicas: 2,
                    hosts: args.hosts,
                    isolated: args.isolated,
                    dir: dir.path().to_owned(),
                    seed,
                    durable: false,
                })
                .await?,
            )
        }
    };
    let every = (args.every[0], args.every[1].max(args.every[0]));
    let options = Options {
        plan: Plan {
            faults: Some(args.faults),
            time: args.minutes.map(|m| Duration::from_secs(60 * m)),
            every: (Duration::from_millis(every.0), Duration::from_millis(every.1)),
            wild: args.wild,
            seed,
        },
        load: Load { workers: args.workers, think: Duration::from_millis(args.think), seed },
        accounts: 4,
        calm: Duration::from_secs(args.calm),
        keep: args.keep,
    };
    let done = run(system, &options).await?;
    println!("{done}seed {seed}");
    Ok(done.report.findings.is_empty())
}

fn again(dir: &std::path::Path) -> Result<bool> {
    let entries = history::read(&dir.join("history.jsonl")).context("the history")?;
    let after: Aftermath = serde_json::from_slice(&std::fs::read(dir.join("aftermath.json"))?)?;
    let report = check(&entries, &after);
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(report.findings.is_empty())
}
