//! Static NAT, and the ports of addresses that have it.

use super::port_forwarding_rules::{machine, opening};
use super::rules::{self, Asked, Task};
use super::{Api, given, keyword};
use crate::job::{CreateRule, DisableStaticNat, EnableStaticNat, Order, Shown};
use crate::present;
use crate::rule::{self, Purpose, RuleState, Traffic};
use crate::store::rules::{Filter, Rule};
use crate::world::World;
use contract::api::{JobRef, Success};
use contract::{ApiError, Request as _};
use contract_network::ip_forwarding_rules_server::IpForwardingRules;
use contract_network::static_nats_server::StaticNats;
use contract_network::{
    CreateIpForwardingRuleRequest, DeleteIpForwardingRuleRequest, DisableStaticNatRequest, EnableStaticNatRequest,
    ListIpForwardingRulesRequest, ListIpForwardingRulesResponse,
};
use jobs::Claim;
use rpc::Cx;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl StaticNats for Api {
    async fn enable(&self, request: Request<EnableStaticNatRequest>) -> Result<Response<Success>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let job = match jobs::answered::<JobRef>(&world.node.db, &cx.caller).await? {
            Some(known) => known,
            None => enable(world, &cx, &req).await?,
        };
        // 4.11 answers only when it is done.
        let done: Success = world.jobs.end_of(&job.job_id).await?.output()?;
        Ok(Response::new(done))
    }

    async fn disable(&self, request: Request<DisableStaticNatRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let at = rules::place(world, &cx).await?;
        let refuse = |text: String| ApiError::param(text).with_entity(&at.ip.uuid, "ipaddressid");
        if at.ip.is_system {
            return Err(refuse("Can't disable static nat for system IP address with specified id".to_owned()).into());
        }
        if at.ip.vm_id.is_none() {
            return Err(refuse(format!("IP address {} is not associated with any vm Id", at.ip.ip)).into());
        }
        let order = Order {
            command: DisableStaticNatRequest::COMMAND,
            caller: &cx.caller,
            owner: Some(at.ip.owner.clone()),
            instance: None,
            claims: claims(at.ip.id, at.view.network.id),
            custom_id: req.custom_job_id.clone(),
            description: format!("Disabling static nat for ip id={}", at.ip.uuid),
            entity_id: None,
        };
        let job = DisableStaticNat { ip: at.ip.id, network: at.view.network.id, zone: at.view.network.zone_id };
        Ok(Response::new(crate::job::accept(world, order, job).await?))
    }
}

fn claims(ip: i64, network: i64) -> Vec<Claim> {
    vec![Claim::Exclusive(format!("ip/{ip}")), Claim::Shared(format!("network/{network}"))]
}

async fn enable(world: &World, cx: &Cx, req: &EnableStaticNatRequest) -> Result<JobRef, ApiError> {
    let at = rules::place(world, cx).await?;
    let view = &at.view;
    super::port_forwarding_rules::same_network(cx, view)?;
    if !view.offering.has(Purpose::StaticNat.service()) {
        return Err(ApiError::param(
            "Unable to create static nat rule; StaticNat service is not supported in network with specified id"
                .to_owned(),
        )
        .with_entity(&view.network.uuid, "networkid"));
    }
    let entity = cx.refs.living("virtualmachineid")?.ok_or_else(|| ApiError::empty_param("virtualmachineid"))?;
    let (vm, nic) = machine(world, cx, entity, view, &at.ip.owner, given(&req.vm_guest_ip).as_deref()).await?;
    let others = crate::store::rules::of_ip(&world.node.db, at.ip.id).await?;
    rule::check_static(&at.ip, &others)?;
    let text = format!("Enabling static nat for ip {} and virtual machine {}", at.ip.ip, vm.uuid);
    let order = Order {
        // It has a job of its own only so that it can be taken back; clients know none.
        command: None,
        caller: &cx.caller,
        owner: Some(at.ip.owner.clone()),
        instance: None,
        claims: claims(at.ip.id, view.network.id),
        custom_id: None,
        description: text.clone(),
        entity_id: None,
    };
    let job = EnableStaticNat {
        ip: at.ip.id,
        network: view.network.id,
        vm: vm.id,
        vm_ip: nic.ip.unwrap_or_default(),
        owner: at.ip.owner.clone(),
        text,
        aside: !nic.is_default,
    };
    crate::job::accept(world, order, job).await
}

