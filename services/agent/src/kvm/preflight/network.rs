//! Devices, and the way to the control plane.

use super::{Check, Preflight};
use router::{Device, Namespace};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

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
