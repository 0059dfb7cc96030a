//! attachVolume: a place for the volume near the VM, its bytes, and the disk in the VM when that runs.

use super::{host_disk, host_matters, running_on, vm, volume};
use crate::bytes;
use crate::choice::{Candidate, Reach};
use crate::disks::{self, HEAD_START, Near, Thresholds, Wanted, owe, spec, take_place};
use crate::store::infra;
use crate::store::pools::{self, PoolRow};
use crate::store::vms::Vm;
use crate::store::volumes::{self, Place, VolumeRow};
use crate::{Storage, view};
use contract::ApiError;
use contract_storage::AttachVolumeRequest;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Attaches a volume to a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attach {
    /// The volume.
    pub volume: i64,
    /// The VM.
    pub vm: i64,
    /// The device; none: the first that is free.
    pub device: Option<i64>,
}

/// What an attachment takes back when it fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The row's attachment, and the pool's promise when this job made it.
    Row {
        /// The VM.
        vm: i64,
    },
    /// The bytes.
    Bytes {
        /// The host that made them.
        host: i64,
    },
    /// The place that a volume made of a snapshot took.
    Place,
    /// The disk in the VM.
    Disk {
        /// The VM.
        vm: i64,
        /// Its UUID.
        vm_uuid: String,
        /// Its host.
        host: i64,
    },
}

/// What the first step decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Decided {
    device: i64,
    vm_uuid: String,
    /// Where the VM runs.
    host: Option<i64>,
    /// Where bytes are to be made.
    make_on: Option<i64>,
    pool: Option<i64>,
    path: Option<String>,
    format: Option<String>,
}

/// Checks a request.
///
/// # Errors
/// 431 for what the volume or the VM doesn't allow, 531 for ones out of reach.
pub async fn check(s: &Storage, cx: &Cx, req: &AttachVolumeRequest) -> Result<(VolumeRow, Attach), ApiError> {
    let volume = super::volume(s, cx.refs.need("id")?).await?;
    let vm = super::vm(s, cx.refs.need("virtualmachineid")?).await?;
    if !model::scope::may_act_for(&cx.caller, &volume.owner) {
        return Err(ApiError::permission("you may not act on that volume"));
    }
    check_pair(s, &volume, &vm).await?;
    if let Some(device) = req.device_id {
        check_device(s, &vm, device).await?;
    }
    let job = Attach { volume: volume.id, vm: vm.id, device: req.device_id };
    Ok((volume, job))
}

/// Whether the volume can be attached to the VM at all.
///
/// # Errors
/// 431 with the reason.
pub async fn check_pair(s: &Storage, v: &VolumeRow, vm: &Vm) -> Result<(), ApiError> {
    let refuse = |text: String| Err(ApiError::param(text).with_entity(&v.uuid, "id"));
    if v.is_root() {
        return refuse("Please specify a valid data volume: a ROOT disk can't be attached.".into());
    }
    if v.vm_id.is_some() {
        return refuse("Please specify a volume that is not attached to any VM.".into());
    }
    if v.state != "Allocated" && v.state != "Ready" {
        return refuse(format!("Volume state must be in Allocated, Ready or in Uploaded state: it is {}", v.state));
    }
    if v.zone_id != vm.zone_id {
        return refuse("Please specify a VM that is in the same zone as the volume.".into());
    }
    if v.owner.account_id != vm.owner.account_id {
        return Err(ApiError::permission("the volume and the virtual machine belong to different accounts"));
    }
    if let Some(hypervisor) = v.hypervisor.as_ref().filter(|h| **h != vm.hypervisor && v.pool_id.is_some()) {
        return refuse(format!("Can't attach a volume of {hypervisor} to a VM of {}", vm.hypervisor));
    }
    running_on(vm)?;
    let attached = volumes::of_vm(&s.node.db, vm.id).await?.into_iter().filter(|v| !v.is_root()).count();
    let most = infra::max_data_disks(&s.node.db, &vm.hypervisor).await?;
    if i64::try_from(attached).unwrap_or(i64::MAX) >= most {
        return refuse(format!(
            "The specified VM already has the maximum number of data disks ({most}). Please specify another VM."
        ));
    }
    Ok(())
}

async fn check_device(s: &Storage, vm: &Vm, device: i64) -> Result<(), ApiError> {
    if !disks::is_data_device(device) {
        return Err(ApiError::param(format!(
            "deviceId {device} is not usable for a data disk: 0 is the ROOT disk, 3 the CD-ROM"
        )));
    }
    if volumes::at_device(&s.node.db, vm.id, device).await?.is_some() {
        return Err(ApiError::param(format!("deviceId {device} is used by VM {}", vm.uuid)));
    }
    Ok(())
}

