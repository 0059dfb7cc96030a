//! deleteSnapshot: one commit takes the row away and notes that the image is to be deleted; the duty of [`crate::images`]
//! deletes it. Volumes and templates that were made of it stand alone.

use crate::snapshots::{gone, usage};
use crate::store::deletions;
use crate::store::snapshots::{self, ERROR};
use crate::{Storage, limits};
use contract::ApiError;
use contract::api::Success;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Deletes a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeleteSnapshot {
    /// The snapshot.
    pub snapshot: i64,
}

impl Job for DeleteSnapshot {
    const KIND: &'static str = "snapshot.delete";
    type World = Storage;
    type Undo = ();

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        let s = &*world;
        let row = snapshots::find(&s.node.db, self.snapshot).await?.ok_or_else(gone)?;
        let done = jobs::finish!(ctx, |tx| {
            let now = snapshots::find_in(tx, self.snapshot).await?.filter(|row| !row.removed).ok_or_else(gone)?;
            if !snapshots::remove(tx, now.id).await? {
                let text = format!("Can't delete snapshot {} due to it is in {} Status", now.uuid, now.state);
                return Err(ApiError::param(text).with_entity(&now.uuid, "id"));
            }
            // What one that failed may have left is noted already.
            if now.state != ERROR {
                deletions::owe_image(tx, now.store_id, &now.path, Some(&now.hypervisor), 0).await?;
                events::record(tx, &[usage(&now, "DELETE")]).await?;
            }
            Ok(Success { success: true, display_text: None })
        })
        .await?;
        limits::give_back_snapshot(s, ctx.caller(), &row.uuid).await;
        crate::images::nudge(s);
        Ok(done)
    }

    async fn undo(self, _world: Arc<Storage>, _undo: (), _cx: UndoCx) -> Result<(), ApiError> {
        Ok(()) // there is only the last commit
    }

    async fn abort(self, _world: Arc<Storage>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
