//! Volumes: files in pools.

use super::errors::{foreign_error, image_error, io_error};
use super::patience::{LONG, SHORT};
use super::pools::{Pool, Pools};
use super::templates::{self, TEMPLATE};
use super::{DiskFile, Inner, notes};
use crate::kvm::KvmOptions;
use contract::ApiError;
use contract_agent::{DeleteDisk, DiskList, DiskState, EnsureDisk, ListDisks, ResizeDisk, TemplateSource};
use images::{Format, Inspection, Origin, Rules};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// Most disks of a page.
const MOST: usize = 5000;
const SECTOR: u64 = 512;
/// A block of file systems.
const CLUSTER: u64 = 4096;

/// Whose image a name in a pool is. Written before the image, and never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DiskNote {
    /// The volume's UUID.
    pub volume: String,
    /// `qcow2`, `raw`.
    pub format: String,
    /// The template that it was made from and may still be based on.
    pub template: Option<String>,
}

/// A format by its name in the contract. An ISO image is raw.
pub(super) fn format(name: &str) -> Result<Format, ApiError> {
    match name.to_ascii_lowercase().as_str() {
        "qcow2" | "" => Ok(Format::Qcow2),
        "raw" | "iso" => Ok(Format::Raw),
        "tar" => Ok(Format::Tar),
        _ => Err(ApiError::unsupported(format!("KVM hosts of Arcus have no images of the format {name}"))),
    }
}

/// Whether a template is a root file system, not a disk.
fn is_archive(template: &TemplateSource) -> bool {
    format(&template.format).is_ok_and(|format| format == Format::Tar)
}

/// The checked name of a volume's file.
fn volume_name(path: &str) -> Result<&str, ApiError> {
    let name = notes::plain(path)?;
    if name.starts_with(TEMPLATE) {
        return Err(ApiError::param(format!("{path:?} is the name of a template, not of a volume")));
    }
    Ok(name)
}

fn sectors(bytes: u64) -> Result<u64, ApiError> {
    let whole = bytes.checked_next_multiple_of(SECTOR).filter(|whole| *whole > 0);
    whole.ok_or_else(|| ApiError::param(format!("A disk can't have {bytes} bytes")))
}

fn state(note: &DiskNote, path: &str, seen: &Inspection) -> DiskState {
    DiskState {
        volume_uuid: note.volume.clone(),
        path: path.to_owned(),
        size: seen.virtual_bytes,
        physical_size: seen.actual_bytes,
    }
}

/// What is known of a name: its note, and whether there is an image.
struct Known {
    note: Option<DiskNote>,
    image: bool,
}

/// Blocks.
fn known(pool: &Pool, name: &str) -> Result<Known, ApiError> {
    let note = notes::load::<DiskNote>(&pool.note(name)).map_err(io_error)?;
    let image = is_image(&pool.file(name))?;
    Ok(Known { note, image })
}

/// Whether there is an image; what isn't a regular file isn't one, and links aren't followed. Blocks.
pub(super) fn is_image(path: &Path) -> Result<bool, ApiError> {
    match notes::look(path).map_err(io_error)? {
        None => Ok(false),
        Some(meta) if meta.is_file() => Ok(true),
        Some(_) => Err(ApiError::failed(format!("{} isn't a regular file", path.display()))),
    }
}

/// Whether a volume owns a name, or nobody does.
fn check_owner(note: Option<&DiskNote>, volume: &str, name: &str) -> Result<(), ApiError> {
    match note {
        Some(note) if note.volume != volume => {
            Err(ApiError::failed(format!("The file {name} of the pool belongs to another volume ({})", note.volume)))
        }
        _ => Ok(()),
    }
}

