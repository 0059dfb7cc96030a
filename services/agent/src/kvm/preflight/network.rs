//! Devices, what the kernel can, and the way to the control plane.

use super::{Check, Preflight};
use router::{Device, Namespace};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Set by container engines; then frames between guests pass the machine's own packet filter.
const BRIDGE_FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

pub(super) async fn devices(preflight: &Preflight) -> Vec<Check> {
    let kvm = &preflight.kvm;
    let namespace = kvm.network_namespace.as_deref().map_or(Namespace::Own, Namespace::named);
    let mut wanted = vec![
        ("guest device".to_owned(), kvm.guest_device.clone()),
        ("public device".to_owned(), kvm.public_device.clone()),
    ];
    let labels: BTreeMap<_, _> = kvm.devices.iter().collect();
    wanted.extend(labels.into_iter().map(|(label, device)| (format!("label {label}"), device.clone())));
    let mut checks = Vec::new();
    for (name, device) in wanted {
        checks.push(one(&namespace, name, &device).await);
    }
    checks
}

async fn one(namespace: &Namespace, name: String, device: &str) -> Check {
    let make = format!(
        "ip link add {device} type bridge && ip link set {device} up (for good: netplan or /etc/network/interfaces, see the guide)"
    );
    match Device::find(namespace, device).await {
        Ok(Some(found)) if !found.is_bridge => Check::warn(
            name,
            format!("{device} isn't a bridge: it carries VLANs and VXLANs, but no untagged network"),
            "none needed without untagged networks; else a bridge with this device as its port, named in its place",
        ),
        Ok(Some(found)) if !found.up => {
            Check::fail(name, format!("{device} is down"), format!("ip link set {device} up"))
        }
        Ok(Some(found)) => {
            let addresses: Vec<String> = found.addresses.iter().map(ToString::to_string).collect();
            let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(", ") };
            Check::ok(name, format!("{device} is a bridge, MTU {}, {addresses}", found.mtu))
        }
        Ok(None) => Check::fail(name, format!("this machine has no device {device}"), make),
        Err(error) => Check::fail(name, error.to_string(), make),
    }
}

pub(super) fn kernel() -> Vec<Check> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let lists: String = ["modules.dep", "modules.builtin"]
        .iter()
        .map(|list| std::fs::read_to_string(format!("/lib/modules/{}/{list}", release.trim())).unwrap_or_default())
        .collect();
    let loaded = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    let mut checks: Vec<Check> = [("8021q", "VLANs"), ("vxlan", "VXLANs")]
        .into_iter()
        .map(|(module, what)| {
            let there = lists.contains(&format!("/{module}.ko"))
                || loaded.lines().any(|l| l.starts_with(&format!("{module} ")));
            if there {
                return Check::ok(module, format!("the kernel has {what}"));
            }
            let text = format!(
                "can't be told: no module of this kernel ({}) is listed; networks of {what} need it",
                release.trim()
            );
            Check::warn(module, text, format!("modprobe {module} (a kernel of the distribution has it)"))
        })
        .collect();
    if std::fs::read_to_string(BRIDGE_FILTER).is_ok_and(|v| v.trim() == "1") {
        checks.push(Check::warn(
            "bridge filter",
            "frames between guests pass the machine's own packet filter, which may drop them (Docker does)",
            "sysctl -w net.bridge.bridge-nf-call-iptables=0 (for good: a file in /etc/sysctl.d)",
        ));
    }
    let forwards = std::fs::read_to_string(FORWARD).is_ok_and(|v| v.trim() == "1");
    checks.push(match forwards {
        true => Check::ok("ip_forward", "on"),
        // Routers forward in namespaces of their own.
        false => Check::ok(
            "ip_forward",
            "off: fine, unless this machine itself is to route for guests (sysctl -w net.ipv4.ip_forward=1)",
        ),
    });
    checks
}

pub(super) async fn endpoints(preflight: &Preflight) -> Vec<Check> {
    let mut checks = Vec::new();
    for endpoint in &preflight.endpoints {
        let mend = "is the orchestrator's port for agents (8250) open to this machine? nc -vz HOST 8250";
        checks.push(match tokio::time::timeout(PATIENCE, TcpStream::connect(endpoint.as_str())).await {
            Ok(Ok(_)) => Check::ok("endpoint", format!("{endpoint} takes connections")),
            Ok(Err(error)) => Check::fail("endpoint", format!("{endpoint}: {error}"), mend),
            Err(_) => Check::fail("endpoint", format!("{endpoint} doesn't answer within {PATIENCE:?}"), mend),
        });
    }
    if checks.is_empty() {
        let text = "none is set: the agent doesn't know where the control plane is";
        checks.push(Check::warn(
            "endpoint",
            text,
            "endpoints = [\"HOST:8250\"] under [agent], or --endpoints HOST:8250",
        ));
    }
    checks
}
