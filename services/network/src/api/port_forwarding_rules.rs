//! Port forwarding.

use super::rules::{self, Asked, Task, custom_id, display};
use super::{Api, given, keyword, tag_filter};
use crate::address::parse_ip;
use crate::job::{CreateRule, Shown, UpdateForward};
use crate::network::View;
use crate::present;
use crate::rule::{self, Purpose, RuleState, Traffic};
use crate::store::nics::{self, Nic};
use crate::store::rules::{Filter, Rule, Target, of_ip};
use crate::store::vms::{self, Vm};
use crate::world::World;
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_network::port_forwarding_rules_server::PortForwardingRules;
use contract_network::{
    CreatePortForwardingRuleRequest, DeletePortForwardingRuleRequest, ListPortForwardingRulesRequest,
    ListPortForwardingRulesResponse, UpdatePortForwardingRuleRequest,
};
use model::Owner;
use model::entity::Entity;
use model::state::VmState;
use rpc::Cx;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl PortForwardingRules for Api {
    async fn create(&self, request: Request<CreatePortForwardingRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        if let Some(answer) = jobs::answered(&world.node.db, &cx.caller).await? {
            return Ok(Response::new(answer));
        }
        Ok(Response::new(create(world, &cx, &req).await?))
    }

    async fn update(&self, request: Request<UpdatePortForwardingRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let rule = rules::named(world, &cx, Purpose::PortForwarding, Traffic::Ingress).await?;
        let view = world.views.fresh(&world.node.db, rule.network_id).await?;
        let ports = rule::ports(req.private_port, req.private_end_port)?;
        if let (Some((first, last)), Some((start, end))) = (ports, rule.range()) {
            if start != end {
                return Err(ApiError::param(format!(
                    "Unable to update the private port of port forwarding rule as the rule has port range : {start} to {end}"
                ))
                .into());
            }
            if first != last {
                return Err(ApiError::param(format!(
                    "Source port and destination port ranges should be of equal sizes: {start} is one port"
                ))
                .into());
            }
        }
        let guest_ip = given(&req.vm_guest_ip);
        let machine = match cx.refs.living("virtualmachineid")? {
            Some(entity) => {
                let (vm, nic) = machine(world, &cx, entity, &view, &rule.owner, guest_ip.as_deref()).await?;
                Some((vm.id, nic.ip.unwrap_or_default()))
            }
            None if guest_ip.is_some() => {
                return Err(ApiError::param("vmguestip should be set along with virtualmachineid".to_owned()).into());
            }
            None => None,
        };
        let job = UpdateForward {
            id: rule.id,
            network: rule.network_id,
            zone: view.network.zone_id,
            machine,
            ports,
            display: req.for_display,
            uuid: custom_id(&req.custom_id)?,
        };
        let task = Task {
            command: UpdatePortForwardingRuleRequest::COMMAND,
            description: format!("updating port forwarding rule: {}", rule.uuid),
            custom_job_id: &req.custom_job_id,
            instance: false,
        };
        Ok(Response::new(rules::accept_for(world, &cx, &rule, task, job).await?))
    }

    async fn delete(&self, request: Request<DeletePortForwardingRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let rule = rules::named(world, &cx, Purpose::PortForwarding, Traffic::Ingress).await?;
        let task = Task {
            command: DeletePortForwardingRuleRequest::COMMAND,
            description: format!("Deleting port forwarding rule for id={}", rule.uuid),
            custom_job_id: &req.custom_job_id,
            instance: true,
        };
        Ok(Response::new(rules::remove(world, &cx, &rule, Shown::PortForwarding, task).await?))
    }

    async fn list(
        &self,
        request: Request<ListPortForwardingRulesRequest>,
    ) -> Result<Response<ListPortForwardingRulesResponse>, Status> {
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
            purpose: Purpose::PortForwarding,
            traffic: Traffic::Ingress,
            id: cx.refs.one("id").map(|e| e.id),
            ip_id: cx.refs.one("ipaddressid").map(|e| e.id),
            network_id: cx.refs.one("networkid").map(|e| e.id),
            vm_id: None,
            display: display(&cx, req.for_display),
            keyword: keyword(&req.keyword),
            tag_kind: "PortForwardingRule",
            tags: tag_filter(&req.tags),
        };
        let (rows, count) = rules::list(world, &cx, asked, filter).await?;
        let port_forwarding_rule =
            present::port_forwarding_rules(&world.node.db, &rows).await.map_err(ApiError::from)?;
        Ok(Response::new(ListPortForwardingRulesResponse { count: Some(count), port_forwarding_rule }))
    }
}

/// The VM that is to get an address's traffic, with its interface in the address's network.
///
/// # Errors
/// 431 when it can't: destroyed, of another account or zone, or without that address in the network; 531 when the caller may
/// not use it.
pub(super) async fn machine(
    world: &World,
    cx: &Cx,
    entity: &Entity,
    view: &View,
    owner: &Owner,
    guest_ip: Option<&str>,
) -> Result<(Vm, Nic), ApiError> {
    let refuse = |text: String| ApiError::param(text).with_entity(&entity.uuid, "virtualmachineid");
    rules::operate(cx, entity)?;
    let vm = vms::one(&world.node.db, entity.id).await?.filter(|vm| !vm.removed);
    let vm = vm.ok_or_else(|| refuse("invalid virtual machine id specified: it has been removed".to_owned()))?;
    if matches!(vm.state, VmState::Destroyed | VmState::Expunging | VmState::Error) {
        return Err(refuse(format!("Invalid user vm: {} is {}", vm.uuid, vm.state)));
    }
    if vm.owner.account_id != owner.account_id {
        return Err(refuse(format!("The IP address's owner is not the same as owner of virtual machine {}", vm.uuid)));
    }
    if vm.zone_id != view.network.zone_id {
        return Err(refuse(format!(
            "The IP address is not in the same availability zone as virtual machine {}",
            vm.uuid
        )));
    }
    let nic = nics::of_vm_on(&world.node.db, vm.id, view.network.id).await?.filter(|n| n.ip.is_some());
    let nic = nic.ok_or_else(|| {
        refuse(format!(
            "Vm doesn't belong to network associated with ipAddress: it has no address in network {}",
            view.network.title()
        ))
    })?;
    if let Some(wanted) = guest_ip {
        let wanted = parse_ip(wanted, "vmguestip")?.to_string();
        if nic.ip.as_deref() != Some(wanted.as_str()) {
            return Err(refuse(format!(
                "IP Address {wanted} is not in the VM nic's network: it has {}",
                nic.ip.unwrap_or_default()
            )));
        }
    }
    Ok((vm, nic))
}

