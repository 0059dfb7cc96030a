//! Host enrolment: `addHost` of simulated hosts, four at once, into a cluster of their own.

use crate::load::micros;
use crate::report::Report;
use crate::target::{Zone, text};
use anyhow::Result;
use arcus::api_client::ApiClient;
use futures::StreamExt as _;
use futures::stream;
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::time::Instant;

/// At once.
const CLIENTS: usize = 4;

/// Enrols `count` hosts.
pub async fn enrol(api: &Arc<ApiClient>, zone: &Arc<Zone>, count: usize, report: &mut Report) -> Result<()> {
    let params = [
        ("zoneid", zone.id.as_str()),
        ("podid", zone.pod.as_str()),
        ("clustername", "bench-enrolment"),
        ("clustertype", "CloudManaged"),
        ("hypervisor", "Simulator"),
    ];
    let cluster = text(&api.call("addCluster", &params).await?, "/cluster/0/id")?;
    let begun = Instant::now();
    let results: Vec<_> = stream::iter(0..count)
        .map(|n| {
            let (api, zone, cluster) = (api.clone(), zone.clone(), cluster.clone());
            async move {
                let url = format!("http://sim/bench-enrolment/h{n}/cpucore=64&cpuspeed=8000&memory=274877906944");
                let params = [
                    ("zoneid", zone.id.as_str()),
                    ("podid", zone.pod.as_str()),
                    ("clusterid", cluster.as_str()),
                    ("hypervisor", "Simulator"),
                    ("clustertype", "CloudManaged"),
                    ("username", "root"),
                    ("password", "password"),
                    ("url", url.as_str()),
                ];
                let start = Instant::now();
                (start, api.call("addHost", &params).await.map(|_| start.elapsed()))
            }
        })
        .buffer_unordered(CLIENTS)
        .collect()
        .await;
    let wall = begun.elapsed();
    let (mut times, mut failed) = (Histogram::<u64>::new(3)?, 0);
    for (_, result) in results {
        match result {
            Ok(took) => times.record(micros(took))?,
            Err(e) => {
                failed += 1;
                println!("addHost: {e:#}");
            }
        }
    }
    report.rate(&format!("addHost, {count} hosts, {CLIENTS} clients"), &times, wall, failed);
    report.figure("hosts enrolled", &[("/min", times.len() as f64 * 60.0 / wall.as_secs_f64())]);
    Ok(())
}
