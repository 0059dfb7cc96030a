//! A network's bridge on this host, which routers and guests are plugged into.
//!
//! Named as CloudStack's own KVM hosts name them (`brvx-77`, `breth1-100`), so that hosts can be taken over one by one.

use super::netlink::{self, Link, Netlink};
use super::{Host, HostError, rates};
use crate::plan::Traffic;
use crate::values::BroadcastUri;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::sync::Mutex;

/// A network as a host carries it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// How its frames travel.
    pub uri: BroadcastUri,
    /// The host's device below.
    pub device: String,
}

impl Segment {
    /// The bridge that carries it.
    pub fn bridge(&self) -> String {
        match self.uri {
            BroadcastUri::Untagged => self.device.clone(),
            BroadcastUri::Vxlan(id) => format!("brvx-{id}"),
            BroadcastUri::Vlan(id) => {
                let name = format!("br{}-{id}", self.device);
                // A device's name has at most 15 bytes.
                if name.len() <= 15 { name } else { format!("brv{}-{id}", short(&self.device, 6)) }
            }
        }
    }

    /// The device that joins the bridge with the other hosts; `None` when the bridge isn't ours.
    fn uplink(&self) -> Option<String> {
        match self.uri {
            BroadcastUri::Untagged => None,
            BroadcastUri::Vxlan(id) => Some(format!("vxlan{id}")),
            BroadcastUri::Vlan(id) => {
                let name = format!("{}.{id}", self.device);
                Some(if name.len() <= 15 { name } else { format!("v{}.{id}", short(&self.device, 8)) })
            }
        }
    }
}

fn short(text: &str, digits: usize) -> String {
    crate::digest::digest([text.as_bytes()]).chars().take(digits).collect()
}

/// The bridges of this host. Clones are one; there is to be one for a host, as it keeps making and removing apart.
#[derive(Clone)]
pub struct Segments {
    host: Host,
    alone: Arc<Mutex<()>>,
}

/// A bridge to plug into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// In bytes: no frame may be larger.
    pub mtu: u32,
}

impl Segments {
    /// The bridges of a host.
    pub fn new(host: Host) -> Segments {
        Segments { host, alone: Arc::default() }
    }

    /// Where a network is carried: by the device that its label names, or by that of its kind of traffic.
    pub fn locate(&self, uri: BroadcastUri, traffic: Traffic, label: Option<&str>) -> Segment {
        let wiring = &self.host.wiring;
        let device = match (label, traffic) {
            (Some(label), _) => wiring.labels.get(label).map_or(label, String::as_str),
            (None, Traffic::Guest) => &wiring.guest,
            (None, Traffic::Public) => &wiring.public,
        };
        Segment { uri, device: device.to_owned() }
    }

    /// Makes sure that a network's bridge is there and joined with the other hosts.
    ///
    /// # Errors
    /// The host lacks the device below, or its kernel can't do the kind of network: the text names what is missing.
    pub async fn ensure(&self, segment: &Segment) -> Result<Bridge, HostError> {
        let _alone = self.alone.lock().await;
        let segment = segment.clone();
        let port = self.host.wiring.vxlan_port;
        netlink::with(&self.host.network, move |net| async move { ensure(&net, &segment, port).await }).await
    }

