//! Host enrolment: `addHost` of simulated hosts into a cluster of their own.

use crate::ask::{text, value};
use crate::load;
use crate::report::{Figure, Part, Report};
use crate::target::{Zone, count, told};
use anyhow::{Result, ensure};
use arcus::api_client::ApiClient;
use std::sync::Arc;

/// At once: as the incumbent was measured, and more.
const CLIENTS: [usize; 3] = [1, 4, 32];

/// Enrols `hosts` hosts, a part by each number of clients, and looks whether they are Up; gives their ids.
///
/// # Errors
/// When the cluster can't be made, or hosts that were added aren't Up.
pub async fn enrol(
    api: &Arc<ApiClient>,
    zone: &Arc<Zone>,
    hosts: usize,
    vms: usize,
    report: &mut Report,
) -> Result<Vec<String>> {
    let name = format!("{}-enrolment", zone.tag);
    let params = [
        ("zoneid", zone.id.as_str()),
        ("podid", zone.pod.as_str()),
        ("clustername", name.as_str()),
        ("clustertype", "CloudManaged"),
        ("hypervisor", "Simulator"),
    ];
    let cluster = text(&value(api, "addCluster", &params).await?, "/cluster/0/id")?;
    let mut made = Vec::new();
    for (clients, numbers) in CLIENTS.into_iter().zip(parts(hosts)) {
        if numbers.is_empty() {
            continue;
        }
        let ask = {
            let (api, zone, cluster) = (api.clone(), zone.clone(), cluster.clone());
            move |n| add(api.clone(), zone.clone(), cluster.clone(), n)
        };
        let outcome = load::closed_over(clients, numbers, ask).await?;
        let load = format!("{clients} client{}", if clients == 1 { "" } else { "s" });
        report.tell(Figure::new(Part::Hosts, "addHost", &load, vms).of(&outcome, None))?;
        made.extend(outcome.good);
    }
    let up = count(api, "listHosts", &[("clusterid", &cluster), ("state", "Up")]).await?;
    ensure!(up == made.len(), "{} hosts were added, {up} are Up", made.len());
    Ok(made)
}

/// Removes hosts; what stays is told.
pub async fn clean(api: &ApiClient, hosts: &[String]) {
    for host in hosts {
        told("host", host, value(api, "deleteHost", &[("id", host), ("forced", "true")]).await);
    }
}

/// The numbers below `hosts` in three parts: one client at a time is slow, so it has the smallest.
fn parts(hosts: usize) -> [Vec<usize>; 3] {
    let (one, two) = (hosts / 10, hosts * 4 / 10);
    [(0..one).collect(), (one..two).collect(), (two..hosts).collect()]
}

async fn add(api: Arc<ApiClient>, zone: Arc<Zone>, cluster: String, n: usize) -> Result<String> {
    let url = format!("http://sim/{}-enrolment/h{n}/cpucore=64&cpuspeed=8000&memory=274877906944", zone.tag);
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
    let added = value(&api, "addHost", &params).await?;
    let state = text(&added, "/host/0/state")?;
    ensure!(state == "Up", "a host was added and is {state}");
    text(&added, "/host/0/id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_each_number_once() {
        for hosts in [0, 1, 2, 3, 100, 1000] {
            let parts = parts(hosts);
            assert_eq!(parts.concat(), (0..hosts).collect::<Vec<_>>());
            assert!(hosts < 10 || parts.iter().all(|p| !p.is_empty()));
        }
    }
}
