//! A host, an outside and two guests, each a network namespace; and what they do.

use contract_agent::{
    ApplyRouter, Dhcp, Dns, Firewall, FirewallRule, Interface, Interfaces, Lease, LoadBalancer, LoadBalancers,
    Metadata, Nat, PortForward, RouterApplied, RouterSpec, VmMetadata,
};
use router::plan::Traffic;
use router::{BroadcastUri, Host, Namespace, Routers, Wiring};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The router of the tests.
pub const UUID: &str = "11111111-2222-3333-4444-555555555555";
pub const GUEST_GATEWAY: &str = "10.1.1.1";
/// The router's own public address, which guests are seen by.
pub const SOURCE_NAT: &str = "198.51.100.10";
/// Outside, and the router's way out.
pub const OUTSIDE: &str = "198.51.100.1";
/// How long a packet that is dropped is waited for.
const DROPPED: Duration = Duration::from_millis(600);

/// The machine of a test. Dropped, nothing of it stays.
pub struct Lab {
    id: String,
    dir: tempfile::TempDir,
    pub routers: Routers,
    pub host: Host,
    pub generation: i64,
}

fn tools() -> Vec<&'static str> {
    let all = ["ip", "nft", "dnsmasq", "haproxy", "nsenter", "busybox"];
    let there = |tool: &&str| {
        let dirs = std::env::var("PATH").unwrap_or_default();
        !dirs.split(':').any(|dir| PathBuf::from(dir).join(tool).exists())
    };
    all.into_iter().filter(there).collect()
}

/// Whether this machine can run the tests; says so past the capture of the test harness when it can't.
pub fn possible(test: &str) -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    let missing = tools();
    if root && missing.is_empty() {
        return true;
    }
    let why = if root { format!("{missing:?} missing (deploy/setup-dev test)") } else { "needs root".into() };
    let _ = std::io::stderr().write_all(format!("\n*** SKIPPED: {test}: {why} ***\n").as_bytes());
    false
}

