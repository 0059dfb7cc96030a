//! From a snapshot to what the host is told. Pure.

use crate::address::uri_of;
use crate::rule::{Purpose, Traffic};
use crate::store::routers::Section;
use crate::store::snapshot::{Lease, Snapshot, WantedRule};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use contract::ApiError;
use contract_agent as agent;

/// Opens the sealed password of the VM with this UUID.
pub type Open<'o> = &'o dyn Fn(&str, &str) -> Result<String, ApiError>;

/// Padding may be missing.
const USER_DATA: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

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
    /// Connections that all load balancing rules have together at most; none: the host's own limit.
    pub max_connections: Option<u32>,
    /// Megabits a second of the router's interfaces; none: unlimited.
    pub rate_mbps: Option<u64>,
    /// Services of the network.
    pub services: Vec<String>,
    /// Name of the zone.
    pub zone: String,
    /// UUID of the installation.
    pub cloud: Option<String>,
}

impl Setting {
    fn has(&self, service: &str) -> bool {
        self.services.iter().any(|s| s == service)
    }
}

/// Everything that the router is to be.
///
/// `open` gives what a sealed password of a VM is.
///
/// # Errors
/// What can't be opened.
pub fn whole(s: &Snapshot, setting: &Setting, open: Open<'_>) -> Result<agent::ApplyRouter, ApiError> {
    let router = &s.router;
    let spec = agent::RouterSpec {
        interfaces: Some(agent::Interfaces { list: interfaces(s, setting) }),
        dhcp: setting.has("Dhcp").then(|| dhcp(setting, router.guest_ip.as_deref(), &s.leases)),
        dns: setting.has("Dns").then(|| agent::Dns {
            domain: setting.domain.clone(),
            upstream: setting.dns.clone(),
            ..agent::Dns::default()
        }),
        nat: nat(s, setting),
        firewall: setting.has("Firewall").then(|| firewall(s, setting)),
        load_balancers: setting.has("Lb").then(|| super::balance::section(&s.balancers, setting.max_connections)),
        metadata: setting.has("UserData").then(|| metadata(&s.leases, setting, open)).transpose()?,
    };
    Ok(agent::ApplyRouter {
        router_uuid: router.uuid.clone(),
        generation: router.generation,
        base: 0,
        changes: Some(spec),
        removed_leases: Vec::new(),
    })
}

/// What changed since `base`, which the host is known to have: the sections and leases that the snapshot was taken of.
///
/// # Errors
/// As [`whole`].
pub fn delta(s: &Snapshot, setting: &Setting, base: i64, open: Open<'_>) -> Result<agent::ApplyRouter, ApiError> {
    let (gone, living): (Vec<Lease>, Vec<Lease>) = s.leases.iter().cloned().partition(|l| l.removed);
    let changed = !living.is_empty();
    let new = |section: Section| s.router.sections.after(section, base);
    let spec = agent::RouterSpec {
        interfaces: new(Section::Interfaces).then(|| agent::Interfaces { list: interfaces(s, setting) }),
        dhcp: (changed && setting.has("Dhcp")).then(|| dhcp(setting, s.router.guest_ip.as_deref(), &living)),
        nat: new(Section::Nat).then(|| nat(s, setting)).flatten(),
        firewall: (new(Section::Firewall) && setting.has("Firewall")).then(|| firewall(s, setting)),
        load_balancers: (new(Section::Balancers) && setting.has("Lb"))
            .then(|| super::balance::section(&s.balancers, setting.max_connections)),
        metadata: (changed && setting.has("UserData")).then(|| metadata(&living, setting, open)).transpose()?,
        ..agent::RouterSpec::default()
    };
    Ok(agent::ApplyRouter {
        router_uuid: s.router.uuid.clone(),
        generation: s.router.generation,
        base,
        changes: Some(spec),
        removed_leases: gone.into_iter().map(|l| l.mac).collect(),
    })
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
            rate_mbps: setting.rate_mbps,
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
            rate_mbps: setting.rate_mbps,
            ..agent::Interface::default()
        });
    }
    list
}

