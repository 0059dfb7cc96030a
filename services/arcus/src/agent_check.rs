//! `arcus agent check`: what this machine lacks to be a host of VMs or of containers.

use crate::agent_process::AgentArgs;
use agent::kvm::preflight::{self, Check, Preflight, Verdict};
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

/// The flags of `arcus agent check`: those of the agent, so that what is checked is what will run.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    agent: AgentArgs,
    /// The result as JSON.
    #[arg(long)]
    json: bool,
}

/// Checks and prints. Whether the machine can be a host.
///
/// # Errors
/// When the configuration can't be read.
pub async fn run(args: CheckArgs) -> Result<bool> {
    let (_, table) = args.agent.settings()?;
    let containers = table.hypervisor.parse::<agent::Kind>()? == agent::Kind::Lxc;
    let kvm = agent::kvm::KvmOptions { containers, ..table.kvm.options()? };
    let preflight = Preflight { endpoints: table.endpoints.clone(), ..Preflight::new(kvm, table.state_dir.clone()) };
    let checks = preflight::check(&preflight).await;
    let passes = preflight::passes(&checks);
    match args.json {
        true => println!("{}", as_json(&checks)),
        false => print(&checks, if containers { "an LXC" } else { "a KVM" }),
    }
    Ok(passes)
}

/// Prints one line a check, and one for what mends it; then whether the machine can be such a host ("a KVM").
pub(crate) fn print(checks: &[Check], such: &str) {
    for check in checks {
        println!("{check}");
    }
    let count = |verdict| checks.iter().filter(|c| c.verdict == verdict).count();
    let (fails, warns) = (count(Verdict::Fail), count(Verdict::Warn));
    match (fails, warns) {
        (0, 0) => println!("\nthis machine can be {such} host"),
        (0, _) => println!("\nthis machine can be {such} host; {warns} warnings"),
        _ => println!("\nthis machine can't be {such} host yet: {fails} checks failed, {warns} warnings"),
    }
}

fn as_json(checks: &[Check]) -> Value {
    let checks_json: Vec<Value> = checks
        .iter()
        .map(|c| json!({"check": c.name, "verdict": c.verdict.as_str().to_lowercase(), "text": c.text, "mend": c.mend}))
        .collect();
    json!({"passes": preflight::passes(checks), "checks": checks_json})
}