    /// Makes a pair of devices whose host's end is a port of the network's bridge, unless it is there. `here` is the host's
    /// end; the other one is called `name` and lies in `at`.
    pub(crate) async fn plug(&self, segment: &Segment, plug: Plug) -> Result<(), HostError> {
        let _alone = self.alone.lock().await;
        let segment = segment.clone();
        let port = self.host.wiring.vxlan_port;
        let work = move |net: Netlink| async move {
            let bridge = ensure(&net, &segment, port).await?;
            let there = net.link(&bridge.name).await?;
            let bridge_index =
                there.map(|l| l.index).ok_or_else(|| HostError::Failed(format!("{} went", bridge.name)))?;
            let mtu = plug.mtu.unwrap_or(bridge.mtu).min(bridge.mtu);
            let mut here = net.link(&plug.here).await?;
            if !plug.keep
                && let Some(stale) = here.take()
            {
                net.delete_link(stale.index).await?;
            }
            if here.is_none() {
                net.add_pair(&plug.here, &plug.name, &plug.at, plug.mac, mtu).await?;
                here = net.link(&plug.here).await?;
            }
            let here = here.ok_or_else(|| HostError::Failed(format!("{} isn't there", plug.here)))?;
            if here.mtu != mtu {
                net.set_mtu(here.index, mtu).await?;
            }
            if here.controller != Some(bridge_index) {
                net.set_bridge(here.index, bridge_index).await?;
            }
            net.set_up(here.index).await
        };
        netlink::with(&self.host.network, work).await
    }

    /// Limits how fast a guest's device of this host may be, each way, in megabits a second; 0: no limit.
    ///
    /// # Errors
    /// The device isn't there, or the kernel can't.
    pub async fn limit(&self, device: &str, mbps: u64) -> Result<(), HostError> {
        rates::shape(&self.host.network, device, mbps).await?;
        rates::police(&self.host.network, device, mbps).await
    }

    /// Removes what limited devices that are gone.
    ///
    /// # Errors
    /// The kernel doesn't answer.
    pub async fn forget_limits(&self) -> Result<(), HostError> {
        rates::sweep(&self.host.network).await
    }

    /// Removes all bridges of ours that nothing is plugged into: guests may have ended while nobody looked. To be called
    /// before anybody plugs guests in.
    ///
    /// # Errors
    /// One can't be removed.
    pub async fn sweep(&self) -> Result<(), HostError> {
        let _alone = self.alone.lock().await;
        let work = move |net: Netlink| async move {
            let links = net.links().await?;
            for bridge in &links {
                let Some(id) = carried(&bridge.name) else { continue };
                let ports: Vec<_> = links.iter().filter(|l| l.controller == Some(bridge.index)).collect();
                if let [uplink] = ports.as_slice()
                    && carries(&uplink.name, id)
                {
                    net.delete_link(bridge.index).await?;
                    net.delete_link(uplink.index).await?;
                }
            }
            Ok(())
        };
        netlink::with(&self.host.network, work).await
    }

    /// Removes a network's bridge when nothing is plugged into it any more. A bridge that isn't ours stays.
    ///
    /// # Errors
    /// It can't be removed.
    pub async fn release(&self, segment: &Segment) -> Result<(), HostError> {
        let Some(uplink) = segment.uplink() else { return Ok(()) };
        let _alone = self.alone.lock().await;
        let bridge = segment.bridge();
        let work = move |net: Netlink| async move {
            let links = net.links().await?;
            let find = |name: &str| links.iter().find(|l| l.name == name);
            if let Some(bridge) = find(&bridge) {
                let ports = links.iter().filter(|l| l.controller == Some(bridge.index) && l.name != uplink);
                if ports.count() > 0 {
                    return Ok(());
                }
                net.delete_link(bridge.index).await?;
            }
            match find(&uplink) {
                Some(uplink) => net.delete_link(uplink.index).await,
                None => Ok(()),
            }
        };
        netlink::with(&self.host.network, work).await
    }
}

/// The number of the network that a bridge of ours carries, by the bridge's name.
fn carried(bridge: &str) -> Option<&str> {
    let (_, id) = bridge.strip_prefix("br")?.rsplit_once('-')?;
    (!id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())).then_some(id)
}

/// Whether a device joins that network with the other hosts.
fn carries(uplink: &str, id: &str) -> bool {
    let number = uplink.strip_prefix("vxlan").or_else(|| uplink.rsplit_once('.').map(|(_, vlan)| vlan));
    number == Some(id)
}

/// A pair of devices that plugs a namespace into a bridge.
pub(crate) struct Plug {
    pub here: String,
    pub name: String,
    pub at: super::namespace::Namespace,
    pub mac: crate::values::Mac,
    pub mtu: Option<u32>,
    /// The other end is there: what has the name of the host's end is the pair wanted. Else it is a leftover.
    pub keep: bool,
}

