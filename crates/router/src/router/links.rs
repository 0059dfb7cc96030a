//! NICs, addresses, routes and the kernel's settings of a router.

use super::Context;
use crate::digest::digest;
use crate::host::HostError;
use crate::host::netlink::{self, MAIN_TABLE, Netlink, PolicyRule, Route, TABLES};
use crate::host::rates;
use crate::host::segments::{Plug, Segments};
use crate::plan::{Nic, Plan, Traffic};
use crate::ruleset::further_publics;
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::PoisonError;

/// What the names of a router's devices on the host begin with.
pub(super) fn host_prefix(uuid: &str) -> String {
    format!("rt{}-", digest([uuid.as_bytes()]).chars().take(8).collect::<String>())
}

fn host_end(uuid: &str, nic: &str) -> String {
    format!("{}{}", host_prefix(uuid), digest([nic.as_bytes()]).chars().take(4).collect::<String>())
}

/// Settings of the namespace that don't depend on the spec.
pub(super) async fn settings(context: &Context) -> Result<(), HostError> {
    let settings = [
        // Balancers and guests' servers bind addresses that come later.
        ("ipv4/ip_nonlocal_bind", "1"),
        // Removing the primary address of a network isn't to take the others away.
        ("ipv4/conf/all/promote_secondaries", "1"),
        ("ipv4/conf/default/promote_secondaries", "1"),
        // Neighbours are told when an address is at another MAC address than before.
        ("ipv4/conf/default/arp_notify", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/all/accept_redirects", "0"),
        ("ipv4/conf/default/accept_redirects", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
    ];
    write(context, settings.map(|(k, v)| (k.to_owned(), v)).to_vec()).await?;
    // A router speaks IPv4 only; a kernel without IPv6 has nothing to switch off.
    if std::path::Path::new("/proc/sys/net/ipv6").exists() {
        write(context, ["all", "default"].map(|d| (format!("ipv6/conf/{d}/disable_ipv6"), "1")).to_vec()).await?;
    }
    let up = |net: Netlink| async move {
        match net.link("lo").await? {
            Some(lo) if !lo.up => net.set_up(lo.index).await,
            _ => Ok(()),
        }
    };
    netlink::with(&context.namespace, up).await
}

/// Lets packets through. Not before the rules are there.
pub(super) async fn forward(context: &Context) -> Result<(), HostError> {
    write(context, vec![("ipv4/ip_forward".into(), "1")]).await
}

async fn write(context: &Context, settings: Vec<(String, &'static str)>) -> Result<(), HostError> {
    let work = move || {
        for (key, value) in settings {
            let path = PathBuf::from("/proc/sys/net").join(key);
            let now = std::fs::read_to_string(&path).unwrap_or_default();
            if now.trim() != value {
                std::fs::write(&path, value).map_err(|e| HostError::failed(path.display(), e))?;
            }
        }
        Ok(())
    };
    context.namespace.run(work).await?
}

/// Makes NICs, addresses and routes as planned, and removes all others.
pub(super) async fn apply(context: &Context, segments: &Segments, plan: &Plan) -> Result<(), HostError> {
    let there = netlink::with(&context.namespace, |net| async move { net.links().await }).await?;
    let there: BTreeSet<String> = there.into_iter().map(|l| l.name).collect();
    for nic in &plan.nics {
        let plug = Plug {
            here: host_end(&context.uuid, &nic.name),
            name: nic.name.clone(),
            at: context.namespace.clone(),
            mac: nic.mac,
            mtu: nic.mtu,
            keep: there.contains(&nic.name),
        };
        let segment = segments.locate(nic.uri, nic.traffic, nic.label.as_deref());
        segments.plug(&segment, plug).await?;
        context.at("plugged")?;
    }
    let mut filters: Vec<(String, &'static str)> = Vec::new();
    for nic in &plan.nics {
        // Strict towards guests, who must not pretend; loose outside, where there may be several ways.
        let value = if nic.traffic == Traffic::Guest { "1" } else { "2" };
        filters.push((format!("ipv4/conf/{}/rp_filter", nic.name), value));
    }
    write(context, filters).await?;
    let plan = plan.clone();
    netlink::with(&context.namespace, |net| async move { inside(&net, &plan).await }).await
}

/// Limits how fast the NICs are: what leaves by an end is what comes in by the other one.
pub(super) async fn rates(context: &Context, plan: &Plan) -> Result<(), HostError> {
    for nic in &plan.nics {
        let here = host_end(&context.uuid, &nic.name);
        for (namespace, device) in [(&context.namespace, &nic.name), (&context.host.network, &here)] {
            let name = device.clone();
            let link = netlink::with(namespace, |net| async move { net.link(&name).await }).await?;
            let Some(link) = link else { continue };
            let known = || context.limited.lock().unwrap_or_else(PoisonError::into_inner);
            let wanted = (link.index, nic.rate_mbps);
            // What there is says that there is a limit, and not which.
            let same = if link.is_limited { known().get(device) == Some(&wanted) } else { nic.rate_mbps == 0 };
            if !same {
                rates::shape(namespace, device, nic.rate_mbps).await?;
                known().insert(device.clone(), wanted);
            }
        }
    }
    Ok(())
}

/// Removes the router's devices from the host.
pub(super) async fn unplug(context: &Context) -> Result<(), HostError> {
    let prefix = host_prefix(&context.uuid);
    let work = move |net: Netlink| async move {
        for link in net.links().await?.into_iter().filter(|l| l.name.starts_with(&prefix)) {
            net.delete_link(link.index).await?;
        }
        Ok(())
    };
    netlink::with(&context.host.network, work).await
}

async fn inside(net: &Netlink, plan: &Plan) -> Result<(), HostError> {
    let links = net.links().await?;
    let mut indexes = Vec::new();
    for nic in &plan.nics {
        let link = links.iter().find(|l| l.name == nic.name);
        let link = link.ok_or_else(|| HostError::Failed(format!("interface {} isn't there", nic.name)))?;
        indexes.push((nic, link.index));
        if link.mac != nic.mac.0 {
            net.set_mac(link.index, nic.mac).await?;
        }
        if let Some(mtu) = nic.mtu.filter(|m| *m < link.mtu) {
            net.set_mtu(link.index, mtu).await?;
        }
        let news = addresses(net, nic, link.index).await?;
        if !link.up {
            net.set_up(link.index).await?;
        } else if news {
            // Setting the address that it has makes the kernel announce all of its IP addresses.
            net.set_mac(link.index, nic.mac).await?;
        }
    }
    for stale in links.iter().filter(|l| l.name != "lo" && !plan.nics.iter().any(|n| n.name == l.name)) {
        // Kernels put fallback tunnels into every namespace, which can't be deleted.
        if stale.mac.len() == 6 {
            net.delete_link(stale.index).await?;
        }
    }
    routes(net, plan, &indexes).await
}

/// Whether there are new ones.
async fn addresses(net: &Netlink, nic: &Nic, index: u32) -> Result<bool, HostError> {
    let there = net.addresses(index).await?;
    for address in there.iter().filter(|a| !nic.addresses.contains(a)) {
        net.delete_address(index, *address).await?;
    }
    let mut news = false;
    for address in nic.addresses.iter().filter(|a| !there.contains(a)) {
        net.add_address(index, *address).await?;
        news = true;
    }
    Ok(news)
}

async fn routes(net: &Netlink, plan: &Plan, indexes: &[(&Nic, u32)]) -> Result<(), HostError> {
    let index_of = |nic: &Nic| indexes.iter().find(|(n, _)| n.name == nic.name).map_or(0, |(_, index)| *index);
    let everywhere = Ipv4Net::default();
    let (mut routes, mut rules) = (Vec::new(), Vec::new());
    let way_out = plan.of(Traffic::Public).chain(plan.of(Traffic::Guest)).find(|n| n.gateway.is_some());
    if let Some(nic) = way_out {
        routes.push(Route { to: everywhere, via: nic.gateway, device: index_of(nic), table: MAIN_TABLE });
    }
    for (mark, nic) in further_publics(plan) {
        let (device, table) = (index_of(nic), TABLES + mark);
        routes.extend(nic.networks().into_iter().map(|to| Route { to, via: None, device, table }));
        if nic.gateway.is_some() {
            routes.push(Route { to: everywhere, via: nic.gateway, device, table });
        }
        rules.push(PolicyRule { from: None, mark: Some(mark), table });
        rules.extend(nic.addresses.iter().map(|a| PolicyRule { from: Some(a.addr()), mark: None, table }));
    }
    let there = net.routes().await?;
    for route in routes.iter().filter(|r| !there.iter().any(|(t, _)| t == *r)) {
        net.set_route(route.clone()).await?;
    }
    // A route that was replaced went with it; another device's stays until it is deleted.
    for (route, message) in net.routes().await? {
        if !routes.contains(&route) {
            net.delete_route(message).await?;
        }
    }
    let there = net.rules().await?;
    for rule in rules.iter().filter(|r| !there.iter().any(|(t, _)| t == *r)) {
        net.add_rule(rule.clone()).await?;
    }
    for (rule, message) in there {
        if !rules.contains(&rule) {
            net.delete_rule(message).await?;
        }
    }
    Ok(())
}
