//! `arcus dev`: everything in one process, nothing to install.

use crate::api_client::ApiClient;
use crate::dev_machine::{self, Machine, Site};
use crate::limits::{self, LimitsTable};
use crate::machine_zone;
use crate::signals::Signals;
use crate::stack::{Stack, StackOptions};
use crate::zone;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use contract::secret::Secret;
use serde::Serialize;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::sync::oneshot;

const USER: &str = "admin";
/// Only ever used on loopback.
const LOOPBACK_PASSWORD: &str = "password";

/// The flags of `arcus dev`.
#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// Holds database, keys and the simulator's state.
    #[arg(long, default_value = "data")]
    data_dir: PathBuf,
    /// Query API and console.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// gRPC.
    #[arg(long, default_value = "127.0.0.1:9090")]
    grpc_listen: SocketAddr,
    /// Agents.
    #[arg(long, default_value = "127.0.0.1:8250")]
    agent_listen: SocketAddr,
    /// Metrics and health.
    #[arg(long, default_value = "127.0.0.1:9091")]
    metrics_listen: SocketAddr,
    /// Begin anew: what the data folder holds is deleted.
    #[arg(long)]
    reset: bool,
    /// What hosts are: simulated, or with "kvm" this very machine (needs root, libvirt and QEMU: arcus agent check).
    #[arg(long, value_enum, default_value_t = Hypervisor::Simulator)]
    hypervisor: Hypervisor,
    /// With kvm: the folder of the machine's guests and both storages. Everybody must be allowed to pass through it, and its path must
    /// be short.
    #[arg(long, default_value = dev_machine::DIR)]
    machine_dir: PathBuf,
    /// Build a zone of this name: with simulated hosts and a first virtual machine, or of this machine (then "dev" when none is
    /// given).
    #[arg(long)]
    zone: Option<String>,
    /// Hosts of that zone.
    #[arg(long, default_value_t = 4, requires = "zone")]
    hosts: usize,
    /// Database URL instead of SQLite in the data folder: mysql://user:password@host:port/name.
    #[arg(long, env = "ARCUS_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// etcd's URLs instead of coordination within the process.
    #[arg(long, value_delimiter = ',')]
    etcd: Vec<String>,
    /// A limit of the gateway as in [gateway.limits] of the configuration file, "at_work=8"; may be given often.
    #[arg(long = "limit", value_name = "KEY=VALUE")]
    limits: Vec<String>,
    /// File with the administrator's password: needed where the API isn't on loopback.
    #[arg(long)]
    admin_password_file: Option<PathBuf>,
    /// Writes the process id there.
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Log lines as JSON.
    #[arg(long)]
    log_json: bool,
    /// What is logged, "info,arcus_network=debug" (ARCUS_LOG overrides it).
    #[arg(long, default_value = "warn")]
    log: String,
    /// Send traces to this OTLP collector (gRPC URL).
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp: Option<String>,
}

/// What hosts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Hypervisor {
    /// As many as are added, in this process.
    Simulator,
    /// This machine.
    Kvm,
}

/// `DIR/dev.json`: there while the system serves.
#[derive(Serialize)]
struct DevJson<'a> {
    endpoint: &'a str,
    username: &'a str,
    password: &'a str,
    apikey: &'a str,
    secretkey: &'a str,
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// What couldn't be started.
pub async fn run(args: DevArgs) -> Result<()> {
    let begun = Instant::now();
    let _telemetry = telemetry::init(&telemetry::Options {
        service: "arcus".into(),
        format: if args.log_json { telemetry::LogFormat::Json } else { telemetry::LogFormat::Text },
        filter: Some(args.log.clone()),
        otlp: args.otlp.clone(),
    })?;
    let password = password(&args)?;
    let limits = LimitsTable::of_flags(&args.limits)?.limits_within(limits::open_files())?;
    if args.reset {
        ensure!(args.database.is_none(), "--reset empties the data folder only: empty the database yourself");
        if args.hypervisor == Hypervisor::Kvm {
            Machine::reset(&site(&args))?;
        }
        reset(&args.data_dir)?;
    }
    std::fs::create_dir_all(&args.data_dir).with_context(|| args.data_dir.display().to_string())?;
    let dev_json = args.data_dir.join("dev.json");
    remove(&dev_json)?;
    if let Some(file) = &args.pid_file {
        std::fs::write(file, std::process::id().to_string()).with_context(|| file.display().to_string())?;
    }
    let mut stop = Signals::new()?;
    let machine = match args.hypervisor {
        Hypervisor::Simulator => None,
        Hypervisor::Kvm => Some(Machine::prepare(site(&args)).await?),
    };
    let options = StackOptions {
        data_dir: args.data_dir.clone(),
        database: args.database.clone(),
        etcd: args.etcd.clone(),
        api: args.listen,
        grpc: args.grpc_listen,
        agents: args.agent_listen,
        metrics: args.metrics_listen,
        admin_password: password.clone(),
        limits,
    };
    let served = serve(&args, options, machine.as_ref(), &mut stop, begun).await;
    if let Some(machine) = &machine {
        machine.leave()?;
    }
    if let Some(file) = &args.pid_file {
        remove(file)?;
    }
    served
}

