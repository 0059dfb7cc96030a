//! A network as interfaces need it, cached. A view is never trusted blindly: the commit that uses one is conditional on
//! the router's `spec_generation` (or the network's state), which every change of the network itself raises.

use crate::address::{Range, Subnet, number};
use crate::catalogue::Offering;
use crate::store::networks::{self, Network};
use crate::store::nics::Nic;
use crate::store::routers::{self, Router};
use crate::store::{offerings, ranges};
use contract::ApiError;
use model::state::NetworkState;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use store::Db;

/// Views kept at most.
const KEEP: usize = 4096;

/// Addresses of a network with their gateway.
#[derive(Clone, Debug)]
pub struct Span {
    /// The addresses.
    pub range: Range,
    /// Gateway.
    pub gateway: String,
    /// Netmask.
    pub netmask: String,
}

/// A network with its offering, its router and its addresses.
#[derive(Clone, Debug)]
pub struct View {
    /// The row.
    pub network: Network,
    /// Its offering.
    pub offering: Offering,
    /// Its router, if there is one.
    pub router: Option<Router>,
    /// The addresses that guests may have; none on layer-2 networks.
    pub spans: Vec<Span>,
    /// Addresses within the spans that no guest gets: the gateways.
    pub reserved: Vec<Ipv4Addr>,
}

impl View {
    /// Reads a network.
    ///
    /// # Errors
    /// 431 when it is gone.
    pub async fn load(db: &Db, id: i64) -> Result<View, ApiError> {
        let gone = || ApiError::param(format!("Unable to find network by id {id}: it has been removed"));
        let network = networks::one(db, id).await?.ok_or_else(gone)?;
        let offering = offerings::by_ids(db, [network.offering_id])
            .await?
            .remove(&network.offering_id)
            .ok_or_else(|| ApiError::internal(format!("network {} has no offering", network.uuid)))?;
        let router = routers::of_network(db, id).await?;
        let (spans, reserved) = addresses(db, &network, &offering).await?;
        Ok(View { network, offering, router, spans, reserved })
    }

    /// Whether VMs can be plugged in now: implemented, and with a running router where it needs one.
    pub fn is_ready(&self) -> bool {
        self.network.state == NetworkState::Implemented
            && (!self.offering.needs_router() || self.router.as_ref().is_some_and(|r| r.state == routers::RUNNING))
    }

    /// Whether guests get addresses.
    pub fn has_addresses(&self) -> bool {
        !self.network.is("L2")
    }

    /// Gateway and netmask of an address.
    pub fn span_of(&self, address: u32) -> Option<&Span> {
        self.spans.iter().find(|s| s.range.contains(address))
    }

    /// How many guests the network can have.
    pub fn size(&self) -> u64 {
        let total: u64 = self.spans.iter().map(|s| s.range.size()).sum();
        let reserved = self.reserved.iter().filter(|ip| self.span_of(u32::from(**ip)).is_some()).count() as u64;
        total.saturating_sub(reserved)
    }

    /// Fills what an interface shows of its network.
    pub fn dress(&self, nic: &mut Nic, address: Option<u32>) {
        nic.network_id = self.network.id;
        nic.traffic_type.clone_from(&self.network.traffic_type);
        nic.guest_type.clone_from(&self.network.guest_type);
        nic.broadcast_uri.clone_from(&self.network.broadcast_uri);
        if let Some(address) = address {
            let ip = Ipv4Addr::from(address);
            nic.ip = Some(ip.to_string());
            nic.ip_number = Some(number(ip));
            if let Some(span) = self.span_of(address) {
                nic.gateway = Some(span.gateway.clone());
                nic.netmask = Some(span.netmask.clone());
            }
        }
    }
}

async fn addresses(db: &Db, network: &Network, offering: &Offering) -> Result<(Vec<Span>, Vec<Ipv4Addr>), ApiError> {
    if network.is("L2") {
        return Ok((Vec::new(), Vec::new()));
    }
    if offering.specify_ip_ranges || network.is("Shared") {
        let spans: Vec<Span> = ranges::of_network(db, network.id)
            .await?
            .into_iter()
            .map(|r| Span { range: r.addresses(), gateway: r.gateway, netmask: r.netmask })
            .collect();
        if !spans.is_empty() || network.is("Shared") {
            return Ok((spans, Vec::new()));
        }
    }
    let (Some(cidr), Some(gateway), Some(netmask)) = (&network.cidr, &network.gateway, &network.netmask) else {
        return Ok((Vec::new(), Vec::new()));
    };
    let range = Subnet::of_cidr(cidr)?.hosts();
    let reserved = gateway.parse().into_iter().collect();
    Ok((vec![Span { range, gateway: gateway.clone(), netmask: netmask.clone() }], reserved))
}

/// The views that this replica keeps.
#[derive(Default)]
pub struct Views(Mutex<HashMap<i64, Arc<View>>>);

impl Views {
    /// The network, perhaps a little old.
    ///
    /// # Errors
    /// 431 when it is gone.
    pub async fn get(&self, db: &Db, id: i64) -> Result<Arc<View>, ApiError> {
        if let Some(view) = self.lock().get(&id) {
            return Ok(view.clone());
        }
        self.fresh(db, id).await
    }

    /// The network as it is now.
    ///
    /// # Errors
    /// 431 when it is gone.
    pub async fn fresh(&self, db: &Db, id: i64) -> Result<Arc<View>, ApiError> {
        let view = Arc::new(View::load(db, id).await?);
        let mut all = self.lock();
        if all.len() >= KEEP {
            all.clear();
        }
        all.insert(id, view.clone());
        Ok(view)
    }

    /// Forgets a network: it has changed.
    pub fn forget(&self, id: i64) {
        self.lock().remove(&id);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Arc<View>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
