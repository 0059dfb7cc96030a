//! What a `deployVirtualMachine` asks for, checked against everything that can be known before a job is accepted. Reads
//! only: the same order is what `/client/plan` answers.

use super::boot::Constraints;
use super::deploy::{Deploy, DiskAsk, NicAsk};
use super::{VmWorld, names};
use crate::affinity;
use crate::store::affinity::GroupRow;
use crate::store::isos;
use crate::store::vm_order::{self as facts, NetworkFacts, OfferingFacts, TemplateFacts, ZoneFacts};
use crate::store::vms::{NewVm, VmRow};
use base64::Engine as _;
use config::keys;
use contract::ApiError;
use contract_compute::DeployVirtualMachineRequest;
use contract_identity::{ReserveRequest, ResourceAmount};
use model::Owner;
use model::state::VmState;
use rand::seq::IndexedRandom as _;
use rpc::Cx;

const GIB: i64 = 1 << 30;
/// Resource types of identity's limits (enums.json).
pub(super) mod resource {
    pub const INSTANCE: i32 = 0;
    pub const VOLUME: i32 = 2;
    pub const CPU: i32 = 8;
    pub const MEMORY: i32 = 9;
    pub const PRIMARY_STORAGE: i32 = 10;
}

/// A checked order.
#[derive(Debug)]
pub struct Order {
    /// The row to insert.
    pub new: NewVm,
    /// The job to accept.
    pub job: Deploy,
    /// Networks by number, for texts.
    pub networks: Vec<NetworkFacts>,
    /// The affinity groups that it is put in.
    pub groups: Vec<GroupRow>,
    /// What must be reserved first.
    pub reservations: Vec<ReserveRequest>,
}

