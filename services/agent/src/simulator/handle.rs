//! A look into simulated hosts, and a hand on their switches: for tests, audits and `arcus dev`.

use super::driver::Simulator;
use super::faults;
use super::state::Vm;
use crate::hypervisor::News;
use contract_agent::state_entry::Body as Entry;
use contract_agent::{DiskState, ForgottenVm, PowerReason, PowerState, RouterSpec, VmEvent, VmSpec, VmState};
use std::sync::Arc;

/// A VM as it is on a host.
#[derive(Clone, Debug)]
pub struct VmView {
    /// Its host.
    pub host: String,
    /// What it was started with, and the disks attached since.
    pub spec: VmSpec,
    /// Its power state.
    pub power: PowerState,
    /// Why it isn't on.
    pub reason: PowerReason,
    /// How often it was started and rebooted on this host.
    pub boots: u64,
}

/// A router as it is on a host.
#[derive(Clone, Debug)]
pub struct RouterView {
    /// Its host.
    pub host: String,
    /// The router.
    pub uuid: String,
    /// What was applied last.
    pub generation: i64,
    /// All that is applied.
    pub spec: RouterSpec,
}

/// The simulated hosts of an agent in this process. Cheap to clone.
#[derive(Clone)]
pub struct SimulatorHandle(pub(super) Arc<Simulator>);

impl SimulatorHandle {
    pub(crate) fn new(simulator: Arc<Simulator>) -> SimulatorHandle {
        SimulatorHandle(simulator)
    }

    /// The UUIDs of all hosts.
    pub fn hosts(&self) -> Vec<String> {
        self.0.state().hosts.keys().cloned().collect()
    }

    /// All VMs of all hosts.
    pub fn vms(&self) -> Vec<VmView> {
        let state = self.0.state();
        let view = |host: &String, vm: &Vm| VmView {
            host: host.clone(),
            spec: vm.spec.clone(),
            power: vm.power,
            reason: vm.reason,
            boots: vm.boots,
        };
        state.hosts.iter().flat_map(|(uuid, host)| host.vms.values().map(move |vm| view(uuid, vm))).collect()
    }

    /// The VM with this UUID, wherever it is.
    pub fn vm(&self, uuid: &str) -> Option<VmView> {
        self.vms().into_iter().find(|vm| vm.spec.uuid == uuid)
    }

    /// The copies that wait for VMs that move: host, VM, generation, and whether all of it is there.
    pub fn copies(&self) -> Vec<(String, String, i64, bool)> {
        let state = self.0.state();
        let of_host = |(uuid, host): (&String, &super::state::Host)| {
            let copies = host.copies.values();
            copies.map(|c| (uuid.clone(), c.spec.uuid.clone(), c.spec.generation, c.whole)).collect::<Vec<_>>()
        };
        state.hosts.iter().flat_map(of_host).collect()
    }

    /// All routers of all hosts.
    pub fn routers(&self) -> Vec<RouterView> {
        let state = self.0.state();
        let mut routers = Vec::new();
        for (host, on) in &state.hosts {
            routers.extend(on.routers.iter().map(|(uuid, router)| RouterView {
                host: host.clone(),
                uuid: uuid.clone(),
                generation: router.generation,
                spec: router.spec.clone(),
            }));
        }
        routers
    }

    /// The router with this UUID, wherever it is.
    pub fn router(&self, uuid: &str) -> Option<RouterView> {
        self.routers().into_iter().find(|router| router.uuid == uuid)
    }

    /// All volumes, with the UUID of their pool.
    pub fn disks(&self) -> Vec<(String, DiskState)> {
        let state = self.0.state();
        state
            .pools
            .iter()
            .flat_map(|(pool, on)| on.disks.values().map(move |disk| (pool.clone(), disk.clone())))
            .collect()
    }

    /// The host loses power: all that runs on it is lost, and it says nothing until [`SimulatorHandle::boot_host`].
    /// Whether there is such a host.
    pub fn kill_host(&self, host: &str) -> bool {
        self.0.by_hand(|state, entries| {
            let Some(host) = state.hosts.get_mut(host) else { return false };
            host.dead = true;
            entries.extend(host.lose_everything());
            true
        })
    }

    /// A dead host boots.
    pub fn boot_host(&self, host: &str) -> bool {
        let booted = self.0.by_hand(|state, entries| {
            let Some(host) = state.hosts.get_mut(host).filter(|host| host.dead) else { return false };
            faults::boot(host);
            entries.push(host.saved());
            true
        });
        if booted {
            self.0.kick.notify_one(); // what it had claimed is given back
            self.0.tell(News::HostUp(host.to_owned()));
        }
        booted
    }

    /// The host's management line is cut or mended; what runs on it goes on.
    pub fn silence_host(&self, host: &str, silent: bool) -> bool {
        let found = self.0.by_hand(|state, _| {
            let Some(host) = state.hosts.get_mut(host) else { return false };
            host.silent = silent;
            true
        });
        if found && !silent {
            self.0.tell(News::HostUp(host.to_owned()));
        }
        found
    }

    /// A guest shuts its VM down, or it crashes.
    pub fn power_off(&self, vm: &str) -> bool {
        let event = self.0.by_hand(|state, entries| {
            let (uuid, host) = state.hosts.iter_mut().find(|(_, host)| host.vms.contains_key(vm))?;
            let gone = host.vms.remove(vm)?;
            gone.guest.off();
            host.dirty = true;
            entries.push(Entry::VmForgotten(ForgottenVm { host_uuid: uuid.clone(), vm_uuid: vm.to_owned() }));
            let state = VmState { power: PowerState::Off.into(), reason: PowerReason::Guest.into(), ..gone.state() };
            Some(VmEvent { host_uuid: uuid.clone(), vm: Some(state) })
        });
        let Some(event) = event else { return false };
        self.0.tell(News::Vm(event));
        true
    }
}
