//! Moving a running VM from one simulated host to another, of this process or of another one: all that the hosts have to
//! tell each other goes by the cookies.

use super::driver::Simulator;
use super::state::{Host, Lease, State, Vm};
use crate::hypervisor::{Done, Failure, Work};
use crate::lease::outdated;
use contract::ApiError;
use contract_agent::state_entry::Body as Entry;
use contract_agent::{
    BeginMigration, ConfirmMigration, FinishMigration, ForgottenVm, MigrationStep, PerformMigration, PowerReason,
    PowerState, PrepareMigration, SavedCopy, StopVm, VmSpec, VmState, outcome,
};

/// How long the name of a migration is, in its cookies.
const NAME: usize = 16;

/// A copy that waits, paused, for a VM that moves here.
pub(super) struct Waiting {
    pub spec: VmSpec,
    pub cookie: Vec<u8>,
    /// All of the VM is here.
    pub whole: bool,
    pub boots: u64,
}

impl Waiting {
    pub fn state(&self) -> VmState {
        VmState {
            uuid: self.spec.uuid.clone(),
            instance_name: self.spec.instance_name.clone(),
            power: PowerState::Paused.into(),
            generation: self.spec.generation,
            reason: PowerReason::Waiting.into(),
            ..VmState::default()
        }
    }

    pub fn saved(&self, host: &str) -> Entry {
        Entry::Copy(SavedCopy {
            host_uuid: host.to_owned(),
            spec: Some(self.spec.clone()),
            cookie: self.cookie.clone(),
            whole: self.whole,
            boots: self.boots,
        })
    }

    pub fn load(saved: SavedCopy) -> Waiting {
        let SavedCopy { spec, cookie, whole, boots, .. } = saved;
        Waiting { spec: spec.unwrap_or_default(), cookie, whole, boots }
    }
}

impl Host {
    /// Takes the copy of a VM that waits, unless it has a higher generation than this.
    pub fn take_copy(&mut self, host: &str, vm: &str, generation: i64, entries: &mut Vec<Entry>) -> Option<Waiting> {
        let copy = self.copies.remove(vm)?;
        if copy.spec.generation > generation {
            self.copies.insert(vm.to_owned(), copy);
            return None;
        }
        self.dirty = true;
        entries.push(Entry::CopyForgotten(ForgottenVm { host_uuid: host.to_owned(), vm_uuid: vm.to_owned() }));
        Some(copy)
    }

    /// The VM that is to be sent: it runs here, with this generation.
    fn source(&mut self, vm: &str, generation: i64) -> Result<&mut Vm, Failure> {
        let found = self.vms.get_mut(vm).filter(|vm| vm.spec.generation == generation);
        found.ok_or_else(|| ApiError::failed("The VM doesn't run on this host with that generation").into())
    }
}

fn step(cookie: Vec<u8>) -> MigrationStep {
    MigrationStep { cookie, ..MigrationStep::default() }
}

fn other_migration() -> Failure {
    ApiError::failed("This order belongs to a migration that is over").into()
}

impl State {
    fn begin_migration(&mut self, host: &str, order: &BeginMigration) -> Result<MigrationStep, Failure> {
        let host = self.host(host)?;
        let vm = host.source(&order.vm_uuid, order.generation)?;
        let domain = format!("simulator:{}", vm.spec.instance_name);
        if !vm.sent.is_empty() {
            return Ok(MigrationStep { domain, ..step(vm.sent.clone()) });
        }
        if vm.power != PowerState::On {
            return Err(ApiError::failed("The VM is paused on its host: it can't be moved now").into());
        }
        let cookie = uuid::Uuid::new_v4().as_bytes().to_vec();
        let cookie = host.offers.entry(order.vm_uuid.clone()).or_insert(cookie).clone();
        Ok(MigrationStep { domain, ..step(cookie) })
    }

    fn prepare_migration(
        &mut self,
        host_uuid: &str,
        order: PrepareMigration,
        entries: &mut Vec<Entry>,
    ) -> Result<MigrationStep, Failure> {
        let spec = order.vm.unwrap_or_default();
        let answer = MigrationStep { uri: format!("simulator:{host_uuid}"), ..step(order.cookie.clone()) };
        let known = self.leases.get(&spec.uuid).map_or(0, |lease| lease.generation);
        let host = self.host(host_uuid)?;
        match host.copies.get(&spec.uuid) {
            Some(copy) if copy.spec.generation == spec.generation && copy.cookie == order.cookie => return Ok(answer),
            Some(copy) if copy.spec.generation >= spec.generation => return Err(other_migration()),
            _ => {}
        }
        if spec.generation <= known {
            return Err(outdated(&spec.instance_name, known, spec.generation).into());
        }
        if host.vms.contains_key(&spec.uuid) {
            return Err(ApiError::failed("The VM is on this host already").into());
        }
        let copy = Waiting { spec, cookie: order.cookie, whole: false, boots: 0 };
        entries.push(copy.saved(host_uuid));
        host.copies.insert(copy.spec.uuid.clone(), copy);
        host.dirty = true;
        Ok(answer)
    }

    fn perform_migration(
        &mut self,
        host_uuid: &str,
        order: &PerformMigration,
        entries: &mut Vec<Entry>,
    ) -> Result<MigrationStep, Failure> {
        let host = self.host(host_uuid)?;
        let offered = host.offers.get(&order.vm_uuid).is_some_and(|cookie| *cookie == order.cookie);
        let vm = host.source(&order.vm_uuid, order.generation)?;
        if vm.sent.is_empty() {
            if !offered {
                return Err(other_migration());
            }
            if vm.power != PowerState::On {
                return Err(ApiError::failed("The VM is paused on its host: it can't be moved now").into());
            }
            // From here on it writes nothing: what was sent is what there is.
            vm.guest.hold(true);
            vm.sent.clone_from(&order.cookie);
            (vm.power, vm.reason) = (PowerState::Paused, PowerReason::Sent);
            entries.push(vm.saved(host_uuid));
            host.dirty = true;
        } else if vm.sent != order.cookie {
            return Err(other_migration());
        }
        let vm = host.source(&order.vm_uuid, order.generation)?;
        let cookie = [vm.sent.as_slice(), &vm.boots.to_le_bytes()].concat();
        let bytes = vm.spec.memory_bytes;
        Ok(MigrationStep { sent: true, sent_bytes: bytes, total_bytes: bytes, ..step(cookie) })
    }

