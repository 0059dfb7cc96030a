//! The sections of a spec: each is applied, fails and is reported by itself.

use contract_agent::{RouterSpec, SectionFault};

/// A section of a [`RouterSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// NICs, addresses, routes.
    Interfaces,
    /// Leases.
    Dhcp,
    /// Names.
    Dns,
    /// Source NAT, static NAT, port forwarding.
    Nat,
    /// What may pass.
    Firewall,
    /// Load balancing rules.
    LoadBalancers,
    /// User data, metadata, passwords.
    Metadata,
}

impl Section {
    /// All, in the order of their reports.
    pub const ALL: [Section; 7] = [
        Section::Interfaces,
        Section::Dhcp,
        Section::Dns,
        Section::Nat,
        Section::Firewall,
        Section::LoadBalancers,
        Section::Metadata,
    ];

    /// As reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Section::Interfaces => "interfaces",
            Section::Dhcp => "dhcp",
            Section::Dns => "dns",
            Section::Nat => "nat",
            Section::Firewall => "firewall",
            Section::LoadBalancers => "load_balancers",
            Section::Metadata => "metadata",
        }
    }

    /// The report of its failure.
    pub fn fault(self, reason: impl Into<String>) -> SectionFault {
        SectionFault { section: self.name().into(), reason: reason.into(), ..SectionFault::default() }
    }

    /// Puts this section of `from` in place of that of `to`.
    pub fn copy(self, from: &RouterSpec, to: &mut RouterSpec) {
        match self {
            Section::Interfaces => to.interfaces.clone_from(&from.interfaces),
            Section::Dhcp => to.dhcp.clone_from(&from.dhcp),
            Section::Dns => to.dns.clone_from(&from.dns),
            Section::Nat => to.nat.clone_from(&from.nat),
            Section::Firewall => to.firewall.clone_from(&from.firewall),
            Section::LoadBalancers => to.load_balancers.clone_from(&from.load_balancers),
            Section::Metadata => to.metadata.clone_from(&from.metadata),
        }
    }

    /// Whether both specs say the same in this section.
    pub fn same(self, a: &RouterSpec, b: &RouterSpec) -> bool {
        match self {
            Section::Interfaces => a.interfaces == b.interfaces,
            Section::Dhcp => a.dhcp == b.dhcp,
            Section::Dns => a.dns == b.dns,
            Section::Nat => a.nat == b.nat,
            Section::Firewall => a.firewall == b.firewall,
            Section::LoadBalancers => a.load_balancers == b.load_balancers,
            Section::Metadata => a.metadata == b.metadata,
        }
    }
}
