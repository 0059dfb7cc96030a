//! Firewall rules: of public addresses, and of what guests send.

use super::rules::{self, Asked, Task, custom_id, display};
use super::{Api, given, keyword, tag_filter};
use crate::job::{CreateRule, Shown, UpdateRule};
use crate::network::View;
use crate::present;
use crate::rule::{self, Purpose, RuleState, Traffic};
use crate::store::rules::{Filter, Rule};
use crate::world::World;
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_network::egress_firewall_rules_server::EgressFirewallRules;
use contract_network::firewall_rules_server::FirewallRules;
use contract_network::{
    CreateEgressFirewallRuleRequest, CreateFirewallRuleRequest, DeleteEgressFirewallRuleRequest,
    DeleteFirewallRuleRequest, ListEgressFirewallRulesRequest, ListEgressFirewallRulesResponse,
    ListFirewallRulesRequest, ListFirewallRulesResponse, UpdateEgressFirewallRuleRequest, UpdateFirewallRuleRequest,
};
use rpc::Cx;
use tonic::{Request, Response, Status};

/// What both directions say of the packets that they mean.
struct Packets<'a> {
    protocol: &'a Option<String>,
    ports: (Option<i32>, Option<i32>),
    icmp: (Option<i32>, Option<i32>),
    kind: &'a Option<String>,
}

impl Packets<'_> {
    /// A rule for them, without sources, which the caller adds.
    async fn rule(&self, world: &World, cx: &Cx, view: &View, traffic: Traffic) -> Result<Rule, ApiError> {
        rule::service(view, Purpose::Firewall)?;
        let text = given(self.protocol).ok_or_else(|| ApiError::empty_param("protocol"))?;
        let protocol = rule::protocol(view, Purpose::Firewall, traffic, &text)?;
        let is_icmp = protocol == "icmp";
        if !is_icmp && self.icmp != (None, None) {
            return Err(ApiError::param("Can specify icmpCode and icmpType for ICMP protocol only".to_owned()));
        }
        if is_icmp && self.ports != (None, None) {
            return Err(ApiError::param("Can't specify start/end port when protocol is ICMP".to_owned()));
        }
        if protocol == "all" && self.ports != (None, None) {
            return Err(ApiError::param(
                "Do not pass ports to protocol ALL, protocol ALL do not require ports".to_owned(),
            ));
        }
        let ports = rule::ports(self.ports.0, self.ports.1)?;
        let (icmp_type, icmp_code) = if is_icmp { icmp(self.icmp)? } else { (None, None) };
        Ok(Rule {
            id: rule::numbers(&world.node.db, 1).await?,
            uuid: model::new_uuid(),
            purpose: Purpose::Firewall,
            traffic,
            state: RuleState::Staged,
            ip_id: None,
            network_id: view.network.id,
            protocol,
            start_port: ports.map(|p| p.0),
            end_port: ports.map(|p| p.1),
            icmp_type,
            icmp_code,
            cidrs: Vec::new(),
            dest_cidrs: Vec::new(),
            related_id: None,
            target: None,
            display: true,
            system: self.is_system(cx)?,
            owner: view.network.owner.clone(),
        })
    }

    fn is_system(&self, cx: &Cx) -> Result<bool, ApiError> {
        match given(self.kind).map(|k| k.to_lowercase()).as_deref() {
            None | Some("user") => Ok(false),
            Some("system") if cx.caller.is_root_admin() => Ok(true),
            Some("system") => {
                Err(ApiError::permission("Only root admin can make a system wide firewall rule".to_owned()))
            }
            Some(other) => {
                Err(ApiError::param(format!("Invalid type of firewall rule: {other}. There are user, system")))
            }
        }
    }
}

/// ICMP type and code; absent and -1: any.
fn icmp((kind, code): (Option<i32>, Option<i32>)) -> Result<(Option<i64>, Option<i64>), ApiError> {
    let read = |name: &str, value: Option<i32>| match value.unwrap_or(-1) {
        known @ -1..=255 => Ok(i64::from(known)),
        other => Err(ApiError::param(format!("Invalid {name}: {other}. Give -1 for any, or 0 to 255"))),
    };
    let (kind, code) = (read("icmptype", kind)?, read("icmpcode", code)?);
    if kind == -1 && code != -1 {
        return Err(ApiError::param("An icmpcode needs an icmptype".to_owned()));
    }
    Ok((Some(kind), Some(code)))
}

