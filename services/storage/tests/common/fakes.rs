//! Hosts and limits that remember.

use contract::ApiError;
use contract_agent::{DiskState, Nothing, Outcome, PoolFacts, command, outcome};
use contract_identity::limits_server::{Limits as LimitsRpc, LimitsServer};
use contract_identity::{ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse};
use contract_infra::host_commands_server::{HostCommands, HostCommandsServer};
use contract_infra::{ExecuteRequest, ExecuteResponse};
use jobs::StepKey;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Bytes on a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub path: String,
    pub size: u64,
    pub template: Option<String>,
}

#[derive(Default)]
struct State {
    /// By volume and path.
    disks: BTreeMap<(String, String), Disk>,
    /// (VM, volume).
    attached: HashSet<(String, String)>,
    /// Keyed effects: none once undone.
    seen: HashMap<(i64, String), Option<Outcome>>,
    away: HashSet<i64>,
    refusing: HashSet<&'static str>,
    told: Vec<(i64, &'static str)>,
}

/// All hosts; they share their pools, as real ones do.
#[derive(Default)]
pub struct Hosts(Mutex<State>);

impl Hosts {
    pub fn routes(hosts: &Arc<Hosts>) -> Routes {
        Routes::new(HostCommandsServer::from_arc(hosts.clone()))
    }

    /// Cuts a host off, or connects it again.
    pub fn away(&self, host: i64, away: bool) {
        let mut state = self.0.lock().unwrap();
        if away {
            state.away.insert(host)
        } else {
            state.away.remove(&host)
        };
    }

    /// Lets an order fail for good, or work again.
    pub fn refuse(&self, order: &'static str, refuse: bool) {
        let mut state = self.0.lock().unwrap();
        if refuse {
            state.refusing.insert(order)
        } else {
            state.refusing.remove(order)
        };
    }

    /// The bytes of a volume.
    pub fn disks_of(&self, volume: &str) -> Vec<Disk> {
        let state = self.0.lock().unwrap();
        state.disks.iter().filter(|((v, _), _)| v == volume).map(|(_, d)| d.clone()).collect()
    }

    pub fn disks(&self) -> usize {
        self.0.lock().unwrap().disks.len()
    }

    pub fn is_attached(&self, vm: &str, volume: &str) -> bool {
        self.0.lock().unwrap().attached.contains(&(vm.to_owned(), volume.to_owned()))
    }

    /// How often an order came, repeats included.
    pub fn told(&self, order: &str) -> usize {
        self.0.lock().unwrap().told.iter().filter(|(_, o)| *o == order).count()
    }

    /// Sizes of all disks, and what is in which VM: what a comparison of worlds needs.
    pub fn look(&self) -> String {
        let state = self.0.lock().unwrap();
        let disks: Vec<_> = state.disks.iter().map(|((v, _), d)| (v, d.size)).collect();
        let mut attached: Vec<_> = state.attached.iter().collect();
        attached.sort();
        format!("disks {disks:?}, attached {attached:?}")
    }

