//! Whatever compiles, the tools take; and no text of a spec writes configuration of its own.

use crate::lab::{balancer, forward, guest, possible, run, spec};
use contract_agent::{FirewallRule, LoadBalancer, PortForward, RouterSpec, StaticNat, Stickiness};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use router::{Compiled, Layout, compile};
use std::io::Write as _;
use std::process::{Command, Stdio};

fn public() -> impl Strategy<Value = String> {
    (10_u8..=13).prop_map(|n| format!("198.51.100.{n}"))
}

fn cidrs() -> impl Strategy<Value = Vec<String>> {
    let one = (any::<u32>(), 0_u8..=32).prop_map(|(ip, len)| format!("{}/{len}", std::net::Ipv4Addr::from(ip)));
    prop::collection::vec(one, 0..4)
}

fn firewall_rule() -> impl Strategy<Value = FirewallRule> {
    let protocol = prop::sample::select(vec!["tcp", "udp", "icmp", "all"]);
    let icmp = (prop::option::of(-1_i32..=255), prop::option::of(-1_i32..=255));
    (public(), protocol, prop::option::of((1_u32..=65_535, 0_u32..=100)), icmp, cidrs(), cidrs()).prop_map(
        |(ip, protocol, ports, (kind, code), from, to)| FirewallRule {
            id: "r".into(),
            public_ip: ip,
            protocol: protocol.into(),
            start_port: ports.map(|(first, _)| first),
            end_port: ports.map(|(first, more)| (first + more).min(65_535)),
            icmp_type: kind,
            icmp_code: code.filter(|_| kind.is_some_and(|k| k >= 0)),
            cidrs: from,
            dest_cidrs: to,
        },
    )
}

fn port_forward() -> impl Strategy<Value = PortForward> {
    let protocol = prop::sample::select(vec!["tcp", "udp"]);
    (public(), 1_u32..=65_000, 0_u32..=20, 1_u32..=65_000, protocol, cidrs(), any::<bool>()).prop_map(
        |(ip, first, more, to, protocol, from, same)| PortForward {
            protocol: protocol.into(),
            cidrs: from,
            ..forward("f", &ip, (first, first + more), &guest(1), if same { first } else { to })
        },
    )
}

fn load_balancer() -> impl Strategy<Value = LoadBalancer> {
    let algorithm = prop::sample::select(vec!["roundrobin", "leastconn", "source"]);
    let protocol = prop::sample::select(vec!["tcp", "tcp-proxy"]);
    let params = |all: &[(&str, &str)]| all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let policies = vec![
        None,
        Some(Stickiness { method: "SourceBased".into(), params: params(&[("tablesize", "10k"), ("expire", "5m")]) }),
        Some(Stickiness { method: "LbCookie".into(), params: params(&[("mode", "rewrite"), ("nocache", "true")]) }),
        Some(Stickiness {
            method: "LbCookie".into(),
            params: params(&[("mode", "prefix"), ("domain", ".example.org")]),
        }),
        Some(Stickiness {
            method: "AppCookie".into(),
            params: params(&[("request-learn", "true"), ("mode", "query-string")]),
        }),
    ];
    (
        public(),
        1_u32..=65_535,
        1_u32..=65_535,
        algorithm,
        protocol,
        cidrs(),
        prop::sample::select(policies),
        0_usize..=2,
    )
        .prop_map(|(ip, port, private, algorithm, protocol, from, stickiness, members)| LoadBalancer {
            algorithm: algorithm.into(),
            protocol: protocol.into(),
            cidrs: from,
            stickiness,
            members: (1..=2).take(members).map(guest).collect(),
            ..balancer("l", &ip, port, private)
        })
}

fn any_spec() -> impl Strategy<Value = RouterSpec> {
    let ingress = prop::collection::vec(firewall_rule(), 0..12);
    let egress = prop::collection::vec(firewall_rule(), 0..6);
    let forwards = prop::collection::vec(port_forward(), 0..8);
    let balancers = prop::collection::vec(load_balancer(), 0..4);
    (ingress, egress, forwards, balancers, any::<bool>(), any::<bool>(), 0_u8..128).prop_map(
        |(ingress, egress, forwards, balancers, allow, is_static, sections)| {
            let mut all = spec();
            let firewall = all.firewall.as_mut().unwrap();
            (firewall.ingress, firewall.egress, firewall.egress_default_allow) = (ingress, egress, allow);
            let nat = all.nat.as_mut().unwrap();
            nat.forwards = forwards;
            if is_static {
                nat.static_nats = vec![StaticNat { public_ip: "198.51.100.12".into(), guest_ip: guest(2) }];
                nat.forwards.retain(|f| f.public_ip != "198.51.100.12");
            }
            for (i, f) in nat.forwards.iter_mut().enumerate() {
                f.id = format!("f{i}");
            }
            all.load_balancers.as_mut().unwrap().list = balancers;
            for (i, l) in all.load_balancers.as_mut().unwrap().list.iter_mut().enumerate() {
                l.id = format!("l{i}");
            }
            let off = |bit: u8| sections & (1 << bit) != 0 && sections & 1 != 0;
            if off(1) {
                all.dhcp = None;
            }
            if off(2) {
                all.dns = None;
            }
            if off(3) {
                all.firewall = None;
            }
            if off(4) {
                all.metadata = None;
            }
            if off(5) {
                all.interfaces.as_mut().unwrap().list.pop();
            }
            if off(6) {
                all.interfaces.as_mut().unwrap().list.clear();
            }
            all
        },
    )
}

