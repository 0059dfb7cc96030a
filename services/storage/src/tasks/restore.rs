//! The part of createVolume that makes a volume of a snapshot: a place near a host of the snapshot's kind, and a whole copy
//! there. The volume stands alone from then on.

use super::attach::Undo;
use super::{running_on, vm, volume};
use crate::bytes::{self, Image};
use crate::choice::Candidate;
use crate::disks::{self, Near, Thresholds, Wanted, spec, take_place};
use crate::images::reach;
use crate::store::snapshots::{self, SnapshotRow};
use crate::store::volumes::{self, Place, VolumeRow};
use crate::store::{infra, pools};
use crate::{Storage, snapshots as concept};
use contract::ApiError;
use jobs::Ctx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::Tx;

/// How long the copying may take in all (`create.volume.from.snapshot.wait`).
const PATIENCE: Duration = Duration::from_secs(10_800);
/// Most hosts near which a place is looked for.
const HOSTS: usize = 16;

/// What the first step decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Placed {
    host: i64,
    pool: i64,
    path: String,
    format: String,
    hypervisor: String,
}

/// Makes the bytes of a volume that has none yet.
///
/// # Errors
/// 533 when no pool has room; those of the host; 530 when the host or the snapshot is lost.
pub async fn restore(
    world: &Arc<Storage>,
    ctx: &Ctx,
    id: i64,
    snapshot: i64,
    attach_to: Option<i64>,
) -> Result<(), ApiError> {
    let s = &**world;
    let db = &s.node.db;
    // Read beforehand, as in attachVolume.
    let sites = sites(s, id, snapshot, attach_to).await;
    let placed =
        jobs::step!(ctx, "place", undo: Undo::Place, |tx| place(tx, id, snapshot, sites.as_ref()).await).await?;
    let mut row = volume(s, id).await?;
    (row.pool_id, row.path, row.format) = (Some(placed.pool), Some(placed.path.clone()), Some(placed.format.clone()));
    row.hypervisor = Some(placed.hypervisor.clone());
    let pool = pools::find(db, placed.pool).await?.ok_or_else(|| ApiError::internal("the volume's pool is gone"))?;
    let from = snapshots::find(db, snapshot).await?.ok_or_else(concept::gone)?;
    let image = image(s, &from).await?;
    let disk = spec(&row, &pool.uuid);
    let host = placed.host;
    ctx.deadline(PATIENCE)
        .call("copy", Some(Undo::Bytes { host }), |call| {
            let (world, disk, image, pool) = (world.clone(), disk.clone(), image.clone(), pool.id);
            async move {
                if infra::given_up(&world.node.db, host).await? {
                    return Err(ApiError::failed("the host that copied the snapshot was lost: try again"));
                }
                bytes::mount(&world, call.caller(), pool, host).await?;
                world.hosts.step(&call, host, bytes::ensure(&disk, Some(&image))).await
            }
        })
        .await?;
    jobs::step!(ctx, "made", |tx| {
        if !volumes::transit(tx, id, "Creating", "Ready").await? {
            return Err(ApiError::concurrent("the volume is no longer being created"));
        }
        Ok(())
    })
    .await
}

/// A snapshot as hosts read it.
///
/// # Errors
/// 530 when its store is gone.
pub async fn image(s: &Storage, from: &SnapshotRow) -> Result<Image, ApiError> {
    let store = reach::find(s, from.store_id).await?;
    Ok(Image {
        uuid: from.uuid.clone(),
        format: from.format.clone(),
        size: from.size,
        store: store.ok_or_else(|| ApiError::failed("the image store of the snapshot is gone"))?,
        path: from.path.clone(),
        built_in: false,
        whole: true,
    })
}

/// A host near which the volume may lie, with the pools that it reaches.
struct Site {
    near: Near,
    pools: Vec<Candidate>,
    thresholds: Thresholds,
}

/// The hosts that may make the volume, the best first: that of the running VM alone, else those of the cluster where the VM was
/// last, else any of the snapshot's kind, one a cluster.
async fn sites(s: &Storage, id: i64, snapshot: i64, attach_to: Option<i64>) -> Result<Vec<Site>, ApiError> {
    let db = &s.node.db;
    let v = volume(s, id).await?;
    let from = snapshots::find(db, snapshot).await?.ok_or_else(concept::gone)?;
    let mut only: Option<i64> = None;
    let mut cluster: Option<i64> = None;
    if let Some(vm_id) = attach_to {
        let vm = vm(s, vm_id).await?;
        only = running_on(&vm)?;
        let pool_ids: Vec<i64> = volumes::of_vm(db, vm_id).await?.into_iter().filter_map(|v| v.pool_id).collect();
        cluster = pools::by_ids(db, pool_ids).await?.iter().find_map(|p| p.cluster_id);
    }
    let mut sites: Vec<Site> = Vec::new();
    for worker in infra::workers(db, Some(v.zone_id)).await? {
        if worker.hypervisor != from.hypervisor || only.is_some_and(|host| host != worker.id) {
            continue;
        }
        let Some(host) = infra::host(db, worker.id).await? else { continue };
        let another = sites.iter().any(|site| site.near.cluster == host.cluster_id);
        if cluster.is_some_and(|c| c != host.cluster_id) || (another && !v.local_storage) {
            continue;
        }
        let pools = pools::candidates(db, v.zone_id, 0, Some(host.id)).await?;
        let near = Near { host: host.id, cluster: host.cluster_id, hypervisor: host.hypervisor };
        sites.push(Site { near, pools, thresholds: Thresholds::of(&s.node.settings, v.zone_id) });
        if sites.len() >= HOSTS {
            break;
        }
    }
    Ok(sites)
}

async fn place(tx: &mut Tx, id: i64, snapshot: i64, sites: Result<&Vec<Site>, &ApiError>) -> Result<Placed, ApiError> {
    let sites = sites.map_err(Clone::clone)?;
    let v: VolumeRow = volumes::find_in(tx, id).await?.filter(|v| !v.removed).ok_or_else(super::gone)?;
    if !snapshots::find_in(tx, snapshot).await?.is_some_and(|row| row.is_there()) {
        return Err(concept::gone());
    }
    let wanted = Wanted { name: &v.name, bytes: v.size, template: None, tags: &v.tags, local: v.local_storage };
    let mut last = ApiError::failed("no host that could copy the snapshot is connected");
    for Site { near, pools, thresholds } in sites {
        let pool = match take_place(tx, pools, near, &wanted, *thresholds).await {
            Ok(pool) => pool,
            Err(error) if error.code == 533 => {
                last = error;
                continue;
            }
            Err(error) => return Err(error),
        };
        let path = model::new_uuid();
        let format = disks::format_of(&near.hypervisor);
        let at = Place { pool: pool.id, path: &path, format, hypervisor: &near.hypervisor };
        if !volumes::place(tx, v.id, at).await? {
            return Err(ApiError::failed("the volume has got a place from somebody else"));
        }
        return Ok(Placed {
            host: near.host,
            pool: pool.id,
            path,
            format: format.to_owned(),
            hypervisor: near.hypervisor.clone(),
        });
    }
    Err(last)
}