/// Checks a request. `create_network` makes the network of an account that names and has none.
///
/// # Errors
/// 431 for what the request or its entities don't allow, 531 for entities out of reach.
pub async fn check(
    world: &VmWorld,
    cx: &Cx,
    request: &DeployVirtualMachineRequest,
    make_network: bool,
) -> Result<Order, ApiError> {
    let db = &world.node.db;
    let owner = owner(world, cx, request).await?;
    let zone_id: i64 = cx.refs.need("zoneid")?;
    let zone = facts::zone(db, zone_id).await?.ok_or_else(|| ApiError::param("Unable to find zone by id"))?;
    check_zone(&zone, cx, &owner)?;
    let offering_id: i64 = cx.refs.need("serviceofferingid")?;
    let offering = facts::offering(db, offering_id).await?;
    let offering =
        offering.filter(|o| !o.system).ok_or_else(|| ApiError::param("Unable to find service offering by id"))?;
    within_domain(offering.domain_path.as_deref(), &owner, "service offering")?;
    let template_id: i64 = cx.refs.need("templateid")?;
    let template = facts::template(db, template_id, zone_id).await?;
    let template = template.ok_or_else(|| ApiError::param("Unable to find template by id"))?;
    let hypervisor = match template.is_iso() {
        true => hypervisor_of_iso(&template, given(&request.hypervisor), &isos::hypervisors(db, zone_id).await?)?,
        false => hypervisor(&template, request.hypervisor.as_deref())?,
    };
    let (cpu, cpu_mhz, memory_mb) = size(&offering, &request.details)?;
    let constraints = constraints(cx, request, &offering)?;
    let groups = affinity::chosen(world, cx, &owner, &request.affinity_group_names).await?.unwrap_or_default();
    let nics = nics(world, cx, request, &zone, zone_id, &owner, make_network).await?;
    let ids: Vec<i64> = nics.iter().map(|n| n.network).collect();
    let networks = facts::networks(db, &ids).await?;
    check_networks(&networks, &ids, zone_id, &owner)?;

    let id = db.next_id("vm").await?;
    let uuid = request.custom_id.clone().filter(|_| cx.caller.is_root_admin()).unwrap_or_else(model::new_uuid);
    let name = match given(&request.name) {
        Some(name) => {
            names::check(name)?;
            name.to_owned()
        }
        None => format!("VM-{uuid}"),
    };
    let user_data = user_data(request.userdata.as_deref())?;
    let public_key = match given(&request.key_pair) {
        Some(pair) => Some(
            facts::public_key(db, owner.account_id, pair)
                .await?
                .ok_or_else(|| ApiError::param(format!("A key pair with name '{pair}' was not found.")))?,
        ),
        None => None,
    };
    // The template's, which the request's go before.
    let mut details = template.details.clone();
    details.extend(request.details.iter().filter(|(k, _)| !is_size(k)).map(|(k, v)| (k.clone(), v.clone())));
    if offering.customized {
        for (key, value) in [("cpuNumber", cpu), ("cpuSpeed", cpu_mhz), ("memory", memory_mb)] {
            details.insert(key.to_owned(), value.to_string());
        }
    }
    if let Some(keyboard) = given(&request.keyboard) {
        check_keyboard(keyboard)?;
        details.insert("keyboard".to_owned(), keyboard.to_owned());
    }
    let asked = data_disk(world, cx, request, &owner, id).await?;
    let (root, data) = match template.is_iso() {
        true => (empty_root(asked, root_gib(request)?, id)?, Vec::new()),
        false => {
            let size = root_size(root_gib(request)?, &template)?;
            (DiskAsk { uuid: model::new_uuid(), name: format!("ROOT-{id}"), offering: 0, size }, asked)
        }
    };
    let root_bytes = if root.size == 0 { template.size } else { root.size };
    let bytes = root_bytes + data.iter().map(|d| d.size).sum::<i64>();
    let limits_key = format!("vm:{uuid}");
    let mut reservations = vec![reservation(
        world,
        &limits_key,
        &owner,
        &[(resource::INSTANCE, 1), (resource::CPU, cpu), (resource::MEMORY, memory_mb)],
    )];
    for (disk, size) in std::iter::once((&root, root_bytes)).chain(data.iter().map(|d| (d, d.size))) {
        let items = [(resource::VOLUME, 1), (resource::PRIMARY_STORAGE, size)];
        reservations.push(reservation(world, &format!("volume:{}", disk.uuid), &owner, &items));
    }
    let password_sealed = template.password_enabled.then(|| sealed_password(world, &uuid));
    let start = request.start_vm.unwrap_or(true);
    let suffix: String = world.node.settings.get(keys::INSTANCE_NAME);
    let vm = VmRow {
        id,
        instance_name: format!("i-{}-{id}-{suffix}", owner.account_id),
        display_name: given(&request.display_name).unwrap_or(&name).to_owned(),
        name,
        uuid,
        state: if start { VmState::Starting } else { VmState::Stopped },
        owner,
        user_id: cx.caller.user_id,
        zone_id,
        host_id: None,
        last_host_id: None,
        template_id,
        iso_id: template.is_iso().then_some(template_id),
        os_type_id: Some(template.os_type_id),
        hypervisor,
        service_offering_id: offering_id,
        cpu,
        cpu_mhz,
        memory_mb,
        user_data,
        public_key,
        details,
        generation: 0,
        limits_key,
        changed: 0,
        removed: false,
    };
    Ok(Order {
        job: Deploy {
            vm: id,
            nics,
            root,
            data,
            storage_tags: offering.storage_tags.clone(),
            local_storage: offering.local_storage,
            constraints,
            start,
            bytes,
        },
        new: NewVm {
            vm,
            disk_offering_id: cx.refs.id("diskofferingid")?,
            key_pair: given(&request.key_pair).map(str::to_owned),
            group: group(world, request).await?,
            display_vm: request.display_vm.unwrap_or(true),
            ha_enabled: offering.ha,
            dynamic_scaling: template.dynamic_scaling,
            password_enabled: template.password_enabled,
            password_sealed,
            networks: ids,
        },
        networks,
        groups,
        reservations,
    })
}

/// A new password for the guest of a VM, sealed for [`model::sealed::vm_password`].
pub(super) fn sealed_password(world: &VmWorld, vm_uuid: &str) -> String {
    let length = world.node.settings.get(keys::VM_PASSWORD_LENGTH);
    world.node.vault.seal(&model::sealed::vm_password(vm_uuid), password(length).as_bytes())
}

