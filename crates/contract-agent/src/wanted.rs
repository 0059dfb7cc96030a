//! What the control plane wants of a router: wholes and deltas, merged.

use crate::{ApplyRouter, RouterSpec};
use std::collections::BTreeSet;

/// The newest wanted state that a host was told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Rises with every change.
    pub generation: i64,
    /// The whole spec.
    pub spec: RouterSpec,
}

impl Wanted {
    /// Whether a change builds on a state that this host wasn't told: then the whole spec must come.
    pub fn is_behind(&self, change: &ApplyRouter) -> bool {
        self.generation < change.base
    }

    /// Takes a change in. Older ones are in it already.
    pub fn merge(&mut self, change: ApplyRouter) {
        if change.generation <= self.generation {
            return;
        }
        self.generation = change.generation;
        let new = change.changes.unwrap_or_default();
        if change.base == 0 {
            self.spec = new;
            return;
        }
        self.remove_leases(&change.removed_leases);
        let spec = &mut self.spec;
        replace(&mut spec.interfaces, new.interfaces);
        replace(&mut spec.dns, new.dns);
        replace(&mut spec.nat, new.nat);
        replace(&mut spec.firewall, new.firewall);
        replace(&mut spec.load_balancers, new.load_balancers);
        if let Some(mut dhcp) = new.dhcp {
            let known = spec.dhcp.take().map(|d| d.leases).unwrap_or_default();
            let changed: BTreeSet<&str> = dhcp.leases.iter().map(|l| l.mac.as_str()).collect();
            let mut leases: Vec<_> = known.into_iter().filter(|l| !changed.contains(l.mac.as_str())).collect();
            leases.append(&mut dhcp.leases);
            dhcp.leases = leases;
            spec.dhcp = Some(dhcp);
        }
        if let Some(mut metadata) = new.metadata {
            let known = spec.metadata.take().map(|m| m.vms).unwrap_or_default();
            let changed: BTreeSet<&str> = metadata.vms.iter().map(|v| v.ip4.as_str()).collect();
            let mut vms: Vec<_> = known.into_iter().filter(|v| !changed.contains(v.ip4.as_str())).collect();
            vms.append(&mut metadata.vms);
            metadata.vms = vms;
            spec.metadata = Some(metadata);
        }
    }

    /// Metadata goes with its lease.
    fn remove_leases(&mut self, macs: &[String]) {
        let mut gone = BTreeSet::new();
        if let Some(dhcp) = &mut self.spec.dhcp {
            dhcp.leases.retain(|lease| {
                let keep = !macs.contains(&lease.mac);
                if !keep {
                    gone.insert(lease.ip4.clone());
                }
                keep
            });
        }
        if let Some(metadata) = &mut self.spec.metadata {
            metadata.vms.retain(|vm| !gone.contains(&vm.ip4));
        }
    }
}

fn replace<T>(section: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *section = new;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;
    use crate::{Dhcp, Lease, Metadata, Nat, VmMetadata};

    fn lease(mac: &str, ip4: &str) -> Lease {
        Lease { mac: mac.into(), ip4: ip4.into(), ..Lease::default() }
    }

    #[test]
    fn deltas_merge_and_old_ones_are_ignored() {
        let dhcp = |leases| RouterSpec { dhcp: Some(Dhcp { leases, ..Dhcp::default() }), ..RouterSpec::default() };
        let change = |generation, base, changes| ApplyRouter {
            generation,
            base,
            changes: Some(changes),
            ..ApplyRouter::default()
        };
        let mut wanted = Wanted::default();
        assert!(wanted.is_behind(&change(2, 1, RouterSpec::default())));
        let mut whole = dhcp(vec![lease("a", "1"), lease("b", "2")]);
        whole.nat = Some(Nat { source_nat_ip: "9".into(), ..Nat::default() });
        whole.metadata = Some(Metadata { vms: vec![VmMetadata { ip4: "1".into(), ..VmMetadata::default() }] });
        wanted.merge(change(3, 0, whole));
        let mut delta = change(5, 3, dhcp(vec![lease("b", "7"), lease("c", "3")]));
        delta.removed_leases = vec!["a".into()];
        wanted.merge(delta);
        wanted.merge(change(4, 3, dhcp(vec![lease("z", "0")])));
        assert_eq!(wanted.generation, 5);
        assert_eq!(wanted.spec.dhcp.as_ref().unwrap().leases, [lease("b", "7"), lease("c", "3")]);
        assert!(wanted.spec.metadata.as_ref().unwrap().vms.is_empty(), "metadata goes with its lease");
        assert_eq!(wanted.spec.nat.as_ref().unwrap().source_nat_ip, "9");
        wanted.merge(change(6, 0, RouterSpec::default()));
        assert_eq!(wanted.spec, RouterSpec::default());
    }
}
