//! A kill at any point of an apply, and then a new agent.

use crate::lab::{Lab, UUID, balancer, forward, guest, open, run, spec, wait};
use contract_agent::{ApplyRouter, DnsRecord, RouterSpec};
use prost::Message as _;
use router::{Host, Namespace, Routers, Wiring};
use std::sync::{Arc, Mutex};

/// The points that an apply came by, and at which of them it is to be killed.
#[derive(Default)]
struct Killer {
    passed: Vec<&'static str>,
    at: Option<usize>,
}

const PUBLIC: &str = "198.51.100.11";

fn first() -> RouterSpec {
    let mut all = spec();
    all.nat.as_mut().unwrap().forwards = vec![forward("f", PUBLIC, (22, 22), &guest(1), 22)];
    all.firewall.as_mut().unwrap().ingress = vec![open("x", PUBLIC, 22, 100)];
    all.load_balancers.as_mut().unwrap().list = vec![balancer("l", PUBLIC, 80, 22)];
    all
}

/// Another one in every section.
fn second() -> RouterSpec {
    let mut all = first();
    let public = &mut all.interfaces.as_mut().unwrap().list[1];
    public.addresses.remove(3);
    public.addresses.push("198.51.100.40/24".into());
    all.dhcp.as_mut().unwrap().domain = "cs2.internal".into();
    all.dns.as_mut().unwrap().domain = "cs2.internal".into();
    all.dns.as_mut().unwrap().records = vec![DnsRecord { name: "new".into(), ip4: "10.1.1.77".into() }];
    all.nat.as_mut().unwrap().forwards[0].guest_ip = guest(2);
    all.firewall.as_mut().unwrap().ingress[0].end_port = Some(200);
    all.load_balancers.as_mut().unwrap().list.push(balancer("m", "198.51.100.40", 80, 22));
    all.firewall.as_mut().unwrap().ingress.push(open("y", "198.51.100.40", 80, 80));
    all.metadata.as_mut().unwrap().vms[0].user_data = Some(b"new".to_vec());
    all
}

/// Everything that a router is, as the kernel, the daemons and the files tell it.
fn fingerprint(lab: &Lab) -> String {
    let inside = |args: &str| run("nsenter", &format!("--net={} -- {args}", lab.router().path().display()));
    let rules = inside("nft -s list table ip arcus");
    // The kernel lists counters in the order they came in.
    let usage = inside("nft -s list table ip arcus_usage");
    let mut usage: Vec<&str> = usage.lines().collect();
    usage.sort_unstable();
    let text = |file: &str| std::fs::read_to_string(lab.state().join(file)).unwrap_or_default();
    let mut addresses: Vec<String> = lab.ip_router("-br -4 addr").lines().map(sorted).collect();
    addresses.sort();
    let mut ports: Vec<String> =
        inside("ss -Hlntu").lines().map(|l| l.split_whitespace().skip(4).take(1).collect()).collect();
    ports.sort();
    ports.dedup();
    let parts = [
        rules,
        usage.join("\n"),
        addresses.join("\n"),
        lab.ip_router("route"),
        lab.ip_router("rule"),
        ports.join("\n"),
        text("dnsmasq/conf"),
        text("dnsmasq/guests"),
        text("dnsmasq/options"),
        text("dnsmasq/names"),
        text("haproxy/conf"),
        format!("{} dnsmasq", lab.daemons("dnsmasq").len()),
    ];
    parts.join("\n----\n")
}

/// The interface's number in its name, and the order of addresses, depend on the way.
fn sorted(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().map(|w| w.split('@').next().unwrap_or_default()).collect();
    words.sort_unstable();
    words.join(" ")
}

fn works(lab: &Lab, point: &str) {
    let reach = |to: &str| lab.reach("out", to).unwrap_or_default();
    assert!(reach(&format!("{PUBLIC}:22")).starts_with("g2"), "{point}");
    assert!(reach("198.51.100.40:80").starts_with('g'), "{point}");
    assert_eq!(lab.resolve("g1", "new.cs2.internal"), Some("10.1.1.77".parse().unwrap()), "{point}");
    assert!(lab.get("g1", "10.1.1.1:80", "/latest/user-data", "").unwrap_or_default().ends_with("new"), "{point}");
}

