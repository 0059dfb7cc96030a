//! The disks of a VM that starts on a host.

use super::allocate::{cost, image};
use super::place::{Near, Thresholds, Wanted, take_place};
use super::spec_among;
use crate::Storage;
use crate::bytes::{self, Image};
use crate::choice::Reach;
use crate::store::templates::{self, Source};
use crate::store::volumes::{self, Place, VolumeRow};
use crate::store::{infra, pools};
use contract::ApiError;
use contract::api::Caller;
use contract_storage::{DiskSpec, DisksResponse, VmDisksRequest};
use jobs::StepKey;
use std::collections::HashSet;

/// Makes a VM's volumes ready for a host. In the usual case, when all of them have their bytes already, it only reads.
///
/// # Errors
/// 533 when no pool has room, or one of the VM's pools isn't reached from the host; those of the host.
pub async fn prepare(
    s: &Storage,
    caller: &Caller,
    key: &StepKey,
    req: &VmDisksRequest,
) -> Result<DisksResponse, ApiError> {
    let host = host(s, req).await?;
    let near = Near { host: host.id, cluster: host.cluster_id, hypervisor: host.hypervisor };
    let mut answer = volumes_ready(s, caller, key, req, (&near, host.zone_id)).await?;
    if let Some(iso) = req.iso_id {
        answer.iso = super::iso::bring(s, caller, near.host, host.zone_id, iso, &answer).await?;
    }
    Ok(answer)
}

async fn host(s: &Storage, req: &VmDisksRequest) -> Result<infra::Host, ApiError> {
    let host = req.host_id.ok_or_else(|| ApiError::internal("disks are prepared for a host, and none is named"))?;
    let found = infra::host(&s.node.db, host).await?;
    found.ok_or_else(|| ApiError::unavailable(format!("host {host} is gone")))
}

/// All but the ISO, on a host of a zone.
async fn volumes_ready(
    s: &Storage,
    caller: &Caller,
    key: &StepKey,
    req: &VmDisksRequest,
    (near, zone): (&Near, i64),
) -> Result<DisksResponse, ApiError> {
    let db = &s.node.db;
    let volumes = volumes::of_vm(db, req.vm_id).await?;
    let rows = pools::by_ids(db, volumes.iter().filter_map(|v| v.pool_id).collect::<HashSet<_>>()).await?;
    for pool in &rows {
        let reached = match pool.reach() {
            Reach::Zone => pool.zone_id == zone,
            Reach::Cluster(cluster) => cluster == near.cluster,
            Reach::Host(only) => only == near.host,
        };
        if !reached {
            return Err(ApiError::capacity(format!(
                "a volume lies on pool {}, which host {} doesn't reach",
                pool.name, near.host
            )));
        }
    }
    for pool in &rows {
        bytes::mount(s, caller, pool.id, near.host).await?;
    }
    let unmade: Vec<VolumeRow> =
        volumes.iter().filter(|v| v.pool_id.is_none() || v.state == "Creating").cloned().collect();
    if unmade.is_empty() {
        let disks = volumes.iter().map(|v| spec_among(v, &rows)).collect();
        return Ok(DisksResponse { disks, host_id: Some(near.host), ..DisksResponse::default() });
    }
    let answer = place_all(s, key, req, near, &volumes).await?;
    let mut disks: Vec<(DiskSpec, Option<Image>)> = Vec::new();
    for v in &unmade {
        let Some(disk) = answer.disks.iter().find(|d| d.id == v.id) else { continue };
        let source = root_source(s, v).await?;
        disks.push((disk.clone(), source.as_ref().map(|src| image(s, src)).transpose()?.flatten()));
    }
    bytes::make(s, caller, key, near.host, &[], &disks).await?;
    store::tx!(*db, "volumes-made", |tx| {
        for v in &unmade {
            volumes::transit(tx, v.id, "Creating", "Ready").await?;
        }
        Ok::<_, ApiError>(())
    })
    .await?;
    Ok(answer)
}

/// Gives every volume without a place one. They are `Creating` until their bytes are there.
async fn place_all(
    s: &Storage,
    key: &StepKey,
    req: &VmDisksRequest,
    near: &Near,
    volumes: &[VolumeRow],
) -> Result<DisksResponse, ApiError> {
    let db = &s.node.db;
    let Some(zone) = volumes.first().map(|v| v.zone_id) else {
        return Ok(DisksResponse::default());
    };
    let root = volumes.iter().find(|v| v.is_root() && v.pool_id.is_none());
    let source = match root {
        Some(v) => root_source(s, v).await?,
        None => None,
    };
    let template =
        source.as_ref().filter(|src| !src.template.is_iso()).map(|src| (src.template.id, cost(&src.template)));
    let candidates = pools::candidates(db, zone, template.map_or(0, |(id, _)| id), Some(near.host)).await?;
    let thresholds = Thresholds::of(&s.node.settings, zone);
    jobs::effect!(*db, *key, |tx| {
        let mut answer = DisksResponse { host_id: Some(near.host), ..DisksResponse::default() };
        let mut now = volumes.to_vec();
        for v in now.iter_mut().filter(|v| v.pool_id.is_none()) {
            let wanted = Wanted {
                name: &v.name,
                bytes: v.size,
                template: template.filter(|_| v.is_root()),
                tags: &v.tags,
                local: v.local_storage,
            };
            let pool = take_place(tx, &candidates, near, &wanted, thresholds).await?;
            let path = model::new_uuid();
            let format = v.format.clone().unwrap_or_else(|| super::format_of(&near.hypervisor).to_owned());
            let at = Place { pool: pool.id, path: &path, format: &format, hypervisor: &near.hypervisor };
            if !volumes::place(tx, v.id, at).await? {
                return Err(ApiError::concurrent(format!("volume {} of VM {} has changed", v.name, req.vm_id)));
            }
            (v.pool_id, v.path, v.format) = (Some(pool.id), Some(path), Some(format));
            answer.placed.push(v.id);
        }
        let rows = pools::by_ids_in(tx, now.iter().filter_map(|v| v.pool_id).collect::<HashSet<_>>()).await?;
        answer.disks = now.iter().map(|v| spec_among(v, &rows)).collect();
        Ok(answer)
    })
    .await
}

/// The template of a ROOT volume.
async fn root_source(s: &Storage, v: &VolumeRow) -> Result<Option<Source>, ApiError> {
    match v.template_id.filter(|_| v.is_root()) {
        Some(id) => match templates::source(&s.node.db, id, v.zone_id).await? {
            // The disk of a VM that boots from a CD is empty anyway.
            None if templates::labels(&s.node.db, [id]).await?.get(&id).is_some_and(|label| label.iso) => Ok(None),
            // A template that was deleted meanwhile must not become an empty disk.
            None => Err(ApiError::param(format!("the template of volume {} doesn't exist any more", v.name))),
            found => Ok(found),
        },
        None => Ok(None),
    }
}
