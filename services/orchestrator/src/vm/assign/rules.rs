//! Who may give a VM to whom, and into which networks (IAM-038 to 040).

use super::Assign;
use crate::store::vm_assign::{self as rows, VmVolume};
use crate::store::vm_order as facts;
use crate::store::vms::VmRow;
use crate::vm::deploy::NicAsk;
use crate::vm::nic::another_nic;
use crate::vm::order::{check_networks, check_zone, within_domain};
use crate::vm::{VmWorld, account_claim, network_claim, view};
use contract::ApiError;
use contract::api::RoleType;
use contract_compute::AssignVirtualMachineRequest;
use contract_network::AllocateNicsRequest;
use jobs::Claim;
use model::Owner;
use model::state::VmState;
use rpc::Cx;

/// A job that may be accepted, and what it claims beside its VM.
pub struct Order {
    /// The job.
    pub job: Assign,
    /// Its claims.
    pub claims: Vec<Claim>,
}

/// Checks a request as things are now.
///
/// # Errors
/// 431 for a VM or an owner that it can't be done with, 531 for what the caller or the new owner may not use.
pub async fn check(
    world: &VmWorld,
    cx: &Cx,
    vm: &VmRow,
    request: &AssignVirtualMachineRequest,
) -> Result<Order, ApiError> {
    let db = &world.node.db;
    // As in 4.11, administrators of resources alone may not, though their role has the command.
    if !matches!(cx.caller.role_type(), RoleType::Admin | RoleType::DomainAdmin) {
        return Err(ApiError::param("Only domain admins are allowed to assign VMs"));
    }
    if !model::scope::may_act_for(&cx.caller, &vm.owner) {
        return Err(ApiError::permission("you may not assign this virtual machine"));
    }
    at_rest(vm)?;
    let to = new_owner(world, cx, vm, request).await?;
    free_of_rules(rows::rules(db, vm.id).await?)?;
    let volumes = rows::volumes(db, vm.id).await?;
    may_have(world, cx, vm, &volumes, &to).await?;
    let networks = networks(world, cx, vm, &to).await?;
    let mut claims = vec![account_claim(to.account_id), account_claim(vm.owner.account_id)];
    claims.extend(networks.iter().map(|n| network_claim(*n)));
    claims.extend(volumes.iter().map(|v| Claim::Exclusive(format!("volume/{}", v.id))));
    let volumes = volumes.into_iter().map(|v| v.id).collect();
    Ok(Order { job: Assign { vm: vm.id, from: vm.owner.account_id, to, networks, volumes }, claims })
}

/// Only a stopped one can go.
///
/// # Errors
/// 431.
pub fn at_rest(vm: &VmRow) -> Result<(), ApiError> {
    let text = match vm.state {
        VmState::Stopped => return Ok(()),
        VmState::Running => "VM is Running, unable to move the vm with specified vmId".to_owned(),
        state => format!("VM is {state}, unable to move the vm with specified vmId: it must be Stopped"),
    };
    Err(ApiError::param(text).with_entity(&vm.uuid, "vmId"))
}

/// What the network service is asked: NICs in these networks, the first one the default, in the place of all others.
pub fn nics(vm: &VmRow, to: &Owner, networks: &[i64]) -> AllocateNicsRequest {
    let moved = VmRow { owner: to.clone(), ..vm.clone() };
    let ask = |network: &i64| NicAsk { network: *network, ip: None, mac: None };
    let nics = crate::vm::deploy::nic_requests(&networks.iter().map(ask).collect::<Vec<_>>());
    let first = NicAsk { network: networks.first().copied().unwrap_or_default(), ip: None, mac: None };
    AllocateNicsRequest { nics, additional: false, ..another_nic(&moved, &first, None) }
}

async fn new_owner(
    world: &VmWorld,
    cx: &Cx,
    vm: &VmRow,
    request: &AssignVirtualMachineRequest,
) -> Result<Owner, ApiError> {
    let db = &world.node.db;
    let domain = cx.refs.living("domainid")?.map(|d| (d.id, d.owner.as_ref().map_or("", |o| o.domain_path.as_str())));
    let account = request.account.as_deref().filter(|name| !name.is_empty());
    let to = model::scope::owner_for_create(db, &cx.caller, account, domain).await?;
    match facts::account(db, to.account_id).await? {
        Some((_, state, _)) if state.eq_ignore_ascii_case("enabled") => {}
        Some((name, ..)) => return Err(ApiError::param(format!("The new account owner {name} is disabled."))),
        None => return Err(ApiError::param("the new account has been removed")),
    }
    if to.account_id == vm.owner.account_id {
        return Err(ApiError::param(format!(
            "The new account is the same as the old account: it owns the virtual machine {} already",
            view::label(vm)
        )));
    }
    Ok(to)
}

/// What leads to it by an address of its owner must go first.
fn free_of_rules(rules: rows::Rules) -> Result<(), ApiError> {
    let what = match rules {
        r if r.forwarded > 0 => "Port forwarding rules",
        r if r.static_nat > 0 => "StaticNat rules",
        r if r.balanced > 0 => "load balancing rules",
        r if r.addresses > 0 => "one to one nat rule",
        _ => return Ok(()),
    };
    Err(ApiError::param(format!("Remove the {what} for this VM before assigning to another user.")))
}

/// Whether the new owner may have all that it is made of.
async fn may_have(world: &VmWorld, cx: &Cx, vm: &VmRow, volumes: &[VmVolume], to: &Owner) -> Result<(), ApiError> {
    let db = &world.node.db;
    if let Some(v) = volumes.iter().find(|v| v.snapshots > 0) {
        return Err(ApiError::param(format!(
            "Snapshots exists for volume: {}, Detach volume or remove snapshots for volume before assigning VM to another user.",
            v.name
        ))
        .with_entity(&v.uuid, "volumeid"));
    }
    let (zone, offering, template) = tokio::try_join!(
        facts::zone(db, vm.zone_id),
        rows::offering_domain(db, vm.service_offering_id),
        rows::may_use_template(db, vm.template_id, to),
    )?;
    if !template {
        return Err(ApiError::permission("the new account may not use the template of the virtual machine"));
    }
    within_domain(offering.as_deref(), to, "service offering")?;
    for v in volumes {
        within_domain(v.domain_path.as_deref(), to, "disk offering")?;
    }
    check_zone(&zone.ok_or_else(|| ApiError::param("Unable to find zone by id"))?, cx, to)
}

/// The networks that it gets. None: the job makes the account's first one.
async fn networks(world: &VmWorld, cx: &Cx, vm: &VmRow, to: &Owner) -> Result<Vec<i64>, ApiError> {
    let db = &world.node.db;
    let mut ids: Vec<i64> = cx.refs.ids("networkids")?;
    if ids.is_empty()
        && let Some(shared) = rows::shared_default(db, vm.id).await?
        && facts::networks(db, &[shared]).await?.iter().any(|network| network.admits(to))
    {
        ids.push(shared);
    }
    if ids.is_empty() {
        match facts::isolated_of(db, to.account_id, vm.zone_id).await?.as_slice() {
            [] => return Ok(ids),
            [only] => ids.push(only.id),
            _ => {
                return Err(ApiError::param(
                    "More than 1 default Isolated networks are found for the new account; please specify networkIds",
                ));
            }
        }
    }
    check_networks(&facts::networks(db, &ids).await?, &ids, vm.zone_id, to)?;
    let check = nics(vm, to, &ids);
    world.attachments().check(rpc::cx::repeatable(&cx.caller, check)).await?;
    Ok(ids)
}