async fn killed_everywhere(lab: &mut Lab, prepare: impl AsyncFn(&mut Lab)) {
    let killer: Arc<Mutex<Killer>> = Arc::default();
    let asked = killer.clone();
    let interrupt = move |point| {
        let mut killer = asked.lock().unwrap();
        killer.passed.push(point);
        killer.at == Some(killer.passed.len() - 1)
    };
    prepare(lab).await;
    lab.host.interruptions = Some(Arc::new(interrupt));
    lab.restart_agent();
    lab.routers.resume().await;
    killer.lock().unwrap().passed.clear();
    lab.apply(second()).await;
    works(lab, "undisturbed");
    let wanted = fingerprint(lab);
    let points = killer.lock().unwrap().passed.clone();
    assert!(points.len() > 10, "{points:?}");
    for (i, point) in points.iter().enumerate() {
        lab.host.interruptions = None;
        lab.restart_agent();
        lab.routers.resume().await;
        prepare(lab).await;
        let asked = killer.clone();
        *killer.lock().unwrap() = Killer { passed: Vec::new(), at: Some(i) };
        lab.host.interruptions = Some(Arc::new(move |point| {
            let mut killer = asked.lock().unwrap();
            killer.passed.push(point);
            killer.at == Some(killer.passed.len() - 1)
        }));
        lab.restart_agent();
        let change = lab.change(second());
        lab.routers.apply(change).await.expect_err("an interruption");
        lab.host.interruptions = None;
        lab.restart_agent();
        let reports = lab.routers.resume().await;
        let report = reports.get(UUID).expect("a router").as_ref().expect("a report");
        assert!(report.faults.is_empty(), "{i} {point}: {:?}", report.faults);
        works(lab, point);
        // A worker of haproxy without connections ends in its own time.
        wait("haproxy's old workers", || lab.daemons("haproxy").len() <= 2);
        assert_eq!(fingerprint(lab), wanted, "killed at {i} {point}");
    }
    println!("killed at {points:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_killed_anywhere_is_done_later() {
    let Some(mut lab) = Lab::new("killed changes").await else { return };
    lab.address_guests();
    lab.serve("g1", 22);
    lab.serve("g2", 22);
    killed_everywhere(&mut lab, async |lab: &mut Lab| {
        lab.apply(first()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_apply_that_is_killed_anywhere_is_done_later() {
    let Some(mut lab) = Lab::new("killed first applies").await else { return };
    lab.address_guests();
    lab.serve("g1", 22);
    lab.serve("g2", 22);
    killed_everywhere(&mut lab, async |lab: &mut Lab| {
        lab.routers.remove(UUID).await.expect("a removal");
    })
    .await;
}

/// Where a child finds its lab.
const CHILD: &str = "ROUTER_TEST_CHILD";

/// Not a test of its own: the process that [`a_killed_process_is_followed_by_one_that_ends_its_work`] kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of another test, which runs it as a process"]
async fn child_that_applies_for_ever() {
    let Ok(place) = std::env::var(CHILD) else { return };
    let [dir, network, prefix, generation] = place.split(',').collect::<Vec<_>>().try_into().expect("a place");
    let host = Host {
        network: Namespace::named(network),
        namespace_prefix: prefix.into(),
        ..Host::new(dir, Wiring::new("under", "pub0"))
    };
    let routers = Routers::open(host).expect("routers");
    let mut generation: i64 = generation.parse().unwrap();
    loop {
        generation += 1;
        let changes = Some(if generation % 2 == 0 { first() } else { second() });
        let change = ApplyRouter { router_uuid: UUID.into(), generation, changes, ..ApplyRouter::default() };
        routers.apply(change).await.expect("an applied router");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_followed_by_one_that_ends_its_work() {
    let Some(mut lab) = Lab::new("killed processes").await else { return };
    lab.address_guests();
    lab.serve("g1", 22);
    lab.serve("g2", 22);
    lab.apply(second()).await;
    let wanted = fingerprint(&lab);
    for round in 0..12_u32 {
        let generation = 1000 * (i64::from(round) + 1);
        let (dir, prefix) = (lab.host.state_dir.display(), &lab.host.namespace_prefix);
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_applies_for_ever", "--ignored"])
            .env(CHILD, format!("{dir},{},{prefix},{generation}", lab.host_network()))
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a child");
        // Until it works, and then a bit longer each time: the kills spread over a whole apply.
        let began = |lab: &Lab| {
            let wanted = std::fs::read(lab.state().join("wanted")).unwrap_or_default();
            ApplyRouter::decode(wanted.as_slice()).is_ok_and(|w| w.generation > generation)
        };
        wait("the child's work", || began(&lab));
        let until = std::time::Instant::now() + std::time::Duration::from_millis(u64::from(round) * 23);
        wait("a bit", || std::time::Instant::now() > until);
        child.kill().expect("a kill");
        child.wait().expect("its end");
        lab.restart_agent();
        lab.routers.resume().await;
        lab.generation = generation + 900;
        lab.apply(second()).await;
        works(&lab, &format!("round {round}"));
        wait("haproxy's old workers", || lab.daemons("haproxy").len() <= 2);
        assert_eq!(fingerprint(&lab), wanted, "round {round}");
    }
}
