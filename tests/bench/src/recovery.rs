//! `kill -9` in a batch of deploys: how long the API is away, and how the deploys end.

use crate::report::Report;
use crate::server::Server;
use crate::target::{Zone, text};
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Deploys under way.
const BATCH: usize = 32;
/// Longest wait for everything to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Kills the process once the batch is accepted, starts it again, and waits for the jobs.
pub async fn measure(server: &mut Server, report: &mut Report) -> Result<()> {
    let api = Arc::new(server.client());
    let zone = Arc::new(Zone::prepare(&api, 1).await?);
    let accepted = futures::future::join_all((0..BATCH).map(|n| {
        let (api, zone) = (api.clone(), zone.clone());
        async move {
            let name = format!("recovery-{n}");
            let params = [
                ("zoneid", zone.id.as_str()),
                ("templateid", zone.template.as_str()),
                ("serviceofferingid", zone.offering.as_str()),
                ("networkids", zone.networks[0].as_str()),
                ("name", name.as_str()),
            ];
            text(&api.call("deployVirtualMachine", &params).await?, "/jobid")
        }
    }))
    .await;
    let jobs: Vec<String> = accepted.into_iter().collect::<Result<_>>()?;
    let killed = Instant::now();
    server.kill().await?;
    server.launch().await?;
    while api.call("listZones", &[]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let back = killed.elapsed();
    let (mut done, mut failed) = (0, 0);
    for job in &jobs {
        loop {
            let state = api.call("queryAsyncJobResult", &[("jobid", job)]).await?;
            match state["jobstatus"].as_i64() {
                Some(1) => done += 1,
                Some(2) => failed += 1,
                _ if killed.elapsed() > PATIENCE => anyhow::bail!("job {job} didn't end within {PATIENCE:?}"),
                _ => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            }
            break;
        }
    }
    report.figure(
        &format!("kill -9 in a batch of {BATCH} deploys"),
        &[
            ("ms until the API is back", back.as_secs_f64() * 1000.0),
            ("ms until all have ended", killed.elapsed().as_secs_f64() * 1000.0),
            ("done", f64::from(done)),
            ("failed", f64::from(failed)),
        ],
    );
    let vms = api.call("listVirtualMachines", &[("listall", "true"), ("networkid", &zone.networks[0])]).await?;
    for vm in vms["virtualmachine"].as_array().context("no machines")? {
        api.run("destroyVirtualMachine", &[("id", &text(vm, "/id")?), ("expunge", "true")]).await?;
    }
    zone.clean(&api).await;
    Ok(())
}