impl Inner {
    pub(super) async fn do_ensure_disk(&self, order: &EnsureDisk) -> Result<DiskState, ApiError> {
        let name = volume_name(&order.path)?.to_owned();
        let wanted = format(&order.format)?;
        if wanted == Format::Tar {
            return Err(ApiError::unsupported("A volume has the format raw or qcow2: archives are templates"));
        }
        let pool = self.pools.reach(&order.pool_uuid).await?;
        let _turn = pool.turn(&name).await;
        let (at, named) = (pool.clone(), name.clone());
        let Known { note, image } = pool.gate.run(SHORT, move || known(&at, &named)).await?;
        check_owner(note.as_ref(), &order.volume_uuid, &name)?;
        match (note, image) {
            (Some(note), true) => self.finish(&pool, &name, note, order).await,
            (None, true) => Err(ApiError::failed(format!("The pool has a file {name} that is no volume's"))),
            (_, false) => self.make(&pool, &name, wanted, order).await,
        }
    }

    /// A disk that is there: a killed run may have left it without its full size.
    async fn finish(&self, pool: &Pool, name: &str, note: DiskNote, order: &EnsureDisk) -> Result<DiskState, ApiError> {
        let (file, format) = (pool.file(name), format(&note.format)?);
        let mut seen = self.qemu.inspect(&file, format, Origin::Pool).await.map_err(image_error)?;
        if seen.virtual_bytes < order.size {
            seen = self.qemu.resize(&file, format, sectors(order.size)?).await.map_err(image_error)?;
        }
        Ok(state(&note, name, &seen))
    }

    async fn make(
        &self,
        pool: &Arc<Pool>,
        name: &str,
        format: Format,
        order: &EnsureDisk,
    ) -> Result<DiskState, ApiError> {
        let template = order.template.as_ref();
        let note = DiskNote {
            volume: order.volume_uuid.clone(),
            format: format.name().to_owned(),
            // A raw copy stands alone, and so does a whole one.
            template: template
                .filter(|t| format == Format::Qcow2 && !t.whole && !is_archive(t))
                .map(|t| t.template_uuid.clone()),
        };
        let file = pool.file(name);
        let seen = match template {
            None => {
                let size = sectors(order.size)?;
                write_note(pool, name, &note).await?;
                self.qemu.create(&file, format, size).await
            }
            Some(template) => self.make_from(pool, name, &note, (format, order.size), template).await?,
        };
        Ok(state(&note, name, &seen.map_err(image_error)?))
    }

    async fn make_from(
        &self,
        pool: &Arc<Pool>,
        name: &str,
        note: &DiskNote,
        (format, size): (Format, u64),
        template: &TemplateSource,
    ) -> Result<Result<Inspection, images::Error>, ApiError> {
        if is_archive(template) {
            return self.make_root(pool, name, note, (format, size), template).await;
        }
        if template.whole {
            return self.make_whole(pool, name, note, (format, size), template).await;
        }
        // Held until the volume refers to it: nobody removes it meanwhile.
        let base = templates::ensure(self, pool, template).await?;
        let size = sectors(size.max(base.virtual_bytes))?;
        write_note(pool, name, note).await?;
        let file = pool.file(name);
        if format == Format::Qcow2 {
            return Ok(self.qemu.overlay(&base.file, Format::Qcow2, &file, Some(size)).await);
        }
        let made = self.qemu.convert(&base.file, Format::Qcow2, Origin::Pool, &file, format).await;
        Ok(match made {
            Ok(seen) if seen.virtual_bytes < size => self.qemu.resize(&file, format, size).await,
            made => made,
        })
    }

    /// The root of a container: an archive of a store, unpacked into a disk of its own. Nothing is kept on the pool for others.
    async fn make_root(
        &self,
        pool: &Arc<Pool>,
        name: &str,
        note: &DiskNote,
        (to, size): (Format, u64),
        from: &TemplateSource,
    ) -> Result<Result<Inspection, images::Error>, ApiError> {
        if to != Format::Raw {
            return Err(ApiError::unsupported(format!("A container's root is a raw image, not {to}")));
        }
        let store = from.store.as_ref().ok_or_else(|| ApiError::failed("The order names no image store"))?;
        let source = self.stores.source(store, &from.store_path).await?;
        write_note(pool, name, note).await?;
        let needs = self.qemu.inspect(source.file(), Format::Tar, Origin::Foreign).await.map_err(foreign_error)?;
        let size = size
            .max(needs.virtual_bytes)
            .checked_next_multiple_of(CLUSTER)
            .filter(|s| *s <= self.qemu.max_virtual_bytes);
        let size = size.ok_or_else(|| ApiError::param("A disk can't have so many bytes"))?;
        let (file, scratch) = (pool.file(name), self.stores.scratch());
        let made = images::rootfs(source.file(), &file, &scratch, size, KvmOptions::CONTAINER_IDS).await;
        source.done().await;
        Ok(Ok(made.map_err(foreign_error)?))
    }