#[tonic::async_trait]
impl FirewallRules for Api {
    async fn create(&self, request: Request<CreateFirewallRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        if let Some(answer) = jobs::answered(&world.node.db, &cx.caller).await? {
            return Ok(Response::new(answer));
        }
        let at = rules::place(world, &cx).await?;
        let packets = Packets {
            protocol: &req.protocol,
            ports: (req.start_port, req.end_port),
            icmp: (req.icmp_type, req.icmp_code),
            kind: &req.r#type,
        };
        let mut new = packets.rule(world, &cx, &at.view, Traffic::Ingress).await?;
        new.ip_id = Some(at.ip.id);
        new.owner = at.ip.owner.clone();
        new.cidrs = rule::cidrs("Source", &req.cidr_list)?;
        if new.cidrs.is_empty() {
            new.cidrs.push("0.0.0.0/0".to_owned());
        }
        new.display = req.for_display.unwrap_or(true);
        let task = Task {
            command: CreateFirewallRuleRequest::COMMAND,
            description: format!("Creating firewall rule for Ip: {}", at.ip.ip),
            custom_job_id: &req.custom_job_id,
            instance: true,
        };
        Ok(Response::new(create(world, &cx, &at.view, new, task).await?))
    }

    async fn update(&self, request: Request<UpdateFirewallRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let rule = rules::named(world, &cx, Purpose::Firewall, Traffic::Ingress).await?;
        let task = Task {
            command: UpdateFirewallRuleRequest::COMMAND,
            description: format!("Updating firewall rule: {}", rule.uuid),
            custom_job_id: &req.custom_job_id,
            instance: false,
        };
        let job = UpdateRule { id: rule.id, display: req.for_display, uuid: custom_id(&req.custom_id)? };
        Ok(Response::new(rules::accept_for(world, &cx, &rule, task, job).await?))
    }

    async fn delete(&self, request: Request<DeleteFirewallRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let rule = rules::named(world, &cx, Purpose::Firewall, Traffic::Ingress).await?;
        let task = Task {
            command: DeleteFirewallRuleRequest::COMMAND,
            description: format!("Deleting firewall rule id={}", rule.uuid),
            custom_job_id: &req.custom_job_id,
            instance: true,
        };
        Ok(Response::new(delete(world, &cx, &rule, task).await?))
    }

    async fn list(
        &self,
        request: Request<ListFirewallRulesRequest>,
    ) -> Result<Response<ListFirewallRulesResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let asked = Asked {
            account: &req.account,
            list_all: req.list_all,
            recursive: req.is_recursive,
            page: req.page,
            page_size: req.page_size,
        };
        let filter = filter(&cx, Traffic::Ingress, req.for_display, &req.keyword, tag_filter(&req.tags));
        let (rows, count) = rules::list(world, &cx, asked, filter).await?;
        let firewall_rule = present::firewall_rules(&world.node.db, &rows).await.map_err(ApiError::from)?;
        Ok(Response::new(ListFirewallRulesResponse { count: Some(count), firewall_rule }))
    }
}

#[tonic::async_trait]
impl EgressFirewallRules for Api {
    async fn create(&self, request: Request<CreateEgressFirewallRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        if let Some(answer) = jobs::answered(&world.node.db, &cx.caller).await? {
            return Ok(Response::new(answer));
        }
        let entity = cx.refs.living("networkid")?.ok_or_else(|| ApiError::empty_param("networkid"))?;
        rules::operate(&cx, entity)?;
        let view = world.views.fresh(&world.node.db, entity.id).await?;
        let network = &view.network;
        if network.is_system {
            return Err(ApiError::param("Networks of the system have no egress rules".to_owned()).into());
        }
        if network.is("Shared") {
            return Err(ApiError::param("Egress firewall rules are not supported for Shared networks".to_owned())
                .with_entity(&network.uuid, "networkid")
                .into());
        }
        let packets = Packets {
            protocol: &req.protocol,
            ports: (req.start_port, req.end_port),
            icmp: (req.icmp_type, req.icmp_code),
            kind: &req.r#type,
        };
        let mut new = packets.rule(world, &cx, &view, Traffic::Egress).await?;
        new.cidrs = sources(&view, &req.cidr_list)?;
        new.dest_cidrs = rule::cidrs("Destination", &req.dest_cidr_list)?;
        new.display = req.for_display.unwrap_or(true);
        let task = Task {
            command: CreateEgressFirewallRuleRequest::COMMAND,
            description: format!("Creating firewall rule for network: {}", network.uuid),
            custom_job_id: &req.custom_job_id,
            instance: true,
        };
        Ok(Response::new(create(world, &cx, &view, new, task).await?))
    }

