//! `arcus-cluster supervise`: owns all processes.

use crate::{UpArgs, lock, up};
use anyhow::{Context as _, Result};
use cluster::{Launch, Options};
use std::io::Write as _;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Starts the cluster and keeps it until SIGTERM or SIGINT.
pub async fn run(args: UpArgs) -> Result<ExitCode> {
    let dir = args.folder.dir.clone();
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let _held = lock::take(&dir)?.context("another supervisor has this folder")?;
    let arcus = match args.arcus {
        Some(path) => path,
        None => cluster::arcus_binary()?,
    };
    let databases = if args.small { 1 } else { 3 };
    let options = Options {
        arcus,
        galera: databases,
        etcd: databases,
        replicas: args.replicas,
        hosts: args.hosts,
        isolated: args.isolated,
        dir: dir.clone(),
        seed: rand::random(),
        durable: args.durable,
    };
    let mut launch = Launch::new(options).say(tell);
    if !args.free_ports {
        launch = launch.fixed_ports();
    }
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(stop);
    let cluster = tokio::select! {
        started = launch.go() => started?,
        () = &mut stop => return Ok(ExitCode::SUCCESS),
    };
    // Written here first, so that whoever waits for the line finds the file.
    cluster.report()?.write(&dir)?;
    tell(up::READY);
    cluster.keep(stop, log).await?;
    log("ended");
    Ok(ExitCode::SUCCESS)
}

/// To `up`, as long as it listens.
fn tell(line: &str) {
    // It leaves when everything serves: nobody is told then, and that is no error.
    let _ = writeln!(std::io::stdout(), "{line}");
    log(line);
}

/// To the log.
fn log(line: &str) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "{}.{:03} {line}", now.as_secs(), now.subsec_millis());
}
