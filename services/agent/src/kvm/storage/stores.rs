//! Secondary stores: folders, exports that are mounted, and buckets.
//!
//! In a folder lie the images under the paths that the control plane gives them, and `.arcus`: `images/KEY` says what is known
//! of an image, `work/KEY/` is where it comes into being, on the same file system, and `locks/KEY` who works on it.

use super::bucket::Bucket;
use super::disks::is_image;
use super::errors::{foreign_error, image_error, io_error};
use super::mounts::{Export, Mounts, is_mount_point};
use super::notes;
use super::patience::{Gate, How, LONG, SHORT, try_hold};
use super::pools::OWN;
use contract::ApiError;
use contract_agent::{ImageState, ImageStore, image_state::Phase};
use images::{Format, Origin, QemuImg};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

const NOTES: &str = "images";
const WORK: &str = "work";
const LOCKS: &str = "locks";
/// Work that nobody goes on with is given up after this.
const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most parts of an image's path.
const MOST_PARTS: usize = 16;

/// What is known of an image in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageNote {
    pub path: String,
    pub format: String,
    pub physical: u64,
    pub r#virtual: u64,
    /// `{SHA-256}…` of the file; empty: not computed.
    pub checksum: String,
}

impl ImageNote {
    pub fn ready(self) -> ImageState {
        ImageState {
            path: self.path,
            phase: Phase::Ready.into(),
            received: self.physical,
            total: Some(self.physical),
            physical_size: self.physical,
            virtual_size: self.r#virtual,
            checksum: self.checksum,
            format: self.format,
        }
    }
}

/// The checked path of an image in a store: plain names with slashes between.
pub(super) fn image_path(path: &str) -> Result<&str, ApiError> {
    let parts = path.split('/');
    if path.split('/').count() > MOST_PARTS {
        return Err(ApiError::param(format!("{path:?} is too deep a path for an image")));
    }
    for part in parts {
        notes::plain(part)?;
    }
    Ok(path)
}

/// Where an image comes into being, and the lock of whoever works on it.
#[derive(Clone, Debug)]
pub(super) struct Bench {
    pub dir: PathBuf,
    pub lock: PathBuf,
}

/// A store that can be used at this moment.
#[derive(Clone, Debug)]
pub(super) enum Store {
    Folder(Arc<Folder>),
    Bucket(Arc<Bucket>),
}

impl Store {
    pub fn gate(&self) -> &Gate {
        match self {
            Store::Folder(folder) => &folder.gate,
            Store::Bucket(bucket) => &bucket.gate,
        }
    }

    /// Where an image comes into being.
    pub fn bench(&self, path: &str) -> Bench {
        match self {
            Store::Folder(folder) => {
                let (own, key) = (folder.dir.join(OWN), notes::digest(path));
                Bench { dir: own.join(WORK).join(&key), lock: own.join(LOCKS).join(key) }
            }
            Store::Bucket(bucket) => bucket.bench(path),
        }
    }

    /// What is known of an image, if it is there.
    pub async fn find(&self, path: &str, format: Format, qemu: &QemuImg) -> Result<Option<ImageNote>, ApiError> {
        match self {
            Store::Folder(folder) => folder.find(path, format, qemu).await,
            Store::Bucket(bucket) => bucket.find(path).await,
        }
    }

    /// A piece of an image, and how long it is.
    pub async fn piece(&self, path: &str, offset: u64, length: u64) -> Result<(Vec<u8>, u64), ApiError> {
        match self {
            Store::Folder(folder) => folder.piece(path, offset, length).await,
            Store::Bucket(bucket) => bucket.piece(image_path(path)?, offset, length).await,
        }
    }

    /// Puts a finished image in its place.
    pub async fn install(&self, image: &Path, note: &ImageNote) -> Result<(), ApiError> {
        match self {
            Store::Folder(folder) => folder.install(image, note).await,
            Store::Bucket(bucket) => bucket.install(image, note).await,
        }
    }

    /// Removes an image, and what is known of it.
    pub async fn remove(&self, path: &str) -> Result<(), ApiError> {
        match self {
            Store::Folder(folder) => folder.remove(path).await,
            Store::Bucket(bucket) => bucket.remove(path).await,
        }
    }
}

