//! createTemplate: a host copies a disk at rest, or a snapshot, into a secondary store. The template's copy is noted when it is
//! there, and not before: a copy that is still to come belongs to the duty of [`crate::images`].

use super::create_snapshot::{ended, signed};
use super::restore::image;
use super::{running_on, vm, volume};
use crate::hosts::unsigned;
use crate::images::work::{self, Ended, Next, Watcher, Who};
use crate::images::{nudge, reach};
use crate::store::copies::{self, NewCopy, Wanted};
use crate::store::infra::Worker;
use crate::store::template_writes as rows;
use crate::store::{deletions, images, pools, snapshots, templates, volumes};
use crate::templates::{gone, owner, usage};
use crate::{Storage, limits, snapshots as concept, view};
use contract::ApiError;
use contract_agent::{ImageState, ImageStore, StoreDisk, TemplateSource, command};
use jobs::{AbortCx, Call, Claim, Ctx, Finished, Job, UndoCx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::Tx;

/// How long the copying may take in all (`create.private.template.from.snapshot.wait`).
const PATIENCE: Duration = Duration::from_secs(10_800);
/// How long the image of a template that failed is left alone before it is deleted, in µs.
const HEAD_START: i64 = 60_000_000;

/// What a template is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Origin {
    /// A snapshot.
    Snapshot(i64),
    /// A volume at rest.
    Volume {
        /// The volume.
        volume: i64,
        /// The machine, which is off, that had it when the job was accepted.
        vm: Option<i64>,
    },
}

/// Makes a template whose row exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateTemplate {
    /// The template.
    pub template: i64,
    /// Its zone.
    pub zone: i64,
    /// The image store.
    pub store: i64,
    /// Where it comes to lie there.
    pub path: String,
    /// What it is made of.
    pub origin: Origin,
}

/// What a failed job gives back: what the template counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Undo;

/// Where the bytes come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Begun {
    Snapshot,
    Volume { pool: i64, pool_uuid: String, volume_uuid: String, path: String },
}

impl CreateTemplate {
    /// What the job needs: the template alone, and its source as it is.
    pub fn claims(&self) -> Vec<Claim> {
        let mut claims = vec![Claim::Exclusive(format!("template/{}", self.template))];
        match &self.origin {
            Origin::Snapshot(id) => claims.push(Claim::Shared(concept::claim(*id))),
            Origin::Volume { volume, vm } => {
                claims.push(Claim::Exclusive(format!("volume/{volume}")));
                claims.extend(vm.map(|vm| Claim::Shared(format!("vm/{vm}"))));
            }
        }
        claims
    }

    /// The pool of the volume and its UUID, and that the machine is off.
    async fn site(&self, s: &Storage) -> Result<Option<(i64, String)>, ApiError> {
        let Origin::Volume { volume: id, vm: of } = &self.origin else { return Ok(None) };
        let v = volume(s, *id).await?;
        if let Some(of) = of
            && running_on(&vm(s, *of).await?)?.is_some()
        {
            return Err(ApiError::param("the volume's VM was started meanwhile: stop it first"));
        }
        let pool = match v.pool_id {
            Some(pool) => pools::find(&s.node.db, pool).await?,
            None => None,
        };
        let pool = pool.ok_or_else(|| ApiError::param("the volume has no place on a storage pool yet"))?;
        Ok(Some((pool.id, pool.uuid)))
    }

    async fn begin(&self, tx: &mut Tx, site: Result<&Option<(i64, String)>, &ApiError>) -> Result<Begun, ApiError> {
        let site = site.map_err(Clone::clone)?;
        rows::find_in(tx, self.template).await?.ok_or_else(|| gone(false))?;
        if !images::lives(tx, self.store).await? {
            return Err(ApiError::failed("the image store was deleted meanwhile: try again"));
        }
        match (&self.origin, site) {
            (Origin::Volume { volume, vm }, Some((pool, pool_uuid))) => {
                let v = volumes::find_in(tx, *volume).await?.filter(|v| !v.removed).ok_or_else(super::gone)?;
                match v.path {
                    Some(path) if v.state == "Ready" && v.pool_id == Some(*pool) && v.vm_id == *vm => {
                        Ok(Begun::Volume { pool: *pool, pool_uuid: pool_uuid.clone(), volume_uuid: v.uuid, path })
                    }
                    _ => Err(ApiError::failed("the volume was attached, detached or moved meanwhile: try again")),
                }
            }
            (Origin::Snapshot(id), _) => {
                let there = snapshots::find_in(tx, *id).await?.is_some_and(|row| row.is_there());
                if there { Ok(Begun::Snapshot) } else { Err(concept::gone()) }
            }
            (Origin::Volume { .. }, None) => Err(ApiError::internal("a volume without a place")),
        }
    }

    /// What a host is ordered, and who may do it.
    async fn order(
        &self,
        s: &Storage,
        store: ImageStore,
        format: &str,
        begun: &Begun,
    ) -> Result<(StoreDisk, Who), ApiError> {
        let base = StoreDisk {
            store: Some(store),
            store_path: self.path.clone(),
            format: format.to_lowercase(),
            ..StoreDisk::default()
        };
        match (begun, &self.origin) {
            (Begun::Volume { pool, pool_uuid, volume_uuid, path }, _) => {
                let order = StoreDisk {
                    volume_uuid: volume_uuid.clone(),
                    pool_uuid: pool_uuid.clone(),
                    path: path.clone(),
                    ..base
                };
                Ok((order, Who::Pool(*pool)))
            }
            (Begun::Snapshot, Origin::Snapshot(id)) => {
                let row = snapshots::find(&s.node.db, *id).await?.ok_or_else(concept::gone)?;
                let from = image(s, &row).await?;
                let source = TemplateSource {
                    template_uuid: from.uuid,
                    store_url: from.store.url.clone(),
                    store_path: from.path,
                    format: from.format,
                    virtual_size: unsigned(from.size),
                    store: Some(from.store),
                    whole: true,
                };
                let who = Who::Zone { zone: Some(self.zone), hypervisor: row.hypervisor };
                Ok((StoreDisk { source: Some(source), ..base }, who))
            }
            (Begun::Snapshot, Origin::Volume { .. }) => Err(ApiError::internal("a volume was taken for a snapshot")),
        }
    }

