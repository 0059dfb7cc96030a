//! extractTemplate, extractIso and extractVolume: a URL by which a file of secondary storage can be downloaded
//! ([`crate::downloads`]). A volume is copied there first, by a host, as a template would be; the copy goes when the URL ends.

use super::create_snapshot::ended;
use super::{running_on, vm, volume};
use crate::downloads::{self, File, file_name};
use crate::images::work::{self, Ended, Next, Watcher, Who};
use crate::images::{nudge, reach, rooms};
use crate::store::deletions::{self, ImageDeletion};
use crate::store::infra::Worker;
use crate::store::template_writes as rows;
use crate::store::volumes::{self, VolumeRow};
use crate::store::{images, pools, templates};
use crate::templates::gone;
use crate::{Storage, disks};
use contract::ApiError;
use contract_agent::{ImageState, StoreDisk, command};
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::{Tx, now_micros};

/// How long the copying of a volume may take in all (`copy.volume.wait`).
const PATIENCE: Duration = Duration::from_secs(10_800);
/// How long the copy is left alone, in µs: longer than it may take to make it.
const HEAD_START: i64 = 14_400_000_000;
/// How long a copy that failed is left alone, in µs: no host is asked for it any more then.
const REST: i64 = 60_000_000;

/// Gives the URL of a template or ISO.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExtractImage {
    /// The template.
    pub template: i64,
    /// The zone whose copy it is.
    pub zone: i64,
    /// It is an ISO.
    pub iso: bool,
}

