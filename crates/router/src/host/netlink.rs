//! Links, addresses, routes and rules by netlink: the one place that knows the library's messages.

use super::HostError;
use super::namespace::Namespace;
use crate::values::Mac;
use futures::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{
    AddressMessageBuilder, Handle, IpVersion, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVlan,
    LinkVxlan, RouteMessageBuilder,
};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

const ENODEV: i32 = 19;
const EEXIST: i32 = 17;
const ESRCH: i32 = 3;
const ENOENT: i32 = 2;
const EADDRNOTAVAIL: i32 = 99;
const EOPNOTSUPP: i32 = 95;

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub up: bool,
    /// Index of the bridge that it is a port of.
    pub controller: Option<u32>,
    pub is_bridge: bool,
    /// Its root queue is a token bucket: somebody limited what leaves by it.
    pub is_limited: bool,
}

/// A socket in one namespace.
pub(crate) struct Netlink(Handle);

/// Works with the links of a namespace, on a thread that ends with the work: a socket belongs to the namespace of the thread
/// that made it.
pub(crate) async fn with<T, W, F>(namespace: &Namespace, work: W) -> Result<T, HostError>
where
    T: Send + 'static,
    W: FnOnce(Netlink) -> F + Send + 'static,
    F: Future<Output = Result<T, HostError>>,
{
    let on_thread = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(|e| HostError::failed("netlink", e))?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| HostError::failed("netlink", e))?;
            let driver = tokio::spawn(connection);
            let done = work(Netlink(handle)).await;
            driver.abort();
            done
        })
    };
    namespace.run(on_thread).await?
}

fn code(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code().abs(),
        _ => 0,
    }
}

fn failed(what: impl std::fmt::Display, error: &rtnetlink::Error) -> HostError {
    match error {
        rtnetlink::Error::NetlinkError(message) => HostError::failed(what, message.to_io()),
        other => HostError::failed(what, other),
    }
}

/// That what is to be made is there already, or what is to go is gone, is as good as success.
fn unless(codes: &[i32], what: impl std::fmt::Display, done: Result<(), rtnetlink::Error>) -> Result<(), HostError> {
    match done {
        Err(error) if !codes.contains(&code(&error)) => Err(failed(what, &error)),
        _ => Ok(()),
    }
}

impl Netlink {
    pub async fn links(&self) -> Result<Vec<Link>, HostError> {
        let all: Vec<LinkMessage> =
            self.0.link().get().execute().try_collect().await.map_err(|e| failed("reading the links", &e))?;
        Ok(all.into_iter().map(link).collect())
    }

    pub async fn link(&self, name: &str) -> Result<Option<Link>, HostError> {
        let found = self.0.link().get().match_name(name).execute().try_next().await;
        match found {
            Ok(found) => Ok(found.map(link)),
            Err(error) if code(&error) == ENODEV => Ok(None),
            Err(error) => Err(failed(format!("reading link {name}"), &error)),
        }
    }

    pub async fn add_bridge(&self, name: &str) -> Result<(), HostError> {
        let done = self.0.link().add(LinkBridge::new(name).build()).execute().await;
        self.made(name, "bridges (CONFIG_BRIDGE)", done)
    }

    /// A VXLAN device on the device with this index.
    pub async fn add_vxlan(
        &self,
        name: &str,
        id: u32,
        device: u32,
        group: Ipv4Addr,
        port: u16,
    ) -> Result<(), HostError> {
        let message = LinkVxlan::new(name, id).dev(device).group(group).port(port).ttl(10).build();
        let done = self.0.link().add(message).execute().await;
        self.made(name, "VXLAN devices (CONFIG_VXLAN)", done)
    }

    /// An 802.1Q device on the device with this index.
    pub async fn add_vlan(&self, name: &str, id: u16, device: u32) -> Result<(), HostError> {
        let done = self.0.link().add(LinkVlan::new(name, device, id).build()).execute().await;
        self.made(name, "802.1Q VLAN devices (CONFIG_VLAN_8021Q, module 8021q)", done)
    }

