//! Affinity groups: VMs that shall be on different hosts, or on the same one (VM-194 to VM-202). Groups of dedicated resources
//! are made by [`crate::dedication`].
//!
//! What a group asks for is decided where capacity is taken, in the same commit: [`binding`].

pub mod binding;
mod list;
mod tasks;

pub use list::{list, types, view};
pub use tasks::{CreateGroup, DeleteGroup, JoinGroups};

use crate::store::affinity::{self as rows, GroupRow};
use crate::store::vms::VmRow;
use crate::vm::submit::{self, Wish};
use crate::vm::{VmWorld, view as vm_view};
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_compute::{CreateAffinityGroupRequest, DeleteAffinityGroupRequest, UpdateVmAffinityGroupRequest};
use jobs::{Accept, Claim, Job as _};
use model::Owner;
use model::scope::{may_act_for, owner_for_create};
use rpc::Cx;

/// Longest name.
const NAME_LIMIT: usize = 255;

/// What a group asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No two of its VMs on one host.
    Apart,
    /// All of its VMs on one host.
    Together,
    /// Its VMs only where resources are dedicated to its owner.
    Dedicated,
}

impl Kind {
    /// All kinds.
    const ALL: [Kind; 3] = [Kind::Apart, Kind::Together, Kind::Dedicated];

    /// Its type as 4.11 calls it.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Apart => "host anti-affinity",
            Kind::Together => "host affinity",
            Kind::Dedicated => "ExplicitDedication",
        }
    }

    /// Reads a type.
    pub fn parse(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.word() == word)
    }
}

/// The claim of a job that changes a group, or deletes it.
pub fn claim(group: i64) -> Claim {
    Claim::Exclusive(format!("affinity/{group}"))
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|t| !t.is_empty())
}

async fn owner(world: &VmWorld, cx: &Cx, account: &Option<String>) -> Result<Owner, ApiError> {
    let domain = cx.refs.living("domainid")?.and_then(|e| e.owner.clone());
    let domain = domain.as_ref().map(|o| (o.domain_id, o.domain_path.as_str()));
    owner_for_create(&world.node.db, &cx.caller, given(account), domain).await
}

/// Inserts a group and accepts the job that tells so.
///
/// # Errors
/// 431 for a type that there is none of, or a name that the account has; 531 for a type that isn't made this way.
pub async fn create(world: &VmWorld, cx: &Cx, r: CreateAffinityGroupRequest) -> Result<JobRef, ApiError> {
    let kind = match Kind::parse(r.r#type()) {
        Some(Kind::Dedicated) => {
            return Err(ApiError::permission(
                "Cannot create the affinity group: groups of type ExplicitDedication are made when a resource is dedicated",
            ));
        }
        Some(kind) => kind,
        None => {
            return Err(ApiError::param(format!(
                "Unable to create affinity group, invalid affinity group type {}",
                r.r#type()
            )));
        }
    };
    let name = r.name().trim();
    if name.is_empty() || name.chars().count() > NAME_LIMIT {
        return Err(ApiError::param("The name of an affinity group has 1 to 255 characters"));
    }
    if given(&r.account).is_none() && cx.refs.one("domainid").is_some() {
        return Err(ApiError::param("Unable to create affinity group, account name must be passed with the domainId"));
    }
    let group = GroupRow {
        id: world.node.db.next_id("affinity_group").await?,
        uuid: model::new_uuid(),
        name: name.to_owned(),
        kind,
        description: given(&r.description).map(str::to_owned),
        owner: owner(world, cx, &r.account).await?,
        of_domain: false,
    };
    let ticket = world.jobs.ticket().await?;
    jobs::mutate!(world.node.db, &cx.caller, CreateGroup::KIND, |tx| {
        if !rows::insert(tx, &group).await? {
            return Err(ApiError::param(format!(
                "Unable to create affinity group, a group with name {} already exists.",
                group.name
            )));
        }
        let accept = Accept {
            job: CreateGroup { group: group.id },
            caller: cx.caller.clone(),
            command: CreateAffinityGroupRequest::COMMAND,
            owner: group.owner.clone(),
            instance: Some(("AffinityGroup".to_owned(), group.uuid.clone())),
            claims: vec![claim(group.id)],
            custom_id: r.custom_job_id.clone(),
            description: format!("creating Affinity Group. Affinity Group name: {}", group.name),
            entity_id: Some(group.uuid.clone()),
        };
        world.jobs.accept(tx, ticket.clone(), accept).await
    })
    .await
}