/// A store that is a folder.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    gate: Gate,
}

impl Folder {
    fn note(&self, path: &str) -> PathBuf {
        self.dir.join(OWN).join(NOTES).join(notes::digest(path))
    }

    async fn find(&self, path: &str, format: Format, qemu: &QemuImg) -> Result<Option<ImageNote>, ApiError> {
        let (dir, at, note) = (self.dir.clone(), path.to_owned(), self.note(path));
        let look = move || {
            let file = inside(&dir, &at)?;
            if !is_image(&file)? {
                return Ok(None);
            }
            let length = fs::metadata(&file).map_err(io_error)?.len();
            let note = notes::load::<ImageNote>(&note).map_err(io_error)?;
            Ok(Some((file, note.filter(|note| note.path == at && note.physical == length))))
        };
        let Some((file, note)) = self.gate.run(SHORT, look).await? else { return Ok(None) };
        if note.is_some() {
            return Ok(note);
        }
        // Put there by somebody else.
        let seen = qemu.inspect(&file, format, Origin::Foreign).await.map_err(foreign_error)?;
        Ok(Some(ImageNote {
            path: path.to_owned(),
            format: format.name().to_owned(),
            physical: seen.file_bytes,
            r#virtual: seen.virtual_bytes,
            checksum: String::new(),
        }))
    }

    async fn install(&self, image: &Path, note: &ImageNote) -> Result<(), ApiError> {
        let (dir, image, known, note) = (self.dir.clone(), image.to_owned(), self.note(&note.path), note.clone());
        self.gate
            .run(LONG, move || {
                notes::save(&known, &note).map_err(io_error)?;
                fs::File::open(&image).and_then(|file| file.sync_all()).map_err(io_error)?;
                let target = inside(&dir, &note.path)?;
                let place = || {
                    if let Some(folder) = target.parent() {
                        fs::create_dir_all(folder)?;
                    }
                    fs::rename(&image, &target)
                };
                // Whoever removes the last image of a folder removes the folder.
                place()
                    .or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { place() } else { Err(e) })
                    .map_err(io_error)?;
                notes::sync_folder_of(&target).map_err(io_error)
            })
            .await
    }

    async fn piece(&self, path: &str, offset: u64, length: u64) -> Result<(Vec<u8>, u64), ApiError> {
        let (dir, path) = (self.dir.clone(), path.to_owned());
        self.gate
            .run(SHORT, move || {
                let at = inside(&dir, &path)?;
                if !is_image(&at)? {
                    return Err(ApiError::param(format!("The store has no image {path}")));
                }
                let mut file = fs::File::open(&at).map_err(io_error)?;
                let total = file.metadata().map_err(io_error)?.len();
                std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset.min(total))).map_err(io_error)?;
                let mut data = Vec::new();
                std::io::Read::read_to_end(&mut std::io::Read::take(file, length), &mut data).map_err(io_error)?;
                Ok((data, total))
            })
            .await
    }

    async fn remove(&self, path: &str) -> Result<(), ApiError> {
        let (dir, path, note) = (self.dir.clone(), path.to_owned(), self.note(path));
        self.gate
            .run(SHORT, move || {
                let file = inside(&dir, &path)?;
                notes::remove(&file).map_err(io_error)?;
                notes::remove(&note).map_err(io_error)?;
                for folder in file.ancestors().skip(1).take_while(|folder| *folder != dir) {
                    if fs::remove_dir(folder).is_err() {
                        break; // others lie in it
                    }
                }
                Ok(())
            })
            .await
    }
}

/// A path in a folder, with no link on the way. Blocks.
fn inside(dir: &Path, path: &str) -> Result<PathBuf, ApiError> {
    let mut at = dir.to_owned();
    for part in image_path(path)?.split('/') {
        at.push(part);
        if notes::look(&at).map_err(io_error)?.is_some_and(|meta| meta.is_symlink()) {
            return Err(ApiError::failed(format!("{} is a symbolic link", at.display())));
        }
    }
    Ok(at)
}

/// An image to read from: in its store, or a copy of it on this host that goes with this.
#[derive(Debug)]
pub(super) struct Source {
    file: PathBuf,
    copy: Option<Scratch>,
}

