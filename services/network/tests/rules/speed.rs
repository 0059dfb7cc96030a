//! From the request of a rule to the end of its job, with a real router: a namespace, nftables, dnsmasq. Figures, no limits:
//! `cargo test -p arcus-network --test rules speed -- --nocapture --test-threads 1`.

use super::world::World;
use crate::support::{Lab, VmJob};
use contract::api::JobRef;
use contract_network as net;
use net::firewall_rules_client::FirewallRulesClient;
use router::{Host, Namespace, Routers, Wiring};
use std::process::Command;
use std::time::{Duration, Instant};
use store::Sql;

/// A host that is a network namespace. Dropped, nothing of it stays.
struct Machine {
    name: String,
    dir: tempfile::TempDir,
}

fn run(program: &str, args: &str) {
    let output = Command::new(program).args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Machine {
    /// `None`, said aloud, where this machine can't.
    fn new(test: &str) -> Option<Machine> {
        let can = |tool: &&str| {
            let path = std::env::var("PATH").unwrap_or_default();
            path.split(':').any(|dir| std::path::Path::new(dir).join(tool).exists())
        };
        let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
        if !root || !["ip", "nft", "dnsmasq", "haproxy", "nsenter"].iter().all(can) {
            use std::io::Write as _;
            let why = format!("\n*** SKIPPED: {test}: needs root and a router's tools (deploy/setup-dev test) ***\n");
            let _ = std::io::stderr().write_all(why.as_bytes());
            return None;
        }
        let name = format!("ns{}{test}", std::process::id());
        let dir = tempfile::Builder::new().prefix("ns").tempdir().unwrap();
        run("chmod", &format!("755 {}", dir.path().display()));
        run("ip", &format!("netns add {name}"));
        for device in ["under", "pub0"] {
            run("ip", &format!("-n {name} link add {device} type bridge"));
            run("ip", &format!("-n {name} link set {device} up"));
        }
        run("ip", &format!("-n {name} addr add 10.255.0.1/24 dev under"));
        Some(Machine { name, dir })
    }

    fn routers(&self) -> Routers {
        let host = Host {
            network: Namespace::named(&self.name),
            namespace_prefix: format!("{}-", self.name),
            ..Host::new(self.dir.path().join("s"), Wiring::new("under", "pub0"))
        };
        Routers::open(host).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&self.name) {
                let pids = Command::new("ip").args(["netns", "pids", &name]).output();
                for pid in pids.iter().flat_map(|p| p.stdout.split(|b| *b == b'\n')).filter(|p| !p.is_empty()) {
                    let _ = Command::new("kill").args(["-9", &String::from_utf8_lossy(pid)]).status();
                }
                let _ = Command::new("ip").args(["netns", "del", &name]).status();
            }
        }
    }
}

/// So many firewall rules and as many port forwarding rules, as if their jobs had ended long ago.
async fn fill(w: &World, from: i64, to: i64) {
    let ip = w.lab.text(Sql::new("SELECT CAST(id AS CHAR) FROM ip_addresses WHERE uuid = ?").bind(&w.ip)).await;
    let ip: i64 = ip.parse().unwrap();
    for n in from..to {
        let sql = Sql::new(
            "INSERT INTO firewall_rules (id, uuid, purpose, traffic, state, ip_id, network_id, protocol, start_port, end_port, cidrs, \
             dest_cidrs, vm_id, vm_ip, vm_start_port, vm_end_port, display, is_system, account_id, domain_id, domain_path, created) \
             VALUES (?, ?, 'Firewall', 'Ingress', 'Active', ?, ?, 'tcp', ?, ?, '0.0.0.0/0', '', NULL, NULL, NULL, NULL, 1, 0, 2, 1, '/1/', 0), \
             (?, ?, 'PortForwarding', 'Ingress', 'Active', ?, ?, 'tcp', ?, ?, '', '', 1, ?, 22, 22, 1, 0, 2, 1, '/1/', 0)",
        );
        let sql = sql.bind(100_000 + n).bind(model::new_uuid()).bind(ip).bind(w.number).bind(1000 + n).bind(1000 + n);
        let sql = sql.bind(200_000 + n).bind(model::new_uuid()).bind(ip).bind(w.number).bind(1000 + n).bind(1000 + n);
        w.lab.write(sql.bind(&w.guest)).await;
    }
    w.lab.write(Sql::new("UPDATE routers SET spec_generation = generation + 1, generation = generation + 1")).await;
}

async fn timed(w: &World, start: Instant, job: JobRef) -> Duration {
    loop {
        let found = jobs::view::find(&w.lab.db, &job.job_id).await.unwrap().unwrap();
        if found.ended.is_some() {
            assert!(found.output::<net::FirewallRule>().is_ok() || found.output::<contract::api::Success>().is_ok());
            return start.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn middle(mut times: Vec<Duration>) -> String {
    times.sort();
    format!("{:.0} ms", times[times.len() / 2].as_secs_f64() * 1000.0)
}

testkit::databases! {
    async fn speed_of_rules(db: testkit::TestDb) {
        let kind = if db.url().starts_with("sqlite") { "SQLite" } else { "MariaDB" };
        let Some(machine) = Machine::new(&kind[..1].to_lowercase()) else { return };
        let lab = Lab::new(db.url()).await;
        lab.hosts.real.set(machine.routers()).ok().unwrap();
        lab.zone("100-1500", "192.168.0.60").await;
        // Every kernel carries these.
        lab.write(Sql::new("UPDATE physical_networks SET isolation_methods = 'VXLAN'")).await;
        lab.write(Sql::new("UPDATE vlan_ranges SET vlan = 'untagged'")).await;
        let (number, network) = lab.isolated("10.1.1.1", "255.255.255.0").await;
        lab.machine(1, (2, 1, "/1/")).await;
        let start = Instant::now();
        let nics = lab.vm(VmJob::deploy(1, number, Some(1))).await.unwrap();
        println!("{kind}: a network with its first machine: {:?}", start.elapsed());
        let guest = nics.nics[0].ip4.clone();
        let mut w = World { lab, network, number, ip: String::new(), address: String::new(), guest };
        (w.ip, w.address) = w.acquire().await;
        let mut had = 0;
        for count in [10, 100, 1000] {
            fill(&w, had, count).await;
            had = count;
            let first = i32::try_from(count % 7).unwrap();
            w.open(|r| r.start_port = Some(10 + first)).await.unwrap();
            let (mut made, mut gone) = (Vec::new(), Vec::new());
            for n in 0..7 {
                let mut client = FirewallRulesClient::new(w.lab.channel());
                let message = net::CreateFirewallRuleRequest {
                    ip_address_id: Some(w.ip.clone()),
                    protocol: Some("tcp".into()),
                    start_port: Some(20 + n),
                    ..Default::default()
                };
                let start = Instant::now();
                let job = client.create(rpc::cx::request(&w.lab.admin, message)).await.unwrap().into_inner();
                let id = job.id.clone();
                made.push(timed(&w, start, job).await);
                let start = Instant::now();
                let message = net::DeleteFirewallRuleRequest { id, ..Default::default() };
                let job = client.delete(rpc::cx::request(&w.lab.admin, message)).await.unwrap().into_inner();
                gone.push(timed(&w, start, job).await);
            }
            println!("| {kind}, {count} firewall and {count} forwarding rules | {} | {} |", middle(made), middle(gone));
        }
    }
}
