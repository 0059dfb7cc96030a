//! The nftables ruleset.
//!
//! Two tables. `arcus` holds every rule and is replaced whole in one transaction; an empty chain in it is named by the digest
//! of its text, so that the kernel itself says which ruleset is in force. `arcus_usage` holds one counter a public address
//! and direction, which a change of rules must not reset.
//!
//! A packet's way: `gate` asks the firewall with the address and port that the sender named, before anything is
//! translated; `translate_in` and `translate_out` translate; `forward` and `input` let through what was translated, what
//! the egress rules allow, and the router's own services; `leave` keeps foreign addresses in.

use crate::digest::digest;
use crate::plan::{Match, Nic, Plan, Protocol, Rule, Traffic};
use crate::values::Ports;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write as _};
use std::net::Ipv4Addr;

/// A compiled ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Input for `nft -f`: one transaction that replaces what there is.
    pub text: String,
    /// Name of the chain that is there when this ruleset is in force.
    pub mark: String,
    /// The counters that are to stay: "in_192.0.2.9", "out_192.0.2.9".
    pub counters: BTreeSet<String>,
}

/// The table with the rules.
pub const TABLE: &str = "arcus";
/// The table with the counters.
pub const USAGE_TABLE: &str = "arcus_usage";

impl Ruleset {
    /// Compiles the rules of a plan. Pure: the same plan gives the same text.
    pub fn new(plan: &Plan) -> Ruleset {
        let mut body = Text::default();
        Rules { plan }.write(&mut body);
        let (usage, counters) = usage(plan);
        let mark = format!("digest_{}", digest([body.0.as_bytes(), usage.as_bytes()]));
        let text = format!(
            "add table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n    chain {mark} {{\n    }}\n{}}}\n{usage}",
            body.0
        );
        Ruleset { text, mark, counters }
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: impl Display) {
        let _ = writeln!(self.0, "        {line}");
    }

    fn chain(&mut self, name: impl Display, hook: &str, fill: impl FnOnce(&mut Text)) {
        let _ = writeln!(self.0, "    chain {name} {{");
        if !hook.is_empty() {
            self.line(hook);
        }
        fill(self);
        self.0.push_str("    }\n");
    }

    fn map(&mut self, name: &str, kind: &str, interval: bool, elements: &[String]) {
        if elements.is_empty() {
            return;
        }
        let _ = writeln!(self.0, "    map {name} {{\n        type {kind}");
        if interval {
            self.line("flags interval");
        }
        let _ = writeln!(
            self.0,
            "        elements = {{\n            {}\n        }}\n    }}",
            elements.join(",\n            ")
        );
    }
}

struct Rules<'a> {
    plan: &'a Plan,
}

