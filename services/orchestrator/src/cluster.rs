//! Clusters: hosts of one hypervisor in a pod.

use crate::hypervisor;
use crate::reach::allocation_state;
use crate::store::clusters::{self as rows, ClusterChange, ClusterFilter, ClusterRow};
use crate::store::details::{self, Of};
use crate::store::pods::PodRow;
use crate::store::remains::{self, Place};
use crate::store::{hosts, remove, touch};
use crate::world::World;
use crate::{pod, zone};
use ::store::Tx;
use config::{Scope, keys};
use contract::ApiError;
use contract::api::Success;
use contract_infra::{
    AddClusterRequest, Capacity, Cluster, DeleteClusterRequest, ListClustersRequest, ListClustersResponse,
    UpdateClusterRequest,
};
use model::state::AllocationState;
use rpc::Cx;
use std::collections::{BTreeMap, HashMap};

/// A cluster that is to be made: number and UUID are chosen before the transaction.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Hypervisor.
    pub hypervisor: &'static str,
    /// Type.
    pub cluster_type: &'static str,
    /// Whether it takes new resources.
    pub allocation_state: AllocationState,
}

/// Adds a cluster.
pub async fn add(world: &World, cx: &Cx, r: AddClusterRequest) -> Result<ListClustersResponse, ApiError> {
    let (zone_id, pod_id): (i64, i64) = (cx.refs.need("zoneid")?, cx.refs.need("podid")?);
    let hypervisor = hypervisor::parse(r.hypervisor())?;
    let cluster_type = cluster_type(r.cluster_type())?;
    if cluster_type == "ExternalManaged" || r.url.as_deref().is_some_and(|u| !u.is_empty()) {
        return Err(ApiError::unsupported("Clusters that another system manages (vCenter) are not supported yet."));
    }
    let name = cluster_name(r.cluster_name())?;
    let new = NewCluster {
        id: world.node.db.next_id("cluster").await?,
        uuid: model::new_uuid(),
        name,
        hypervisor,
        cluster_type,
        allocation_state: allocation_state(r.allocation_state.as_deref())?.unwrap_or(AllocationState::Enabled),
    };
    let labels: BTreeMap<String, String> = [
        ("guestvswitchtype", r.guest_vswitch_type.clone()),
        ("publicvswitchtype", r.public_vswitch_type.clone()),
        ("guestvswitchname", r.guest_vswitch_name.clone()),
        ("publicvswitchname", r.public_vswitch_name.clone()),
    ]
    .into_iter()
    .filter_map(|(k, v)| Some((k.to_owned(), v.filter(|v| !v.is_empty())?)))
    .collect();
    jobs::mutate!(world.node.db, cx.caller, "add-cluster", |tx| {
        let zone = zone::usable(tx, zone_id, &cx.caller).await?;
        let pod = pod::usable(tx, pod_id, &zone).await?;
        let cluster = make(world, tx, &pod, &new).await?;
        details::set(tx, Of::Cluster, cluster.id, &labels).await?;
        Ok(ListClustersResponse { count: Some(1), cluster: vec![message(cluster, Vec::new())] })
    })
    .await
}

/// Makes a cluster of a pod. It takes the overcommitment that is set for all; later changes of that don't concern it.
pub async fn make(world: &World, tx: &mut Tx, pod: &PodRow, new: &NewCluster) -> Result<ClusterRow, ApiError> {
    let settings = &world.node.settings;
    let cluster = ClusterRow {
        id: new.id,
        uuid: new.uuid.clone(),
        name: new.name.clone(),
        pod_id: pod.id,
        pod_uuid: pod.uuid.clone(),
        pod_name: pod.name.clone(),
        zone_id: pod.zone_id,
        zone_uuid: pod.zone_uuid.clone(),
        zone_name: pod.zone_name.clone(),
        hypervisor: new.hypervisor.to_owned(),
        cluster_type: new.cluster_type.to_owned(),
        allocation_state: new.allocation_state,
        managed_state: "Managed".to_owned(),
        cpu_overcommit: settings.get(keys::CPU_OVERPROVISIONING_FACTOR),
        memory_overcommit: settings.get(keys::MEM_OVERPROVISIONING_FACTOR),
    };
    if !rows::insert(tx, &cluster).await? {
        return Err(name_taken(&cluster.name, &pod.name));
    }
    let scope = Scope::Cluster(cluster.id);
    for (key, factor) in [
        (keys::CPU_OVERPROVISIONING_FACTOR, cluster.cpu_overcommit),
        (keys::MEM_OVERPROVISIONING_FACTOR, cluster.memory_overcommit),
    ] {
        settings.set(tx, key.name, &ratio(factor), scope).await?;
    }
    Ok(cluster)
}

