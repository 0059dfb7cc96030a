//! What is known of the guests: of each what libvirt says, and by which lease it runs.

use super::domain::Described;
use super::process::Process;
use crate::lease::{Beats, Claims, Glance, Holder, Missing, Rules, Standing, Tenure};
use contract_agent::state_entry::Body as Entry;
use contract_agent::{EnsurePool, PowerReason, PowerState, SavedLease, VmState};
use libvirt::DomainRef;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A guest's permit to run, which ends by itself.
pub(crate) struct Permit(Mutex<Tenure>);

impl Permit {
    pub fn new(tenure: Tenure) -> Arc<Permit> {
        Arc::new(Permit(Mutex::new(tenure)))
    }

    pub fn standing(&self, now: Duration) -> Standing {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).standing(now)
    }
}

impl Holder for Permit {
    fn looked(&self, rules: Rules, began: Duration, seen: Glance) -> Missing {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).looked(rules, began, seen)
    }

    fn claimed_again(&self, rules: Rules, now: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).claimed_again(rules, now);
    }
}

/// What somebody is doing with a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is being started: nothing is told of it yet.
    Starting,
    /// What it does by itself is told.
    Settled,
    /// It is being ended by an order: that it ends is no news.
    Ending,
    /// It is being sent to another host, or was: then it goes on here only by an order.
    Moving,
    /// A copy that waits for what is sent here, and when that is whole, for its lease.
    Waiting { whole: bool },
}

impl Phase {
    /// Whether nothing may be done with the guest but move it, or call that off.
    pub fn moves(self) -> bool {
        matches!(self, Phase::Moving | Phase::Waiting { .. })
    }
}

/// A guest that libvirt has, or is about to have.
pub(crate) struct Guest {
    pub domain: DomainRef,
    pub described: Described,
    pub permit: Arc<Permit>,
    pub process: Option<Arc<Process>>,
    pub phase: Phase,
    pub power: PowerState,
    /// Why it isn't on.
    pub reason: PowerReason,
    /// What the keeper is doing to it.
    pub kept: Option<Deed>,
    /// QEMU was stopped by a signal, since libvirt couldn't pause the guest.
    pub frozen: bool,
}

/// What the keeper does to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It has no permit any more.
    Pause,
    /// It has one again.
    Resume,
    /// This epoch counts.
    End(i64),
}

impl Guest {
    /// Whether the keeper has paused it, for want of a permit.
    pub fn is_held(&self) -> bool {
        self.reason == PowerReason::LeaseUnreadable
    }

    pub fn state(&self) -> VmState {
        VmState {
            uuid: self.domain.uuid.to_string(),
            instance_name: self.domain.name.clone(),
            power: self.power.into(),
            generation: self.described.generation,
            vnc: self.described.vnc.clone(),
            reason: self.reason.into(),
            lost_to: 0,
        }
    }
}

/// All guests and what goes with them.
#[derive(Default)]
pub(crate) struct Table {
    pub guests: BTreeMap<String, Guest>,
    /// What is claimed on pools and not given back.
    pub claims: Claims,
    /// Guests that are no more, but whose QEMU isn't gone yet: their claims aren't given back.
    pub leaving: HashMap<String, usize>,
    /// The highest generation that was asked for, of each VM.
    pub generations: HashMap<String, i64>,
    pub pools: BTreeMap<String, EnsurePool>,
    /// Its signs of life on pools.
    pub beats: Beats,
    /// Digest of the last report that was taken.
    pub reported: Vec<u8>,
}

impl Table {
    /// The VMs that reports name.
    pub fn states(&self) -> Vec<VmState> {
        let told = self.guests.values().filter(|guest| guest.phase != Phase::Starting);
        told.map(Guest::state).collect()
    }

    /// The highest generation that is known of a VM.
    pub fn generation(&self, vm: &str) -> i64 {
        let asked = self.generations.get(vm).copied().unwrap_or(0);
        asked.max(self.guests.get(vm).map_or(0, |guest| guest.described.generation))
    }

    /// Whether a claim may be given back.
    pub fn is_idle(&self, vm: &str) -> bool {
        !self.guests.contains_key(vm) && !self.leaving.contains_key(vm)
    }

    /// Notes the generation that an order named.
    pub fn asked(&mut self, vm: &str, generation: i64, host: &str, entries: &mut Vec<Entry>) {
        if generation > self.generations.get(vm).copied().unwrap_or(0) {
            self.generations.insert(vm.to_owned(), generation);
            entries.push(lease_saved(vm, generation, host));
        }
    }
}

pub(crate) fn lease_saved(vm: &str, generation: i64, host: &str) -> Entry {
    Entry::Lease(SavedLease { vm_uuid: vm.to_owned(), generation, host_uuid: host.to_owned() })
}
