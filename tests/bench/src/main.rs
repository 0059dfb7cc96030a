//! Measures Arcus as users meet it: an own process of `arcus dev` (release build), driven over HTTP with signed requests.
//!
//! ```text
//! cargo build --release --bin arcus --bin arcus-bench
//! target/release/arcus-bench                       # MariaDB with durable commits, 64 clients
//! target/release/arcus-bench --on sqlite
//! target/release/arcus-bench raw                   # what disk and database give
//! ```

mod raw;
mod server;

use anyhow::{Context, Result};
use arcus::api_client::ApiClient;
use clap::{Parser, ValueEnum};
use futures::StreamExt as _;
use futures::stream;
use hdrhistogram::Histogram;
use serde_json::Value;
use server::Server;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Where the database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum On {
    /// A MariaDB server of its own with `innodb_flush_log_at_trx_commit=1`.
    Mariadb,
    /// SQLite in a folder of its own.
    Sqlite,
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Deploys, lists, destroys.
    All,
    /// Disk and database alone.
    Raw,
}

#[derive(Parser)]
#[command(about = "Measures a running Arcus")]
struct Cli {
    #[arg(value_enum, default_value = "all")]
    what: What,
    #[arg(long, value_enum, default_value = "mariadb")]
    on: On,
    /// Concurrent clients of the deploy batch.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Virtual machines to deploy.
    #[arg(long, default_value_t = 1000)]
    vms: usize,
    /// Simulated hosts.
    #[arg(long, default_value_t = 32)]
    hosts: usize,
    /// Seconds of each list run.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The binary.
    #[arg(long, default_value = "target/release/arcus")]
    arcus: String,
    /// Leave the virtual machines.
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    if cli.what == What::Raw {
        return raw::run().await;
    }
    let mut server = Server::start(&cli.arcus, cli.on == On::Mariadb, cli.hosts).await?;
    println!("start: serving after {} ms, {} MiB resident", server.start_millis, server.resident_mib());
    let api = Arc::new(server.client());
    let ids = Arc::new(Ids::find(&api).await?);
    let deployed = deploy(&api, &ids, &cli).await?;
    println!("memory with {} VMs: {} MiB resident", deployed.len(), server.resident_mib());
    for clients in [1, 8, 32] {
        list(
            &api,
            clients,
            cli.seconds,
            "listVirtualMachines",
            &[("page", "1"), ("pagesize", "20"), ("listall", "true")],
        )
        .await?;
    }
    for clients in [1, 8, 32] {
        list(&api, clients, cli.seconds, "listZones", &[]).await?;
    }
    if !cli.keep {
        destroy(&api, deployed, cli.clients).await?;
    }
    server.stop().await
}

/// What a deploy names.
struct Ids {
    zone: String,
    template: String,
    offering: String,
    network: String,
}

impl Ids {
    async fn find(api: &ApiClient) -> Result<Ids> {
        let zone = first(api, "listZones", "zone", &[]).await?;
        let template =
            first(api, "listTemplates", "template", &[("templatefilter", "featured"), ("zoneid", &zone)]).await?;
        let small = [
            ("name", "bench.tiny"),
            ("displaytext", "bench"),
            ("cpunumber", "1"),
            ("cpuspeed", "100"),
            ("memory", "128"),
        ];
        let made = api.call("createServiceOffering", &small).await?;
        let offering = text(&made, "/serviceoffering/id")?;
        let by_name = [("name", "DefaultIsolatedNetworkOfferingWithSourceNatService")];
        let network_offering = first(api, "listNetworkOfferings", "networkoffering", &by_name).await?;
        let network = [
            ("zoneid", zone.as_str()),
            ("name", "bench"),
            ("displaytext", "bench"),
            ("networkofferingid", network_offering.as_str()),
            ("gateway", "10.2.0.1"),
            ("netmask", "255.255.224.0"),
        ];
        let network = text(&api.call("createNetwork", &network).await?, "/network/id")?;
        Ok(Ids { zone, template, offering, network })
    }
}

async fn first(api: &ApiClient, command: &str, key: &str, params: &[(&str, &str)]) -> Result<String> {
    text(&api.call(command, params).await?, &format!("/{key}/0/id"))
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("{pointer} in {value}"))
}

async fn deploy(api: &Arc<ApiClient>, ids: &Arc<Ids>, cli: &Cli) -> Result<Vec<String>> {
    let failed = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let results: Vec<(Duration, Option<String>)> = stream::iter(0..cli.vms)
        .map(|i| {
            let (api, ids, failed) = (api.clone(), ids.clone(), failed.clone());
            async move {
                let name = format!("bench-{i}");
                let params = [
                    ("zoneid", ids.zone.as_str()),
                    ("templateid", ids.template.as_str()),
                    ("serviceofferingid", ids.offering.as_str()),
                    ("networkids", ids.network.as_str()),
                    ("name", name.as_str()),
                ];
                let start = Instant::now();
                let done = api.run("deployVirtualMachine", &params).await;
                let vm = done.and_then(|d| text(&d, "/virtualmachine/id"));
                if let Err(e) = &vm
                    && failed.fetch_add(1, Ordering::Relaxed) < 3
                {
                    println!("deploy: {e:#}");
                }
                (start.elapsed(), vm.ok())
            }
        })
        .buffer_unordered(cli.clients)
        .collect()
        .await;
    let wall = begun.elapsed().as_secs_f64();
    let good: Vec<String> = results.iter().filter_map(|(_, vm)| vm.clone()).collect();
    let mut times = Histogram::<u64>::new(3)?;
    for (took, _) in &results {
        times.record(u64::try_from(took.as_micros())?)?;
    }
    println!(
        "deploy: {} VMs, {} clients: {:.1}/s, p50 {:.1} ms, p99 {:.1} ms, {} failed",
        good.len(),
        cli.clients,
        good.len() as f64 / wall,
        millis(&times, 0.5),
        millis(&times, 0.99),
        failed.load(Ordering::Relaxed)
    );
    Ok(good)
}

async fn destroy(api: &Arc<ApiClient>, vms: Vec<String>, clients: usize) -> Result<()> {
    let n = vms.len();
    let begun = Instant::now();
    let failed: usize = stream::iter(vms)
        .map(|vm| {
            let api = api.clone();
            async move { api.run("destroyVirtualMachine", &[("id", &vm), ("expunge", "true")]).await.is_err() }
        })
        .buffer_unordered(clients)
        .filter(|failed| futures::future::ready(*failed))
        .count()
        .await;
    println!(
        "destroy + expunge: {n} VMs, {clients} clients: {:.1}/s, {failed} failed",
        n as f64 / begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A closed loop of reads: `clients` at once for `seconds`.
async fn list(
    api: &Arc<ApiClient>,
    clients: usize,
    seconds: u64,
    command: &'static str,
    params: &'static [(&str, &str)],
) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let workers = (0..clients).map(|_| {
        let api = api.clone();
        tokio::spawn(async move {
            let mut times = Histogram::<u64>::new(3)?;
            while Instant::now() < end {
                let start = Instant::now();
                api.raw(command, params).await?;
                times.record(u64::try_from(start.elapsed().as_micros())?)?;
            }
            Ok::<_, anyhow::Error>(times)
        })
    });
    let mut all = Histogram::<u64>::new(3)?;
    for worker in futures::future::join_all(workers).await {
        all.add(worker??)?;
    }
    println!(
        "{command}: {clients} clients: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
        all.len() as f64 / seconds as f64,
        millis(&all, 0.5),
        millis(&all, 0.99)
    );
    Ok(())
}

fn millis(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1000.0
}
