//! Compute offerings: what may be created, changed, deleted and seen.

use crate::fact;
use crate::placement::{Mode, Planner};
use crate::reach;
use crate::store::details::{self, Of};
use crate::store::offerings::{self as rows, OfferingFilter, OfferingRow, Visible};
use crate::world::World;
use ::store::{Tx, now_micros};
use contract::ApiError;
use contract::api::{Caller, RoleType, Success};
use contract_infra::{
    CreateServiceOfferingRequest, DeleteServiceOfferingRequest, ListServiceOfferingsRequest,
    ListServiceOfferingsResponse, ServiceOffering, UpdateServiceOfferingRequest,
};
use rpc::Cx;
use std::collections::BTreeMap;

/// Kinds of system VMs that an offering may be for.
const SYSTEM_VM_TYPES: &[&str] = &["domainrouter", "consoleproxy", "secondarystoragevm"];

/// Creates an offering.
pub async fn create(world: &World, cx: &Cx, r: CreateServiceOfferingRequest) -> Result<ServiceOffering, ApiError> {
    let domain = cx.refs.living("domainid")?.and_then(|e| e.owner.clone()).map(|o| (o.domain_id, o.domain_path));
    check_creator(&cx.caller, domain.as_ref().map(|(_, path)| path.as_str()), &r)?;
    let mut offering = checked(&r)?;
    let details = details_of(&r)?;
    offering.id = world.node.db.next_id("service_offering").await?;
    offering.uuid = model::new_uuid();
    offering.domain = domain;
    offering.created = now_micros();
    jobs::mutate!(world.node.db, cx.caller, "create-service-offering", |tx| {
        rows::insert(tx, std::slice::from_ref(&offering)).await?;
        details::set(tx, Of::ServiceOffering, offering.id, &details).await?;
        let what = format!("creating service offering. Service offering Name: {}", offering.name);
        fact::completed(tx, &cx.caller, "SERVICE.OFFERING.CREATE", &what, ("ServiceOffering", &offering.uuid)).await?;
        shown_in(tx, offering.id).await
    })
    .await
}

/// Domain administrators make offerings for domains below their own, without tags.
fn check_creator(caller: &Caller, domain: Option<&str>, r: &CreateServiceOfferingRequest) -> Result<(), ApiError> {
    if caller.is_root_admin() {
        return Ok(());
    }
    let who = &caller.user_uuid;
    if !matches!(caller.role(), RoleType::DomainAdmin | RoleType::ResourceAdmin) {
        return Err(ApiError::param(format!(
            "Unable to create service offering by id {who} because it is not root-admin or domain-admin"
        )));
    }
    let Some(path) = domain else {
        return Err(ApiError::param(format!(
            "Unable to create public service offering by id {who} because it is domain-admin"
        )));
    };
    if r.is_system == Some(true) {
        return Err(ApiError::param("Only ROOT admins can create system offerings"));
    }
    if r.tags.as_deref().is_some_and(|t| !t.is_empty()) || r.host_tags.as_deref().is_some_and(|t| !t.is_empty()) {
        return Err(ApiError::param(format!(
            "Unable to create service offering with storage tags or host tags by id {who} because it is domain-admin"
        )));
    }
    if !path.starts_with(&caller.domain_path) || path == caller.domain_path {
        return Err(ApiError::param(format!(
            "Unable to create service offering by another domain admin with id {who}"
        )));
    }
    Ok(())
}