impl Rules<'_> {
    fn write(&self, text: &mut Text) {
        self.marks(text);
        self.gate(text);
        self.translate(text);
        self.egress(text);
        self.forward(text);
        self.leave(text);
        self.input(text);
    }

    fn names(&self, traffic: Traffic) -> Option<String> {
        let names: Vec<String> = self.plan.of(traffic).map(|n| format!("\"{}\"", n.name)).collect();
        (!names.is_empty()).then(|| set(&names))
    }

    /// Answers leave by the interface that the connection came in by, and a guest with static NAT by that of its public
    /// address: the routes of interface 2 and higher are in tables of their own.
    fn marks(&self, text: &mut Text) {
        let further: Vec<(u32, &Nic)> = further_publics(self.plan).collect();
        let Some(guests) = self.names(Traffic::Guest).filter(|_| !further.is_empty()) else { return };
        let mut elements = Vec::new();
        for (mark, nic) in &further {
            let own: BTreeSet<Ipv4Addr> = nic.addresses.iter().map(Ipv4Net::addr).collect();
            let statics = self.plan.nat.statics.iter().filter(|(public, _)| own.contains(public));
            elements.extend(statics.map(|(_, guest)| format!("{guest} : {mark}")));
        }
        text.map("mark_of_guest", "ipv4_addr : mark", false, &elements);
        text.chain("remember", "type filter hook prerouting priority mangle - 1; policy accept;", |t| {
            for (mark, nic) in &further {
                t.line(format!("iifname \"{}\" ct state new ct mark set {mark}", nic.name));
            }
            if !elements.is_empty() {
                t.line(format!("iifname {guests} ct state new ct mark set ip saddr map @mark_of_guest"));
            }
            t.line(format!("iifname {guests} ct mark != 0 meta mark set ct mark"));
        });
    }

    fn gate(&self, text: &mut Text) {
        let Some(firewall) = &self.plan.firewall else { return };
        let publics: BTreeSet<Ipv4Addr> = self.plan.public_addresses().collect();
        let open: BTreeMap<_, _> =
            firewall.ingress.iter().filter(|(ip, rules)| publics.contains(ip) && !rules.is_empty()).collect();
        let chain = |ip: &Ipv4Addr| format!("open_{}", ip.to_string().replace('.', "_"));
        for (ip, rules) in &open {
            text.chain(chain(ip), "", |t| {
                for rule in rules.iter() {
                    t.line(rule_line(rule, "accept"));
                }
                t.line("drop");
            });
        }
        text.chain("gate", "type filter hook prerouting priority mangle; policy accept;", |t| {
            t.line("ct state established,related accept");
            if !open.is_empty() {
                let jumps: Vec<String> = open.keys().map(|ip| format!("{ip} : goto {}", chain(ip))).collect();
                t.line(format!("ip daddr vmap {{ {} }}", jumps.join(", ")));
            }
            let shut: Vec<&Ipv4Addr> = publics.iter().filter(|ip| !open.contains_key(ip)).collect();
            if !shut.is_empty() {
                t.line(format!("ip daddr {} drop", set(shut)));
            }
            if let Some(publics) = self.names(Traffic::Public) {
                t.line(format!("iifname {publics} drop"));
            }
        });
    }

    fn translate(&self, text: &mut Text) {
        let nat = &self.plan.nat;
        let (mut kept, mut moved, mut narrow) = (Vec::new(), Vec::new(), Vec::new());
        for f in &nat.forwards {
            let (protocol, public, guest) = (f.protocol.name(), f.public, f.guest);
            if f.ports == f.guest_ports && f.from.is_empty() {
                kept.push(format!("{public} . {protocol} . {} : {guest}", f.ports));
                continue;
            }
            // nft would spread a range over a range; the n-th port is to be the n-th port.
            for (port, to) in (f.ports.first..=f.ports.last).zip(f.guest_ports.first..=f.guest_ports.last) {
                if f.from.is_empty() {
                    moved.push(format!("{public} . {protocol} . {port} : {guest} . {to}"));
                } else {
                    narrow.push(format!(
                        "ip saddr {} ip daddr {public} {protocol} dport {port} dnat to {guest}:{to}",
                        set(&f.from)
                    ));
                }
            }
        }
        let inward: Vec<String> = nat.statics.iter().map(|(public, guest)| format!("{public} : {guest}")).collect();
        let outward: Vec<String> = nat.statics.iter().map(|(public, guest)| format!("{guest} : {public}")).collect();
        text.map("forward_kept", "ipv4_addr . inet_proto . inet_service : ipv4_addr", true, &kept);
        text.map("forward_moved", "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service", false, &moved);
        text.map("static_in", "ipv4_addr : ipv4_addr", false, &inward);
        text.map("static_out", "ipv4_addr : ipv4_addr", false, &outward);
        text.chain("translate_in", "type nat hook prerouting priority dstnat; policy accept;", |t| {
            narrow.iter().for_each(|rule| t.line(rule));
            if !moved.is_empty() {
                t.line("dnat ip to ip daddr . meta l4proto . th dport map @forward_moved");
            }
            if !kept.is_empty() {
                t.line("dnat ip to ip daddr . meta l4proto . th dport map @forward_kept");
            }
            if !inward.is_empty() {
                t.line("dnat ip to ip daddr map @static_in");
            }
        });
        text.chain("translate_out", "type nat hook postrouting priority srcnat; policy accept;", |t| {
            self.translate_out(t)
        });
    }

    fn translate_out(&self, t: &mut Text) {
        for nic in self.plan.of(Traffic::Guest) {
            for own in &nic.addresses {
                // A guest that reaches another by its public address: the answer has to come back here.
                let net = own.trunc();
                t.line(format!(
                    "oifname \"{}\" ip saddr {net} ip daddr {net} ct status dnat snat to {}",
                    nic.name,
                    own.addr()
                ));
            }
        }
        let Some(publics) = self.names(Traffic::Public) else { return };
        if !self.plan.nat.statics.is_empty() {
            t.line(format!("oifname {publics} snat ip to ip saddr map @static_out"));
        }
        let guests: Vec<Ipv4Net> = self.guest_networks();
        if let (Some(source), false) = (self.plan.nat.source, guests.is_empty()) {
            t.line(format!("oifname {publics} ip saddr {} snat to {source}", set(&guests)));
        }
    }

    fn guest_networks(&self) -> Vec<Ipv4Net> {
        Ipv4Net::aggregate(&self.plan.of(Traffic::Guest).flat_map(Nic::networks).collect::<Vec<_>>())
    }

    fn egress(&self, text: &mut Text) {
        text.chain("egress", "", |t| {
            let Some(firewall) = &self.plan.firewall else { return t.line("accept") };
            let (exception, rest) = if firewall.egress.allow { ("drop", "accept") } else { ("accept", "drop") };
            for rule in &firewall.egress.rules {
                t.line(rule_line(rule, exception));
            }
            t.line(rest);
        });
    }

    fn forward(&self, text: &mut Text) {
        text.chain("forward", "type filter hook forward priority filter; policy drop;", |t| {
            // Guests behind a tunnel have a smaller MTU than the outside.
            t.line("tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu");
            t.line("ct state established,related accept");
            t.line("ct state invalid drop");
            let Some(guests) = self.names(Traffic::Guest) else { return };
            t.line(format!("iifname {guests} oifname {guests} ct status dnat accept"));
            if let Some(publics) = self.names(Traffic::Public) {
                t.line(format!("iifname {guests} oifname {publics} goto egress"));
                t.line(format!("iifname {publics} oifname {guests} ct status dnat accept"));
            }
        });
    }

    /// Nothing leaves with an address that isn't this router's: not a connection whose public address went to somebody
    /// else meanwhile, nor a guest's own.
    fn leave(&self, text: &mut Text) {
        let own: Vec<Ipv4Addr> = self.plan.public_addresses().collect();
        let Some(publics) = self.names(Traffic::Public).filter(|_| !own.is_empty()) else { return };
        text.chain("leave", "type filter hook postrouting priority srcnat + 20; policy accept;", |t| {
            t.line(format!("oifname {publics} ip saddr != {} drop", set(&own)));
        });
    }

    fn input(&self, text: &mut Text) {
        let plan = self.plan;
        text.chain("input", "type filter hook input priority filter; policy drop;", |t| {
            t.line("iif \"lo\" accept");
            t.line("ct state established,related accept");
            t.line("ct state invalid drop");
            if let Some(guests) = self.names(Traffic::Guest) {
                t.line(format!("iifname {guests} icmp type echo-request accept"));
                if plan.dhcp.is_some() {
                    t.line(format!("iifname {guests} udp sport 68 udp dport 67 accept"));
                }
                if plan.dns.is_some() {
                    t.line(format!("iifname {guests} meta l4proto {{ tcp, udp }} th dport 53 accept"));
                }
                let own: Vec<Ipv4Addr> =
                    plan.of(Traffic::Guest).flat_map(|n| n.addresses.iter().map(Ipv4Net::addr)).collect();
                if plan.guests.is_some() && !own.is_empty() {
                    t.line(format!("iifname {guests} ip daddr {} tcp dport {{ 80, 8080 }} accept", set(&own)));
                }
            }
            if let Some(publics) = self.names(Traffic::Public) {
                t.line(format!("iifname {publics} icmp type echo-request accept"));
            }
            let (narrow, wide): (Vec<_>, Vec<_>) = plan.balance.rules.iter().partition(|r| !r.from.is_empty());
            for rule in narrow {
                let (ip, port) = rule.public;
                t.line(format!("ip saddr {} ip daddr {ip} tcp dport {port} accept", set(&rule.from)));
            }
            let wide: Vec<String> = wide.iter().map(|r| format!("{} . {}", r.public.0, r.public.1)).collect();
            if !wide.is_empty() {
                t.line(format!("ip daddr . tcp dport {} accept", set(&wide)));
            }
        });
    }
}

