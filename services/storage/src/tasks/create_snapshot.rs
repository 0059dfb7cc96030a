//! createSnapshot: a host copies the disk into a secondary store.
//!
//! The job has its volume alone and shares its VM: who starts, stops or moves that VM waits, so a disk at rest stays at rest and
//! a running one is copied by the driver of one host. The copying is long work ([`work`]): when a host is lost another one that
//! reaches the pool begins anew. Only the disk of a running VM can't be copied by another host: when that host is given up the
//! snapshot fails, and the VM is free to be started elsewhere.

use super::{running_on, vm, volume};
use crate::images::work::{self, Ended, Next, Watcher, Who};
use crate::images::{nudge, reach};
use crate::news::News;
use crate::snapshots::{gone, usage, view};
use crate::store::infra::{self, Worker};
use crate::store::snapshots::{self, Found, SnapshotRow};
use crate::store::{deletions, images, pools, volumes};
use crate::{Storage, limits};
use contract::ApiError;
use contract_agent::{ImageState, ImageStore, StoreDisk, command};
use jobs::{AbortCx, Call, Ctx, Finished, Job, UndoCx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::Tx;

/// How long the copying may take in all (`backup.snapshot.wait`).
const PATIENCE: Duration = Duration::from_secs(21_600);
/// Between two looks whether the host of a running VM is given up, when nothing is heard of it: news may be lost.
const LOOK: Duration = Duration::from_secs(30);
/// How long the image of a snapshot that failed is left alone before it is deleted, in µs: no host is asked for it any more then.
const HEAD_START: i64 = 60_000_000;

/// Makes a snapshot whose row exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateSnapshot {
    /// The snapshot.
    pub snapshot: i64,
    /// Its volume.
    pub volume: i64,
    /// The VM that had the volume when the job was accepted, which the job shares.
    pub vm: Option<i64>,
}

/// What a failed job gives back: what the snapshot counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Undo;

/// What the first step decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Begun {
    pool: i64,
    pool_uuid: String,
    volume_uuid: String,
    path: String,
    /// The host on which the VM runs, and the VM's UUID.
    running: Option<(i64, String)>,
    /// Where the VM of a disk at rest was last.
    last_host: Option<i64>,
}

impl CreateSnapshot {
    async fn begin(&self, tx: &mut Tx, site: Result<&Site, &ApiError>) -> Result<Begun, ApiError> {
        let site = site.map_err(Clone::clone)?;
        let row = snapshots::find_in(tx, self.snapshot).await?.ok_or_else(gone)?;
        let v = volumes::find_in(tx, self.volume).await?.filter(|v| !v.removed).ok_or_else(super::gone)?;
        let (Some(pool), Some(path), "Ready") = (v.pool_id, v.path.clone(), v.state.as_str()) else {
            return Err(ApiError::param(format!("the volume is {}: a snapshot needs one that is Ready", v.state)));
        };
        if v.owner != row.owner {
            return Err(ApiError::failed("the volume has another owner by now"));
        }
        if v.vm_id != self.vm || v.size != row.size || pool != site.pool {
            return Err(ApiError::failed("the volume was attached, detached or resized meanwhile: try again"));
        }
        if !images::lives(tx, row.store_id).await? {
            return Err(ApiError::failed("the image store was deleted meanwhile: try again"));
        }
        if !snapshots::begin(tx, row.id).await? {
            return Err(ApiError::failed(format!("the snapshot is {}", row.state)));
        }
        Ok(Begun {
            pool,
            pool_uuid: site.pool_uuid.clone(),
            volume_uuid: v.uuid,
            path,
            running: site.running.clone(),
            last_host: site.last_host,
        })
    }
}

/// Where the volume is, and its VM.
struct Site {
    pool: i64,
    pool_uuid: String,
    running: Option<(i64, String)>,
    last_host: Option<i64>,
}

impl Site {
    async fn of(s: &Storage, job: &CreateSnapshot) -> Result<Site, ApiError> {
        let v = volume(s, job.volume).await?;
        let pool = match v.pool_id {
            Some(pool) => pools::find(&s.node.db, pool).await?,
            None => None,
        };
        let pool = pool.ok_or_else(|| ApiError::param("the volume has no place on a storage pool yet"))?;
        let mut site = Site { pool: pool.id, pool_uuid: pool.uuid, running: None, last_host: None };
        if let Some(id) = job.vm {
            let vm = vm(s, id).await?;
            site.running = running_on(&vm)?.map(|host| (host, vm.uuid.clone()));
            site.last_host = vm.last_host_id;
        }
        Ok(site)
    }
}

/// Writes down who copies.
struct Watch<'a> {
    s: &'a Storage,
    snapshot: i64,
    shown: Option<i64>,
}

impl Watcher for Watch<'_> {
    async fn seen(&mut self, host: &Worker, _state: &ImageState) -> Result<Next, ApiError> {
        if self.shown == Some(host.id) {
            return Ok(Next::Go);
        }
        let wanted = store::tx!(self.s.node.db, "snapshot-progress", |tx| {
            Ok::<_, ApiError>(snapshots::progress(tx, self.snapshot, host.id).await?)
        })
        .await?;
        self.shown = Some(host.id);
        Ok(if wanted { Next::Go } else { Next::Stop })
    }
}

