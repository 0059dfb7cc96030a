//! Stickiness policies of load balancing rules.

use super::load_balancer_rules::{custom_id, named, order};
use super::{Api, given, keyword};
use crate::balance;
use crate::job;
use crate::job::balance::{CreatePolicy, DeletePolicy, UpdatePolicy};
use crate::present;
use crate::rule::RuleState;
use crate::store::balancers::{self, Balancer};
use crate::store::stickiness::{self, Policy};
use crate::world::World;
use ::store::Error;
use contract::api::{Access, JobRef};
use contract::{ApiError, Request as _};
use contract_network::stickiness_policies_server::StickinessPolicies;
use contract_network::{
    CreateLbStickinessPolicyRequest, DeleteLbStickinessPolicyRequest, ListLbStickinessPoliciesRequest,
    ListLbStickinessPoliciesResponse, UpdateLbStickinessPolicyRequest,
};
use rpc::Cx;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl StickinessPolicies for Api {
    async fn create(&self, request: Request<CreateLbStickinessPolicyRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        if let Some(answer) = jobs::answered(&world.node.db, &cx.caller).await? {
            return Ok(Response::new(answer));
        }
        Ok(Response::new(create(world, &cx, &req).await?))
    }

    async fn update(&self, request: Request<UpdateLbStickinessPolicyRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let (policy, rule) = policy(world, &cx).await?;
        let order = order(
            &cx,
            UpdateLbStickinessPolicyRequest::COMMAND,
            &rule,
            "Update LB Stickiness policy of rule",
            &req.custom_job_id,
        );
        let job = UpdatePolicy { id: policy.id, display: req.for_display, uuid: custom_id(&req.custom_id)? };
        Ok(Response::new(job::accept(world, order, job).await?))
    }

    async fn delete(&self, request: Request<DeleteLbStickinessPolicyRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let (policy, rule) = policy(world, &cx).await?;
        let order = order(
            &cx,
            DeleteLbStickinessPolicyRequest::COMMAND,
            &rule,
            "deleting load balancer stickiness policy of rule",
            &req.custom_job_id,
        );
        let job = DeletePolicy { id: policy.id, network: rule.rule.network_id };
        Ok(Response::new(job::accept(world, order, job).await?))
    }

    async fn list(
        &self,
        request: Request<ListLbStickinessPoliciesRequest>,
    ) -> Result<Response<ListLbStickinessPoliciesResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let page = world.page(req.page, req.page_size)?;
        let id = cx.refs.one("id").map(|e| e.id);
        let rule = match id {
            Some(_) => policy(world, &cx).await?.1,
            None if cx.refs.one("lbruleid").is_some() => named(world, &cx, "lbruleid").await?,
            None => {
                return Err(ApiError::param(
                    "load balancer rule ID and stickiness policy ID can't be null: give one of them".to_owned(),
                )
                .into());
            }
        };
        let display = if cx.caller.is_root_admin() { req.for_display } else { Some(true) };
        let word = keyword(&req.keyword);
        let other = cx.refs.one("lbruleid").is_some_and(|named| named.id != rule.rule.id);
        let mut policies = stickiness::of_rule(db, rule.rule.id).await.map_err(ApiError::from)?;
        policies.retain(|p| {
            !other
                && id.is_none_or(|id| id == p.id)
                && display.is_none_or(|d| d == p.display)
                && word.as_ref().is_none_or(|w| p.name.to_lowercase().contains(w))
        });
        // As 4.11: the rule is told, with whichever policies it has.
        let told = present::stickiness(db, &rule, &policies).await?;
        let (stickiness_policies, count) = super::slice(vec![told], &page);
        Ok(Response::new(ListLbStickinessPoliciesResponse { count: Some(count), stickiness_policies }))
    }
}

/// The policy that `id` names, with its rule, when the caller may change it.
async fn policy(world: &World, cx: &Cx) -> Result<(Policy, Balancer), ApiError> {
    let db = &world.node.db;
    let entity = cx.refs.one("id").ok_or_else(|| ApiError::empty_param("id"))?;
    if !model::entity::allowed(&cx.caller, entity, Access::Operate) {
        return Err(ApiError::permission("that stickiness policy belongs to somebody else"));
    }
    let gone = || {
        ApiError::param("Unable to find stickiness policy by id: it has been removed".to_owned())
            .with_entity(&entity.uuid, "id")
    };
    let policy = stickiness::one(db, entity.id).await?.ok_or_else(gone)?;
    let rule = balancers::one(db, policy.rule_id).await?.ok_or_else(gone)?;
    Ok((policy, rule))
}

async fn create(world: &World, cx: &Cx, req: &CreateLbStickinessPolicyRequest) -> Result<JobRef, ApiError> {
    let db = &world.node.db;
    let rule = named(world, cx, "lbruleid").await?;
    let required = |text: &Option<String>, name: &str| given(text).ok_or_else(|| ApiError::empty_param(name));
    let name = required(&req.name, "name")?;
    let method = required(&req.method_name, "methodname")?;
    let params = req.param.iter().map(|p| (p.name.as_deref(), p.value.as_deref()));
    let checked = balance::check_stickiness(&method, params)?;
    let refuse = |text: String| ApiError::param(text).with_entity(&rule.says.uuid, "lbruleid");
    if rule.rule.state == RuleState::Revoke {
        return Err(refuse(format!("Failed: LB rule id: {} is in deleting state", rule.says.uuid)));
    }
    // 4.11 takes a second one and never applies it.
    let taken = || refuse(format!("Failed to create Stickiness policy: LB rule {} has one already", rule.says.uuid));
    if !stickiness::of_rule(db, rule.rule.id).await?.is_empty() {
        return Err(taken());
    }
    let made = Policy {
        id: db.next_id("lb_stickiness").await?,
        uuid: model::new_uuid(),
        rule_id: rule.rule.id,
        name,
        description: req.description.clone(),
        method: checked.method.name().to_owned(),
        params: checked.params,
        state: stickiness::STAGED.to_owned(),
        display: req.for_display.unwrap_or(true),
        owner: rule.rule.owner.clone(),
    };
    let mut order = order(
        cx,
        CreateLbStickinessPolicyRequest::COMMAND,
        &rule,
        "creating stickiness policy for rule",
        &req.custom_job_id,
    );
    order.entity_id = Some(made.uuid.clone());
    let accept = order.of(CreatePolicy { id: made.id, rule: rule.rule.id, network: rule.rule.network_id });
    let ticket = world.jobs.ticket().await?;
    jobs::mutate!(world.node.db, cx.caller, "create-stickiness", |tx| {
        // Whoever deletes the rule has deleted its row by now, or sees the policy.
        if !crate::store::rules::update(tx, rule.rule.id, Some(rule.says.display), None).await? {
            return Err(refuse("the load balancing rule has been removed".to_owned()));
        }
        stickiness::insert(tx, &made).await.map_err(|error| match error {
            Error::Unique { .. } => taken(),
            other => other.into(),
        })?;
        world.jobs.accept(tx, ticket.clone(), accept.clone()).await
    })
    .await
}
