//! `arcus agent`: an agent as a process of its own.

use crate::replica::PidFile;
use crate::settings::CommonArgs;
use crate::signals::Signals;
use anyhow::{Context, Result, ensure};
use clap::Args;
use contract::secret::Secret;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The flags of `arcus agent`.
#[derive(Args, Clone, Debug)]
pub struct AgentArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Addresses of the orchestrators' port for agents, `host:port`.
    #[arg(long, env = "ARCUS_ENDPOINTS", value_delimiter = ',')]
    endpoints: Vec<String>,
    /// File with an enrolment token (`arcus token`); needed until the agent has its certificate.
    #[arg(long, env = "ARCUS_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Holds the agent's state, key and certificate.
    #[arg(long, env = "ARCUS_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Pools that simulated hosts share, also with other agents.
    #[arg(long, env = "ARCUS_POOL_DIR")]
    pool_dir: Option<PathBuf>,
    /// What it drives: simulator.
    #[arg(long, env = "ARCUS_HYPERVISOR")]
    hypervisor: Option<String>,
    /// For people.
    #[arg(long)]
    name: Option<String>,
}

/// Runs until SIGINT or SIGTERM. VMs go on.
///
/// # Errors
/// When it can't be enrolled or its state can't be written.
pub async fn run(args: AgentArgs) -> Result<()> {
    let settings = args.common.settings()?;
    let (common, mut table) = (settings.common, settings.agent);
    let _telemetry = telemetry::init(&telemetry::Options {
        service: "arcus-agent".into(),
        format: if common.log_json { telemetry::LogFormat::Json } else { telemetry::LogFormat::Text },
        filter: Some(common.log.clone()),
        otlp: common.otlp.clone(),
    })?;
    if !args.endpoints.is_empty() {
        table.endpoints = args.endpoints;
    }
    table.state_dir = args.state_dir.unwrap_or(table.state_dir);
    table.pool_dir = args.pool_dir.or(table.pool_dir);
    table.hypervisor = args.hypervisor.unwrap_or(table.hypervisor);
    ensure!(table.hypervisor == "simulator", "hypervisor {:?} isn't there yet: only simulator is", table.hypervisor);
    ensure!(!table.endpoints.is_empty(), "no endpoints: set them under [agent], or --endpoints");
    let token = match args.token_file.or(table.token_file) {
        None => None,
        Some(file) => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("token_file {}", file.display()))?;
            Some(Secret::new(text.trim().to_owned()))
        }
    };
    std::fs::create_dir_all(&table.state_dir).with_context(|| table.state_dir.display().to_string())?;
    let name = args.name.or(table.name).unwrap_or_else(|| format!("agent-{}", std::process::id()));
    let mut signals = Signals::new()?;
    let pid_file = PidFile::write(args.common.pid_file.as_deref())?;
    let dial = agent::Dial::Tls { addresses: table.endpoints, token };
    let options = agent::Options {
        pool_dir: table.pool_dir,
        lease: Duration::from_millis(table.lease_millis),
        guest_writes: (table.guest_writes_millis > 0).then(|| Duration::from_millis(table.guest_writes_millis)),
        ..agent::Options::new(name, table.state_dir, dial)
    };
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        stopped.cancel();
        signals.next().await;
        std::process::exit(1);
    });
    let ended = agent::run(options, stop).await;
    drop(pid_file);
    Ok(ended?)
}
