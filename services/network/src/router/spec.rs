//! From a snapshot to what the host is told. Pure.

use crate::address::uri_of;
use crate::store::routers::{Lease, Snapshot};
use contract_agent as agent;
use std::collections::HashMap;

/// What a spec needs beside the snapshot: settings of the network that change with `spec_generation` only.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// "vlan://77" of the guest network.
    pub guest_uri: String,
    /// Prefix length of the guest network.
    pub guest_prefix: u8,
    /// Gateway of the guests.
    pub gateway: String,
    /// Netmask of the guests.
    pub netmask: String,
    /// DNS domain.
    pub domain: String,
    /// DNS servers of the zone.
    pub dns: Vec<String>,
    /// Tag of the public network.
    pub public_vlan: Option<String>,
    /// Gateway of the public network.
    pub public_gateway: Option<String>,
    /// Prefix length of the public network.
    pub public_prefix: u8,
    /// Whether guests may send without a rule.
    pub egress_default_allow: bool,
    /// Services of the network.
    pub services: Vec<String>,
}

impl Setting {
    fn has(&self, service: &str) -> bool {
        self.services.iter().any(|s| s == service)
    }
}

/// Everything that the router is to be.
pub fn whole(s: &Snapshot, setting: &Setting) -> agent::ApplyRouter {
    let router = &s.router;
    let spec = agent::RouterSpec {
        interfaces: Some(agent::Interfaces { list: interfaces(s, setting) }),
        dhcp: setting.has("Dhcp").then(|| dhcp(setting, router.guest_ip.as_deref(), &s.leases)),
        dns: setting.has("Dns").then(|| agent::Dns {
            domain: setting.domain.clone(),
            upstream: setting.dns.clone(),
            ..agent::Dns::default()
        }),
        nat: setting.has("SourceNat").then(|| agent::Nat {
            source_nat_ip: router.public_ip.clone().unwrap_or_default(),
            ..agent::Nat::default()
        }),
        firewall: setting.has("Firewall").then(|| agent::Firewall {
            egress_default_allow: setting.egress_default_allow,
            ..agent::Firewall::default()
        }),
        load_balancers: setting.has("Lb").then(agent::LoadBalancers::default),
        metadata: setting.has("UserData").then(|| metadata(&s.leases)),
    };
    agent::ApplyRouter {
        router_uuid: router.uuid.clone(),
        generation: router.generation,
        base: 0,
        changes: Some(spec),
        removed_leases: Vec::new(),
    }
}

/// What changed since `base`, which the host is known to have.
pub fn delta(s: &Snapshot, setting: &Setting, base: i64) -> agent::ApplyRouter {
    let (gone, living): (Vec<Lease>, Vec<Lease>) = s.leases.iter().cloned().partition(|l| l.removed);
    let changed = !living.is_empty();
    let spec = agent::RouterSpec {
        dhcp: (changed && setting.has("Dhcp")).then(|| dhcp(setting, s.router.guest_ip.as_deref(), &living)),
        metadata: (changed && setting.has("UserData")).then(|| metadata(&living)),
        ..agent::RouterSpec::default()
    };
    agent::ApplyRouter {
        router_uuid: s.router.uuid.clone(),
        generation: s.router.generation,
        base,
        changes: Some(spec),
        removed_leases: gone.into_iter().map(|l| l.mac).collect(),
    }
}

fn interfaces(s: &Snapshot, setting: &Setting) -> Vec<agent::Interface> {
    let router = &s.router;
    let mut list = Vec::new();
    if let (Some(ip), Some(mac)) = (&router.guest_ip, &router.guest_mac) {
        list.push(agent::Interface {
            name: "guest".into(),
            mac: mac.clone(),
            broadcast_uri: setting.guest_uri.clone(),
            addresses: vec![format!("{ip}/{}", setting.guest_prefix)],
            gateway: String::new(),
            ..agent::Interface::default()
        });
    }
    if let (Some(ip), Some(mac)) = (&router.public_ip, &router.public_mac) {
        let mut addresses = vec![format!("{ip}/{}", setting.public_prefix)];
        let mut others: Vec<&String> = s.public_ips.iter().filter(|other| *other != ip).collect();
        others.sort();
        addresses.extend(others.into_iter().map(|other| format!("{other}/{}", setting.public_prefix)));
        list.push(agent::Interface {
            name: "public".into(),
            mac: mac.clone(),
            broadcast_uri: uri_of("vlan", setting.public_vlan.as_deref().unwrap_or("untagged")),
            addresses,
            gateway: setting.public_gateway.clone().unwrap_or_default(),
            ..agent::Interface::default()
        });
    }
    list
}

