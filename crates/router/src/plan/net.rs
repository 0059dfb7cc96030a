//! Interfaces, leases, names.

use crate::values::{self, BroadcastUri, Mac, Refusal};
use contract_agent as agent;
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// A day, in seconds.
const DAY: u32 = 86_400;

/// Which side of the router a NIC is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// The tenant's network.
    Guest,
    /// The outside.
    Public,
}

/// A NIC of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its name in the router's namespace.
    pub name: String,
    /// Its address.
    pub mac: Mac,
    /// Its side.
    pub traffic: Traffic,
    /// Its network.
    pub uri: BroadcastUri,
    /// The host's device that carries it, where the spec names one.
    pub label: Option<String>,
    /// The first is the primary one.
    pub addresses: Vec<Ipv4Net>,
    /// Next hop to everywhere.
    pub gateway: Option<Ipv4Addr>,
    /// In bytes; absent: the bridge's.
    pub mtu: Option<u32>,
    /// Megabits a second, each way; 0: unlimited.
    pub rate_mbps: u64,
}

impl Nic {
    /// The networks that the NIC is in, each once.
    pub fn networks(&self) -> BTreeSet<Ipv4Net> {
        self.addresses.iter().map(Ipv4Net::trunc).collect()
    }
}

/// DHCP on the guests' side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp {
    /// Told to guests; empty: none.
    pub domain: String,
    /// Told to guests.
    pub gateway: Option<Ipv4Addr>,
    /// Told to guests.
    pub dns: Vec<Ipv4Addr>,
    /// Prefix length of the guests' network.
    pub prefix: u8,
    /// How long a lease lasts, in seconds.
    pub seconds: u32,
    /// Who gets what. Nobody else gets anything.
    pub leases: Vec<Lease>,
}

/// A guest's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Of the guest's NIC.
    pub mac: Mac,
    /// What it gets.
    pub ip: Ipv4Addr,
    /// Its name; empty: none.
    pub host: String,
    /// Whether it gets a gateway.
    pub default_network: bool,
    /// Option code and value.
    pub options: Vec<(u8, String)>,
}

/// Names on the guests' side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// This router knows all its names; empty: none.
    pub domain: String,
    /// Who knows the rest.
    pub upstream: Vec<Ipv4Addr>,
    /// Names beside those of the leases.
    pub records: Vec<(String, Ipv4Addr)>,
}

pub(super) fn nics(section: Option<&agent::Interfaces>) -> Result<Vec<Nic>, Refusal> {
    let list = section.map(|s| s.list.as_slice()).unwrap_or_default();
    let nics = list.iter().map(nic).collect::<Result<Vec<_>, _>>()?;
    let (mut names, mut macs, mut addresses) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for nic in &nics {
        if !names.insert(&nic.name) {
            return Err(format!("two interfaces are called {}", nic.name));
        }
        if !macs.insert(nic.mac) {
            return Err(format!("two interfaces have the MAC address {}", nic.mac));
        }
        if let Some(twice) = nic.addresses.iter().find(|a| !addresses.insert(a.addr())) {
            return Err(format!("the address {} is there twice", twice.addr()));
        }
    }
    Ok(nics)
}

fn nic(nic: &agent::Interface) -> Result<Nic, Refusal> {
    let name = values::device("the interface's name", &nic.name)?;
    let traffic = match nic.traffic.as_deref() {
        Some("guest") => Traffic::Guest,
        Some("public") => Traffic::Public,
        None if name.starts_with("guest") => Traffic::Guest,
        None => Traffic::Public,
        Some(other) => return Err(format!("interface {name}: there is no traffic {other:?}")),
    };
    let addresses = nic.addresses.iter().map(|a| values::address("the address", a)).collect::<Result<Vec<_>, _>>()?;
    let gateway = match nic.gateway.as_str() {
        "" => None,
        text => Some(values::ip4("the gateway", text)?),
    };
    if let Some(gateway) = gateway
        && !addresses.iter().any(|a| a.contains(&gateway))
    {
        return Err(format!("interface {name}: its gateway {gateway} is in none of its networks"));
    }
    if let Some(mtu) = nic.mtu
        && !(576..=65_535).contains(&mtu)
    {
        return Err(format!("interface {name}: an MTU of {mtu} bytes can't be (576-65535)"));
    }
    Ok(Nic {
        mac: values::mac("the MAC address", &nic.mac)?,
        traffic,
        uri: BroadcastUri::parse(&nic.broadcast_uri)?,
        label: nic.traffic_label.as_deref().map(|l| values::device("the traffic label", l)).transpose()?,
        addresses,
        gateway,
        mtu: nic.mtu,
        // Beyond that no device is, and no tool counts.
        rate_mbps: nic.rate_mbps.filter(|r| *r < 1_000_000).unwrap_or_default(),
        name,
    })
}

pub(super) fn dhcp(section: &agent::Dhcp) -> Result<Dhcp, Refusal> {
    let netmask = values::ip4("the netmask", &section.netmask)?;
    let prefix = ipnet::ipv4_mask_to_prefix(netmask).map_err(|_| format!("{netmask} is not a netmask"))?;
    let leases = section.leases.iter().map(lease).collect::<Result<Vec<_>, _>>()?;
    let (mut macs, mut ips) = (BTreeSet::new(), BTreeSet::new());
    for lease in &leases {
        if !macs.insert(lease.mac) {
            return Err(format!("two leases for {}", lease.mac));
        }
        if !ips.insert(lease.ip) {
            return Err(format!("two leases of {}", lease.ip));
        }
    }
    let seconds = section.lease_seconds.unwrap_or(DAY);
    if seconds < 120 {
        return Err(format!("leases of {seconds} s are too short (120 s at least)"));
    }
    Ok(Dhcp {
        domain: domain(&section.domain)?,
        gateway: match section.gateway.as_str() {
            "" => None,
            text => Some(values::ip4("the gateway", text)?),
        },
        dns: section.dns.iter().map(|d| values::ip4("the DNS server", d)).collect::<Result<_, _>>()?,
        prefix,
        seconds,
        leases,
    })
}

fn lease(lease: &agent::Lease) -> Result<Lease, Refusal> {
    let option = |o: &agent::DhcpOption| {
        let code = u8::try_from(o.code).ok().filter(|c| (1..=254).contains(c));
        let code = code.ok_or_else(|| format!("{} is not the code of a DHCP option (1-254)", o.code))?;
        Ok((code, values::line("a DHCP option", &o.value)?))
    };
    Ok(Lease {
        mac: values::mac("the lease's MAC address", &lease.mac)?,
        ip: values::ip4("the lease's address", &lease.ip4)?,
        host: match lease.host_name.as_str() {
            "" => String::new(),
            name => values::host_name("the guest's name", name)?,
        },
        default_network: lease.default_network.unwrap_or(true),
        options: lease.options.iter().map(option).collect::<Result<_, Refusal>>()?,
    })
}

pub(super) fn dns(section: &agent::Dns) -> Result<Dns, Refusal> {
    let record = |r: &agent::DnsRecord| {
        Ok((values::dns_name("the record's name", &r.name)?, values::ip4("the record's address", &r.ip4)?))
    };
    Ok(Dns {
        domain: domain(&section.domain)?,
        upstream: section.upstream.iter().map(|d| values::ip4("the DNS server", d)).collect::<Result<_, _>>()?,
        records: section.records.iter().map(record).collect::<Result<_, Refusal>>()?,
    })
}

fn domain(text: &str) -> Result<String, Refusal> {
    if text.is_empty() { Ok(String::new()) } else { values::dns_name("the domain", text) }
}
