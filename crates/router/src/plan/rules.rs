//! What is translated, and what may pass.

use crate::values::{self, Ports, Refusal};
use contract_agent as agent;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Ports of ranges that have to be written one by one, at most in one router.
const MOST_SHIFTED: u32 = 20_000;

/// Translations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// What guests are seen as outside.
    pub source: Option<Ipv4Addr>,
    /// Public and guest address.
    pub statics: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Port forwarding.
    pub forwards: Vec<Forward>,
}

/// Ports of a public address that are a guest's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The rule.
    pub id: String,
    /// Where it is reached.
    pub public: Ipv4Addr,
    /// Of the ports.
    pub protocol: Protocol,
    /// At the public address.
    pub ports: Ports,
    /// Who gets it.
    pub guest: Ipv4Addr,
    /// At the guest, as many.
    pub guest_ports: Ports,
    /// From where; empty: everywhere.
    pub from: Vec<Ipv4Net>,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As nftables calls it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// What may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firewall {
    /// What reaches a public address; an address that isn't there is reached by nothing.
    pub ingress: BTreeMap<Ipv4Addr, Vec<Rule>>,
    /// What guests send.
    pub egress: Egress,
}

/// What guests may send to the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// True: everything but what the rules name. False: nothing but that.
    pub allow: bool,
    /// The exceptions.
    pub rules: Vec<Rule>,
}

/// Which packets a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The rule.
    pub id: String,
    /// Kind of packet.
    pub what: Match,
    /// From where; empty: everywhere.
    pub from: Vec<Ipv4Net>,
    /// To where (egress); empty: everywhere.
    pub to: Vec<Ipv4Net>,
}

/// A kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Every packet.
    All,
    /// Of a protocol; without ports all of it.
    Ports(Protocol, Option<Ports>),
    /// ICMP; without type all of it, without code all of the type.
    Icmp(Option<(u8, Option<u8>)>),
}

pub(super) fn nat(section: &agent::Nat) -> Result<Nat, Refusal> {
    let statics = section
        .static_nats
        .iter()
        .map(|s| {
            Ok((values::ip4("the public address", &s.public_ip)?, values::ip4("the guest's address", &s.guest_ip)?))
        })
        .collect::<Result<Vec<_>, Refusal>>()?;
    let (mut publics, mut guests) = (BTreeSet::new(), BTreeSet::new());
    for (public, guest) in &statics {
        if !publics.insert(*public) {
            return Err(format!("{public} is translated to two guests"));
        }
        if !guests.insert(*guest) {
            return Err(format!("guest {guest} is translated to two public addresses"));
        }
    }
    let forwards = section.forwards.iter().map(forward).collect::<Result<Vec<_>, _>>()?;
    distinct(&forwards, &publics)?;
    Ok(Nat {
        source: match section.source_nat_ip.as_str() {
            "" => None,
            text => Some(values::ip4("the source NAT address", text)?),
        },
        statics,
        forwards,
    })
}

/// No port is forwarded twice; an address with static NAT has no forwarded ports.
fn distinct(forwards: &[Forward], statics: &BTreeSet<Ipv4Addr>) -> Result<(), Refusal> {
    let mut sorted: Vec<&Forward> = forwards.iter().collect();
    sorted.sort_by_key(|f| (f.public, f.protocol, f.ports));
    for pair in sorted.windows(2) {
        if let [a, b] = pair
            && (a.public, a.protocol) == (b.public, b.protocol)
            && a.ports.overlaps(b.ports)
        {
            return Err(format!(
                "port forwarding rules {} and {} both want port {} of {}",
                a.id, b.id, b.ports, a.public
            ));
        }
    }
    if let Some(both) = forwards.iter().find(|f| statics.contains(&f.public)) {
        return Err(format!("{} has static NAT and the port forwarding rule {}", both.public, both.id));
    }
    let shifted: u32 = forwards.iter().filter(|f| f.ports != f.guest_ports).map(|f| f.ports.count()).sum();
    if shifted > MOST_SHIFTED {
        return Err(format!("{shifted} ports are forwarded to other ports: {MOST_SHIFTED} are allowed"));
    }
    Ok(())
}

