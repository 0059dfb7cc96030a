//! The `arcus` binary.

use anyhow::Result;
use arcus::replica::{self, Service};
use arcus::settings::{CommonArgs, ServiceArgs};
use arcus::{agent_process, audit_command, console_command, dev, open_files, operator};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
    /// Runs a replica of the gateway: the query API, and the same over gRPC.
    Gateway(Box<ServiceArgs>),
    /// Runs a replica of identity: domains, accounts, users, roles, limits.
    Identity(Box<ServiceArgs>),
    /// Runs a replica of the orchestrator: infrastructure, virtual machines, the agents' connections.
    Orchestrator(Box<ServiceArgs>),
    /// Runs a replica of the network service.
    Network(Box<ServiceArgs>),
    /// Runs a replica of the storage service.
    Storage(Box<ServiceArgs>),
    /// Runs a replica of usage: usage records, events, alerts.
    Usage(Box<ServiceArgs>),
    /// Runs an agent, or checks whether this machine can be a host.
    Agent(Box<agent_process::AgentCli>),
    /// Makes an enrolment token for an agent.
    Token(operator::TokenArgs),
    /// Prints the API keys of the user admin; makes them when there are none.
    AdminKeys(CommonArgs),
    /// Prints an address at which a browser shows a virtual machine's console, for ten minutes.
    Console(console_command::ConsoleArgs),
    /// Checks that the books agree: exit 0 clean, 1 violations, 2 could not check.
    Audit(audit_command::AuditArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    open_files::raise();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("arcus: no runtime: {e}");
            return ExitCode::from(2);
        }
    };
    runtime.block_on(async {
        match cli.command {
            Command::Dev(args) => report(dev::run(*args).await),
            Command::Gateway(args) => report(replica::run(Service::Gateway, *args).await),
            Command::Identity(args) => report(replica::run(Service::Identity, *args).await),
            Command::Orchestrator(args) => report(replica::run(Service::Orchestrator, *args).await),
            Command::Network(args) => report(replica::run(Service::Network, *args).await),
            Command::Storage(args) => report(replica::run(Service::Storage, *args).await),
            Command::Usage(args) => report(replica::run(Service::Usage, *args).await),
            Command::Agent(cli) => agent_process::command(*cli).await,
            Command::Token(args) => report(operator::token(args).await),
            Command::AdminKeys(args) => report(operator::admin_keys(args).await),
            Command::Console(args) => report(console_command::run(args).await),
            Command::Audit(args) => match audit_command::run(args).await {
                Ok(0) => ExitCode::SUCCESS,
                Ok(_) => ExitCode::from(1),
                Err(e) => {
                    eprintln!("arcus: could not check: {e:#}");
                    ExitCode::from(2)
                }
            },
        }
    })
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
