//! Routers: wanted states, merged section by section.

use contract_agent::{ApplyRouter, Dhcp, Metadata, RouterSpec, SectionFault};
use std::collections::HashSet;

/// A router as it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Router {
    pub generation: i64,
    pub spec: RouterSpec,
}

impl Router {
    /// Whether a change needs a state that this router hasn't reached: then the whole spec must come.
    pub fn is_behind(&self, change: &ApplyRouter) -> bool {
        self.generation < change.base
    }

    /// Brings the router to a newer state. Older ones are what it has already.
    pub fn apply(&mut self, change: ApplyRouter) {
        if change.generation <= self.generation {
            return;
        }
        self.generation = change.generation;
        let new = change.changes.unwrap_or_default();
        if change.base == 0 {
            self.spec = new;
            return;
        }
        let spec = &mut self.spec;
        self_or_new(&mut spec.interfaces, new.interfaces);
        self_or_new(&mut spec.dns, new.dns);
        self_or_new(&mut spec.nat, new.nat);
        self_or_new(&mut spec.firewall, new.firewall);
        self_or_new(&mut spec.load_balancers, new.load_balancers);
        let gone = remove_leases(spec.dhcp.as_mut(), &change.removed_leases);
        if let Some(metadata) = &mut spec.metadata {
            metadata.vms.retain(|vm| !gone.contains(&vm.ip4));
        }
        if let Some(dhcp) = new.dhcp {
            merge_dhcp(&mut spec.dhcp, dhcp);
        }
        if let Some(metadata) = new.metadata {
            merge_metadata(&mut spec.metadata, metadata);
        }
    }
}

fn self_or_new<T>(section: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *section = new;
    }
}

/// The addresses whose leases went.
fn remove_leases(dhcp: Option<&mut Dhcp>, macs: &[String]) -> HashSet<String> {
    let mut gone = HashSet::new();
    if let Some(dhcp) = dhcp {
        dhcp.leases.retain(|lease| {
            let keep = !macs.contains(&lease.mac);
            if !keep {
                gone.insert(lease.ip4.clone());
            }
            keep
        });
    }
    gone
}

fn merge_dhcp(section: &mut Option<Dhcp>, new: Dhcp) {
    let mut leases = section.take().map(|dhcp| dhcp.leases).unwrap_or_default();
    for lease in new.leases {
        match leases.iter_mut().find(|known| known.mac == lease.mac) {
            Some(known) => *known = lease,
            None => leases.push(lease),
        }
    }
    *section = Some(Dhcp { leases, ..new });
}

fn merge_metadata(section: &mut Option<Metadata>, new: Metadata) {
    let vms = &mut section.get_or_insert_default().vms;
    for vm in new.vms {
        match vms.iter_mut().find(|known| known.ip4 == vm.ip4) {
            Some(known) => *known = vm,
            None => vms.push(vm),
        }
    }
}

/// The sections that a change brings, with the 4.11 commands that would have brought them.
const SECTIONS: &[(&str, &[&str])] = &[
    ("interfaces", &["IpAssocCommand", "PlugNicCommand", "SetupGuestNetworkCommand"]),
    ("dhcp", &["DhcpEntryCommand"]),
    ("dns", &["DnsMasqConfigCommand"]),
    ("nat", &["SetPortForwardingRulesCommand", "SetStaticNatRulesCommand", "SetSourceNatCommand"]),
    ("firewall", &["SetFirewallRulesCommand"]),
    ("load_balancers", &["LoadBalancerConfigCommand"]),
    ("metadata", &["VmDataCommand", "SavePasswordCommand", "SavePasswordToRouterCommand"]),
];

