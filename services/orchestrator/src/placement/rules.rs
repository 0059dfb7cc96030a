//! What binds a VM to hosts, or keeps it off them, beside what it takes: affinity groups and dedications.

use super::shortage::Rejection;
use crate::store::placement::HostRow;
use std::collections::HashSet;

/// The rules of one VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Hosts with VMs of a group whose members stay apart.
    pub apart: HashSet<i64>,
    /// Hosts with VMs of groups whose members stay together: it must be on each of them, so more than one are none.
    pub together: Vec<i64>,
    /// Groups of dedicated resources: only there; none: only where nothing is dedicated.
    pub dedicated: Vec<i64>,
    /// The group of the VM's zone, when that is dedicated, to its owner.
    pub zone: Option<i64>,
    /// The names of its groups, for texts.
    pub names: Vec<String>,
}

impl Rules {
    /// Why a host is out of the question; none: it isn't.
    pub fn refusal(&self, host: &HostRow) -> Option<Rejection> {
        self.parting(host.id).or_else(|| self.keeping(host))
    }

    /// Why the VM's peers forbid a host.
    pub fn parting(&self, host: i64) -> Option<Rejection> {
        if self.apart.contains(&host) {
            Some(Rejection::Apart)
        } else if self.together.iter().any(|with| *with != host) {
            Some(Rejection::Together)
        } else {
            None
        }
    }

    /// Why dedication forbids a host. The narrowest of host, cluster and pod counts; of the zone, only who asks for it.
    pub fn keeping(&self, host: &HostRow) -> Option<Rejection> {
        match (host.dedicated_to.or(host.zone_dedicated_to), self.dedicated.is_empty()) {
            (_, true) if host.dedicated_to.is_some() => Some(Rejection::Dedicated),
            (_, true) => None,
            (Some(group), false) if self.dedicated.contains(&group) => None,
            (_, false) => Some(Rejection::NotDedicated),
        }
    }

    /// Which parts of the index are worth a look: hosts that are dedicated to one group, or (none) to nobody.
    pub(super) fn parts(&self) -> Vec<Option<i64>> {
        let mut parts: Vec<Option<i64>> = self.dedicated.iter().copied().map(Some).collect();
        // Hosts of a dedicated zone that aren't dedicated more narrowly.
        if parts.is_empty() || self.zone.is_some_and(|zone| self.dedicated.contains(&zone)) {
            parts.push(None);
        }
        parts
    }

    /// Appended to what is wanted: whom it minds.
    pub(super) fn words(&self) -> String {
        match self.names.is_empty() {
            true => String::new(),
            false => format!(", by the rules of its affinity groups {}", self.names.join(", ")),
        }
    }
}
