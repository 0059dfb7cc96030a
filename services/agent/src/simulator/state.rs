//! What exists in the simulated data centre.

use super::faults;
use super::guest::Guest;
use super::images::{Image, Place};
use super::migrate::Waiting;
use crate::hypervisor::Digest;
use crate::lease::{Beats, Claims, Tenure, lease_pool};
use aws_lc_rs::digest::SHA256;
use contract_agent::state_entry::Body as Entry;
use contract_agent::wanted::Wanted;
use contract_agent::{
    ApplyRouter, DiskState, EnsurePool, HostFacts, HostUp, Mock, MockList, PowerReason, PowerState, Report,
    RouterApplied, RouterChange, SavedDisk, SavedHost, SavedLease, SavedVm, SpawnHost, VmSpec, VmState,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What a pool holds when its URL doesn't say: `?capacity=BYTES`.
const POOL_CAPACITY: u64 = 1 << 40;

#[derive(Default)]
pub(super) struct State {
    pub hosts: BTreeMap<String, Host>,
    pub pools: HashMap<String, Pool>,
    /// On secondary stores; not kept on the agent's disk.
    pub images: HashMap<Place, Image>,
    pub leases: HashMap<String, Lease>,
    pub mocks: Vec<Mock>,
}

pub(super) struct Host {
    pub spec: SpawnHost,
    pub boot_id: String,
    /// It is off: everything that ran is lost.
    pub dead: bool,
    /// The fault that killed it; 0: none.
    pub killed_by: i64,
    /// It lives but says nothing: what it runs goes on.
    pub silent: bool,
    /// It stands still, its guests too.
    pub frozen: bool,
    /// Nobody cares for it, its guests go on.
    pub agent_gone: bool,
    /// It can't read its leases.
    pub lease_cut: bool,
    /// Its agent is back, and hasn't looked yet which VMs it has lost.
    pub returning: bool,
    /// What it has claimed on pools and not given back.
    pub claims: Claims,
    /// Its signs of life on pools.
    pub beats: Beats,
    /// The pools that it was told of.
    pub pools: BTreeSet<String>,
    pub vms: BTreeMap<String, Vm>,
    /// Copies that wait for VMs that move here.
    pub copies: BTreeMap<String, Waiting>,
    /// The cookies of migrations that began here; not kept on the agent's disk, for they end with it.
    pub offers: BTreeMap<String, Vec<u8>>,
    pub routers: BTreeMap<String, Wanted>,
    /// Digest of the last report that was taken.
    pub reported: Vec<u8>,
    /// Something changed since.
    pub dirty: bool,
}

#[derive(Clone)]
pub(super) struct Vm {
    pub spec: VmSpec,
    pub power: PowerState,
    /// Why it isn't on.
    pub reason: PowerReason,
    pub boots: u64,
    /// The cookie of the migration by which it was sent to another host; empty: it wasn't.
    pub sent: Vec<u8>,
    pub guest: Arc<Guest>,
}

#[derive(Default)]
pub(super) struct Pool {
    pub order: EnsurePool,
    pub disks: BTreeMap<Bytes, DiskState>,
}

/// The highest generation that this agent was asked for of a VM, and by which host: what is lower is refused even when the
/// pool doesn't know of it.
pub(super) struct Lease {
    pub generation: i64,
    pub host: String,
}

impl Host {
    pub fn new(spec: SpawnHost) -> Host {
        Host {
            spec,
            boot_id: uuid::Uuid::new_v4().to_string(),
            dead: false,
            killed_by: 0,
            silent: false,
            frozen: false,
            agent_gone: false,
            lease_cut: false,
            returning: false,
            claims: Claims::default(),
            beats: Beats::default(),
            pools: BTreeSet::new(),
            vms: BTreeMap::new(),
            copies: BTreeMap::new(),
            offers: BTreeMap::new(),
            routers: BTreeMap::new(),
            reported: Vec::new(),
            dirty: true,
        }
    }

    /// Whether it answers.
    pub fn is_alive(&self) -> bool {
        self.has_agent() && !self.silent && !self.returning
    }

    /// Whether somebody cares for it.
    pub fn has_agent(&self) -> bool {
        !self.dead && !self.frozen && !self.agent_gone
    }

    /// Takes the faults over that are states of hosts.
    pub fn apply_states(&mut self, mocks: &[Mock]) {
        let states = faults::states(mocks, &self.spec);
        let was_gone = self.frozen || self.agent_gone;
        if states.frozen != self.frozen {
            self.vms.values().for_each(|vm| vm.guest.freeze(states.frozen));
        }
        (self.frozen, self.agent_gone, self.lease_cut) = (states.frozen, states.agent_gone, states.lease_cut);
        self.returning |= was_gone && !self.frozen && !self.agent_gone;
    }

    pub fn saved(&self) -> Entry {
        Entry::Host(SavedHost {
            spec: Some(self.spec.clone()),
            boot_id: self.boot_id.clone(),
            dead: self.dead,
            killed_by: self.killed_by,
            pools: self.pools.iter().cloned().collect(),
        })
    }

    pub fn facts(&self) -> HostFacts {
        HostFacts {
            name: self.spec.name.clone(),
            hypervisor: "Simulator".into(),
            // As in 4.11, the simulator's version is that of the system.
            hypervisor_version: env!("CARGO_PKG_VERSION").into(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            sockets: 1,
            cpus: self.spec.cpus,
            cpu_mhz: self.spec.cpu_mhz,
            memory_bytes: self.spec.memory_bytes,
            dom0_memory_bytes: 0,
            private_ip: self.spec.private_ip.clone(),
            private_mac: mac(&self.spec.host_uuid),
            capabilities: vec!["hvm".into()],
        }
    }

    pub fn up(&self) -> HostUp {
        HostUp {
            host_uuid: self.spec.host_uuid.clone(),
            guid: self.spec.guid.clone(),
            boot_id: self.boot_id.clone(),
            facts: Some(self.facts()),
            digest: self.digest(),
        }
    }

    /// What must be equal for the control plane to know what runs here.
    pub fn digest(&self) -> Vec<u8> {
        let mut digest = Digest::new(&self.boot_id);
        for (uuid, vm) in &self.vms {
            digest.vm(uuid, vm.power, vm.spec.generation);
        }
        for (uuid, copy) in &self.copies {
            digest.vm(uuid, PowerState::Paused, copy.spec.generation);
        }
        for (uuid, router) in &self.routers {
            digest.router(uuid, router.generation);
        }
        digest.finish()
    }

    pub fn report(&self) -> Report {
        Report {
            host_uuid: self.spec.host_uuid.clone(),
            digest: self.digest(),
            vms: self.vms.values().map(Vm::state).chain(self.copies.values().map(Waiting::state)).collect(),
            routers: self
                .routers
                .iter()
                .map(|(uuid, router)| RouterApplied {
                    router_uuid: uuid.clone(),
                    generation: router.generation,
                    ..RouterApplied::default()
                })
                .collect(),
        }
    }

    /// All VMs end, and what waits for some.
    pub fn lose_guests(&mut self) {
        self.vms.values().for_each(|vm| vm.guest.off());
        self.vms.clear();
        self.copies.clear();
        self.offers.clear();
    }

    /// Loses all that runs.
    pub fn lose_everything(&mut self) -> Vec<Entry> {
        self.lose_guests();
        self.routers.clear();
        self.dirty = true;
        // Loading a host that was saved as dead clears it too, so one entry is enough.
        vec![self.saved()]
    }
}

impl Vm {
    /// The pool on which its lease is: that of its root disk.
    pub fn lease_pool(&self) -> String {
        lease_pool(&self.spec).to_owned()
    }

    pub fn state(&self) -> VmState {
        VmState {
            uuid: self.spec.uuid.clone(),
            instance_name: self.spec.instance_name.clone(),
            power: self.power.into(),
            generation: self.spec.generation,
            vnc: None,
            reason: self.reason.into(),
            lost_to: 0,
        }
    }

    pub fn saved(&self, host: &str) -> Entry {
        Entry::Vm(SavedVm {
            host_uuid: host.to_owned(),
            spec: Some(self.spec.clone()),
            power: self.power.into(),
            boots: self.boots,
            sent: self.sent.clone(),
        })
    }
}

impl Pool {
    pub fn capacity(&self) -> u64 {
        let query = self.order.url.split_once('?').map_or("", |(_, query)| query);
        let given = query.split('&').find_map(|pair| pair.strip_prefix("capacity="));
        given.and_then(|n| n.parse().ok()).unwrap_or(POOL_CAPACITY)
    }

    pub fn used(&self) -> u64 {
        self.disks.values().map(|disk| disk.physical_size).sum()
    }
}

impl Lease {
    pub fn saved(&self, vm: &str) -> Entry {
        Entry::Lease(SavedLease { vm_uuid: vm.to_owned(), generation: self.generation, host_uuid: self.host.clone() })
    }
}

impl State {
    /// Takes over an entry of the state file.
    pub fn load(&mut self, entry: Entry) {
        match entry {
            Entry::Host(saved) => self.load_host(saved),
            Entry::HostForgotten(host) => {
                self.hosts.remove(&host);
            }
            Entry::Vm(saved) => {
                if let Some(host) = self.hosts.get_mut(&saved.host_uuid) {
                    let power = saved.power();
                    let spec = saved.spec.unwrap_or_default();
                    // Nothing is permitted before the first look.
                    let guest = Guest::new(Tenure::unknown(spec.generation));
                    guest.hold(!saved.sent.is_empty());
                    let reason = match power {
                        PowerState::Paused if !saved.sent.is_empty() => PowerReason::Sent,
                        PowerState::Paused => PowerReason::LeaseUnreadable,
                        _ => PowerReason::Unspecified,
                    };
                    let (boots, sent) = (saved.boots, saved.sent);
                    host.vms.insert(spec.uuid.clone(), Vm { spec, power, reason, boots, sent, guest });
                }
            }
            Entry::VmForgotten(gone) => {
                if let Some(host) = self.hosts.get_mut(&gone.host_uuid) {
                    host.vms.remove(&gone.vm_uuid);
                }
            }
            Entry::Copy(saved) => {
                if let Some(host) = self.hosts.get_mut(&saved.host_uuid) {
                    let copy = Waiting::load(saved);
                    host.copies.insert(copy.spec.uuid.clone(), copy);
                }
            }
            Entry::CopyForgotten(gone) => {
                if let Some(host) = self.hosts.get_mut(&gone.host_uuid) {
                    host.copies.remove(&gone.vm_uuid);
                }
            }
            Entry::Lease(saved) => {
                self.leases.insert(saved.vm_uuid, Lease { generation: saved.generation, host: saved.host_uuid });
            }
            Entry::Disk(saved) => {
                if let Some(disk) = saved.disk {
                    let pool = self.pools.entry(saved.pool_uuid).or_default();
                    pool.disks.insert(bytes_of(&disk), disk);
                }
            }
            Entry::DiskForgotten(gone) => {
                if let Some(pool) = self.pools.get_mut(&gone.pool_uuid) {
                    // Entries of before name no path: a volume had one disk then.
                    let same = |path: &str| gone.path.is_empty() || gone.path == path;
                    pool.disks.retain(|(volume, path), _| *volume != gone.volume_uuid || !same(path));
                }
            }
            Entry::Pool(order) => {
                let pool = self.pools.entry(order.pool_uuid.clone()).or_default();
                pool.order = order;
            }
            Entry::Router(changed) => {
                if let (Some(host), Some(change)) = (self.hosts.get_mut(&changed.host_uuid), changed.change) {
                    let router = host.routers.entry(change.router_uuid.clone()).or_default();
                    router.merge(change);
                }
            }
            Entry::RouterForgotten(gone) => {
                if let Some(host) = self.hosts.get_mut(&gone.host_uuid) {
                    host.routers.remove(&gone.router_uuid);
                }
            }
            Entry::Mocks(list) => self.mocks = list.mocks,
            Entry::Effect(_) => {}
        }
    }

    /// Takes the faults over that are states of hosts.
    pub fn apply_states(&mut self) {
        let State { hosts, mocks, .. } = self;
        hosts.values_mut().for_each(|host| host.apply_states(mocks));
    }

    fn load_host(&mut self, saved: SavedHost) {
        let spec = saved.spec.unwrap_or_default();
        let host = self.hosts.entry(spec.host_uuid.clone()).or_insert_with(|| Host::new(spec.clone()));
        if saved.dead || saved.boot_id != host.boot_id {
            host.lose_guests();
            host.routers.clear();
        }
        host.spec = spec;
        host.boot_id = saved.boot_id;
        host.dead = saved.dead;
        host.killed_by = saved.killed_by;
        host.pools = saved.pools.into_iter().collect();
    }

    /// Everything that the state file must hold, in an order in which it can be loaded.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = vec![Entry::Mocks(MockList { mocks: self.mocks.clone() })];
        for (uuid, pool) in &self.pools {
            if !pool.order.pool_uuid.is_empty() {
                entries.push(Entry::Pool(pool.order.clone()));
            }
            entries.extend(pool.disks.values().map(|disk| disk_saved(disk, uuid)));
        }
        entries.extend(self.leases.iter().map(|(vm, lease)| lease.saved(vm)));
        for (uuid, host) in &self.hosts {
            entries.push(host.saved());
            entries.extend(host.vms.values().map(|vm| vm.saved(uuid)));
            entries.extend(host.copies.values().map(|copy| copy.saved(uuid)));
            for (router_uuid, router) in &host.routers {
                let change = ApplyRouter {
                    router_uuid: router_uuid.clone(),
                    generation: router.generation,
                    base: 0,
                    changes: Some(router.spec.clone()),
                    removed_leases: Vec::new(),
                };
                entries.push(Entry::Router(RouterChange { host_uuid: uuid.clone(), change: Some(change) }));
            }
        }
        entries
    }
}

/// What tells a disk from all others of its pool: its volume and path. A volume that is set back to a snapshot has two for a while.
pub(super) type Bytes = (String, String);

/// That of a disk.
pub(super) fn bytes_of(disk: &DiskState) -> Bytes {
    (disk.volume_uuid.clone(), disk.path.clone())
}

pub(super) fn disk_saved(disk: &DiskState, pool: &str) -> Entry {
    Entry::Disk(SavedDisk { disk: Some(disk.clone()), pool_uuid: pool.to_owned() })
}

/// An address of the locally administered range that belongs to this UUID.
fn mac(uuid: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&SHA256, uuid.as_bytes());
    let d = digest.as_ref();
    format!("02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", d[0], d[1], d[2], d[3], d[4])
}
