//! Hosts and limits, played by small servers of the same protocol.

use contract::ApiError;
use contract_agent::{Command, Outcome, RouterApplied, SectionFault, command::Body, outcome};
use contract_identity::limits_server::Limits;
use contract_identity::{ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse};
use contract_infra::host_commands_server::HostCommands;
use contract_infra::placement_server::Placement;
use contract_infra::{ExecuteRequest, ExecuteResponse, PickHostRequest, PickHostResponse};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tonic::{Request, Response, Status};

/// A router as a host has it.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub generation: i64,
    pub leases: BTreeMap<String, String>,
    /// What guests are told of themselves, by address.
    pub guests: BTreeMap<String, contract_agent::VmMetadata>,
    /// Leases that give no way out.
    pub aside: std::collections::BTreeSet<String>,
    pub spec: contract_agent::RouterSpec,
}

/// Hosts that do what they are told.
#[derive(Default)]
pub struct Hosts {
    pub routers: Mutex<HashMap<(i64, String), Applied>>,
    pub silent: Mutex<HashSet<i64>>,
    /// Commands that silent hosts didn't hear.
    pub unheard: AtomicUsize,
    /// Routers that came to a host while another one had them.
    pub twice: AtomicUsize,
    pub commands: Mutex<Vec<(i64, String, i64, i64)>>,
    pub candidates: Mutex<Vec<i64>>,
    /// Of each command its base and the sections that it brought.
    pub told: Mutex<Vec<(i64, Vec<&'static str>)>>,
    /// What carries routers for real, where a test wants that.
    pub real: std::sync::OnceLock<router::Routers>,
    /// Sections that no host can apply.
    pub broken: Mutex<HashSet<&'static str>>,
}

fn sections(spec: &contract_agent::RouterSpec) -> Vec<&'static str> {
    let all = [
        ("interfaces", spec.interfaces.is_some()),
        ("dhcp", spec.dhcp.is_some()),
        ("dns", spec.dns.is_some()),
        ("nat", spec.nat.is_some()),
        ("firewall", spec.firewall.is_some()),
        ("load_balancers", spec.load_balancers.is_some()),
        ("metadata", spec.metadata.is_some()),
    ];
    all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

/// Sections come whole; of leases and metadata only the newest is of interest here.
fn merge(spec: &mut contract_agent::RouterSpec, new: &contract_agent::RouterSpec) {
    let new = new.clone();
    spec.interfaces = new.interfaces.or(spec.interfaces.take());
    spec.nat = new.nat.or(spec.nat.take());
    spec.firewall = new.firewall.or(spec.firewall.take());
    spec.load_balancers = new.load_balancers.or(spec.load_balancers.take());
}

impl Hosts {
    pub fn on(&self, host: i64) -> Vec<String> {
        self.routers.lock().unwrap().keys().filter(|(h, _)| *h == host).map(|(_, r)| r.clone()).collect()
    }

    pub fn router(&self, uuid: &str) -> Option<(i64, Applied)> {
        self.routers.lock().unwrap().iter().find(|((_, r), _)| r == uuid).map(|((h, _), a)| (*h, a.clone()))
    }

    pub fn all(&self) -> Vec<(i64, String, Applied)> {
        self.routers.lock().unwrap().iter().map(|((h, r), a)| (*h, r.clone(), a.clone())).collect()
    }

    /// Takes broken sections out of a change.
    fn faults(&self, change: &mut contract_agent::RouterSpec) -> Vec<SectionFault> {
        let broken = self.broken.lock().unwrap();
        let fault = |section: &str| SectionFault {
            section: section.into(),
            reason: "it is broken".into(),
            ..SectionFault::default()
        };
        let mut faults = Vec::new();
        if broken.contains("nat") && change.nat.take().is_some() {
            faults.push(fault("nat"));
        }
        if broken.contains("firewall") && change.firewall.take().is_some() {
            faults.push(fault("firewall"));
        }
        if broken.contains("load_balancers") && change.load_balancers.take().is_some() {
            faults.push(fault("load_balancers"));
        }
        faults
    }

