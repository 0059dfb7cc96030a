//! Measures a cloud as its users meet it: over HTTP, with signed requests. Works against any server that speaks the
//! CloudStack API (`drive`), and can start an Arcus of its own (`own`). See README.md.

mod anchors;
mod ask;
mod facts;
mod hosts;
mod lists;
mod load;
mod machines;
mod options;
mod raw;
mod recovery;
mod report;
mod sample;
mod server;
mod table;
mod target;

use anyhow::{Context as _, Result};
use arcus::api_client::ApiClient;
use clap::Parser as _;
use facts::Facts;
use lists::Reads;
use machines::{Machines, Writes};
use options::{Cli, DriveArgs, Load, On, OwnArgs, What};
use report::{Figure, Part, Report};
use server::{Memory, Server, Watch};
use std::sync::Arc;
use std::time::Duration;
use table::number;
use target::Zone;

#[tokio::main]
async fn main() -> Result<()> {
    let mut facts = Facts::here();
    match Cli::parse().what {
        What::Raw(args) => {
            let mut report = Report::new(args.json.as_deref())?;
            report.facts(&facts)?;
            let measured = raw::run(&mut report).await;
            report.end(&facts).and(measured)
        }
        What::Own(args) => {
            let mut report = Report::new(args.load.json.as_deref())?;
            let measured = own(&args, &mut facts, &mut report).await;
            // What was measured before something broke is told, too; then what broke.
            let told = report.end(&facts);
            measured.and(told)
        }
        What::Drive(args) => {
            let mut report = Report::new(args.load.json.as_deref())?;
            let measured = drive(&args, &mut facts, &mut report).await;
            let told = report.end(&facts);
            measured.and(told)
        }
    }
}

async fn own(args: &OwnArgs, facts: &mut Facts, report: &mut Report) -> Result<()> {
    facts.program(&args.arcus);
    let mut server = Server::prepare(&args.arcus, args.on == On::Mariadb, args.hosts).await?;
    facts.database = server.database().await;
    raw::disk(report)?;
    match server.another_database() {
        Some(url) => raw::database("MariaDB", url, report).await?,
        None => raw::sqlite(report).await?,
    }
    let millis = server.launch().await?;
    let empty = Figure::new(Part::Start, "start on an empty database, to the first listZones", "", 0);
    report.tell(empty.with("ms", millis).with_text(format!("{} ms", number(millis))))?;
    let mut starts = Vec::new();
    for _ in 0..args.starts {
        server.stop().await?;
        starts.push(server.launch().await? / 1000.0);
    }
    starts.sort_by(f64::total_cmp);
    if let Some(middle) = starts.get(starts.len() / 2) {
        let figure = Figure::new(Part::Start, "start on its data, to the first listZones", "", 0);
        report.tell(figure.with("ms", middle * 1000.0).with_text(recovery::spread(&starts)))?;
    }
    let api = Arc::new(server.client()?);
    tokio::time::sleep(Duration::from_secs(args.idle)).await;
    memory("memory, idle", 0, &server.watch(), report)?;
    // The server that is driven is the one that was just started: what it has seen before is in its peak of memory.
    let zone = grown(&api, &args.load, true, &server.watch(), facts, report).await?;
    if args.kills > 0 {
        let vms = args.load.vms.iter().copied().max().unwrap_or_default();
        recovery::measure(&mut server, &zone, vms, args.kills, report).await?;
    }
    server.stop().await
}

async fn drive(args: &DriveArgs, facts: &mut Facts, report: &mut Report) -> Result<()> {
    let api = Arc::new(ApiClient::new(&args.url, &args.apikey, &args.secretkey));
    let watch = Watch { server: args.pid, ..Watch::default() };
    memory("memory at the start", 0, &watch, report)?;
    grown(&api, &args.load, false, &watch, facts, report).await.map(drop)
}

/// Measures at each size, growing; then hosts. Leaves what it made when `own`, as the server ends with it, or when told to.
async fn grown(
    api: &Arc<ApiClient>,
    load: &Load,
    own: bool,
    watch: &Watch,
    facts: &mut Facts,
    report: &mut Report,
) -> Result<Arc<Zone>> {
    let capabilities = ask::value(api, "listCapabilities", &[]).await.context("the server's version")?;
    let version = ask::text(&capabilities, "/capability/cloudstackversion")?;
    let hosts = target::count(api, "listHosts", &[("type", "Routing")]).await?;
    let said = format!("API of CloudStack {version}");
    facts.server = if facts.server.is_empty() { said } else { format!("{}, {said}", facts.server) };
    let (networks, accounts) = (load.networks.max(1), load.accounts.clamp(1, load.networks.max(1)));
    facts.zone = format!("{hosts} hosts, {networks} isolated networks of {accounts} accounts");
    report.facts(facts)?;
    let zone = Arc::new(Zone::prepare(api, networks, accounts).await.context("preparing the zone")?);
    let measured = sizes(api, load, own, &zone, watch, report).await;
    if !own && !load.keep {
        let (machines, hosts) = match &measured {
            Ok((machines, hosts)) => (machines.as_slice(), hosts.as_slice()),
            Err(_) => (&[][..], &[][..]),
        };
        machines::clean(api, &zone, machines, load.grow_clients).await?;
        hosts::clean(api, hosts).await;
        zone.clean(api).await;
    }
    measured.map(|_| zone)
}

async fn sizes(
    api: &Arc<ApiClient>,
    load: &Load,
    own: bool,
    zone: &Arc<Zone>,
    watch: &Watch,
    report: &mut Report,
) -> Result<(Vec<machines::Vm>, Vec<String>)> {
    if own {
        zone.room(api).await.context("room for the machines")?;
    }
    let reads = Reads {
        time: Duration::from_secs_f64(load.seconds),
        compared: load.readers.clone(),
        others: load.other_readers.clone(),
        rate: load.rate,
    };
    let writes = Writes {
        clients: load.clients.clone(),
        batch: load.batch,
        time: Duration::from_secs_f64(load.open_seconds),
        rate: load.deploy_rate,
    };
    let mut machines = Machines::new(api, zone);
    for size in load.sizes() {
        machines.grow(size, load.grow_clients, watch, report).await?;
        if size > 0 {
            memory(&format!("memory with {} VMs", number(size as f64)), size, watch, report)?;
        }
        let one = machines.vms.get(size / 2).cloned();
        lists::measure(api, &reads, size, zone.networks.len(), one.as_ref(), watch, report).await?;
        machines.measure(&writes, report).await?;
    }
    let mut hosts = Vec::new();
    if load.enrol > 0 {
        hosts = hosts::enrol(api, zone, load.enrol, machines.vms.len(), report).await?;
        memory(&format!("memory with {} more hosts", number(load.enrol as f64)), machines.vms.len(), watch, report)?;
    }
    Ok((machines.vms, hosts))
}

/// Tells the server's memory, where it can be seen.
fn memory(what: &str, vms: usize, watch: &Watch, report: &mut Report) -> Result<()> {
    let Some(Memory { mib, peak_mib, threads }) = watch.memory() else { return Ok(()) };
    let text = format!("{mib:.0} MiB (at most {peak_mib:.0}), {threads} threads");
    let figure = Figure::new(Part::Start, what, "", vms).with("mib", mib).with("peak_mib", peak_mib);
    report.tell(figure.with("threads", threads).with_text(text))
}
