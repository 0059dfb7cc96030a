//! One worker a router: many wishes, one command.

use crate::address::Subnet;
use crate::router::spec::{self, Setting};
use crate::store::routers::{self, Router};
use crate::store::snapshot::{Extent, snapshot};
use crate::store::zones::Standing;
use crate::store::{ips, networks, offerings, ranges, zones};
use contract::ApiError;
use contract_agent::{Command, RemoveRouter, RouterApplied, SectionFault, command::Body, outcome};
use contract_infra::host_commands_client::HostCommandsClient;
use contract_infra::placement_client::PlacementClient;
use contract_infra::{ExecuteRequest, PickHostRequest, PickHostResponse};
use events::{EventRecord, EventState, Record};
use model::state::NetworkState;
use node::Node;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a host may take for one command.
const COMMAND_TIME: Duration = Duration::from_secs(30);
/// How long a pass tries on before those who wait for it hear of the trouble.
const PASS_TIME: Duration = Duration::from_secs(20);
/// While work goes on, what was applied is recorded only this often: it is a lower bound, nothing rests on it.
const RECORD_EVERY: Duration = Duration::from_millis(500);

/// The workers of this replica. Cheap to clone.
#[derive(Clone)]
pub struct Routers(Arc<Inner>);

struct Inner {
    node: Node,
    workers: Mutex<HashMap<i64, Arc<Worker>>>,
}

struct Worker {
    id: i64,
    work: Mutex<Work>,
    done: watch::Sender<Done>,
    /// Held by the one task that works.
    memory: tokio::sync::Mutex<Memory>,
}

#[derive(Default)]
struct Work {
    /// Number of the last wish.
    wanted: u64,
    running: bool,
    /// Whether the host is to be asked, even when all that is known says that it has the wanted state.
    verify: bool,
}

#[derive(Clone, Debug, Default)]
struct Done {
    /// All wishes up to this number are decided.
    upto: u64,
    /// What became of the last pass: its failure, or the sections that the host could not apply.
    error: Option<ApiError>,
    faults: Vec<SectionFault>,
}

/// What a worker remembers between passes.
#[derive(Default)]
struct Memory {
    /// Of which move of the router the rest speaks.
    epoch: i64,
    /// What the host has.
    applied: i64,
    setting: Option<(i64, Setting)>,
    recorded: i64,
    recorded_at: Option<Instant>,
    faults: Vec<SectionFault>,
    verify: bool,
}

impl Routers {
    /// No workers yet.
    pub fn new(node: Node) -> Routers {
        Routers(Arc::new(Inner { node, workers: Mutex::default() }))
    }

    /// Asks for a pass over a router, without waiting.
    pub fn wake(&self, id: i64) {
        let _ = self.wish(id, false);
    }

    /// Asks for a pass that looks whether the router's host is there and has the router, without waiting.
    pub fn check(&self, id: i64) {
        let _ = self.wish(id, true);
    }

    /// Waits until everything that was committed before this call is applied on the router's host.
    ///
    /// # Errors
    /// 534 when that doesn't happen in time, 533 when no host can carry the router, 530 when the host could not apply a
    /// section that leases depend on.
    pub async fn applied(&self, id: i64, patience: Duration) -> Result<(), ApiError> {
        self.applied_with(id, patience, &["dhcp", "interfaces"]).await
    }

    /// The same for a change that needs these sections of the spec ("nat", "firewall", …).
    ///
    /// # Errors
    /// As [`Routers::applied`]; 530 with the host's reason when it could not apply one of the sections.
    pub async fn applied_with(&self, id: i64, patience: Duration, sections: &[&str]) -> Result<(), ApiError> {
        self.decided(id, patience, sections, None).await
    }

    /// The same for a change of rules, by UUID: those of others that the host could not apply don't matter.
    ///
    /// # Errors
    /// As [`Routers::applied_with`].
    pub async fn applied_rules(
        &self,
        id: i64,
        patience: Duration,
        sections: &[&str],
        rules: &[String],
    ) -> Result<(), ApiError> {
        self.decided(id, patience, sections, Some(rules)).await
    }

