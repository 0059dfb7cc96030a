//! revertSnapshot: a disk at rest becomes what it was.
//!
//! A host copies the snapshot to a new path on the volume's pool, whole; then one commit makes that the volume's path, and the old
//! bytes a debt. Until then the volume is what it was, whatever happens; and at no instant do bytes lie on the pool that neither
//! a volume nor a debt names. The pool needs room for both: the copy isn't promised to anybody, as it takes the old one's place.

use super::restore::image;
use super::{running_on, vm, volume};
use crate::bytes;
use crate::images::work::{self, Who};
use crate::snapshots::{gone, view};
use crate::store::deletions::{self, Deletion};
use crate::store::snapshots::{self, SnapshotRow};
use crate::store::volumes::{self, VolumeRow};
use crate::store::{infra, pools};
use crate::{Storage, disks};
use contract::ApiError;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::Tx;

/// How long the copying may take in all (`create.volume.from.snapshot.wait`).
const PATIENCE: Duration = Duration::from_secs(10_800);
/// How long the cleaner leaves the copy alone, in µs: longer than it may take to make it.
const HEAD_START: i64 = 14_400_000_000;

/// Sets a volume back to a snapshot of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevertSnapshot {
    /// The snapshot.
    pub snapshot: i64,
    /// Its volume.
    pub volume: i64,
    /// The VM, which is off, that had the volume when the job was accepted.
    pub vm: Option<i64>,
}

/// What a failed job takes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The copy is to be deleted.
    Place,
    /// A host may have made it.
    Bytes {
        /// The host.
        host: i64,
        /// UUID of the pool.
        pool: String,
        /// UUID of the volume.
        volume: String,
        /// The copy's path.
        path: String,
    },
}

/// What the first step decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Begun {
    host: i64,
    pool: i64,
    pool_uuid: String,
    volume_uuid: String,
    /// Where the copy comes to lie.
    path: String,
    /// Where the bytes lie that the volume has now.
    old: String,
}

impl Begun {
    fn copy(&self) -> Deletion {
        Deletion {
            volume_uuid: self.volume_uuid.clone(),
            pool_id: self.pool,
            path: self.path.clone(),
            ended_vm: None,
            tries: 0,
        }
    }

    fn undo(&self) -> Undo {
        Undo::Bytes {
            host: self.host,
            pool: self.pool_uuid.clone(),
            volume: self.volume_uuid.clone(),
            path: self.path.clone(),
        }
    }

    fn former(&self) -> Deletion {
        Deletion { path: self.old.clone(), ..self.copy() }
    }
}

/// Checks a request: whether that snapshot can be brought back to its volume now.
///
/// # Errors
/// 431 when the volume is gone, its VM isn't stopped, or it is smaller than it was.
pub async fn check(s: &Storage, row: &SnapshotRow) -> Result<RevertSnapshot, ApiError> {
    let refuse = |text: String| ApiError::param(text).with_entity(&row.uuid, "id");
    if !row.is_there() {
        return Err(refuse(format!(
            "snapshot {} is {}: only one that is BackedUp can be brought back",
            row.uuid, row.state
        )));
    }
    let found = volumes::find(&s.node.db, row.volume_id).await?.filter(|v| !v.removed);
    let v = found.ok_or_else(|| refuse("the volume of the snapshot has been deleted".to_owned()))?;
    if v.pool_id.is_none() || v.state != "Ready" {
        return Err(refuse(format!("the volume of the snapshot is {}: it must be Ready", v.state)));
    }
    check_size(row, &v)?;
    let job = RevertSnapshot { snapshot: row.id, volume: v.id, vm: v.vm_id };
    job.at_rest(s).await?;
    Ok(job)
}

/// A volume that was made smaller since has no room for what it was.
fn check_size(row: &SnapshotRow, v: &VolumeRow) -> Result<(), ApiError> {
    if row.size <= v.size {
        return Ok(());
    }
    let text =
        format!("the volume has become smaller ({} bytes) than the snapshot ({}): resize it first", v.size, row.size);
    Err(ApiError::param(text).with_entity(&row.uuid, "id"))
}

impl RevertSnapshot {
    /// Where the VM ran last, when it is off.
    async fn at_rest(&self, s: &Storage) -> Result<Option<i64>, ApiError> {
        let Some(id) = self.vm else { return Ok(None) };
        let vm = vm(s, id).await?;
        if running_on(&vm)?.is_some() {
            let text = "The VM the specified disk attached to is not in the shutdown state.";
            return Err(ApiError::param(text).with_entity(&vm.uuid, "virtualmachineid"));
        }
        Ok(vm.last_host_id)
    }

