//! What passes, and what doesn't.

use crate::lab::{Lab, OUTSIDE, SOURCE_NAT, forward, guest, open, spec};
use contract_agent::{FirewallRule, Interface, RouterSpec, StaticNat};
use std::io::{Read as _, Write as _};
use std::process::Command;

const FORWARDED: &str = "198.51.100.11";
const STATIC: &str = "198.51.100.12";

fn with_egress(allow: bool, rules: Vec<FirewallRule>) -> RouterSpec {
    let mut all = spec();
    let firewall = all.firewall.as_mut().unwrap();
    (firewall.egress_default_allow, firewall.egress) = (allow, rules);
    all
}

fn pings(lab: &Lab, from: &str, to: &str) -> bool {
    let net = format!("--net={}", lab.part(from).path().display());
    let ping = ["--", "busybox", "ping", "-c", "1", "-W", "1", to];
    Command::new("nsenter").arg(net).args(ping).output().expect("ping").status.success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_send_what_the_egress_rules_allow() {
    let Some(mut lab) = Lab::new("egress").await else { return };
    lab.address_guests();
    lab.serve("out", 7000);
    lab.serve("out", 7001);
    let (a, b) = (format!("{OUTSIDE}:7000"), format!("{OUTSIDE}:7001"));
    let seen = Some(format!("out {SOURCE_NAT}"));

    lab.apply(with_egress(false, vec![])).await;
    assert_eq!(lab.reach("g1", &a), None, "denied by default");
    lab.apply(with_egress(false, vec![open("r", "", 7000, 7000)])).await;
    assert_eq!(lab.reach("g1", &a), seen, "allowed, and seen as the router");
    assert_eq!(lab.reach("g1", &b), None, "another port");
    let from_g2 = FirewallRule { cidrs: vec![format!("{}/32", guest(2))], ..open("r", "", 7000, 7000) };
    lab.apply(with_egress(false, vec![from_g2])).await;
    assert_eq!(lab.reach("g1", &a), None, "the rule is for another guest");
    assert_eq!(lab.reach("g2", &a), seen);
    let elsewhere = FirewallRule { dest_cidrs: vec!["192.0.2.0/24".into()], ..open("r", "", 7000, 7000) };
    lab.apply(with_egress(false, vec![elsewhere])).await;
    assert_eq!(lab.reach("g2", &a), None, "the rule is for another destination");

    lab.apply(with_egress(true, vec![open("r", "", 7000, 7000)])).await;
    assert_eq!(lab.reach("g1", &a), None, "denied by the rule");
    assert_eq!(lab.reach("g1", &b), seen, "allowed by default");
    assert!(pings(&lab, "g1", OUTSIDE));
    let icmp = FirewallRule {
        id: "i".into(),
        protocol: "icmp".into(),
        icmp_type: Some(8),
        icmp_code: Some(-1),
        ..FirewallRule::default()
    };
    lab.apply(with_egress(true, vec![icmp])).await;
    assert!(!pings(&lab, "g1", OUTSIDE));
    assert!(lab.connect("out", "10.1.1.11:22").is_none(), "nobody comes in by a guest's own address");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_ports_reach_the_guest_when_the_firewall_says_so() {
    let Some(mut lab) = Lab::new("port forwarding").await else { return };
    lab.address_guests();
    for port in [22, 3001, 4002] {
        lab.serve("g1", port);
    }
    lab.serve("g2", 22);
    let to = |port: u16| format!("{FORWARDED}:{port}");
    let mut all = spec();
    all.nat.as_mut().unwrap().forwards = vec![
        forward("a", FORWARDED, (2222, 2222), &guest(1), 22),
        forward("b", FORWARDED, (3000, 3010), &guest(1), 3000),
        forward("c", FORWARDED, (4100, 4110), &guest(1), 4000),
        forward("d", FORWARDED, (22, 22), &guest(2), 22),
    ];
    lab.apply(all.clone()).await;
    assert_eq!(lab.reach("out", &to(2222)), None, "no firewall rule");

    let rules = |all: &mut RouterSpec, rules: Vec<FirewallRule>| all.firewall.as_mut().unwrap().ingress = rules;
    rules(&mut all, vec![open("x", FORWARDED, 2222, 2222), open("y", FORWARDED, 3000, 4200)]);
    lab.apply(all.clone()).await;
    let seen = Some(format!("g1 {OUTSIDE}"));
    assert_eq!(lab.reach("out", &to(2222)), seen, "the guest sees who comes");
    assert_eq!(lab.reach("out", &to(3001)), seen, "a range");
    assert_eq!(lab.reach("out", &to(4102)), seen, "the third port of a range is the third port of the guest's");
    assert_eq!(lab.reach("out", &to(22)), None, "a port without a firewall rule");
    assert_eq!(lab.reach("out", "198.51.100.13:2222"), None, "another address");
    assert_eq!(lab.reach("g2", &to(2222)).as_deref(), Some("g1 10.1.1.1"), "a guest by the public address");

    let narrow = |cidr: &str| FirewallRule { cidrs: vec![cidr.into()], ..open("x", FORWARDED, 2222, 2222) };
    rules(&mut all, vec![narrow("192.0.2.0/24")]);
    lab.apply(all.clone()).await;
    assert_eq!(lab.reach("out", &to(2222)), None, "the rule is for another source");
    rules(&mut all, vec![narrow("198.51.100.0/24")]);
    lab.apply(all.clone()).await;
    assert_eq!(lab.reach("out", &to(2222)), seen);
    all.nat.as_mut().unwrap().forwards.clear();
    lab.apply(all).await;
    assert_eq!(lab.reach("out", &to(2222)), None, "the forwarding is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn static_nat_is_one_to_one() {
    let Some(mut lab) = Lab::new("static NAT").await else { return };
    lab.address_guests();
    lab.serve("g2", 22);
    lab.serve("out", 7000);
    let mut all = with_egress(true, vec![]);
    all.nat.as_mut().unwrap().static_nats = vec![StaticNat { public_ip: STATIC.into(), guest_ip: guest(2) }];
    lab.apply(all.clone()).await;
    let to = format!("{STATIC}:22");
    assert_eq!(lab.reach("out", &to), None, "no firewall rule");
    assert!(!pings(&lab, "out", STATIC));
    assert_eq!(lab.reach("g2", &format!("{OUTSIDE}:7000")), Some(format!("out {STATIC}")), "seen as its own address");
    assert_eq!(
        lab.reach("g1", &format!("{OUTSIDE}:7000")),
        Some(format!("out {SOURCE_NAT}")),
        "the other as the router"
    );
    let icmp =
        FirewallRule { id: "i".into(), public_ip: STATIC.into(), protocol: "icmp".into(), ..FirewallRule::default() };
    all.firewall.as_mut().unwrap().ingress = vec![open("x", STATIC, 22, 22), icmp];
    lab.apply(all.clone()).await;
    assert_eq!(lab.reach("out", &to), Some(format!("g2 {OUTSIDE}")));
    assert_eq!(lab.reach("g1", &to).as_deref(), Some("g2 10.1.1.1"), "the neighbour by the public address");
    assert!(pings(&lab, "out", STATIC));
    let held = lab.connect("g2", &format!("{OUTSIDE}:7000")).expect("a connection");
    let echoes = || {
        let mut stream = &held;
        stream.set_read_timeout(Some(std::time::Duration::from_millis(800))).unwrap();
        stream.write_all(b"there\n").unwrap();
        let (mut all, mut buffer) = (String::new(), [0; 64]);
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            all.push_str(&String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()));
        }
        all.contains("there")
    };
    assert!(echoes());
    all.nat.as_mut().unwrap().static_nats.clear();
    lab.apply(all.clone()).await;
    assert_eq!(lab.reach("out", &to), None);
    assert!(echoes(), "what is open goes on");
    // The address may be another tenant's now: nothing leaves with it any more.
    all.interfaces.as_mut().unwrap().list[1].addresses.retain(|a| !a.starts_with(STATIC));
    lab.apply(all).await;
    assert!(!echoes());
}

/// Addresses of a second public network come and go by its own interface and gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_public_address_goes_its_own_way() {
    let Some(mut lab) = Lab::new("further public networks").await else { return };
    lab.address_guests();
    lab.serve("g1", 22);
    lab.serve("g2", 22);
    // Reachable by either way out only with the right source.
    lab.serve("out2", 7000);
    lab.ip("out2", "addr add 192.0.2.1/32 dev lo");
    lab.ip("out", "addr add 192.0.2.1/32 dev lo");
    let mut all = with_egress(true, vec![]);
    all.interfaces.as_mut().unwrap().list.push(Interface {
        name: "public2".into(),
        mac: "02:00:cb:00:71:0a".into(),
        broadcast_uri: "vlan://untagged".into(),
        addresses: vec!["203.0.113.10/24".into(), "203.0.113.11/24".into()],
        gateway: "203.0.113.1".into(),
        traffic_label: Some("pub1".into()),
        ..Interface::default()
    });
    let nat = all.nat.as_mut().unwrap();
    nat.static_nats = vec![StaticNat { public_ip: "203.0.113.10".into(), guest_ip: guest(2) }];
    nat.forwards = vec![forward("a", "203.0.113.11", (22, 22), &guest(1), 22)];
    all.firewall.as_mut().unwrap().ingress = vec![open("x", "203.0.113.10", 22, 22), open("y", "203.0.113.11", 22, 22)];
    all.load_balancers.as_mut().unwrap().list = vec![crate::lab::balancer("l", "203.0.113.11", 80, 22)];
    all.firewall.as_mut().unwrap().ingress.push(open("z", "203.0.113.11", 80, 80));
    lab.apply(all.clone()).await;
    // Who comes from beyond the second gateway: the answer must not take the main route.
    lab.ip("out2", "route replace 203.0.113.0/24 dev eth0 src 192.0.2.1");
    assert_eq!(lab.reach("out2", "203.0.113.10:22").as_deref(), Some("g2 192.0.2.1"));
    assert_eq!(lab.reach("out2", "203.0.113.11:22").as_deref(), Some("g1 192.0.2.1"));
    assert!(lab.reach("out2", "203.0.113.11:80").is_some(), "the balancer's own answers, too");
    assert_eq!(lab.reach("g2", "192.0.2.1:7000").as_deref(), Some("out2 203.0.113.10"), "what the guest begins, too");
    // The interface goes, and its rules and routes with it.
    lab.apply(spec()).await;
    assert!(
        !lab.ip_router("rule").contains("lookup 102")
            && lab.ip_router("route show table all").contains("default via 198.51.100.1")
    );
    assert!(!lab.ip_router("route show table all").contains("table 102"));
    assert!(!lab.ip_router("link").contains("public2"));
}

/// An address that was another router's is at this one's MAC address from now on: neighbours hear of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_hear_of_an_address_that_moved_here() {
    let Some(mut lab) = Lab::new("announcements").await else { return };
    lab.apply(spec()).await;
    lab.ip("out", "neigh add 198.51.100.99 lladdr 02:00:00:00:00:99 dev eth0 nud stale");
    let mut all = spec();
    all.interfaces.as_mut().unwrap().list[1].addresses.push("198.51.100.99/24".into());
    lab.apply(all).await;
    crate::lab::wait("the announcement", || lab.ip("out", "neigh show 198.51.100.99").contains("02:00:c6:33:64:0a"));
}
