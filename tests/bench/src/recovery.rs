//! `kill -9` in a batch of deploys, with lists beside it: how long the API is away, and how the deploys end.

use crate::ask::{text, value};
use crate::machines::deploy_params;
use crate::report::{Figure, Part, Report};
use crate::server::Server;
use crate::table::number;
use crate::target::Zone;
use anyhow::{Context, Result, ensure};
use arcus::api_client::ApiClient;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Deploys under way.
const BATCH: usize = 32;
/// Clients that list all the while.
const LISTERS: usize = 4;
/// Longest wait for everything to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// What came of one kill; times in seconds.
#[derive(Clone, Debug)]
struct Round {
    back: f64,
    ended: f64,
    connected: f64,
    /// Jobs that weren't at their end when the API was back.
    open: usize,
    errors: Vec<String>,
}

/// Kills and starts the server `kills` times.
///
/// # Errors
/// When it doesn't come back, or jobs don't end at all.
pub async fn measure(server: &mut Server, zone: &Zone, vms: usize, kills: usize, report: &mut Report) -> Result<()> {
    let api = Arc::new(server.client()?);
    let hosts = server.watch().hosts().await.context("the server doesn't tell how many hosts are connected")?;
    let mut rounds = Vec::new();
    for n in 0..kills {
        rounds.push(round(server, &api, zone, n, hosts).await?);
    }
    let errors: Vec<String> = rounds.iter().flat_map(|r| r.errors.clone()).collect();
    let under = rounds.iter().map(|r| r.open.to_string()).collect::<Vec<_>>().join(", ");
    let told = |what: &str, of: fn(&Round) -> f64, more: String| {
        let times = sorted(rounds.iter().map(of));
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        let figure = Figure::new(Part::Recovery, what, "", vms).with("seconds", middle);
        let figure = figure.with("most_seconds", times.last().copied().unwrap_or_default());
        figure.with("kills", times.len() as f64).with_text(format!("{}{more}", spread(&times)))
    };
    report.tell(told("kill -9 in 32 deploys, to the first listZones", |r| r.back, String::new()))?;
    let more = format!("; all done as asked; {under} were under way when it was back");
    let jobs = told("kill -9 in 32 deploys, to the end of all jobs", |r| r.ended, more);
    report.tell(jobs.failed(errors.len(), errors))?;
    let what = format!("kill -9, until all {} hosts are connected", number(hosts));
    report.tell(told(&what, |r| r.connected, String::new()))
}

async fn round(server: &mut Server, api: &Arc<ApiClient>, zone: &Zone, n: usize, hosts: f64) -> Result<Round> {
    let end = Arc::new(AtomicBool::new(false));
    let listers: Vec<_> = (0..LISTERS).map(|_| tokio::spawn(list(api.clone(), end.clone()))).collect();
    let accepted = futures::future::join_all((0..BATCH).map(|m| async move {
        let name = format!("{}-k{n}-{m}", zone.tag);
        text(&value(api, "deployVirtualMachine", &deploy_params(zone, m, &name)).await?, "/jobid")
    }))
    .await;
    let jobs: Vec<String> = accepted.into_iter().collect::<Result<_>>().context("a deploy before the kill")?;
    let killed = Instant::now();
    server.kill();
    server.spawn();
    server.answers().await?;
    let back = killed.elapsed().as_secs_f64();
    let watch = server.watch();
    let connected = async {
        while watch.hosts().await.is_none_or(|now| now < hosts) {
            ensure!(killed.elapsed() < PATIENCE, "not all {hosts} hosts came back within {PATIENCE:?}");
            tokio::time::sleep(LOOK).await;
        }
        Ok(killed.elapsed().as_secs_f64())
    };
    let (ended, connected) = tokio::join!(ends(api, &jobs, killed), connected);
    let (ended, connected) = (ended?, connected?);
    end.store(true, Ordering::Relaxed);
    futures::future::join_all(listers).await;
    server.stands().await?;
    // As many machines as before, for the next kill.
    for vm in &ended.vms {
        crate::ask::job(api, "destroyVirtualMachine", &[("id", vm), ("expunge", "true")]).await?;
    }
    Ok(Round { back, ended: ended.after, connected, open: ended.open, errors: ended.errors })
}

struct Ended {
    after: f64,
    open: usize,
    vms: Vec<String>,
    errors: Vec<String>,
}

/// Waits for the end of jobs.
async fn ends(api: &ApiClient, jobs: &[String], killed: Instant) -> Result<Ended> {
    let mut ended = Ended { after: 0.0, open: 0, vms: Vec::new(), errors: Vec::new() };
    let mut open: Vec<&String> = jobs.iter().collect();
    let mut first = true;
    while !open.is_empty() {
        let states = open.iter().map(|job| async move { value(api, "queryAsyncJobResult", &[("jobid", job)]).await });
        let states = futures::future::join_all(states).await;
        let mut still = Vec::new();
        for (job, state) in open.into_iter().zip(states) {
            let state = state?;
            let result = |pointer| state.pointer(pointer).and_then(Value::as_str);
            match state["jobstatus"].as_i64() {
                Some(1) if result("/jobresult/virtualmachine/state") == Some("Running") => {
                    ended.vms.extend(result("/jobresult/virtualmachine/id").map(str::to_owned));
                }
                Some(1) => ended.errors.push(format!("job {job} is done, and its VM doesn't run")),
                Some(2) => ended.errors.push(result("/jobresult/errortext").unwrap_or("failed").to_owned()),
                _ => still.push(job),
            }
        }
        open = still;
        if first {
            (ended.open, first) = (open.len(), false);
        }
        ensure!(killed.elapsed() < PATIENCE, "{} jobs didn't end within {PATIENCE:?}", open.len());
        if !open.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    }
    ended.after = killed.elapsed().as_secs_f64();
    Ok(ended)
}

/// Lists until told to end; while the server is away there is nothing to list.
async fn list(api: Arc<ApiClient>, end: Arc<AtomicBool>) {
    let params = [("listall", "true"), ("page", "1"), ("pagesize", "20")];
    while !end.load(Ordering::Relaxed) {
        if value(&api, "listVirtualMachines", &params).await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn sorted(times: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times
}

/// "1.9 s (1.8-2.2)": the middle one of sorted times, and what they are between.
pub fn spread(times: &[f64]) -> String {
    match times {
        [] => "–".into(),
        [one] => format!("{} s", number(*one)),
        [first, .., last] => format!("{} s ({}-{})", number(times[times.len() / 2]), number(*first), number(*last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        assert_eq!(spread(&[]), "–");
        assert_eq!(spread(&[1.5]), "1.50 s");
        assert_eq!(spread(&sorted([2.25, 1.5, 1.75].into_iter())), "1.75 s (1.50-2.25)");
    }
}
