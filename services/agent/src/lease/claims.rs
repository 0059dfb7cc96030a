//! What a host has claimed on pools, and how it looks after it.

use super::{Area, Claimed, Glance, Missing, Rules, now};
use std::collections::HashMap;
use std::io;
use std::time::Duration;

/// Looks in a lease time.
const LOOKS: u32 = 4;
/// The longest pause between two looks, however long the lease time.
const LONGEST: Duration = Duration::from_secs(5);
/// The shortest.
const SHORTEST: Duration = Duration::from_millis(10);

/// How long to wait between two rounds of looks, at this lease time.
pub(crate) fn pause(lease: Duration) -> Duration {
    (lease / LOOKS).clamp(SHORTEST, LONGEST)
}

/// Something that runs by a tenure, told of looks at its lease.
pub(crate) trait Holder {
    /// See [`Tenure::looked`](super::Tenure::looked).
    fn looked(&self, rules: Rules, began: Duration, seen: Glance) -> Missing;
    /// See [`Tenure::claimed_again`](super::Tenure::claimed_again).
    fn claimed_again(&self, rules: Rules, now: Duration);
}

/// One look at the lease of a VM that `host` runs in `epoch`. A claim that is gone is made anew.
pub(crate) fn look(area: &Area, host: &str, vm: &str, epoch: i64, holder: &dyn Holder) -> io::Result<()> {
    let began = now();
    let seen = area.glance(vm)?;
    if holder.looked(area.rules(), began, seen) == Missing::Claim {
        tracing::warn!(host, vm, epoch, "the VM's claim is gone from its pool: claiming again");
        if area.claim(vm, epoch, host)? {
            holder.claimed_again(area.rules(), now());
        }
    }
    Ok(())
}

/// The VMs of a pool whose highest claim isn't given back, or that a host has lost and may not know it.
pub(crate) fn held(area: &Area) -> io::Result<Vec<(String, Claimed)>> {
    let mut held = Vec::new();
    for vm in area.vms()? {
        held.extend(area.open(&vm)?.into_iter().map(|claim| (vm.clone(), claim)));
    }
    Ok(held)
}

/// A host's claim to a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    pub pool: String,
    pub epoch: i64,
    /// Orders that are at it.
    taking: usize,
}

/// What a host has claimed and not given back.
#[derive(Debug, Default)]
pub(crate) struct Claims(HashMap<String, Claim>);

impl Claims {
    /// An order is about to claim: until [`Claims::end`] nobody gives the claim back.
    pub fn begin(&mut self, vm: &str, pool: &str, epoch: i64) {
        let claim = self.0.entry(vm.to_owned()).or_default();
        claim.taking += 1;
        if epoch >= claim.epoch {
            (claim.pool, claim.epoch) = (pool.to_owned(), epoch);
        }
    }

    /// The order has ended.
    pub fn end(&mut self, vm: &str) {
        let claim = self.0.entry(vm.to_owned()).or_default();
        claim.taking = claim.taking.saturating_sub(1);
    }

    /// A claim of an earlier run was found on a pool.
    pub fn found(&mut self, vm: String, pool: &str, epoch: i64) {
        self.0.entry(vm).or_insert_with(|| Claim { pool: pool.to_owned(), epoch, taking: 0 });
    }

    /// The claim to a VM, unless an order is at it.
    pub fn idle(&self, vm: &str) -> Option<&Claim> {
        self.0.get(vm).filter(|claim| claim.taking == 0)
    }

    /// The VMs of [`Claims::idle`].
    pub fn all_idle(&self) -> impl Iterator<Item = &String> {
        self.0.iter().filter(|(_, claim)| claim.taking == 0).map(|(vm, _)| vm)
    }

    /// It was given back.
    pub fn remove(&mut self, vm: &str) {
        self.0.remove(vm);
    }
}

impl IntoIterator for Claims {
    type Item = (String, Claim);
    type IntoIter = std::collections::hash_map::IntoIter<String, Claim>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
