//! A spec as checked values, section by section.

mod balance;
mod guests;
mod net;
mod rules;

pub use balance::{Algorithm, Balance, Balancer, CookieMode, Stick};
pub use guests::{Guest, Guests};
pub use net::{Dhcp, Dns, Lease, Nic, Traffic};
pub use rules::{Egress, Firewall, Forward, Match, Nat, Protocol, Rule};

use crate::section::Section;
use contract_agent::{RouterSpec, SectionFault};
use std::net::Ipv4Addr;

/// A whole spec as checked values. A section that a spec lacks is a service that the router doesn't have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// By the spec's order.
    pub nics: Vec<Nic>,
    /// Addresses for guests.
    pub dhcp: Option<Dhcp>,
    /// Names for guests.
    pub dns: Option<Dns>,
    /// What is translated.
    pub nat: Nat,
    /// What may pass; absent: everything that is translated.
    pub firewall: Option<Firewall>,
    /// What is balanced.
    pub balance: Balance,
    /// What guests are told about themselves; absent: no such server.
    pub guests: Option<Guests>,
}

impl Plan {
    /// Checks every section.
    ///
    /// # Errors
    /// The sections that can't be, with the reason.
    pub fn new(spec: &RouterSpec) -> Result<Plan, Vec<SectionFault>> {
        let mut faults = Vec::new();
        let mut plan = Plan::default();
        for section in Section::ALL {
            if let Err(reason) = plan.fill(section, spec) {
                faults.push(section.fault(reason));
            }
        }
        if faults.is_empty() { Ok(plan) } else { Err(faults) }
    }

    fn fill(&mut self, section: Section, spec: &RouterSpec) -> Result<(), String> {
        match section {
            Section::Interfaces => self.nics = net::nics(spec.interfaces.as_ref())?,
            Section::Dhcp => self.dhcp = spec.dhcp.as_ref().map(net::dhcp).transpose()?,
            Section::Dns => self.dns = spec.dns.as_ref().map(net::dns).transpose()?,
            Section::Nat => self.nat = spec.nat.as_ref().map(rules::nat).transpose()?.unwrap_or_default(),
            Section::Firewall => self.firewall = spec.firewall.as_ref().map(rules::firewall).transpose()?,
            Section::LoadBalancers => {
                self.balance = spec.load_balancers.as_ref().map(balance::balance).transpose()?.unwrap_or_default();
            }
            Section::Metadata => self.guests = spec.metadata.as_ref().map(guests::guests).transpose()?,
        }
        Ok(())
    }

    /// Checks one section by itself.
    ///
    /// # Errors
    /// Why it can't be.
    pub fn check(section: Section, spec: &RouterSpec) -> Result<(), String> {
        Plan::default().fill(section, spec)
    }

    /// The NICs of a kind of traffic.
    pub fn of(&self, traffic: Traffic) -> impl Iterator<Item = &Nic> {
        self.nics.iter().filter(move |n| n.traffic == traffic)
    }

    /// Every address that the outside knows this router by.
    pub fn public_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.of(Traffic::Public).flat_map(|n| n.addresses.iter().map(|a| a.addr()))
    }
}