/// A new password of `length` characters (at least six), of letters and digits that aren't mistaken for each other; one of each kind.
fn password(length: i64) -> String {
    const KINDS: [&[u8]; 3] = [b"abcdefghijkmnpqrstuvwxyz", b"ABCDEFGHJKMNPQRSTUVWXYZ", b"23456789"];
    let length = usize::try_from(length).unwrap_or_default().clamp(6, 64);
    let mut random = rand::rng();
    let all = KINDS.concat();
    let mut pick = |from: &[u8]| from.choose(&mut random).map(|byte| char::from(*byte));
    let first = KINDS.iter().filter_map(|kind| pick(kind)).collect::<Vec<_>>();
    let rest = (KINDS.len()..length).filter_map(|_| pick(&all)).collect::<Vec<_>>();
    first.into_iter().chain(rest).collect()
}

/// The group that is asked for, with a number for it should it have to be made.
async fn group(world: &VmWorld, request: &DeployVirtualMachineRequest) -> Result<Option<(String, i64)>, ApiError> {
    let Some(name) = given(&request.group) else { return Ok(None) };
    let name = crate::instance_group::checked(name)?.to_owned();
    Ok(Some((name, world.node.db.next_id("instance_group").await?)))
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|t| !t.is_empty())
}

async fn owner(world: &VmWorld, cx: &Cx, request: &DeployVirtualMachineRequest) -> Result<Owner, ApiError> {
    let domain = cx.refs.living("domainid")?.map(|d| (d.id, d.owner.as_ref().map_or("", |o| o.domain_path.as_str())));
    let owner = model::scope::owner_for_create(&world.node.db, &cx.caller, given(&request.account), domain).await?;
    match facts::account(&world.node.db, owner.account_id).await? {
        Some((_, state, _)) if state.eq_ignore_ascii_case("enabled") => Ok(owner),
        Some((name, ..)) => Err(ApiError::permission(format!("The owner of vm to deploy is disabled: {name}"))),
        None => Err(ApiError::param("the account has been removed")),
    }
}

pub(super) fn check_zone(zone: &ZoneFacts, cx: &Cx, owner: &Owner) -> Result<(), ApiError> {
    if !zone.enabled && !cx.caller.is_root_admin() {
        return Err(ApiError::permission("Cannot perform this operation, Zone is currently disabled"));
    }
    if let Some((account, path)) = &zone.dedicated {
        let theirs = match account {
            Some(account) => *account == owner.account_id,
            None => owner.domain_path.starts_with(path),
        };
        let root = cx.caller.is_root_admin() && owner.account_id == cx.caller.account_id;
        if !theirs && !root {
            return Err(ApiError::permission("the zone is dedicated to another account or domain"));
        }
    } else if let Some((_, path)) = &zone.domain
        && !owner.domain_path.starts_with(path)
    {
        return Err(ApiError::permission("the zone belongs to another domain"));
    }
    if !zone.advanced || zone.security_groups {
        return Err(ApiError::unsupported(
            "virtual machines in basic zones and in zones with security groups aren't supported yet",
        ));
    }
    Ok(())
}

/// Whether something of a domain (its id path) is for `owner` too.
pub(super) fn within_domain(path: Option<&str>, owner: &Owner, what: &str) -> Result<(), ApiError> {
    match path {
        Some(path) if !owner.domain_path.starts_with(path) => {
            Err(ApiError::permission(format!("the {what} belongs to another domain")))
        }
        _ => Ok(()),
    }
}

fn hypervisor(template: &TemplateFacts, asked: Option<&str>) -> Result<String, ApiError> {
    if !template.ready {
        return Err(ApiError::param(format!("Template {} isn't ready in this zone", template.name)));
    }
    let any = template.hypervisor.is_empty() || template.hypervisor.eq_ignore_ascii_case("none");
    match asked.filter(|h| !h.is_empty()) {
        Some(asked) if any => Ok(asked.to_owned()),
        Some(asked) if asked.eq_ignore_ascii_case(&template.hypervisor) => Ok(template.hypervisor.clone()),
        Some(asked) => Err(ApiError::param(format!(
            "Hypervisor passed to the deployVm call, is different from the hypervisor type of the template: {asked}, {}",
            template.hypervisor
        ))),
        None if any => Err(ApiError::param("hypervisor parameter is needed to deploy from this template")),
        None => Ok(template.hypervisor.clone()),
    }
}

/// An ISO that nothing can be booted from.
pub(super) fn not_bootable(name: &str) -> ApiError {
    ApiError::param(format!("Installing from ISO requires an ISO that is bootable: {name}"))
}