fn checked(r: &CreateServiceOfferingRequest) -> Result<OfferingRow, ApiError> {
    let name = r.name().trim().to_owned();
    if name.is_empty() {
        return Err(ApiError::param("Failed to create service offering: specify the name that has non-zero length"));
    }
    let failed = |what: &str| ApiError::param(format!("Failed to create service offering {name}: {what}"));
    let display_text = r.display_text().trim().to_owned();
    if display_text.is_empty() {
        return Err(failed("specify the display text that has non-zero length"));
    }
    let is_system = r.is_system.unwrap_or(false);
    let customized = r.cpu_number.is_none() && r.cpu_speed.is_none() && r.memory.is_none();
    if !customized {
        if r.cpu_number.unwrap_or(0) < 1 {
            return Err(failed("specify the cpu number value between 1 and 2147483647"));
        }
        if r.cpu_speed.unwrap_or(-1) < 0 {
            return Err(failed("specify the cpu speed value between 0 and 2147483647"));
        }
        if r.memory.unwrap_or(0) < 32 {
            return Err(failed("specify the memory value between 32 and 2147483647 MB"));
        }
    }
    let storage_type = word(r.storage_type.as_deref(), &["shared", "local"]).ok_or_else(|| {
        ApiError::param(format!(
            "Invalid storage type {} specified, valid types are: 'local' and 'shared'",
            r.storage_type()
        ))
    })?;
    let provisioning_type = word(r.provisioning_type.as_deref(), &["thin", "sparse", "fat"]).ok_or_else(|| {
        ApiError::param(format!("Invalid provisioning type {}: use thin, sparse or fat", r.provisioning_type()))
    })?;
    let offer_ha = r.offer_ha.unwrap_or(false);
    if offer_ha && storage_type == "local" {
        return Err(ApiError::param("HA offering with local storage is not supported."));
    }
    let system_vm_type = system_vm_type(is_system, r.system_vm_type.as_deref())?;
    check_system(r, is_system, system_vm_type, customized)?;
    if r.network_rate.is_some_and(|rate| rate < 0) {
        return Err(failed("specify the network rate value more than 0"));
    }
    let planner = r.deployment_planner.as_deref().filter(|p| !p.is_empty());
    if planner.is_some_and(|planner| Planner::named(planner).is_none()) {
        return Err(ApiError::param(
            "Invalid name for Deployment Planner specified, please use listDeploymentPlanners to get the valid set",
        ));
    }
    Ok(OfferingRow {
        name,
        display_text,
        cpu: r.cpu_number.map(i64::from),
        cpu_mhz: r.cpu_speed.map(i64::from),
        memory_mb: r.memory.map(i64::from),
        rate_mbps: r.network_rate.map(i64::from),
        offer_ha,
        limit_cpu_use: r.limit_cpu_use.unwrap_or(false),
        is_volatile: r.is_volatile.unwrap_or(false),
        storage_type: storage_type.to_owned(),
        provisioning_type: provisioning_type.to_owned(),
        tags: clean(r.tags.as_deref()),
        host_tags: clean(r.host_tags.as_deref()),
        is_system,
        system_vm_type: system_vm_type.map(str::to_owned),
        customized,
        customized_iops: r.customized_iops,
        iops: iops(r)?,
        hypervisor_snapshot_reserve: snapshot_reserve(r.hypervisor_snapshot_reserve)?,
        bytes_rate: (rate(r.bytes_read_rate)?, rate(r.bytes_write_rate)?),
        iops_rate: (rate(r.iops_read_rate)?, rate(r.iops_write_rate)?),
        deployment_planner: planner.map(str::to_owned),
        ..OfferingRow::default()
    })
}

/// The word, in whatever case; the first when there is none.
fn word(given: Option<&str>, words: &'static [&'static str]) -> Option<&'static str> {
    match given.map(str::trim).filter(|g| !g.is_empty()) {
        None => words.first().copied(),
        Some(given) => words.iter().copied().find(|w| w.eq_ignore_ascii_case(given)),
    }
}

fn system_vm_type(is_system: bool, given: Option<&str>) -> Result<Option<&'static str>, ApiError> {
    if !is_system {
        return Ok(None);
    }
    let given = given.unwrap_or_default();
    SYSTEM_VM_TYPES.iter().copied().find(|t| t.eq_ignore_ascii_case(given)).map(Some).ok_or_else(|| {
        ApiError::param(format!("Invalid systemVmType. Supported types are: {}", SYSTEM_VM_TYPES.join(", ")))
    })
}

fn check_system(
    r: &CreateServiceOfferingRequest,
    is_system: bool,
    kind: Option<&str>,
    customized: bool,
) -> Result<(), ApiError> {
    if !is_system {
        return Ok(());
    }
    if customized {
        return Err(ApiError::param("A system offering fixes cpunumber, cpuspeed and memory: give all three"));
    }
    if r.network_rate.is_some() && kind != Some("domainrouter") {
        return Err(ApiError::param(
            "Network rate can be specified only for non-System offering and system offerings having \"domainrouter\" systemvmtype",
        ));
    }
    if r.customized_iops.is_some()
        || r.min_iops.is_some()
        || r.max_iops.is_some()
        || r.hypervisor_snapshot_reserve.is_some()
    {
        return Err(ApiError::param("Custom IOPS and a snapshot reserve are not for system offerings"));
    }
    Ok(())
}

