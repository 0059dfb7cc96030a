//! Affinity groups as answers show them.

use super::{Kind, given};
use crate::reach;
use crate::store::affinity::{self as rows, GroupFilter, GroupRow};
use crate::store::vm_names::Kind as Name;
use crate::vm::VmWorld;
use config::keys;
use contract::api::Caller;
use contract::{ApiError, Page};
use contract_compute::{
    AffinityGroup, AffinityGroupType, ListAffinityGroupTypesRequest, ListAffinityGroupTypesResponse,
    ListAffinityGroupsRequest, ListAffinityGroupsResponse,
};
use model::scope::{may_act_for, widest};
use model::{ListScope, ScopeRequest};
use rpc::Cx;

/// Lists the groups that the caller may see or use (VM-197, VM-201).
///
/// # Errors
/// As those of [`ListScope::of`]; 531 for a VM that isn't the caller's.
pub async fn list(
    world: &VmWorld,
    cx: &Cx,
    r: ListAffinityGroupsRequest,
) -> Result<ListAffinityGroupsResponse, ApiError> {
    let db = &world.node.db;
    let page = Page::of(r.page, r.page_size, world.node.settings.get(keys::DEFAULT_PAGE_SIZE))?;
    let id = cx.refs.one("id").map(|e| e.id);
    let domain = cx.refs.living("domainid")?.and_then(|e| e.owner.clone());
    let request = ScopeRequest {
        account: given(&r.account),
        domain: domain.as_ref().map(|o| (o.domain_id, o.domain_path.as_str())),
        list_all: r.list_all == Some(true),
        recursive: r.is_recursive == Some(true),
        by_id: id.is_some(),
    };
    let mut scope = ListScope::of(db, &cx.caller, &request).await?;
    let vm = match cx.refs.one("virtualmachineid") {
        None => None,
        Some(vm) => {
            if vm.owner.as_ref().is_some_and(|owner| !may_act_for(&cx.caller, owner)) {
                return Err(ApiError::permission("you may not see the affinity groups of this virtual machine"));
            }
            // Whoever may see the VM may see its groups.
            scope = widest(&cx.caller);
            Some(vm.id)
        }
    };
    // A domain's group may be used by those in it and below.
    let domains = match &scope {
        ListScope::Nothing | ListScope::All => Vec::new(),
        ListScope::Account(account) if *account != cx.caller.account_id => {
            rows::account_path(db, *account).await?.map(|path| reach::line(&path)).unwrap_or_default()
        }
        ListScope::Subtree(path) => reach::line(path),
        ListScope::Domain(id) if *id != cx.caller.domain_id => Vec::new(),
        ListScope::Account(_) | ListScope::Domain(_) => reach::line(&cx.caller.domain_path),
    };
    let filter = GroupFilter {
        id,
        name: given(&r.name).map(str::to_owned),
        kind: given(&r.r#type).map(str::to_owned),
        keyword: given(&r.keyword).map(str::to_owned),
        vm,
        domains,
    };
    let (found, count) = rows::list(db, &scope, &filter, page).await?;
    Ok(ListAffinityGroupsResponse { count: Some(count), affinity_group: view(world, found, &cx.caller).await? })
}

/// Groups as `caller` sees them, with the VMs that it may see: three queries more, whatever their number.
///
/// # Errors
/// Those of the database.
pub async fn view(world: &VmWorld, groups: Vec<GroupRow>, caller: &Caller) -> Result<Vec<AffinityGroup>, ApiError> {
    let db = &world.node.db;
    let ids: Vec<i64> = groups.iter().map(|g| g.id).collect();
    let uuids: Vec<String> = groups.iter().map(|g| g.uuid.clone()).collect();
    let wanted: Vec<(Name, i64)> =
        groups.iter().flat_map(|g| [(Name::Account, g.owner.account_id), (Name::Domain, g.owner.domain_id)]).collect();
    let mut members = rows::members(db, &ids, &widest(caller)).await?;
    let names = world.names.all(db, wanted).await?;
    let pending = jobs::view::pending(db, &uuids).await?;
    Ok(groups
        .into_iter()
        .map(|g| {
            let domain = names.get(Name::Domain, Some(g.owner.domain_id));
            let job = pending.get(&g.uuid);
            AffinityGroup {
                job_id: job.map(|(uuid, _)| uuid.clone()),
                job_status: job.map(|(_, status)| *status),
                id: Some(g.uuid),
                name: Some(g.name),
                description: g.description,
                account: names.get(Name::Account, Some(g.owner.account_id)).map(|n| n.name.clone()),
                domain_id: domain.map(|d| d.uuid.clone()),
                domain: domain.map(|d| d.name.clone()),
                r#type: Some(g.kind.word().to_owned()),
                virtual_machine_ids: members.remove(&g.id).unwrap_or_default(),
                ..AffinityGroup::default()
            }
        })
        .collect())
}

/// The types of groups that can be made (VM-198).
///
/// # Errors
/// 431 for a page that can't be.
pub fn types(world: &VmWorld, r: ListAffinityGroupTypesRequest) -> Result<ListAffinityGroupTypesResponse, ApiError> {
    let page = Page::of(r.page, r.page_size, world.node.settings.get(keys::DEFAULT_PAGE_SIZE))?;
    let all = [Kind::Apart, Kind::Together];
    let skipped = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let most = page.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let affinity_group_type = all
        .iter()
        .skip(skipped)
        .take(most)
        .map(|kind| AffinityGroupType { r#type: Some(kind.word().to_owned()), ..AffinityGroupType::default() })
        .collect();
    Ok(ListAffinityGroupTypesResponse { count: i64::try_from(all.len()).ok(), affinity_group_type })
}
