//! With real bridges and routers, on a host that is a network namespace.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed

use super::*;
use contract_agent::{Dhcp, Interface, Interfaces, Lease, RouterSpec};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const UUID: &str = "5b0c1c52-0000-4000-8000-00000000f00d";

struct HostNamespace {
    name: String,
    dir: tempfile::TempDir,
}

fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl HostNamespace {
    /// `None`, said aloud, where the machine can't.
    fn new(test: &str) -> Option<HostNamespace> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = rustix::process::geteuid().is_root();
        let missing: Vec<&str> = ["ip", "nft", "dnsmasq", "haproxy", "nsenter"]
            .into_iter()
            .filter(|tool| {
                let path = std::env::var("PATH").unwrap_or_default();
                !path.split(':').chain(["/usr/sbin"]).any(|d| std::path::Path::new(d).join(tool).exists())
            })
            .collect();
        if !root || !missing.is_empty() {
            use std::io::Write as _;
            let why = format!("\n!!! SKIPPED: {test}: needs root and {missing:?} (deploy/setup-dev test)\n");
            let _ = std::io::stderr().write_all(why.as_bytes());
            return None;
        }
        let name = format!("kn{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&format!("netns add {name}-host"));
        for device in ["under", "pub0"] {
            ip(&format!("-n {name}-host link add {device} type bridge"));
            ip(&format!("-n {name}-host link set {device} up"));
        }
        ip(&format!("-n {name}-host addr add 10.255.0.1/24 dev under"));
        let dir = tempfile::Builder::new().prefix("kn").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Some(HostNamespace { name, dir })
    }

    fn config(&self) -> NetworkConfig {
        NetworkConfig {
            namespace: Namespace::named(&format!("{}-host", self.name)),
            namespace_prefix: format!("{}-r-", self.name),
            ..NetworkConfig::new(self.dir.path().join("r"), Wiring::new("under", "pub0"))
        }
    }

    fn links(&self) -> String {
        ip(&format!("-n {}-host -o link", self.name))
    }

    fn router(&self, args: &str) -> String {
        ip(&format!("-n {}-r-{UUID} {args}", self.name))
    }
}

impl Drop for HostNamespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &format!("{}-r-{UUID}", self.name)]).output();
        let _ = Command::new("ip").args(["netns", "del", &format!("{}-host", self.name)]).output();
    }
}

fn nic(uri: &str) -> VmNic {
    VmNic { broadcast_uri: uri.into(), ..VmNic::default() }
}

fn spec(addresses: &[&str]) -> RouterSpec {
    let list = vec![Interface {
        name: "guest".into(),
        mac: "02:00:00:00:77:01".into(),
        broadcast_uri: "vxlan://77".into(),
        addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        ..Interface::default()
    }];
    RouterSpec { interfaces: Some(Interfaces { list }), ..RouterSpec::default() }
}

fn order(generation: i64, base: i64, changes: RouterSpec) -> ApplyRouter {
    ApplyRouter { router_uuid: UUID.into(), generation, base, changes: Some(changes), ..ApplyRouter::default() }
}

#[tokio::test]
async fn bridges_are_made_and_go_when_nothing_needs_them() {
    let Some(host) = HostNamespace::new("bridges_are_made_and_go_when_nothing_needs_them") else { return };
    let network = Network::open(host.config()).await.unwrap();
    let nics = [nic("vxlan://77")];
    let plug = network.plug(&nics[0]).await.unwrap();
    assert_eq!(plug.bridge, "brvx-77");
    assert!(plug.mtu.is_some_and(|m| (1000..1500).contains(&m)), "{:?}", plug.mtu);
    assert!(host.links().contains("brvx-77"));
    // A guest is about to be plugged in: another one's end leaves the bridge alone.
    network.unplug(&nics).await;
    assert!(host.links().contains("brvx-77"));
    drop(plug);
    network.unplug(&nics).await;
    assert!(!host.links().contains("brvx-77") && !host.links().contains("vxlan77"));
    // One whose guest ended while the agent was away.
    drop(network.plug(&nics[0]).await.unwrap());
    network.settle().await;
    assert!(!host.links().contains("brvx-77") && !host.links().contains("vxlan77") && host.links().contains("under"));
    // The administrator's own bridge is used as it is, and stays.
    let plug = network.plug(&nic("vlan://untagged")).await.unwrap();
    assert_eq!(plug.bridge, "under");
    drop(plug);
    network.unplug(&[nic("vlan://untagged")]).await;
    assert!(host.links().contains("under"));
    assert_eq!(network.plug(&nic("lswitch:7")).await.unwrap_err().code, 431);
    let config = NetworkConfig { wiring: Wiring::new("nothere", "pub0"), ..host.config() };
    let other = Network::open(NetworkConfig { state_dir: host.dir.path().join("o"), ..config }).await.unwrap();
    let error = other.plug(&nic("vxlan://78")).await.unwrap_err();
    assert!(error.text.contains("no device nothere"), "{}", error.text);
}

#[tokio::test]
async fn a_router_follows_its_orders_and_survives_the_agent() {
    let Some(host) = HostNamespace::new("a_router_follows_its_orders_and_survives_the_agent") else { return };
    let network = Network::open(host.config()).await.unwrap();
    // A change of something that this host was never told.
    let behind = network.apply_router(&order(3, 2, spec(&["10.1.1.1/24"]))).await.unwrap();
    assert!(behind.behind);
    assert!(network.routers_now().is_empty());
    let mut whole = spec(&["10.1.1.1/24"]);
    whole.dhcp = Some(Dhcp {
        domain: "x.test".into(),
        gateway: "10.1.1.1".into(),
        netmask: "255.255.255.0".into(),
        leases: vec![Lease { mac: "02:00:00:00:00:05".into(), ip4: "10.1.1.5".into(), ..Lease::default() }],
        ..Dhcp::default()
    });
    let applied = network.apply_router(&order(3, 0, whole)).await.unwrap();
    assert_eq!((applied.generation, applied.behind, applied.faults.len()), (3, false, 0), "{:?}", applied.faults);
    assert!(host.router("-o addr").contains("10.1.1.1/24"));
    // A delta touches its sections only; an older one says what there is.
    let applied = network.apply_router(&order(4, 3, spec(&["10.1.1.1/24", "10.1.1.2/24"]))).await.unwrap();
    assert_eq!((applied.generation, applied.faults.len()), (4, 0));
    assert_eq!(network.apply_router(&order(2, 0, spec(&[]))).await.unwrap().generation, 4);
    assert_eq!(network.routers_now().iter().map(|r| r.generation).collect::<Vec<_>>(), [4]);

    // The agent ends; somebody breaks the router; the agent that starts mends it from the router's own folder.
    drop(network);
    host.router("addr del 10.1.1.2/24 dev guest");
    let network = Network::open(host.config()).await.unwrap();
    assert_eq!(network.routers_now().iter().map(|r| r.generation).collect::<Vec<_>>(), [4]);
    testkit::wait_until(|| async { host.router("-o addr").contains("10.1.1.2/24") }, Duration::from_secs(20)).await;
    network.remove_router(UUID).await.unwrap();
    network.remove_router(UUID).await.unwrap();
    assert!(network.routers_now().is_empty());
    assert!(!ip("netns").contains(&format!("{}-r-{UUID}", host.name)), "the namespace went");
    assert!(!host.links().contains("brvx-77"), "and the bridge with it");
}
