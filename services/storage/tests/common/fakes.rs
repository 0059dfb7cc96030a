//! Hosts and limits that remember.

use contract::ApiError;
use contract_agent::image_state::Phase;
use contract_agent::{DiskState, ImageState, Nothing, Outcome, PoolFacts, command, outcome};
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
    /// UUID of the image store and path in it that the order named.
    pub from: Option<(String, String)>,
}

/// What a host says of a download.
#[derive(Clone, Debug)]
pub enum Say {
    /// So many bytes of so many are here.
    Bytes(u64, u64),
    /// They are put in place.
    Installing,
    /// The image is there: length of the file, size of the disk, checksum.
    Ready(u64, u64, &'static str),
    /// It is none.
    Refuse(&'static str),
    /// The line broke too often.
    Broke,
}

/// An image on its way, or there.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub url: String,
    pub said: usize,
    pub ready: bool,
    pub order: contract_agent::FetchImage,
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
    /// What is said of a URL, one after the other; the last is repeated.
    plans: HashMap<String, Vec<Say>>,
    /// By store and path.
    images: BTreeMap<(String, String), Image>,
    /// Orders to copy disks and images, as they came.
    stored: Vec<contract_agent::StoreDisk>,
    /// Volumes and paths whose bytes were to be deleted.
    deleted: Vec<(String, String)>,
    /// VMs that were said to be no more.
    ended: Vec<String>,
    /// Pool, ISO, and the store that it was to be copied from, as the orders came.
    isos: Vec<(String, String, Option<String>)>,
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

    /// Says what becomes of a URL's download; without, it is there at once.
    pub fn plan(&self, url: &str, says: &[Say]) {
        self.0.lock().unwrap().plans.insert(url.to_owned(), says.to_vec());
    }

    /// The images in a store, or all: path and whether they are there.
    pub fn images(&self, store: Option<&str>) -> Vec<(String, Image)> {
        let state = self.0.lock().unwrap();
        let of = state.images.iter().filter(|((s, _), _)| store.is_none_or(|wanted| wanted == s));
        of.map(|((_, path), image)| (path.clone(), image.clone())).collect()
    }

    /// The orders to copy disks and images that came.
    pub fn stored(&self) -> Vec<contract_agent::StoreDisk> {
        self.0.lock().unwrap().stored.clone()
    }

    /// VMs that were said to be no more, as the orders came.
    pub fn ended(&self) -> Vec<String> {
        self.0.lock().unwrap().ended.clone()
    }

    /// Volumes and paths whose bytes were to be deleted, as the orders came.
    pub fn deleted(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap().deleted.clone()
    }

    /// Pool, ISO, and the store that it was to be copied from, as the orders came.
    pub fn isos(&self) -> Vec<(String, String, Option<String>)> {
        self.0.lock().unwrap().isos.clone()
    }

    /// Which hosts got an order.
    pub fn who(&self, order: &str) -> Vec<i64> {
        self.0.lock().unwrap().told.iter().filter(|(_, o)| *o == order).map(|(host, _)| *host).collect()
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
                let from =
                    d.template.as_ref().and_then(|t| Some((t.store.as_ref()?.uuid.clone(), t.store_path.clone())));
                let template = d.template.map(|t| t.template_uuid);
                let disk = Disk { path: d.path.clone(), size: d.size, template, from };
                self.disks.entry((d.volume_uuid.clone(), d.path.clone())).or_insert(disk);
                outcome::Body::Disk(DiskState {
                    volume_uuid: d.volume_uuid,
                    path: d.path,
                    size: d.size,
                    physical_size: 0,
                })
            }
            command::Body::EnsureIso(i) => {
                let iso = i.iso.unwrap();
                self.isos.push((i.pool_uuid, iso.template_uuid, iso.store.map(|store| store.uuid)));
                nothing
            }
            command::Body::DeleteDisk(d) => {
                self.deleted.push((d.volume_uuid.clone(), d.path.clone()));
                self.ended.extend(d.ended_vm);
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
            command::Body::FetchImage(d) => outcome::Body::Image(self.fetch(d)?),
            command::Body::StoreDisk(d) => outcome::Body::Image(self.store(d)?),
            command::Body::ReadImage(d) => {
                let place = (d.store.unwrap_or_default().uuid, d.path.clone());
                if !self.images.get(&place).is_some_and(|image| image.ready) {
                    return Err(ApiError::param("no such image"));
                }
                let bytes = content(&d.path);
                let at = |n: u64| usize::try_from(n).unwrap().min(bytes.len());
                let data = bytes[at(d.offset)..at(d.offset + u64::from(d.length.min(1000)))].to_vec();
                outcome::Body::ImagePiece(contract_agent::ImagePiece { data, total: bytes.len() as u64 })
            }
            command::Body::DeleteImage(d) => {
                self.images.remove(&(d.store.unwrap_or_default().uuid, d.path));
                nothing
            }
            other => return Err(ApiError::failed(format!("not for storage: {other:?}"))),
        };
        Ok(Outcome { body: Some(body) })
    }
}