/// What is translated; none where the network has no such service.
fn nat(s: &Snapshot, setting: &Setting) -> Option<agent::Nat> {
    let (source, statics, forwards) =
        (setting.has("SourceNat"), setting.has("StaticNat"), setting.has("PortForwarding"));
    if !source && !statics && !forwards {
        return None;
    }
    let mut static_nats = if statics { s.static_nats.clone() } else { Vec::new() };
    static_nats.sort();
    Some(agent::Nat {
        source_nat_ip: s.router.public_ip.clone().filter(|_| source).unwrap_or_default(),
        static_nats: static_nats
            .into_iter()
            .map(|(public_ip, guest_ip)| agent::StaticNat { public_ip, guest_ip })
            .collect(),
        forwards: if forwards { s.rules.iter().filter_map(forward).collect() } else { Vec::new() },
    })
}

fn forward(rule: &WantedRule) -> Option<agent::PortForward> {
    if rule.purpose != Purpose::PortForwarding {
        return None;
    }
    let ((public_start, public_end), (guest_start, guest_end)) = (rule.ports?, rule.guest_ports?);
    Some(agent::PortForward {
        id: rule.uuid.clone(),
        public_ip: rule.public_ip.clone()?,
        protocol: rule.protocol.clone(),
        public_start: port(public_start),
        public_end: port(public_end),
        guest_ip: rule.guest_ip.clone()?,
        guest_start: port(guest_start),
        guest_end: port(guest_end),
        cidrs: rule.cidrs.clone(),
    })
}

fn firewall(s: &Snapshot, setting: &Setting) -> agent::Firewall {
    let of = |traffic: Traffic| {
        let wanted = s.rules.iter().filter(move |r| r.purpose == Purpose::Firewall && r.traffic == traffic);
        wanted.map(firewall_rule).collect()
    };
    agent::Firewall {
        egress_default_allow: setting.egress_default_allow,
        ingress: of(Traffic::Ingress),
        egress: of(Traffic::Egress),
    }
}

fn firewall_rule(rule: &WantedRule) -> agent::FirewallRule {
    // -1 is 4.11's word for any.
    let given = |value: Option<i64>| value.filter(|v| *v >= 0).and_then(|v| i32::try_from(v).ok());
    agent::FirewallRule {
        id: rule.uuid.clone(),
        public_ip: rule.public_ip.clone().unwrap_or_default(),
        protocol: rule.protocol.clone(),
        start_port: rule.ports.map(|p| port(p.0)),
        end_port: rule.ports.map(|p| port(p.1)),
        icmp_type: given(rule.icmp_type),
        icmp_code: given(rule.icmp_code),
        cidrs: rule.cidrs.clone(),
        dest_cidrs: rule.dest_cidrs.clone(),
    }
}

fn port(number: i64) -> u32 {
    u32::try_from(number).unwrap_or_default()
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
                default_network: (!l.is_default).then_some(false),
                ..agent::Lease::default()
            })
            .collect(),
        ..agent::Dhcp::default()
    }
}

fn metadata(leases: &[Lease], setting: &Setting, open: Open<'_>) -> Result<agent::Metadata, ApiError> {
    let vms = leases.iter().map(|lease| vm(lease, setting, open)).collect::<Result<_, _>>()?;
    Ok(agent::Metadata { vms })
}