fn dhcp(setting: &Setting, router_ip: Option<&str>, leases: &[Lease]) -> agent::Dhcp {
    // Guests ask the router, which asks the zone's servers; without a DNS service they ask those themselves.
    let dns = match router_ip {
        Some(ip) if setting.has("Dns") => vec![ip.to_owned()],
        _ => setting.dns.clone(),
    };
    agent::Dhcp {
        domain: setting.domain.clone(),
        gateway: setting.gateway.clone(),
        netmask: setting.netmask.clone(),
        dns,
        leases: leases
            .iter()
            .map(|l| agent::Lease {
                mac: l.mac.clone(),
                ip4: l.ip.clone(),
                host_name: l.host_name.clone(),
                ..agent::Lease::default()
            })
            .collect(),
        ..agent::Dhcp::default()
    }
}

fn metadata(leases: &[Lease]) -> agent::Metadata {
    let vms = leases
        .iter()
        .map(|l| agent::VmMetadata {
            ip4: l.ip.clone(),
            entries: HashMap::from([
                ("meta-data/instance-id".to_owned(), l.vm_uuid.clone()),
                ("meta-data/vm-id".to_owned(), l.vm_id.to_string()),
                ("meta-data/local-hostname".to_owned(), l.host_name.clone()),
                ("meta-data/local-ipv4".to_owned(), l.ip.clone()),
            ]),
            ..agent::VmMetadata::default()
        })
        .collect();
    agent::Metadata { vms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::routers::Router;
    use model::Owner;

    fn snapshot(leases: Vec<Lease>) -> Snapshot {
        Snapshot {
            router: Router {
                id: 1,
                uuid: "r".into(),
                name: "r-1-VM".into(),
                network_id: 1,
                zone_id: 1,
                pod_id: None,
                cluster_id: None,
                host_id: Some(1),
                state: "Running".into(),
                guest_ip: Some("10.1.1.1".into()),
                guest_mac: Some("02:00:00:00:00:01".into()),
                public_ip: Some("192.168.0.9".into()),
                public_ip_id: Some(9),
                public_mac: Some("02:00:00:00:00:02".into()),
                generation: 7,
                spec_generation: 3,
                applied: 5,
                epoch: 1,
                owner: Owner { account_id: 2, domain_id: 1, domain_path: "/1/".into() },
                created: 0,
            },
            leases,
            public_ips: vec!["192.168.0.20".into(), "192.168.0.9".into()],
        }
    }

    fn lease(n: u8, removed: bool) -> Lease {
        Lease {
            mac: format!("02:00:00:00:01:{n:02x}"),
            ip: format!("10.1.1.{n}"),
            host_name: format!("vm{n}"),
            vm_uuid: format!("uuid-{n}"),
            vm_id: i64::from(n),
            removed,
        }
    }

    fn setting() -> Setting {
        Setting {
            guest_uri: "vlan://77".into(),
            guest_prefix: 24,
            public_prefix: 20,
            services: ["Dhcp", "Dns", "SourceNat", "Firewall", "UserData"].map(str::to_owned).to_vec(),
            ..Setting::default()
        }
    }

    #[test]
    fn a_whole_spec_has_every_section_of_its_services() {
        let command = whole(&snapshot(vec![lease(5, false)]), &setting());
        assert_eq!((command.generation, command.base), (7, 0));
        let spec = command.changes.unwrap();
        let interfaces = spec.interfaces.unwrap().list;
        assert_eq!(interfaces[0].addresses, ["10.1.1.1/24"]);
        assert_eq!(interfaces[1].addresses, ["192.168.0.9/20", "192.168.0.20/20"]);
        assert_eq!(spec.dhcp.unwrap().leases.len(), 1);
        assert_eq!(spec.nat.unwrap().source_nat_ip, "192.168.0.9");
        assert!(!spec.firewall.unwrap().egress_default_allow);
        assert!(spec.load_balancers.is_none());
    }

    #[test]
    fn a_delta_has_only_what_changed() {
        let command = delta(&snapshot(vec![lease(5, false), lease(6, true)]), &setting(), 5);
        assert_eq!((command.generation, command.base), (7, 5));
        assert_eq!(command.removed_leases, ["02:00:00:00:01:06"]);
        let spec = command.changes.unwrap();
        assert!(spec.interfaces.is_none() && spec.nat.is_none() && spec.firewall.is_none());
        assert_eq!(spec.dhcp.unwrap().leases[0].ip4, "10.1.1.5");
        let nothing = delta(&snapshot(vec![lease(6, true)]), &setting(), 5).changes.unwrap();
        assert!(nothing.dhcp.is_none());
    }
}
