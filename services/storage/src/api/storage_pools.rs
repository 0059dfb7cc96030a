//! `arcus.storage.v1.StoragePools`.

use super::{done, given, named};
use crate::store::infra::{self, Cluster};
use crate::store::pools::{self, Change, NewPool, PoolRow, Query};
use crate::target::{PoolKind, Target};
use crate::{Storage, bytes, hosts, overcommit, view};
use contract::ApiError;
use contract::api::{Caller, Success};
use contract_storage::storage_pools_server::StoragePools;
use contract_storage::{
    CreateStoragePoolRequest, DeleteStoragePoolRequest, ListStoragePoolsRequest, ListStoragePoolsResponse, StoragePool,
    UpdateStoragePoolRequest,
};
use futures::stream::{self, StreamExt};
use model::state::PoolState;
use rpc::Cx;
use tonic::{Request, Response, Status};

const KIND: &str = "StoragePool";
/// Hosts that are asked at once to reach a new pool.
const PARALLEL: usize = 8;
/// Most hosts that reach a new pool before it is there; the others do when they need it.
const FIRST_HOSTS: i64 = 16;

#[tonic::async_trait]
impl StoragePools for Storage {
    async fn create(&self, request: Request<CreateStoragePoolRequest>) -> Result<Response<StoragePool>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let db = &self.node.db;
        let mut new = order(self, &cx, &req).await?;
        // A look first, so that no host is told of a pool that can't be; the unique key decides.
        if let Some(other) = pools::at(db, &new.target.key(new.zone, new.cluster)).await.map_err(ApiError::from)? {
            return Err(taken(&new, Some(&other)).into());
        }
        let reached = reach(self, &cx.caller, &mut new).await?;
        if let Some(bytes) = req.capacity_bytes {
            new.capacity = bytes;
        }
        let row = jobs::mutate!(*db, cx.caller, "create-storage-pool", |tx| {
            let row = match pools::insert(tx, &new).await {
                Err(e) if e.is_unique("live_key") => return Err(taken(&new, None)),
                inserted => inserted?,
            };
            for host in &reached {
                pools::note_mounted(tx, row.id, *host).await?;
            }
            // Only the id: a repeat shows the pool as it is by then.
            Ok(StoragePool { id: Some(row.uuid), ..StoragePool::default() })
        })
        .await?;
        self.placement_changed(new.id);
        let row = pools::by_uuid(db, row.id.as_deref().unwrap_or_default())
            .await
            .map_err(ApiError::from)?
            .ok_or_else(gone)?;
        Ok(Response::new(one(self, row).await?))
    }

    async fn update(&self, request: Request<UpdateStoragePoolRequest>) -> Result<Response<StoragePool>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let db = &self.node.db;
        let id: i64 = cx.refs.need("id")?;
        let old = pools::find(db, id).await.map_err(ApiError::from)?.ok_or_else(gone)?;
        if req.capacity_bytes.is_some_and(|bytes| bytes < 1) || req.capacity_iops.is_some_and(|iops| iops < 0) {
            return Err(ApiError::param("capacitybytes must be above 0, capacityiops not below").into());
        }
        let (state, event) = switch(old.state, req.enabled)?;
        let change = Change {
            tags: (!req.tags.is_empty()).then(|| view::pool_tags(req.tags.iter().map(String::as_str))),
            capacity: req.capacity_bytes,
            capacity_iops: req.capacity_iops,
            state,
        };
        jobs::mutate!(*db, cx.caller, "update-storage-pool", |tx| {
            let row = pools::update(tx, id, &change).await?;
            let row =
                row.ok_or_else(|| ApiError::concurrent("the storage pool was changed by somebody else; try again"))?;
            if let Some(event) = event {
                let text = format!("Primary storage {} is {}", row.name, row.state);
                events::record(tx, &[done(&cx.caller, event, text, (KIND, &row.uuid), None)]).await?;
            }
            Ok(Success { success: true, display_text: None })
        })
        .await?;
        self.placement_changed(id);
        let row = pools::find(db, id).await.map_err(ApiError::from)?.ok_or_else(gone)?;
        Ok(Response::new(one(self, row).await?))
    }

    async fn delete(&self, request: Request<DeleteStoragePoolRequest>) -> Result<Response<Success>, Status> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        let db = &self.node.db;
        let id = named(&cx)?.id;
        let row = pools::by_ids(db, [id]).await.map_err(ApiError::from)?.pop().ok_or_else(gone)?;
        let answer = jobs::mutate!(*db, cx.caller, "delete-storage-pool", |tx| {
            if row.state == PoolState::Removed {
                return Err(gone());
            }
            if !pools::remove(tx, id).await? {
                // Also with `forced`: volumes that people use are never thrown away with their pool.
                let text =
                    format!("Cannot delete pool {} as there are associated non-destroyed vols for this pool", row.name);
                return Err(ApiError::failed(text).with_entity(&row.uuid, "id"));
            }
            Ok(Success { success: true, display_text: None })
        })
        .await?;
        self.placement_changed(id);
        Ok(Response::new(answer))
    }

    async fn list(
        &self,
        request: Request<ListStoragePoolsRequest>,
    ) -> Result<Response<ListStoragePoolsResponse>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.listed_pools(&cx, req).await?))
    }
}