/// What a guest is told of itself: the entries of 4.11, each there even when it says nothing (VM-288 to VM-293).
fn vm(lease: &Lease, setting: &Setting, open: Open<'_>) -> Result<agent::VmMetadata, ApiError> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let entries = [
        ("service-offering", text(&lease.offering)),
        ("availability-zone", setting.zone.clone()),
        ("local-ipv4", lease.ip.clone()),
        ("local-hostname", lease.host_name.clone()),
        ("public-ipv4", text(&lease.public_ip)),
        ("public-hostname", text(&lease.public_ip)),
        ("instance-id", lease.vm_uuid.clone()),
        ("vm-id", lease.vm_uuid.clone()),
        ("public-keys", text(&lease.public_key)),
        ("cloud-identifier", setting.cloud.as_ref().map(|id| format!("CloudStack-{{{id}}}")).unwrap_or_default()),
    ];
    let entries = entries.map(|(name, text)| (format!("meta-data/{name}"), text));
    let user_data = lease.user_data.as_deref().filter(|text| !text.is_empty());
    // It was checked when it was given; one that can't be read is as good as none. Some clients send the URL-safe alphabet.
    let user_data = user_data.and_then(|text| USER_DATA.decode(text.replace('-', "+").replace('_', "/")).ok());
    let password = lease.password_sealed.as_deref().map(|sealed| open(&lease.vm_uuid, sealed)).transpose()?;
    let password_id = lease.password_sealed.as_deref().map(model::sealed::password_id);
    let vm_uuid = Some(lease.vm_uuid.clone());
    Ok(agent::VmMetadata { ip4: lease.ip.clone(), entries: entries.into(), user_data, password, password_id, vm_uuid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::routers::{Router, Sections};
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
                sections: Sections::default(),
                applied: 5,
                epoch: 1,
                owner: Owner { account_id: 2, domain_id: 1, domain_path: "/1/".into() },
                created: 0,
            },
            leases,
            public_ips: vec!["192.168.0.20".into(), "192.168.0.9".into()],
            static_nats: Vec::new(),
            rules: Vec::new(),
            balancers: Vec::new(),
        }
    }

    fn rule(id: i64, purpose: Purpose, traffic: Traffic) -> WantedRule {
        WantedRule {
            id,
            uuid: format!("rule-{id}"),
            purpose,
            traffic,
            protocol: "tcp".into(),
            public_ip: (traffic == Traffic::Ingress).then(|| "192.168.0.20".into()),
            ports: Some((2222, 2222)),
            icmp_type: None,
            icmp_code: None,
            cidrs: vec!["10.0.0.0/8".into()],
            dest_cidrs: Vec::new(),
            guest_ip: (purpose == Purpose::PortForwarding).then(|| "10.1.1.5".into()),
            guest_ports: (purpose == Purpose::PortForwarding).then_some((22, 22)),
        }
    }

    #[test]
    fn rules_are_in_the_sections_of_their_services() {
        let mut s = snapshot(Vec::new());
        s.static_nats = vec![("192.168.0.21".into(), "10.1.1.6".into())];
        s.rules = vec![
            rule(1, Purpose::PortForwarding, Traffic::Ingress),
            rule(2, Purpose::Firewall, Traffic::Ingress),
            rule(3, Purpose::Firewall, Traffic::Egress),
            rule(4, Purpose::LoadBalancing, Traffic::Ingress),
            rule(5, Purpose::StaticNat, Traffic::Ingress),
        ];
        s.rules[2].protocol = "icmp".into();
        (s.rules[2].ports, s.rules[2].icmp_type, s.rules[2].icmp_code) = (None, Some(8), Some(-1));
        let mut setting = setting();
        setting.services.extend(["StaticNat".to_owned(), "PortForwarding".to_owned()]);
        let spec = whole(&s, &setting, &plain).unwrap().changes.unwrap();
        let nat = spec.nat.unwrap();
        assert_eq!(
            nat.static_nats,
            [agent::StaticNat { public_ip: "192.168.0.21".into(), guest_ip: "10.1.1.6".into() }]
        );
        assert_eq!(nat.forwards.len(), 1);
        let f = &nat.forwards[0];
        assert_eq!(
            (f.public_start, f.guest_start, f.guest_ip.as_str(), f.id.as_str()),
            (2222, 22, "10.1.1.5", "rule-1")
        );
        let firewall = spec.firewall.unwrap();
        assert!(!firewall.egress_default_allow);
        let ids = |rules: &[agent::FirewallRule]| rules.iter().map(|r| r.id.clone()).collect::<Vec<_>>();
        assert_eq!((ids(&firewall.ingress), ids(&firewall.egress)), (vec!["rule-2".into()], vec!["rule-3".into()]));
        assert_eq!(firewall.ingress[0].public_ip, "192.168.0.20");
        assert_eq!((firewall.egress[0].icmp_type, firewall.egress[0].icmp_code), (Some(8), None));
        // A network that has lost a service keeps its rules, and its router doesn't.
        setting.services.retain(|s| s != "PortForwarding" && s != "Firewall");
        let spec = whole(&s, &setting, &plain).unwrap().changes.unwrap();
        assert!(spec.nat.unwrap().forwards.is_empty() && spec.firewall.is_none());
    }

    fn plain(_vm: &str, sealed: &str) -> Result<String, ApiError> {
        Ok(sealed.to_owned())
    }

    fn lease(n: u8, removed: bool) -> Lease {
        Lease {
            mac: format!("02:00:00:00:01:{n:02x}"),
            ip: format!("10.1.1.{n}"),
            host_name: format!("vm{n}"),
            vm_uuid: format!("uuid-{n}"),
            removed,
            is_default: true,
            ..Lease::default()
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
        let command = whole(&snapshot(vec![lease(5, false)]), &setting(), &plain).unwrap();
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

    // covers: VM-289, VM-290, VM-292, VM-293
    #[test]
    fn a_guest_is_told_all_of_itself() {
        let mut known = lease(5, false);
        known.offering = Some("Small Instance".into());
        known.public_ip = Some("192.168.0.21".into());
        known.public_key = Some("ssh-rsa AAAA".into());
        known.user_data = Some("_-8".into());
        known.password_sealed = Some("secret".into());
        let setting = Setting { zone: "Zürich".into(), cloud: Some("c1".into()), ..setting() };
        let told = |lease: &Lease| {
            let spec = whole(&snapshot(vec![lease.clone()]), &setting, &plain).unwrap().changes.unwrap();
            spec.metadata.unwrap().vms.remove(0)
        };
        let vm = told(&known);
        let entries: std::collections::BTreeMap<_, _> =
            vm.entries.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let wanted = [
            ("meta-data/availability-zone", "Zürich"),
            ("meta-data/cloud-identifier", "CloudStack-{c1}"),
            ("meta-data/instance-id", "uuid-5"),
            ("meta-data/local-hostname", "vm5"),
            ("meta-data/local-ipv4", "10.1.1.5"),
            ("meta-data/public-hostname", "192.168.0.21"),
            ("meta-data/public-ipv4", "192.168.0.21"),
            ("meta-data/public-keys", "ssh-rsa AAAA"),
            ("meta-data/service-offering", "Small Instance"),
            ("meta-data/vm-id", "uuid-5"),
        ];
        assert_eq!(entries.into_iter().collect::<Vec<_>>(), wanted);
        assert_eq!((vm.user_data, vm.password.as_deref()), (Some(vec![255, 239]), Some("secret")));
        // Sealed anew, it is another one.
        known.password_sealed = Some("secret again".into());
        assert_ne!(told(&known).password_id, vm.password_id);
        let bare = told(&lease(6, false));
        assert_eq!(bare.entries.len(), 10, "what says nothing is there all the same");
        assert_eq!(
            (bare.entries["meta-data/public-ipv4"].as_str(), bare.user_data, bare.password_id),
            ("", None, None)
        );
    }

    #[test]
    fn only_the_default_network_gives_a_way_out() {
        let aside = Lease { is_default: false, ..lease(6, false) };
        let spec = whole(&snapshot(vec![lease(5, false), aside]), &setting(), &plain).unwrap().changes.unwrap();
        let ways: Vec<Option<bool>> = spec.dhcp.unwrap().leases.iter().map(|l| l.default_network).collect();
        assert_eq!(ways, [None, Some(false)]);
    }

    #[test]
    fn a_delta_has_only_what_changed() {
        let command = delta(&snapshot(vec![lease(5, false), lease(6, true)]), &setting(), 5, &plain).unwrap();
        assert_eq!((command.generation, command.base), (7, 5));
        assert_eq!(command.removed_leases, ["02:00:00:00:01:06"]);
        let spec = command.changes.unwrap();
        assert!(spec.interfaces.is_none() && spec.nat.is_none() && spec.firewall.is_none());
        assert_eq!(spec.dhcp.unwrap().leases[0].ip4, "10.1.1.5");
        let nothing = delta(&snapshot(vec![lease(6, true)]), &setting(), 5, &plain).unwrap().changes.unwrap();
        assert!(nothing.dhcp.is_none());
    }
}
