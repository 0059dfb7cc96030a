//! The offerings of a fresh install.

use contract::ApiError;
use serde::Deserialize;

/// One offering of a fresh install; what is left out has the common value.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Seed {
    /// Number.
    pub id: i64,
    /// Name, which is also its unique name.
    pub name: String,
    /// Text for users.
    pub display_text: String,
    /// Traffic type.
    pub traffic_type: String,
    /// Guest type.
    pub guest_type: Option<String>,
    /// Availability.
    pub availability: String,
    /// For the system's own networks.
    pub system_only: bool,
    /// VLAN given by an administrator.
    pub specify_vlan: bool,
    /// Ranges given by an administrator.
    pub specify_ip_ranges: bool,
    /// Conserve mode.
    pub conserve_mode: bool,
    /// Persistent.
    pub is_persistent: bool,
    /// For VPC tiers.
    pub for_vpc: bool,
    /// Public load balancing.
    pub public_lb: bool,
    /// Internal load balancing.
    pub internal_lb: bool,
    /// Dedicated load balancer.
    pub dedicated_lb: bool,
    /// Elastic addresses.
    pub elastic_ip: bool,
    /// Elastic load balancers.
    pub elastic_lb: bool,
    /// Elastic addresses are public.
    pub eip_associate_public_ip: bool,
    /// Kept-alive connections.
    pub keep_alive_enabled: bool,
    /// Mbit/s.
    pub network_rate: Option<i64>,
    /// Services and providers.
    pub services: serde_json::Map<String, serde_json::Value>,
}

impl Default for Seed {
    fn default() -> Self {
        Seed {
            id: 0,
            name: String::new(),
            display_text: String::new(),
            traffic_type: "Guest".into(),
            guest_type: None,
            availability: "Optional".into(),
            system_only: false,
            specify_vlan: false,
            specify_ip_ranges: false,
            conserve_mode: true,
            is_persistent: false,
            for_vpc: false,
            public_lb: false,
            internal_lb: false,
            dedicated_lb: true,
            elastic_ip: false,
            elastic_lb: false,
            eip_associate_public_ip: true,
            keep_alive_enabled: false,
            network_rate: None,
            services: serde_json::Map::new(),
        }
    }
}

/// The offerings that a fresh install has.
///
/// # Errors
/// An internal error when the embedded text is broken.
pub fn seeds() -> Result<Vec<Seed>, ApiError> {
    serde_json::from_str(include_str!("offerings.json"))
        .map_err(|e| ApiError::internal(format!("the embedded network offerings can't be read: {e}")))
}
