//! Brings copies in and deletes images: one replica at a time.

use super::{TOPIC, download, reach, work};
use crate::Storage;
use crate::hosts::Tell;
use crate::store::copies;
use crate::store::image_deletions::{self, Deletion};
use contract::ApiError;
use contract_agent::{DeleteImage, command};
use coord::Term;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::collections::HashSet;
use std::time::Duration;

const DUTY: &str = "storage/images";
/// How often it looks when nobody tells it anything.
const INTERVAL: Duration = Duration::from_secs(1);
/// Copies that come in, and deletions, at the same time.
const MOST: usize = 64;
/// How long a host may take to delete an image.
const DEADLINE: Duration = Duration::from_secs(60);
/// Hosts that are tried before a deletion is put off.
const TRIES: usize = 3;
/// The wait after trouble of our own, before the same is tried again.
const TROUBLE: Duration = Duration::from_secs(1);
/// The first wait after a deletion that failed, and the longest, in seconds.
const WAITS: (i64, i64) = (10, 3600);

/// Starts the duty.
pub fn start(s: &Storage) {
    let storage = s.clone();
    s.node.duty(DUTY, move |term| serve(storage.clone(), term));
}

async fn serve(s: Storage, term: Term) {
    let mut told = s.node.coord.subscribe(TOPIC);
    let mut at_work: FuturesUnordered<BoxFuture<'static, String>> = FuturesUnordered::new();
    let mut paths: HashSet<String> = HashSet::new();
    loop {
        match begin(&s, &term, &mut paths).await {
            Ok(new) => at_work.extend(new),
            Err(error) => tracing::warn!(%error, "looking for images to bring in or to delete"),
        }
        tokio::select! {
            Some(path) = at_work.next(), if !at_work.is_empty() => {
                paths.remove(&path);
            }
            _ = told.next() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Takes up what isn't at work yet. A path is worked on by one future at a time: an image isn't deleted while somebody here
/// still asks for it.
async fn begin(
    s: &Storage,
    term: &Term,
    paths: &mut HashSet<String>,
) -> Result<Vec<BoxFuture<'static, String>>, ApiError> {
    let mut new: Vec<BoxFuture<'static, String>> = Vec::new();
    let room = |paths: &HashSet<String>| i64::try_from(MOST.saturating_sub(paths.len())).unwrap_or_default();
    if room(paths) == 0 {
        return Ok(new);
    }
    for wanted in copies::wanted(&s.node.db, paths, room(paths)).await? {
        let path = wanted.copy.path.clone();
        paths.insert(path.clone());
        let (s, term) = (s.clone(), term.clone());
        let work = async move {
            if let Err(error) = download::bring_in(&s, Some(&term), &wanted).await {
                tracing::warn!(template = wanted.uuid, %error, "a download goes on in a moment");
                tokio::time::sleep(TROUBLE).await;
            }
            path
        };
        new.push(work.boxed());
    }
    let due = image_deletions::due(&s.node.db, i64::try_from(MOST).unwrap_or(i64::MAX)).await?;
    for deletion in due {
        if paths.len() >= MOST || !paths.insert(deletion.path.clone()) {
            continue;
        }
        let (s, term) = (s.clone(), term.clone());
        let work = async move {
            if let Err(error) = wipe(&s, Some(&term), &deletion).await {
                tracing::warn!(path = deletion.path, %error, "noting the deletion of an image");
                tokio::time::sleep(TROUBLE).await;
            }
            deletion.path
        };
        new.push(work.boxed());
    }
    Ok(new)
}

/// Deletes an image, or notes that it couldn't be.
///
/// # Errors
/// Those of the database.
pub async fn wipe(s: &Storage, term: Option<&Term>, d: &Deletion) -> Result<(), ApiError> {
    let outcome = delete(s, d).await;
    store::tx!(s.node.db, "image-deletion", |tx| {
        if let Some(term) = term {
            term.fence(tx).await?;
        }
        match &outcome {
            Ok(()) => image_deletions::done(tx, &d.path).await?,
            Err(error) => image_deletions::put_off(tx, &d.path, wait(d.tries), error.full_text()).await?,
        }
        Ok::<_, ApiError>(())
    })
    .await
}

async fn delete(s: &Storage, d: &Deletion) -> Result<(), ApiError> {
    let Some(site) = crate::store::images::site(&s.node.db, d.store_id).await? else {
        return Ok(()); // the store is gone, and the image with it
    };
    let zone = crate::store::images::zone(&s.node.db, d.store_id).await?;
    let store = reach::open(s, &site)?;
    let hypervisor = d.hypervisor.clone().unwrap_or_else(|| "None".to_owned());
    let mut last = ApiError::unavailable("no host that reaches the image store is connected");
    let hosts = work::candidates(s, &work::Who::Zone { zone, hypervisor }).await?;
    for host in hosts.into_iter().take(TRIES) {
        let body = command::Body::DeleteImage(DeleteImage { store: Some(store.clone()), path: d.path.clone() });
        match s.hosts.ask(&rpc::cx::system_caller(), Tell { host: host.id, body, deadline: DEADLINE }).await {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The wait after the failure that follows `tries` others, in µs.
fn wait(tries: i64) -> i64 {
    let (first, last) = WAITS;
    first.saturating_mul(1i64 << tries.clamp(0, 16)).min(last) * 1_000_000
}