    /// A disk that is a copy of an image of a store and stands alone.
    async fn make_whole(
        &self,
        pool: &Arc<Pool>,
        name: &str,
        note: &DiskNote,
        (to, size): (Format, u64),
        from: &TemplateSource,
    ) -> Result<Result<Inspection, images::Error>, ApiError> {
        let store = from.store.as_ref().ok_or_else(|| ApiError::failed("The order names no image store"))?;
        let source = self.stores.source(store, &from.store_path).await?;
        write_note(pool, name, note).await?;
        let file = pool.file(name);
        let made = self.qemu.convert(source.file(), format(&from.format)?, Origin::Foreign, &file, to).await;
        let seen = made.map_err(foreign_error)?;
        source.done().await;
        let size = sectors(size.max(seen.virtual_bytes))?;
        if seen.virtual_bytes < size {
            return Ok(self.qemu.resize(&file, to, size).await);
        }
        Ok(Ok(seen))
    }

    pub(super) async fn do_delete_disk(&self, order: &DeleteDisk) -> Result<(), ApiError> {
        let name = notes::plain(&order.path)?.to_owned();
        let pool = self.pools.reach(&order.pool_uuid).await?;
        if let Some(template) = name.strip_prefix(TEMPLATE) {
            return templates::delete(&pool, template).await;
        }
        let _turn = pool.turn(&name).await;
        let (at, named, volume) = (pool.clone(), name.clone(), order.volume_uuid.clone());
        let removed = pool.gate.run(LONG, move || {
            let Known { note, image } = known(&at, &named)?;
            // Another volume's: this one's bytes are gone already.
            if check_owner(note.as_ref(), &volume, &named).is_err() {
                return Ok(());
            }
            if note.is_none() && image {
                return Err(ApiError::failed(format!("The pool has a file {named} that is no volume's")));
            }
            notes::remove(&at.file(&named)).map_err(io_error)?;
            notes::remove(&at.note(&named)).map_err(io_error)
        });
        removed.await?;
        pool.notes.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        Ok(())
    }

    pub(super) async fn do_resize_disk(&self, order: &ResizeDisk) -> Result<DiskState, ApiError> {
        let name = volume_name(&order.path)?.to_owned();
        let pool = self.pools.reach(&order.pool_uuid).await?;
        let _turn = pool.turn(&name).await;
        let (at, named) = (pool.clone(), name.clone());
        let Known { note, image } = pool.gate.run(SHORT, move || known(&at, &named)).await?;
        check_owner(note.as_ref(), &order.volume_uuid, &name)?;
        let note = note.filter(|_| image).ok_or_else(|| missing(&name))?;
        let resized = self.qemu.resize(&pool.file(&name), format(&note.format)?, sectors(order.size)?).await;
        Ok(state(&note, &name, &resized.map_err(image_error)?))
    }

    pub(super) async fn do_list_disks(&self, order: &ListDisks) -> Result<DiskList, ApiError> {
        let pool = self.pools.reach(&order.pool_uuid).await?;
        let limit = usize::try_from(order.limit).unwrap_or(MOST).clamp(1, MOST);
        let (at, after, most) = (pool.clone(), order.after.clone(), self.qemu.max_virtual_bytes);
        pool.gate.run(LONG, move || list(&at, &after, limit, most)).await
    }
}

