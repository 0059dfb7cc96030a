//! Deploys and destroys: each from its request to the end of its job.

use crate::load::micros;
use crate::report::Report;
use crate::target::{Zone, text};
use anyhow::Result;
use arcus::api_client::ApiClient;
use futures::StreamExt as _;
use futures::stream;
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Errors that are told in full.
const TOLD: usize = 3;

/// Deploys one machine; gives its id.
pub async fn deploy_one(api: &ApiClient, zone: &Zone, n: usize) -> Result<String> {
    let name = format!("bench-{n}");
    let params = [
        ("zoneid", zone.id.as_str()),
        ("templateid", zone.template.as_str()),
        ("serviceofferingid", zone.offering.as_str()),
        ("networkids", zone.networks[n % zone.networks.len()].as_str()),
        ("name", name.as_str()),
    ];
    text(&api.run("deployVirtualMachine", &params).await?, "/virtualmachine/id")
}

/// Deploys `count` machines, numbered from `from` on.
pub async fn deploy(
    api: &Arc<ApiClient>,
    zone: &Arc<Zone>,
    from: usize,
    count: usize,
    clients: usize,
    vms: &mut Vec<String>,
    report: &mut Report,
) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let begun = Instant::now();
    let results: Vec<(Duration, Result<String>)> = stream::iter(from..from + count)
        .map(|n| {
            let (api, zone) = (api.clone(), zone.clone());
            async move {
                let start = Instant::now();
                let vm = deploy_one(&api, &zone, n).await;
                (start.elapsed(), vm)
            }
        })
        .buffer_unordered(clients)
        .collect()
        .await;
    let wall = begun.elapsed();
    let (times, failed) = sorted(results, vms)?;
    report.rate(&format!("deploy {count} VMs beside {from}, {clients} clients"), &times, wall, failed);
    Ok(())
}

/// Destroys and expunges machines.
pub async fn destroy(api: &Arc<ApiClient>, vms: Vec<String>, clients: usize, report: &mut Report) -> Result<()> {
    let (count, begun) = (vms.len(), Instant::now());
    let results: Vec<(Duration, Result<String>)> = stream::iter(vms)
        .map(|vm| {
            let api = api.clone();
            async move {
                let start = Instant::now();
                let done = api.run("destroyVirtualMachine", &[("id", &vm), ("expunge", "true")]).await;
                (start.elapsed(), done.map(|_| vm))
            }
        })
        .buffer_unordered(clients)
        .collect()
        .await;
    let wall = begun.elapsed();
    let (times, failed) = sorted(results, &mut Vec::new())?;
    report.rate(&format!("destroy and expunge {count} VMs, {clients} clients"), &times, wall, failed);
    Ok(())
}

fn sorted(results: Vec<(Duration, Result<String>)>, good: &mut Vec<String>) -> Result<(Histogram<u64>, usize)> {
    let (mut times, mut failed) = (Histogram::<u64>::new(3)?, 0);
    for (took, result) in results {
        match result {
            Ok(vm) => {
                times.record(micros(took))?;
                good.push(vm);
            }
            Err(e) => {
                failed += 1;
                if failed <= TOLD {
                    println!("failed: {e:#}");
                }
            }
        }
    }
    Ok((times, failed))
}