    async fn update(&self, request: Request<UpdateEgressFirewallRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let rule = rules::named(world, &cx, Purpose::Firewall, Traffic::Egress).await?;
        let task = Task {
            command: UpdateEgressFirewallRuleRequest::COMMAND,
            description: format!("Updating egress firewall rule: {}", rule.uuid),
            custom_job_id: &req.custom_job_id,
            instance: false,
        };
        let job = UpdateRule { id: rule.id, display: req.for_display, uuid: custom_id(&req.custom_id)? };
        Ok(Response::new(rules::accept_for(world, &cx, &rule, task, job).await?))
    }

    async fn delete(&self, request: Request<DeleteEgressFirewallRuleRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let rule = rules::named(world, &cx, Purpose::Firewall, Traffic::Egress).await?;
        let task = Task {
            command: DeleteEgressFirewallRuleRequest::COMMAND,
            description: format!("Deleting egress firewall rule id={}", rule.uuid),
            custom_job_id: &req.custom_job_id,
            instance: true,
        };
        Ok(Response::new(delete(world, &cx, &rule, task).await?))
    }

    async fn list(
        &self,
        request: Request<ListEgressFirewallRulesRequest>,
    ) -> Result<Response<ListEgressFirewallRulesResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let asked = Asked {
            account: &req.account,
            list_all: req.list_all,
            recursive: req.is_recursive,
            page: req.page,
            page_size: req.page_size,
        };
        let filter = filter(&cx, Traffic::Egress, req.for_display, &req.keyword, tag_filter(&req.tags));
        let (rows, count) = rules::list(world, &cx, asked, filter).await?;
        let firewall_rule = present::firewall_rules(&world.node.db, &rows).await.map_err(ApiError::from)?;
        Ok(Response::new(ListEgressFirewallRulesResponse { count: Some(count), firewall_rule }))
    }
}

/// The sources of an egress rule: within the network; none given: all of it.
fn sources(view: &View, list: &[String]) -> Result<Vec<String>, ApiError> {
    let cidrs = rule::cidrs("Source", list)?;
    let guests = view.network.network_cidr.as_ref().or(view.network.cidr.as_ref());
    let Some(guests) = guests else { return Ok(cidrs) };
    if cidrs.is_empty() {
        return Ok(vec![guests.clone()]);
    }
    let whole: Option<ipnet::Ipv4Net> = guests.parse().ok();
    for cidr in &cidrs {
        let within = cidr.parse().is_ok_and(|net: ipnet::Ipv4Net| {
            net.prefix_len() == 0 || whole.is_some_and(|whole| whole.contains(&net.trunc()))
        });
        if !within {
            return Err(ApiError::param(format!("{cidr} is not within the guest cidr {guests}")));
        }
    }
    Ok(cidrs)
}

fn filter(
    cx: &Cx,
    traffic: Traffic,
    wanted: Option<bool>,
    text: &Option<String>,
    tags: Vec<(String, String)>,
) -> Filter {
    Filter {
        purpose: Purpose::Firewall,
        traffic,
        id: cx.refs.one("id").map(|e| e.id),
        ip_id: cx.refs.one("ipaddressid").map(|e| e.id),
        network_id: cx.refs.one("networkid").map(|e| e.id),
        vm_id: None,
        display: display(cx, wanted),
        keyword: keyword(text),
        tag_kind: "FirewallRule",
        tags,
    }
}

async fn create(world: &World, cx: &Cx, view: &View, new: Rule, task: Task<'_>) -> Result<JobRef, ApiError> {
    let job = CreateRule {
        id: new.id,
        related: None,
        network: new.network_id,
        zone: view.network.zone_id,
        shown: Shown::Firewall,
    };
    rules::accept(world, cx, view, &[new], task, job).await
}

async fn delete(world: &World, cx: &Cx, rule: &Rule, task: Task<'_>) -> Result<JobRef, ApiError> {
    if rule.system && !cx.caller.is_root_admin() {
        return Err(ApiError::param("Only root admin can delete the system wide firewall rule".to_owned())
            .with_entity(&rule.uuid, "id"));
    }
    rules::remove(world, cx, rule, Shown::Firewall, task).await
}