/// Public NICs beyond the first, with the number of their mark and routing table.
pub(crate) fn further_publics(plan: &Plan) -> impl Iterator<Item = (u32, &Nic)> {
    plan.of(Traffic::Public).enumerate().skip(1).filter_map(|(i, nic)| Some((u32::try_from(i).ok()? + 1, nic)))
}

fn set<T: Display>(elements: impl IntoIterator<Item = T>) -> String {
    let elements: Vec<String> = elements.into_iter().map(|e| e.to_string()).collect();
    format!("{{ {} }}", elements.join(", "))
}

fn rule_line(rule: &Rule, verdict: &str) -> String {
    let mut line = String::new();
    if !rule.from.is_empty() {
        let _ = write!(line, "ip saddr {} ", set(&rule.from));
    }
    if !rule.to.is_empty() {
        let _ = write!(line, "ip daddr {} ", set(&rule.to));
    }
    line.push_str(&what(rule.what));
    let _ = write!(line, "{verdict} comment \"{}\"", rule.id);
    line
}

fn what(what: Match) -> String {
    let ports = |protocol: Protocol, ports: Ports| format!("{} dport {ports} ", protocol.name());
    match what {
        Match::All => String::new(),
        Match::Ports(protocol, Some(range)) => ports(protocol, range),
        Match::Ports(protocol, None) => format!("meta l4proto {} ", protocol.name()),
        Match::Icmp(None) => "meta l4proto icmp ".into(),
        Match::Icmp(Some((kind, None))) => format!("icmp type {kind} "),
        Match::Icmp(Some((kind, Some(code)))) => format!("icmp type {kind} icmp code {code} "),
    }
}

