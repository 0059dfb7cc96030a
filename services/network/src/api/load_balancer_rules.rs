//! Load balancing rules.

use super::{Api, Owners, given, keyword, tag_filter};
use crate::balance::{self, Algorithm};
use crate::job::balance::{Assign, Change, CreateBalancer, DeleteBalancer, Unassign, UpdateBalancer};
use crate::job::{self, Order};
use crate::network::View;
use crate::present;
use crate::rule::{self, Purpose, RuleState, Traffic};
use crate::store::balancers::{self, Balancer, Filter, Says};
use crate::store::ips::{self, PublicIp};
use crate::store::members::{self, Member};
use crate::store::rules::{self, Rule};
use crate::world::World;
use contract::api::{Access, JobRef};
use contract::{ApiError, CommandInfo, Request as _};
use contract_network::load_balancer_rules_server::LoadBalancerRules;
use contract_network::{
    AssignToLoadBalancerRuleRequest, CreateLoadBalancerRuleRequest, DeleteLoadBalancerRuleRequest,
    ListLoadBalancerRulesRequest, ListLoadBalancerRulesResponse, RemoveFromLoadBalancerRuleRequest,
    UpdateLoadBalancerRuleRequest, VmIpParam,
};
use jobs::Claim;
use model::entity::Entity;
use rpc::Cx;
use std::sync::Arc;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl LoadBalancerRules for Api {
    async fn create(&self, request: Request<CreateLoadBalancerRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        if let Some(answer) = jobs::answered(&world.node.db, &cx.caller).await? {
            return Ok(Response::new(answer));
        }
        Ok(Response::new(create(world, &cx, &req).await?))
    }

    async fn update(&self, request: Request<UpdateLoadBalancerRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let rule = named(world, &cx, "id").await?;
        let change = Change {
            name: given(&req.name),
            description: req.description.clone(),
            algorithm: given(&req.algorithm).map(|a| Algorithm::parse(&a)).transpose()?.map(|a| a.name().to_owned()),
            protocol: balance::protocol(req.protocol.as_deref())?,
            display: req.for_display,
            uuid: custom_id(&req.custom_id)?,
        };
        let order = order(
            &cx,
            UpdateLoadBalancerRuleRequest::COMMAND,
            &rule,
            "updating load balancer rule",
            &req.custom_job_id,
        );
        let job = UpdateBalancer { id: rule.rule.id, network: rule.rule.network_id, change };
        Ok(Response::new(job::accept(world, order, job).await?))
    }

    async fn delete(&self, request: Request<DeleteLoadBalancerRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let rule = named(world, &cx, "id").await?;
        let mut order =
            order(&cx, DeleteLoadBalancerRuleRequest::COMMAND, &rule, "deleting load balancer", &req.custom_job_id);
        order.instance = Some(("FirewallRule", rule.says.uuid.clone()));
        let job = DeleteBalancer { id: rule.rule.id, network: rule.rule.network_id };
        Ok(Response::new(job::accept(world, order, job).await?))
    }

    async fn list(
        &self,
        request: Request<ListLoadBalancerRulesRequest>,
    ) -> Result<Response<ListLoadBalancerRulesResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let page = world.page(req.page, req.page_size)?;
        let id = cx.refs.one("id").map(|e| e.id);
        let owners = Owners {
            account: req.account.as_deref(),
            list_all: req.list_all,
            recursive: req.is_recursive,
            by_id: id.is_some(),
        };
        let scope = owners.scope(db, &cx).await?;
        let filter = Filter {
            id,
            name: given(&req.name),
            ip_id: cx.refs.one("publicipid").map(|e| e.id),
            vm_id: cx.refs.one("virtualmachineid").map(|e| e.id),
            zone_id: cx.refs.one("zoneid").map(|e| e.id),
            network_id: cx.refs.one("networkid").map(|e| e.id),
            display: if cx.caller.is_root_admin() { req.for_display } else { Some(true) },
            keyword: keyword(&req.keyword),
            tags: tag_filter(&req.tags),
        };
        let (rows, count) = balancers::list(db, &filter, &scope, &page).await.map_err(ApiError::from)?;
        let load_balancer_rule = present::balancers(db, &rows).await?;
        Ok(Response::new(ListLoadBalancerRulesResponse { count: Some(count), load_balancer_rule }))
    }

    async fn assign(&self, request: Request<AssignToLoadBalancerRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let rule = named(world, &cx, "id").await?;
        let wanted = wanted(&cx, &req.vm_id_ip_map)?;
        let members = chosen(world, &rule, &wanted).await?;
        let order = order(
            &cx,
            AssignToLoadBalancerRuleRequest::COMMAND,
            &rule,
            "applying instances for load balancer",
            &req.custom_job_id,
        );
        let job = Assign { rule: rule.rule.id, network: rule.rule.network_id, members };
        Ok(Response::new(job::accept(world, order, job).await?))
    }

    async fn remove(&self, request: Request<RemoveFromLoadBalancerRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let rule = named(world, &cx, "id").await?;
        let there = members::of_rule(&world.node.db, rule.rule.id).await.map_err(ApiError::from)?;
        let mut going: Vec<i64> = Vec::new();
        for (vm, ip) in wanted(&cx, &req.vm_id_ip_map)? {
            let found = there.iter().filter(|m| m.vm_id == vm.id && ip.as_ref().is_none_or(|ip| *ip == m.ip));
            let found: Vec<i64> = found.map(|m| m.id).collect();
            if found.is_empty() {
                return Err(ApiError::param(format!(
                    "The instance id: {} is not configured for LB rule id {}",
                    vm.uuid, rule.says.uuid
                ))
                .with_entity(&vm.uuid, "instanceId")
                .into());
            }
            going.extend(found);
        }
        going.sort_unstable();
        going.dedup();
        let order = order(
            &cx,
            RemoveFromLoadBalancerRuleRequest::COMMAND,
            &rule,
            "removing instances from load balancer",
            &req.custom_job_id,
        );
        let job = Unassign { rule: rule.rule.id, network: rule.rule.network_id, members: going };
        Ok(Response::new(job::accept(world, order, job).await?))
    }
}

