//! Instance groups: names by which accounts sort their VMs (VM-150). A VM is in one at most; a group that is deleted leaves its
//! VMs alone.

use crate::store::instance_groups::{self as rows, GroupRow};
use crate::world::World;
use ::store::Error;
use contract::ApiError;
use contract::api::Success;
use contract_compute::{
    CreateInstanceGroupRequest, DeleteInstanceGroupRequest, InstanceGroup, ListInstanceGroupsRequest,
    ListInstanceGroupsResponse, UpdateInstanceGroupRequest,
};
use model::scope::owner_for_create;
use model::{ListScope, ScopeRequest};
use rpc::Cx;

/// Longest name, in characters.
const NAME_LIMIT: usize = 255;

/// Makes a group.
///
/// # Errors
/// 431 for a name that can't be one or that the account has already, 531 for an account out of reach.
pub async fn create(world: &World, cx: &Cx, r: CreateInstanceGroupRequest) -> Result<InstanceGroup, ApiError> {
    let domain = cx.refs.living("domainid")?.and_then(|e| e.owner.clone());
    let domain = domain.as_ref().map(|o| (o.domain_id, o.domain_path.as_str()));
    let account = r.account.as_deref().filter(|a| !a.is_empty());
    let owner = owner_for_create(&world.node.db, &cx.caller, account, domain).await?;
    let name = checked(r.name())?.to_owned();
    let id = world.node.db.next_id("instance_group").await?;
    jobs::mutate!(world.node.db, cx.caller, "create-instance-group", |tx| {
        rows::insert(tx, id, &owner, &name).await.map_err(|e| taken(e, &name))?;
        Ok(message(rows::find(&mut *tx, id).await?.ok_or_else(gone)?))
    })
    .await
}

/// Gives a group another name.
///
/// # Errors
/// 431 for a name that can't be one or that the account has already.
pub async fn update(world: &World, cx: &Cx, r: UpdateInstanceGroupRequest) -> Result<InstanceGroup, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    let name = r.name.as_deref().filter(|n| !n.is_empty()).map(checked).transpose()?.map(str::to_owned);
    jobs::mutate!(world.node.db, cx.caller, "update-instance-group", |tx| {
        if let Some(name) = &name
            && !rows::rename(tx, id, name).await.map_err(|e| taken(e, name))?
        {
            return Err(gone());
        }
        Ok(message(rows::find(&mut *tx, id).await?.ok_or_else(gone)?))
    })
    .await
}

/// Deletes a group; its VMs stay.
///
/// # Errors
/// 431 when it is gone already.
pub async fn delete(world: &World, cx: &Cx, _: DeleteInstanceGroupRequest) -> Result<Success, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    jobs::mutate!(world.node.db, cx.caller, "delete-instance-group", |tx| {
        if !rows::delete(tx, id).await? {
            return Err(gone());
        }
        Ok(Success { success: true, ..Success::default() })
    })
    .await
}

/// Lists groups.
///
/// # Errors
/// 431 and 531 for scopes that the caller can't have.
pub async fn list(
    world: &World,
    cx: &Cx,
    r: ListInstanceGroupsRequest,
) -> Result<ListInstanceGroupsResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let domain = cx.refs.living("domainid")?.and_then(|e| e.owner.clone());
    let id = cx.refs.one("id").map(|e| e.id);
    let db = &world.node.db;
    let request = ScopeRequest {
        account: r.account.as_deref().filter(|a| !a.is_empty()),
        domain: domain.as_ref().map(|o| (o.domain_id, o.domain_path.as_str())),
        list_all: r.list_all == Some(true),
        recursive: r.is_recursive == Some(true),
        by_id: id.is_some(),
    };
    let scope = ListScope::of(db, &cx.caller, &request).await?;
    fn given(v: &Option<String>) -> Option<&str> {
        v.as_deref().filter(|v| !v.is_empty())
    }
    let (found, count) = rows::list(db, &scope, id, given(&r.name), given(&r.keyword), page).await?;
    Ok(ListInstanceGroupsResponse { count: Some(count), instance_group: found.into_iter().map(message).collect() })
}

/// A name that a group can have.
///
/// # Errors
/// 431 for one that is empty or too long.
pub fn checked(name: &str) -> Result<&str, ApiError> {
    if name.trim().is_empty() || name.chars().count() > NAME_LIMIT {
        return Err(ApiError::param(format!("the name of a vm group has 1 to {NAME_LIMIT} characters")));
    }
    Ok(name)
}

fn gone() -> ApiError {
    ApiError::param("Unable to find a vm group: it doesn't exist or has been deleted")
}

fn taken(e: Error, name: &str) -> ApiError {
    match e {
        Error::Unique { .. } => {
            ApiError::param(format!("Unable to create vm group, a group with name {name} already exists for account"))
        }
        other => other.into(),
    }
}

fn message(g: GroupRow) -> InstanceGroup {
    InstanceGroup {
        id: Some(g.uuid),
        name: Some(g.name),
        created: Some(g.created),
        account: Some(g.account),
        domain_id: Some(g.domain_uuid),
        domain: Some(g.domain),
        ..InstanceGroup::default()
    }
}