impl Source {
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Removes the copy.
    pub async fn done(self) {
        if let Some(copy) = self.copy {
            let _ = tokio::task::spawn_blocking(move || drop(copy)).await; // swept at the next start, at the latest
        }
    }
}

/// A folder that goes when this is dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a copy's folder begins with.
const COPY: &str = "copy-";

/// All stores that this host was told of.
#[derive(Debug)]
pub(super) struct Stores {
    mounts: Arc<Mounts>,
    /// Of this agent alone.
    work: PathBuf,
    open: Mutex<HashMap<String, Store>>,
}

impl Stores {
    /// Removes what killed runs left in the folder for work. Blocks.
    pub fn open(work: PathBuf, mounts: Arc<Mounts>) -> Result<Stores, ApiError> {
        fs::create_dir_all(&work).map_err(io_error)?;
        for entry in fs::read_dir(&work).map_err(io_error)? {
            let entry = entry.map_err(io_error)?;
            if entry.file_name().to_string_lossy().starts_with(COPY) {
                fs::remove_dir_all(entry.path()).map_err(io_error)?;
            }
        }
        sweep(&work, &work)?;
        Ok(Stores { mounts, work, open: Mutex::default() })
    }

    /// A store by what an order says of it.
    ///
    /// # Errors
    /// 431: not a store; 530, 534: it can't be reached.
    pub async fn get(&self, store: &ImageStore) -> Result<Store, ApiError> {
        if store.url.starts_with("s3:") {
            return self.bucket(store);
        }
        let (dir, is_export) = match store.url.split_once(':') {
            Some(("file", _)) => (local(&store.url)?, false),
            _ => {
                let options = store.details.get("nfsmountopts").map_or("", String::as_str);
                (self.mounts.ensure(&Export::parse(&store.url)?, options).await?, true)
            }
        };
        let known = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&store.url).cloned();
        let gate = known.as_ref().map_or_else(|| Gate::new(format!("store {}", store.url)), |s| s.gate().clone());
        let (at, is_new) = (dir.clone(), known.is_none());
        let dir = gate.run(SHORT, move || prepare(&at, is_export, is_new)).await?;
        let folder = match known {
            Some(Store::Folder(folder)) if folder.dir == dir => folder,
            _ => Arc::new(Folder { dir, gate }),
        };
        let opened = Store::Folder(folder);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(store.url.clone(), opened.clone());
        Ok(opened)
    }

    fn bucket(&self, store: &ImageStore) -> Result<Store, ApiError> {
        let mut details: Vec<_> = store.details.iter().collect();
        details.sort();
        // Another key of the same bucket is another client.
        let key = format!("{} {}", store.url, notes::digest(&format!("{details:?}")));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get(&key) {
            return Ok(known.clone());
        }
        let opened = Store::Bucket(Arc::new(Bucket::open(store, &self.work)?));
        open.insert(key, opened.clone());
        Ok(opened)
    }

    /// A folder that isn't there yet, for work on this host that a kill may cut off: it is gone at the next start.
    pub fn scratch(&self) -> PathBuf {
        self.work.join(format!("{COPY}{}", uuid::Uuid::new_v4().simple()))
    }

    /// An image to copy from.
    pub async fn source(&self, store: &ImageStore, path: &str) -> Result<Source, ApiError> {
        let missing = || ApiError::failed(format!("The store {} has no image {path}", store.url));
        match self.get(store).await? {
            Store::Folder(folder) => {
                let (dir, at) = (folder.dir.clone(), path.to_owned());
                let found = folder.gate.run(SHORT, move || {
                    let file = inside(&dir, &at)?;
                    Ok(is_image(&file)?.then_some(file))
                });
                Ok(Source { file: found.await?.ok_or_else(missing)?, copy: None })
            }
            Store::Bucket(bucket) => {
                let note = bucket.find(image_path(path)?).await?.ok_or_else(missing)?;
                let scratch = Scratch(self.work.join(format!("{COPY}{}", uuid::Uuid::new_v4().simple())));
                let dir = scratch.0.clone();
                bucket.gate.run(SHORT, move || fs::create_dir(&dir).map_err(io_error)).await?;
                let file = scratch.0.join("image");
                bucket.copy_out(&note, &file).await?;
                Ok(Source { file, copy: Some(scratch) })
            }
        }
    }
}

