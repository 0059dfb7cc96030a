//! copyTemplate and copyIso: other zones get a copy.
//!
//! A zone's stores are reached from its own hosts alone, so a copy isn't carried from store to store: a host of the other
//! zone fetches the image from where the template was registered, and the copy only counts when it is what the others are,
//! by checksum and size ([`crate::images::download`]).

use crate::images::{DONE, nudge, rooms, work};
use crate::store::copies::{self, Copy, NewCopy};
use crate::store::template_writes as rows;
use crate::store::templates::TemplateRow;
use crate::store::{images, infra, templates};
use crate::templates::{gone, owner, register::check_zone};
use crate::{Storage, limits, view};
use contract::ApiError;
use contract::api::Success;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::Tx;

/// How long the copies may take: as long as something moves they are on their way, so this is only for what never begins.
const PATIENCE: Duration = Duration::from_secs(48 * 3600);
/// Between two looks whether they are there, when nothing is told: what is told may be lost.
const LOOK: Duration = Duration::from_secs(30);
/// How long images that were still coming in are left alone, in µs.
const HEAD_START: i64 = 30_000_000;

/// Copies a template.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CopyTemplate {
    /// The template.
    pub template: i64,
    /// The zones that get a copy.
    pub zones: Vec<i64>,
    /// The copies that are to be made.
    pub copies: Vec<NewCopy>,
    /// It is an ISO.
    pub iso: bool,
}

/// What a failed job takes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The copies, and the zones.
    Copies,
}

/// Checks a request: the zones exist and have stores and hosts, and the template is ready where it comes from.
///
/// # Errors
/// 431 and 531.
pub async fn check(s: &Storage, cx: &Cx, row: &TemplateRow, iso: bool) -> Result<CopyTemplate, ApiError> {
    let db = &s.node.db;
    let refuse = |text: String| ApiError::param(text).with_entity(&row.uuid, "id");
    let one: Option<i64> = cx.refs.id("destzoneid")?;
    let mut zones: Vec<i64> = cx.refs.ids("destzoneids")?;
    if one.is_some() && !zones.is_empty() {
        return Err(ApiError::param("Both destzoneid and destzoneids cannot be specified at the same time"));
    }
    zones.extend(one);
    zones.sort_unstable();
    zones.dedup();
    if zones.is_empty() {
        return Err(ApiError::param("Either destzoneid or destzoneids is required. Both cannot be null."));
    }
    let present = rows::zones(db, row.id).await?;
    let source: Option<i64> = cx.refs.id("sourcezoneid")?;
    if source.is_some_and(|zone| zones.contains(&zone)) {
        return Err(ApiError::param("Please specify different source and destination zones."));
    }
    let from = match source {
        Some(zone) => vec![zone],
        None => present.clone(),
    };
    let mut ready = false;
    for zone in &from {
        ready |= templates::source(db, row.id, *zone).await?.is_some_and(|src| src.copy.is_some());
    }
    if !ready {
        return Err(refuse(format!("Template {} is not yet Downloaded to source zone", row.name)));
    }
    if rows::url_sealed(db, row.id).await?.is_none() {
        let text = format!("{} has no URL: only what was registered from one can be copied to other zones", row.name);
        return Err(ApiError::unsupported(text).with_entity(&row.uuid, "id"));
    }
    zones.retain(|zone| !present.contains(zone));
    let found = images::rooms(db, &zones).await?;
    let mut copies: Vec<NewCopy> = Vec::new();
    for zone in &zones {
        check_zone(s, cx, *zone, &owner(row)).await?;
        let name = infra::zone_name(db, *zone).await?;
        let chosen = rooms::choose(&found, *zone, row.is_public);
        if chosen.is_empty() {
            return Err(ApiError::failed(format!(
                "There is no secondary storage in zone {name}: add it with addImageStore"
            )));
        }
        let who = work::Who::Zone { zone: Some(*zone), hypervisor: row.hypervisor.clone() };
        if work::candidates(s, &who).await?.is_empty() {
            let text = format!("no host in zone {name} can fetch {}: none of its kind is connected", row.name);
            return Err(ApiError::failed(text));
        }
        for room in chosen {
            if !copies.iter().any(|c| c.store_id == room.id) {
                let path = rooms::path(row.account_id, row.id, &row.format);
                copies.push(NewCopy { store_id: room.id, zone_id: room.zone_id, path });
            }
        }
    }
    Ok(CopyTemplate { template: row.id, zones, copies, iso })
}

