//! Lists: as many as the server answers, and at a fixed rate.

use crate::report::Report;
use anyhow::Result;
use arcus::api_client::ApiClient;
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The lists that are measured.
const LISTS: &[(&str, &[(&str, &str)])] = &[
    ("listVirtualMachines", &[("page", "1"), ("pagesize", "20"), ("listall", "true")]),
    ("listZones", &[]),
    ("listNetworks", &[("page", "1"), ("pagesize", "20"), ("listall", "true")]),
];

/// How lists are measured.
pub struct Reads {
    /// For how long each.
    pub seconds: Duration,
    /// By how many clients, one run each.
    pub readers: Vec<usize>,
    /// Requests a second of the open loop; 0: none.
    pub rate: u32,
}

/// Measures each list.
pub async fn lists(api: &Arc<ApiClient>, reads: &Reads, vms: usize, report: &mut Report) -> Result<()> {
    for (command, params) in LISTS {
        for clients in &reads.readers {
            let (times, failed) = closed(api, *clients, reads.seconds, command, params).await?;
            report.rate(&format!("{command}, {vms} VMs, {clients} clients"), &times, reads.seconds, failed);
        }
        if reads.rate > 0 {
            let (times, failed) = open(api, reads.rate, reads.seconds, command, params).await?;
            report.rate(&format!("{command}, {vms} VMs, {}/s open loop", reads.rate), &times, reads.seconds, failed);
        }
    }
    Ok(())
}

/// Each client asks again as soon as it has an answer: the most that the server gives.
async fn closed(
    api: &Arc<ApiClient>,
    clients: usize,
    time: Duration,
    command: &'static str,
    params: &'static [(&'static str, &'static str)],
) -> Result<(Histogram<u64>, usize)> {
    let end = Instant::now() + time;
    let workers = (0..clients).map(|_| {
        let api = api.clone();
        tokio::spawn(async move {
            let (mut times, mut failed) = (Histogram::<u64>::new(3)?, 0);
            while Instant::now() < end {
                let start = Instant::now();
                match api.call(command, params).await {
                    Ok(_) => times.record(micros(start.elapsed()))?,
                    Err(_) => failed += 1,
                }
            }
            Ok::<_, anyhow::Error>((times, failed))
        })
    });
    let (mut all, mut failures) = (Histogram::<u64>::new(3)?, 0);
    for worker in futures::future::join_all(workers).await {
        let (times, failed) = worker??;
        all.add(times)?;
        failures += failed;
    }
    Ok((all, failures))
}

/// Requests at fixed instants, whether earlier ones were answered or not; each time counts from its instant, so that a
/// server that stalls can't hide it by being asked less.
async fn open(
    api: &Arc<ApiClient>,
    rate: u32,
    time: Duration,
    command: &'static str,
    params: &'static [(&'static str, &'static str)],
) -> Result<(Histogram<u64>, usize)> {
    let (begin, gap) = (Instant::now(), Duration::from_secs(1) / rate);
    let mut requests = Vec::new();
    let mut due = begin;
    while due < begin + time {
        tokio::time::sleep_until(due).await;
        let api = api.clone();
        requests.push(tokio::spawn(async move {
            let answered = api.call(command, params).await.is_ok();
            (due.elapsed(), answered)
        }));
        due += gap;
    }
    let (mut times, mut failed) = (Histogram::<u64>::new(3)?, 0);
    for request in requests {
        let (took, answered) = request.await?;
        if answered {
            times.record(micros(took))?;
        } else {
            failed += 1;
        }
    }
    Ok((times, failed))
}

/// A time as histograms keep it.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}
