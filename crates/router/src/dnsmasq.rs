//! The configuration of dnsmasq: one process for leases and names.

use crate::digest::digest;
use crate::layout::Layout;
use crate::plan::{Dhcp, Lease, Plan, Traffic};
use ipnet::Ipv4Net;
use std::fmt::{Display, Write as _};
use std::net::Ipv4Addr;

/// What dnsmasq is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dnsmasq {
    /// Its configuration: read at its start only.
    pub conf: String,
    /// Who gets which address (`dhcp-hostsfile`). This and what follows is read again on SIGHUP.
    pub leases: String,
    /// What they are told beside it (`dhcp-optsfile`).
    pub options: String,
    /// Names (`addn-hosts`).
    pub names: String,
    /// Digest of `conf`.
    pub conf_digest: String,
    /// Digest of the rest.
    pub data_digest: String,
}

impl Dnsmasq {
    /// Compiles leases and names of a plan; `None` when the router has neither service, or no guests' side.
    pub fn new(plan: &Plan, layout: &Layout) -> Option<Dnsmasq> {
        if (plan.dhcp.is_none() && plan.dns.is_none()) || plan.of(Traffic::Guest).next().is_none() {
            return None;
        }
        let conf = conf(plan, layout);
        let (leases, options) = plan.dhcp.as_ref().map(|d| (guests(d), options(plan, d))).unwrap_or_default();
        let names = plan.dns.as_ref().map(|_| names(plan)).unwrap_or_default();
        Some(Dnsmasq {
            conf_digest: digest([conf.as_bytes()]),
            data_digest: digest([leases.as_bytes(), options.as_bytes(), names.as_bytes()]),
            conf,
            leases,
            options,
            names,
        })
    }
}

fn conf(plan: &Plan, layout: &Layout) -> String {
    let mut conf = String::from("# Written by Arcus; changes are lost.\n");
    let mut line = |text: String| {
        conf.push_str(&text);
        conf.push('\n');
    };
    line(format!("pid-file={}", layout.dnsmasq_pid().display()));
    for nic in plan.of(Traffic::Guest) {
        line(format!("interface={}", nic.name));
    }
    // Listens on addresses as they come and go, and on nothing else.
    line("bind-dynamic\nno-resolv\nno-hosts".into());
    match &plan.dns {
        Some(dns) => {
            line(format!(
                "domain-needed\nbogus-priv\ncache-size=1000\naddn-hosts={}",
                layout.dnsmasq_names().display()
            ));
            if !dns.domain.is_empty() {
                line(format!("domain={0}\nlocal=/{0}/", dns.domain));
            }
            dns.upstream.iter().for_each(|server| line(format!("server={server}")));
        }
        None => line("port=0".into()),
    }
    let Some(dhcp) = &plan.dhcp else { return conf };
    for net in plan.of(Traffic::Guest).flat_map(|n| n.networks()) {
        line(format!("dhcp-range={},static,{},{}", net.network(), net.netmask(), dhcp.seconds));
    }
    // Only known guests get anything; dnsmasq's own limit is 1,000 leases.
    line("dhcp-ignore=tag:!known\ndhcp-authoritative\ndhcp-no-override\ndhcp-lease-max=70000".into());
    line(format!("dhcp-hostsfile={}", layout.dnsmasq_leases().display()));
    line(format!("dhcp-optsfile={}", layout.dnsmasq_options().display()));
    line(format!("dhcp-leasefile={}", layout.dnsmasq_given().display()));
    conf
}

/// The tag of a guest that has options of its own.
fn tag(lease: &Lease) -> String {
    format!("m{}", lease.mac.to_string().replace(':', ""))
}

fn guests(dhcp: &Dhcp) -> String {
    let mut text = String::new();
    for lease in &dhcp.leases {
        let _ = write!(text, "{}", lease.mac);
        if !lease.default_network {
            text.push_str(",set:aside");
        }
        if !lease.options.is_empty() {
            let _ = write!(text, ",set:{}", tag(lease));
        }
        let _ = write!(text, ",{}", lease.ip);
        if !lease.host.is_empty() {
            let _ = write!(text, ",{}", lease.host);
        }
        let _ = writeln!(text, ",{}", dhcp.seconds);
    }
    text
}

fn options(plan: &Plan, dhcp: &Dhcp) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn Display| {
        let value = value.to_string();
        // An option without a value isn't sent; without its line dnsmasq names itself.
        let _ = if value.is_empty() { writeln!(text, "{name}") } else { writeln!(text, "{name},{value}") };
    };
    line("tag:!aside,option:router", &dhcp.gateway.map(|g| g.to_string()).unwrap_or_default());
    line("tag:aside,option:router", &"");
    let servers: Vec<String> = dhcp.dns.iter().map(Ipv4Addr::to_string).collect();
    line("option:dns-server", &servers.join(","));
    if !dhcp.domain.is_empty() {
        line("option:domain-name", &dhcp.domain);
    }
    if let Some(mtu) = plan.of(Traffic::Guest).find_map(|n| n.mtu) {
        line("option:mtu", &mtu);
    }
    for lease in &dhcp.leases {
        for (code, value) in &lease.options {
            line(&format!("tag:{},{code}", tag(lease)), value);
        }
    }
    text
}

fn names(plan: &Plan) -> String {
    let domain = plan.dns.as_ref().map(|d| d.domain.as_str()).unwrap_or_default();
    let mut text = String::new();
    let mut name = |ip: Ipv4Addr, host: &str| {
        let _ = if domain.is_empty() {
            writeln!(text, "{ip} {host}")
        } else {
            writeln!(text, "{ip} {host}.{domain} {host}")
        };
    };
    // Guests look for their metadata at this name.
    let own = plan.of(Traffic::Guest).filter_map(|n| n.addresses.first().map(Ipv4Net::addr));
    own.for_each(|ip| name(ip, "data-server"));
    for lease in plan.dhcp.iter().flat_map(|d| &d.leases).filter(|l| !l.host.is_empty()) {
        name(lease.ip, &lease.host);
    }
    for (host, ip) in plan.dns.iter().flat_map(|d| &d.records) {
        name(*ip, host);
    }
    text
}
