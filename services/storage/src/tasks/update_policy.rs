//! updateSnapshotPolicy: whether users see a policy, and its id.

use crate::Storage;
use crate::snapshots::policies::{self, gone};
use crate::store::policies as rows;
use contract::ApiError;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Changes a policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpdatePolicy {
    /// The policy.
    pub policy: i64,
    /// Whether users see it.
    pub display: Option<bool>,
    /// Its new UUID.
    pub custom_id: Option<String>,
}

impl Job for UpdatePolicy {
    const KIND: &'static str = "snapshot_policy.update";
    type World = Storage;
    type Undo = ();

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        let mut row = rows::find(db, self.policy).await?.filter(|p| !p.removed).ok_or_else(gone)?;
        row.display = self.display.unwrap_or(row.display);
        row.uuid = self.custom_id.clone().unwrap_or(row.uuid);
        let shown = policies::view(db, vec![row]).await?.pop().ok_or_else(gone)?;
        jobs::finish!(ctx, |tx| {
            match rows::show(tx, self.policy, self.display, self.custom_id.as_deref()).await {
                Ok(true) => Ok(shown.clone()),
                Ok(false) => Err(gone()),
                Err(e) if e.is_unique("uuid") => Err(ApiError::param("customid is in use by another policy")),
                Err(e) => Err(e.into()),
            }
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