#[tonic::async_trait]
impl IpForwardingRules for Api {
    async fn create(&self, request: Request<CreateIpForwardingRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        if let Some(answer) = jobs::answered(&world.node.db, &cx.caller).await? {
            return Ok(Response::new(answer));
        }
        Ok(Response::new(create(world, &cx, &req).await?))
    }

    async fn delete(&self, request: Request<DeleteIpForwardingRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let rule = rules::named(world, &cx, Purpose::StaticNat, Traffic::Ingress).await?;
        let task = Task {
            command: DeleteIpForwardingRuleRequest::COMMAND,
            description: format!("Deleting an ipforwarding 1:1 NAT rule id:{}", rule.uuid),
            custom_job_id: &req.custom_job_id,
            instance: true,
        };
        Ok(Response::new(rules::remove(world, &cx, &rule, Shown::IpForwarding, task).await?))
    }

    async fn list(
        &self,
        request: Request<ListIpForwardingRulesRequest>,
    ) -> Result<Response<ListIpForwardingRulesResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let asked = Asked {
            account: &req.account,
            list_all: req.list_all,
            recursive: req.is_recursive,
            page: req.page,
            page_size: req.page_size,
        };
        let filter = Filter {
            purpose: Purpose::StaticNat,
            traffic: Traffic::Ingress,
            id: cx.refs.one("id").map(|e| e.id),
            ip_id: cx.refs.one("ipaddressid").map(|e| e.id),
            network_id: None,
            vm_id: cx.refs.one("virtualmachineid").map(|e| e.id),
            display: None,
            keyword: keyword(&req.keyword),
            tag_kind: "FirewallRule",
            tags: Vec::new(),
        };
        let (rows, count) = rules::list(world, &cx, asked, filter).await?;
        let ip_forwarding_rule = present::ip_forwarding_rules(&world.node.db, &rows).await.map_err(ApiError::from)?;
        Ok(Response::new(ListIpForwardingRulesResponse { count: Some(count), ip_forwarding_rule }))
    }
}

async fn create(world: &World, cx: &Cx, req: &CreateIpForwardingRuleRequest) -> Result<JobRef, ApiError> {
    let at = rules::place(world, cx).await?;
    let view = &at.view;
    rule::service(view, Purpose::StaticNat)?;
    let text = given(&req.protocol).ok_or_else(|| ApiError::empty_param("protocol"))?;
    let protocol = rule::protocol(view, Purpose::StaticNat, Traffic::Ingress, &text)?;
    let ports = rule::ports(req.start_port, req.end_port)?.ok_or_else(|| ApiError::empty_param("startport"))?;
    let cidrs = rule::cidrs("Source", &req.cidr_list)?;
    if !cidrs.is_empty() && req.open_firewall == Some(false) {
        return Err(ApiError::param(
            "cidrlist says for whom the firewall is opened: it needs openfirewall=true".to_owned(),
        ));
    }
    let first = rule::numbers(&world.node.db, 2).await?;
    let new = Rule {
        id: first,
        uuid: model::new_uuid(),
        purpose: Purpose::StaticNat,
        traffic: Traffic::Ingress,
        state: RuleState::Staged,
        ip_id: Some(at.ip.id),
        network_id: view.network.id,
        protocol,
        start_port: Some(ports.0),
        end_port: Some(ports.1),
        icmp_type: None,
        icmp_code: None,
        cidrs: cidrs.clone(),
        dest_cidrs: Vec::new(),
        related_id: None,
        target: None,
        display: true,
        system: false,
        owner: at.ip.owner.clone(),
    };
    let open = opening(world, view, req.open_firewall, &new, &cidrs).await?;
    let job = CreateRule {
        id: new.id,
        related: open.as_ref().map(|r| r.id),
        network: view.network.id,
        zone: view.network.zone_id,
        shown: Shown::IpForwarding,
    };
    let task = Task {
        command: CreateIpForwardingRuleRequest::COMMAND,
        description: format!("Applying an ipforwarding 1:1 NAT rule for Ip: {}", at.ip.ip),
        custom_job_id: &req.custom_job_id,
        instance: true,
    };
    let all: Vec<Rule> = std::iter::once(new).chain(open).collect();
    rules::accept(world, cx, view, &all, task, job).await
}