/// The rule that a parameter names, when the caller may change it.
pub(super) async fn named(world: &World, cx: &Cx, param: &str) -> Result<Balancer, ApiError> {
    let entity = cx.refs.one(param).ok_or_else(|| ApiError::empty_param(param))?;
    if !model::entity::allowed(&cx.caller, entity, Access::Operate) {
        return Err(ApiError::permission("that load balancing rule belongs to somebody else"));
    }
    let rule = balancers::one(&world.node.db, entity.id).await?;
    rule.filter(|b| b.rule.state != RuleState::Staged).ok_or_else(|| {
        ApiError::param("Unable to find load balancer rule by id: it has been removed, or isn't made yet".to_owned())
            .with_entity(&entity.uuid, param)
    })
}

/// Reads `customid`: the UUID that an entity gets instead of its own.
pub(super) fn custom_id(text: &Option<String>) -> Result<Option<String>, ApiError> {
    match given(text) {
        Some(id) if !is_uuid(&id) => Err(ApiError::param("customid isn't a UUID".to_owned())),
        id => Ok(id),
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_hexdigit() })
}

/// What jobs on a rule claim: it exclusively, and its address and network shared.
pub(super) fn claims(rule: &Rule) -> Vec<Claim> {
    let mut claims =
        vec![Claim::Exclusive(format!("rule/{}", rule.id)), Claim::Shared(format!("network/{}", rule.network_id))];
    claims.extend(rule.ip_id.map(|ip| Claim::Shared(format!("ip/{ip}"))));
    claims
}

/// A job on a rule.
pub(super) fn order<'a>(
    cx: &'a Cx,
    command: Option<&'static CommandInfo>,
    rule: &Balancer,
    verb: &str,
    custom_id: &Option<String>,
) -> Order<'a> {
    Order {
        command,
        caller: &cx.caller,
        owner: Some(rule.rule.owner.clone()),
        instance: None,
        claims: claims(&rule.rule),
        custom_id: custom_id.clone(),
        description: format!("{verb}: {}", rule.says.uuid),
        entity_id: None,
    }
}

