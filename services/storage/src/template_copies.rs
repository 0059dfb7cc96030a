//! Copies of templates on primary storage that no volume has needed for `storage.cleanup.interval` are removed
//! (`storage.template.cleanup.enabled`). Hosts refuse to delete one that a disk is based on, whatever the rows say. A template that
//! is needed again is copied again. One replica does it at a time.

use crate::Storage;
use crate::store::template_copies::{self as rows};
use config::keys;
use contract::ApiError;
use coord::Term;
use std::time::Duration;
use store::Tx;

const DUTY: &str = "storage/template-copies";
/// The longest and shortest time between two looks.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// Copies of one look.
const BATCH: i64 = 64;

/// Starts the duty.
pub fn start(s: &Storage) {
    let storage = s.clone();
    s.node.duty(DUTY, move |term| {
        let s = storage.clone();
        async move {
            loop {
                if let Err(error) = look(&s, Some(&term)).await {
                    tracing::warn!(%error, "looking for templates on primary storage that nobody needs");
                }
                tokio::time::sleep((interval(&s) / 4).clamp(LOOKS.0, LOOKS.1)).await;
            }
        }
    });
}

/// How long a copy must have been unused.
fn interval(s: &Storage) -> Duration {
    Duration::from_secs(s.node.settings.get(keys::STORAGE_CLEANUP_INTERVAL).max(1).unsigned_abs())
}

/// Notes which copies are unused, and removes those that have been so for long.
///
/// # Errors
/// Those of the database.
pub async fn look(s: &Storage, term: Option<&Term>) -> Result<(), ApiError> {
    let settings = &s.node.settings;
    if !settings.get(keys::STORAGE_CLEANUP_ENABLED) || !settings.get(keys::STORAGE_TEMPLATE_CLEANUP_ENABLED) {
        return Ok(());
    }
    store::tx!(s.node.db, "mark-template-copies", |tx| {
        fence(term, tx).await?;
        Ok::<_, ApiError>(rows::mark(tx).await?)
    })
    .await?;
    let micros = i64::try_from(interval(s).as_micros()).unwrap_or(i64::MAX);
    for copy in rows::unused(&s.node.db, micros, BATCH).await? {
        let gone = store::tx!(s.node.db, "evict-template-copy", |tx| {
            fence(term, tx).await?;
            Ok::<_, ApiError>(rows::evict(tx, &copy).await?)
        })
        .await?;
        if gone {
            tracing::info!(template = copy.template_uuid, pool = copy.pool_id, "a template is removed from a pool");
        }
    }
    Ok(())
}

async fn fence(term: Option<&Term>, tx: &mut Tx) -> Result<(), ApiError> {
    match term {
        Some(term) => term.fence(tx).await,
        None => Ok(()),
    }
}