    async fn copy(
        &self,
        s: &Storage,
        call: &Call,
        store: ImageStore,
        format: &str,
        begun: &Begun,
    ) -> Result<ImageState, ApiError> {
        let (order, who) = self.order(s, store, format, begun).await?;
        let order = |millis| command::Body::StoreDisk(StoreDisk { report_after_millis: millis, ..order.clone() });
        match work::follow(s, call.caller(), &who, None, order, &mut Calm).await? {
            Ended::Ready(_, state) if state.physical_size > 0 && state.virtual_size > 0 => Ok(state),
            Ended::Ready(host, _) => Err(ApiError::failed(format!("host {} put an empty image in place", host.id))),
            Ended::Failed(error) => Err(ended(error)),
            Ended::Stopped => Err(ApiError::failed("the template isn't wanted any more")),
        }
    }
}

/// Nothing is written down: the job has the template to itself.
struct Calm;

impl Watcher for Calm {
    async fn seen(&mut self, _host: &Worker, _state: &ImageState) -> Result<Next, ApiError> {
        Ok(Next::Go)
    }
}

impl Job for CreateTemplate {
    const KIND: &'static str = "template.create";
    type World = Storage;
    type Undo = Undo;

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        let s = &*world;
        let db = &s.node.db;
        // Read beforehand, as in attachVolume.
        let site = self.site(s).await;
        let begun = jobs::step!(ctx, "begin", undo: Undo, |tx| self.begin(tx, site.as_ref()).await).await?;
        let row = rows::find(db, self.template).await?.ok_or_else(|| gone(false))?;
        let store = reach::find(s, self.store).await?.ok_or_else(|| ApiError::failed("the image store is gone"))?;
        let image = ctx
            .deadline(PATIENCE)
            .call("copy", jobs::NO_UNDO, |call| {
                let (world, job, store) = (world.clone(), self.clone(), store.clone());
                let (format, begun) = (row.format.clone(), begun.clone());
                async move { job.copy(&world, &call, store, &format, &begun).await }
            })
            .await?;
        let (size, physical) = (signed(image.virtual_size), signed(image.physical_size));
        ctx.call("limits", jobs::NO_UNDO, |call| {
            let (world, uuid, account) = (world.clone(), row.uuid.clone(), row.account_id);
            async move { limits::reserve_template(&world, call.caller(), &uuid, account, physical).await }
        })
        .await?;
        let sum = Some(image.checksum.as_str()).filter(|sum| !sum.is_empty());
        let place = images::zone(db, self.store).await?;
        let new = NewCopy { store_id: self.store, zone_id: place, path: self.path.clone() };
        jobs::step!(ctx, "made", |tx| {
            let made = copies::Made { size, physical, sum, hypervisor: &row.hypervisor };
            copies::insert_made(tx, row.id, &new, made).await?;
            rows::note_facts(tx, row.id, size, physical).await?;
            let copy = copies::of_template_in(tx, row.id).await?.into_iter().find(|c| c.path == new.path);
            let copy = copy.ok_or_else(|| ApiError::internal("a copy has vanished"))?;
            let fact = Wanted {
                copy,
                uuid: row.uuid.clone(),
                name: row.name.clone(),
                owner: owner(&row),
                format: row.format.clone(),
                hypervisor: row.hypervisor.clone(),
                checksum: None,
                url_sealed: None,
                size,
            };
            events::record(tx, &[usage(&fact, self.zone, "CREATE", Some(physical))]).await?;
            Ok(())
        })
        .await?;
        let listed = templates::in_zones(db, self.template, &[self.zone]).await?;
        let shown = view::templates(db, ctx.caller(), listed).await?.pop().ok_or_else(|| gone(false))?;
        jobs::finish!(ctx, |_tx| Ok(shown.clone())).await
    }

    async fn undo(self, world: Arc<Storage>, _undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        if let Some(row) = rows::find(&world.node.db, self.template).await? {
            limits::give_back_template(&world, cx.caller(), &row.uuid).await;
        }
        Ok(())
    }

    /// Nothing stays of a template that couldn't be made.
    async fn abort(self, world: Arc<Storage>, _error: &ApiError, tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        let Some(row) = rows::find_in(tx, self.template).await? else { return Ok(()) };
        let left = rows::leave(tx, row.id, None).await?;
        let made = copies::remove(tx, row.id, None, HEAD_START).await?;
        rows::remove(tx, row.id).await?;
        if made.is_empty() {
            deletions::owe_image(tx, self.store, &self.path, Some(&row.hypervisor), HEAD_START).await?;
        } else {
            let facts: Vec<events::Record> = left.iter().map(|zone| crate::templates::usage_end(&row, *zone)).collect();
            events::record(tx, &facts).await?;
        }
        nudge(&world);
        Ok(())
    }
}
