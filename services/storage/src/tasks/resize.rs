//! resizeVolume.

use super::{host_disk, running_on, vm, volume};
use crate::bytes;
use crate::disks::usage;
use crate::offering::check_iops;
use crate::size::{self, Limits};
use crate::store::volumes::{self, Shape, VolumeRow};
use crate::store::{infra, offerings, pools, vms};
use crate::{Storage, limits, view};
use contract::ApiError;
use contract_storage::ResizeVolumeRequest;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Gives a volume another size, and perhaps offering.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resize {
    /// The volume.
    pub volume: i64,
    /// New size in bytes.
    pub size: i64,
    /// New offering.
    pub offering: Option<i64>,
    /// New least IOPS.
    pub min_iops: Option<i64>,
    /// New most IOPS.
    pub max_iops: Option<i64>,
}

/// The volume before.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Before {
    state: String,
    size: i64,
    offering: Option<i64>,
    min_iops: Option<i64>,
    max_iops: Option<i64>,
    pool: Option<i64>,
    /// The host that changes the bytes.
    host: Option<i64>,
    /// The VM that has the disk and runs there.
    vm_uuid: Option<String>,
}

/// What a failed resizing takes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// What it counts against the owner's limits.
    Limits {
        /// The size before.
        size: i64,
    },
    /// The row, and the pool's promise.
    Row,
    /// The bytes on the host.
    Disk {
        /// The host.
        host: i64,
        /// The size before.
        size: i64,
        /// The VM that has the disk and runs there.
        vm_uuid: Option<String>,
    },
}

/// Checks a request.
///
/// # Errors
/// 431 for what the volume or the offerings don't allow.
pub async fn check(s: &Storage, cx: &Cx, req: &ResizeVolumeRequest) -> Result<(VolumeRow, Resize), ApiError> {
    let db = &s.node.db;
    let row = volume(s, cx.refs.need("id")?).await?;
    let refuse = |text: String| ApiError::param(text).with_entity(&row.uuid, "id");
    if row.state != "Allocated" && row.state != "Ready" {
        return Err(refuse(format!(
            "Volume should be in ready or allocated state before attempting a resize: it is {}",
            row.state
        )));
    }
    let new_id: Option<i64> = cx.refs.id("diskofferingid")?;
    let limits = Limits::of(&s.node.settings);
    let old = match row.disk_offering_id {
        Some(id) => offerings::by_ids(db, &[id]).await?.pop(),
        None => None,
    };
    let new = match new_id {
        Some(id) => offerings::find(db, id).await?,
        None => None,
    };
    if let Some(new) = &new {
        if row.is_root() {
            return Err(refuse("the offering of a ROOT disk is the VM's: give only a size".into()));
        }
        if !new.usable_in(&cx.caller, &row.owner.domain_path) {
            return Err(ApiError::permission(format!("disk offering {} is not for the volume's domain", new.name)));
        }
        let tags = old.as_ref().map(offerings::OfferingRow::tag_list).unwrap_or_default();
        if old.is_some() && tags != new.tag_list() {
            return Err(refuse("The tags on the new and old disk offerings must match.".into()));
        }
        if old.as_ref().is_some_and(|o| o.local() != new.local()) {
            return Err(refuse("The new disk offering must be of the old one's storage type.".into()));
        }
    }
    let bytes = match (new.as_ref().or(old.as_ref()), req.size) {
        (Some(o), asked) if !row.is_root() => size::of_disk(o.customized, o.disk_size, asked, limits)?,
        (_, Some(asked)) => size::within(asked, limits)?,
        (_, None) => return Err(refuse("Please specify a size".into())),
    };
    if bytes < row.size && !req.shrink_ok.unwrap_or(false) {
        return Err(refuse(format!(
            "Going from existing size of {} to size of {bytes} would shrink the volume.Need to sign off by supplying the shrinkok \
             parameter with value of true.",
            row.size
        )));
    }
    if bytes == row.size
        && new.as_ref().map(|o| o.id) == row.disk_offering_id
        && req.min_iops.is_none()
        && req.max_iops.is_none()
    {
        return Err(refuse("the volume has this size already".into()));
    }
    if row.is_root() && bytes < row.size {
        return Err(refuse("a ROOT disk can't be shrunk".into()));
    }
    let (min_iops, max_iops) = iops(req, new.as_ref().or(old.as_ref()), &row)?;
    if let Some(id) = row.vm_id {
        running_on(&vm(s, id).await?)?;
    }
    let offering = new.map(|o| o.id).or(row.disk_offering_id);
    let job = Resize { volume: row.id, size: bytes, offering, min_iops, max_iops };
    Ok((row, job))
}