impl Storage {
    /// A page of pools, whichever command asks.
    pub(super) async fn listed_pools(
        &self,
        cx: &Cx,
        req: ListStoragePoolsRequest,
    ) -> Result<ListStoragePoolsResponse, Status> {
        let page = self.page(req.page, req.page_size)?;
        let query = Query {
            id: cx.refs.one("id").map(|e| e.id),
            name: given(&req.name),
            zone: cx.refs.one("zoneid").map(|e| e.id),
            pod: cx.refs.one("podid").map(|e| e.id),
            cluster: cx.refs.one("clusterid").map(|e| e.id),
            address: given(&req.ip_address),
            path: given(&req.path),
            scope: given(&req.scope),
            keyword: given(&req.keyword),
        };
        let (rows, count) = pools::list(&self.node.db, &query, page).await?;
        let storage_pool = view::storage_pools(&self.node.db, rows).await?;
        Ok(ListStoragePoolsResponse { count: Some(count), storage_pool })
    }
}

impl Storage {
    fn placement_changed(&self, pool: i64) {
        self.node.coord.publish("placement", &format!("pool/{pool}"));
    }
}

/// Checks what createStoragePool asks for.
async fn order(s: &Storage, cx: &Cx, req: &CreateStoragePoolRequest) -> Result<NewPool, ApiError> {
    let db = &s.node.db;
    let name = given(&req.name).ok_or_else(|| ApiError::param("Please specify a name for the storage pool"))?;
    if !req.details.is_empty() {
        return Err(ApiError::unsupported("details are for storage plug-ins, and there is none: leave them out"));
    }
    let provider = given(&req.provider).unwrap_or("DefaultPrimary");
    if !provider.eq_ignore_ascii_case("DefaultPrimary") {
        return Err(ApiError::param(format!("invalid storage provider: {provider}; there is DefaultPrimary")));
    }
    let target = Target::parse(req.url.as_deref().unwrap_or_default())?;
    let zone: i64 = cx.refs.need("zoneid")?;
    let pod: Option<i64> = cx.refs.id("podid")?;
    let cluster: Option<i64> = cx.refs.id("clusterid")?;
    let scope = scope(given(&req.scope), cluster)?;
    let (pod, cluster, hypervisor) = if scope == "CLUSTER" {
        let id = cluster.ok_or_else(|| ApiError::param("Cluster id can't be null, if scope is cluster"))?;
        let found = infra::cluster(db, id).await?.ok_or_else(|| ApiError::param("Unable to find the cluster"))?;
        check_place(&found, zone, pod)?;
        (Some(found.pod_id), Some(id), found.hypervisor)
    } else {
        let hypervisor = given(&req.hypervisor)
            .ok_or_else(|| ApiError::param("hypervisor type must be given for a zone-wide storage pool"))?;
        (None, None, hypervisor.to_owned())
    };
    check_hypervisor(&target, &hypervisor)?;
    if req.capacity_bytes.is_some_and(|bytes| bytes < 1) || req.capacity_iops.is_some_and(|iops| iops < 0) {
        return Err(ApiError::param("capacitybytes must be above 0, capacityiops not below"));
    }
    let id = db.next_id("storage_pool").await?;
    Ok(NewPool {
        id,
        uuid: model::new_uuid(),
        name: name.to_owned(),
        overcommit: overcommit::factor(&s.node.settings, id, target.kind.as_str()),
        target,
        zone,
        pod,
        cluster,
        scope,
        hypervisor: Some(hypervisor),
        provider: "DefaultPrimary".to_owned(),
        capacity: 0,
        used: 0,
        capacity_iops: req.capacity_iops,
        tags: view::pool_tags(given(&req.tags)),
    })
}

