//! Templates on a pool: each is copied from its store once, whoever comes first, and is what the volumes made from it are
//! based on. ISOs are kept likewise: what lies in a CD drive is based on nothing, and nothing on it.
//!
//! The file is `template-UUID`, always qcow2 and never written again. Whoever makes a volume holds the template's lock with
//! others; whoever copies or removes it holds it alone. The lock dies with its holder and holds off other hosts.

use super::Inner;
use super::disks::{DiskNote, all_notes, format, is_image};
use super::errors::{foreign_error, image_error, io_error};
use super::notes;
use super::patience::{Held, How, LONG, SHORT, hold};
use super::pools::{Pool, Pools};
use contract::ApiError;
use contract_agent::{ImageStore, TemplateSource};
use images::{Format, Inspection, Origin, Rules};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a template's file name begins with.
pub(super) const TEMPLATE: &str = "template-";

/// A template that is on the pool, and stays while this lives.
#[derive(Debug)]
pub(super) struct Base {
    pub file: PathBuf,
    pub virtual_bytes: u64,
    _held: Held,
}

fn name_of(template: &str) -> Result<String, ApiError> {
    Ok(file_of(notes::plain(template)?))
}

/// The name of the file that a template, or an ISO, has on a pool.
pub(crate) fn file_of(template: &str) -> String {
    format!("{TEMPLATE}{template}")
}

/// The file of an ISO that is on a pool. Blocks.
pub(super) fn find(pools: &Pools, pool_uuid: &str, iso: &str) -> Result<PathBuf, ApiError> {
    let name = name_of(iso)?;
    let unknown = || ApiError::unavailable(format!("this host doesn't know pool {pool_uuid}"));
    let pool = pools.get(pool_uuid).ok_or_else(unknown)?;
    if !pool.is_there()? {
        return Err(ApiError::unavailable(format!("pool {pool_uuid} isn't mounted on this host")));
    }
    let file = pool.file(&name);
    if is_image(&file)? { Ok(file) } else { Err(ApiError::failed(format!("The pool has no ISO in a file {name}"))) }
}

/// Makes sure that a template is on a pool.
pub(super) async fn ensure(inner: &Inner, pool: &Arc<Pool>, from: &TemplateSource) -> Result<Base, ApiError> {
    let name = name_of(&from.template_uuid)?;
    let file = pool.file(&name);
    let lock = pool.lock(&name);
    loop {
        if let Some(base) = take(inner, pool, &file, lock.clone()).await? {
            return Ok(base);
        }
        // Those of this host wait for each other here, and the lock is for other hosts.
        let _turn = pool.turn(&name).await;
        let _alone = hold(&pool.gate, lock.clone(), How::Alone).await?;
        let at = file.to_owned();
        if !pool.gate.run(SHORT, move || is_image(&at)).await? {
            copy(inner, &file, from).await?;
        }
        // And from the beginning: between the two locks it may be removed again.
    }
}

/// The template, when it is there.
async fn take(inner: &Inner, pool: &Pool, file: &Path, lock: PathBuf) -> Result<Option<Base>, ApiError> {
    let at = file.to_owned();
    if !pool.gate.run(SHORT, move || is_image(&at)).await? {
        return Ok(None);
    }
    let held = hold(&pool.gate, lock, How::Together).await?;
    let at = file.to_owned();
    if !pool.gate.run(SHORT, move || is_image(&at)).await? {
        return Ok(None);
    }
    let seen = inner.qemu.inspect(file, Format::Qcow2, Origin::Pool).await.map_err(image_error)?;
    Ok(Some(Base { file: file.to_owned(), virtual_bytes: seen.virtual_bytes, _held: held }))
}

/// Copies a template from its store: looked at, then made anew by our own tool, so that nothing of what its maker wrote into
/// the header is ever read again.
async fn copy(inner: &Inner, file: &Path, from: &TemplateSource) -> Result<(), ApiError> {
    let store = match &from.store {
        Some(store) => store.clone(),
        None if !from.store_url.is_empty() => ImageStore { url: from.store_url.clone(), ..ImageStore::default() },
        None => return Err(ApiError::failed("The template lies in no store that the host is told of")),
    };
    let source = inner.stores.source(&store, &from.store_path).await?;
    let seen = inner.qemu.convert(source.file(), format(&from.format)?, Origin::Foreign, file, Format::Qcow2).await;
    let seen = seen.map_err(foreign_error)?;
    tracing::info!(template = from.template_uuid, bytes = seen.file_bytes, "copied a template to a pool");
    source.done().await;
    Ok(())
}

/// Removes a template from a pool, unless a volume is based on it; one that isn't there is removed already.
pub(super) async fn delete(pool: &Arc<Pool>, template: &str) -> Result<(), ApiError> {
    let name = name_of(template)?;
    let (file, lock) = (pool.file(&name), pool.lock(&name));
    let _turn = pool.turn(&name).await;
    let _alone = hold(&pool.gate, lock.clone(), How::Alone).await?;
    let (at, template) = (pool.clone(), template.to_owned());
    pool.gate
        .run(LONG, move || {
            for (disk, note) in all_notes(&at)? {
                if note.template.as_deref() == Some(&template) && is_based(&at, &disk, &note, &name)? {
                    return Err(ApiError::in_use(format!(
                        "Volumes are based on template {template} on the pool, {} is one",
                        note.volume
                    )));
                }
            }
            notes::remove(&file).map_err(io_error)?;
            notes::remove(&lock).map_err(io_error)
        })
        .await
}

/// Whether a disk is really based on a file: it may have been made to stand alone since. Blocks.
fn is_based(pool: &Pool, disk: &str, note: &DiskNote, base: &str) -> Result<bool, ApiError> {
    let file = pool.file(disk);
    if !is_image(&file)? {
        // Noted, and not made yet or killed before: whoever makes it needs the template's lock first.
        return Ok(false);
    }
    let rules = Rules { origin: Origin::Pool, max_virtual_bytes: u64::MAX };
    // One that can't be looked into may need it.
    let seen = images::inspect(&file, format(&note.format)?, rules);
    Ok(seen.map_or(true, |seen| chain(&seen).any(|name| name == base)))
}

/// The names of all that an image is based on.
fn chain(image: &Inspection) -> impl Iterator<Item = &str> {
    std::iter::successors(image.backing.as_ref(), |backing| backing.image.backing.as_ref()).map(|b| b.name.as_str())
}