fn iops(
    req: &ResizeVolumeRequest,
    o: Option<&offerings::OfferingRow>,
    row: &VolumeRow,
) -> Result<(Option<i64>, Option<i64>), ApiError> {
    match o {
        Some(o) if o.customized_iops == Some(true) => {
            let (min, max) = (req.min_iops.or(row.min_iops), req.max_iops.or(row.max_iops));
            check_iops(Some(false), min, max)?;
            Ok((min, max))
        }
        _ if req.min_iops.is_some() || req.max_iops.is_some() => {
            Err(ApiError::param("the disk offering doesn't let users choose miniops and maxiops"))
        }
        Some(o) => Ok((o.min_iops, o.max_iops)),
        None => Ok((row.min_iops, row.max_iops)),
    }
}

impl Job for Resize {
    const KIND: &'static str = "volume.resize";
    type World = Storage;
    type Undo = Undo;

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        let s = &*world;
        let row = volume(s, self.volume).await?;
        let (uuid, account) = (row.uuid.clone(), row.owner.account_id);
        let before = jobs::step!(ctx, "resizing", undo: Undo::Row, |tx| begin(tx, &self).await).await?;
        let undo = Undo::Limits { size: before.size };
        // Growing is counted before the bytes are made, shrinking after they are gone.
        if self.size > before.size {
            ctx.call("limits", Some(undo.clone()), |call| {
                let (world, uuid, size) = (world.clone(), uuid.clone(), self.size);
                async move { limits::resize(&world, call.caller(), &uuid, account, size).await }
            })
            .await?;
        }
        if let (Some(pool), Some(host)) = (before.pool, before.host) {
            let pool =
                pools::find(&s.node.db, pool).await?.ok_or_else(|| ApiError::internal("the volume's pool is gone"))?;
            let body = host_disk::resize(&row, &pool, self.size, before.vm_uuid.as_deref());
            let undo = Undo::Disk { host, size: before.size, vm_uuid: before.vm_uuid.clone() };
            ctx.call("disk", Some(undo), |call| {
                let (world, body, pool) = (world.clone(), body.clone(), pool.id);
                async move {
                    bytes::mount(&world, call.caller(), pool, host).await?;
                    world.hosts.step(&call, host, body).await
                }
            })
            .await?;
        }
        if self.size < before.size {
            ctx.call("limits", Some(undo.clone()), |call| {
                let (world, uuid, size) = (world.clone(), uuid.clone(), self.size);
                async move { limits::resize(&world, call.caller(), &uuid, account, size).await }
            })
            .await?;
        }
        let after = VolumeRow {
            size: self.size,
            state: before.state.clone(),
            disk_offering_id: self.offering,
            min_iops: self.min_iops,
            max_iops: self.max_iops,
            ..row
        };
        let shown = view::one_volume(&s.node.db, ctx.caller(), after.clone()).await?;
        jobs::finish!(ctx, |tx| {
            let held = self.size.max(before.size);
            let shape = self.shape(&before.state);
            if !volumes::reshape(tx, self.volume, "Resizing", held, &shape).await? {
                return Err(ApiError::concurrent("the volume is no longer being resized"));
            }
            if let Some(pool) = before.pool.filter(|_| self.size < before.size) {
                pools::give_back(tx, pool, before.size - self.size).await?;
            }
            events::record(tx, &[usage(&after, "VOLUME.RESIZE")]).await?;
            Ok(shown.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<Storage>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let s = &*world;
        let row = volume(s, self.volume).await?;
        match undo {
            Undo::Limits { size } => {
                limits::resize(s, cx.caller(), &row.uuid, row.owner.account_id, size).await.map(drop)
            }
            Undo::Disk { host, size, vm_uuid } => {
                let pool = match row.pool_id {
                    Some(pool) => pools::find(&s.node.db, pool).await?,
                    None => None,
                };
                let Some(pool) = pool else { return Ok(()) };
                // A host that is away keeps the larger disk: that harms nobody, while the old size is what is promised.
                if infra::host(&s.node.db, host).await?.is_none_or(|h| !h.up) {
                    return Ok(());
                }
                let body = host_disk::resize(&row, &pool, size, vm_uuid.as_deref());
                match cx.call(|call| async move { s.hosts.step(&call, host, body).await }).await {
                    // A host that refuses this will refuse it again, as it refused the resizing.
                    Err(error) if !error.is_transient() => {
                        tracing::warn!(volume = row.uuid, %error, "the bytes keep their size");
                        Ok(())
                    }
                    told => told.map(drop),
                }
            }
            Undo::Row => {
                let before: Option<Before> = cx.value();
                jobs::undo_step!(cx, |tx| {
                    let Some(before) = &before else { return Ok(()) };
                    let held = self.size.max(before.size);
                    let shape = Shape {
                        state: before.state.clone(),
                        size: before.size,
                        offering: before.offering,
                        min_iops: before.min_iops,
                        max_iops: before.max_iops,
                    };
                    if volumes::reshape(tx, self.volume, "Resizing", held, &shape).await?
                        && let Some(pool) = before.pool
                    {
                        pools::give_back(tx, pool, held - before.size).await?;
                    }
                    Ok(())
                })
                .await
            }
        }
    }

    async fn abort(self, _world: Arc<Storage>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the undo of its first step did all
    }
}

/// Who changes the bytes.
struct Site {
    /// The host: that of the running VM, else any that reaches the pool.
    host: Option<i64>,
    /// The VM that has the disk and runs there.
    vm_uuid: Option<String>,
}

impl Site {
    /// Looked for anew in every attempt: a host that wasn't connected may be now.
    async fn of(tx: &mut Tx, v: &VolumeRow) -> Result<Site, ApiError> {
        let vm = match v.vm_id {
            Some(id) => Some(vms::find_in(tx, id).await?.filter(|vm| !vm.removed).ok_or_else(super::no_vm)?),
            None => None,
        };
        let running = match &vm {
            Some(vm) => running_on(vm)?,
            None => None,
        };
        let host = match (v.pool_id, running) {
            (None, _) => None,
            (Some(_), Some(host)) => Some(host),
            (Some(pool), None) => Some(
                infra::host_of_pool(tx, pool)
                    .await?
                    .ok_or_else(|| ApiError::unavailable("no host that reaches the volume's pool is connected"))?,
            ),
        };
        Ok(Site { host, vm_uuid: vm.filter(|_| running.is_some()).map(|vm| vm.uuid) })
    }
}

/// Takes what the volume grows by; while it is resized it counts as large as it ever is.
async fn begin(tx: &mut Tx, job: &Resize) -> Result<Before, ApiError> {
    let v = volumes::find_in(tx, job.volume).await?.filter(|v| !v.removed).ok_or_else(super::gone)?;
    let site = Site::of(tx, &v).await?;
    if v.state != "Allocated" && v.state != "Ready" {
        return Err(ApiError::param(format!("the volume can't be resized while it is {}", v.state)));
    }
    let held = job.size.max(v.size);
    let shape = Shape { size: held, ..job.shape("Resizing") };
    if !volumes::reshape(tx, v.id, &v.state, v.size, &shape).await? {
        return Err(ApiError::concurrent("the volume was changed by somebody else"));
    }
    if let Some(pool) = v.pool_id
        && !pools::take_more(tx, pool, held - v.size).await?
    {
        return Err(ApiError::capacity(format!("the volume's pool has no room for {} more bytes", held - v.size)));
    }
    Ok(Before {
        state: v.state,
        size: v.size,
        offering: v.disk_offering_id,
        min_iops: v.min_iops,
        max_iops: v.max_iops,
        pool: v.pool_id,
        host: site.host,
        vm_uuid: site.vm_uuid.clone(),
    })
}

impl Resize {
    fn shape(&self, state: &str) -> Shape {
        Shape {
            state: state.to_owned(),
            size: self.size,
            offering: self.offering,
            min_iops: self.min_iops,
            max_iops: self.max_iops,
        }
    }
}