/// A volume's file, if it is that volume's. Blocks.
pub(super) fn find(pools: &Pools, pool_uuid: &str, path: &str, volume: Option<&str>) -> Result<DiskFile, ApiError> {
    let name = volume_name(path)?;
    let unknown = || ApiError::unavailable(format!("this host doesn't know pool {pool_uuid}"));
    let pool = pools.get(pool_uuid).ok_or_else(unknown)?;
    if !pool.is_there()? {
        return Err(ApiError::unavailable(format!("pool {pool_uuid} isn't mounted on this host")));
    }
    let Known { note, image } = known(&pool, name)?;
    let note = note.filter(|_| image).ok_or_else(|| missing(name))?;
    check_owner(Some(&note), volume.unwrap_or(&note.volume), name)?;
    let (file, format) = (pool.file(name), format(&note.format)?);
    // One that can't be looked into is QEMU's to refuse.
    let look = || images::inspect(&file, format, Rules { origin: Origin::Pool, max_virtual_bytes: u64::MAX }).ok();
    let seen = if format == Format::Qcow2 { look() } else { None };
    let layers = std::iter::successors(seen.as_ref().and_then(|s| s.backing.as_ref()), |b| b.image.backing.as_ref());
    let backing = layers.map(|layer| (pool.file(&layer.name), layer.image.format)).collect();
    Ok(DiskFile { path: file, format, backing })
}

fn missing(name: &str) -> ApiError {
    ApiError::failed(format!("The pool has no volume in a file {name}"))
}

async fn write_note(pool: &Arc<Pool>, name: &str, note: &DiskNote) -> Result<(), ApiError> {
    pool.notes.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    let (path, note) = (pool.note(name), note.clone());
    pool.gate.run(SHORT, move || notes::save(&path, &note).map_err(io_error)).await
}

/// The names of a pool's volumes, with their notes. Blocks.
pub(super) fn all_notes(pool: &Pool) -> Result<Vec<(String, Arc<DiskNote>)>, ApiError> {
    let mut cached = std::mem::take(&mut *pool.notes.lock().unwrap_or_else(PoisonError::into_inner));
    let mut all = Vec::new();
    for entry in std::fs::read_dir(pool.notes_dir()).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let name = entry.file_name();
        // Hidden ones are being written, or their writer was killed.
        let Some(name) = name.to_str().filter(|name| notes::plain(name).is_ok()) else {
            notes::tidy(&entry.path());
            continue;
        };
        let note = match cached.remove(name) {
            Some(note) => Some(note),
            None => notes::load::<DiskNote>(&pool.note(name)).map_err(io_error)?.map(Arc::new),
        };
        // Removed meanwhile, if there is none.
        all.extend(note.map(|note| (name.to_owned(), note)));
    }
    pool.notes.lock().unwrap_or_else(PoisonError::into_inner).extend(all.iter().cloned());
    Ok(all)
}

/// Blocks.
fn list(pool: &Pool, after: &str, limit: usize, max_virtual_bytes: u64) -> Result<DiskList, ApiError> {
    let mut all = all_notes(pool)?;
    all.retain(|(_, note)| note.volume.as_str() > after);
    all.sort_by(|(a_name, a), (b_name, b)| (&a.volume, a_name).cmp(&(&b.volume, b_name)));
    let mut disks: Vec<DiskState> = Vec::new();
    let mut more = false;
    for (name, note) in all {
        let file = pool.file(&name);
        let Some(meta) = notes::look(&file).map_err(io_error)?.filter(std::fs::Metadata::is_file) else { continue };
        // A page ends between volumes: the next one begins behind this one.
        if disks.len() >= limit && disks.last().is_some_and(|last| last.volume_uuid != note.volume) {
            more = true;
            break;
        }
        let rules = Rules { origin: Origin::Pool, max_virtual_bytes };
        let seen = format(&note.format).ok().and_then(|format| images::inspect(&file, format, rules).ok());
        // A damaged one is there all the same.
        let size = seen.map_or(0, |seen| seen.virtual_bytes);
        let physical_size = meta.blocks().saturating_mul(SECTOR);
        disks.push(DiskState { volume_uuid: note.volume.clone(), path: name, size, physical_size });
    }
    Ok(DiskList { disks, more })
}
