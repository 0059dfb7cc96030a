//! `arcus agent`: an agent as a process of its own. `arcus agent check` is in [`crate::agent_check`].

use crate::agent_check::{self, CheckArgs};
use crate::replica::PidFile;
use crate::settings::{AgentTable, Common, CommonArgs};
use crate::signals::Signals;
use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use contract::secret::Secret;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// `arcus agent` and what is below it.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AgentCli {
    #[command(subcommand)]
    pub(crate) command: Option<AgentCommand>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

/// What is below `arcus agent`.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum AgentCommand {
    /// Says what this machine lacks to be a KVM host, and how to mend it; changes nothing. Exit 0: it can be one, 1: it can't.
    Check(CheckArgs),
}

/// Does what the command line says. Failures are told on stderr.
pub async fn command(cli: AgentCli) -> ExitCode {
    let done = match cli.command {
        None => run(cli.agent).await.map(|()| true),
        Some(AgentCommand::Check(args)) => agent_check::run(args).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("arcus: {error:#}");
            ExitCode::from(1)
        }
    }
}

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
    /// What it drives: kvm or lxc (this machine, with machines or containers as guests), or simulator.
    #[arg(long, env = "ARCUS_HYPERVISOR")]
    hypervisor: Option<String>,
    /// For people.
    #[arg(long)]
    name: Option<String>,
}

impl AgentArgs {
    /// The file with the flags' changes.
    ///
    /// # Errors
    /// When the file can't be read or says something unknown.
    pub(crate) fn settings(&self) -> Result<(Common, AgentTable)> {
        let settings = self.common.settings()?;
        let mut table = settings.agent;
        if !self.endpoints.is_empty() {
            table.endpoints.clone_from(&self.endpoints);
        }
        if let Some(dir) = &self.state_dir {
            table.state_dir.clone_from(dir);
        }
        if let Some(hypervisor) = &self.hypervisor {
            table.hypervisor.clone_from(hypervisor);
        }
        table.pool_dir = self.pool_dir.clone().or(table.pool_dir);
        table.token_file = self.token_file.clone().or(table.token_file);
        table.name = self.name.clone().or(table.name);
        Ok((settings.common, table))
    }
}

/// Runs until SIGINT or SIGTERM. VMs go on.
///
/// # Errors
/// When it can't be enrolled, its state can't be written, or its host was deleted.
pub async fn run(args: AgentArgs) -> Result<()> {
    let (common, table) = args.settings()?;
    let _telemetry = telemetry::init(&telemetry::Options {
        service: "arcus-agent".into(),
        format: if common.log_json { telemetry::LogFormat::Json } else { telemetry::LogFormat::Text },
        filter: Some(common.log.clone()),
        otlp: common.otlp.clone(),
    })?;
    let hypervisor: agent::Kind = table.hypervisor.parse()?;
    let kvm = table.kvm.options()?;
    ensure!(!table.endpoints.is_empty(), "no endpoints: set them under [agent], or --endpoints");
    let token = table.token_file.as_deref().map(token).transpose()?.flatten();
    std::fs::create_dir_all(&table.state_dir).with_context(|| table.state_dir.display().to_string())?;
    let name = table.name.unwrap_or_else(|| match hypervisor {
        agent::Kind::Simulator => format!("agent-{}", std::process::id()),
        agent::Kind::Kvm | agent::Kind::Lxc => host_name(),
    });
    let mut signals = Signals::new()?;
    let pid_file = PidFile::write(args.common.pid_file.as_deref())?;
    let dial = agent::Dial::Tls { addresses: table.endpoints, token };
    let options = agent::Options {
        hypervisor,
        kvm,
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

/// The token in a file. A file that isn't there is no token: an agent that has its certificate needs none, and the
/// administrator may have removed it.
fn token(file: &std::path::Path) -> Result<Option<Secret<String>>> {
    match std::fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(Secret::new(token_text(&text)))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("token_file {}", file.display())),
    }
}

/// The token itself, or what `arcus token` printed.
fn token_text(text: &str) -> String {
    let printed: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let token = printed.as_ref().and_then(|p| p.get("token")?.as_str()).unwrap_or(text);
    token.trim().to_owned()
}

/// The machine's name.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "host".to_owned() } else { name.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_printed() {
        assert_eq!(token_text(" a.b \n"), "a.b");
        assert_eq!(token_text("{\"id\":\"1\",\"token\":\"a.b\",\"fingerprint\":\"c\"}\n"), "a.b");
    }
}
