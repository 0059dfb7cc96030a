//! `arcus-cluster`: a cluster that goes on running in the background.

mod down;
mod lock;
mod status;
mod supervisor;
mod up;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// As `println!`, but nobody who reads is no error: `arcus-cluster up | head`.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
use say;

#[derive(Parser)]
#[command(name = "arcus-cluster", version, about = "Arcus in its production form, on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a cluster, or says where it is; what a former one left is used.
    Up(UpArgs),
    /// Ends it, in order. Its data stays.
    Down(Folder),
    /// What runs, and whether it serves: exit 0 when all does, 1 when a part doesn't, 3 when nothing runs.
    Status(Folder),
    /// What `up` leaves in the background.
    #[command(hide = true)]
    Supervise(UpArgs),
}

/// Where a cluster is.
#[derive(Args, Clone, Debug)]
struct Folder {
    /// Holds everything of the cluster: databases, keys, logs, cluster.json.
    #[arg(long, default_value = "data/cluster", env = "ARCUS_CLUSTER_DIR")]
    dir: PathBuf,
}

/// The flags of `up`.
#[derive(Args, Clone, Debug)]
struct UpArgs {
    #[command(flatten)]
    folder: Folder,
    /// A single MariaDB and one etcd, instead of three of each.
    #[arg(long)]
    small: bool,
    /// Simulated hosts; 0: no zone.
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// Replicas of each service.
    #[arg(long, default_value_t = 2)]
    replicas: usize,
    /// Each process in a network namespace of its own (needs root).
    #[arg(long)]
    isolated: bool,
    /// Any free ports, instead of 8080, 9090, 8250 and 9091.
    #[arg(long)]
    free_ports: bool,
    /// Commits wait for the disk: for machines that may lose power.
    #[arg(long)]
    durable: bool,
    /// Begin anew: what the folder holds of a cluster is deleted.
    #[arg(long)]
    reset: bool,
    /// Stay until Ctrl-C, then end the cluster.
    #[arg(long)]
    foreground: bool,
    /// The arcus binary (default: the one beside this one).
    #[arg(long, env = "ARCUS_BIN")]
    arcus: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("arcus-cluster: no runtime: {e}");
            return ExitCode::from(2);
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Up(args) => up::run(args).await,
            Command::Down(folder) => down::run(&folder.dir).await,
            Command::Status(folder) => status::run(&folder.dir).await,
            Command::Supervise(args) => supervisor::run(args).await,
        }
    });
    match outcome {
        Ok(code) => code,
        Err(e) => {
            eprintln!("arcus-cluster: {e:#}");
            ExitCode::from(2)
        }
    }
}
