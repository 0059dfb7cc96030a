//! A container on a bridge, with an address of a DHCP server.

use crate::common::SECOND;
use crate::world::{World, available, stop};
use contract_agent::VmNic;
use std::process::Command;

/// A network namespace with a bridge, removed when dropped.
struct Namespace(String);

impl Namespace {
    fn new() -> Namespace {
        let namespace = Namespace(format!("arcus-lxc-{}", std::process::id()));
        ip(&["netns", "add", &namespace.0]);
        ip(&["-n", &namespace.0, "link", "add", "cloudbr0", "type", "bridge"]);
        ip(&["-n", &namespace.0, "addr", "add", "10.7.0.1/24", "dev", "cloudbr0"]);
        ip(&["-n", &namespace.0, "link", "set", "cloudbr0", "up"]);
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_plugged_into_its_network_and_gets_an_address() {
    let test = "a_container_is_plugged_into_its_network_and_gets_an_address";
    if !available(test) {
        return;
    }
    let namespace = Namespace::new();
    let Some(world) = World::start_in(test, &namespace.0).await else { return };
    let mut spec = world.spec().await;
    spec.nics.push(VmNic {
        uuid: "6b1f4a0e-0000-4000-8000-00000000000a".into(),
        mac: "02:00:4c:00:00:01".into(),
        broadcast_uri: "vlan://untagged".into(),
        default_nic: true,
        ..VmNic::default()
    });
    let folder = testkit::temp_dir();
    let words = [
        "ip",
        "netns",
        "exec",
        &namespace.0,
        "dnsmasq",
        "--no-daemon",
        "--conf-file=/dev/null",
        "--port=0",
        "--bind-interfaces",
        "--interface=cloudbr0",
        "--dhcp-range=10.7.0.50,10.7.0.50",
        "--dhcp-host=02:00:4c:00:00:01,10.7.0.50",
    ];
    let mut command: Vec<String> = words.map(str::to_owned).to_vec();
    command.push(format!("--dhcp-leasefile={}", folder.path().join("leases").display()));
    command.push(format!("--pid-file={}", folder.path().join("pid").display()));
    let _dnsmasq = testkit::Process::start(&command, &folder.path().join("log"), None);
    world.running(1, &spec, 1).await;
    let ports = || ip(&["-n", &namespace.0, "-o", "link", "show", "master", "cloudbr0"]);
    assert_eq!(ports().lines().count(), 1, "{}", ports());
    let links = world.inside(1, &spec, "ip link show eth0").await;
    assert!(links.contains("02:00:4c:00:00:01"), "{links}");
    let got = || async {
        let words = ["netns", "exec", &namespace.0, "curl", "-s", "-m", "5", "http://10.7.0.50/address"];
        Command::new("ip").args(words).output().is_ok_and(|output| output.stdout == b"10.7.0.50\n")
    };
    testkit::wait_until(got, 60 * SECOND).await;
    world.vm(1, stop(&spec, false)).await;
    assert_eq!(ports(), "");
    world.end().await;
}
