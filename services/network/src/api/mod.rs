//! Handlers, one file a proto service. They read requests, ask the concepts, and answer.

mod attachments;
mod firewall_rules;
mod ip_addresses;
mod load_balancer_rules;
mod network_offerings;
mod networks;
mod nics;
mod physical_networks;
mod port_forwarding_rules;
mod providers;
mod routers;
mod rules;
mod static_nats;
mod stickiness_policies;
mod traffic_types;
mod vlan_ip_ranges;

use crate::world::World;
use contract::ApiError;
use contract::api::TagParam;
use contract_network as net;
use model::{ListScope, ScopeRequest};
use rpc::Cx;
use std::sync::Arc;
use store::Db;
use tonic::service::Routes;

/// The handlers of all services of this area.
#[derive(Clone)]
pub struct Api {
    world: Arc<World>,
}

/// All services of this area.
pub fn routes(world: &Arc<World>) -> Routes {
    let api = Api { world: world.clone() };
    Routes::new(net::physical_networks_server::PhysicalNetworksServer::new(api.clone()))
        .add_service(net::traffic_types_server::TrafficTypesServer::new(api.clone()))
        .add_service(net::network_service_providers_server::NetworkServiceProvidersServer::new(api.clone()))
        .add_service(net::virtual_router_elements_server::VirtualRouterElementsServer::new(api.clone()))
        .add_service(net::vlan_ip_ranges_server::VlanIpRangesServer::new(api.clone()))
        .add_service(net::network_offerings_server::NetworkOfferingsServer::new(api.clone()))
        .add_service(net::networks_server::NetworksServer::new(api.clone()))
        .add_service(net::ip_addresses_server::IpAddressesServer::new(api.clone()))
        .add_service(net::nics_server::NicsServer::new(api.clone()))
        .add_service(net::routers_server::RoutersServer::new(api.clone()))
        .add_service(net::firewall_rules_server::FirewallRulesServer::new(api.clone()))
        .add_service(net::egress_firewall_rules_server::EgressFirewallRulesServer::new(api.clone()))
        .add_service(net::static_nats_server::StaticNatsServer::new(api.clone()))
        .add_service(net::port_forwarding_rules_server::PortForwardingRulesServer::new(api.clone()))
        .add_service(net::ip_forwarding_rules_server::IpForwardingRulesServer::new(api.clone()))
        .add_service(net::load_balancer_rules_server::LoadBalancerRulesServer::new(api.clone()))
        .add_service(net::stickiness_policies_server::StickinessPoliciesServer::new(api.clone()))
        .add_service(net::attachments_server::AttachmentsServer::new(api))
}

/// The owner parameters of a list command.
struct Owners<'a> {
    account: Option<&'a str>,
    list_all: Option<bool>,
    recursive: Option<bool>,
    by_id: bool,
}

impl Owners<'_> {
    async fn scope(&self, db: &Db, cx: &Cx) -> Result<ListScope, ApiError> {
        let domain = domain(cx)?;
        let request = ScopeRequest {
            account: self.account.filter(|a| !a.is_empty()),
            domain: domain.as_ref().map(|(id, path)| (*id, path.as_str())),
            list_all: self.list_all.unwrap_or(false),
            recursive: self.recursive.unwrap_or(false),
            by_id: self.by_id,
        };
        ListScope::of(db, &cx.caller, &request).await
    }
}

/// The domain that `domainid` names: number and id path.
fn domain(cx: &Cx) -> Result<Option<(i64, String)>, ApiError> {
    Ok(cx.refs.living("domainid")?.map(|d| {
        let path = d.owner.as_ref().map(|o| o.domain_path.clone()).unwrap_or_default();
        (d.id, path)
    }))
}

/// A text parameter that was given with content.
fn given(text: &Option<String>) -> Option<String> {
    text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned)
}

fn keyword(text: &Option<String>) -> Option<String> {
    given(text).map(|t| t.to_lowercase())
}

fn tag_filter(tags: &[TagParam]) -> Vec<(String, String)> {
    tags.iter().filter_map(|t| Some((t.key.clone()?, t.value.clone().unwrap_or_default()))).collect()
}

/// A page of what is filtered in memory.
fn slice<T>(all: Vec<T>, page: &model::Page) -> (Vec<T>, i64) {
    let count = i64::try_from(all.len()).unwrap_or(i64::MAX);
    let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let take = page.limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or_default());
    (all.into_iter().skip(skip).take(take).collect(), count)
}