/// A namespace and a folder to try configurations in.
struct Bench {
    name: String,
    dir: tempfile::TempDir,
    layout: Layout,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let name = format!("rt{}{name}", std::process::id());
        run("ip", &format!("netns add {name}"));
        let dir = tempfile::tempdir().unwrap();
        Bench { name, layout: Layout::new(dir.path()), dir }
    }

    fn takes(&self, compiled: &Compiled) -> Result<(), String> {
        self.tool(&["nft", "-c", "-f", "-"], &compiled.ruleset.text)?;
        let file = self.dir.path().join("conf");
        let path = file.to_string_lossy().into_owned();
        if let Some(dnsmasq) = &compiled.dnsmasq {
            std::fs::write(&file, &dnsmasq.conf).unwrap();
            self.tool(&["dnsmasq", "--test", "-C", &path], "")?;
        }
        if let Some(haproxy) = &compiled.haproxy {
            std::fs::write(&file, &haproxy.conf).unwrap();
            self.tool(&["haproxy", "-c", "-f", &path], "")?;
        }
        Ok(())
    }

    fn tool(&self, command: &[&str], input: &str) -> Result<(), String> {
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.name))
            .arg("--")
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}\n{input}")) }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

#[test]
fn the_tools_take_whatever_compiles() {
    if !possible("random specs") {
        return;
    }
    let bench = Bench::new("prop");
    let compiled = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let result = runner.run(&any_spec(), |spec| {
        // Rules that contradict each other are refused, and are no case.
        if let Ok(done) = compile(&spec, &bench.layout, None) {
            compiled.set(compiled.get() + 1);
            prop_assert_eq!(bench.takes(&done), Ok(()));
            prop_assert_eq!(compile(&spec, &bench.layout, None), Ok(done), "the same again");
        }
        Ok(())
    });
    result.unwrap();
    assert!(compiled.get() > 100, "only {} specs compiled", compiled.get());
}

#[test]
fn no_text_of_a_spec_writes_configuration() {
    if !possible("hostile specs") {
        return;
    }
    let bench = Bench::new("evil");
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let text = prop_oneof!["[a-z0-9.,;:#{}\"'\\\\ \n\t-]{0,20}", "\\PC{0,12}"];
    let result = runner.run(&(text, 0..9), |(text, place)| {
        let mut all = crate::lab::spec();
        all.nat.as_mut().unwrap().forwards = vec![forward("f", "198.51.100.11", (22, 22), &guest(1), 22)];
        all.firewall.as_mut().unwrap().ingress = vec![crate::lab::open("x", "198.51.100.11", 22, 22)];
        let mut rule = balancer("l", "198.51.100.11", 80, 80);
        match place {
            0 => all.nat.as_mut().unwrap().forwards[0].id = text,
            1 => all.firewall.as_mut().unwrap().ingress[0].id = text,
            2 => rule.id = text,
            3 => all.dhcp.as_mut().unwrap().leases[0].host_name = text,
            4 => all.dns.as_mut().unwrap().domain = text,
            5 => {
                let nic = &mut all.interfaces.as_mut().unwrap().list[0];
                (nic.name, nic.traffic) = (text, Some("guest".into()));
            }
            6 => {
                let params = [("cookie-name".to_owned(), text.clone()), ("domain".to_owned(), text)].into();
                rule.stickiness = Some(Stickiness { method: "LbCookie".into(), params });
            }
            7 => {
                all.dhcp.as_mut().unwrap().leases[0].options =
                    vec![contract_agent::DhcpOption { code: 15, value: text }]
            }
            _ => all.dhcp.as_mut().unwrap().domain = text,
        }
        all.load_balancers.as_mut().unwrap().list = vec![rule];
        let Ok(done) = compile(&all, &bench.layout, None) else { return Ok(()) };
        prop_assert_eq!(bench.takes(&done), Ok(()));
        // One line a guest, whatever it is called.
        let dnsmasq = done.dnsmasq.expect("leases");
        prop_assert_eq!(dnsmasq.leases.lines().count(), 2);
        prop_assert!(dnsmasq.conf.lines().count() < 30);
        Ok(())
    });
    result.unwrap();
}
