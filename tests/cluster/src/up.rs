//! `arcus-cluster up`.

use crate::{UpArgs, down, lock, say, status};
use anyhow::{Context as _, Result, bail};
use cluster::Report;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// What `--reset` deletes: all that a cluster makes, and nothing else.
const OURS: [&str; 18] = [
    "mariadb",
    "agent",
    "agent-1",
    "balancer",
    "pools",
    "arcus.toml",
    "haproxy.cfg",
    "master.key",
    "agent.token",
    "admin.password",
    "database.password",
    "form",
    "network",
    "cluster.json",
    "cluster.json.new",
    "arcus.toml.new",
    "supervisor.log",
    "agent.token.new",
];

/// Starts a supervisor in the background, shows its steps, and returns when everything serves.
pub async fn run(args: UpArgs) -> Result<ExitCode> {
    let dir = &args.folder.dir;
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    if lock::holder(dir)?.is_some() {
        let Some(report) = Report::read(dir)? else { bail!("{} is being started or ended just now", dir.display()) };
        say!("The cluster runs already.");
        welcome(&report, dir);
        return Ok(ExitCode::SUCCESS);
    }
    if args.reset {
        reset(dir)?;
    }
    let log = dir.join("supervisor.log");
    let out = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
    // A session of its own: it outlives this shell, and Ctrl-C here doesn't reach it.
    let mut supervisor = Command::new("setsid")
        .arg(std::env::current_exe()?)
        .arg("supervise")
        .args(std::env::args_os().skip(2))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(out)
        .spawn()
        .context("setsid")?;
    let steps = supervisor.stdout.take().context("its output")?;
    let mut steps = BufReader::new(steps).lines();
    loop {
        tokio::select! {
            line = steps.next_line() => match line? {
                Some(line) if line == READY => break,
                Some(line) => say!("{line}"),
                None => {
                    supervisor.wait().await?;
                    let told = std::fs::read_to_string(&log).unwrap_or_default();
                    bail!("the cluster didn't start:\n{}", told.trim());
                }
            },
            _ = tokio::signal::ctrl_c() => {
                say!("ending what was started");
                down::run(dir).await?;
                return Ok(ExitCode::from(130));
            }
        }
    }
    let report = Report::read(dir)?.context("the cluster was ended")?;
    welcome(&report, dir);
    if args.foreground {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = supervisor.wait() => bail!("the supervisor ended: see {}", log.display()),
        }
        return down::run(dir).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// The line by which the supervisor says that everything serves.
pub const READY: &str = "READY";

fn reset(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let numbered = |kind: &str| name.strip_prefix(kind).is_some_and(|n| n.strip_prefix('-').is_some_and(is_number));
        let of_part = ["etcd", "galera"].iter().chain(&cluster::SERVICES).any(|kind| numbered(kind));
        if of_part || OURS.contains(&name.as_str()) {
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn welcome(report: &Report, dir: &Path) {
    say!("\n  endpoint    {}", report.endpoint);
    say!("  user        {}", report.username);
    say!("  password    {}", report.password);
    say!("  API key     {}", report.apikey);
    say!("  secret key  {}", report.secretkey);
    say!("  gRPC        {}", report.grpc);
    say!("  balancer    {}", report.balancer);
    say!("  (also in {}, with the processes and their logs)", dir.join(cluster::FILE).display());
    say!("\n{}, memory {}", status::summary(report), status::memory(report));
    say!("\ntry next:");
    say!(
        "  pip install cs && export CLOUDSTACK_ENDPOINT={} CLOUDSTACK_KEY={} CLOUDSTACK_SECRET={}",
        report.endpoint,
        report.apikey,
        report.secretkey
    );
    say!("  cs listVirtualMachines");
    if let Some(part) = report.parts.iter().find(|p| p.name == "orchestrator-1").and_then(|p| p.pid) {
        say!("  kill -9 {part}                 # orchestrator-1: the other one goes on, and this one is started again");
    }
    say!("  make cluster-status            # what runs, and whether it serves");
    say!("  make cluster-down              # ends it; its data stays\n");
}
