//! The networks of the test: a bridge between the control plane and the hosts, and an outside that public addresses belong to.

use std::net::Ipv4Addr;
use std::process::Command;
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

impl Network {
    /// Without hosts.
    pub fn new() -> Network {
        let pid = std::process::id();
        let [_, _, high, low] = pid.to_be_bytes();
        let network =
            Network { id: format!("ht{pid}"), bridge: format!("ht{pid}"), base: [128 | (high & 0x7f), low], hosts: 0 };
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
        let n = self.hosts;
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
        let delete = |args: &str| drop(Command::new("ip").args(args.split(' ')).status());
        for n in 1..=self.hosts {
            delete(&format!("netns del {}-h{n}", self.id));
            delete(&format!("link del {}v{n}", self.bridge));
        }
        delete(&format!("netns del {}", self.outside_name()));
        delete(&format!("link del {}", self.bridge));
    }
}