fn scope(given: Option<&str>, cluster: Option<i64>) -> Result<&'static str, ApiError> {
    match given.map(str::to_uppercase).as_deref() {
        None if cluster.is_some() => Ok("CLUSTER"),
        None => Ok("ZONE"),
        Some("CLUSTER") => Ok("CLUSTER"),
        Some("ZONE") if cluster.is_some() => Err(ApiError::param("clusterid and scope zone contradict each other")),
        Some("ZONE") => Ok("ZONE"),
        Some("HOST") => Err(ApiError::param("local storage comes with its host: it can't be added")),
        Some(other) => Err(ApiError::param(format!("invalid scope for pool {other}: give cluster or zone"))),
    }
}

fn check_place(cluster: &Cluster, zone: i64, pod: Option<i64>) -> Result<(), ApiError> {
    if cluster.zone_id != zone {
        return Err(ApiError::param("the cluster isn't in the zone that zoneid names"));
    }
    match pod {
        Some(pod) if pod != cluster.pod_id => Err(ApiError::param("the cluster isn't in the pod that podid names")),
        _ => Ok(()),
    }
}

/// Which hypervisors use which kind of pool (STO-020, STO-027).
fn check_hypervisor(target: &Target, hypervisor: &str) -> Result<(), ApiError> {
    let known: &[&str] = match target.kind {
        PoolKind::NetworkFilesystem => &["Simulator", "KVM", "LXC", "XenServer", "VMware", "Any"],
        PoolKind::SharedMountPoint => &["Simulator", "KVM", "LXC"],
    };
    if known.iter().any(|k| k.eq_ignore_ascii_case(hypervisor)) {
        return Ok(());
    }
    Err(ApiError::unsupported(format!("{hypervisor} hosts can't use a pool of type {}", target.kind.as_str())))
}

/// Lets hosts reach the new pool; at least one must. Gives those that do; capacity and use are what they report.
async fn reach(s: &Storage, caller: &Caller, new: &mut NewPool) -> Result<Vec<i64>, ApiError> {
    let only = new.hypervisor.as_deref().filter(|h| !h.eq_ignore_ascii_case("Any") && new.cluster.is_none());
    let up = infra::hosts_up(&s.node.db, new.zone, new.cluster, only, FIRST_HOSTS).await?;
    if up.is_empty() {
        let text = match new.cluster {
            Some(_) => "No host up to associate a storage pool with in cluster",
            None => "No host up to associate a storage pool with in zone",
        };
        return Err(ApiError::failed(format!("{text}: add a host first, or wait until one is connected")));
    }
    let body = bytes::reach(&new.uuid, &new.target);
    let answers: Vec<_> = stream::iter(up)
        .map(|host| {
            let body = body.clone();
            async move { (host, s.hosts.tell(caller, None, host, body).await) }
        })
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    let mut reached = Vec::new();
    let mut failures = Vec::new();
    for (host, answer) in answers {
        match answer {
            Ok(outcome) => {
                if let Some((capacity, used)) = hosts::pool_facts(&outcome) {
                    (new.capacity, new.used) = (new.capacity.max(capacity), new.used.max(used));
                }
                reached.push(host);
            }
            Err(error) => failures.push(format!("host {host}: {}", error.full_text())),
        }
    }
    if reached.is_empty() {
        let text = format!("no host can reach {}", new.target.url());
        return Err(ApiError::failed(&text).with_internal(format!("{text}: {}", failures.join("; "))));
    }
    Ok(reached)
}

fn taken(new: &NewPool, other: Option<&str>) -> ApiError {
    let other = other.map(|o| format!(" ({o})")).unwrap_or_default();
    ApiError::failed(format!(
        "Another active pool with the same uuid already exists{other}: {} is in use",
        new.target.url()
    ))
}

fn gone() -> ApiError {
    ApiError::param("Unable to find the storage pool: it doesn't exist or has been deleted")
}

type Switch = (Option<(PoolState, PoolState)>, Option<&'static str>);

/// What `enabled` means for a pool in this state.
fn switch(state: PoolState, enabled: Option<bool>) -> Result<Switch, ApiError> {
    match (enabled, state) {
        (None, _) | (Some(true), PoolState::Up) | (Some(false), PoolState::Disabled) => Ok((None, None)),
        (Some(false), PoolState::Up) => Ok((Some((PoolState::Up, PoolState::Disabled)), Some("DISABLE.PS"))),
        (Some(true), PoolState::Disabled) => Ok((Some((PoolState::Disabled, PoolState::Up)), Some("ENABLE.PS"))),
        (Some(_), other) => {
            Err(ApiError::param(format!("the storage pool is {other}: it can be neither enabled nor disabled")))
        }
    }
}

async fn one(s: &Storage, row: PoolRow) -> Result<StoragePool, ApiError> {
    let mut shown = view::storage_pools(&s.node.db, vec![row]).await?;
    shown.pop().ok_or_else(gone)
}
