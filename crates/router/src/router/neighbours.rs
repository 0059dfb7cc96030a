//! Guests' addresses bound to their MAC addresses.
//!
//! Who asks for metadata and passwords is told by the address that the connection comes from. A guest that takes another's
//! address, or claims it by ARP, gets no answer from this router all the same: what is sent to that address goes to the MAC
//! address of the NIC that has the lease, whatever neighbours say.

use super::Context;
use crate::host::HostError;
use crate::host::netlink::{self, Netlink};
use crate::plan::{Plan, Traffic};
use crate::values::Mac;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Binds those with a lease, and nobody else.
pub(super) async fn apply(context: &Context, plan: &Plan) -> Result<(), HostError> {
    let mut wanted: Vec<(String, BTreeMap<Ipv4Addr, Mac>)> = Vec::new();
    for nic in plan.of(Traffic::Guest) {
        let networks = nic.networks();
        let leases = plan.dhcp.iter().flat_map(|d| &d.leases);
        let here = leases.filter(|l| networks.iter().any(|n| n.contains(&l.ip)));
        wanted.push((nic.name.clone(), here.map(|l| (l.ip, l.mac)).collect()));
    }
    netlink::with(&context.namespace, |net| async move { bind(&net, wanted).await }).await
}

async fn bind(net: &Netlink, wanted: Vec<(String, BTreeMap<Ipv4Addr, Mac>)>) -> Result<(), HostError> {
    for (name, mut guests) in wanted {
        let Some(link) = net.link(&name).await? else { continue };
        for (ip, mac, message) in net.bound(link.index).await? {
            match guests.get(&ip) {
                Some(wanted) if wanted.0[..] == mac[..] => drop(guests.remove(&ip)),
                Some(_) => {} // it is replaced
                None => net.forget_neighbour(message).await?,
            }
        }
        for (ip, mac) in guests {
            net.bind_neighbour(link.index, ip, mac).await?;
        }
    }
    Ok(())
}