/// Waits until a host is given up.
async fn lost(s: &Storage, host: i64) -> Result<(), ApiError> {
    // First it listens, then it looks: what comes in between is heard.
    let mut news = News::of(&s.node.coord);
    while !infra::given_up(&s.node.db, host).await? {
        let _ = tokio::time::timeout(LOOK, news.about(host)).await; // heard or not: it looks
    }
    Ok(())
}

/// An error with which long work ended: the work isn't tried again with the same step.
pub(super) fn ended(error: ApiError) -> ApiError {
    if error.is_transient() { ApiError::failed(error.full_text()) } else { error }
}

/// Lets a host copy the disk, and follows it to its end.
async fn copy(
    s: &Storage,
    call: &Call,
    row: &SnapshotRow,
    store: &ImageStore,
    b: &Begun,
) -> Result<ImageState, ApiError> {
    let order = |millis| {
        command::Body::StoreDisk(StoreDisk {
            volume_uuid: b.volume_uuid.clone(),
            pool_uuid: b.pool_uuid.clone(),
            path: b.path.clone(),
            vm_uuid: b.running.as_ref().map(|(_, vm)| vm.clone()),
            store: Some(store.clone()),
            store_path: row.path.clone(),
            format: row.format.to_lowercase(),
            report_after_millis: millis,
            ..StoreDisk::default()
        })
    };
    let mut watch = Watch { s, snapshot: row.id, shown: None };
    let caller = call.caller();
    let outcome = match &b.running {
        Some((host, _)) => {
            let who = Who::Host(*host);
            let work = work::follow(s, caller, &who, Some(*host), order, &mut watch);
            tokio::select! {
                outcome = work => outcome?,
                gone = lost(s, *host) => {
                    gone?;
                    return Err(ApiError::failed("the host on which the VM runs was lost"));
                }
            }
        }
        None => {
            let first = row.host_id.or(b.last_host);
            work::follow(s, caller, &Who::Pool(b.pool), first, order, &mut watch).await?
        }
    };
    match outcome {
        Ended::Ready(_, state) if state.physical_size > 0 && state.virtual_size > 0 => Ok(state),
        Ended::Ready(host, _) => Err(ApiError::failed(format!("host {} put an empty image in place", host.id))),
        Ended::Failed(error) => Err(ended(error)),
        Ended::Stopped => Err(ApiError::failed("the snapshot isn't wanted any more")),
    }
}

/// Bytes as rows keep them.
pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Job for CreateSnapshot {
    const KIND: &'static str = "snapshot.create";
    type World = Storage;
    type Undo = Undo;

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        let s = &*world;
        let db = &s.node.db;
        // Read beforehand, as in attachVolume.
        let site = Site::of(s, &self).await;
        let begun = jobs::step!(ctx, "begin", undo: Undo, |tx| self.begin(tx, site.as_ref()).await).await?;
        let row = snapshots::find(db, self.snapshot).await?.ok_or_else(gone)?;
        let store = reach::find(s, row.store_id).await?.ok_or_else(|| ApiError::failed("the image store is gone"))?;
        let image = ctx
            .deadline(PATIENCE)
            .call("copy", jobs::NO_UNDO, |call| {
                let (world, row, store, begun) = (world.clone(), row.clone(), store.clone(), begun.clone());
                async move { copy(&world, &call, &row, &store, &begun).await }
            })
            .await?;
        let (size, physical) = (signed(image.virtual_size), signed(image.physical_size));
        ctx.call("limits", jobs::NO_UNDO, |call| {
            let (world, uuid, account) = (world.clone(), row.uuid.clone(), row.owner.account_id);
            async move { limits::reserve_snapshot(&world, call.caller(), &uuid, account, physical).await }
        })
        .await?;
        let state = snapshots::BACKED_UP.to_owned();
        let made = SnapshotRow { state, size, physical_size: physical, held_bytes: physical, ..row };
        let shown = view::one(db, made.clone()).await?;
        let sum = Some(image.checksum.as_str()).filter(|sum| !sum.is_empty());
        let done = jobs::finish!(ctx, |tx| {
            if !snapshots::backed_up(tx, made.id, Found { size, physical, sum }).await? {
                return Err(ApiError::failed("the snapshot isn't wanted any more"));
            }
            events::record(tx, &[usage(&made, "CREATE")]).await?;
            Ok(shown.clone())
        })
        .await?;
        if made.policy_id.is_some() {
            // There may be one more than it keeps.
            crate::snapshots::policies::nudge(s);
        }
        Ok(done)
    }

    async fn undo(self, world: Arc<Storage>, _undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        if let Some(row) = snapshots::find(&world.node.db, self.snapshot).await? {
            limits::give_back_snapshot(&world, cx.caller(), &row.uuid).await;
        }
        Ok(())
    }

    /// The row stays, as one that failed: its owner has its id. What may lie in the store is deleted.
    async fn abort(self, world: Arc<Storage>, _error: &ApiError, tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        let Some(row) = snapshots::find_in(tx, self.snapshot).await? else { return Ok(()) };
        if snapshots::failed(tx, row.id).await? && row.state != snapshots::ALLOCATED {
            deletions::owe_image(tx, row.store_id, &row.path, Some(&row.hypervisor), HEAD_START).await?;
            nudge(&world);
        }
        Ok(())
    }
}
