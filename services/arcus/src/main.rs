//! The `arcus` binary.

use anyhow::Result;
use arcus::{audit, dev};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use store::{Db, DbConfig};

#[derive(Parser)]
#[command(name = "arcus", version, about = "A cloud control plane that speaks the CloudStack API")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs all services in this process, with a simulator.
    Dev(Box<dev::DevArgs>),
    /// Checks that the books agree: exit 0 clean, 1 violations, 2 could not check.
    Audit(AuditArgs),
}

#[derive(Args)]
struct AuditArgs {
    /// The folder of `arcus dev`.
    #[arg(long, default_value = "data", conflicts_with = "database")]
    data_dir: PathBuf,
    /// The database, when it isn't in that folder.
    #[arg(long, env = "ARCUS_DATABASE", hide_env_values = true)]
    database: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("arcus: no runtime: {e}");
            return ExitCode::from(2);
        }
    };
    match cli.command {
        Command::Dev(args) => report(runtime.block_on(dev::run(*args))),
        Command::Audit(args) => match runtime.block_on(check(args)) {
            Ok(0) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::from(1),
            Err(e) => {
                eprintln!("arcus: could not check: {e:#}");
                ExitCode::from(2)
            }
        },
    }
}

fn report(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("arcus: {e:#}");
            ExitCode::from(1)
        }
    }
}

/// Gives the number of violations.
async fn check(args: AuditArgs) -> Result<usize> {
    let url = match args.database {
        Some(url) => url,
        None => {
            let file = args.data_dir.join("arcus.db");
            // Connecting would make an empty one.
            anyhow::ensure!(file.exists(), "{} doesn't exist", file.display());
            format!("sqlite:{}", file.display())
        }
    };
    let db = Db::connect(&DbConfig::new(url)).await?;
    let violations = audit::run(&db).await?;
    for v in &violations {
        println!("{}: {}", v.check, v.what);
    }
    println!("{} checks, {} violations", audit::CHECKS.len(), violations.len());
    Ok(violations.len())
}