async fn ensure(net: &Netlink, segment: &Segment, vxlan_port: u16) -> Result<Bridge, HostError> {
    let name = segment.bridge();
    let below = net.link(&segment.device).await?;
    let missing = || {
        let Segment { uri, device } = segment;
        HostError::Refused(format!("this host has no device {device}, which is to carry {uri}"))
    };
    let Some(uplink) = segment.uplink() else {
        let bridge = below.ok_or_else(missing)?;
        if !bridge.is_bridge {
            return Err(HostError::Refused(format!("{name} is to carry {} and isn't a bridge", segment.uri)));
        }
        return Ok(Bridge { name, mtu: bridge.mtu });
    };
    let device = below.ok_or_else(missing)?.index;
    let mut made = Vec::new();
    let done = join(net, segment, &name, &uplink, device, vxlan_port, &mut made).await;
    if done.is_err() {
        // Nothing half made stays.
        for name in made {
            if let Ok(Some(link)) = net.link(&name).await {
                let _ = net.delete_link(link.index).await;
            }
        }
    }
    done.map(|mtu| Bridge { name, mtu })
}

async fn join(
    net: &Netlink,
    segment: &Segment,
    bridge: &str,
    uplink: &str,
    device: u32,
    vxlan_port: u16,
    made: &mut Vec<String>,
) -> Result<u32, HostError> {
    let gone = |name: &str| HostError::Failed(format!("{name} isn't there although it was made"));
    if net.link(uplink).await?.is_none() {
        match segment.uri {
            BroadcastUri::Vlan(id) => net.add_vlan(uplink, id, device).await?,
            BroadcastUri::Vxlan(id) => net.add_vxlan(uplink, id, device, group(id), vxlan_port).await?,
            BroadcastUri::Untagged => {}
        }
        made.push(uplink.to_owned());
    }
    if net.link(bridge).await?.is_none() {
        net.add_bridge(bridge).await?;
        made.push(bridge.to_owned());
    }
    let bridge_link: Link = net.link(bridge).await?.ok_or_else(|| gone(bridge))?;
    let uplink_link: Link = net.link(uplink).await?.ok_or_else(|| gone(uplink))?;
    if uplink_link.controller != Some(bridge_link.index) {
        net.set_bridge(uplink_link.index, bridge_link.index).await?;
    }
    net.set_up(uplink_link.index).await?;
    net.set_up(bridge_link.index).await?;
    Ok(uplink_link.mtu)
}

/// The multicast group of a VXLAN, as CloudStack's hosts form it.
fn group(id: u32) -> Ipv4Addr {
    let [_, b, c, d] = id.to_be_bytes();
    Ipv4Addr::new(239, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit() {
        for device in ["eth0", "cloudbr1", "a-long-device-n"] {
            for uri in [BroadcastUri::Vlan(4094), BroadcastUri::Vxlan(0xff_ffff), BroadcastUri::Untagged] {
                let segment = Segment { uri, device: device.into() };
                assert!(segment.bridge().len() <= 15, "{}", segment.bridge());
                assert!(segment.uplink().is_none_or(|u| u.len() <= 15), "{:?}", segment.uplink());
            }
        }
        let vlan = Segment { uri: BroadcastUri::Vlan(100), device: "eth1".into() };
        assert_eq!((vlan.bridge(), vlan.uplink()), ("breth1-100".into(), Some("eth1.100".into())));
        assert_eq!(
            (carried("breth1-100"), carried("brvx-77"), carried("br0"), carried("br-lan")),
            (Some("100"), Some("77"), None, None)
        );
        assert!(
            carries("eth1.100", "100")
                && carries("vxlan77", "77")
                && !carries("eth1.10", "100")
                && !carries("eth0", "0")
        );
        assert_eq!(group(77), Ipv4Addr::new(239, 0, 0, 77));
    }
}
