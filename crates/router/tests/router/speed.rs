//! How long a change takes. Figures, no limits: `cargo test -p router --test router speed -- --nocapture`.

use crate::lab::{Lab, OUTSIDE, UUID, balancer, forward, guest, mac, open, spec};
use contract_agent::{Dhcp, Firewall, Interfaces, Lease, LoadBalancers, Nat, RouterSpec};
use router::{Layout, compile};
use std::time::{Duration, Instant};

const PUBLIC: &str = "198.51.100.11";

fn firewall(count: u32) -> Firewall {
    let ingress = (0..count).map(|n| open(&format!("x{n}"), PUBLIC, 1000 + n, 1000 + n)).collect();
    Firewall { ingress, ..spec().firewall.unwrap() }
}

fn nat(count: u32) -> Nat {
    let forwards = (0..count).map(|n| forward(&format!("f{n}"), PUBLIC, (1000 + n, 1000 + n), &guest(1), 22)).collect();
    Nat { forwards, ..spec().nat.unwrap() }
}

/// So many firewall rules, and as many port forwarding rules.
fn rules(count: u32) -> RouterSpec {
    RouterSpec { firewall: Some(firewall(count)), nat: Some(nat(count)), ..spec() }
}

fn leased(n: u32) -> Dhcp {
    let lease = Lease { mac: mac(9), ip4: guest(9), host_name: format!("vm9x{n}"), ..Lease::default() };
    Dhcp { leases: vec![lease], ..spec().dhcp.unwrap() }
}

fn addressed(n: u32) -> Interfaces {
    let mut interfaces = spec().interfaces.unwrap();
    interfaces.list[1].addresses.push(format!("198.51.100.{}/24", 100 + n));
    interfaces
}

fn middle(mut times: Vec<Duration>) -> String {
    times.sort();
    format!("{:.0} ms", times[times.len() / 2].as_secs_f64() * 1000.0)
}

async fn of_each(lab: &mut Lab, change: impl Fn(u32) -> RouterSpec) -> String {
    let mut times = Vec::new();
    for n in 0..7 {
        let change = change(n);
        let start = Instant::now();
        lab.delta(change, &[]).await;
        times.push(start.elapsed());
    }
    middle(times)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speed_of_changes() {
    let Some(mut lab) = Lab::new("speed").await else { return };
    lab.address_guests();
    lab.serve("g1", 22);
    let start = Instant::now();
    lab.apply(spec()).await;
    println!("a new router: {:?}", start.elapsed());
    println!("| rules of each kind | firewall | forwarding | balancing | lease | address | whole | look | compiling |");
    for count in [10, 100, 1000] {
        lab.apply(rules(count)).await;
        let odd = |n: u32| count + n % 2 + 1;
        let one = of_each(&mut lab, |n| RouterSpec { firewall: Some(firewall(odd(n))), ..RouterSpec::default() }).await;
        let two = of_each(&mut lab, |n| RouterSpec { nat: Some(nat(odd(n))), ..RouterSpec::default() }).await;
        let list = |n: u32| (0..=n % 2).map(|b| balancer(&format!("l{b}"), "198.51.100.12", 80 + b, 22)).collect();
        let three = of_each(&mut lab, |n| {
            let load_balancers = Some(LoadBalancers { list: list(n), ..LoadBalancers::default() });
            RouterSpec { load_balancers, ..RouterSpec::default() }
        })
        .await;
        let four = of_each(&mut lab, |n| RouterSpec { dhcp: Some(leased(n)), ..RouterSpec::default() }).await;
        let five = of_each(&mut lab, |n| RouterSpec { interfaces: Some(addressed(n)), ..RouterSpec::default() }).await;
        let (mut wholes, mut looks, mut compilations) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..5 {
            let whole = rules(odd(n));
            let start = Instant::now();
            compile(&whole, &Layout::new("/nowhere"), None).expect("a compiled spec");
            compilations.push(start.elapsed());
            let start = Instant::now();
            lab.apply(whole).await;
            wholes.push(start.elapsed());
            let start = Instant::now();
            lab.routers.check(UUID).await.expect("a router").expect("a report");
            looks.push(start.elapsed());
        }
        let (whole, look, compiling) = (middle(wholes), middle(looks), middle(compilations));
        println!("| {count} | {one} | {two} | {three} | {four} | {five} | {whole} | {look} | {compiling} |");
        assert_eq!(lab.reach("out", &format!("{PUBLIC}:{}", 999 + count)), Some(format!("g1 {OUTSIDE}")));
    }
}