async fn create(world: &World, cx: &Cx, req: &CreateLoadBalancerRuleRequest) -> Result<JobRef, ApiError> {
    let db = &world.node.db;
    let required = |text: &Option<String>, name: &str| given(text).ok_or_else(|| ApiError::empty_param(name));
    let public_port = balance::port("publicPort", req.public_port)?;
    let private_port = balance::port("privatePort", req.private_port)?;
    let name = required(&req.name, "name")?;
    let algorithm = Algorithm::parse(&required(&req.algorithm, "algorithm")?)?;
    let protocol = balance::protocol(req.protocol.as_deref())?;
    let cidrs = rule::cidrs("Source", &req.cidr_list)?;
    let (ip, view) = place_of(world, cx).await?;
    rule::service(&view, Purpose::LoadBalancing)?;
    let others = rules::of_ip(db, ip.id).await?;
    rule::check_use(&ip, Purpose::LoadBalancing, view.offering.conserve_mode, &others)?;
    let first = rule::numbers(db, 2).await?;
    let uuid = model::new_uuid();
    let made = Rule {
        id: first,
        uuid: uuid.clone(),
        purpose: Purpose::LoadBalancing,
        traffic: Traffic::Ingress,
        state: RuleState::Staged,
        ip_id: Some(ip.id),
        network_id: view.network.id,
        protocol: "tcp".to_owned(),
        start_port: Some(public_port),
        end_port: Some(public_port),
        icmp_type: None,
        icmp_code: None,
        cidrs: cidrs.clone(),
        dest_cidrs: Vec::new(),
        related_id: None,
        target: None,
        display: req.for_display.unwrap_or(true),
        system: false,
        owner: ip.owner.clone(),
    };
    // As 4.11: the port is opened unless told otherwise.
    let open = req.open_firewall.unwrap_or(true) && view.offering.has(Purpose::Firewall.service());
    let opened = if open { rule::open_firewall(first + 1, &made, &cidrs, &others) } else { None };
    let new: Vec<Rule> = std::iter::once(made.clone()).chain(opened).collect();
    let says = Says {
        name,
        description: req.description.clone(),
        algorithm: algorithm.name().to_owned(),
        protocol,
        display: made.display,
        uuid: uuid.clone(),
    };
    let balancer =
        Balancer { says, private_port, public_ip: (ip.uuid.clone(), ip.ip.clone()), zone_id: ip.zone_id, rule: made };
    let mut order =
        order(cx, CreateLoadBalancerRuleRequest::COMMAND, &balancer, "creating load balancer", &req.custom_job_id);
    order.instance = Some(("FirewallRule", uuid.clone()));
    order.entity_id = Some(uuid);
    let accept = order.of(CreateBalancer { id: first, network: view.network.id });
    let ticket = world.jobs.ticket().await?;
    jobs::mutate!(world.node.db, cx.caller, "create-balancer", |tx| {
        rule::place(tx, view.network.id, view.offering.conserve_mode, &new).await?;
        balancers::insert(tx, &balancer).await?;
        world.jobs.accept(tx, ticket.clone(), accept.clone()).await
    })
    .await
}

/// The address of a new rule, and the network that it serves.
async fn place_of(world: &World, cx: &Cx) -> Result<(PublicIp, Arc<View>), ApiError> {
    let db = &world.node.db;
    let (network, zone) = (cx.refs.living("networkid")?, cx.refs.living("zoneid")?);
    let Some(entity) = cx.refs.living("publicipid")? else {
        return Err(ApiError::param(match (network, zone) {
            (None, None) => "Either networkId or zoneId or publicIpId has to be specified".to_owned(),
            // 4.11 takes an address itself only in networks of elastic load balancing.
            _ => "Unable to create load balance rule; can't find/allocate source IP: give a publicipid".to_owned(),
        }));
    };
    let refuse = |text: String| ApiError::param(text).with_entity(&entity.uuid, "publicipid");
    if !model::entity::allowed(&cx.caller, entity, Access::Operate) {
        return Err(ApiError::permission("that address belongs to somebody else"));
    }
    let ip = ips::one(db, entity.id).await?.ok_or_else(|| refuse("the address has been removed".to_owned()))?;
    let serves = ip.network_id.ok_or_else(|| {
        refuse(
            "Unable to create load balancer rule ; specified sourceip id is not associated with any network".to_owned(),
        )
    })?;
    if let Some(network) = network.filter(|n| n.id != serves) {
        return Err(refuse(format!("Ip address {} is not assigned to the network {}", ip.ip, network.uuid)));
    }
    if let Some(zone) = zone.filter(|z| z.id != ip.zone_id) {
        return Err(refuse(format!("Ip address {} is not in zone {}", ip.ip, zone.uuid)));
    }
    Ok((ip, world.views.fresh(db, serves).await?))
}

