//! Brings copies in and deletes images: one replica at a time.

use super::{DONE, TOPIC, download, reach, work};
use crate::Storage;
use crate::hosts::Tell;
use crate::store::copies;
use crate::store::deletions::{self, ImageDeletion};
use contract::ApiError;
use contract_agent::{DeleteImage, command};
use coord::Term;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::collections::HashSet;
use std::time::Duration;

const DUTY: &str = "storage/images";
/// How often it looks when nobody tells it anything and nothing is due before: a nudge may be lost with its teller.
const INTERVAL: Duration = Duration::from_secs(30);
/// Copies that come in, and deletions, at the same time.
const MOST: usize = 64;
/// How long a host may take to delete an image.
const DEADLINE: Duration = Duration::from_secs(60);
/// Hosts that are tried before a deletion is put off.
const TRIES: usize = 3;
/// The shortest rest.
const LEAST: Duration = Duration::from_millis(50);
/// The wait after trouble of our own, before the same is tried again.
const TROUBLE: Duration = Duration::from_secs(1);

/// Starts the duty.
pub fn start(s: &Storage) {
    let storage = s.clone();
    s.node.duty(DUTY, move |term| serve(storage.clone(), term));
}

async fn serve(s: Storage, term: Term) {
    let mut told = s.node.coord.subscribe(TOPIC);
    let mut at_work: FuturesUnordered<BoxFuture<'static, String>> = FuturesUnordered::new();
    let mut paths: HashSet<String> = HashSet::new();
    // Whoever led before may have been killed before it told.
    s.node.coord.publish(DONE, "");
    loop {
        let rest = match begin(&s, &term, &mut paths).await {
            Ok((new, rest)) => {
                at_work.extend(new);
                rest
            }
            Err(error) => {
                tracing::warn!(%error, "looking for images to bring in or to delete");
                TROUBLE
            }
        };
        tokio::select! {
            Some(path) = at_work.next(), if !at_work.is_empty() => {
                paths.remove(&path);
                s.node.coord.publish(DONE, &path);
            }
            _ = told.next() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Takes up what isn't at work yet, and tells how long it may rest then, when it hears nothing. A path is worked on by one
/// future at a time: an image isn't deleted while somebody here still asks for it.
async fn begin(
    s: &Storage,
    term: &Term,
    paths: &mut HashSet<String>,
) -> Result<(Vec<BoxFuture<'static, String>>, Duration), ApiError> {
    let mut new: Vec<BoxFuture<'static, String>> = Vec::new();
    let room = |paths: &HashSet<String>| i64::try_from(MOST.saturating_sub(paths.len())).unwrap_or_default();
    if room(paths) == 0 {
        return Ok((new, INTERVAL)); // it looks again as soon as one has ended
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
    let due = deletions::due::<ImageDeletion>(&s.node.db, i64::try_from(MOST).unwrap_or(i64::MAX)).await?;
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
    let next = deletions::next::<ImageDeletion>(&s.node.db).await?;
    let next = next.map(|micros| Duration::from_micros(micros.unsigned_abs()));
    Ok((new, next.unwrap_or(INTERVAL).clamp(LEAST, INTERVAL)))
}

/// Deletes an image, or notes that it couldn't be.
///
/// # Errors
/// Those of the database.
pub async fn wipe(s: &Storage, term: Option<&Term>, d: &ImageDeletion) -> Result<(), ApiError> {
    let outcome = delete(s, d).await;
    store::tx!(s.node.db, "image-deletion", |tx| {
        if let Some(term) = term {
            term.fence(tx).await?;
        }
        match &outcome {
            Ok(()) => deletions::done::<ImageDeletion>(tx, &d.path).await?,
            Err(error) => deletions::put_off(tx, d, error.full_text()).await?,
        }
        Ok::<_, ApiError>(())
    })
    .await
}

async fn delete(s: &Storage, d: &ImageDeletion) -> Result<(), ApiError> {
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
