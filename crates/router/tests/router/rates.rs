//! NICs that may be only so fast: measured with real TCP.

use crate::lab::{Lab, UUID, forward, guest, open, run, spec};
use contract_agent::RouterSpec;
use std::time::{Duration, Instant};

const PUBLIC: &str = "198.51.100.11";

/// Megabits a second of 4.11 (of 128 KiB) in bytes.
const MEGABIT: f64 = 128.0 * 1024.0;

fn limited(mbps: Option<u64>) -> RouterSpec {
    let mut all = spec();
    for nic in &mut all.interfaces.as_mut().unwrap().list {
        nic.rate_mbps = mbps;
    }
    all.nat.as_mut().unwrap().forwards = vec![forward("f", PUBLIC, (9000, 9000), &guest(1), 9000)];
    all.firewall.as_mut().unwrap().ingress = vec![open("x", PUBLIC, 9000, 9000)];
    all
}

/// Bytes a second that a reader at `from` gets from `to`, where `source` sends what it can. What was in the buckets at the
/// beginning isn't counted.
fn throughput(lab: &Lab, from: &str, to: &str) -> f64 {
    use std::io::Read as _;
    let address: std::net::SocketAddr = to.parse().unwrap();
    let stream = lab.part(from).within(|| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(30)));
    let mut stream = stream.expect("a namespace").expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let (mut begun, mut got) = (None, 0_usize);
    let start = Instant::now();
    loop {
        let n = stream.read(&mut buffer).expect("bytes");
        assert!(n > 0, "the sender ended");
        if start.elapsed() > Duration::from_millis(300) {
            let begun = begun.get_or_insert_with(Instant::now);
            got += n;
            if begun.elapsed() > Duration::from_secs(2) {
                return got as f64 / begun.elapsed().as_secs_f64();
            }
        }
    }
}

/// Sends what it can to everybody who connects.
fn pour(lab: &Lab, at: &str, port: u16) {
    use std::io::Write as _;
    let listener = lab.part(at).within(|| std::net::TcpListener::bind(("0.0.0.0", port))).expect("a namespace");
    let listener = listener.expect("a port");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            std::thread::spawn(move || while stream.write_all(&[7; 64 * 1024]).is_ok() {});
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_routers_interfaces_are_as_fast_as_told() {
    let Some(mut lab) = Lab::new("rates").await else { return };
    lab.address_guests();
    pour(&lab, "g1", 9000);
    lab.apply(limited(None)).await;
    let free = throughput(&lab, "out", &format!("{PUBLIC}:9000"));
    for mbps in [20, 60] {
        lab.apply(limited(Some(mbps))).await;
        let rate = throughput(&lab, "out", &format!("{PUBLIC}:9000")) / MEGABIT;
        println!("{mbps} Mbit/s: {rate:.1}; unlimited: {:.0}", free / MEGABIT);
        assert!(rate < mbps as f64 * 1.15, "{rate} of {mbps}");
        assert!(rate > mbps as f64 * 0.3, "{rate} of {mbps}");
    }
    // It is there after the agent's end, and mended.
    lab.restart_agent();
    lab.ip_router("link set public up");
    let net = format!("--net={} -- tc qdisc", lab.router().path().display());
    run("nsenter", &format!("{net} del dev public root"));
    lab.routers.check(UUID).await.expect("a router").expect("a report");
    assert!(run("nsenter", &format!("{net} show dev public")).contains("tbf"));
    lab.apply(limited(None)).await;
    assert!(!run("nsenter", &format!("{net} show dev public")).contains("tbf"), "and goes");
    assert!(throughput(&lab, "out", &format!("{PUBLIC}:9000")) / MEGABIT > 100.0);
}

/// A guest's own device: what it is sent, and what it sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guests_device_is_as_fast_as_told() {
    let Some(mut lab) = Lab::new("guest rates").await else { return };
    lab.address_guests();
    lab.apply(spec()).await;
    pour(&lab, "g1", 9001);
    pour(&lab, "g2", 9001);
    let segments = lab.routers.segments().clone();
    for mbps in [30, 80] {
        segments.limit("v-g1", mbps).await.expect("a limit");
        for (reader, sender) in [("g1", 2), ("g2", 1)] {
            let rate = throughput(&lab, reader, &format!("{}:9001", guest(sender))) / MEGABIT;
            println!("{mbps} Mbit/s, read by {reader}: {rate:.1}");
            assert!(rate < mbps as f64 * 1.2, "{rate} of {mbps}");
            assert!(rate > mbps as f64 * 0.2, "{rate} of {mbps}");
        }
    }
    segments.limit("v-g1", 0).await.expect("no limit");
    assert!(throughput(&lab, "g2", &format!("{}:9001", guest(1))) / MEGABIT > 200.0);
    assert!(segments.limit("nothere", 10).await.is_err());
    // What was there for a device that is gone goes, and nothing else does.
    segments.limit("v-g1", 5).await.expect("a limit");
    segments.limit("v-g2", 5).await.expect("a limit");
    lab.ip("host", "link del v-g2");
    segments.forget_limits().await.expect("a sweep");
    let tables = run("nsenter", &format!("--net={} -- nft list tables netdev", lab.part("host").path().display()));
    assert!(tables.contains("arcus_rate_v_g1") && !tables.contains("arcus_rate_v_g2"), "{tables}");
}