    /// A host that reaches the pool, that where the VM ran last before others.
    async fn site(&self, s: &Storage) -> Result<(i64, i64, String), ApiError> {
        let last = self.at_rest(s).await?;
        let v = volume(s, self.volume).await?;
        let pool = match v.pool_id {
            Some(pool) => pools::find(&s.node.db, pool).await?,
            None => None,
        };
        let pool = pool.ok_or_else(|| ApiError::param("the volume has no place on a storage pool"))?;
        let hosts = work::candidates(s, &Who::Pool(pool.id)).await?;
        let host = hosts.iter().find(|h| Some(h.id) == last).or(hosts.first());
        let host = host
            .ok_or_else(|| ApiError::failed(format!("no host that reaches storage pool {} is connected", pool.name)))?;
        Ok((host.id, pool.id, pool.uuid))
    }

    async fn begin(&self, tx: &mut Tx, site: Result<&(i64, i64, String), &ApiError>) -> Result<Begun, ApiError> {
        let (host, pool, pool_uuid) = site.map_err(Clone::clone)?;
        let row = snapshots::find_in(tx, self.snapshot).await?.filter(SnapshotRow::is_there).ok_or_else(gone)?;
        let v = volumes::find_in(tx, self.volume).await?.filter(|v| !v.removed).ok_or_else(super::gone)?;
        check_size(&row, &v)?;
        let old = match &v.path {
            Some(path) if v.state == "Ready" && v.pool_id == Some(*pool) && v.vm_id == self.vm => path.clone(),
            _ => return Err(ApiError::failed("the volume was attached, detached or moved meanwhile: try again")),
        };
        let begun = Begun {
            host: *host,
            pool: *pool,
            pool_uuid: pool_uuid.clone(),
            volume_uuid: v.uuid,
            path: model::new_uuid(),
            old,
        };
        deletions::owe(tx, &begun.copy(), HEAD_START).await?;
        Ok(begun)
    }
}

impl Job for RevertSnapshot {
    const KIND: &'static str = "snapshot.revert";
    type World = Storage;
    type Undo = Undo;

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        let s = &*world;
        let db = &s.node.db;
        // Read beforehand, as in attachVolume.
        let site = self.site(s).await;
        let begun = jobs::step!(ctx, "begin", undo: Undo::Place, |tx| self.begin(tx, site.as_ref()).await).await?;
        let row = snapshots::find(db, self.snapshot).await?.ok_or_else(gone)?;
        let image = image(s, &row).await?;
        let mut disk = disks::spec(&volume(s, self.volume).await?, &begun.pool_uuid);
        disk.path.clone_from(&begun.path);
        let (host, pool) = (begun.host, begun.pool);
        ctx.deadline(PATIENCE)
            .call("copy", Some(begun.undo()), |call| {
                let (world, disk, image) = (world.clone(), disk.clone(), image.clone());
                async move {
                    if infra::given_up(&world.node.db, host).await? {
                        return Err(ApiError::failed("the host that copied the snapshot was lost: try again"));
                    }
                    bytes::mount(&world, call.caller(), pool, host).await?;
                    world.hosts.step(&call, host, bytes::ensure(&disk, Some(&image))).await
                }
            })
            .await?;
        let shown = view::one(db, row).await?;
        let former = begun.former();
        let done = jobs::finish!(ctx, |tx| {
            if !volumes::swap(tx, self.volume, &begun.old, &begun.path).await? {
                return Err(ApiError::failed("the volume was moved, resized or deleted meanwhile: try again"));
            }
            deletions::done::<Deletion>(tx, &begun.path).await?;
            deletions::owe(tx, &former, 0).await?;
            Ok(shown.clone())
        })
        .await?;
        // Whoever is killed before: the cleaner does it.
        bytes::settle(s, ctx.caller(), None, Some(host), vec![former.clone()]).await;
        Ok(done)
    }

    async fn undo(self, world: Arc<Storage>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let s = &*world;
        match undo {
            Undo::Place => {
                let begun: Option<Begun> = cx.value();
                let caller = cx.caller().clone();
                jobs::undo_step!(cx, |tx| {
                    if let Some(begun) = &begun {
                        // Due at once: nobody makes it any more.
                        deletions::done::<Deletion>(tx, &begun.path).await?;
                        deletions::owe(tx, &begun.copy(), 0).await?;
                    }
                    Ok(())
                })
                .await?;
                if let Some(begun) = begun {
                    bytes::settle(s, &caller, None, Some(begun.host), vec![begun.copy()]).await;
                }
                Ok(())
            }
            // Also so that a late order of the same step doesn't make it anew.
            Undo::Bytes { host, pool, volume, path } => {
                let body = bytes::delete(&volume, &pool, &path);
                let told = cx.call(|call| async move { s.hosts.step(&call, host, body).await }).await;
                if let Err(error) = told {
                    tracing::info!(volume, %error, "the cleaner will delete the copy");
                }
                Ok(())
            }
        }
    }

    async fn abort(self, _world: Arc<Storage>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the volume is changed by the last commit only
    }
}