async fn create(world: &World, cx: &Cx, req: &CreatePortForwardingRuleRequest) -> Result<JobRef, ApiError> {
    let at = rules::place(world, cx).await?;
    let (view, db) = (&at.view, &world.node.db);
    same_network(cx, view)?;
    rule::service(view, Purpose::PortForwarding)?;
    let text = given(&req.protocol).ok_or_else(|| ApiError::empty_param("protocol"))?;
    let protocol = rule::protocol(view, Purpose::PortForwarding, Traffic::Ingress, &text)?;
    let missing = |name: &str| ApiError::empty_param(name);
    let public = rule::ports(req.public_port, req.public_end_port)?.ok_or_else(|| missing("publicport"))?;
    let private = rule::ports(req.private_port, req.private_end_port)?.ok_or_else(|| missing("privateport"))?;
    if public.1 - public.0 != private.1 - private.0 {
        return Err(ApiError::param("Source port and destination port ranges should be of equal sizes.".to_owned()));
    }
    // As 4.11: a range keeps its numbers.
    if public.0 != public.1 && public != private {
        return Err(ApiError::param(format!(
            "Private port start should be equal to public port start: a range keeps its ports, {}-{} can't become {}-{}",
            public.0, public.1, private.0, private.1
        )));
    }
    let cidrs = rule::cidrs("Source", &req.cidr_list)?;
    let entity = cx.refs.living("virtualmachineid")?.ok_or_else(|| missing("virtualmachineid"))?;
    let (vm, nic) = machine(world, cx, entity, view, &at.ip.owner, given(&req.vm_guest_ip).as_deref()).await?;
    let first = rule::numbers(db, 2).await?;
    let forward = Rule {
        id: first,
        uuid: model::new_uuid(),
        purpose: Purpose::PortForwarding,
        traffic: Traffic::Ingress,
        state: RuleState::Staged,
        ip_id: Some(at.ip.id),
        network_id: view.network.id,
        protocol,
        start_port: Some(public.0),
        end_port: Some(public.1),
        icmp_type: None,
        icmp_code: None,
        cidrs: cidrs.clone(),
        dest_cidrs: Vec::new(),
        related_id: None,
        target: Some(Target {
            vm_id: vm.id,
            ip: nic.ip.clone().unwrap_or_default(),
            start_port: private.0,
            end_port: private.1,
        }),
        display: req.for_display.unwrap_or(true),
        system: false,
        owner: at.ip.owner.clone(),
    };
    let open = opening(world, view, req.open_firewall, &forward, &cidrs).await?;
    let job = CreateRule {
        id: forward.id,
        related: open.as_ref().map(|r| r.id),
        network: view.network.id,
        zone: view.network.zone_id,
        shown: Shown::PortForwarding,
    };
    let aside = if nic.is_default { "" } else { "; the machine's default route goes by another of its networks" };
    let task = Task {
        command: CreatePortForwardingRuleRequest::COMMAND,
        description: format!(
            "Applying port forwarding rule for Ip: {} with virtual machine:{}{aside}",
            at.ip.ip, vm.uuid
        ),
        custom_job_id: &req.custom_job_id,
        instance: true,
    };
    let new: Vec<Rule> = std::iter::once(forward).chain(open).collect();
    rules::accept(world, cx, view, &new, task, job).await
}

/// `networkid` may only name the network that the address serves.
///
/// # Errors
/// 431 when it names another.
pub(super) fn same_network(cx: &Cx, view: &View) -> Result<(), ApiError> {
    match cx.refs.id::<i64>("networkid")? {
        Some(id) if id != view.network.id => Err(ApiError::param(format!(
            "Invalid network Id. IP is associated with a different network than passed network id: it serves {}",
            view.network.title()
        ))
        .with_entity(&view.network.uuid, "networkid")),
        _ => Ok(()),
    }
}

/// The firewall rule for another rule's ports, by `openfirewall`: on unless it is switched off. Where the network has no
/// firewall nothing needs opening, and asking for it is refused.
///
/// # Errors
/// 431 as said, and those of the database.
pub(super) async fn opening(
    world: &World,
    view: &View,
    wanted: Option<bool>,
    of: &Rule,
    cidrs: &[String],
) -> Result<Option<Rule>, ApiError> {
    if wanted == Some(false) {
        return Ok(None);
    }
    if let Err(unsupported) = rule::service(view, Purpose::Firewall) {
        return if wanted == Some(true) { Err(unsupported) } else { Ok(None) };
    }
    let others = match of.ip_id {
        Some(ip) => of_ip(&world.node.db, ip).await?,
        None => Vec::new(),
    };
    Ok(rule::open_firewall(of.id + 1, of, cidrs, &others))
}