impl CopyTemplate {
    /// Waits until all copies are there; the reason of the first that failed.
    async fn arrival(&self, s: &Storage) -> Result<(), ApiError> {
        // First it listens, then it looks: what comes in between is heard.
        let mut told = s.node.coord.subscribe(DONE);
        while !self.look(s).await? {
            let _ = tokio::time::timeout(LOOK, told.next()).await; // told or not: it looks
        }
        Ok(())
    }

    /// Where the copies stand: whether all are there; the reason of the first that failed.
    async fn look(&self, s: &Storage) -> Result<bool, ApiError> {
        let found = copies::of_templates(&s.node.db, [self.template]).await?.remove(&self.template).unwrap_or_default();
        let mut all = true;
        for wanted in &self.copies {
            match found.iter().find(|c| c.store_id == wanted.store_id) {
                Some(copy) if copy.is_ready() => {}
                Some(copy) if copy.is_coming() => all = false,
                Some(Copy { error, .. }) => {
                    let why = error.clone().unwrap_or_else(|| "the download failed".to_owned());
                    return Err(ApiError::failed(format!("Failed to copy template: {why}")));
                }
                None => return Err(ApiError::failed("Failed to copy template: it was deleted meanwhile")),
            }
        }
        Ok(all)
    }
}

impl Job for CopyTemplate {
    const KIND: &'static str = "template.copy";
    type World = Storage;
    type Undo = Undo;

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        let s = &*world;
        jobs::step!(ctx, "copies", undo: Undo::Copies, |tx| {
            if rows::find_in(tx, self.template).await?.is_none() {
                return Err(gone(self.iso));
            }
            let present = rows::zones_in(tx, self.template).await?;
            if self.zones.iter().any(|zone| present.contains(zone)) {
                return Err(ApiError::failed("the template has come to the other zone meanwhile"));
            }
            for zone in &self.zones {
                templates::offer(tx, self.template, *zone).await?;
            }
            for copy in &self.copies {
                if !images::lives(tx, copy.store_id).await? {
                    return Err(ApiError::failed("the image store of the other zone was deleted"));
                }
                copies::insert(tx, self.template, copy, true).await?;
            }
            Ok(())
        })
        .await?;
        nudge(s);
        let waiting = ctx.deadline(PATIENCE);
        waiting
            .call("wait", jobs::NO_UNDO, |_call| {
                let (world, job, ctx) = (world.clone(), self.clone(), ctx.clone());
                async move {
                    ctx.idle(job.arrival(&world)).await?;
                    Ok::<_, ApiError>(Success { success: true, display_text: None })
                }
            })
            .await?;
        let zone = self.zones.first().copied();
        let zones = match zone {
            Some(zone) => vec![zone],
            None => rows::zones(&s.node.db, self.template).await?.into_iter().take(1).collect(),
        };
        let listed = templates::in_zones(&s.node.db, self.template, &zones).await?;
        let shown = view::templates(&s.node.db, ctx.caller(), listed).await?.pop().ok_or_else(|| gone(self.iso))?;
        jobs::finish!(ctx, |_tx| Ok(shown.clone())).await
    }

    async fn undo(self, world: Arc<Storage>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let Undo::Copies = undo;
        let s = &*world;
        let db = &s.node.db;
        let row = rows::find(db, self.template).await?;
        let count = async |without: bool| -> Result<(), ApiError> {
            let Some(row) = &row else { return Ok(()) };
            let all = copies::of_templates(db, [row.id]).await?.remove(&row.id).unwrap_or_default();
            let mine = |c: &&Copy| without && self.copies.iter().any(|m| m.store_id == c.store_id && m.path == c.path);
            let bytes = all.iter().filter(|c| !mine(c)).map(|c| c.held_bytes).sum();
            limits::reserve_template(s, cx.caller(), &row.uuid, row.account_id, bytes).await.map(drop)
        };
        count(true).await?;
        jobs::undo_step!(cx, |tx| {
            for zone in &self.zones {
                rows::leave(tx, self.template, Some(*zone)).await?;
            }
            for copy in &self.copies {
                copies::remove_one(tx, self.template, copy, HEAD_START).await?;
            }
            Ok(())
        })
        .await?;
        // The download may have counted something until its row was gone.
        if let Err(error) = count(false).await {
            tracing::info!(template = self.template, %error, "what copies count is told with the next change");
        }
        nudge(s);
        Ok(())
    }

    async fn abort(self, _world: Arc<Storage>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the undo of its first step did all
    }
}