    fn finish_migration(
        &mut self,
        host_uuid: &str,
        order: FinishMigration,
        entries: &mut Vec<Entry>,
    ) -> Result<MigrationStep, Failure> {
        let (vm, generation) = (order.vm_uuid.as_str(), order.generation);
        if order.cancelled {
            self.host(host_uuid)?.take_copy(host_uuid, vm, generation, entries);
            // A late Prepare makes none any more.
            if self.leases.get(vm).is_none_or(|lease| lease.generation < generation) {
                let lease = Lease { generation, host: host_uuid.to_owned() };
                entries.push(lease.saved(vm));
                self.leases.insert(vm.to_owned(), lease);
            }
            return Ok(step(Vec::new()));
        }
        let host = self.host(host_uuid)?;
        if host.vms.get(vm).is_some_and(|vm| vm.spec.generation == generation) {
            return Ok(MigrationStep { sent: true, ..step(order.cookie) });
        }
        let copy = host.copies.get_mut(vm).filter(|copy| copy.spec.generation == generation);
        let copy = copy.ok_or_else(|| ApiError::failed("No copy of the VM waits on this host"))?;
        if !copy.whole {
            let (name, boots) = order.cookie.split_at_checked(NAME).ok_or_else(other_migration)?;
            let boots: [u8; 8] = boots.try_into().map_err(|_| other_migration())?;
            if name != copy.cookie.as_slice() {
                return Err(other_migration());
            }
            (copy.whole, copy.boots) = (true, u64::from_le_bytes(boots));
            entries.push(copy.saved(host_uuid));
        }
        Ok(MigrationStep { sent: true, ..step(order.cookie) })
    }

    fn confirm_migration(
        &mut self,
        host_uuid: &str,
        order: &ConfirmMigration,
        entries: &mut Vec<Entry>,
    ) -> Result<VmState, Failure> {
        let host = self.host(host_uuid)?;
        host.offers.remove(&order.vm_uuid);
        let here = host.vms.get_mut(&order.vm_uuid);
        match here {
            // It came back here since.
            Some(vm) if vm.spec.generation > order.generation => return Ok(vm.state()),
            Some(vm) if order.cancelled => {
                if !vm.sent.is_empty() {
                    vm.guest.hold(false);
                    vm.sent.clear();
                    // The keeper pauses it when its lease doesn't permit that.
                    (vm.power, vm.reason) = (PowerState::On, PowerReason::Unspecified);
                    entries.push(vm.saved(host_uuid));
                    host.dirty = true;
                }
                let vm = host.source(&order.vm_uuid, order.generation)?;
                return Ok(vm.state());
            }
            Some(vm) if vm.sent.is_empty() => {
                return Err(ApiError::failed("The VM runs on this host, and wasn't sent to another one").into());
            }
            Some(_) => {}
            None if order.cancelled => {
                return Err(ApiError::failed("The VM doesn't run on this host any more").into());
            }
            None => {}
        }
        let stop = StopVm { uuid: order.vm_uuid.clone(), forced: true, generation: order.generation };
        self.stop(host_uuid, &stop, entries)
    }
}

impl Simulator {
    pub(super) async fn do_begin_migration(&self, work: &Work, order: BeginMigration) -> Result<Done, Failure> {
        let mute = self.before(work, &["BeginMigration"]).await?;
        let done = work.commit(|_| {
            let mut state = self.alive(work)?;
            let step = state.begin_migration(work.host(), &order)?;
            Ok((outcome::Body::Migration(step), state))
        });
        Ok(done?.mute(mute))
    }

    pub(super) async fn do_prepare_migration(&self, work: &Work, order: PrepareMigration) -> Result<Done, Failure> {
        let mute = self.before(work, &["PrepareMigration", "PrepareForMigrationCommand"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let step = state.prepare_migration(work.host(), order, entries)?;
            Ok((outcome::Body::Migration(step), state))
        });
        Ok(done?.mute(mute))
    }

    pub(super) async fn do_perform_migration(&self, work: &Work, order: PerformMigration) -> Result<Done, Failure> {
        let mute = self.before(work, &["PerformMigration", "MigrateCommand"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let step = state.perform_migration(work.host(), &order, entries)?;
            Ok((outcome::Body::Migration(step), state))
        });
        Ok(done?.mute(mute))
    }

    pub(super) async fn do_finish_migration(&self, work: &Work, order: FinishMigration) -> Result<Done, Failure> {
        let mute = self.before(work, &["FinishMigration"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let step = state.finish_migration(work.host(), order, entries)?;
            Ok((outcome::Body::Migration(step), state))
        });
        Ok(done?.mute(mute))
    }

    pub(super) async fn do_confirm_migration(&self, work: &Work, order: ConfirmMigration) -> Result<Done, Failure> {
        let mute = self.before(work, &["ConfirmMigration"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let body = state.confirm_migration(work.host(), &order, entries)?;
            Ok((outcome::Body::Vm(body), state))
        })?;
        // Nothing when the guest goes on here.
        self.give_back(work.host(), &order.vm_uuid);
        Ok(done.mute(mute))
    }
}
