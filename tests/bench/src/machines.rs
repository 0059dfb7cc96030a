//! Deploys and destroys: each from its request to the end of its job.

use crate::ask::{job, text, value};
use crate::load::{self, Outcome, Schedule};
use crate::report::{Figure, Part, Report};
use crate::server::Watch;
use crate::table::number;
use crate::target::{Zone, count};
use anyhow::{Result, ensure};
use arcus::api_client::ApiClient;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Rounds in which machines that couldn't be deployed are asked for again before the run ends.
const ROUNDS: usize = 3;

/// Rows of a page when all are read.
const PAGE: &str = "500";

/// A machine of ours.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Its id.
    pub id: String,
    /// Its name, which no other has.
    pub name: String,
}

/// How deploys are measured at each size.
#[derive(Clone, Debug)]
pub struct Writes {
    /// By how many clients, one batch each.
    pub clients: Vec<usize>,
    /// Machines of a batch for each client.
    pub batch: usize,
    /// For how long the open loop sends deploys; 0: none.
    pub time: Duration,
    /// Deploys a second of the open loop; absent: half of the most that clients reached.
    pub rate: Option<f64>,
}

/// Deploys and destroys, and the names that were used.
pub struct Machines {
    api: Arc<ApiClient>,
    zone: Arc<Zone>,
    named: usize,
    /// Those that there are.
    pub vms: Vec<Vm>,
}

impl Machines {
    /// None yet.
    pub fn new(api: &Arc<ApiClient>, zone: &Arc<Zone>) -> Machines {
        Machines { api: api.clone(), zone: zone.clone(), named: 0, vms: Vec::new() }
    }

    fn numbers(&mut self, count: usize) -> Vec<usize> {
        let first = self.named;
        self.named += count;
        (first..self.named).collect()
    }

    /// Deploys until there are `size` machines, by `clients` clients, and looks whether they run.
    ///
    /// # Errors
    /// When there are fewer in the end: figures of that size would be none.
    pub async fn grow(&mut self, size: usize, clients: usize, watch: &Watch, report: &mut Report) -> Result<()> {
        let from = self.vms.len();
        for round in 0..ROUNDS {
            let missing = size.saturating_sub(self.vms.len());
            if missing == 0 {
                break;
            }
            let numbers = self.numbers(missing);
            let before = watch.database().await;
            let outcome = self.deploy(clients, numbers).await?;
            self.vms.extend(outcome.good.iter().cloned());
            let what = if round == 0 { "growing to this size" } else { "growing to this size, again" };
            let load = format!("{clients} clients");
            report.tell(Figure::new(Part::Machines, what, &load, size).of(&outcome, None).with("from", from as f64))?;
            if round == 0
                && let (Some((statements, commits)), Some(after)) = (before, watch.database().await)
                && outcome.sample.failed() == 0
            {
                for (what, n) in [("SQL statements", after.0 - statements), ("commits", after.1 - commits)] {
                    let each = n / outcome.sample.done().max(1) as f64;
                    let figure = Figure::new(Part::Machines, &format!("{what} a deploy"), "", size);
                    report.tell(figure.with("each", each).with_text(number(each)))?;
                }
            }
        }
        let running = count(&self.api, "listVirtualMachines", &[("listall", "true"), ("state", "Running")]).await?;
        let ours = self.vms.len();
        ensure!(ours >= size && running >= size, "{size} VMs were wanted; {ours} deployed, {running} run");
        Ok(())
    }

    /// Batches by each number of clients, and the open loop: what is deployed is destroyed again.
    ///
    /// # Errors
    /// When the JSON file can't be written; requests that fail are counted.
    pub async fn measure(&mut self, writes: &Writes, report: &mut Report) -> Result<()> {
        let size = self.vms.len();
        if self.vms.is_empty() {
            self.first(report).await?;
        }
        let (mut deploys, mut destroys) = (0.0_f64, 0.0_f64);
        for clients in &writes.clients {
            let numbers = self.numbers((clients * writes.batch).max(writes.batch * 2));
            let load = format!("{clients} client{}", if *clients == 1 { "" } else { "s" });
            let outcome = self.deploy(*clients, numbers).await?;
            deploys = deploys.max(outcome.rate());
            report.tell(Figure::new(Part::Machines, "deploy", &load, size).of(&outcome, None))?;
            let outcome = self.destroy(*clients, outcome.good).await?;
            destroys = destroys.max(outcome.rate());
            report.tell(Figure::new(Part::Machines, "destroy and expunge", &load, size).of(&outcome, None))?;
        }
        if writes.time.is_zero() {
            return Ok(());
        }
        let load = if writes.rate.is_some() { "open loop" } else { "open loop at half of the most" };
        let rate = writes.rate.unwrap_or(deploys / 2.0);
        let schedule = Schedule::new(rate, writes.time);
        let numbers = self.numbers(schedule.requests());
        let outcome = load::open(schedule, |n| self.one(numbers[n])).await?;
        report.tell(Figure::new(Part::Machines, "deploy", load, size).of(&outcome, Some(rate)))?;
        let rate = writes.rate.unwrap_or(destroys / 2.0);
        let vms = outcome.good;
        let outcome = load::open(Schedule::over(rate, vms.len()), |n| self.end(vms.get(n).cloned())).await?;
        report.tell(Figure::new(Part::Machines, "destroy and expunge", load, size).of(&outcome, Some(rate)))
    }

