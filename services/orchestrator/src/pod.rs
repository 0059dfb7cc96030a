//! Pods: a subnet of hosts, and the addresses reserved in it.

use crate::fact;
use crate::reach::allocation_state;
use crate::store::pods::{self as rows, PodChange, PodFilter, PodRow};
use crate::store::remains::{self, Place};
use crate::store::zones::ZoneRow;
use crate::store::{pod_ips, remove, touch};
use crate::subnet::{self, PodRange};
use crate::world::World;
use crate::zone;
use ::store::Tx;
use config::keys;
use contract::ApiError;
use contract::api::Success;
use contract_infra::{
    Capacity, CreatePodRequest, DeletePodRequest, ListPodsRequest, ListPodsResponse, Pod, UpdatePodRequest,
};
use model::state::AllocationState;
use rpc::Cx;
use std::collections::HashMap;

/// Creates a pod.
pub async fn create(world: &World, cx: &Cx, r: CreatePodRequest) -> Result<Pod, ApiError> {
    let zone_id: i64 = cx.refs.need("zoneid")?;
    let range = PodRange::parse(r.gateway(), r.netmask(), r.start_ip(), r.end_ip.as_deref())?;
    let state = allocation_state(r.allocation_state.as_deref())?.unwrap_or(AllocationState::Enabled);
    let name = pod_name(r.name())?;
    let id = world.node.db.next_id("pod").await?;
    let uuid = model::new_uuid();
    let distinct = world.node.settings.get(keys::CHECK_POD_CIDRS);
    jobs::mutate!(world.node.db, cx.caller, "create-pod", |tx| {
        let zone = zone::usable(tx, zone_id, &cx.caller).await?;
        let pod = PodRow {
            id,
            uuid: uuid.clone(),
            name: name.clone(),
            zone_id,
            zone_uuid: zone.uuid.clone(),
            zone_name: zone.name.clone(),
            gateway: range.gateway.to_string(),
            netmask: range.net.netmask().to_string(),
            cidr: range.net.to_string(),
            start_ip: range.start.to_string(),
            end_ip: range.end.to_string(),
            allocation_state: state,
        };
        check_neighbours(tx, &zone, None, &range, distinct).await?;
        if !rows::insert(tx, &pod).await? {
            return Err(name_taken(&name, &zone.name));
        }
        let what = format!("creating pod. Pod Name: {name}");
        fact::completed(tx, &cx.caller, "POD.CREATE", &what, ("Pod", &uuid)).await?;
        Ok(message(pod, Vec::new()))
    })
    .await
}

/// Changes a pod.
pub async fn update(world: &World, cx: &Cx, r: UpdatePodRequest) -> Result<Pod, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    let state = allocation_state(r.allocation_state.as_deref())?;
    let distinct = world.node.settings.get(keys::CHECK_POD_CIDRS);
    let name = r.name.as_deref().filter(|n| !n.is_empty()).map(pod_name).transpose()?;
    let pod = jobs::mutate!(world.node.db, cx.caller, "update-pod", |tx| {
        if !touch(tx, "pods", id).await? {
            return Err(gone());
        }
        let pod = rows::find(&mut *tx, id).await?.ok_or_else(gone)?;
        let zone = zone::usable(tx, pod.zone_id, &cx.caller).await?;
        let range = new_range(&pod, &r)?;
        if let Some(range) = &range {
            check_neighbours(tx, &zone, Some(id), range, distinct).await?;
            if let Some(ip) = pod_ips::outside(tx, id, range).await? {
                return Err(ApiError::param(format!(
                    "The range of pod {} can't be changed so: {ip} is in use and would be outside of it",
                    pod.name
                )));
            }
        }
        let change = PodChange { name: name.clone(), range, allocation_state: state };
        if !rows::update(tx, &pod, &change).await? {
            return Err(name_taken(name.as_deref().unwrap_or_default(), &zone.name));
        }
        let what = format!("updating pod. Pod Id: {id}");
        fact::completed(tx, &cx.caller, "POD.EDIT", &what, ("Pod", &pod.uuid)).await?;
        let pod = rows::find(&mut *tx, id).await?.ok_or_else(gone)?;
        Ok(message(pod, Vec::new()))
    })
    .await?;
    world.hosts_changed();
    Ok(pod)
}

/// Deletes a pod that is empty.
pub async fn delete(world: &World, cx: &Cx, _: DeletePodRequest) -> Result<Success, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    let uuid = cx.refs.one("id").map(|e| e.uuid.clone()).unwrap_or_default();
    jobs::mutate!(world.node.db, cx.caller, "delete-pod", |tx| {
        if !touch(tx, "pods", id).await? {
            return Err(gone());
        }
        if let Some(why) = remains::first(tx, Place::Pod(id)).await? {
            return Err(ApiError::failed(format!("The pod cannot be deleted because {why}")));
        }
        remove(tx, "pods", id).await?;
        fact::completed(tx, &cx.caller, "POD.DELETE", &format!("deleting pod. Pod Id: {id}"), ("Pod", &uuid)).await?;
        Ok(Success { success: true, ..Success::default() })
    })
    .await
}