impl State {
    /// What is said of a copy follows the plan of its volume, or of the image that it is of.
    fn store(&mut self, d: contract_agent::StoreDisk) -> Result<ImageState, ApiError> {
        let store = d.store.clone().unwrap_or_default().uuid;
        let (from, bytes) = match &d.source {
            Some(from) => {
                let place = (from.store.clone().unwrap_or_default().uuid, from.store_path.clone());
                if !self.images.get(&place).is_some_and(|image| image.ready) {
                    return Err(ApiError::failed("no such image"));
                }
                (from.store_path.clone(), from.virtual_size)
            }
            None => {
                let disk = self.disks.get(&(d.volume_uuid.clone(), d.path.clone()));
                (d.volume_uuid.clone(), disk.ok_or_else(|| ApiError::failed("no such disk"))?.size)
            }
        };
        self.stored.push(d.clone());
        let plan = self.plans.get(&from).cloned();
        let plan = plan.unwrap_or_else(|| vec![Say::Bytes(5, 10), Say::Ready(700, bytes, "{SHA-256}cc")]);
        let image = self.images.entry((store, d.store_path.clone())).or_default();
        image.url = from;
        let say = plan.get(image.said).or(plan.last()).unwrap().clone();
        image.said += 1;
        let mut state = ImageState { path: d.store_path, format: d.format, ..ImageState::default() };
        match say {
            Say::Bytes(received, total) => {
                state.phase = Phase::Downloading.into();
                (state.received, state.total) = (received, Some(total));
            }
            Say::Installing => state.phase = Phase::Installing.into(),
            Say::Ready(bytes, size, sum) => {
                image.ready = true;
                state.phase = Phase::Ready.into();
                (state.physical_size, state.virtual_size, state.checksum) = (bytes, size, sum.into());
            }
            Say::Refuse(why) => return Err(ApiError::param(why)),
            Say::Broke => return Err(ApiError::concurrent("the line broke too often")),
        }
        Ok(state)
    }

    fn fetch(&mut self, d: contract_agent::FetchImage) -> Result<ImageState, ApiError> {
        let plan = self.plans.get(&d.url).cloned();
        let plan = plan.unwrap_or_else(|| vec![Say::Bytes(512, 1024), Say::Ready(1024, 2 << 30, "{SHA-256}aa")]);
        let place = (d.store.clone().unwrap_or_default().uuid, d.path.clone());
        let image = self.images.entry(place.clone()).or_default();
        (image.url, image.order) = (d.url.clone(), d.clone());
        let say = plan.get(image.said).or(plan.last()).unwrap().clone();
        image.said += 1;
        let mut state = ImageState { path: d.path, format: "qcow2".into(), ..ImageState::default() };
        match say {
            Say::Bytes(received, total) => {
                state.phase = Phase::Downloading.into();
                (state.received, state.total) = (received, Some(total));
            }
            Say::Installing => state.phase = Phase::Installing.into(),
            Say::Ready(bytes, size, sum) => {
                image.ready = true;
                state.phase = Phase::Ready.into();
                (state.received, state.total) = (bytes, Some(bytes));
                (state.physical_size, state.virtual_size, state.checksum) = (bytes, size, sum.into());
            }
            Say::Refuse(why) => {
                self.images.remove(&place);
                return Err(ApiError::param(why));
            }
            Say::Broke => return Err(ApiError::concurrent("the line broke too often")),
        }
        Ok(state)
    }
}

/// What is read of an image.
pub fn content(path: &str) -> Vec<u8> {
    path.bytes().cycle().take(2500).collect()
}

fn name(body: &command::Body) -> &'static str {
    match body {
        command::Body::EnsurePool(_) => "EnsurePool",
        command::Body::EnsureDisk(_) => "EnsureDisk",
        command::Body::EnsureIso(_) => "EnsureIso",
        command::Body::DeleteDisk(_) => "DeleteDisk",
        command::Body::ResizeDisk(_) => "ResizeDisk",
        command::Body::AttachDisk(_) => "AttachDisk",
        command::Body::DetachDisk(_) => "DetachDisk",
        command::Body::FetchImage(_) => "FetchImage",
        command::Body::DeleteImage(_) => "DeleteImage",
        command::Body::StoreDisk(_) => "StoreDisk",
        command::Body::ReadImage(_) => "ReadImage",
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
    most_secondary: Mutex<Option<i64>>,
    /// Templates that gave all back: nothing is counted for them any more.
    gone: Mutex<HashSet<String>>,
}

impl Limits {
    pub fn routes(limits: &Arc<Limits>) -> Routes {
        Routes::new(LimitsServer::from_arc(limits.clone()))
    }

    pub fn most_volumes(&self, most: usize) {
        *self.most_volumes.lock().unwrap() = Some(most);
    }

    /// Bytes of secondary storage that each template may have.
    pub fn most_secondary(&self, most: i64) {
        *self.most_secondary.lock().unwrap() = Some(most);
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
        let secondary = self.most_secondary.lock().unwrap().unwrap_or(i64::MAX);
        if r.items.iter().any(|item| item.r#type == 11 && item.amount > secondary) {
            return Err(
                ApiError::limit("Maximum number of resources of type 'secondary_storage' has been exceeded").into()
            );
        }
        if self.gone.lock().unwrap().contains(&r.key) {
            return Err(ApiError::failed("everything was given back").into());
        }
        let items = held.entry(r.key).or_default();
        for item in r.items {
            items.insert(item.r#type, item.amount);
        }
        Ok(Response::new(ReserveResponse {}))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let key = request.into_inner().key;
        self.held.lock().unwrap().remove(&key);
        if key.starts_with("template:") {
            self.gone.lock().unwrap().insert(key);
        }
        Ok(Response::new(ReleaseResponse {}))
    }
}