    async fn decided(
        &self,
        id: i64,
        patience: Duration,
        sections: &[&str],
        rules: Option<&[String]>,
    ) -> Result<(), ApiError> {
        let ours = |fault: &SectionFault| {
            sections.contains(&fault.section.as_str())
                && (fault.rules.is_empty()
                    || rules.is_none_or(|rules| fault.rules.iter().any(|rule| rules.contains(rule))))
        };
        let (ticket, mut done) = self.wish(id, false);
        let decided = tokio::time::timeout(patience, done.wait_for(|d| d.upto >= ticket)).await;
        match decided {
            Ok(Ok(d)) => match (&d.error, d.faults.iter().find(|f| ours(f))) {
                (Some(error), _) => Err(error.clone()),
                (None, Some(fault)) => Err(ApiError::failed(format!(
                    "the router could not apply section {}: {}",
                    fault.section, fault.reason
                ))),
                (None, None) => Ok(()),
            },
            Ok(Err(_)) => Err(ApiError::unavailable("the network service is ending".to_owned())),
            Err(_) => {
                Err(ApiError::unavailable(format!("router {id} didn't reach its wanted state within {patience:?}")))
            }
        }
    }

    fn wish(&self, id: i64, verify: bool) -> (u64, watch::Receiver<Done>) {
        let worker = {
            let mut workers = self.0.workers.lock().unwrap_or_else(PoisonError::into_inner);
            workers
                .entry(id)
                .or_insert_with(|| {
                    let (done, _) = watch::channel(Done::default());
                    Arc::new(Worker { id, work: Mutex::default(), done, memory: tokio::sync::Mutex::default() })
                })
                .clone()
        };
        let mut work = worker.work.lock().unwrap_or_else(PoisonError::into_inner);
        work.wanted += 1;
        work.verify |= verify;
        let receiver = worker.done.subscribe();
        if !work.running {
            work.running = true;
            let inner = self.0.clone();
            let worker = worker.clone();
            self.0.node.spawn("router", async move { inner.run(&worker).await });
        }
        (work.wanted, receiver)
    }
}

/// What one pass decided.
enum Pass {
    /// The host has the wanted state.
    Applied,
    /// The router is gone.
    Gone,
    /// Look again at once: it moved, or the host lacks the base.
    Again,
}

impl Inner {
    async fn run(&self, worker: &Worker) {
        let mut memory = worker.memory.lock().await;
        loop {
            let target = {
                let mut work = worker.work.lock().unwrap_or_else(PoisonError::into_inner);
                let done = worker.done.borrow().upto;
                if work.wanted == done {
                    work.running = false;
                    None
                } else {
                    memory.verify |= std::mem::take(&mut work.verify);
                    Some(work.wanted)
                }
            };
            let Some(target) = target else { return };
            let gone = self.serve(worker, &mut memory, target).await;
            let idle = worker.work.lock().unwrap_or_else(PoisonError::into_inner).wanted == target;
            if gone {
                self.workers.lock().unwrap_or_else(PoisonError::into_inner).remove(&worker.id);
            } else if (idle || memory.recorded_at.is_none_or(|at| at.elapsed() > RECORD_EVERY))
                && let Err(error) = self.record(worker.id, &mut memory).await
            {
                tracing::warn!(router = worker.id, %error, "what a router has could not be recorded");
            }
        }
    }

