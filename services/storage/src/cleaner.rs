//! Deletes the bytes that no host could delete when their volume went. One replica does it at a time.

use crate::Storage;
use crate::bytes;
use crate::store::deletions::{self, Deletion};
use contract::ApiError;
use coord::Term;
use futures::stream::{self, StreamExt};
use std::time::Duration;

const DUTY: &str = "storage/deletions";
/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Deletions of one look.
const BATCH: i64 = 64;
/// Deletions at the same time.
const PARALLEL: usize = 8;

/// Starts the duty.
pub fn start(s: &Storage) {
    let storage = s.clone();
    s.node.duty(DUTY, move |term| {
        let storage = storage.clone();
        async move {
            loop {
                match drain(&storage, Some(&term)).await {
                    Ok(n) if n == usize::try_from(BATCH).unwrap_or(usize::MAX) => continue, // there may be more
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "deleting bytes"),
                }
                tokio::time::sleep(INTERVAL).await;
            }
        }
    });
}

/// Tries the deletions that are due; tells how many there were.
///
/// # Errors
/// Those of the database.
pub async fn drain(s: &Storage, term: Option<&Term>) -> Result<usize, ApiError> {
    let due = deletions::due::<Deletion>(&s.node.db, BATCH).await?;
    let n = due.len();
    stream::iter(due)
        .for_each_concurrent(PARALLEL, |d| async move {
            if let Err(error) = one(s, term, &d).await {
                tracing::warn!(volume = d.volume_uuid, %error, "noting a deletion");
            }
        })
        .await;
    Ok(n)
}

async fn one(s: &Storage, term: Option<&Term>, d: &Deletion) -> Result<(), ApiError> {
    let outcome = bytes::wipe(s, &rpc::cx::system_caller(), None, None, d).await;
    store::tx!(s.node.db, "deletion", |tx| {
        if let Some(term) = term {
            term.fence(tx).await?;
        }
        match &outcome {
            Ok(()) => deletions::done::<Deletion>(tx, &d.path).await?,
            Err(error) => deletions::put_off(tx, d, error.full_text()).await?,
        }
        Ok::<_, ApiError>(())
    })
    .await
}