    /// A pair: one end here, the other one in `peer_at` with the MAC address given.
    pub async fn add_pair(
        &self,
        here: &str,
        peer: &str,
        peer_at: &Namespace,
        mac: Mac,
        mtu: u32,
    ) -> Result<(), HostError> {
        let file = std::fs::File::open(peer_at.path()).map_err(|e| HostError::failed(peer_at.path().display(), e))?;
        let there = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer.to_owned())
            .address(mac.0.to_vec())
            .mtu(mtu)
            .setns_by_fd(file.as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(here.to_owned())
            .mtu(mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(there)))
            .build();
        let done = self.0.link().add(message).execute().await;
        self.made(here, "pairs of virtual devices (CONFIG_VETH)", done)
    }

    fn made(&self, name: &str, kind: &str, done: Result<(), rtnetlink::Error>) -> Result<(), HostError> {
        match done {
            Err(error) if code(&error) == EOPNOTSUPP => {
                Err(HostError::Refused(format!("this host's kernel can't make {kind}, which {name} needs")))
            }
            done => unless(&[EEXIST], format!("making {name}"), done),
        }
    }

    pub async fn delete_link(&self, index: u32) -> Result<(), HostError> {
        unless(&[ENODEV], "deleting a link", self.0.link().del(index).execute().await)
    }

    pub async fn set_up(&self, index: u32) -> Result<(), HostError> {
        self.set("bringing a link up", LinkUnspec::new_with_index(index).up().build()).await
    }

    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), HostError> {
        self.set("setting an MTU", LinkUnspec::new_with_index(index).mtu(mtu).build()).await
    }

    pub async fn set_mac(&self, index: u32, mac: Mac) -> Result<(), HostError> {
        self.set("setting a MAC address", LinkUnspec::new_with_index(index).address(mac.0.to_vec()).build()).await
    }

    /// Makes a link a port of the bridge with this index.
    pub async fn set_bridge(&self, index: u32, bridge: u32) -> Result<(), HostError> {
        self.set("plugging a link into a bridge", LinkUnspec::new_with_index(index).controller(bridge).build()).await
    }

    async fn set(&self, what: &str, message: LinkMessage) -> Result<(), HostError> {
        self.0.link().set(message).execute().await.map_err(|e| failed(what, &e))
    }

    /// The IPv4 addresses of a link, in the kernel's order.
    pub async fn addresses(&self, index: u32) -> Result<Vec<Ipv4Net>, HostError> {
        let get = self.0.address().get().set_link_index_filter(index).execute();
        let all: Vec<AddressMessage> = get.try_collect().await.map_err(|e| failed("reading addresses", &e))?;
        let read = |m: AddressMessage| {
            let local = m.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
                _ => None,
            })?;
            (m.header.index == index).then(|| Ipv4Net::new(local, m.header.prefix_len).ok())?
        };
        Ok(all.into_iter().filter_map(read).collect())
    }

    pub async fn add_address(&self, index: u32, address: Ipv4Net) -> Result<(), HostError> {
        let done = self.0.address().add(index, IpAddr::V4(address.addr()), address.prefix_len()).execute().await;
        unless(&[EEXIST], format!("adding address {address}"), done)
    }

    pub async fn delete_address(&self, index: u32, address: Ipv4Net) -> Result<(), HostError> {
        let message =
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address.addr(), address.prefix_len()).build();
        unless(&[EADDRNOTAVAIL, ENODEV], format!("deleting {address}"), self.0.address().del(message).execute().await)
    }

    /// Sets a route, in place of another one to the same destination in the table. `to` without prefix: everywhere.
    pub async fn set_route(&self, route: Route) -> Result<(), HostError> {
        let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
            .output_interface(route.device)
            .destination_prefix(route.to.network(), route.to.prefix_len())
            .table_id(route.table);
        builder = match route.via {
            Some(via) => builder.gateway(via),
            None => builder.scope(rtnetlink::packet_route::route::RouteScope::Link),
        };
        let done = self.0.route().add(builder.build()).replace().execute().await;
        done.map_err(|e| failed(format!("setting the route to {}", route.to), &e))
    }

    /// The routes of the tables that a router uses: those to everywhere in the main table, and all of tables above 100.
    pub async fn routes(&self) -> Result<Vec<(Route, RouteMessage)>, HostError> {
        let get = self.0.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let all: Vec<RouteMessage> = get.try_collect().await.map_err(|e| failed("reading routes", &e))?;
        Ok(all.into_iter().filter_map(|m| Some((route(&m)?, m))).collect())
    }

    pub async fn delete_route(&self, message: RouteMessage) -> Result<(), HostError> {
        unless(&[ESRCH], "deleting a route", self.0.route().del(message).execute().await)
    }

    /// The neighbours of a device that are bound to a MAC address for good.
    pub async fn bound(&self, index: u32) -> Result<Vec<(Ipv4Addr, Vec<u8>, NeighbourMessage)>, HostError> {
        let get = self.0.neighbours().get().set_address_family(AddressFamily::Inet).execute();
        let all: Vec<NeighbourMessage> = get.try_collect().await.map_err(|e| failed("reading neighbours", &e))?;
        let ours = |m: &NeighbourMessage| m.header.ifindex == index && m.header.state == NeighbourState::Permanent;
        Ok(all.into_iter().filter(ours).filter_map(|m| neighbour(&m).map(|(ip, mac)| (ip, mac, m))).collect())
    }

    /// Binds a neighbour's address to a MAC address: what it says by ARP doesn't matter any more.
    pub async fn bind_neighbour(&self, index: u32, ip: Ipv4Addr, mac: Mac) -> Result<(), HostError> {
        let request = self.0.neighbours().add(index, IpAddr::V4(ip)).link_layer_address(&mac.0).replace();
        request.execute().await.map_err(|e| failed(format!("binding {ip} to {mac}"), &e))
    }

    pub async fn forget_neighbour(&self, message: NeighbourMessage) -> Result<(), HostError> {
        unless(&[ENOENT], "forgetting a neighbour", self.0.neighbours().del(message).execute().await)
    }

    /// Rules with a priority of ours.
    pub async fn rules(&self) -> Result<Vec<(PolicyRule, RuleMessage)>, HostError> {
        let all: Vec<RuleMessage> =
            self.0.rule().get(IpVersion::V4).execute().try_collect().await.map_err(|e| failed("reading rules", &e))?;
        Ok(all.into_iter().filter_map(|m| Some((policy_rule(&m)?, m))).collect())
    }

    pub async fn add_rule(&self, rule: PolicyRule) -> Result<(), HostError> {
        let request = self.0.rule().add().v4().table_id(rule.table).priority(PRIORITY).action(RuleAction::ToTable);
        let request = match (rule.from, rule.mark) {
            (Some(from), _) => request.source_prefix(from, 32),
            (None, Some(mark)) => request.fw_mark(mark),
            (None, None) => return Ok(()),
        };
        unless(&[EEXIST], "adding a routing rule", request.execute().await)
    }

    pub async fn delete_rule(&self, message: RuleMessage) -> Result<(), HostError> {
        unless(&[ENOENT], "deleting a routing rule", self.0.rule().del(message).execute().await)
    }
}