impl Job for Attach {
    const KIND: &'static str = "volume.attach";
    type World = Storage;
    type Undo = Undo;

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        let s = &*world;
        // Read beforehand: a transaction on the embedded database has the only writer. In a later run only the step's
        // record counts.
        let facts = Facts::read(s, &self).await;
        let undo = Undo::Row { vm: self.vm };
        let decided = jobs::step!(ctx, "attach", undo: undo, |tx| decide(tx, &self, facts.as_ref()).await).await?;
        let mut row = volume(s, self.volume).await?;
        (row.pool_id, row.path, row.format) = (decided.pool, decided.path.clone(), decided.format.clone());
        let pool = match decided.pool {
            Some(pool) => pools::find(&s.node.db, pool).await?,
            None => None,
        };
        if let (Some(on), Some(pool)) = (decided.make_on, &pool) {
            let disk = spec(&row, &pool.uuid);
            ctx.call("make", Some(Undo::Bytes { host: on }), |call| {
                let (world, disk, pool) = (world.clone(), disk.clone(), pool.id);
                async move {
                    bytes::mount(&world, call.caller(), pool, on).await?;
                    world.hosts.step(&call, on, bytes::ensure(&disk, None)).await
                }
            })
            .await?;
        }
        if let (Some(host), Some(pool)) = (decided.host, &pool) {
            let body = host_disk::attach(&decided.vm_uuid, &row, pool, decided.device);
            let undo = Undo::Disk { vm: self.vm, vm_uuid: decided.vm_uuid.clone(), host };
            ctx.call("disk", Some(undo), |call| {
                let (world, body, pool) = (world.clone(), body.clone(), pool.id);
                async move {
                    bytes::mount(&world, call.caller(), pool, host).await?;
                    world.hosts.step(&call, host, body).await
                }
            })
            .await?;
        }
        let mut shown = view::one_volume(&s.node.db, ctx.caller(), row).await?;
        if decided.make_on.is_some() {
            shown.state = Some("Ready".to_owned());
        }
        jobs::finish!(ctx, |tx| {
            if decided.make_on.is_some() && !volumes::transit(tx, self.volume, "Creating", "Ready").await? {
                return Err(ApiError::concurrent("the volume is no longer being created"));
            }
            Ok(shown.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<Storage>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        self::undo(&world, self.volume, undo, cx).await
    }

    async fn abort(self, _world: Arc<Storage>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the undo of its first step did all
    }
}

/// Where a VM is, as far as that is known: its host when it runs, else the cluster that its disks are in, or in which it ran
/// last, and a connected host there.
struct Site {
    near: Option<Near>,
    cluster: Option<i64>,
}

impl Site {
    async fn of(s: &Storage, vm: &Vm, host: Option<i64>) -> Result<Site, ApiError> {
        let db = &s.node.db;
        if let Some(id) = host.or(vm.last_host_id)
            && let Some(h) = infra::host(db, id).await?
            && (h.up || host.is_some())
        {
            let near = Near { host: h.id, cluster: h.cluster_id, hypervisor: h.hypervisor };
            return Ok(Site { cluster: Some(near.cluster), near: Some(near) });
        }
        let ids: Vec<i64> = volumes::of_vm(db, vm.id).await?.into_iter().filter_map(|v| v.pool_id).collect();
        let cluster = pools::by_ids(db, ids).await?.iter().find_map(|p| p.cluster_id);
        let Some(cluster) = cluster else {
            return Ok(Site { near: None, cluster: None });
        };
        let up = infra::hosts_up(db, vm.zone_id, Some(cluster), None, 1).await?;
        let near = up.first().map(|h| Near { host: *h, cluster, hypervisor: vm.hypervisor.clone() });
        Ok(Site { near, cluster: Some(cluster) })
    }
}

/// What the first step decides on.
struct Facts {
    vm: Vm,
    host: Option<i64>,
    site: Site,
    candidates: Vec<Candidate>,
    /// The pool that the volume lies on.
    pool: Vec<PoolRow>,
    thresholds: Thresholds,
}

impl Facts {
    async fn read(s: &Storage, job: &Attach) -> Result<Facts, ApiError> {
        let db = &s.node.db;
        let v = volume(s, job.volume).await?;
        let vm = vm(s, job.vm).await?;
        let host = running_on(&vm)?;
        let site = Site::of(s, &vm, host).await?;
        let near = site.near.as_ref().map(|n| n.host);
        Ok(Facts {
            candidates: pools::candidates(db, v.zone_id, 0, near).await?,
            pool: pools::by_ids(db, v.pool_id).await?,
            thresholds: Thresholds::of(&s.node.settings, v.zone_id),
            vm,
            host,
            site,
        })
    }
}

/// Attaches the row and, when the volume has no place and a host is near, takes one.
async fn decide(tx: &mut Tx, job: &Attach, facts: Result<&Facts, &ApiError>) -> Result<Decided, ApiError> {
    let Facts { vm, host, site, candidates, pool, thresholds } = facts.map_err(Clone::clone)?;
    let v = volumes::find_in(tx, job.volume).await?.filter(|v| !v.removed).ok_or_else(super::gone)?;
    let mut decided = Decided {
        device: 0,
        vm_uuid: vm.uuid.clone(),
        host: *host,
        make_on: None,
        pool: v.pool_id,
        path: v.path.clone(),
        format: v.format.clone(),
    };
    match (v.pool_id, &site.near) {
        (Some(_), _) => check_reach(pool, site)?,
        (None, None) => {} // it gets its place when the VM starts
        (None, Some(near)) => {
            let wanted = Wanted { name: &v.name, bytes: v.size, template: None, tags: &v.tags, local: v.local_storage };
            let pool = take_place(tx, candidates, near, &wanted, *thresholds).await?;
            let path = model::new_uuid();
            let format = disks::format_of(&near.hypervisor);
            let at = Place { pool: pool.id, path: &path, format, hypervisor: &near.hypervisor };
            if !volumes::place(tx, v.id, at).await? {
                return Err(ApiError::concurrent("the volume has got a place from somebody else"));
            }
            decided.make_on = Some(near.host);
            (decided.pool, decided.path, decided.format) = (Some(pool.id), Some(path), Some(format.to_owned()));
        }
    }
    decided.device = match job.device {
        Some(device) => device,
        None => disks::free_device(&volumes::devices(tx, vm.id).await?),
    };
    match volumes::attach(tx, v.id, vm.id, decided.device).await {
        Ok(true) => Ok(decided),
        Ok(false) => Err(ApiError::param("Please specify a volume that is not attached to any VM.")),
        Err(e) if e.is_unique("slot") => {
            Err(ApiError::param(format!("deviceId {} is used by VM {}", decided.device, vm.uuid)))
        }
        Err(e) => Err(e.into()),
    }
}

/// A volume that lies somewhere can only go to a VM that reaches that pool: moving it is for later (STO-104).
fn check_reach(pool: &[PoolRow], site: &Site) -> Result<(), ApiError> {
    let Some(pool) = pool.first() else {
        return Err(ApiError::internal("the volume's pool is gone"));
    };
    let reached = match pool.reach() {
        Reach::Zone => true,
        Reach::Cluster(own) => site.cluster.is_none_or(|c| c == own),
        Reach::Host(own) => site.near.as_ref().is_none_or(|n| n.host == own),
    };
    if reached {
        return Ok(());
    }
    Err(ApiError::unsupported(format!(
        "the volume lies on storage pool {}, which the virtual machine's cluster doesn't reach, and moving it isn't supported yet",
        pool.name
    )))
}

/// Takes back one step.
///
/// # Errors
/// 534 while the VM's host is away and not given up: the engine tries again.
pub async fn undo(s: &Storage, id: i64, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
    match undo {
        Undo::Disk { vm, vm_uuid, host } => {
            if !host_matters(s, vm, host).await? {
                return Ok(());
            }
            let volume = volume(s, id).await?;
            let body = host_disk::detach(&vm_uuid, &volume.uuid);
            cx.call(|call| async move { s.hosts.step(&call, host, body).await }).await.map(drop)
        }
        Undo::Bytes { host } => {
            let volume = volume(s, id).await?;
            let (Some(pool), Some(path)) = (volume.pool_id, volume.path.clone()) else { return Ok(()) };
            let Some(pool) = pools::find(&s.node.db, pool).await? else { return Ok(()) };
            let body = bytes::delete(&volume.uuid, &pool.uuid, &path);
            // What the host can't do is noted when the place is given back.
            let told = cx.call(|call| async move { s.hosts.step(&call, host, body).await }).await;
            if let Err(error) = told {
                tracing::info!(volume = volume.uuid, %error, "the cleaner will delete the bytes");
            }
            Ok(())
        }
        Undo::Place => {
            jobs::undo_step!(cx, |tx| {
                let Some(v) = volumes::find_in(tx, id).await? else { return Ok(()) };
                if let Some(pool) = v.pool_id
                    && volumes::unplace(tx, &v, pool).await?
                {
                    owe(tx, &v, HEAD_START).await?;
                }
                Ok(())
            })
            .await
        }
        Undo::Row { vm } => {
            let decided: Option<Decided> = cx.value();
            jobs::undo_step!(cx, |tx| {
                let Some(decided) = &decided else { return Ok(()) };
                let Some(v) = volumes::find_in(tx, id).await? else { return Ok(()) };
                volumes::detach(tx, id, vm).await?;
                if let (Some(_), Some(pool)) = (decided.make_on, decided.pool)
                    && volumes::unplace(tx, &v, pool).await?
                {
                    owe(tx, &v, HEAD_START).await?;
                }
                Ok(())
            })
            .await
        }
    }
}
