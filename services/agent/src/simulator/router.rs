//! Routers: which sections of a change fail or are slow, as the simulator was told.

use contract_agent::{ApplyRouter, SectionFault};

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
            faults.push(SectionFault { section: (*section).into(), reason, ..SectionFault::default() });
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
    use contract_agent::{Firewall, Nat, RouterSpec};

    fn change(generation: i64, base: i64, changes: RouterSpec) -> ApplyRouter {
        ApplyRouter { router_uuid: "r".into(), generation, base, changes: Some(changes), removed_leases: Vec::new() }
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