    /// One deploy into each network, which waits for its router: told by itself, so that it is in no other figure.
    async fn first(&mut self, report: &mut Report) -> Result<()> {
        let numbers = self.numbers(self.zone.networks.len());
        let outcome = self.deploy(1, numbers).await?;
        let what = "deploy, the first in each network";
        report.tell(Figure::new(Part::Machines, what, "1 client", 0).of(&outcome, None))?;
        let gone = self.destroy(1, outcome.good).await?;
        ensure!(gone.sample.failed() == 0, "destroying the first VMs: {:?}", gone.sample.errors());
        Ok(())
    }

    async fn deploy(&self, clients: usize, numbers: Vec<usize>) -> Result<Outcome<Vm>> {
        let (api, zone) = (self.api.clone(), self.zone.clone());
        load::closed_over(clients, numbers, move |n| deploy_one(api.clone(), zone.clone(), n)).await
    }

    async fn destroy(&self, clients: usize, vms: Vec<Vm>) -> Result<Outcome<()>> {
        let api = self.api.clone();
        load::closed_over(clients, vms, move |vm| destroy_one(api.clone(), Some(vm))).await
    }

    fn one(&self, n: usize) -> impl Future<Output = Result<Vm>> + Send + use<> {
        deploy_one(self.api.clone(), self.zone.clone(), n)
    }

    fn end(&self, vm: Option<Vm>) -> impl Future<Output = Result<()>> + Send + use<> {
        destroy_one(self.api.clone(), vm)
    }
}

/// Destroys machines, which is no measurement; all of this run that are there besides, too, as a run that broke off doesn't
/// know them. What stays is told.
///
/// # Errors
/// None of the requests'.
pub async fn clean(api: &Arc<ApiClient>, zone: &Arc<Zone>, vms: &[Vm], clients: usize) -> Result<()> {
    let mut ids: BTreeSet<String> = vms.iter().map(|vm| vm.id.clone()).collect();
    for network in &zone.networks {
        for page in 1.. {
            let page = page.to_string();
            let of_it =
                [("listall", "true"), ("networkid", network.id.as_str()), ("page", page.as_str()), ("pagesize", PAGE)];
            let there = value(api, "listVirtualMachines", &of_it).await?;
            let Some(there) = there["virtualmachine"].as_array().filter(|there| !there.is_empty()) else { break };
            ids.extend(there.iter().filter_map(|vm| text(vm, "/id").ok()));
        }
    }
    let client = api.clone();
    let end = move |id: String| destroy_one(client.clone(), Some(Vm { id, name: String::new() }));
    for error in load::closed_over(clients, ids.into_iter().collect(), end).await?.sample.errors() {
        println!("left behind: {error}");
    }
    Ok(())
}

/// What a deploy of the `n`-th machine names.
pub fn deploy_params<'a>(zone: &'a Zone, n: usize, name: &'a str) -> Vec<(&'static str, &'a str)> {
    let network = &zone.networks[n % zone.networks.len()];
    vec![
        ("zoneid", &zone.id),
        ("templateid", &zone.template),
        ("serviceofferingid", &zone.offering),
        ("networkids", &network.id),
        ("account", &network.account),
        ("domainid", &network.domain),
        ("name", name),
    ]
}

async fn deploy_one(api: Arc<ApiClient>, zone: Arc<Zone>, n: usize) -> Result<Vm> {
    let name = format!("{}-{n:06}", zone.tag);
    let done = job(&api, "deployVirtualMachine", &deploy_params(&zone, n, &name)).await?;
    let state = text(&done, "/virtualmachine/state")?;
    ensure!(state == "Running", "a deploy ended well, and its VM is {state}");
    Ok(Vm { id: text(&done, "/virtualmachine/id")?, name })
}

async fn destroy_one(api: Arc<ApiClient>, vm: Option<Vm>) -> Result<()> {
    let Some(vm) = vm else { return Ok(()) };
    job(&api, "destroyVirtualMachine", &[("id", &vm.id), ("expunge", "true")]).await.map(drop)
}
