//! Network offerings and the services behind them.

mod seed;
mod services;

pub use seed::{Seed, seeds};
pub use services::{Provider, capabilities_of, supported};

use contract::ApiError;

/// The provider that this system works with; others come with their own issues.
pub const VIRTUAL_ROUTER: &str = "VirtualRouter";

/// A network offering: what a network made from it can do.
#[derive(Clone, Debug)]
pub struct Offering {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Text for users.
    pub display_text: String,
    /// Guest, Public, …
    pub traffic_type: String,
    /// Isolated, Shared, L2; none for system offerings.
    pub guest_type: Option<String>,
    /// Required, Optional, Unavailable.
    pub availability: String,
    /// Enabled, Disabled.
    pub state: String,
    /// Ships with the system.
    pub is_default: bool,
    /// For networks that the system makes for itself.
    pub system_only: bool,
    /// Networks of it are given a VLAN by an administrator.
    pub specify_vlan: bool,
    /// Networks of it are given address ranges by an administrator.
    pub specify_ip_ranges: bool,
    /// One public address may carry several services.
    pub conserve_mode: bool,
    /// Networks of it exist without VMs too.
    pub is_persistent: bool,
    /// For tiers of VPCs.
    pub for_vpc: bool,
    /// Load balancing is dedicated.
    pub dedicated_lb: bool,
    /// Routers come in pairs.
    pub redundant_router: bool,
    /// Elastic addresses.
    pub elastic_ip: bool,
    /// Elastic load balancers.
    pub elastic_lb: bool,
    /// Elastic addresses are public ones.
    pub eip_associate_public_ip: bool,
    /// Load balancer in line with the firewall.
    pub inline_mode: bool,
    /// Guests may send without a rule.
    pub egress_default_policy: bool,
    /// Connections are kept alive by the load balancer.
    pub keep_alive: bool,
    /// Stretches over zones.
    pub streched_l2: bool,
    /// Public access to the network.
    pub public_access: bool,
    /// Mbit/s; 0: unlimited; none: the setting.
    pub network_rate: Option<i64>,
    /// Connections of the load balancer.
    pub max_connections: Option<i64>,
    /// Tags of the physical network to use.
    pub tags: Option<String>,
    /// Services and their providers.
    pub services: Vec<(String, Vec<String>)>,
    /// Place in lists.
    pub sort_key: i64,
    /// When made, UTC µs.
    pub created: i64,
}

impl Offering {
    /// Whether networks of it have the service.
    pub fn has(&self, service: &str) -> bool {
        self.services.iter().any(|(s, _)| s == service)
    }

    /// Whether networks of it need a router.
    pub fn needs_router(&self) -> bool {
        self.services.iter().any(|(_, providers)| providers.iter().any(|p| p == VIRTUAL_ROUTER))
    }

    /// Whether networks of it need a public address of their own.
    pub fn source_nat(&self) -> bool {
        self.has("SourceNat")
    }

    /// Whether it is of this guest type.
    pub fn is(&self, guest_type: &str) -> bool {
        self.guest_type.as_deref() == Some(guest_type)
    }

    /// Fails where the offering needs what isn't built yet.
    ///
    /// # Errors
    /// 431 that names each missing service and its provider.
    pub fn check_supported(&self) -> Result<(), ApiError> {
        if self.for_vpc {
            return Err(ApiError::unsupported(format!(
                "network offering {} is for VPC tiers: VPCs aren't there yet",
                self.name
            )));
        }
        let missing: Vec<String> = self
            .services
            .iter()
            .flat_map(|(service, providers)| providers.iter().map(move |p| (service, p)))
            .filter(|(service, provider)| *provider != VIRTUAL_ROUTER || !supported(service))
            .map(|(service, provider)| format!("{service} by {provider}"))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(ApiError::unsupported(format!(
            "network offering {} can't be used yet: it needs {}, which isn't there yet",
            self.name,
            missing.join(", ")
        )))
    }
}

/// Reads services as the database keeps them: a JSON object of service to providers.
///
/// # Errors
/// An internal error when the database holds something else.
pub fn services_from_json(text: &str) -> Result<Vec<(String, Vec<String>)>, ApiError> {
    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
        .map_err(|e| ApiError::internal(format!("services of a network offering can't be read: {e}")))?;
    Ok(map
        .into_iter()
        .map(|(service, providers)| {
            let providers = providers.as_array().map(Vec::as_slice).unwrap_or_default();
            (service, providers.iter().filter_map(|p| p.as_str().map(str::to_owned)).collect())
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    // covers: INST-092
    #[test]
    fn the_seeded_offerings_are_all_of_them() {
        let seeds = seeds().unwrap();
        assert_eq!(seeds.len(), 18);
        let services = |name: &str| -> Vec<String> {
            let seed = seeds.iter().find(|s| s.name == name).unwrap();
            seed.services.keys().cloned().collect()
        };
        assert_eq!(services("DefaultSharedNetworkOfferingWithSGService"), ["Dhcp", "Dns", "UserData", "SecurityGroup"]);
        assert_eq!(services("DefaultSharedNetworkOffering"), ["Dhcp", "Dns", "UserData"]);
        assert_eq!(services("DefaultIsolatedNetworkOfferingWithSourceNatService").len(), 10);
        // covers: NET-353
        assert!(seeds.iter().all(|s| !s.is_persistent));
    }

    #[test]
    fn services_are_read_in_their_order() {
        let text = r#"{"Lb":[],"Dhcp":["VirtualRouter"]}"#;
        let services = vec![("Lb".to_owned(), vec![]), ("Dhcp".to_owned(), vec![VIRTUAL_ROUTER.to_owned()])];
        assert_eq!(services_from_json(text).unwrap(), services);
        assert!(services_from_json("[]").is_err());
    }
}