/// The hypervisor of a VM that boots from an ISO: the one that is asked for, among those of the zone (VM-178).
fn hypervisor_of_iso(iso: &TemplateFacts, asked: Option<&str>, known: &[String]) -> Result<String, ApiError> {
    if !iso.bootable {
        return Err(not_bootable(&iso.name));
    }
    if !iso.ready {
        return Err(ApiError::param(format!(
            "ISO {} isn't downloaded to this zone yet: wait until it is ready",
            iso.name
        )));
    }
    let found = asked.and_then(|asked| known.iter().find(|known| known.eq_ignore_ascii_case(asked)));
    let found = found.ok_or_else(|| {
        ApiError::param(
            "hypervisor parameter is needed to deploy VM or the hypervisor parameter value passed is invalid",
        )
    })?;
    if super::iso::has_no_drive(found) { Err(super::iso::no_drive(found)) } else { Ok(found.clone()) }
}

/// The ROOT disk of a VM that boots from an ISO: empty, and as the disk offering says.
fn empty_root(asked: Vec<DiskAsk>, root_disk_size: Option<i64>, vm: i64) -> Result<DiskAsk, ApiError> {
    if root_disk_size.is_some() {
        return Err(ApiError::param(
            "rootdisksize is for templates: with an ISO the disk offering says how large the root disk is",
        ));
    }
    let disk = asked.into_iter().next().ok_or_else(|| {
        ApiError::param("Installing from ISO requires a disk offering to be specified for the root disk.")
    })?;
    Ok(DiskAsk { name: format!("ROOT-{vm}"), ..disk })
}

/// Whether a detail is one of the sizes that custom offerings leave open.
pub(super) fn is_size(key: &str) -> bool {
    ["cpuNumber", "cpuSpeed", "memory"].iter().any(|k| k.eq_ignore_ascii_case(key))
}

/// CPUs, MHz and MiB (VM-038).
pub(super) fn size(
    offering: &OfferingFacts,
    details: &std::collections::HashMap<String, String>,
) -> Result<(i64, i64, i64), ApiError> {
    let asked = |name: &str| details.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
    let pick = |name: &str, fixed: Option<i64>, least: i64, most: i64| match (fixed, asked(name)) {
        (Some(n), None) => Ok(n),
        (Some(_), Some(_)) if offering.customized => {
            Err(ApiError::param(format!("{name} is fixed by service offering {}", offering.name)))
        }
        (Some(_), Some(_)) => Err(ApiError::param(format!(
            "service offering {} isn't custom: details {name} can't be given",
            offering.name
        ))),
        (None, None) => Err(ApiError::param(format!(
            "Need to specify custom parameter value cpuNumber, cpuSpeed and memory: {name} is missing"
        ))),
        (None, Some(text)) => match text.parse::<i64>() {
            Ok(n) if (least..=most).contains(&n) => Ok(n),
            _ => {
                Err(ApiError::param(format!("Invalid {name} value {text}: specify a value between {least} and {most}")))
            }
        },
    };
    let most = i64::from(i32::MAX);
    Ok((
        pick("cpuNumber", offering.cpu, 1, most)?,
        pick("cpuSpeed", offering.cpu_mhz, 1, most)?,
        pick("memory", offering.memory_mb, 32, most)?,
    ))
}

fn constraints(
    cx: &Cx,
    request: &DeployVirtualMachineRequest,
    offering: &OfferingFacts,
) -> Result<Constraints, ApiError> {
    let planner = super::approach::named(request.deployment_planner.as_deref())?;
    let host: Option<i64> = cx.refs.id("hostid")?;
    if host.is_some() && !cx.caller.is_root_admin() {
        return Err(ApiError::permission("Parameter hostid can only be specified by a Root Admin, permission denied"));
    }
    Ok(Constraints { host, pod: None, cluster: None, tags: offering.host_tags.clone(), planner })
}

