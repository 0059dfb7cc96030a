//! Where each part runs: names, addresses, namespaces.

use crate::namespaces::Namespaces;
use crate::{Options, SERVICES};
use anyhow::{Context as _, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use testkit::Place;

/// The balancer's ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    pub api: SocketAddr,
    pub grpc: SocketAddr,
    pub agents: SocketAddr,
    pub metrics: SocketAddr,
}

/// The ports that `make run` has, too.
const API: u16 = 8080;
const GRPC: u16 = 9090;
const AGENTS: u16 = 8250;
const METRICS: u16 = 9091;
/// Of services, where each has an address of its own.
const SERVICE: u16 = 9700;

/// One replica of a service.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub name: String,
    pub service: &'static str,
    pub place: Place,
    pub listen: SocketAddr,
    pub metrics: SocketAddr,
    /// Of gateways.
    pub grpc: Option<SocketAddr>,
    /// Of orchestrators.
    pub agents: Option<SocketAddr>,
}

/// The whole.
#[derive(Debug)]
pub(crate) struct Layout {
    pub etcd: Vec<Place>,
    pub databases: Vec<Place>,
    pub replicas: Vec<Replica>,
    pub agent: Place,
    pub balancer: Place,
    pub front: Front,
}

/// "etcd-1", "etcd-2", …
pub(crate) fn names(kind: &str, n: usize) -> Vec<String> {
    (1..=n).map(|i| format!("{kind}-{i}")).collect()
}

/// The names of all parts.
pub(crate) fn all_names(options: &Options) -> Vec<String> {
    let mut all = vec!["balancer".to_owned(), "agent-1".to_owned()];
    all.extend(names("etcd", options.etcd));
    all.extend(names("database", options.galera));
    for service in SERVICES {
        all.extend(names(service, options.replicas));
    }
    all
}

impl Layout {
    /// Gives everything an address. `fixed`: the balancer gets the ports that people know.
    pub(crate) fn new(options: &Options, namespaces: Option<&Namespaces>, fixed: bool) -> Result<Layout> {
        let place = |name: &str| namespaces.map_or_else(|| Ok(Place::default()), |n| n.place(name));
        let places = |kind: &str, n: usize| names(kind, n).iter().map(|name| place(name)).collect::<Result<Vec<_>>>();
        let mut replicas = Vec::new();
        for service in SERVICES {
            for name in names(service, options.replicas) {
                let place = place(&name)?;
                let gateway = service == "gateway";
                let listen = address(&place, if gateway { API } else { SERVICE })?;
                let metrics = address(&place, METRICS)?;
                let grpc = if gateway { Some(address(&place, GRPC)?) } else { None };
                let agents = if service == "orchestrator" { Some(address(&place, AGENTS)?) } else { None };
                replicas.push(Replica { name, service, place, listen, metrics, grpc, agents });
            }
        }
        let balancer = place("balancer")?;
        let at = |port| if fixed { Ok(SocketAddr::new(ip(&balancer)?, port)) } else { address(&balancer, port) };
        let front = Front { api: at(API)?, grpc: at(GRPC)?, agents: at(AGENTS)?, metrics: at(METRICS)? };
        Ok(Layout {
            etcd: places("etcd", options.etcd)?,
            databases: places("database", options.galera)?,
            replicas,
            agent: place("agent-1")?,
            balancer,
            front,
        })
    }

    /// Replicas of one service.
    pub(crate) fn of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Replica> {
        self.replicas.iter().filter(move |r| r.service == service)
    }
}

fn ip(place: &Place) -> Result<IpAddr> {
    place.address.parse().with_context(|| format!("{} is no address", place.address))
}

/// `port`, where the place has an address of its own; on loopback any free one.
fn address(place: &Place, port: u16) -> Result<SocketAddr> {
    let ip = ip(place)?;
    let port = if ip == IpAddr::V4(Ipv4Addr::LOCALHOST) { testkit::free_port() } else { port };
    Ok(SocketAddr::new(ip, port))
}
