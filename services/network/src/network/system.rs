//! The system's own networks: one a zone for public, management, control and storage traffic.

use crate::store::networks::{self, Network};
use crate::store::zones::Zone;
use crate::world::World;
use contract::ApiError;
use model::Owner;
use model::state::NetworkState;
use store::{Error, Tx};

/// Traffic, number of its offering (see `offerings.json`), broadcast domain.
const SYSTEM: &[(&str, i64, &str)] =
    &[("Public", 1, "Vlan"), ("Management", 2, "Native"), ("Control", 3, "LinkLocal"), ("Storage", 4, "Native")];

/// Networks that a zone lacks.
pub struct SystemNetworks(Vec<Network>);

/// What of its system networks a zone lacks.
///
/// # Errors
/// Those of the database.
pub async fn system_networks(world: &World, zone: &Zone) -> Result<SystemNetworks, ApiError> {
    let db = &world.node.db;
    let mut missing = Vec::new();
    for (traffic, offering, broadcast) in SYSTEM {
        if networks::system(db, zone.id, traffic).await?.is_some() {
            continue;
        }
        missing.push(Network {
            id: db.next_id("networks").await?,
            uuid: model::new_uuid(),
            name: None,
            display_text: None,
            zone_id: zone.id,
            physical_network_id: None,
            offering_id: *offering,
            traffic_type: (*traffic).to_owned(),
            guest_type: None,
            broadcast_type: (*broadcast).to_owned(),
            broadcast_uri: None,
            vnet: None,
            specified_vlan: false,
            gateway: None,
            netmask: None,
            cidr: None,
            network_cidr: None,
            network_domain: None,
            external_id: None,
            state: NetworkState::Setup,
            acl_type: None,
            subdomain_access: false,
            is_public: false,
            is_system: true,
            display_network: true,
            restart_required: false,
            owner: Owner { account_id: 1, domain_id: 1, domain_path: "/1/".into() },
            generation: 0,
        });
    }
    Ok(SystemNetworks(missing))
}

impl SystemNetworks {
    /// Writes them.
    ///
    /// # Errors
    /// 530 when another request does so at the same time.
    pub async fn write(&self, tx: &mut Tx) -> Result<(), ApiError> {
        for n in &self.0 {
            match networks::insert(tx, n, Some(format!("system/{}/{}", n.zone_id, n.traffic_type))).await {
                Err(Error::Unique { .. }) => {
                    return Err(ApiError::concurrent(
                        "the zone's system networks are being made: try again".to_owned(),
                    ));
                }
                other => other?,
            }
        }
        Ok(())
    }
}