/// The VMs that `virtualmachineids` and `vmidipmap` name, each with the address that was said.
fn wanted<'a>(cx: &'a Cx, map: &[VmIpParam]) -> Result<Vec<(&'a Entity, Option<String>)>, ApiError> {
    let mut all: Vec<(&Entity, Option<String>)> = Vec::new();
    let mapped = cx.refs.all("vmidipmap.vmid");
    if mapped.len() != map.len() {
        return Err(ApiError::param("each entry of vmidipmap needs a vmid".to_owned()));
    }
    let mapped = mapped.iter().zip(map.iter().map(|entry| given(&entry.vm_ip)));
    for (vm, ip) in cx.refs.all("virtualmachineids").iter().map(|vm| (vm, None)).chain(mapped) {
        if !model::entity::allowed(&cx.caller, vm, Access::Operate) {
            // Without its id: whoever named it by number would learn it.
            return Err(ApiError::permission("a virtual machine belongs to somebody else"));
        }
        if !all.iter().any(|(known, other)| known.id == vm.id && *other == ip) {
            all.push((vm, ip));
        }
    }
    if all.is_empty() {
        return Err(ApiError::param("Both instanceids and vmidipmap can't be null".to_owned()));
    }
    Ok(all)
}

/// The members that a rule is to get.
async fn chosen(world: &World, rule: &Balancer, wanted: &[(&Entity, Option<String>)]) -> Result<Vec<Member>, ApiError> {
    let db = &world.node.db;
    let ids: Vec<i64> = wanted.iter().map(|(vm, _)| vm.id).collect();
    let machines = crate::store::vms::by_ids(db, ids.iter().copied()).await?;
    let nics = members::candidates(db, rule.rule.network_id, &ids).await?;
    let there = members::of_rule(db, rule.rule.id).await?;
    let first = db.next_ids("lb_members", i64::try_from(wanted.len()).unwrap_or_default()).await?;
    let mut chosen: Vec<Member> = Vec::with_capacity(wanted.len());
    for (id, (vm, ip)) in (first..).zip(wanted) {
        let refuse = |text: String| Err(ApiError::param(text).with_entity(&vm.uuid, "instanceId"));
        if !machines.get(&vm.id).is_some_and(members::is_there) {
            return refuse("Invalid instance id specified: it is gone, or on its way out".to_owned());
        }
        if vm.owner.as_ref().map(|o| o.account_id) != Some(rule.rule.owner.account_id) {
            return refuse(format!("New rule {} and vm id={} belong to different accounts", rule.says.uuid, vm.uuid));
        }
        let Some(nic) = nics.get(&vm.id) else {
            return refuse(
                "VM with id specified cannot be added because it doesn't belong in the same network.".to_owned(),
            );
        };
        if let Some(ip) = ip.as_ref().filter(|ip| **ip != nic.ip) {
            return refuse(format!("VM ip {ip} specified does not belong to nic in the network"));
        }
        if there.iter().any(|m| m.ip == nic.ip) || chosen.iter().any(|m| m.ip == nic.ip) {
            return refuse(format!("VM {} is already mapped to load balancer.", vm.uuid));
        }
        chosen.push(Member { id, rule_id: rule.rule.id, vm_id: vm.id, nic_id: nic.nic_id, ip: nic.ip.clone() });
    }
    Ok(chosen)
}
