//! Network cards.

use crate::world::{SECTOR, World, stop};
use contract_agent::VmNic;
use libvirt::XmlFlags;
use std::process::Command;
use testkit::Libvirtd;

/// A network namespace with a bridge, removed when dropped.
pub struct Namespace(pub String);

impl Namespace {
    pub fn new(what: &str) -> Namespace {
        let namespace = Namespace(format!("arcus-kvm-{}-{what}", std::process::id()));
        run(&["netns", "add", &namespace.0]);
        run(&["-n", &namespace.0, "link", "add", "cloudbr0", "type", "bridge"]);
        run(&["-n", &namespace.0, "link", "set", "cloudbr0", "up"]);
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

pub fn run(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn inside(namespace: &Namespace, command: &[&str]) -> String {
    run(&[&["netns", "exec", &namespace.0], command].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_is_plugged_into_its_network() {
    let test = "a_guest_is_plugged_into_its_network";
    if !Libvirtd::available(test) {
        return;
    }
    let namespace = Namespace::new("net");
    let Some(world) = World::start_in(test, &namespace.0).await else { return };
    let mut spec = world.spec(SECTOR).await;
    spec.nics.push(VmNic {
        uuid: "6b1f4a0e-0000-4000-8000-00000000000a".into(),
        mac: "02:00:4c:00:00:01".into(),
        broadcast_uri: "vlan://untagged".into(),
        default_nic: true,
        rate_mbps: 20,
        ..VmNic::default()
    });
    world.running(1, &spec).await;
    let ports = || run(&["-n", &namespace.0, "-o", "link", "show", "master", "cloudbr0"]);
    assert_eq!(ports().lines().count(), 1, "{}", ports());
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    let xml = world.libvirt(1).await.xml(&domain, XmlFlags::none()).await.unwrap();
    for part in ["02:00:4c:00:00:01", "<source bridge='cloudbr0'/>", "ua-6b1f4a0e-0000-4000-8000-00000000000a"] {
        assert!(xml.contains(part), "{part} is missing in {xml}");
    }
    // As fast as its offering says, each way, without libvirt's own queueing, which small kernels don't have.
    let shaped = inside(&namespace, &["tc", "qdisc", "show"]);
    assert!(shaped.contains("tbf") && shaped.contains("rate 20971Kbit"), "{shaped}");
    let policed = inside(&namespace, &["nft", "list", "ruleset", "netdev"]);
    assert!(policed.contains("arcus_rate_vnet") && policed.contains("limit rate over 2560 kbytes/second"), "{policed}");
    world.vm(1, stop(&spec, true)).await;
    assert_eq!(ports(), "");
    let left = || inside(&namespace, &["nft", "list", "tables", "netdev"]);
    testkit::wait_until(|| async { left().is_empty() }, std::time::Duration::from_secs(60)).await;
    world.end().await;
}