    fn run(&self, host: i64, body: Body) -> Outcome {
        let mut routers = self.routers.lock().unwrap();
        let body = match body {
            Body::ApplyRouter(apply) => {
                self.commands.lock().unwrap().push((host, apply.router_uuid.clone(), apply.base, apply.generation));
                let key = (host, apply.router_uuid.clone());
                let elsewhere = routers.keys().any(|(h, r)| *h != host && *r == key.1);
                self.twice.fetch_add(usize::from(elsewhere), Ordering::SeqCst);
                let known = routers.get(&key).map_or(0, |r| r.generation);
                let mut answer = RouterApplied { router_uuid: apply.router_uuid, ..RouterApplied::default() };
                if apply.base > 0 && known < apply.base {
                    answer.behind = true;
                    answer.generation = known;
                } else {
                    let router = routers.entry(key).or_default();
                    let mut changes = apply.changes.unwrap_or_default();
                    answer.faults = self.faults(&mut changes);
                    if apply.base == 0 {
                        router.leases.clear();
                        router.guests.clear();
                        router.spec = changes.clone();
                    } else if apply.generation > router.generation {
                        merge(&mut router.spec, &changes);
                    }
                    self.told.lock().unwrap().push((apply.base, sections(&changes)));
                    for mac in apply.removed_leases {
                        router.leases.remove(&mac);
                    }
                    for vm in changes.metadata.into_iter().flat_map(|m| m.vms) {
                        router.guests.insert(vm.ip4.clone(), vm);
                    }
                    for lease in changes.dhcp.into_iter().flat_map(|d| d.leases) {
                        match lease.default_network {
                            Some(false) => router.aside.insert(lease.ip4.clone()),
                            _ => router.aside.remove(&lease.ip4),
                        };
                        router.leases.insert(lease.mac, lease.ip4);
                    }
                    router.generation = router.generation.max(apply.generation);
                    answer.generation = router.generation;
                }
                outcome::Body::Router(answer)
            }
            Body::RemoveRouter(remove) => {
                routers.remove(&(host, remove.router_uuid));
                outcome::Body::Nothing(contract_agent::Nothing {})
            }
            other => panic!("not a router's command: {other:?}"),
        };
        Outcome { body: Some(body) }
    }
}

#[derive(Clone)]
pub struct Orchestrator(pub Arc<Hosts>);

#[tonic::async_trait]
impl HostCommands for Orchestrator {
    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        let r = request.into_inner();
        if self.0.silent.lock().unwrap().contains(&r.host_id) {
            self.0.unheard.fetch_add(1, Ordering::SeqCst);
            return Err(ApiError::unavailable(format!("host {} isn't connected", r.host_id)).into());
        }
        // Something else runs meanwhile, as on a wire.
        tokio::task::yield_now().await;
        let Some(Command { body: Some(body) }) = r.command else { return Err(Status::invalid_argument("no command")) };
        if let Some(real) = self.0.real.get() {
            let body = match body {
                Body::ApplyRouter(apply) => outcome::Body::Router(real.apply(apply).await.unwrap()),
                Body::RemoveRouter(remove) => {
                    real.remove(&remove.router_uuid).await.unwrap();
                    outcome::Body::Nothing(contract_agent::Nothing {})
                }
                other => panic!("not a router's command: {other:?}"),
            };
            return Ok(Response::new(ExecuteResponse { outcome: Some(Outcome { body: Some(body) }) }));
        }
        Ok(Response::new(ExecuteResponse { outcome: Some(self.0.run(r.host_id, body)) }))
    }
}

#[tonic::async_trait]
impl Placement for Orchestrator {
    async fn pick_host(&self, request: Request<PickHostRequest>) -> Result<Response<PickHostResponse>, Status> {
        let r = request.into_inner();
        let silent = self.0.silent.lock().unwrap().clone();
        let candidates = self.0.candidates.lock().unwrap().clone();
        let found = candidates.iter().find(|h| !r.avoid_host_ids.contains(h) && !silent.contains(h));
        match found {
            Some(h) => Ok(Response::new(PickHostResponse {
                host_id: *h,
                host_uuid: format!("host-{h}"),
                pod_id: 1,
                cluster_id: 1,
            })),
            None => Err(ApiError::capacity("no host of the zone is connected".to_owned()).into()),
        }
    }
}

/// Counts of reservations, with one limit for all accounts.
#[derive(Clone, Default)]
pub struct Counts(pub Arc<Mutex<Held>>);

#[derive(Default)]
pub struct Held {
    pub held: HashMap<String, (i64, i32)>,
    pub gone: HashSet<String>,
    pub most: HashMap<i32, usize>,
}

impl Counts {
    pub fn of(&self, kind: i32) -> usize {
        self.0.lock().unwrap().held.values().filter(|(_, k)| *k == kind).count()
    }
}

#[tonic::async_trait]
impl Limits for Counts {
    async fn reserve(&self, request: Request<ReserveRequest>) -> Result<Response<ReserveResponse>, Status> {
        let r = request.into_inner();
        let mut held = self.0.lock().unwrap();
        assert!(!held.gone.contains(&r.key), "a key that was given back is reserved again");
        let kind = r.items[0].r#type;
        let used = held.held.values().filter(|(a, k)| *a == r.account_id && *k == kind).count();
        if held.most.get(&kind).is_some_and(|most| used >= *most) {
            return Err(
                ApiError::limit("Maximum number of resources for the account has been exceeded".to_owned()).into()
            );
        }
        held.held.insert(r.key, (r.account_id, kind));
        Ok(Response::new(ReserveResponse {}))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let r = request.into_inner();
        let mut held = self.0.lock().unwrap();
        held.held.remove(&r.key);
        held.gone.insert(r.key);
        Ok(Response::new(ReleaseResponse {}))
    }
}