async fn nics(
    world: &VmWorld,
    cx: &Cx,
    request: &DeployVirtualMachineRequest,
    zone: &ZoneFacts,
    zone_id: i64,
    owner: &Owner,
    make_network: bool,
) -> Result<Vec<NicAsk>, ApiError> {
    let mut nics: Vec<NicAsk> = Vec::new();
    if !request.ip_to_network_list.is_empty() {
        if !request.network_ids.is_empty() || given(&request.ip_address).is_some() {
            return Err(ApiError::param("ipToNetworkMap can't be specified along with networkIds or ipAddress"));
        }
        let networks = cx.refs.all("iptonetworklist.networkid");
        for (entry, network) in request.ip_to_network_list.iter().zip(networks) {
            nics.push(NicAsk { network: network.id, ip: entry.ip.clone(), mac: entry.mac.clone() });
        }
        if nics.len() != request.ip_to_network_list.len() {
            return Err(ApiError::param("each entry of iptonetworklist needs a networkid"));
        }
    } else {
        let ids: Vec<i64> = cx.refs.ids("networkids")?;
        nics.extend(ids.into_iter().map(|network| NicAsk { network, ip: None, mac: None }));
    }
    if nics.is_empty() {
        debug_assert!(zone.advanced);
        let network = default_network(world, cx, zone_id, owner, make_network).await?;
        nics.push(NicAsk { network, ip: None, mac: None });
    }
    if let Some(first) = nics.first_mut() {
        first.ip = first.ip.take().or_else(|| given(&request.ip_address).map(str::to_owned));
        first.mac = first.mac.take().or_else(|| given(&request.mac_address).map(str::to_owned));
    }
    Ok(nics)
}

/// The network of a VM that names none: the account's only isolated one, or, with `make`, a new one (4.11).
async fn default_network(world: &VmWorld, cx: &Cx, zone_id: i64, owner: &Owner, make: bool) -> Result<i64, ApiError> {
    if !make {
        let found = facts::isolated_of(&world.node.db, owner.account_id, zone_id).await?;
        return match found.as_slice() {
            [only] => Ok(only.id),
            [] => Err(ApiError::param(
                "the account has no network yet, and deploying would make one: name one by networkids",
            )),
            _ => Err(ApiError::param("the account has several networks: name one by networkids")),
        };
    }
    let request = contract_network::DefaultNetworkRequest {
        zone_id,
        account_id: owner.account_id,
        domain_id: owner.domain_id,
        domain_path: owner.domain_path.clone(),
    };
    let answer = world.attachments().default_network(rpc::cx::repeatable(&cx.caller, request)).await?;
    Ok(answer.into_inner().network_id)
}

pub(super) fn check_networks(networks: &[NetworkFacts], ids: &[i64], zone: i64, owner: &Owner) -> Result<(), ApiError> {
    for (i, id) in ids.iter().enumerate() {
        if ids[..i].contains(id) {
            return Err(ApiError::param("a network is named twice: a virtual machine has one NIC in a network"));
        }
        let network = networks.iter().find(|n| n.id == *id);
        let network = network.ok_or_else(|| ApiError::param("Unable to find network by id"))?;
        if !network.admits(owner) {
            // Not its name: who may not use it may not learn it either.
            return Err(ApiError::permission(format!("the account may not use the network given as number {}", i + 1)));
        }
        if network.zone_id != zone {
            return Err(ApiError::param(format!(
                "Network {} belongs to another zone than the virtual machine",
                network.name
            )));
        }
    }
    Ok(())
}

fn user_data(text: Option<&str>) -> Result<Option<String>, ApiError> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
    let compact: String = text.split_whitespace().collect();
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    // Some clients send the URL-safe alphabet.
    let standard = compact.replace('-', "+").replace('_', "/");
    engine.decode(&standard).map_err(|_| ApiError::param("User data is not base64 encoded"))?;
    Ok(Some(compact))
}

/// Checks user data that replaces a VM's.
pub fn check_user_data(text: Option<&str>) -> Result<Option<String>, ApiError> {
    user_data(text)
}

fn check_keyboard(keyboard: &str) -> Result<(), ApiError> {
    const KNOWN: [&str; 17] = [
        "de", "de-ch", "es", "fi", "fr", "fr-be", "fr-ch", "is", "it", "jp", "nl-be", "no", "pt", "uk", "us", "se",
        "da",
    ];
    if KNOWN.contains(&keyboard) {
        Ok(())
    } else {
        Err(ApiError::param(format!("keyboard {keyboard} isn't one of {KNOWN:?}")))
    }
}