fn iops(r: &CreateServiceOfferingRequest) -> Result<(Option<i64>, Option<i64>), ApiError> {
    match r.customized_iops {
        Some(true) if r.min_iops.is_some() || r.max_iops.is_some() => Err(ApiError::param(
            "Leave miniops and maxiops out of an offering whose users choose them (customizediops)",
        )),
        Some(true) | None if r.min_iops.is_none() && r.max_iops.is_none() => Ok((None, None)),
        _ => match (r.min_iops, r.max_iops.unwrap_or(0)) {
            (None, 0) => Ok((Some(0), Some(0))),
            (None, _) => Err(ApiError::param("The min IOPS must be greater than 0.")),
            (Some(min), _) if min <= 0 => Err(ApiError::param("The min IOPS must be greater than 0.")),
            (Some(min), max) if min > max => {
                Err(ApiError::param("The min IOPS must be less than or equal to the max IOPS."))
            }
            (Some(min), max) => Ok((Some(min), Some(max))),
        },
    }
}

fn snapshot_reserve(reserve: Option<i32>) -> Result<Option<i64>, ApiError> {
    match reserve {
        Some(reserve) if reserve < 0 => Err(ApiError::param("The hypervisor snapshot reserve must be 0 or more.")),
        other => Ok(other.map(i64::from)),
    }
}

fn rate(rate: Option<i64>) -> Result<Option<i64>, ApiError> {
    match rate {
        Some(rate) if rate < 0 => Err(ApiError::param("A rate of bytes or operations must be 0 or more")),
        Some(0) => Ok(None),
        other => Ok(other),
    }
}

fn clean(tags: Option<&str>) -> Option<String> {
    let tags: Vec<&str> = tags.unwrap_or_default().split(',').map(str::trim).filter(|t| !t.is_empty()).collect();
    (!tags.is_empty()).then(|| tags.join(","))
}

fn details_of(r: &CreateServiceOfferingRequest) -> Result<BTreeMap<String, String>, ApiError> {
    let mut details = BTreeMap::new();
    for entry in &r.service_offering_details {
        let (key, value) = (entry.key().trim(), entry.value());
        if key.is_empty() || value.is_empty() {
            return Err(ApiError::param("Each serviceofferingdetails entry needs a key and a value"));
        }
        if key.len() > 255 {
            return Err(ApiError::param("The key of a serviceofferingdetails entry is longer than 255 characters"));
        }
        details.insert(key.to_owned(), value.to_owned());
    }
    if details.contains_key("pciDevice") != details.contains_key("vgpuType") {
        return Err(ApiError::param("pciDevice and vgpuType come together: give both details or none"));
    }
    let implicit = r.deployment_planner() == Planner::ImplicitDedication.name();
    if implicit && Mode::parse(details.get(Mode::DETAIL).map(String::as_str)).is_none() {
        return Err(ApiError::param(format!("{} is Strict or Preferred", Mode::DETAIL)));
    }
    Ok(details)
}

/// Changes an offering's name, text and place.
pub async fn update(world: &World, cx: &Cx, r: UpdateServiceOfferingRequest) -> Result<ServiceOffering, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    let given = |v: &Option<String>| v.clone().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
    let (name, text) = (given(&r.name), given(&r.display_text));
    jobs::mutate!(world.node.db, cx.caller, "update-service-offering", |tx| {
        let offering = rows::find(&mut *tx, id).await?.ok_or_else(gone)?;
        check_reach(&cx.caller, &offering)?;
        rows::update(tx, id, name.as_deref(), text.as_deref(), r.sort_key.map(i64::from)).await?;
        let what = format!("updating service offering. Service offering Id: {id}");
        fact::completed(tx, &cx.caller, "SERVICE.OFFERING.EDIT", &what, ("ServiceOffering", &offering.uuid)).await?;
        shown_in(tx, id).await
    })
    .await
}

/// Deletes an offering; VMs that have it keep what they have.
pub async fn delete(world: &World, cx: &Cx, _: DeleteServiceOfferingRequest) -> Result<Success, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    jobs::mutate!(world.node.db, cx.caller, "delete-service-offering", |tx| {
        let offering = rows::find(&mut *tx, id).await?.ok_or_else(gone)?;
        check_reach(&cx.caller, &offering)?;
        if offering.unique_name.is_some() || offering.default_use {
            return Err(ApiError::param("Default service offerings cannot be deleted"));
        }
        rows::remove(tx, id).await?;
        let what = format!("deleting service offering. Service offering Id: {id}");
        fact::completed(tx, &cx.caller, "SERVICE.OFFERING.DELETE", &what, ("ServiceOffering", &offering.uuid)).await?;
        Ok(Success { success: true, ..Success::default() })
    })
    .await
}