/// Of our routing rules.
const PRIORITY: u32 = 1000;
/// The tables of further public interfaces begin after this one.
pub(crate) const TABLES: u32 = 100;
/// The table that is looked at without a rule.
pub(crate) const MAIN_TABLE: u32 = 254;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub to: Ipv4Net,
    pub via: Option<Ipv4Addr>,
    pub device: u32,
    pub table: u32,
}

/// Which packets look at a table: those from an address, or those with a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyRule {
    pub from: Option<Ipv4Addr>,
    pub mark: Option<u32>,
    pub table: u32,
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: Vec::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        controller: None,
        is_bridge: false,
        is_limited: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.controller = Some(index).filter(|i| *i != 0),
            LinkAttribute::Qdisc(kind) => link.is_limited = kind == "tbf",
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge = infos.iter().any(|i| matches!(i, LinkInfo::Kind(InfoKind::Bridge)));
            }
            _ => {}
        }
    }
    link
}

fn neighbour(message: &NeighbourMessage) -> Option<(Ipv4Addr, Vec<u8>)> {
    let (mut ip, mut mac) = (None, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => ip = Some(*address),
            NeighbourAttribute::LinkLayerAddress(address) => mac.clone_from(address),
            _ => {}
        }
    }
    Some((ip?, mac))
}

fn route(message: &RouteMessage) -> Option<Route> {
    if message.header.address_family != AddressFamily::Inet {
        return None;
    }
    let mut route = Route { to: Ipv4Net::default(), via: None, device: 0, table: message.header.table.into() };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                route.to = Ipv4Net::new(*ip, message.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => route.via = Some(*ip),
            RouteAttribute::Oif(index) => route.device = *index,
            RouteAttribute::Table(table) => route.table = *table,
            _ => {}
        }
    }
    let further = route.table > TABLES && route.table < 250;
    let everywhere = route.table == MAIN_TABLE && message.header.destination_prefix_length == 0;
    (further || everywhere).then_some(route)
}

fn policy_rule(message: &RuleMessage) -> Option<PolicyRule> {
    let mut rule = PolicyRule { from: None, mark: None, table: message.header.table.into() };
    let mut ours = false;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(PRIORITY) => ours = true,
            RuleAttribute::Source(IpAddr::V4(ip)) => rule.from = Some(*ip),
            RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
            RuleAttribute::Table(table) => rule.table = *table,
            _ => {}
        }
    }
    ours.then_some(rule)
}