pub fn run(program: &str, args: &str) -> String {
    let output = Command::new(program).args(args.split(' ')).output().expect("the program");
    assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Lab {
    /// `None` where the machine can't. Guests are plugged into the network's bridge, and have no address yet.
    pub async fn new(test: &str) -> Option<Lab> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !possible(test) {
            return None;
        }
        let id = format!("rt{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("rt").tempdir().expect("a folder");
        // dnsmasq reads its files as another user.
        run("chmod", &format!("755 {}", dir.path().display()));
        for part in ["host", "out", "out2", "g1", "g2"] {
            run("ip", &format!("netns add {id}-{part}"));
            run("ip", &format!("-n {id}-{part} link set lo up"));
        }
        let host = Host {
            network: Namespace::named(&format!("{id}-host")),
            namespace_prefix: format!("{id}-r-"),
            ..Host::new(dir.path().join("s"), Wiring::new("under", "pub0"))
        };
        let routers = Routers::open(host.clone()).expect("routers");
        let lab = Lab { id, dir, routers, host, generation: 0 };
        lab.ip("host", "link add under type bridge");
        lab.ip("host", "addr add 10.255.0.1/24 dev under");
        lab.ip("host", "link set under up");
        for (bridge, part, address) in [("pub0", "out", "198.51.100.1/24"), ("pub1", "out2", "203.0.113.1/24")] {
            lab.ip("host", &format!("link add {bridge} type bridge"));
            lab.ip("host", &format!("link set {bridge} up"));
            lab.ip("host", &format!("link add v-{part} type veth peer name eth0 netns {}-{part}", lab.id));
            lab.ip("host", &format!("link set v-{part} master {bridge} up"));
            lab.ip(part, &format!("addr add {address} dev eth0"));
            lab.ip(part, "link set eth0 up");
        }
        let segments = lab.routers.segments();
        let segment = segments.locate(BroadcastUri::Vxlan(77), Traffic::Guest, None);
        let bridge = segments.ensure(&segment).await.expect("the guests' bridge");
        for (n, part) in [(1, "g1"), (2, "g2")] {
            lab.ip(
                "host",
                &format!("link add v-{part} type veth peer name eth0 address {} netns {}-{part}", mac(n), lab.id),
            );
            lab.ip("host", &format!("link set v-{part} mtu {} master {} up", bridge.mtu, bridge.name));
            lab.ip(part, &format!("link set eth0 mtu {} up", bridge.mtu));
        }
        Some(lab)
    }

    pub fn ip(&self, part: &str, args: &str) -> String {
        run("ip", &format!("-n {}-{part} {args}", self.id))
    }

    pub fn ip_router(&self, args: &str) -> String {
        run("ip", &format!("-n {} {args}", self.router_name()))
    }

    pub fn part(&self, part: &str) -> Namespace {
        Namespace::named(&format!("{}-{part}", self.id))
    }

    /// The name of the host's own namespace.
    pub fn host_network(&self) -> String {
        format!("{}-host", self.id)
    }

    pub fn router(&self) -> Namespace {
        Namespace::named(&self.router_name())
    }

    pub fn router_name(&self) -> String {
        format!("{}{UUID}", self.host.namespace_prefix)
    }

    pub fn state(&self) -> PathBuf {
        self.host.state_dir.join(UUID)
    }

    /// Gives the guests their addresses by hand.
    pub fn address_guests(&self) {
        for (n, part) in [(1, "g1"), (2, "g2")] {
            self.ip(part, &format!("addr add {}/24 dev eth0", guest(n)));
            self.ip(part, &format!("route add default via {GUEST_GATEWAY}"));
        }
    }

    /// The next generation, whole.
    pub fn change(&mut self, spec: RouterSpec) -> ApplyRouter {
        self.generation += 1;
        ApplyRouter {
            router_uuid: UUID.into(),
            generation: self.generation,
            changes: Some(spec),
            ..ApplyRouter::default()
        }
    }

    /// Applies a whole spec, of which nothing may fail.
    pub async fn apply(&mut self, spec: RouterSpec) -> RouterApplied {
        let applied = self.try_apply(spec).await;
        assert!(applied.faults.is_empty(), "{:?}", applied.faults);
        applied
    }

    pub async fn try_apply(&mut self, spec: RouterSpec) -> RouterApplied {
        let change = self.change(spec);
        let applied = self.routers.apply(change).await.expect("an applied router");
        assert_eq!(applied.generation, self.generation);
        applied
    }

    /// Applies what changed only.
    pub async fn delta(&mut self, changes: RouterSpec, removed_leases: &[String]) -> RouterApplied {
        let base = self.generation;
        let change = ApplyRouter { base, removed_leases: removed_leases.to_vec(), ..self.change(changes) };
        let applied = self.routers.apply(change).await.expect("an applied router");
        assert!(applied.faults.is_empty() && !applied.behind, "{applied:?}");
        applied
    }

    /// The agent dies and comes back; what it started goes on.
    pub fn restart_agent(&mut self) {
        self.routers = Routers::open(self.host.clone()).expect("routers");
    }

    /// What `from` gets from a server at `address`: its name and whom it sees, or nothing when it isn't reached.
    pub fn reach(&self, from: &str, address: &str) -> Option<String> {
        let mut stream = self.connect(from, address)?;
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        // A balancer accepts and then finds nobody.
        let mut line = String::new();
        BufReader::new(&mut stream).read_line(&mut line).ok()?;
        Some(line.trim().to_owned()).filter(|l| !l.is_empty())
    }

    pub fn connect(&self, from: &str, address: &str) -> Option<TcpStream> {
        let address: SocketAddr = address.parse().expect("an address");
        self.part(from).within(move || TcpStream::connect_timeout(&address, DROPPED).ok()).expect("the namespace")
    }

    /// A server in a part of the lab: tells each client its name and the client's address, then echoes lines.
    pub fn serve(&self, part: &str, port: u16) {
        let name = part.to_owned();
        self.listen(part, port, move |mut stream, peer| {
            let _ = stream.write_all(format!("{name} {}\n", peer.ip()).as_bytes());
            let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
            let mut line = String::new();
            while matches!(reader.read_line(&mut line), Ok(n) if n > 0) {
                if stream.write_all(line.as_bytes()).is_err() {
                    break;
                }
                line.clear();
            }
        });
    }

    /// A web server in a part of the lab that answers its name, and sets a cookie when asked for /login.
    pub fn serve_http(&self, part: &str, port: u16) {
        let name = part.to_owned();
        self.listen(part, port, move |mut stream, _| {
            let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                if !matches!(reader.read_line(&mut request), Ok(n) if n > 0) {
                    return;
                }
            }
            let cookie =
                if request.contains("/login") { format!("Set-Cookie: SESSION={name}x\r\n") } else { String::new() };
            let length = name.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{cookie}Connection: close\r\n\r\n{name}");
            let _ = stream.write_all(head.as_bytes());
        });
    }

    fn listen(&self, part: &str, port: u16, serve: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static) {
        let listener = self.part(part).within(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
        let listener = listener.expect("the namespace").expect("a port");
        let serve = std::sync::Arc::new(serve);
        // Ends with the test's process.
        std::thread::spawn(move || {
            while let Ok((stream, peer)) = listener.accept() {
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream, peer));
            }
        });
    }

    /// A name server in a part of the lab that gives every name this address.
    pub fn serve_dns(&self, part: &str, address: Ipv4Addr) {
        let socket = self.part(part).within(|| UdpSocket::bind("0.0.0.0:53")).expect("the namespace").expect("a port");
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((n, peer)) = socket.recv_from(&mut query) {
                // Only the question is sent back: to its name's end, type and class.
                let Some(end) = query.get(12..n).and_then(|q| q.iter().position(|b| *b == 0)) else { continue };
                let mut answer = query[..12 + end + 5].to_vec();
                answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(address.octets());
                let _ = socket.send_to(&answer, peer);
            }
        });
    }

    /// Moves a guest to another host, which shares only the network of VXLAN with the first one.
    pub async fn move_guest(&self, part: &str) {
        run("ip", &format!("netns add {}-host2", self.id));
        self.ip("host2", "link set lo up");
        self.ip("host2", "link add under type bridge");
        self.ip("host2", "addr add 10.255.0.2/24 dev under");
        self.ip("host2", "link set under up");
        self.ip("host", &format!("link add wire type veth peer name wire netns {}-host2", self.id));
        for host in ["host", "host2"] {
            self.ip(host, "link set wire master under up");
        }
        let host = Host { network: self.part("host2"), ..self.host.clone() };
        let segments = router::Segments::new(host);
        let segment = segments.locate(BroadcastUri::Vxlan(77), Traffic::Guest, None);
        let bridge = segments.ensure(&segment).await.expect("the guests' bridge").name;
        self.ip("host", &format!("link set v-{part} netns {}-host2", self.id));
        self.ip("host2", &format!("link set v-{part} master {bridge} up"));
    }

    /// Asks a web server: the answer with its head.
    pub fn get(&self, from: &str, address: &str, path: &str, header: &str) -> Option<String> {
        let mut stream = self.connect(from, address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Asks the router's DNS for an address.
    pub fn resolve(&self, from: &str, name: &str) -> Option<Ipv4Addr> {
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        let asked = self.part(from).within(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
            socket.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
            socket.send_to(&query, SocketAddrV4::new(GUEST_GATEWAY.parse().ok()?, 53)).ok()?;
            let mut answer = [0; 512];
            let n = socket.recv(&mut answer).ok()?;
            Some(answer.get(..n)?.to_vec())
        });
        let answer = asked.expect("the namespace")?;
        // One answer of type A, whose four bytes end the message (no further sections).
        let count = u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]);
        let end = answer.get(answer.len().checked_sub(4)?..)?;
        (count == 1).then(|| Ipv4Addr::new(end[0], end[1], end[2], end[3]))
    }

    /// Runs a real DHCP client in a guest, which takes what it gets; what it was told, as the client's script sees it.
    pub fn dhcp(&self, part: &str) -> Option<String> {
        let told = self.dir.path().join(format!("{part}.told"));
        let script = self.dir.path().join("udhcpc.sh");
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr flush dev $interface\nip addr add $ip/$mask dev $interface\n\
             for r in $router; do ip route add default via $r; done\nenv >{}\n",
            told.display()
        );
        std::fs::write(&script, text).unwrap();
        run("chmod", &format!("755 {}", script.display()));
        let _ = std::fs::remove_file(&told);
        let net = format!("--net={}", self.part(part).path().display());
        let status = Command::new("nsenter")
            .args([
                &net, "--", "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "3", "-T", "1", "-O", "mtu",
                "-s",
            ])
            .arg(&script)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .expect("udhcpc");
        status.success().then(|| std::fs::read_to_string(&told).expect("what the script wrote"))
    }

    /// The processes that run in the router's namespace, with their arguments.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let dir = self.dir.path().to_string_lossy().into_owned();
        let pids =
            std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        let args = |pid: i32| {
            let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
        };
        pids.filter_map(|pid| Some((pid, args(pid)?))).filter(|(_, args): &(i32, String)| args.contains(&dir)).collect()
    }

    pub fn daemons(&self, name: &str) -> Vec<i32> {
        let all = self.processes();
        let mut pids: Vec<i32> =
            all.into_iter().filter(|(_, args)| args.starts_with(name)).map(|(pid, _)| pid).collect();
        pids.sort_unstable();
        pids
    }

    pub fn kill(&self, pid: i32) {
        run("kill", &format!("-9 {pid}"));
    }

    /// What a reboot takes away: processes, namespaces, devices, but no files.
    pub fn reboot(&self) {
        for (pid, _) in self.processes() {
            self.kill(pid);
        }
        run("ip", &format!("netns del {}", self.router_name()));
        for device in ["brvx-77", "vxlan77"] {
            self.ip("host", &format!("link del {device}"));
        }
    }

    /// Puts the guests back onto their bridge, as their start after a reboot does.
    pub fn replug_guests(&self) {
        for part in ["g1", "g2"] {
            self.ip("host", &format!("link set v-{part} master brvx-77 up"));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{}-", self.id)) {
                let _ = Command::new("ip").args(["netns", "del", &name]).status();
            }
        }
    }
}