/// Lists pods.
pub async fn list(world: &World, cx: &Cx, r: ListPodsRequest) -> Result<ListPodsResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let filter = PodFilter {
        id: cx.refs.one("id").map(|e| e.id),
        name: r.name.clone().filter(|n| !n.is_empty()),
        zone: cx.refs.one("zoneid").map(|e| e.id),
        allocation_state: r.allocation_state.clone().filter(|s| !s.is_empty()),
        keyword: r.keyword.clone().filter(|k| !k.is_empty()),
    };
    let db = &world.node.db;
    let (found, count) = rows::list(db, &filter, page).await?;
    let mut capacity: HashMap<i64, Vec<Capacity>> = if r.show_capacities == Some(true) {
        crate::capacity::of_pods(db, &found.iter().map(|p| p.id).collect::<Vec<_>>()).await?
    } else {
        HashMap::new()
    };
    let pod = found
        .into_iter()
        .map(|p| {
            let capacity = capacity.remove(&p.id).unwrap_or_default();
            message(p, capacity)
        })
        .collect();
    Ok(ListPodsResponse { count: Some(count), pod })
}

/// A living pod of a zone, for what is put into it.
///
/// # Errors
/// 431 when it has been removed or is elsewhere.
pub async fn usable(tx: &mut Tx, id: i64, zone: &ZoneRow) -> Result<PodRow, ApiError> {
    if !touch(tx, "pods", id).await? {
        return Err(gone());
    }
    let pod = rows::find(&mut *tx, id).await?.ok_or_else(gone)?;
    if pod.zone_id != zone.id {
        return Err(ApiError::param(format!(
            "Pod with specified id {} doesn't belong to the zone {}",
            pod.uuid, zone.uuid
        )));
    }
    Ok(pod)
}

/// The reserved range of a pod.
///
/// # Errors
/// Internal, when what is stored can't be read.
pub fn range_of(pod: &PodRow) -> Result<PodRange, ApiError> {
    PodRange::parse(&pod.gateway, &pod.netmask, &pod.start_ip, Some(&pod.end_ip))
        .map_err(|e| ApiError::internal(format!("the range of pod {} can't be read: {}", pod.id, e.text)))
}

fn new_range(pod: &PodRow, r: &UpdatePodRequest) -> Result<Option<PodRange>, ApiError> {
    let given = |v: &Option<String>| v.clone().filter(|v| !v.trim().is_empty());
    let (gateway, netmask) = (given(&r.gateway), given(&r.netmask));
    let (start, end) = (given(&r.start_ip), given(&r.end_ip));
    if gateway.is_none() && netmask.is_none() && start.is_none() && end.is_none() {
        return Ok(None);
    }
    PodRange::parse(
        gateway.as_deref().unwrap_or(&pod.gateway),
        netmask.as_deref().unwrap_or(&pod.netmask),
        start.as_deref().unwrap_or(&pod.start_ip),
        Some(end.as_deref().unwrap_or(&pod.end_ip)),
    )
    .map(Some)
}

/// Pods of a zone are apart from each other, from its guests' networks and from its public addresses.
async fn check_neighbours(
    tx: &mut Tx,
    zone: &ZoneRow,
    own: Option<i64>,
    range: &PodRange,
    distinct: bool,
) -> Result<(), ApiError> {
    let advice = "Please specify a different CIDR.";
    if distinct {
        let guests = zone.guest_cidr.as_deref().and_then(subnet::cidr);
        if guests.is_some_and(|g| subnet::intersect(g, range.net)) {
            return Err(ApiError::param(format!(
                "The subnet of the pod you are adding conflicts with the subnet of the Guest IP Network. {advice}"
            )));
        }
        for other in rows::of_zone(&mut *tx, zone.id).await? {
            if Some(other.id) != own && subnet::cidr(&other.cidr).is_some_and(|c| subnet::intersect(c, range.net)) {
                return Err(ApiError::param(format!(
                    "The subnet of the pod you are adding conflicts with the subnet of pod {}. {advice}",
                    other.name
                )));
            }
        }
    }
    if let Some((start, end)) = rows::public_overlap(tx, zone.id, range).await? {
        return Err(ApiError::param(format!(
            "The Start IP and endIP address range overlap with Public IP :{start}:{end}"
        )));
    }
    Ok(())
}

fn name_taken(name: &str, zone: &str) -> ApiError {
    ApiError::param(format!(
        "A pod with name: {name} already exists in zone {zone}. Please specify a different pod name. "
    ))
}

fn gone() -> ApiError {
    ApiError::param("Unable to find pod by id: it has been removed")
}

fn pod_name(name: &str) -> Result<String, ApiError> {
    match name.trim() {
        "" => Err(ApiError::param("Please specify a name for the pod.")),
        name => Ok(name.to_owned()),
    }
}

fn message(p: PodRow, capacity: Vec<Capacity>) -> Pod {
    Pod {
        id: Some(p.uuid),
        name: Some(p.name),
        zone_id: Some(p.zone_uuid),
        zone_name: Some(p.zone_name),
        gateway: Some(p.gateway),
        netmask: Some(p.netmask),
        start_ip: vec![p.start_ip],
        end_ip: vec![p.end_ip],
        for_system_vms: vec!["0".to_owned()],
        vlan_id: vec!["vlan://untagged".to_owned()],
        allocation_state: Some(p.allocation_state.to_string()),
        capacity,
        ..Pod::default()
    }
}