impl Job for ExtractImage {
    const KIND: &'static str = "template.extract";
    type World = Storage;
    type Undo = ();

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        let s = &*world;
        let source = templates::source(&s.node.db, self.template, self.zone).await?.ok_or_else(|| gone(self.iso))?;
        let t = source.template;
        let Some((site, path)) = source.copy else {
            return Err(ApiError::failed(format!("{} has left the zone meanwhile", t.name)));
        };
        let file = File {
            store: site.id,
            path,
            name: file_name(&t.name, &t.format),
            hypervisor: t.hypervisor.clone(),
            expires: now_micros() + File::lifetime(s),
        };
        let shown = downloads::view(s, ctx.caller(), (&t.uuid, &t.name), self.zone, &file).await?;
        jobs::finish!(ctx, |tx| {
            if rows::find_in(tx, self.template).await?.is_none() {
                return Err(gone(self.iso));
            }
            Ok(shown.clone())
        })
        .await
    }

    async fn undo(self, _world: Arc<Storage>, _undo: (), _cx: UndoCx) -> Result<(), ApiError> {
        Ok(()) // there is only the last commit
    }

    async fn abort(self, _world: Arc<Storage>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Copies a volume, and gives the URL of the copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExtractVolume {
    /// The volume.
    pub volume: i64,
    /// The VM, which is off, that had it when the job was accepted.
    pub vm: Option<i64>,
    /// The image store that takes the copy.
    pub store: i64,
    /// Where it comes to lie there.
    pub path: String,
}

/// What a failed job takes back: the copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Undo;

/// Checks extractVolume.
///
/// # Errors
/// 431 when its VM runs, or it lies nowhere; 531 when its template isn't extractable; 530 when the zone has no secondary storage.
pub async fn check(s: &Storage, cx: &Cx, mode: Option<&str>) -> Result<(VolumeRow, ExtractVolume), ApiError> {
    downloads::check_mode(s, cx, mode)?;
    let db = &s.node.db;
    let v = volume(s, cx.refs.need("id")?).await?;
    let refuse = |text: String| ApiError::param(text).with_entity(&v.uuid, "id");
    if cx.refs.need::<i64>("zoneid")? != v.zone_id {
        return Err(refuse("the volume isn't in the zone that zoneid names".to_owned()));
    }
    if v.pool_id.is_none() || v.state != "Ready" {
        return Err(refuse("The volume doesn't belong to a storage pool so can't extract it".to_owned()));
    }
    if let Some(id) = v.vm_id
        && running_on(&vm(s, id).await?)?.is_some()
    {
        let text = "It should be either detached or the VM should be in stopped state.";
        return Err(refuse(format!("Invalid state of the volume with ID: {}. {text}", v.uuid)));
    }
    if v.is_root()
        && let Some(id) = v.template_id
        && !cx.caller.is_root_admin()
        && !rows::extractable(db, id).await?
    {
        return Err(ApiError::permission(format!("The volume:{} is not allowed to be extracted", v.uuid)));
    }
    let found = images::rooms(db, &[v.zone_id]).await?;
    let store = rooms::choose(&found, v.zone_id, false).first().map(|room| room.id);
    let store = store
        .ok_or_else(|| ApiError::failed("the zone has no secondary storage for the copy: add it with addImageStore"))?;
    let format = disks::format_of(v.hypervisor.as_deref().unwrap_or_default()).to_lowercase();
    let path = format!("downloads/{}/{}/{}.{format}", v.owner.account_id, v.id, model::new_uuid());
    let job = ExtractVolume { volume: v.id, vm: v.vm_id, store, path };
    Ok((v, job))
}

/// Nothing is written down: the job has the copy to itself.
struct Calm;

impl Watcher for Calm {
    async fn seen(&mut self, _host: &Worker, _state: &ImageState) -> Result<Next, ApiError> {
        Ok(Next::Go)
    }
}

impl ExtractVolume {
    fn debt(&self, hypervisor: &str) -> ImageDeletion {
        let hypervisor = Some(hypervisor.to_owned());
        ImageDeletion { path: self.path.clone(), store_id: self.store, hypervisor, tries: 0 }
    }

    async fn begin(&self, tx: &mut Tx) -> Result<String, ApiError> {
        let v = volumes::find_in(tx, self.volume).await?.filter(|v| !v.removed).ok_or_else(super::gone)?;
        if v.state != "Ready" || v.pool_id.is_none() || v.vm_id != self.vm {
            return Err(ApiError::failed("the volume was attached, detached or moved meanwhile: try again"));
        }
        if !images::lives(tx, self.store).await? {
            return Err(ApiError::failed("the image store was deleted meanwhile: try again"));
        }
        let hypervisor = v.hypervisor.unwrap_or_default();
        deletions::owe(tx, &self.debt(&hypervisor), HEAD_START).await?;
        Ok(hypervisor)
    }

    async fn copy(&self, s: &Storage, caller: &contract::api::Caller) -> Result<ImageState, ApiError> {
        let v = volume(s, self.volume).await?;
        if let Some(of) = self.vm
            && running_on(&vm(s, of).await?)?.is_some()
        {
            return Err(ApiError::param("the volume's VM was started meanwhile: stop it first"));
        }
        let pool = pools::by_ids(&s.node.db, v.pool_id).await?.pop();
        let pool = pool.ok_or_else(|| ApiError::failed("the volume's pool is gone"))?;
        let store = reach::find(s, self.store).await?.ok_or_else(|| ApiError::failed("the image store is gone"))?;
        let base = StoreDisk {
            volume_uuid: v.uuid.clone(),
            pool_uuid: pool.uuid.clone(),
            path: v.path.clone().unwrap_or_default(),
            store: Some(store),
            store_path: self.path.clone(),
            format: disks::format_of(v.hypervisor.as_deref().unwrap_or_default()).to_lowercase(),
            ..StoreDisk::default()
        };
        let order = |millis| command::Body::StoreDisk(StoreDisk { report_after_millis: millis, ..base.clone() });
        match work::follow(s, caller, &Who::Pool(pool.id), None, order, &mut Calm).await? {
            Ended::Ready(_, state) if state.physical_size > 0 => Ok(state),
            Ended::Ready(host, _) => Err(ApiError::failed(format!("host {} put an empty image in place", host.id))),
            Ended::Failed(error) => Err(ended(error)),
            Ended::Stopped => Err(ApiError::failed("the copy isn't wanted any more")),
        }
    }
}

impl Job for ExtractVolume {
    const KIND: &'static str = "volume.extract";
    type World = Storage;
    type Undo = Undo;

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        let s = &*world;
        let hypervisor = jobs::step!(ctx, "begin", undo: Undo, |tx| self.begin(tx).await).await?;
        ctx.deadline(PATIENCE)
            .call("copy", jobs::NO_UNDO, |call| {
                let (world, job) = (world.clone(), self.clone());
                async move { job.copy(&world, call.caller()).await }
            })
            .await?;
        let v = volume(s, self.volume).await?;
        let life = File::lifetime(s);
        let format = disks::format_of(&hypervisor);
        let file = File {
            store: self.store,
            path: self.path.clone(),
            name: file_name(&v.name, format),
            hypervisor: hypervisor.clone(),
            expires: now_micros() + life,
        };
        let shown = downloads::view(s, ctx.caller(), (&v.uuid, &v.name), v.zone_id, &file).await?;
        let done = jobs::finish!(ctx, |tx| {
            // Due when the URL ends.
            deletions::done::<ImageDeletion>(tx, &self.path).await?;
            deletions::owe(tx, &self.debt(&hypervisor), life).await?;
            Ok(shown.clone())
        })
        .await?;
        nudge(s);
        Ok(done)
    }

    async fn undo(self, world: Arc<Storage>, _undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let hypervisor: Option<String> = cx.value();
        jobs::undo_step!(cx, |tx| {
            if let Some(hypervisor) = &hypervisor {
                deletions::done::<ImageDeletion>(tx, &self.path).await?;
                deletions::owe(tx, &self.debt(hypervisor), REST).await?;
            }
            Ok(())
        })
        .await?;
        nudge(&world);
        Ok(())
    }

    async fn abort(self, _world: Arc<Storage>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the undo of its first step did all
    }
}