/// Changes a cluster.
pub async fn update(world: &World, cx: &Cx, r: UpdateClusterRequest) -> Result<Cluster, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    let given = |v: &Option<String>| v.clone().filter(|v| !v.trim().is_empty());
    let managed = given(&r.managed_state).map(|w| managed_state(&w)).transpose()?;
    let change = ClusterChange {
        name: given(&r.cluster_name).map(|n| cluster_name(&n)).transpose()?,
        hypervisor: given(&r.hypervisor).map(|h| hypervisor::parse(&h).map(str::to_owned)).transpose()?,
        cluster_type: given(&r.cluster_type).map(|t| cluster_type(&t).map(str::to_owned)).transpose()?,
        allocation_state: allocation_state(r.allocation_state.as_deref())?,
        managed_state: managed.map(str::to_owned),
    };
    let cluster = jobs::mutate!(world.node.db, cx.caller, "update-cluster", |tx| {
        if !touch(tx, "clusters", id).await? {
            return Err(gone());
        }
        let cluster = rows::find(&mut *tx, id).await?.ok_or_else(gone)?;
        let other_hypervisor = change.hypervisor.as_ref().is_some_and(|h| *h != cluster.hypervisor);
        if other_hypervisor && remains::first(tx, Place::Cluster(id)).await?.is_some() {
            return Err(ApiError::param(format!(
                "The hypervisor of cluster {} can't be changed while it has hosts or storage pools",
                cluster.name
            )));
        }
        if managed == Some(cluster.managed_state.as_str()) {
            return Err(ApiError::param(format!(
                "The cluster {} is already in the state {}",
                cluster.name, cluster.managed_state
            )));
        }
        if !rows::update(tx, &cluster, &change).await? {
            return Err(name_taken(change.name.as_deref().unwrap_or_default(), &cluster.pod_name));
        }
        if managed.is_some() {
            hosts::accept(tx, "h.cluster_id", id).await?;
        }
        Ok(message(rows::find(&mut *tx, id).await?.ok_or_else(gone)?, Vec::new()))
    })
    .await?;
    world.hosts_changed();
    Ok(cluster)
}

/// Deletes a cluster that is empty.
pub async fn delete(world: &World, cx: &Cx, _: DeleteClusterRequest) -> Result<Success, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    jobs::mutate!(world.node.db, cx.caller, "delete-cluster", |tx| {
        if !touch(tx, "clusters", id).await? {
            return Err(gone());
        }
        if let Some(why) = remains::first(tx, Place::Cluster(id)).await? {
            return Err(ApiError::failed(format!("Cluster: {id} cannot be removed: {why}")));
        }
        remove(tx, "clusters", id).await?;
        Ok(Success { success: true, ..Success::default() })
    })
    .await
}