    fn run(&self, key: Option<StepKey>, order: ExecuteRequest) -> Result<Outcome, ApiError> {
        let mut state = self.0.lock().unwrap();
        let body = order.command.and_then(|c| c.body).unwrap();
        let name = name(&body);
        state.told.push((order.host_id, name));
        if state.away.contains(&order.host_id) {
            return Err(ApiError::unavailable("the host isn't connected"));
        }
        if state.refusing.contains(name) {
            return Err(ApiError::failed(format!("{name} fails")));
        }
        let effect = key.map(|k| (k.job(), k.step().to_owned()));
        if let Some(effect) = &effect {
            match state.seen.get(effect) {
                Some(None) if !order.undo => return Err(ApiError::concurrent("undone before")),
                Some(Some(known)) if !order.undo => return Ok(known.clone()),
                _ => {}
            }
        }
        let outcome = state.apply(body)?;
        if let Some(effect) = effect {
            state.seen.insert(effect, (!order.undo).then(|| outcome.clone()));
        }
        Ok(outcome)
    }
}

impl State {
    fn apply(&mut self, body: command::Body) -> Result<Outcome, ApiError> {
        let nothing = outcome::Body::Nothing(Nothing {});
        let body = match body {
            command::Body::EnsurePool(p) => {
                outcome::Body::Pool(PoolFacts { pool_uuid: p.pool_uuid, capacity: 1 << 40, ..PoolFacts::default() })
            }
            command::Body::EnsureDisk(d) => {
                let disk = Disk { path: d.path.clone(), size: d.size, template: d.template.map(|t| t.template_uuid) };
                self.disks.entry((d.volume_uuid.clone(), d.path.clone())).or_insert(disk);
                outcome::Body::Disk(DiskState {
                    volume_uuid: d.volume_uuid,
                    path: d.path,
                    size: d.size,
                    physical_size: 0,
                })
            }
            command::Body::DeleteDisk(d) => {
                self.disks.remove(&(d.volume_uuid, d.path));
                nothing
            }
            command::Body::ResizeDisk(d) => {
                let key = (d.volume_uuid.clone(), d.path.clone());
                let disk = self.disks.get_mut(&key).ok_or_else(|| ApiError::failed("no such disk"))?;
                disk.size = d.size;
                outcome::Body::Disk(DiskState {
                    volume_uuid: d.volume_uuid,
                    path: d.path,
                    size: d.size,
                    physical_size: 0,
                })
            }
            command::Body::AttachDisk(d) => {
                let disk = d.disk.unwrap();
                if !self.disks.contains_key(&(disk.volume_uuid.clone(), disk.path.clone())) {
                    return Err(ApiError::failed("no such disk"));
                }
                self.attached.insert((d.vm_uuid, disk.volume_uuid));
                nothing
            }
            command::Body::DetachDisk(d) => {
                self.attached.remove(&(d.vm_uuid, d.volume_uuid));
                nothing
            }
            other => return Err(ApiError::failed(format!("not for storage: {other:?}"))),
        };
        Ok(Outcome { body: Some(body) })
    }
}

fn name(body: &command::Body) -> &'static str {
    match body {
        command::Body::EnsurePool(_) => "EnsurePool",
        command::Body::EnsureDisk(_) => "EnsureDisk",
        command::Body::DeleteDisk(_) => "DeleteDisk",
        command::Body::ResizeDisk(_) => "ResizeDisk",
        command::Body::AttachDisk(_) => "AttachDisk",
        command::Body::DetachDisk(_) => "DetachDisk",
        _ => "other",
    }
}

#[tonic::async_trait]
impl HostCommands for Hosts {
    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        let key = StepKey::optional(&request)?;
        let outcome = self.run(key, request.into_inner())?;
        Ok(Response::new(ExecuteResponse { outcome: Some(outcome) }))
    }
}

/// Holders and what they count, without limits unless one is set.
#[derive(Default)]
pub struct Limits {
    held: Mutex<BTreeMap<String, BTreeMap<i32, i64>>>,
    most_volumes: Mutex<Option<usize>>,
}

impl Limits {
    pub fn routes(limits: &Arc<Limits>) -> Routes {
        Routes::new(LimitsServer::from_arc(limits.clone()))
    }

    pub fn most_volumes(&self, most: usize) {
        *self.most_volumes.lock().unwrap() = Some(most);
    }

    /// What a holder counts of a type.
    pub fn held(&self, holder: &str, kind: i32) -> Option<i64> {
        self.held.lock().unwrap().get(holder).and_then(|items| items.get(&kind).copied())
    }

    pub fn look(&self) -> String {
        format!("{:?}", self.held.lock().unwrap())
    }
}

#[tonic::async_trait]
impl LimitsRpc for Limits {
    async fn reserve(&self, request: Request<ReserveRequest>) -> Result<Response<ReserveResponse>, Status> {
        let r = request.into_inner();
        let mut held = self.held.lock().unwrap();
        let most = self.most_volumes.lock().unwrap().unwrap_or(usize::MAX);
        if !held.contains_key(&r.key) && held.len() >= most {
            return Err(ApiError::limit("Maximum number of resources of type 'volume' has been exceeded").into());
        }
        let items = held.entry(r.key).or_default();
        for item in r.items {
            items.insert(item.r#type, item.amount);
        }
        Ok(Response::new(ReserveResponse {}))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        self.held.lock().unwrap().remove(&request.into_inner().key);
        Ok(Response::new(ReleaseResponse {}))
    }
}
