//! What somebody does on hosts behind the control plane's back: nothing is reported before it is asked for. For tests of
//! whether it is noticed.

use super::SimulatorHandle;
use super::guest::Guest;
use super::state::{State, bytes_of};
use contract_agent::PowerState;

impl SimulatorHandle {
    fn tamper<T>(&self, change: impl FnOnce(&mut State) -> Option<T>) -> bool {
        self.0.by_hand(|state, _| change(state)).is_some()
    }

    /// A VM is gone from its host.
    pub fn vanish_vm(&self, host: &str, vm: &str) -> bool {
        self.tamper(|state| state.hosts.get_mut(host)?.vms.remove(vm))
    }

    /// A copy of a VM runs on `host`, as `uuid`.
    pub fn copy_vm(&self, vm: &str, host: &str, uuid: &str) -> bool {
        self.tamper(|state| {
            let mut copy = state.hosts.values().find_map(|host| host.vms.get(vm))?.clone();
            uuid.clone_into(&mut copy.spec.uuid);
            copy.guest = Guest::stray(copy.spec.generation);
            state.hosts.get_mut(host)?.vms.insert(uuid.to_owned(), copy);
            Some(())
        })
    }

    /// A VM is paused, or has another generation than it was started with.
    pub fn change_vm(&self, vm: &str, power: PowerState, generation: i64) -> bool {
        self.tamper(|state| {
            let vm = state.hosts.values_mut().find_map(|host| host.vms.get_mut(vm))?;
            vm.power = power;
            vm.spec.generation = generation;
            Some(())
        })
    }

    /// A router is gone from its host, or becomes another one.
    pub fn vanish_router(&self, router: &str, instead: Option<&str>) -> bool {
        self.tamper(|state| {
            let host = state.hosts.values_mut().find(|host| host.routers.contains_key(router))?;
            let gone = host.routers.remove(router)?;
            if let Some(uuid) = instead {
                host.routers.insert(uuid.to_owned(), gone);
            }
            Some(())
        })
    }

    /// A router has lost changes.
    pub fn age_router(&self, router: &str) -> bool {
        self.tamper(|state| {
            state.hosts.values_mut().find_map(|host| host.routers.get_mut(router))?.generation -= 1;
            Some(())
        })
    }

    /// The bytes of a volume are gone, or become another's.
    pub fn vanish_disk(&self, volume: &str, instead: Option<&str>) -> bool {
        self.tamper(|state| {
            let pool = state.pools.values_mut().find(|pool| pool.disks.keys().any(|(v, _)| v == volume))?;
            let key = pool.disks.keys().find(|(v, _)| v == volume)?.clone();
            let mut gone = pool.disks.remove(&key)?;
            if let Some(uuid) = instead {
                uuid.clone_into(&mut gone.volume_uuid);
                pool.disks.insert(bytes_of(&gone), gone);
            }
            Some(())
        })
    }

    /// The bytes of a volume become more.
    pub fn grow_disk(&self, volume: &str) -> bool {
        self.tamper(|state| {
            let mut disks = state.pools.values_mut().flat_map(|pool| pool.disks.values_mut());
            disks.find(|disk| disk.volume_uuid == volume)?.size += 1;
            Some(())
        })
    }
}