/// Lists clusters.
pub async fn list(world: &World, cx: &Cx, r: ListClustersRequest) -> Result<ListClustersResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let given = |v: &Option<String>| v.clone().filter(|v| !v.is_empty());
    let filter = ClusterFilter {
        id: cx.refs.one("id").map(|e| e.id),
        name: given(&r.name),
        pod: cx.refs.one("podid").map(|e| e.id),
        zone: cx.refs.one("zoneid").map(|e| e.id),
        hypervisor: hypervisor::filter(r.hypervisor.as_deref()),
        cluster_type: given(&r.cluster_type),
        allocation_state: given(&r.allocation_state),
        managed_state: given(&r.managed_state),
        keyword: given(&r.keyword),
    };
    let db = &world.node.db;
    let (found, count) = rows::list(db, &filter, page).await?;
    let mut capacity: HashMap<i64, Vec<Capacity>> = if r.show_capacities == Some(true) {
        crate::capacity::of_clusters(db, &found.iter().map(|c| c.id).collect::<Vec<_>>()).await?
    } else {
        HashMap::new()
    };
    let cluster = found
        .into_iter()
        .map(|c| {
            let capacity = capacity.remove(&c.id).unwrap_or_default();
            message(c, capacity)
        })
        .collect();
    Ok(ListClustersResponse { count: Some(count), cluster })
}

/// A living cluster of a pod, for what is put into it.
///
/// # Errors
/// 431 when it has been removed or is elsewhere.
pub async fn usable(tx: &mut Tx, id: i64, pod: &PodRow) -> Result<ClusterRow, ApiError> {
    if !touch(tx, "clusters", id).await? {
        return Err(gone());
    }
    let cluster = rows::find(&mut *tx, id).await?.ok_or_else(gone)?;
    if cluster.pod_id != pod.id {
        return Err(ApiError::param(format!("The cluster {} is not in the pod {}", cluster.uuid, pod.uuid)));
    }
    Ok(cluster)
}

fn cluster_type(word: &str) -> Result<&'static str, ApiError> {
    ["CloudManaged", "ExternalManaged"]
        .into_iter()
        .find(|t| t.eq_ignore_ascii_case(word.trim()))
        .ok_or_else(|| ApiError::param(format!("Unable to resolve {word} to a supported cluster type")))
}

fn managed_state(word: &str) -> Result<&'static str, ApiError> {
    ["Managed", "Unmanaged"]
        .into_iter()
        .find(|s| s.eq_ignore_ascii_case(word.trim()))
        .ok_or_else(|| ApiError::param(format!("Unable to resolve Managed State '{word}' to a supported state")))
}

/// A cluster's name.
///
/// # Errors
/// 431 when it is empty.
pub fn cluster_name(name: &str) -> Result<String, ApiError> {
    match name.trim() {
        "" => Err(ApiError::param("Please specify a name for the cluster.")),
        name => Ok(name.to_owned()),
    }
}

fn name_taken(name: &str, pod: &str) -> ApiError {
    ApiError::param(format!(
        "Unable to create cluster {name} in pod {pod}: a cluster with that name already exists there."
    ))
}

fn gone() -> ApiError {
    ApiError::param("Unable to find the cluster by id: it has been removed")
}

/// A ratio as 4.11 writes it: "1.0", "2.5".
pub fn ratio(factor: f64) -> String {
    format!("{factor:?}")
}

fn message(c: ClusterRow, capacity: Vec<Capacity>) -> Cluster {
    let (cpu, memory) = (ratio(c.cpu_overcommit), ratio(c.memory_overcommit));
    Cluster {
        id: Some(c.uuid),
        name: Some(c.name),
        pod_id: Some(c.pod_uuid),
        pod_name: Some(c.pod_name),
        zone_id: Some(c.zone_uuid),
        zone_name: Some(c.zone_name),
        hypervisor_type: Some(c.hypervisor),
        cluster_type: Some(c.cluster_type),
        allocation_state: Some(c.allocation_state.to_string()),
        managed_state: Some(c.managed_state),
        capacity,
        cpu_overcommit_ratio: Some(cpu.clone()),
        memory_overcommit_ratio: Some(memory.clone()),
        resource_details: [("cpuOvercommitRatio".to_owned(), cpu), ("memoryOvercommitRatio".to_owned(), memory)].into(),
        ..Cluster::default()
    }
}
