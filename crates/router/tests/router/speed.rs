//! How long a change takes. Figures, no limits: `cargo test -p router --test router speed -- --nocapture`.

use crate::lab::{Lab, OUTSIDE, UUID, forward, guest, open, spec};
use contract_agent::RouterSpec;
use std::time::{Duration, Instant};

const PUBLIC: &str = "198.51.100.11";

/// So many firewall rules, and as many port forwarding rules.
fn rules(count: u32) -> RouterSpec {
    let mut all = spec();
    let ports = |n: u32| 1000 + n;
    all.firewall.as_mut().unwrap().ingress =
        (0..count).map(|n| open(&format!("x{n}"), PUBLIC, ports(n), ports(n))).collect();
    all.nat.as_mut().unwrap().forwards =
        (0..count).map(|n| forward(&format!("f{n}"), PUBLIC, (ports(n), ports(n)), &guest(1), 22)).collect();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speed_of_changes() {
    let Some(mut lab) = Lab::new("speed").await else { return };
    lab.address_guests();
    lab.serve("g1", 22);
    let start = Instant::now();
    lab.apply(spec()).await;
    println!("a new router: {:?}", start.elapsed());
    for count in [10, 100, 1000] {
        lab.apply(rules(count)).await;
        let mut times: Vec<Duration> = Vec::new();
        for n in 0..5 {
            let change = rules(count + n % 2 + 1);
            let start = Instant::now();
            lab.apply(change).await;
            times.push(start.elapsed());
        }
        times.sort();
        let start = Instant::now();
        lab.routers.check(UUID).await.expect("a router").expect("a report");
        let check = start.elapsed();
        println!(
            "{count} firewall + {count} port forwarding rules: one more of each {:?}, nothing to do {check:?}",
            times[2]
        );
        assert_eq!(lab.reach("out", &format!("{PUBLIC}:{}", 999 + count)), Some(format!("g1 {OUTSIDE}")));
    }
}
