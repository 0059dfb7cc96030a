//! Firewall, port-forwarding and IP-forwarding rules: no command makes one yet, so that none exists. The lists answer
//! that, after the checks that they share with all lists.

use super::{Api, Owners};
use contract_network::firewall_rules_server::FirewallRules;
use contract_network::ip_forwarding_rules_server::IpForwardingRules;
use contract_network::port_forwarding_rules_server::PortForwardingRules;
use contract_network::{
    ListFirewallRulesRequest, ListFirewallRulesResponse, ListIpForwardingRulesRequest, ListIpForwardingRulesResponse,
    ListPortForwardingRulesRequest, ListPortForwardingRulesResponse,
};
use tonic::{Request, Response, Status};

macro_rules! nothing {
    ($service:ident, $request:ty, $response:ident { $items:ident }) => {
        #[tonic::async_trait]
        impl $service for Api {
            async fn list(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                let world = &self.world;
                let (cx, req) = world.node.rpc.enter(request).await?;
                world.page(req.page, req.page_size)?;
                let owners = Owners {
                    account: req.account.as_deref(),
                    list_all: req.list_all,
                    recursive: req.is_recursive,
                    by_id: false,
                };
                owners.scope(&world.node.db, &cx).await?;
                Ok(Response::new($response { count: Some(0), $items: Vec::new() }))
            }
        }
    };
}
nothing!(FirewallRules, ListFirewallRulesRequest, ListFirewallRulesResponse { firewall_rule });
nothing!(PortForwardingRules, ListPortForwardingRulesRequest, ListPortForwardingRulesResponse { port_forwarding_rule });
nothing!(IpForwardingRules, ListIpForwardingRulesRequest, ListIpForwardingRulesResponse { ip_forwarding_rule });
