//! What a host's network devices are: for what a host says of itself, and for whoever checks it.

use super::HostError;
use super::namespace::Namespace;
use super::netlink::{self, MAIN_TABLE};
use crate::values::Mac;
use ipnet::Ipv4Net;

/// A network device of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its MAC address; devices without one (tunnels, loopback) say zeros.
    pub mac: Mac,
    /// In bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is a bridge.
    pub is_bridge: bool,
    /// Its IPv4 addresses, the first one is the primary.
    pub addresses: Vec<Ipv4Net>,
}

impl Device {
    /// The device of this name; `None` when there is none.
    ///
    /// # Errors
    /// The namespace can't be entered, or the kernel doesn't answer.
    pub async fn find(namespace: &Namespace, name: &str) -> Result<Option<Device>, HostError> {
        let name = name.to_owned();
        netlink::with(namespace, move |net| async move {
            let Some(link) = net.link(&name).await? else { return Ok(None) };
            let addresses = net.addresses(link.index).await?;
            Ok(Some(device(link, addresses)))
        })
        .await
    }

    /// All of them.
    ///
    /// # Errors
    /// As [`Device::find`].
    pub async fn all(namespace: &Namespace) -> Result<Vec<Device>, HostError> {
        netlink::with(namespace, |net| async move {
            let mut devices = Vec::new();
            for link in net.links().await? {
                let addresses = net.addresses(link.index).await?;
                devices.push(device(link, addresses));
            }
            Ok(devices)
        })
        .await
    }

    /// The device that carries the default route; `None` without such a route.
    ///
    /// # Errors
    /// As [`Device::find`].
    pub async fn way_out(namespace: &Namespace) -> Result<Option<Device>, HostError> {
        netlink::with(namespace, |net| async move {
            let routes = net.routes().await?;
            let index = routes.iter().map(|(route, _)| route).find(|r| r.table == MAIN_TABLE).map(|r| r.device);
            let Some(index) = index else { return Ok(None) };
            let link = net.links().await?.into_iter().find(|l| l.index == index);
            let Some(link) = link else { return Ok(None) };
            let addresses = net.addresses(index).await?;
            Ok(Some(device(link, addresses)))
        })
        .await
    }
}

fn device(link: netlink::Link, addresses: Vec<Ipv4Net>) -> Device {
    let mac = <[u8; 6]>::try_from(link.mac.as_slice()).unwrap_or_default();
    Device { name: link.name, mac: Mac(mac), mtu: link.mtu, up: link.up, is_bridge: link.is_bridge, addresses }
}