/// What this machine is told to use.
fn site(args: &DevArgs) -> Site {
    Site { dir: args.machine_dir.clone(), ..Site::default() }
}

/// From the start of the services to their end.
async fn serve(
    args: &DevArgs,
    options: StackOptions,
    machine: Option<&Machine>,
    stop: &mut Signals,
    begun: Instant,
) -> Result<()> {
    let dev_json = args.data_dir.join("dev.json");
    let password = options.admin_password.clone();
    let stack = Stack::start(options).await?;
    let endpoint = format!("http://{}/client/api", reachable(stack.api));
    let (key, secret) = (&stack.keys.0, stack.keys.1.expose());
    let shown =
        DevJson { endpoint: &endpoint, username: USER, password: password.expose(), apikey: key, secretkey: secret };
    write_private(&dev_json, &serde_json::to_vec_pretty(&shown)?)?;
    println!("arcus: serving after {} ms", begun.elapsed().as_millis());
    let api = ApiClient::new(&endpoint, key, secret);
    if let Some(machine) = machine {
        let agent = start_agent(&stack, machine);
        let name = args.zone.as_deref().unwrap_or("dev");
        let build = machine_zone::build(&api, name, machine, |step| println!("arcus: zone {name}: {step}"));
        tokio::select! {
            built = build => built.with_context(|| format!("zone {name}"))?,
            Ok(why) = agent => bail!("the agent of this machine ended: {why}"),
            () = stop.next() => {}
        }
    } else if let Some(name) = &args.zone {
        let build = zone::build(&api, name, args.hosts, |step| println!("arcus: zone {name}: {step}"));
        tokio::select! {
            built = build => built.with_context(|| format!("zone {name}"))?,
            () = stop.next() => {}
        }
    }
    welcome(&shown, args);
    stop.next().await;
    println!("arcus: stopping");
    remove(&dev_json)?;
    stack.shut_down().await;
    Ok(())
}

/// The agent of this machine, in this process. Gives why it ended, when it does by itself.
fn start_agent(stack: &Stack, machine: &Machine) -> oneshot::Receiver<String> {
    let (tell, ended) = oneshot::channel();
    let options = machine.agent(agent::Dial::Channel(stack.net.channel("orchestrator")));
    let stop = stack.node.stop.clone();
    stack.node.tasks.spawn(async move {
        if let Err(error) = agent::run(options, stop).await {
            tracing::error!(%error, "the agent of this machine ended");
            let _ = tell.send(error.full_text().to_owned()); // nobody waits once the zone is built
        }
    });
    ended
}

fn password(args: &DevArgs) -> Result<Secret<String>> {
    if let Some(file) = &args.admin_password_file {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        ensure!(!text.is_empty(), "{} is empty", file.display());
        return Ok(Secret::new(text));
    }
    ensure!(
        args.listen.ip().is_loopback(),
        "{} isn't on loopback: the administrator needs a password of its own, by --admin-password-file",
        args.listen
    );
    Ok(Secret::new(LOOPBACK_PASSWORD.to_owned()))
}

/// Deletes what `arcus dev` made in the folder, and nothing else.
fn reset(dir: &Path) -> Result<()> {
    for name in ["arcus.db", "arcus.db-wal", "arcus.db-shm", "dev.json", "master.key"] {
        remove(&dir.join(name))?;
    }
    let simulator = dir.join("simulator");
    if simulator.exists() {
        std::fs::remove_dir_all(&simulator).with_context(|| simulator.display().to_string())?;
    }
    Ok(())
}

fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).with_context(|| file.display().to_string()),
    }
}

/// Written whole or not at all, readable by its owner alone.
fn write_private(file: &Path, content: &[u8]) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let draft = file.with_extension("json.new");
    remove(&draft)?;
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    out.write_all(content)?;
    out.sync_all()?;
    std::fs::rename(&draft, file).with_context(|| file.display().to_string())
}

/// An address that a client on this machine can dial.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

fn welcome(dev: &DevJson<'_>, args: &DevArgs) {
    println!("\n  endpoint    {}", dev.endpoint);
    println!("  user        {}", dev.username);
    println!("  password    {}", dev.password);
    println!("  API key     {}", dev.apikey);
    println!("  secret key  {}", dev.secretkey);
    println!("  (also in {})\n\ntry next, in another shell:", args.data_dir.join("dev.json").display());
    println!(
        "  pip install cs && export CLOUDSTACK_ENDPOINT={} CLOUDSTACK_KEY={} CLOUDSTACK_SECRET={}",
        dev.endpoint, dev.apikey, dev.secretkey
    );
    if args.hypervisor == Hypervisor::Kvm {
        println!("  cs listHosts");
        println!("  # an image, a guest, a way in and its console: the commands are in README.md, \"A real guest\"\n");
    } else if args.zone.is_some() {
        println!("  cs listVirtualMachines\n  cs listHosts\n");
    } else {
        println!("  cs listServiceOfferings\n  make run ARGS=\"--zone demo --hosts 20\"      # a zone to play with\n");
    }
}
