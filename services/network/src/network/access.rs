//! Who may attach a VM to a network.

use crate::store::networks::Network;
use contract::ApiError;
use model::Owner;

/// Whether VMs of `owner` may use the network.
pub fn may_use(network: &Network, owner: &Owner) -> bool {
    if network.owner.account_id == owner.account_id || network.is_public {
        return true;
    }
    network.acl_type.as_deref() == Some("Domain")
        && (network.owner.domain_id == owner.domain_id
            || (network.subdomain_access && owner.domain_path.starts_with(&network.owner.domain_path)))
}

/// As [`may_use`].
///
/// # Errors
/// 531 naming the network.
pub fn check_use(network: &Network, owner: &Owner) -> Result<(), ApiError> {
    if may_use(network, owner) {
        return Ok(());
    }
    Err(ApiError::permission(format!("Unable to use network with id= {}, permission denied", network.uuid))
        .with_entity(&network.uuid, "networkids"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use model::state::NetworkState;

    pub(crate) fn network() -> Network {
        Network {
            id: 1,
            uuid: "n".into(),
            name: Some("n".into()),
            display_text: None,
            zone_id: 1,
            physical_network_id: Some(1),
            offering_id: 8,
            traffic_type: "Guest".into(),
            guest_type: Some("Shared".into()),
            broadcast_type: "Vlan".into(),
            broadcast_uri: None,
            vnet: None,
            specified_vlan: false,
            gateway: None,
            netmask: None,
            cidr: None,
            network_cidr: None,
            network_domain: None,
            external_id: None,
            state: NetworkState::Allocated,
            acl_type: Some("Account".into()),
            subdomain_access: false,
            is_public: false,
            is_system: false,
            display_network: true,
            restart_required: false,
            owner: Owner { account_id: 5, domain_id: 2, domain_path: "/1/2/".into() },
            generation: 0,
        }
    }

    fn owner(account_id: i64, domain_id: i64, path: &str) -> Owner {
        Owner { account_id, domain_id, domain_path: path.into() }
    }

    #[test]
    fn scopes_decide_who_may_use_a_network() {
        let mut n = network();
        assert!(may_use(&n, &owner(5, 2, "/1/2/")));
        assert!(!may_use(&n, &owner(6, 2, "/1/2/")));
        n.acl_type = Some("Domain".into());
        assert!(may_use(&n, &owner(6, 2, "/1/2/")));
        assert!(!may_use(&n, &owner(7, 3, "/1/2/3/")));
        assert!(!may_use(&n, &owner(8, 4, "/1/4/")));
        n.subdomain_access = true;
        assert!(may_use(&n, &owner(7, 3, "/1/2/3/")));
        assert!(!may_use(&n, &owner(8, 4, "/1/4/")));
        n.is_public = true;
        assert!(may_use(&n, &owner(8, 4, "/1/4/")));
    }
}
