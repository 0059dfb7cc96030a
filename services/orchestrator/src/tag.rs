//! Resource tags: putting them on, taking them off, listing them.

use crate::store::tags::{self as rows, TagFilter, Target};
use crate::world::World;
use ::store::Tx;
use contract::api::{JobRef, Ref, ResourceTag, Success};
use contract::{Access, ApiError, Request as _};
use contract_infra::{CreateTagsRequest, DeleteTagsRequest, ListTagsRequest, ListTagsResponse};
use jobs::{AbortCx, Accept, Ctx, Finished, Job, UndoCx};
use model::entity::{self, Entity};
use model::{ListScope, Owner, ScopeRequest};
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What can be tagged, and what kind of entity it is. `Ref::Other`: 4.11 knows it, Arcus doesn't have it yet.
const KINDS: &[(&str, Ref)] = &[
    ("UserVm", Ref::VirtualMachine),
    ("Template", Ref::Template),
    ("ISO", Ref::Iso),
    ("Volume", Ref::Volume),
    ("Snapshot", Ref::Snapshot),
    ("Network", Ref::Network),
    ("LoadBalancer", Ref::LoadBalancerRule),
    ("PortForwardingRule", Ref::FirewallRule),
    ("FirewallRule", Ref::FirewallRule),
    ("SecurityGroup", Ref::SecurityGroup),
    ("SecurityGroupRule", Ref::Other),
    ("PublicIpAddress", Ref::IpAddress),
    ("Project", Ref::Project),
    ("Account", Ref::Account),
    ("Vpc", Ref::Vpc),
    ("NetworkACL", Ref::NetworkAcl),
    ("StaticRoute", Ref::Other),
    ("VMSnapshot", Ref::Other),
    ("RemoteAccessVpn", Ref::Other),
    ("User", Ref::UserRef),
];

/// Longest key and value.
const LENGTH: usize = 255;
/// Most tags that one call writes: (resources × keys).
const MOST: usize = 10_000;

/// The job that changes tags.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ChangeTags {
    /// Puts them on.
    Put {
        /// The resources.
        targets: Vec<Target>,
        /// Keys and values.
        tags: Vec<(String, String)>,
        /// In whose name.
        customer: Option<String>,
    },
    /// Takes them off.
    Take {
        /// The resources.
        targets: Vec<Target>,
        /// Keys, with values where only that one goes; none: all.
        tags: Vec<(String, Option<String>)>,
    },
}

/// Accepts the job that puts tags on.
pub async fn create(world: &World, cx: &Cx, r: CreateTagsRequest) -> Result<JobRef, ApiError> {
    let targets = targets(world, cx, r.resource_type(), &r.resource_ids).await?;
    let mut tags = BTreeMap::new();
    for tag in &r.tags {
        let (key, value) = (tag.key(), tag.value());
        if key.is_empty() || value.is_empty() {
            return Err(ApiError::param("Each tag needs a key and a value that are not empty"));
        }
        check_length(key)?;
        check_length(value)?;
        tags.insert(key.to_owned(), value.to_owned());
    }
    if tags.len() * targets.len() > MOST {
        return Err(ApiError::param(format!("One call can put at most {MOST} tags on resources")));
    }
    let customer = r.customer.clone().filter(|c| !c.is_empty());
    let job = ChangeTags::Put { targets, tags: tags.into_iter().collect(), customer };
    accept(world, cx, job, CreateTagsRequest::COMMAND, r.custom_job_id, "creating resource tags").await
}

/// Accepts the job that takes tags off.
pub async fn delete(world: &World, cx: &Cx, r: DeleteTagsRequest) -> Result<JobRef, ApiError> {
    let targets = targets(world, cx, r.resource_type(), &r.resource_ids).await?;
    let mut tags = Vec::new();
    for tag in &r.tags {
        if tag.key().is_empty() {
            return Err(ApiError::param("Each tag needs a key"));
        }
        tags.push((tag.key().to_owned(), tag.value.clone().filter(|v| !v.is_empty())));
    }
    let job = ChangeTags::Take { targets, tags };
    accept(world, cx, job, DeleteTagsRequest::COMMAND, r.custom_job_id, "deleting resource tags").await
}

async fn accept(
    world: &World,
    cx: &Cx,
    job: ChangeTags,
    command: Option<&'static contract::CommandInfo>,
    custom_id: Option<String>,
    what: &str,
) -> Result<JobRef, ApiError> {
    let ticket = world.jobs.ticket().await?;
    let custom_id = custom_id.filter(|id| !id.is_empty());
    jobs::mutate!(world.node.db, cx.caller, "change-tags", |tx| {
        let accept = Accept {
            job: job.clone(),
            caller: cx.caller.clone(),
            command,
            owner: Owner::caller(&cx.caller),
            instance: None,
            claims: Vec::new(),
            custom_id: custom_id.clone(),
            description: what.to_owned(),
            entity_id: None,
        };
        world.jobs.accept(tx, ticket.clone(), accept).await
    })
    .await
}