/// A domain administrator changes offerings of domains below the own one.
fn check_reach(caller: &Caller, offering: &OfferingRow) -> Result<(), ApiError> {
    if caller.is_root_admin() {
        return Ok(());
    }
    let below = offering
        .domain
        .as_ref()
        .is_some_and(|(_, path)| path.starts_with(&caller.domain_path) && *path != caller.domain_path);
    if below && !offering.is_system {
        return Ok(());
    }
    Err(ApiError::param(format!(
        "Unable to change service offering {} by id {} because it is domain-admin",
        offering.name, caller.user_uuid
    )))
}

/// Lists the offerings that the caller may see.
pub async fn list(
    world: &World,
    cx: &Cx,
    r: ListServiceOfferingsRequest,
) -> Result<ListServiceOfferingsResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let caller = &cx.caller;
    let is_system = r.is_system.unwrap_or(false);
    if is_system && !caller.is_root_admin() {
        return Err(ApiError::param("Only ROOT admins can access system's offering"));
    }
    let db = &world.node.db;
    let given = |v: &Option<String>| v.clone().filter(|v| !v.is_empty());
    let for_vm = match cx.refs.one("virtualmachineid") {
        Some(vm) => {
            if let Some(owner) = &vm.owner
                && !model::scope::may_act_for(caller, owner)
            {
                return Err(ApiError::permission("the virtual machine is outside of what you may see"));
            }
            let has = rows::of_vm(db, vm.id).await?;
            Some(has.ok_or_else(|| ApiError::param(format!("unable to find a virtual machine with id {}", vm.uuid)))?)
        }
        None => None,
    };
    let domain = match cx.refs.living("domainid")? {
        Some(domain) => {
            if !model::entity::allowed(caller, domain, contract::Access::Use) {
                return Err(ApiError::permission("the domain is outside of what you may see"));
            }
            Some(domain.id)
        }
        None => None,
    };
    // Root admins and recursive lists of domain admins see the subtree; others their line up to the root.
    let visible = (!caller.is_root_admin()).then(|| Visible {
        line: reach::line(&caller.domain_path),
        below: reach::below(caller).filter(|_| r.is_recursive == Some(true) || r.list_all == Some(true)),
    });
    let filter = OfferingFilter {
        id: cx.refs.one("id").map(|e| e.id),
        name: given(&r.name),
        is_system,
        system_vm_type: given(&r.system_vm_type),
        domain,
        visible,
        for_vm,
        keyword: given(&r.keyword),
    };
    let (found, count) = rows::list(db, &filter, page).await?;
    let ids: Vec<i64> = found.iter().map(|o| o.id).collect();
    let mut details = details::read(db, Of::ServiceOffering, &ids).await?;
    let service_offering = found
        .into_iter()
        .map(|o| {
            let details = details.remove(&o.id).unwrap_or_default();
            message(o, details)
        })
        .collect();
    Ok(ListServiceOfferingsResponse { count: Some(count), service_offering })
}

fn gone() -> ApiError {
    ApiError::param("unable to find service offering: it has been removed")
}

async fn shown_in(tx: &mut Tx, id: i64) -> Result<ServiceOffering, ApiError> {
    let offering = rows::find(&mut *tx, id).await?.ok_or_else(gone)?;
    let details = details::read(&mut *tx, Of::ServiceOffering, &[id]).await?.remove(&id).unwrap_or_default();
    Ok(message(offering, details))
}