/// Sections of the change that are to fail, as `fails` says of a 4.11 command's name. They are taken out of it.
pub(super) fn take_faulty(change: &mut ApplyRouter, fails: impl Fn(&str) -> bool) -> Vec<SectionFault> {
    let Some(spec) = &mut change.changes else { return Vec::new() };
    let mut faults = Vec::new();
    for (section, commands) in SECTIONS {
        let Some(command) = commands.iter().find(|command| fails(command)) else { continue };
        let was_there = match *section {
            "interfaces" => spec.interfaces.take().is_some(),
            "dhcp" => spec.dhcp.take().is_some(),
            "dns" => spec.dns.take().is_some(),
            "nat" => spec.nat.take().is_some(),
            "firewall" => spec.firewall.take().is_some(),
            "load_balancers" => spec.load_balancers.take().is_some(),
            _ => spec.metadata.take().is_some(),
        };
        if was_there {
            let reason = format!("{command} fails, as the simulator was told");
            faults.push(SectionFault { section: (*section).into(), reason });
        }
    }
    faults
}

/// The 4.11 commands whose delays hold up this change.
pub(super) fn commands(change: &ApplyRouter) -> impl Iterator<Item = &'static str> {
    let spec = change.changes.clone().unwrap_or_default();
    SECTIONS
        .iter()
        .filter(move |(section, _)| match *section {
            "interfaces" => spec.interfaces.is_some(),
            "dhcp" => spec.dhcp.is_some(),
            "dns" => spec.dns.is_some(),
            "nat" => spec.nat.is_some(),
            "firewall" => spec.firewall.is_some(),
            "load_balancers" => spec.load_balancers.is_some(),
            _ => spec.metadata.is_some(),
        })
        .flat_map(|(_, commands)| commands.iter().copied())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use contract_agent::{Firewall, Lease, Nat, VmMetadata};

    fn lease(mac: &str, ip4: &str) -> Lease {
        Lease { mac: mac.into(), ip4: ip4.into(), ..Lease::default() }
    }

    fn change(generation: i64, base: i64, changes: RouterSpec) -> ApplyRouter {
        ApplyRouter { router_uuid: "r".into(), generation, base, changes: Some(changes), removed_leases: Vec::new() }
    }

    #[test]
    fn deltas_merge_and_old_ones_are_ignored() {
        let mut router = Router::default();
        let dhcp = |leases| RouterSpec { dhcp: Some(Dhcp { leases, ..Dhcp::default() }), ..RouterSpec::default() };
        assert!(router.is_behind(&change(2, 1, RouterSpec::default())));
        let mut whole = dhcp(vec![lease("a", "1"), lease("b", "2")]);
        whole.nat = Some(Nat { source_nat_ip: "9".into(), ..Nat::default() });
        whole.metadata = Some(Metadata { vms: vec![VmMetadata { ip4: "1".into(), ..VmMetadata::default() }] });
        router.apply(change(3, 0, whole));
        let mut delta = change(5, 3, dhcp(vec![lease("b", "7"), lease("c", "3")]));
        delta.removed_leases = vec!["a".into()];
        router.apply(delta);
        router.apply(change(4, 3, dhcp(vec![lease("z", "0")])));
        assert_eq!(router.generation, 5);
        assert_eq!(router.spec.dhcp.as_ref().unwrap().leases, [lease("b", "7"), lease("c", "3")]);
        assert!(router.spec.metadata.as_ref().unwrap().vms.is_empty(), "metadata goes with its lease");
        assert_eq!(router.spec.nat.as_ref().unwrap().source_nat_ip, "9");
        router.apply(change(6, 0, RouterSpec::default()));
        assert_eq!(router.spec, RouterSpec::default());
    }

    #[test]
    fn a_bad_section_fails_alone() {
        let mut change = change(
            1,
            0,
            RouterSpec { firewall: Some(Firewall::default()), nat: Some(Nat::default()), ..RouterSpec::default() },
        );
        let faults = take_faulty(&mut change, |command| command == "SetFirewallRulesCommand");
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].section, "firewall");
        assert!(change.changes.as_ref().unwrap().nat.is_some());
        assert!(change.changes.unwrap().firewall.is_none());
    }
}
