//! What the commands for rules share.

use super::Owners;
use crate::job::{self, DeleteRule, Order, Shown};
use crate::network::View;
use crate::rule::{self, Purpose, Traffic};
use crate::store::ips::{self, PublicIp};
use crate::store::rules::{self, Filter, Rule};
use crate::world::World;
use contract::api::{Access, JobRef};
use contract::{ApiError, CommandInfo};
use jobs::{Claim, Job};
use model::entity::Entity;
use rpc::Cx;
use std::sync::Arc;

/// A public address that a request names, with the network that it serves.
pub(super) struct Place {
    pub ip: PublicIp,
    pub view: Arc<View>,
}

/// The allocated address of `ipaddressid`, which the caller may change rules of.
///
/// # Errors
/// 431 when it serves no network, 531 when it is out of the caller's reach.
pub(super) async fn place(world: &World, cx: &Cx) -> Result<Place, ApiError> {
    let entity = cx.refs.living("ipaddressid")?.ok_or_else(|| ApiError::empty_param("ipaddressid"))?;
    // Before anything is told of it.
    operate(cx, entity)?;
    let refuse = |text: String| ApiError::param(text).with_entity(&entity.uuid, "ipaddressid");
    let ip = ips::one(&world.node.db, entity.id).await?;
    let ip = ip.ok_or_else(|| refuse("Unable to find the IP address: it has been removed".to_owned()))?;
    let network = match ip.network_id {
        Some(network) if ip.state == "Allocated" => network,
        _ => {
            return Err(refuse(format!("IP address {} is {}: it is not associated with any network", ip.ip, ip.state)));
        }
    };
    let view = world.views.fresh(&world.node.db, network).await?;
    Ok(Place { ip, view })
}

/// Fails where the caller may not change the entity.
///
/// # Errors
/// 531.
pub(super) fn operate(cx: &Cx, entity: &Entity) -> Result<(), ApiError> {
    if model::entity::allowed(&cx.caller, entity, Access::Operate) {
        return Ok(());
    }
    Err(ApiError::permission(format!(
        "account {} may not change what belongs to somebody else",
        cx.caller.account_name
    )))
}

/// The rule of `id`, of this purpose and direction, which the caller may change.
///
/// # Errors
/// 431 when it is another kind of rule or gone, 531 when it is out of the caller's reach.
pub(super) async fn named(world: &World, cx: &Cx, purpose: Purpose, traffic: Traffic) -> Result<Rule, ApiError> {
    let entity = cx.refs.living("id")?.ok_or_else(|| ApiError::empty_param("id"))?;
    operate(cx, entity)?;
    let rule = rules::one(&world.node.db, entity.id).await?.filter(|r| r.purpose == purpose && r.traffic == traffic);
    let rule = rule.ok_or_else(|| {
        let kind = if traffic == Traffic::Egress { "egress " } else { "" };
        ApiError::param(format!(
            "Unable to find {} having purpose {purpose}: it is no {kind}rule of that kind",
            entity.uuid
        ))
        .with_entity(&entity.uuid, "id")
    })?;
    Ok(rule)
}

/// `customid`, checked.
///
/// # Errors
/// 431 when it isn't a UUID.
pub(super) fn custom_id(text: &Option<String>) -> Result<Option<String>, ApiError> {
    let id = super::given(text);
    match &id {
        Some(id) if !contract::is_uuid(id) => {
            Err(ApiError::param(format!("customid {id} isn't a UUID: give one like {}", model::new_uuid())))
        }
        _ => Ok(id),
    }
}

/// What is said of the job of a rule.
pub(super) struct Task<'a> {
    pub command: Option<&'static CommandInfo>,
    pub description: String,
    pub custom_job_id: &'a Option<String>,
    /// Whether `jobinstancetype` is shown.
    pub instance: bool,
}

