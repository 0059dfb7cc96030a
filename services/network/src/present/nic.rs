//! Interfaces.

use super::{Names, Wanted};
use crate::store::nics::Nic;
use contract_network as api;
use store::{Db, Result};

/// One interface.
pub fn nic(n: &Nic, network: (Option<String>, Option<String>), root: bool) -> api::Nic {
    // As 4.11: where frames go is for root admins.
    let uri = n.broadcast_uri.clone().filter(|_| root);
    api::Nic {
        id: Some(n.uuid.clone()),
        network_id: network.0,
        network_name: network.1,
        netmask: n.netmask.clone(),
        gateway: n.gateway.clone(),
        ip_address: n.ip.clone(),
        isolation_uri: uri.clone(),
        broadcast_uri: uri,
        traffic_type: Some(n.traffic_type.clone()),
        r#type: n.guest_type.clone(),
        is_default: Some(n.is_default),
        mac_address: Some(n.mac.clone()),
        device_id: Some(n.device_id.to_string()),
        virtual_machine_id: n.vm_uuid.clone(),
        ..api::Nic::default()
    }
}

/// Interfaces of one VM.
pub async fn nics(db: &Db, rows: &[Nic], root: bool) -> Result<Vec<api::Nic>> {
    let wanted = Wanted { networks: rows.iter().map(|n| n.network_id).collect(), ..Wanted::default() };
    let names = Names::of(db, wanted).await?;
    Ok(rows.iter().map(|n| nic(n, names.network(Some(n.network_id)), root)).collect())
}