/// The size that is asked for the root disk, in GiB: as a detail, which goes before, or as a parameter.
fn root_gib(request: &DeployVirtualMachineRequest) -> Result<Option<i64>, ApiError> {
    match request.details.iter().find(|(key, _)| key.eq_ignore_ascii_case("rootdisksize")) {
        Some((_, gib)) => gib.trim().parse().map(Some).map_err(|_| not_positive()),
        None => Ok(request.root_disk_size),
    }
}

fn not_positive() -> ApiError {
    ApiError::param("Root disk size should be a positive number (rootdisksize, in GiB)")
}

fn root_size(gib: Option<i64>, template: &TemplateFacts) -> Result<i64, ApiError> {
    let Some(gib) = gib else { return Ok(0) };
    if gib < 1 {
        return Err(not_positive());
    }
    let size = gib.checked_mul(GIB).ok_or_else(|| ApiError::param("rootdisksize is too large"))?;
    if size < template.size {
        return Err(ApiError::param(format!(
            "rootdisksize override is smaller than template size: {gib} GiB are less than {} bytes",
            template.size
        )));
    }
    Ok(size)
}

async fn data_disk(
    world: &VmWorld,
    cx: &Cx,
    request: &DeployVirtualMachineRequest,
    owner: &Owner,
    vm: i64,
) -> Result<Vec<DiskAsk>, ApiError> {
    let Some(id) = cx.refs.id::<i64>("diskofferingid")? else {
        return match request.size {
            Some(_) => Err(ApiError::param("size needs a diskofferingid")),
            None => Ok(Vec::new()),
        };
    };
    let offering = facts::disk_offering(&world.node.db, id).await?;
    let offering = offering.ok_or_else(|| ApiError::param("Unable to find disk offering by id"))?;
    within_domain(offering.domain_path.as_deref(), owner, "disk offering")?;
    let size = match (offering.customized, request.size) {
        (true, Some(gib)) if gib > 0 => gib.checked_mul(GIB).ok_or_else(|| ApiError::param("size is too large"))?,
        (true, _) => return Err(ApiError::param("size is needed: the disk offering is custom")),
        (false, _) => offering.size,
    };
    Ok(vec![DiskAsk { uuid: model::new_uuid(), name: format!("DATA-{vm}"), offering: id, size }])
}

fn reservation(world: &VmWorld, key: &str, owner: &Owner, items: &[(i32, i64)]) -> ReserveRequest {
    ReserveRequest {
        reserver: world.node.replica.clone(),
        key: key.to_owned(),
        account_id: owner.account_id,
        items: items.iter().map(|(r#type, amount)| ResourceAmount { r#type: *r#type, amount: *amount }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // covers: VM-284
    #[test]
    fn user_data_must_be_base64() {
        assert_eq!(user_data(Some("aGVsbG8=")).unwrap().as_deref(), Some("aGVsbG8="));
        assert!(user_data(Some("aGVsbG8")).is_ok(), "padding may be missing");
        assert!(user_data(Some("not base64!")).is_err());
        assert_eq!(user_data(Some("")).unwrap(), None);
    }

    #[test]
    fn root_disks_never_shrink() {
        let template = TemplateFacts {
            name: "t".into(),
            format: "VHD".into(),
            hypervisor: "Simulator".into(),
            os_type_id: 1,
            size: 5 * GIB,
            password_enabled: false,
            dynamic_scaling: false,
            bootable: true,
            ready: true,
            details: Default::default(),
        };
        assert_eq!(root_size(None, &template).unwrap(), 0);
        assert_eq!(root_size(Some(8), &template).unwrap(), 8 * GIB);
        assert_eq!(root_size(Some(4), &template).unwrap_err().code, 431);
        assert_eq!(root_size(Some(i64::MAX), &template).unwrap_err().code, 431);
        assert_eq!(root_size(Some(0), &template).unwrap_err().code, 431);
        // Clients say it as a detail, too.
        let mut request = DeployVirtualMachineRequest { root_disk_size: Some(7), ..Default::default() };
        assert_eq!(root_gib(&request).unwrap(), Some(7));
        for (said, means) in [("9", Some(Some(9))), ("nine", None)] {
            request.details = [("rootdisksize".to_owned(), said.to_owned())].into();
            assert_eq!(root_gib(&request).ok(), means);
        }
    }
}