    /// Serves all wishes up to `target`. True: the router is gone.
    async fn serve(&self, worker: &Worker, memory: &mut Memory, target: u64) -> bool {
        let deadline = Instant::now() + PASS_TIME;
        let mut wait = Duration::from_millis(50);
        let mut gone = false;
        let error = loop {
            match self.pass(worker.id, memory).await {
                Ok(Pass::Applied) => break None,
                Ok(Pass::Gone) => {
                    gone = true;
                    break None;
                }
                Ok(Pass::Again) => {}
                Err(error) => {
                    let hopeless = !error.is_transient() || error.code == 533;
                    if hopeless || Instant::now() + wait > deadline {
                        tracing::warn!(router = worker.id, %error, "a router can't be brought to its wanted state");
                        break Some(error);
                    }
                    tracing::debug!(router = worker.id, %error, "again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(2));
                }
            }
        };
        worker.done.send_replace(Done { upto: target, error, faults: memory.faults.clone() });
        gone
    }

    async fn pass(&self, id: i64, memory: &mut Memory) -> Result<Pass, ApiError> {
        let db = &self.node.db;
        let known = if memory.applied > 0 { Extent::Leases(memory.applied) } else { Extent::Whole };
        let Some(mut seen) = snapshot(db, id, known).await? else { return Ok(Pass::Gone) };
        let router = seen.router.clone();
        if router.epoch != memory.epoch {
            // What is recorded is a lower bound of what the host has; it says so itself when it has less.
            *memory = Memory {
                epoch: router.epoch,
                applied: router.applied,
                recorded: router.applied,
                verify: memory.verify,
                ..Memory::default()
            };
            return Ok(Pass::Again);
        }
        if super::rests(&router) {
            // What is wanted of it is in its spec when it starts.
            return Ok(Pass::Applied);
        }
        let host = match router.host_id {
            Some(host) => host,
            None => {
                let host = pick_host(&self.node, router.zone_id, Vec::new()).await?;
                return self.relocate(&router, host, false).await;
            }
        };
        if memory.applied == 0 || memory.verify {
            match zones::standing(db, host).await? {
                Standing::Up => {}
                Standing::Silent(status) => return Err(silent(&router, &status)),
                standing => return self.leave(&router, host, standing).await,
            }
        }
        if memory.applied >= router.generation && !memory.verify {
            return Ok(Pass::Applied);
        }
        memory.verify = false;
        let setting = self.setting(&router, memory).await?;
        let open = |vm: &str, sealed: &str| {
            let password = self.node.vault.open_sealed(&model::sealed::vm_password(vm), sealed)?;
            String::from_utf8(password).map_err(|_| ApiError::internal("a sealed password is no text"))
        };
        let extent = match memory.applied {
            0 => Extent::Whole,
            base if router.spec_generation > base => Extent::Whole,
            base if router.sections.any_after(base) => Extent::Changed(base),
            base => Extent::Leases(base),
        };
        if extent != known {
            // A later state than the one seen is as good, as long as the same settings are in force.
            let Some(all) = snapshot(db, id, extent).await? else { return Ok(Pass::Gone) };
            if all.router.epoch != memory.epoch || all.router.spec_generation != router.spec_generation {
                return Ok(Pass::Again);
            }
            seen = all;
        }
        let command = match extent {
            Extent::Whole => spec::whole(&seen, &setting, &open)?,
            Extent::Leases(base) | Extent::Changed(base) => spec::delta(&seen, &setting, base, &open)?,
        };
        let generation = command.generation;
        match self.apply(host, command).await {
            Ok(applied) if applied.behind => {
                memory.applied = 0;
                return Ok(Pass::Again);
            }
            Ok(applied) => {
                memory.applied = generation;
                memory.faults = applied.faults;
            }
            Err(error) => match zones::standing(db, host).await? {
                Standing::Up => return Err(error),
                Standing::Silent(status) => return Err(silent(&router, &status)),
                standing => return self.leave(&router, host, standing).await,
            },
        }
        // Others may look at the network's state as soon as they hear of it.
        if router.state != routers::RUNNING {
            self.first_record(&router, memory).await?;
        }
        Ok(Pass::Applied)
    }

    async fn apply(&self, host: i64, command: contract_agent::ApplyRouter) -> Result<RouterApplied, ApiError> {
        let outcome = execute(&self.node, host, Body::ApplyRouter(command)).await?;
        match outcome {
            Some(outcome::Body::Router(applied)) => Ok(applied),
            _ => Err(ApiError::internal(format!("host {host} gave no answer to a router's state"))),
        }
    }

    /// Takes a router off a host that can't keep it. One that lives gives it up first, so that no two of them answer in
    /// the network; one that is known to be dead needn't be asked.
    async fn leave(&self, router: &Router, host: i64, standing: Standing) -> Result<Pass, ApiError> {
        tracing::info!(router = router.name, host, ?standing, "the router leaves its host");
        // Before anything is taken away, somebody must be there to carry it.
        let next = pick_host(&self.node, router.zone_id, vec![host]).await?;
        if standing == Standing::Leaving {
            execute(&self.node, host, Body::RemoveRouter(RemoveRouter { router_uuid: router.uuid.clone() })).await?;
        }
        self.relocate(router, next, standing == Standing::Gone).await
    }

    /// `lost`: its former host is known to be dead.
    async fn relocate(&self, router: &Router, host: PickHostResponse, lost: bool) -> Result<Pass, ApiError> {
        let moved = store::tx!(self.node.db, "move-router", |tx| {
            let moved = routers::move_to(tx, router, &host).await?;
            if moved && lost {
                let text = format!("Router {} was on a host that is down: it starts on another one", router.name);
                let event = EventRecord::new(&rpc::cx::system_caller(), "ROUTER.HA", EventState::Completed, text);
                let event = event.about("DomainRouter", &router.uuid).owned_by(&router.owner);
                events::record(tx, &[Record::Event(event)]).await?;
            }
            Ok::<_, ApiError>(moved)
        })
        .await?;
        if moved {
            tracing::info!(router = router.name, host = host.host_id, "the router has a new host");
        }
        Ok(Pass::Again)
    }

    /// The first spec on a host is applied: the router runs, and its network is implemented.
    async fn first_record(&self, router: &Router, memory: &mut Memory) -> Result<(), ApiError> {
        let (epoch, applied) = (memory.epoch, memory.applied);
        store::tx!(self.node.db, "router-runs", |tx| {
            let states = [NetworkState::Implementing];
            if routers::set_applied(tx, router.id, epoch, applied, None).await? {
                networks::set_state(tx, router.network_id, &states, NetworkState::Implemented).await?;
            }
            Ok::<_, ApiError>(())
        })
        .await?;
        memory.recorded = applied;
        memory.recorded_at = Some(Instant::now());
        Ok(())
    }

    async fn record(&self, id: i64, memory: &mut Memory) -> Result<(), ApiError> {
        if memory.applied <= memory.recorded {
            return Ok(());
        }
        let faults = (!memory.faults.is_empty()).then(|| {
            memory.faults.iter().map(|f| format!("{}: {}", f.section, f.reason)).collect::<Vec<_>>().join("; ")
        });
        let (epoch, applied) = (memory.epoch, memory.applied);
        store::tx!(self.node.db, "router-applied", |tx| {
            routers::set_applied(tx, id, epoch, applied, faults.as_deref()).await.map_err(ApiError::from)
        })
        .await?;
        memory.recorded = applied;
        memory.recorded_at = Some(Instant::now());
        Ok(())
    }

    /// The network's settings as of the router's `spec_generation`, read once for each.
    async fn setting(&self, router: &Router, memory: &mut Memory) -> Result<Setting, ApiError> {
        if let Some((of, setting)) = &memory.setting
            && *of == router.spec_generation
        {
            return Ok(setting.clone());
        }
        let setting = read_setting(&self.node, router).await?;
        memory.setting = Some((router.spec_generation, setting.clone()));
        Ok(setting)
    }
}

async fn read_setting(node: &Node, router: &Router) -> Result<Setting, ApiError> {
    let db = &node.db;
    let gone = || ApiError::concurrent(format!("the network of router {} is gone", router.name));
    let network = networks::one(db, router.network_id).await?.ok_or_else(gone)?;
    let offering = offerings::by_ids(db, [network.offering_id]).await?.remove(&network.offering_id).ok_or_else(gone)?;
    let zone = zones::zone(db, network.zone_id).await?.ok_or_else(gone)?;
    let public = match router.public_ip_id {
        Some(id) => match ips::one(db, id).await? {
            Some(ip) => ranges::one(db, ip.vlan_range_id).await?,
            None => None,
        },
        None => None,
    };
    let prefix = |gateway: &str, netmask: &str| Subnet::parse(gateway, netmask).map_or(24, |s| s.net.prefix_len());
    let gateway = network.gateway.clone().unwrap_or_default();
    let netmask = network.netmask.clone().unwrap_or_default();
    Ok(Setting {
        guest_uri: network.broadcast_uri.clone().unwrap_or_default(),
        guest_prefix: prefix(&gateway, &netmask),
        gateway,
        netmask,
        domain: network.network_domain.clone().unwrap_or_default(),
        dns: std::iter::once(zone.dns1).chain(zone.dns2).filter(|d| !d.is_empty()).collect(),
        public_prefix: public.as_ref().map_or(24, |p| prefix(&p.gateway, &p.netmask)),
        public_gateway: public.as_ref().map(|p| p.gateway.clone()),
        public_vlan: public.map(|p| p.vlan),
        egress_default_allow: offering.egress_default_policy,
        max_connections: Some(max_connections(node, offering.max_connections)),
        rate_mbps: rate(node, network.zone_id, offering.network_rate),
        services: offering.services.into_iter().map(|(s, _)| s).collect(),
        zone: zone.name,
        cloud: node.settings.get(config::keys::CLOUD_IDENTIFIER),
    })
}

/// Megabits a second of the router's interfaces: the network offering's, else the zone's `network.throttling.rate`; 0 and
/// less: unlimited.
fn rate(node: &Node, zone: i64, offering: Option<i64>) -> Option<u64> {
    let zone_wide = || node.settings.get_in(config::keys::NETWORK_THROTTLING_RATE, config::Scope::Zone(zone));
    u64::try_from(offering.unwrap_or_else(zone_wide)).ok().filter(|rate| *rate > 0)
}

/// Connections of a network's load balancing: the offering's figure, else `network.loadbalancer.haproxy.max.conn`.
fn max_connections(node: &Node, offering: Option<i64>) -> u32 {
    let wanted = offering.filter(|n| *n > 0).unwrap_or_else(|| node.settings.get(config::keys::LB_MAX_CONNECTIONS));
    // What hosts take.
    u32::try_from(wanted.clamp(1, 1_000_000)).unwrap_or(4096)
}

/// Why a router is left where it is.
fn silent(router: &Router, status: &str) -> ApiError {
    ApiError::unavailable(format!(
        "router {} can't be changed: its host is {status}, and may still run it. It moves once the host is known to be down",
        router.name
    ))
}

/// A connected host that can carry a router of the zone.
///
/// # Errors
/// 533 when there is none.
pub(crate) async fn pick_host(node: &Node, zone: i64, avoid: Vec<i64>) -> Result<PickHostResponse, ApiError> {
    let message = PickHostRequest { zone_id: zone, avoid_host_ids: avoid, ..PickHostRequest::default() };
    let request = rpc::cx::repeatable(&rpc::cx::system_caller(), message);
    Ok(PlacementClient::new(node.peers.orchestrator()).pick_host(request).await?.into_inner())
}

/// Sends a command to a host.
///
/// # Errors
/// 534 when the host doesn't answer; else what it said.
pub(crate) async fn execute(node: &Node, host: i64, body: Body) -> Result<Option<outcome::Body>, ApiError> {
    let message = ExecuteRequest {
        host_id: host,
        command: Some(Command { body: Some(body) }),
        undo: false,
        deadline_millis: u32::try_from(COMMAND_TIME.as_millis()).unwrap_or_default(),
    };
    let mut request = rpc::cx::repeatable(&rpc::cx::system_caller(), message);
    request.set_timeout(COMMAND_TIME + Duration::from_secs(5));
    let answer = HostCommandsClient::new(node.peers.orchestrator()).execute(request).await?.into_inner();
    Ok(answer.outcome.and_then(|o| o.body))
}