/// Accepts the deletion of a group. Its VMs go on where they are (VM-202).
///
/// # Errors
/// 431 when no group or two are named; 531 for one that isn't the caller's.
pub async fn delete(world: &VmWorld, cx: &Cx, r: DeleteAffinityGroupRequest) -> Result<JobRef, ApiError> {
    let db = &world.node.db;
    let group = match (cx.refs.id::<i64>("id")?, given(&r.name)) {
        (Some(_), Some(_)) => return Err(ApiError::param("name and id parameters are mutually exclusive")),
        (None, None) => {
            return Err(ApiError::param(
                "Either the affinity group id or its name must be specified to delete the group",
            ));
        }
        (Some(id), None) => rows::find(db, &[id]).await?.into_iter().next(),
        (None, Some(name)) => {
            let owner = owner(world, cx, &r.account).await?;
            let found = rows::named(db, &owner, &[name.to_owned()]).await?;
            found.into_iter().find(|g| !g.of_domain)
        }
    };
    let group = group.ok_or_else(|| match given(&r.name) {
        Some(name) => ApiError::param(format!("Unable to find affinity group by name {name}")),
        None => ApiError::param("Unable to find affinity group by id"),
    })?;
    // Whose group ends dedications: who made those.
    if group.kind == Kind::Dedicated && !cx.caller.is_root_admin() {
        return Err(ApiError::permission("only root admins delete affinity groups of dedicated resources"));
    }
    let ticket = world.jobs.ticket().await?;
    let mut claims = vec![claim(group.id)];
    if group.kind == Kind::Dedicated {
        claims.push(crate::dedication::claim());
    }
    jobs::mutate!(db, &cx.caller, DeleteGroup::KIND, |tx| {
        let accept = Accept {
            job: DeleteGroup { group: group.id },
            caller: cx.caller.clone(),
            command: DeleteAffinityGroupRequest::COMMAND,
            owner: group.owner.clone(),
            instance: Some(("AffinityGroup".to_owned(), group.uuid.clone())),
            claims: claims.clone(),
            custom_id: r.custom_job_id.clone(),
            description: format!("Deleting Affinity Group: {}", group.uuid),
            entity_id: None,
        };
        world.jobs.accept(tx, ticket.clone(), accept).await
    })
    .await
}

/// Accepts that a stopped VM gets other groups (VM-200).
///
/// # Errors
/// 431 when groups are named in neither way or in both (REL-072), or the VM isn't Stopped; those of [`chosen`].
pub async fn update_vm(world: &VmWorld, cx: &Cx, r: UpdateVmAffinityGroupRequest) -> Result<JobRef, ApiError> {
    let vm = submit::named(world, cx, "id").await?;
    let groups = chosen(world, cx, &vm.owner, &r.affinity_group_names).await?;
    let Some(groups) = groups else {
        return Err(ApiError::param("affinityGroupIds parameter or affinityGroupNames parameter must be given"));
    };
    if vm.state != model::state::VmState::Stopped {
        return Err(not_stopped(&vm));
    }
    let wish = Wish {
        command: UpdateVmAffinityGroupRequest::COMMAND,
        custom_id: r.custom_job_id,
        description: format!("updating VM Affinity Group, VM: {}", vm_view::label(&vm)),
        about_vm: true,
        claims: Vec::new(),
    };
    let job = JoinGroups { vm: vm.id, groups: groups.iter().map(|g| g.id).collect() };
    submit::submit(world, cx, &vm, job, wish).await
}

fn not_stopped(vm: &VmRow) -> ApiError {
    ApiError::param(format!(
        "Unable update affinity groups of the virtual machine {} in state {}; make sure the virtual machine is stopped and not in \
         an error state before updating.",
        vm_view::label(vm),
        vm.state
    ))
}

/// The groups that a request names for a VM of `owner`, by ids or by names; `None`: in neither way.
///
/// # Errors
/// 431 for both ways, or a group that isn't there; 531 for one that the owner's VMs can't be in (VM-197).
pub async fn chosen(
    world: &VmWorld,
    cx: &Cx,
    owner: &Owner,
    names: &[String],
) -> Result<Option<Vec<GroupRow>>, ApiError> {
    let db = &world.node.db;
    let mut ids: Vec<i64> = cx.refs.ids("affinitygroupids")?;
    let mut names: Vec<String> = names.iter().map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
    match (ids.is_empty(), names.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => {
            Err(ApiError::param("affinityGroupIds parameter is mutually exclusive with affinityGroupNames parameter"))
        }
        (false, true) => {
            ids.sort_unstable();
            ids.dedup();
            let found = rows::find(db, &ids).await?;
            if found.len() != ids.len() {
                return Err(ApiError::param("Unable to find affinity group by id"));
            }
            // Root admins have access to both; the owner must be the same all the same.
            if found.iter().any(|g| !g.admits(owner)) {
                return Err(ApiError::permission("the affinity group doesn't belong to the VM's account or domain"));
            }
            Ok(Some(found))
        }
        (true, false) => {
            if !may_act_for(&cx.caller, owner) {
                return Err(ApiError::permission("you may not use affinity groups of this account"));
            }
            names.sort_unstable();
            names.dedup();
            let mut found: Vec<GroupRow> = Vec::new();
            for group in rows::named(db, owner, &names).await? {
                // The account's own goes before a domain's of the same name.
                match found.iter_mut().find(|g| g.name.to_lowercase() == group.name.to_lowercase()) {
                    Some(known) if known.of_domain && !group.of_domain => *known = group,
                    Some(_) => {}
                    None => found.push(group),
                }
            }
            let has = |name: &String| found.iter().any(|g| g.name.to_lowercase() == name.to_lowercase());
            match names.iter().find(|n| !has(n)) {
                Some(name) => Err(ApiError::param(format!("Unable to find affinity group by name {name}"))),
                None => Ok(Some(found)),
            }
        }
    }
}

/// A group went while a VM was to get it.
pub fn gone() -> ApiError {
    ApiError::param("Unable to find affinity group: it has been deleted")
}