/// The folder of `file:///folder`.
fn local(url: &str) -> Result<PathBuf, ApiError> {
    let bad = || ApiError::param(format!("{url:?} is no store in a folder: file:///folder is one"));
    let path = url.strip_prefix("file://").filter(|path| path.starts_with('/')).map(PathBuf::from).ok_or_else(bad)?;
    let plain = path.parent().is_some() && path.components().all(|part| !matches!(part, Component::ParentDir));
    if plain { Ok(path) } else { Err(bad()) }
}

/// Makes a folder ready to be a store. Blocks.
fn prepare(dir: &Path, is_export: bool, is_new: bool) -> Result<PathBuf, ApiError> {
    if is_export && !is_mount_point(dir)? {
        return Err(ApiError::unavailable(format!("{} isn't mounted", dir.display())));
    }
    let missing = |_| ApiError::failed(format!("The host has no folder {} for a store", dir.display()));
    let dir = fs::canonicalize(dir).map_err(missing)?;
    let own = dir.join(OWN);
    if is_new || !own.join(LOCKS).is_dir() {
        for folder in [NOTES, WORK, LOCKS] {
            fs::create_dir_all(own.join(folder)).map_err(io_error)?;
        }
        // Its errors are for another time: the store can be used.
        if let Err(error) = sweep(&own.join(WORK), &own.join(LOCKS)) {
            tracing::warn!(folder = %dir.display(), %error, "a store can't be swept");
        }
    }
    Ok(dir)
}

/// Removes work that nobody has gone on with for long. Blocks.
fn sweep(work: &Path, locks: &Path) -> Result<(), ApiError> {
    for entry in fs::read_dir(work).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let (path, name) = (entry.path(), entry.file_name());
        if !path.is_dir() || !is_forgotten(&path).map_err(io_error)? {
            continue;
        }
        let lock = locks.join(lock_name(&name.to_string_lossy()));
        let Some(_held) = try_hold(&lock, How::Alone).map_err(io_error)? else { continue };
        tracing::info!(folder = %path.display(), "removed work on an image that nobody went on with");
        fs::remove_dir_all(&path).map_err(io_error)?;
        notes::remove(&lock).map_err(io_error)?;
    }
    Ok(())
}

/// The lock's name of a folder of work.
pub(super) fn lock_name(work: &str) -> String {
    work.replace("work-", "lock-")
}

/// Whether nothing in it was changed for long. Blocks.
fn is_forgotten(dir: &Path) -> std::io::Result<bool> {
    let mut newest = fs::metadata(dir)?.modified()?;
    for entry in fs::read_dir(dir)? {
        newest = newest.max(entry?.metadata()?.modified()?);
    }
    Ok(SystemTime::now().duration_since(newest).is_ok_and(|age| age > FORGOTTEN))
}

/// The SHA-256 of a file, as checksums are written. Blocks for long: as fast as the file can be read.
pub(super) fn checksum(file: &Path) -> std::io::Result<String> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut file = fs::File::open(file)?;
    let mut piece = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut piece)? {
            0 => break,
            read => context.update(&piece[..read]),
        }
    }
    let hex: String = context.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("{{SHA-256}}{hex}"))
}

/// Everything that is known of a finished image. Reads all of it.
pub(super) async fn note_of(path: &str, file: &Path, format: Format, qemu: &QemuImg) -> Result<ImageNote, ApiError> {
    let seen = qemu.inspect(file, format, Origin::Foreign).await.map_err(image_error)?;
    let at = file.to_owned();
    let summed = tokio::task::spawn_blocking(move || checksum(&at).map_err(io_error)).await;
    let checksum = summed.unwrap_or_else(|e| Err(ApiError::internal(e.to_string())))?;
    Ok(ImageNote {
        path: path.to_owned(),
        format: format.name().to_owned(),
        physical: seen.file_bytes,
        r#virtual: seen.virtual_bytes,
        checksum,
    })
}