/// The job of a rule that is there already, with those that were made for it.
///
/// # Errors
/// Those of the database.
pub(super) async fn order<'a>(world: &World, cx: &'a Cx, rule: &Rule, task: Task<'_>) -> Result<Order<'a>, ApiError> {
    let related = rules::related(&world.node.db, rule.id).await?;
    let mut claims = claims(rule.network_id, rule.ip_id, std::iter::once(rule.id).chain(related));
    claims.sort_by(|a, b| a.resource().cmp(b.resource()));
    Ok(Order {
        command: task.command,
        caller: &cx.caller,
        owner: Some(rule.owner.clone()),
        instance: task.instance.then(|| ("FirewallRule", rule.uuid.clone())),
        claims,
        custom_id: task.custom_job_id.clone(),
        description: task.description,
        entity_id: None,
    })
}

/// Rules are worked on alone, beside others of their network and address.
fn claims(network: i64, ip: Option<i64>, rules: impl IntoIterator<Item = i64>) -> Vec<Claim> {
    let mut claims: Vec<Claim> = rules.into_iter().map(|id| Claim::Exclusive(format!("rule/{id}"))).collect();
    claims.extend(ip.map(|ip| Claim::Shared(format!("ip/{ip}"))));
    claims.push(Claim::Shared(format!("network/{network}")));
    claims
}

/// Takes a rule out of force and away, with those that were made for it.
///
/// # Errors
/// Those of the database.
pub(super) async fn remove(
    world: &World,
    cx: &Cx,
    rule: &Rule,
    shown: Shown,
    task: Task<'_>,
) -> Result<JobRef, ApiError> {
    let view = world.views.get(&world.node.db, rule.network_id).await?;
    let job = DeleteRule { id: rule.id, network: rule.network_id, zone: view.network.zone_id, shown };
    accept_for(world, cx, rule, task, job).await
}

/// Writes new rules, the first of which the command is about, with the job that brings them into force.
///
/// # Errors
/// 431 and 537 when something is in the way.
pub(super) async fn accept<J: Job>(
    world: &World,
    cx: &Cx,
    view: &View,
    new: &[Rule],
    task: Task<'_>,
    job: J,
) -> Result<JobRef, ApiError> {
    let first = new.first().ok_or_else(|| ApiError::internal("a command for a rule made none".to_owned()))?;
    let order = Order {
        command: task.command,
        caller: &cx.caller,
        owner: Some(first.owner.clone()),
        instance: Some(("FirewallRule", first.uuid.clone())),
        claims: claims(first.network_id, first.ip_id, new.iter().map(|r| r.id)),
        custom_id: task.custom_job_id.clone(),
        description: task.description,
        entity_id: Some(first.uuid.clone()),
    };
    let accept = order.of(job);
    let ticket = world.jobs.ticket().await?;
    jobs::mutate!(world.node.db, cx.caller, "create-rule", |tx| {
        rule::place(tx, view.network.id, view.offering.conserve_mode, new).await?;
        world.jobs.accept(tx, ticket.clone(), accept.clone()).await
    })
    .await
}

/// Accepts the job of a rule that is there already.
///
/// # Errors
/// Those of acceptance.
pub(super) async fn accept_for<J: Job>(
    world: &World,
    cx: &Cx,
    rule: &Rule,
    task: Task<'_>,
    job: J,
) -> Result<JobRef, ApiError> {
    let order = order(world, cx, rule, task).await?;
    job::accept(world, order, job).await
}

/// The parameters that all lists of rules have.
pub(super) struct Asked<'a> {
    pub account: &'a Option<String>,
    pub list_all: Option<bool>,
    pub recursive: Option<bool>,
    pub page: Option<i32>,
    pub page_size: Option<i32>,
}

/// A page of rules.
///
/// # Errors
/// Those of paging, scopes and the database.
pub(super) async fn list(
    world: &World,
    cx: &Cx,
    asked: Asked<'_>,
    filter: Filter,
) -> Result<(Vec<Rule>, i64), ApiError> {
    let db = &world.node.db;
    let page = world.page(asked.page, asked.page_size)?;
    let owners = Owners {
        account: asked.account.as_deref(),
        list_all: asked.list_all,
        recursive: asked.recursive,
        by_id: filter.id.is_some(),
    };
    let scope = owners.scope(db, cx).await?;
    Ok(rules::list(db, &filter, &scope, &page).await?)
}

/// What the caller may ask of visibility.
pub(super) fn display(cx: &Cx, wanted: Option<bool>) -> Option<bool> {
    if cx.caller.is_root_admin() { wanted } else { Some(true) }
}
