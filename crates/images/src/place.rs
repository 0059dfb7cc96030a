//! Files that appear whole or not at all, and what killed runs leave.
//!
//! A file in the making is `.arcus-<uuid>.<name>.part`, and beside it `.arcus-<uuid>.<name>.lock` is locked (flock) by the
//! process that makes it, and by the tool it started, which has it as its standard input. When both are gone, so is the lock,
//! on shared file systems too. A tool that outlives its agent goes on until its CPU time is used up; its file is never placed,
//! and swept when it ends. The lock is on a file of its own since QEMU locks images itself, and NFS mixes the kinds.

use crate::errors::Error;
use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const PREFIX: &str = ".arcus-";
const PART: &str = ".part";
const LOCK: &str = ".lock";
/// With what is put around it a name stays within the 255 bytes that file systems allow.
const MOST_NAME: usize = 180;

/// A name that needs no care anywhere: no path, no protocol of QEMU's, no option, not hidden.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let good = name.len() <= MOST_NAME
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(plain);
    if good { Ok(()) } else { Err(Error::Name(name.to_owned())) }
}

/// The checked name of a target, and its folder.
pub(crate) fn split(target: &Path) -> Result<(&Path, &str), Error> {
    let name = target.file_name().and_then(OsStr::to_str).unwrap_or_default();
    check_name(name)?;
    let folder = target.parent().filter(|folder| folder.is_absolute());
    Ok((folder.ok_or_else(|| Error::Name(target.display().to_string()))?, name))
}

/// A file in the making. Dropped before it is placed, it is gone.
#[derive(Debug)]
pub(crate) struct Temporary {
    folder: PathBuf,
    target: PathBuf,
    part: PathBuf,
    lock_path: PathBuf,
    lock: File,
}

impl Temporary {
    /// Starts a file that will be `target`, whose leftovers of killed runs are removed. Blocks.
    pub(crate) fn new(target: &Path) -> Result<Temporary, Error> {
        let (folder, name) = split(target)?;
        sweep_for(folder, Some(name))?;
        loop {
            let base = format!("{PREFIX}{}.{name}", uuid::Uuid::new_v4().simple());
            let lock_path = folder.join(format!("{base}{LOCK}"));
            let lock = File::create_new(&lock_path).map_err(Error::io(&lock_path))?;
            // A sweep may come between the two: then the file is its, and gone in a moment.
            match lock.try_lock() {
                Ok(()) if is_at(&lock, &lock_path) => {}
                Ok(()) | Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(Error::io(&lock_path)(error)),
            }
            let part = folder.join(format!("{base}{PART}"));
            let made = Temporary { folder: folder.to_owned(), target: target.to_owned(), part, lock_path, lock };
            File::create_new(&made.part).map_err(Error::io(&made.part))?;
            return Ok(made);
        }
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        &self.part
    }

    /// The lock, for a tool to hold as well.
    pub(crate) fn lock(&self) -> &File {
        &self.lock
    }

    /// Puts the file in place; after a crash there is the old one or this one. Blocks.
    pub(crate) fn place(self) -> Result<(), Error> {
        File::open(&self.part).and_then(|file| file.sync_all()).map_err(Error::io(&self.part))?;
        std::fs::rename(&self.part, &self.target).map_err(Error::io(&self.target))?;
        sync_folder(&self.folder)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The lock last: a part without one is rubbish to every sweep.
        let _ = std::fs::remove_file(&self.part);
        let _ = std::fs::remove_file(&self.lock_path);
    }
}

/// Makes a rename or a new file in it last.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))
}

fn is_at(file: &File, path: &Path) -> bool {
    let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    matches!((file.metadata().map(id), std::fs::symlink_metadata(path).map(id)), (Ok(a), Ok(b)) if a == b)
}

/// Removes what killed runs left in a folder, and tells which images were in the making. Work in progress, also of other
/// processes and of other hosts on a shared folder, stays. Blocks.
///
/// # Errors
/// The folder can't be read, or a file not removed.
pub fn sweep(folder: &Path) -> Result<Vec<String>, Error> {
    sweep_for(folder, None)
}

/// The image's name in the name of a temporary file.
fn image_of(file: &str) -> Option<&str> {
    let rest = file.strip_prefix(PREFIX)?;
    let rest = rest.strip_suffix(PART).or_else(|| rest.strip_suffix(LOCK))?;
    rest.split_once('.').map(|(_, name)| name)
}

fn sweep_for(folder: &Path, only: Option<&str>) -> Result<Vec<String>, Error> {
    let mut swept = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let file = entry.file_name();
        let Some(file) = file.to_str() else { continue };
        let Some(name) = image_of(file).filter(|name| only.is_none_or(|only| only == *name)) else { continue };
        let base = file.strip_suffix(PART).or_else(|| file.strip_suffix(LOCK)).unwrap_or(file);
        if remove_if_left(&folder.join(format!("{base}{PART}")), &folder.join(format!("{base}{LOCK}")))? {
            tracing::info!(image = name, folder = %folder.display(), "removed what a killed run had left");
            swept.push(name.to_owned());
        }
    }
    Ok(swept)
}

fn remove_if_left(part: &Path, lock_path: &Path) -> Result<bool, Error> {
    // NFS locks exclusively only what is open for writing.
    let lock = match File::options().read(true).write(true).open(lock_path) {
        Ok(lock) => Some(lock),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io(lock_path)(error)),
    };
    if let Some(lock) = &lock {
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(Error::io(lock_path)(error)),
        }
        // Its maker may have finished since: then another with this name can't exist, and nothing is left to remove.
    }
    let mut removed = false;
    for path in [part, lock_path] {
        match std::fs::remove_file(path) {
            Ok(()) => removed = true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(path)(error)),
        }
    }
    Ok(removed)
}