fn message(o: OfferingRow, details: BTreeMap<String, String>) -> ServiceOffering {
    let small = |n: Option<i64>| n.and_then(|n| i32::try_from(n).ok());
    let (domain_id, domain) = o.domain_name.unzip();
    ServiceOffering {
        id: Some(o.uuid),
        name: Some(o.name),
        display_text: Some(o.display_text),
        cpu_number: small(o.cpu),
        cpu_speed: small(o.cpu_mhz),
        memory: small(o.memory_mb),
        created: Some(o.created),
        storage_type: Some(o.storage_type),
        provisioning_type: Some(o.provisioning_type),
        offer_ha: Some(o.offer_ha),
        limit_cpu_use: Some(o.limit_cpu_use),
        is_volatile: Some(o.is_volatile),
        tags: o.tags,
        domain_id,
        domain,
        host_tags: o.host_tags,
        is_system: Some(o.is_system),
        default_use: Some(o.default_use),
        system_vm_type: o.system_vm_type,
        network_rate: small(o.rate_mbps),
        is_customized_iops: o.customized_iops,
        min_iops: o.iops.0,
        max_iops: o.iops.1,
        hypervisor_snapshot_reserve: small(o.hypervisor_snapshot_reserve),
        disk_bytes_read_rate: o.bytes_rate.0,
        disk_bytes_write_rate: o.bytes_rate.1,
        disk_iops_read_rate: o.iops_rate.0,
        disk_iops_write_rate: o.iops_rate.1,
        deployment_planner: o.deployment_planner,
        service_offering_details: details.into_iter().collect(),
        is_customized: Some(o.customized),
        ..ServiceOffering::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::api::DetailParam;

    fn tiny() -> CreateServiceOfferingRequest {
        CreateServiceOfferingRequest {
            name: Some("tiny".into()),
            display_text: Some("1 x 100 MHz".into()),
            cpu_number: Some(1),
            cpu_speed: Some(100),
            memory: Some(128),
            ..CreateServiceOfferingRequest::default()
        }
    }

    fn text(r: &CreateServiceOfferingRequest) -> String {
        checked(r).unwrap_err().text
    }

    // covers: VM-009, VM-037, VM-057
    #[test]
    fn offerings_are_checked_as_4_11_does() {
        let ok = checked(&tiny()).unwrap();
        assert_eq!((ok.storage_type.as_str(), ok.provisioning_type.as_str(), ok.customized), ("shared", "thin", false));
        let custom = CreateServiceOfferingRequest { cpu_number: None, cpu_speed: None, memory: None, ..tiny() };
        assert!(checked(&custom).unwrap().customized);
        assert!(text(&CreateServiceOfferingRequest { cpu_number: None, ..tiny() }).contains("cpu number"));
        assert!(text(&CreateServiceOfferingRequest { memory: Some(31), ..tiny() }).contains("between 32"));
        assert!(
            text(&CreateServiceOfferingRequest { display_text: Some(" ".into()), ..tiny() }).contains("display text")
        );
        let local = CreateServiceOfferingRequest { storage_type: Some("local".into()), offer_ha: Some(true), ..tiny() };
        assert_eq!(text(&local), "HA offering with local storage is not supported.");
        let rate = CreateServiceOfferingRequest {
            is_system: Some(true),
            system_vm_type: Some("consoleproxy".into()),
            network_rate: Some(10),
            ..tiny()
        };
        assert!(text(&rate).contains("domainrouter"));
        assert!(
            text(&CreateServiceOfferingRequest { is_system: Some(true), ..tiny() }).contains("Invalid systemVmType")
        );
        assert!(
            text(&CreateServiceOfferingRequest { deployment_planner: Some("X".into()), ..tiny() })
                .contains("please use listDeploymentPlanners")
        );
        assert_eq!(
            checked(&CreateServiceOfferingRequest { network_rate: Some(0), ..tiny() }).unwrap().rate_mbps,
            Some(0)
        );
    }

    #[test]
    fn gpu_details_come_in_pairs() {
        let detail = |k: &str| DetailParam { key: Some(k.into()), value: Some("v".into()) };
        let one = CreateServiceOfferingRequest { service_offering_details: vec![detail("pciDevice")], ..tiny() };
        assert!(details_of(&one).is_err());
        let both = CreateServiceOfferingRequest {
            service_offering_details: vec![detail("pciDevice"), detail("vgpuType")],
            ..tiny()
        };
        assert_eq!(details_of(&both).unwrap().len(), 2);
    }

    // covers: VM-030
    #[test]
    fn domain_admins_make_offerings_for_child_domains() {
        let admin =
            Caller { role_type: RoleType::DomainAdmin.into(), domain_path: "/1/5/".into(), ..Caller::default() };
        assert!(check_creator(&admin, None, &tiny()).is_err());
        assert!(check_creator(&admin, Some("/1/5/"), &tiny()).is_err());
        assert!(check_creator(&admin, Some("/1/6/"), &tiny()).is_err());
        assert!(check_creator(&admin, Some("/1/5/7/"), &tiny()).is_ok());
        let tagged = CreateServiceOfferingRequest { tags: Some("ssd".into()), ..tiny() };
        assert!(check_creator(&admin, Some("/1/5/7/"), &tagged).is_err());
    }
}
