//! Measures a cloud as its users meet it: over HTTP, with signed requests. Works against any server that speaks the
//! CloudStack API (`drive`), and can start an Arcus of its own (`own`).
//!
//! ```text
//! cargo build --release --bin arcus --bin arcus-bench
//! target/release/arcus-bench own                        # MariaDB with durable commits
//! target/release/arcus-bench own --on sqlite --vms 1000,10000 --networks 10
//! target/release/arcus-bench drive --url http://HOST:8080/client/api --apikey K --secretkey S --vms 1000
//! target/release/arcus-bench raw                        # what disk and database give
//! ```

mod hosts;
mod load;
mod machines;
mod raw;
mod recovery;
mod report;
mod server;
mod target;

use anyhow::{Context as _, Result};
use arcus::api_client::ApiClient;
use clap::{Args, Parser, Subcommand, ValueEnum};
use load::Reads;
use report::Report;
use server::Server;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use target::Zone;

/// Where the database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum On {
    /// A MariaDB server of its own with `innodb_flush_log_at_trx_commit=1`.
    Mariadb,
    /// SQLite in a folder of its own.
    Sqlite,
}

#[derive(Parser)]
#[command(about = "Measures a cloud that speaks the CloudStack API")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Starts an Arcus of its own and measures it.
    Own(OwnArgs),
    /// Measures a running server; its first enabled advanced zone has hosts, a template and room.
    Drive(DriveArgs),
    /// What disk and database give without Arcus.
    Raw,
}

#[derive(Args, Clone)]
struct Load {
    /// Machines to grow to; after each the lists are measured.
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    vms: Vec<usize>,
    /// Isolated networks that they are spread over.
    #[arg(long, default_value_t = 4)]
    networks: usize,
    /// Concurrent clients of deploys and destroys.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Concurrent clients of the lists, one run each.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    readers: Vec<usize>,
    /// Lists a second of the open loop: sent at that rate whether answered or not; 0: none.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Seconds of each list run.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Hosts to enrol with `addHost`, in a cluster of their own; 0: none.
    #[arg(long, default_value_t = 0)]
    enrol: usize,
    /// Leave the machines.
    #[arg(long)]
    keep: bool,
    /// Also write the figures there, one JSON object a line.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct OwnArgs {
    #[arg(long, value_enum, default_value = "mariadb")]
    on: On,
    /// Simulated hosts.
    #[arg(long, default_value_t = 32)]
    hosts: usize,
    /// The binary.
    #[arg(long, default_value = "target/release/arcus")]
    arcus: String,
    /// Starts to measure.
    #[arg(long, default_value_t = 3)]
    starts: usize,
    /// Also `kill -9` in a batch of 32 deploys, and see how long the API is away and how the deploys end.
    #[arg(long)]
    recovery: bool,
    #[command(flatten)]
    load: Load,
}

#[derive(Args)]
struct DriveArgs {
    /// "http://127.0.0.1:8080/client/api".
    #[arg(long)]
    url: String,
    #[arg(long, env = "CLOUDSTACK_KEY")]
    apikey: String,
    #[arg(long, env = "CLOUDSTACK_SECRET", hide_env_values = true)]
    secretkey: String,
    #[command(flatten)]
    load: Load,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().what {
        What::Raw => raw::run().await,
        What::Own(args) => own(args).await,
        What::Drive(args) => {
            let mut report = Report::new(args.load.json.as_deref())?;
            let api = Arc::new(ApiClient::new(&args.url, &args.apikey, &args.secretkey));
            drive(&api, &args.load, &mut report, || None).await
        }
    }
}

async fn own(args: OwnArgs) -> Result<()> {
    let mut report = Report::new(args.load.json.as_deref())?;
    let mut server = Server::start(&args.arcus, args.on == On::Mariadb, args.hosts).await?;
    report.figure("start on an empty database", &[("ms", server.start_millis)]);
    let mut starts = Vec::new();
    for _ in 0..args.starts {
        server.stop().await?;
        starts.push(server.launch().await?);
    }
    starts.sort_by(f64::total_cmp);
    if let Some(median) = starts.get(starts.len() / 2) {
        report.figure("start on its data (median)", &[("ms", *median), ("starts", starts.len() as f64)]);
    }
    report.figure("idle memory", &[("MiB", server.resident_mib())]);
    let api = Arc::new(server.client());
    drive(&api, &args.load, &mut report, || Some(server.resident_mib())).await?;
    if args.recovery {
        recovery::measure(&mut server, &mut report).await?;
    }
    server.stop().await
}

/// Lists on the empty zone, then grows to each size, and lists again.
async fn drive(api: &Arc<ApiClient>, load: &Load, report: &mut Report, memory: impl Fn() -> Option<f64>) -> Result<()> {
    let zone = Arc::new(Zone::prepare(api, load.networks).await.context("preparing the zone")?);
    let reads = Reads { seconds: Duration::from_secs(load.seconds), readers: load.readers.clone(), rate: load.rate };
    load::lists(api, &reads, 0, report).await?;
    let mut vms = Vec::new();
    for size in &load.vms {
        let more = size.saturating_sub(vms.len());
        machines::deploy(api, &zone, vms.len(), more, load.clients, &mut vms, report).await?;
        if let Some(mib) = memory() {
            report.figure(&format!("memory with {} VMs", vms.len()), &[("MiB", mib)]);
        }
        load::lists(api, &reads, vms.len(), report).await?;
    }
    if load.enrol > 0 {
        hosts::enrol(api, &zone, load.enrol, report).await?;
    }
    if !load.keep {
        machines::destroy(api, vms, load.clients, report).await?;
        zone.clean(api).await;
    }
    Ok(())
}