fn forward(rule: &agent::PortForward) -> Result<Forward, Refusal> {
    let id = values::id("the rule's id", &rule.id)?;
    let ports = values::ports(&format!("rule {id}: the public port"), rule.public_start, rule.public_end)?;
    let guest_ports = values::ports(&format!("rule {id}: the guest's port"), rule.guest_start, rule.guest_end)?;
    if ports.count() != guest_ports.count() {
        return Err(format!("rule {id}: {ports} and {guest_ports} aren't equally many ports"));
    }
    Ok(Forward {
        public: values::ip4("the public address", &rule.public_ip)?,
        protocol: protocol(&rule.protocol)
            .ok_or_else(|| format!("rule {id}: {:?} can't be forwarded", rule.protocol))?,
        ports,
        guest: values::ip4("the guest's address", &rule.guest_ip)?,
        guest_ports,
        from: everywhere_is_none(values::cidrs("the source", &rule.cidrs)?),
        id,
    })
}

pub(super) fn protocol(text: &str) -> Option<Protocol> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" | "6" => Some(Protocol::Tcp),
        "udp" | "17" => Some(Protocol::Udp),
        _ => None,
    }
}

pub(super) fn firewall(section: &agent::Firewall) -> Result<Firewall, Refusal> {
    let mut ingress: BTreeMap<Ipv4Addr, Vec<Rule>> = BTreeMap::new();
    for r in &section.ingress {
        ingress.entry(values::ip4("the public address", &r.public_ip)?).or_default().push(rule(r)?);
    }
    let rules = section.egress.iter().map(rule).collect::<Result<_, _>>()?;
    Ok(Firewall { ingress, egress: Egress { allow: section.egress_default_allow, rules } })
}

fn rule(rule: &agent::FirewallRule) -> Result<Rule, Refusal> {
    let id = values::id("the rule's id", &rule.id)?;
    let what = match rule.protocol.to_ascii_lowercase().as_str() {
        "all" | "" => Match::All,
        "icmp" | "1" => Match::Icmp(icmp(rule).map_err(|r| format!("rule {id}: {r}"))?),
        other => {
            let protocol = protocol(other).ok_or_else(|| format!("rule {id}: there is no protocol {other:?}"))?;
            Match::Ports(protocol, rule_ports(rule, &id)?)
        }
    };
    Ok(Rule {
        what,
        from: everywhere_is_none(values::cidrs("the source", &rule.cidrs)?),
        to: everywhere_is_none(values::cidrs("the destination", &rule.dest_cidrs)?),
        id,
    })
}

fn rule_ports(rule: &agent::FirewallRule, id: &str) -> Result<Option<Ports>, Refusal> {
    match (rule.start_port, rule.end_port) {
        (None, None) => Ok(None),
        (Some(start), end) => values::ports(&format!("rule {id}: the port"), start, end.unwrap_or(start)).map(Some),
        (None, Some(_)) => Err(format!("rule {id} has an end port and no start port")),
    }
}

/// -1, as 4.11 writes it, is any.
fn icmp(rule: &agent::FirewallRule) -> Result<Option<(u8, Option<u8>)>, Refusal> {
    let read = |what: &str, value: Option<i32>| match value {
        None | Some(-1) => Ok(None),
        Some(v) => u8::try_from(v).map(Some).map_err(|_| format!("{v} is not an ICMP {what} (0-255)")),
    };
    match (read("type", rule.icmp_type)?, read("code", rule.icmp_code)?) {
        (Some(kind), code) => Ok(Some((kind, code))),
        (None, None) => Ok(None),
        (None, Some(_)) => Err("an ICMP code without a type".into()),
    }
}

/// A condition that everything meets is no condition.
fn everywhere_is_none(nets: Vec<Ipv4Net>) -> Vec<Ipv4Net> {
    if nets.iter().any(|n| n.prefix_len() == 0) { Vec::new() } else { nets }
}