/// Waits until something holds that comes by itself.
#[track_caller]
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        std::thread::yield_now();
    }
}

pub fn mac(n: u8) -> String {
    format!("02:00:0a:01:01:{n:02x}")
}

pub fn guest(n: u8) -> String {
    format!("10.1.1.{}", 10 + n)
}

/// A network with all services and no rules. Guests may send nothing.
pub fn spec() -> RouterSpec {
    let lease = |n| Lease { mac: mac(n), ip4: guest(n), host_name: format!("vm{n}"), ..Lease::default() };
    let vm = |n: u8| VmMetadata {
        ip4: guest(n),
        entries: [("meta-data/instance-id".to_owned(), format!("uuid-{n}"))].into(),
        user_data: Some(format!("#cloud-config {n}").into_bytes()),
        password: Some(format!("secret{n}")),
        password_id: Some("1".into()),
        vm_uuid: Some(format!("vm{n}")),
    };
    let public = ["10", "11", "12", "13"].map(|n| format!("198.51.100.{n}/24")).to_vec();
    RouterSpec {
        interfaces: Some(Interfaces {
            list: vec![
                Interface {
                    name: "guest".into(),
                    mac: "02:00:0a:01:01:ff".into(),
                    broadcast_uri: "vxlan://77".into(),
                    addresses: vec![format!("{GUEST_GATEWAY}/24")],
                    ..Interface::default()
                },
                Interface {
                    name: "public".into(),
                    mac: "02:00:c6:33:64:0a".into(),
                    broadcast_uri: "vlan://untagged".into(),
                    addresses: public,
                    gateway: OUTSIDE.into(),
                    ..Interface::default()
                },
            ],
        }),
        dhcp: Some(Dhcp {
            domain: "cs1.internal".into(),
            gateway: GUEST_GATEWAY.into(),
            netmask: "255.255.255.0".into(),
            dns: vec![GUEST_GATEWAY.into()],
            leases: vec![lease(1), lease(2)],
            ..Dhcp::default()
        }),
        dns: Some(Dns { domain: "cs1.internal".into(), ..Dns::default() }),
        nat: Some(Nat { source_nat_ip: SOURCE_NAT.into(), ..Nat::default() }),
        firewall: Some(Firewall::default()),
        load_balancers: Some(LoadBalancers::default()),
        metadata: Some(Metadata { vms: vec![vm(1), vm(2)] }),
    }
}

/// A firewall rule for TCP ports from everywhere; ingress when it has an address.
pub fn open(id: &str, public_ip: &str, first: u32, last: u32) -> FirewallRule {
    FirewallRule {
        id: id.into(),
        public_ip: public_ip.into(),
        protocol: "tcp".into(),
        start_port: Some(first),
        end_port: Some(last),
        ..FirewallRule::default()
    }
}

pub fn forward(id: &str, public_ip: &str, ports: (u32, u32), guest_ip: &str, guest_start: u32) -> PortForward {
    PortForward {
        id: id.into(),
        public_ip: public_ip.into(),
        protocol: "tcp".into(),
        public_start: ports.0,
        public_end: ports.1,
        guest_ip: guest_ip.into(),
        guest_start,
        guest_end: guest_start + ports.1 - ports.0,
        ..PortForward::default()
    }
}

pub fn balancer(id: &str, public_ip: &str, public_port: u32, private_port: u32) -> LoadBalancer {
    LoadBalancer {
        id: id.into(),
        public_ip: public_ip.into(),
        public_port,
        private_port,
        algorithm: "roundrobin".into(),
        protocol: "tcp".into(),
        members: vec![guest(1), guest(2)],
        ..LoadBalancer::default()
    }
}
