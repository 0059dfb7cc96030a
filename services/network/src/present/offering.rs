//! Network offerings and the services of offerings and networks.

use crate::catalogue::{Offering, capabilities_of};
use contract_network as api;
use std::collections::HashMap;

fn capability(name: &str, value: impl Into<String>, choosable: bool) -> api::NetworkServiceCapability {
    api::NetworkServiceCapability {
        name: Some(name.to_owned()),
        value: Some(value.into()),
        can_choose_service_capability: Some(choosable),
        ..api::NetworkServiceCapability::default()
    }
}

/// What an offering chose of a service's capabilities.
fn chosen(o: &Offering, service: &str) -> Vec<(&'static str, String)> {
    match service {
        "SourceNat" => vec![
            ("SupportedSourceNatTypes", "peraccount".to_owned()),
            ("RedundantRouter", o.redundant_router.to_string()),
        ],
        "Lb" => vec![
            ("SupportedLBIsolation", if o.dedicated_lb { "dedicated" } else { "shared" }.to_owned()),
            ("ElasticLb", o.elastic_lb.to_string()),
            ("InlineMode", o.inline_mode.to_string()),
        ],
        "StaticNat" => {
            vec![("ElasticIp", o.elastic_ip.to_string()), ("AssociatePublicIP", o.eip_associate_public_ip.to_string())]
        }
        _ => Vec::new(),
    }
}

/// The services of an offering; with `whole`, with all that their providers are able to do, as networks show them.
pub fn services(o: &Offering, whole: bool) -> Vec<api::NetworkService> {
    o.services
        .iter()
        .map(|(service, providers)| {
            let mut capabilities = Vec::new();
            let chosen = chosen(o, service);
            if whole {
                let able = providers.first().map_or(&[] as &[_], |p| capabilities_of(p, service));
                for (name, value) in able {
                    if !chosen.iter().any(|(c, _)| c == name) {
                        capabilities.push(capability(name, *value, false));
                    }
                }
            }
            for (name, value) in chosen {
                let choosable =
                    whole && matches!(name, "SupportedSourceNatTypes" | "RedundantRouter" | "SupportedLBIsolation");
                capabilities.push(capability(name, value, choosable));
            }
            api::NetworkService {
                name: Some(service.clone()),
                provider: providers
                    .iter()
                    .map(|p| api::NetworkServiceProvision {
                        name: Some(p.clone()),
                        ..api::NetworkServiceProvision::default()
                    })
                    .collect(),
                capability: capabilities,
                ..api::NetworkService::default()
            }
        })
        .collect()
}

/// An offering. `default_rate` is what holds where it names no rate.
pub fn offering(o: &Offering, default_rate: i64, service_offering: Option<String>) -> api::NetworkOffering {
    let rate = match o.network_rate {
        Some(0) => -1,
        Some(rate) => rate,
        None => default_rate,
    };
    api::NetworkOffering {
        id: Some(o.uuid.clone()),
        name: Some(o.name.clone()),
        display_text: Some(o.display_text.clone()),
        tags: o.tags.clone(),
        created: Some(o.created),
        traffic_type: Some(o.traffic_type.clone()),
        is_default: Some(o.is_default),
        specify_vlan: Some(o.specify_vlan),
        conserve_mode: Some(o.conserve_mode),
        specify_ip_ranges: Some(o.specify_ip_ranges),
        availability: Some(o.availability.clone()),
        network_rate: i32::try_from(rate).ok(),
        state: Some(o.state.clone()),
        guest_ip_type: o.guest_type.clone(),
        service_offering_id: service_offering,
        service: services(o, false),
        for_vpc: Some(o.for_vpc),
        is_persistent: Some(o.is_persistent),
        details: HashMap::new(),
        egress_default_policy: Some(o.egress_default_policy),
        max_connections: o.max_connections.and_then(|m| i32::try_from(m).ok()),
        supports_streched_l2_subnet: Some(o.streched_l2),
        supports_public_access: Some(o.public_access),
        ..api::NetworkOffering::default()
    }
}
