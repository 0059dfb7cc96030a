//! deleteTemplate and deleteIso: from one zone, or everywhere.
//!
//! One commit takes the rows away and notes which images are to be deleted; the duty of [`crate::images`] deletes them. VMs
//! that were made from the template go on: their disks stand on the pools' own copies (TPL-083).

use crate::store::copies;
use crate::store::template_writes as rows;
use crate::store::{infra, shares};
use crate::templates::{self, gone};
use crate::{Storage, limits};
use contract::ApiError;
use contract::api::Success;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// How long images that were still coming in are left alone, in µs: as long as a host may still be asked for one.
const HEAD_START: i64 = 30_000_000;
/// VMs that a refusal names.
const NAMED: i64 = 10;

/// Deletes a template or ISO.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeleteTemplate {
    /// The template.
    pub template: i64,
    /// Only in this zone.
    pub zone: Option<i64>,
    /// Although VMs use it, or it is on its way.
    pub forced: bool,
    /// It is an ISO.
    pub iso: bool,
}

/// What counts when the job fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Undo;

impl DeleteTemplate {
    /// Makes sure, within a transaction, that the template may be deleted. Tells whether nothing of it is left then.
    ///
    /// # Errors
    /// 431 while it is downloaded, or VMs use it, unless `forced`; and when it isn't there.
    pub async fn check(&self, tx: &mut Tx) -> Result<bool, ApiError> {
        let row = rows::find_in(tx, self.template).await?.ok_or_else(|| gone(self.iso))?;
        let zones = rows::zones_in(tx, row.id).await?;
        if let Some(zone) = self.zone
            && !zones.contains(&zone)
        {
            let text = format!("{} isn't in the zone that zoneid names", row.name);
            return Err(ApiError::param(text).with_entity(&row.uuid, "id"));
        }
        let found = copies::of_template_in(tx, row.id).await?;
        let under_way = |c: &copies::Copy| {
            c.download_state == "DOWNLOAD_IN_PROGRESS" && c.is_coming() && self.zone.is_none_or(|z| c.serves(z))
        };
        if !self.forced && found.iter().any(under_way) {
            let what = if self.iso { "an iso" } else { "a template" };
            let text = format!("Please specify {what} that is not currently being downloaded.");
            return Err(ApiError::param(text).with_entity(&row.uuid, "id"));
        }
        let users = match (self.forced, self.iso) {
            (true, _) => Vec::new(),
            // VMs that were installed from it don't need it any more.
            (false, true) => rows::readers(tx, row.id, self.zone, NAMED).await?,
            (false, false) => rows::users(tx, row.id, self.zone, NAMED).await?,
        };
        if !users.is_empty() {
            let text = match self.iso {
                true => format!("Unable to delete iso, as it's used by other vms: [{}]", users.join(", ")),
                false => format!(
                    "Unable to delete template with id: {} because VM instances: [{}] are using it.",
                    row.uuid,
                    users.join(", ")
                ),
            };
            return Err(ApiError::param(text).with_entity(&row.uuid, "id"));
        }
        Ok(self.zone.is_none_or(|zone| zones.iter().all(|z| *z == zone)))
    }

    async fn carry_out(&self, tx: &mut Tx) -> Result<bool, ApiError> {
        let last = self.check(tx).await?;
        let row = rows::find_in(tx, self.template).await?.ok_or_else(|| gone(self.iso))?;
        let left = rows::leave(tx, row.id, self.zone).await?;
        copies::remove(tx, row.id, self.zone.filter(|_| !last), HEAD_START).await?;
        if last {
            rows::remove(tx, row.id).await?;
            shares::clear(tx, row.id).await?;
        }
        let facts: Vec<events::Record> = left.iter().map(|zone| templates::usage_end(&row, *zone)).collect();
        events::record(tx, &facts).await?;
        Ok(last)
    }
}

impl Job for DeleteTemplate {
    const KIND: &'static str = "template.delete";
    type World = Storage;
    type Undo = Undo;

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        let s = &*world;
        let row = rows::find(&s.node.db, self.template).await?.ok_or_else(|| gone(self.iso))?;
        let (uuid, account) = (row.uuid.clone(), row.account_id);
        // A part is counted less before it is gone, which can be taken back; the whole is given back when it is gone.
        let last = jobs::step!(ctx, "check", |tx| self.check(tx).await).await?;
        if !last {
            let bytes = copies::held(&s.node.db, row.id, self.zone).await?;
            ctx.call("limits", Some(Undo), |call| {
                let (world, uuid) = (world.clone(), uuid.clone());
                async move { limits::reserve_template(&world, call.caller(), &uuid, account, bytes).await }
            })
            .await?;
        }
        let done = jobs::finish!(ctx, |tx| {
            if self.carry_out(tx).await? != last {
                return Err(ApiError::concurrent("the template's zones have changed meanwhile; try again"));
            }
            Ok(Success { success: true, display_text: None })
        })
        .await?;
        if last {
            limits::give_back_template(s, ctx.caller(), &row.uuid).await;
        }
        crate::images::nudge(s);
        Ok(done)
    }

    async fn undo(self, world: Arc<Storage>, _undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let s = &*world;
        let Some(row) = rows::find(&s.node.db, self.template).await? else { return Ok(()) };
        let bytes = copies::held(&s.node.db, row.id, None).await?;
        limits::reserve_template(s, cx.caller(), &row.uuid, row.account_id, bytes).await.map(drop)
    }

    async fn abort(self, _world: Arc<Storage>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the rows are changed by the last commit only
    }
}

/// What the event of a deletion says.
///
/// # Errors
/// Those of the database.
pub async fn description(s: &Storage, name: &str, job: &DeleteTemplate) -> Result<String, ApiError> {
    let what = if job.iso { "ISO" } else { "template" };
    Ok(match job.zone {
        Some(zone) => format!("Deleting {what} {name} in zone {}", infra::zone_name(&s.node.db, zone).await?),
        None => format!("Deleting {what} {name}"),
    })
}
