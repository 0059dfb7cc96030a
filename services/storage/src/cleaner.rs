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
/// The first wait after a failure, and the longest, in seconds.
const WAITS: (i64, i64) = (10, 3600);

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
    let due = deletions::due(&s.node.db, BATCH).await?;
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
            Ok(()) => deletions::done(tx, &d.path).await?,
            Err(error) => deletions::put_off(tx, &d.path, wait(d.tries), error.full_text()).await?,
        }
        Ok::<_, ApiError>(())
    })
    .await
}

/// The wait after the failure that follows `tries` others, in µs.
fn wait(tries: i64) -> i64 {
    let (first, last) = WAITS;
    let doubled = first.saturating_mul(1i64 << tries.clamp(0, 16));
    doubled.min(last) * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour() {
        assert_eq!([wait(0), wait(1), wait(9), wait(i64::MAX)], [10_000_000, 20_000_000, 3_600_000_000, 3_600_000_000]);
    }
}
