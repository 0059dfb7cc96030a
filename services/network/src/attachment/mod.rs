//! Interfaces of VMs: addresses given and taken back, networks made ready for a host.

mod allocate;
mod change;
mod check;
mod default;
mod exchange;
mod lifecycle;
mod rate;

pub use allocate::allocate;
pub use change::{remove, set_default, tell};
pub use check::check;
pub use default::default_network;
pub use exchange::exchange;
pub use lifecycle::{change_host, prepare, release, unprepare};
pub use rate::rated;

use crate::store::nics::Nic;
use contract_network::{NicSpec, NicsResponse};
use std::time::Duration;

/// How long a call waits for routers.
const ROUTER_TIME: Duration = Duration::from_secs(30);
/// How often a call looks anew when its network changes under it.
const TRIES: usize = 24;

fn spec(nic: &Nic) -> NicSpec {
    NicSpec {
        id: nic.id,
        uuid: nic.uuid.clone(),
        network_id: nic.network_id,
        device_id: i32::try_from(nic.device_id).unwrap_or_default(),
        default_nic: nic.is_default,
        mac: nic.mac.clone(),
        ip4: nic.ip.clone().unwrap_or_default(),
        netmask: nic.netmask.clone().unwrap_or_default(),
        gateway: nic.gateway.clone().unwrap_or_default(),
        broadcast_uri: nic.broadcast_uri.clone().unwrap_or_default(),
        traffic_type: nic.traffic_type.clone(),
        guest_type: nic.guest_type.clone().unwrap_or_default(),
        rate_mbps: None,
    }
}

fn response<'a>(nics: impl IntoIterator<Item = &'a Nic>) -> NicsResponse {
    NicsResponse { nics: nics.into_iter().map(spec).collect() }
}
