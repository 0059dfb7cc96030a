//! The networks of the test: a bridge between the control plane and the hosts, and an outside that public addresses belong to.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use testkit::Place;

/// Outside, and routers' way out.
pub const OUTSIDE: &str = "198.51.100.1";

/// Namespaces and the bridge between them. Dropped, nothing of it stays.
pub struct Network {
    id: String,
    bridge: String,
    base: [u8; 2],
    hosts: u8,
}

fn run(program: &str, args: &str) -> String {
    let output = Command::new(program).args(args.split(' ')).output().expect("the program");
    assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Removes something that may be gone already.
fn delete(args: &str) {
    let _ = Command::new("ip").args(args.split(' ')).stderr(Stdio::null()).status();
}

impl Network {
    /// Removes what tests left that were killed.
    fn sweep() {
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        for name in names.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            let Some((id, _)) = name.strip_prefix("ht").and_then(|rest| rest.split_once('-')) else { continue };
            let pid = id.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
            if !pid.is_empty() && !std::path::Path::new("/proc").join(pid).exists() {
                delete(&format!("netns del {name}"));
                delete(&format!("link del ht{id}"));
            }
        }
    }

    /// Without hosts.
    pub fn new() -> Network {
        Network::sweep();
        // Of this process: the next letter.
        static NEXT: AtomicU8 = AtomicU8::new(b'a');
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let id = format!("ht{pid}{}", char::from(next));
        let [_, _, high, low] = pid.to_be_bytes();
        let base = [128 | (high & 0x7f), low ^ (next << 6)];
        let network = Network { bridge: id.clone(), id, base, hosts: 0 };
        run("ip", &format!("link add {} type bridge", network.bridge));
        run("ip", &format!("addr add {}/24 dev {}", network.control(), network.bridge));
        run("ip", &format!("link set {} up", network.bridge));
        let outside = network.outside_name();
        run("ip", &format!("netns add {outside}"));
        run("ip", &format!("-n {outside} link set lo up"));
        run("ip", &format!("-n {outside} link add public type bridge"));
        run("ip", &format!("-n {outside} addr add {OUTSIDE}/24 dev public"));
        run("ip", &format!("-n {outside} link set public up"));
        network
    }

    fn outside_name(&self) -> String {
        format!("{}-out", self.id)
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b] = self.base;
        Ipv4Addr::new(10, a, b, last)
    }

    /// Where the control plane is.
    pub fn control(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The network that control plane and hosts are in.
    pub fn management(&self) -> String {
        format!("{}/24", self.address(0))
    }

    /// Addresses of the pod, first and last.
    pub fn pod(&self) -> (Ipv4Addr, Ipv4Addr) {
        (self.address(100), self.address(150))
    }

    /// Where everybody else is.
    pub fn outside(&self) -> Place {
        Place::namespace(&self.outside_name(), OUTSIDE)
    }

    /// A program that runs outside.
    pub fn outside_command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.outside_name(), program]);
        command
    }

    /// The network of one more host: `eth0` to the control plane and the other hosts, the bridge `cloudbr1` to the outside.
    pub fn add_host(&mut self) -> Place {
        self.hosts += 1;
        self.wire(self.hosts)
    }

    /// Cuts a host off, with all devices that it made: its namespace vanishes. They are counted from 1.
    pub fn cut(&self, n: u8) {
        delete(&format!("netns del {}-h{n}", self.id));
        // The namespace goes a moment after its last process: its ends of these go at once.
        delete(&format!("link del {}v{n}", self.bridge));
        delete(&format!("-n {} link del h{n}", self.outside_name()));
    }

    /// Gives a host its network, for the first time or again after [`Network::cut`].
    pub fn wire(&self, n: u8) -> Place {
        let (name, address) = (format!("{}-h{n}", self.id), self.address(10 + n));
        run("ip", &format!("netns add {name}"));
        run("ip", &format!("-n {name} link set lo up"));
        run("ip", &format!("link add {}v{n} type veth peer name eth0 netns {name}", self.bridge));
        run("ip", &format!("link set {0}v{n} master {0} up", self.bridge));
        run("ip", &format!("-n {name} addr add {address}/24 dev eth0"));
        run("ip", &format!("-n {name} link set eth0 up"));
        run("ip", &format!("-n {name} route add default via {}", self.control()));
        run("ip", &format!("-n {name} link add cloudbr1 type bridge"));
        run("ip", &format!("-n {name} link set cloudbr1 up"));
        let outside = self.outside_name();
        run("ip", &format!("-n {name} link add outside type veth peer name h{n} netns {outside}"));
        run("ip", &format!("-n {name} link set outside master cloudbr1 up"));
        run("ip", &format!("-n {outside} link set h{n} master public up"));
        Place::namespace(&name, address.to_string())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        (1..=self.hosts).for_each(|n| self.cut(n));
        delete(&format!("netns del {}", self.outside_name()));
        delete(&format!("link del {}", self.bridge));
    }
}
