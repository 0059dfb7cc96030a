//! Handlers of `arcus.compute.v1.LoadBalancerInstances`.

use crate::store::{balancers, vm_list};
use crate::vm::{VmWorld, view};
use config::keys;
use contract::api::Access;
use contract::{ApiError, Page};
use contract_compute::load_balancer_instances_server::LoadBalancerInstances;
use contract_compute::{
    ListLoadBalancerRuleInstancesRequest, ListLoadBalancerRuleInstancesResponse, LoadBalancerRuleVmMap,
};
use model::{ListScope, Paged as _};
use tonic::{Request, Response, Status};

/// The service.
pub struct LoadBalancerInstancesApi(pub VmWorld);

#[tonic::async_trait]
impl LoadBalancerInstances for LoadBalancerInstancesApi {
    async fn list(
        &self,
        request: Request<ListLoadBalancerRuleInstancesRequest>,
    ) -> Result<Response<ListLoadBalancerRuleInstancesResponse>, Status> {
        let world = &self.0;
        let (cx, r) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let entity = cx.refs.living("id")?.ok_or_else(|| ApiError::empty_param("id"))?;
        if !model::entity::allowed(&cx.caller, entity, Access::Operate) {
            return Err(ApiError::permission("that load balancing rule belongs to somebody else").into());
        }
        let id = entity.id;
        let rule = balancers::rule(db, id).await.map_err(ApiError::from)?;
        let (network, account) = rule.ok_or_else(|| ApiError::param("Unable to find the load balancing rule"))?;
        let page = Page::of(r.page, r.page_size, world.node.settings.get(keys::DEFAULT_PAGE_SIZE))?;
        // Whoever may change the rule sees its owner's machines in its network; as 4.11, without a look at the caller's own.
        let scope = ListScope::Account(account);
        let filter = vm_list::Filter {
            keyword: r.keyword.clone().filter(|k| !k.is_empty()),
            network: Some(network),
            display: (!cx.caller.is_root_admin()).then_some(true),
            behind: Some((id, r.applied.unwrap_or(true))),
            ..vm_list::Filter::default()
        };
        let listed = vm_list::page(db, &scope, &filter, &page).await.map_err(ApiError::from)?;
        let count = match page.proves_count(listed.len()) {
            Some(n) => n,
            None => vm_list::count(db, &scope, &filter).await.map_err(ApiError::from)?,
        };
        let machines = view::all(world, listed, &cx.caller).await?;
        let mut answer = ListLoadBalancerRuleInstancesResponse { count: Some(count), ..Default::default() };
        if r.lb_vm_ips == Some(true) {
            let mut addresses = balancers::addresses(db, id).await.map_err(ApiError::from)?;
            answer.lb_rule_vm_id_ip = machines
                .into_iter()
                .map(|vm| LoadBalancerRuleVmMap {
                    lb_vm_ip_addresses: vm.id.as_ref().and_then(|id| addresses.remove(id)).unwrap_or_default(),
                    load_balancer_rule_instance: Some(vm),
                    ..LoadBalancerRuleVmMap::default()
                })
                .collect();
        } else {
            answer.load_balancer_rule_instance = machines;
        }
        Ok(Response::new(answer))
    }
}