/// Counters are added where they are missing and otherwise left alone; only the rules that count are written anew.
fn usage(plan: &Plan) -> (String, BTreeSet<String>) {
    let addresses: BTreeSet<Ipv4Addr> = plan.public_addresses().collect();
    let names: Vec<String> = plan.of(Traffic::Public).map(|n| format!("\"{}\"", n.name)).collect();
    let mut text = format!("add table ip {USAGE_TABLE}\n");
    let mut counters = BTreeSet::new();
    let sides =
        [("in", "prerouting", "raw", "iifname", "daddr"), ("out", "postrouting", "srcnat + 10", "oifname", "saddr")];
    for (side, hook, priority, device, address) in sides {
        let _ = writeln!(text, "add chain ip {USAGE_TABLE} {side} {{ type filter hook {hook} priority {priority}; }}");
        let _ = writeln!(text, "flush chain ip {USAGE_TABLE} {side}");
        let own: Vec<(Ipv4Addr, String)> = addresses.iter().map(|ip| (*ip, format!("{side}_{ip}"))).collect();
        if own.is_empty() {
            continue;
        }
        for (_, counter) in &own {
            let _ = writeln!(text, "add counter ip {USAGE_TABLE} {counter}");
        }
        let elements: Vec<String> = own.iter().map(|(ip, counter)| format!("{ip} : \"{counter}\"")).collect();
        let _ = writeln!(
            text,
            "add rule ip {USAGE_TABLE} {side} {device} {} counter name ip {address} map {{ {} }}",
            set(&names),
            elements.join(", ")
        );
        counters.extend(own.into_iter().map(|(_, counter)| counter));
    }
    (text, counters)
}