fn check_length(text: &str) -> Result<(), ApiError> {
    if text.chars().count() <= LENGTH {
        return Ok(());
    }
    Err(ApiError::param(format!("Keys and values of tags have at most {LENGTH} characters")))
}

/// Reads the kind of resource, in whatever case: the word that is stored, and where such things live.
fn kind(word: &str) -> Result<(&'static str, Ref), ApiError> {
    KINDS
        .iter()
        .copied()
        .find(|(name, _)| name.eq_ignore_ascii_case(word.trim()))
        .ok_or_else(|| ApiError::param(format!("Invalid resource type: {word}")))
}

/// The resources, found and allowed; one query.
async fn targets(world: &World, cx: &Cx, word: &str, ids: &[String]) -> Result<Vec<Target>, ApiError> {
    let (name, reference) = kind(word)?;
    if entity::source_of(reference).is_none() {
        return Err(ApiError::unsupported(format!("Resources of type {name} can't be tagged yet")));
    }
    let values: Vec<&str> = ids.iter().map(|id| id.trim()).filter(|id| !id.is_empty()).collect();
    if values.is_empty() {
        return Err(ApiError::param("Give the ids of the resources (resourceids)"));
    }
    let found = entity::find(&world.node.db, reference, &values, true).await?;
    let mut targets: Vec<Target> = Vec::with_capacity(values.len());
    for value in values {
        let missing = || ApiError::param(format!("Unable to find resource by id {value} and type {name}"));
        let entity = found.get(value).filter(|e| !e.removed).ok_or_else(missing)?;
        if !entity::allowed(&cx.caller, entity, Access::Operate) {
            return Err(ApiError::permission(format!(
                "account {} may not tag the {name} with id {value}",
                cx.caller.account_name
            )));
        }
        if !targets.iter().any(|t| t.id == entity.id) {
            targets.push(target(name, entity, &cx.caller));
        }
    }
    Ok(targets)
}

fn target(kind: &str, entity: &Entity, caller: &contract::api::Caller) -> Target {
    Target {
        kind: kind.to_owned(),
        id: entity.id,
        uuid: entity.uuid.clone(),
        owner: entity.owner.clone().unwrap_or_else(|| Owner::caller(caller)),
    }
}

impl Job for ChangeTags {
    const KIND: &'static str = "tags.change";
    type World = World;
    type Undo = ();

    async fn run(self, _: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        jobs::finish!(ctx, |tx| {
            match &self {
                ChangeTags::Put { targets, tags, customer } => {
                    if !rows::insert(tx, targets, tags, customer.as_deref()).await? {
                        return Err(ApiError::param(
                            "One of the resources has a tag with one of these keys already: delete it first",
                        ));
                    }
                }
                ChangeTags::Take { targets, tags } => {
                    if rows::delete(tx, targets, tags).await? == 0 {
                        return Err(ApiError::param(
                            "Unable to find any tags which conform to specified delete parameters.",
                        ));
                    }
                }
            }
            Ok(Success { success: true, ..Success::default() })
        })
        .await
    }

    async fn undo(self, _: Arc<World>, (): (), _: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Lists tags.
pub async fn list(world: &World, cx: &Cx, r: ListTagsRequest) -> Result<ListTagsResponse, ApiError> {
    fn given(v: &Option<String>) -> Option<&str> {
        v.as_deref().filter(|v| !v.is_empty())
    }
    let page = world.page(r.page, r.page_size)?;
    let domain = cx.refs.living("domainid")?.and_then(|e| e.owner.clone());
    let db = &world.node.db;
    let request = ScopeRequest {
        account: given(&r.account),
        domain: domain.as_ref().map(|o| (o.domain_id, o.domain_path.as_str())),
        list_all: r.list_all == Some(true),
        recursive: r.is_recursive == Some(true),
        by_id: given(&r.resource_id).is_some(),
    };
    let scope = ListScope::of(db, &cx.caller, &request).await?;
    let kind = given(&r.resource_type).map(kind).transpose()?.map(|(name, _)| name);
    let filter = TagFilter {
        scope: &scope,
        kind,
        resource: given(&r.resource_id),
        key: given(&r.key),
        value: given(&r.value),
        customer: given(&r.customer),
        keyword: given(&r.keyword),
    };
    let (found, count) = rows::list(db, &filter, page).await?;
    let tag = found
        .into_iter()
        .map(|t| ResourceTag {
            key: Some(t.key),
            value: Some(t.value),
            resource_type: Some(t.kind),
            resource_id: Some(t.resource_uuid),
            account: t.account,
            domain_id: t.domain_uuid,
            domain: t.domain,
            customer: t.customer,
            ..ResourceTag::default()
        })
        .collect();
    Ok(ListTagsResponse { count: Some(count), tag })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_in_any_case() {
        assert_eq!(kind("uservm").unwrap(), ("UserVm", Ref::VirtualMachine));
        assert_eq!(kind("publicipaddress").unwrap().0, "PublicIpAddress");
        assert!(kind("Host").is_err());
    }
}
