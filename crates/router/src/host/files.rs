//! Files that are written whole or not at all.

use super::HostError;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

fn failed(path: &Path, error: std::io::Error) -> HostError {
    HostError::failed(path.display(), error)
}

/// Makes a folder, and those above it, for everybody to pass and for the owner to write.
pub(crate) fn folder(path: &Path) -> Result<(), HostError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|e| failed(path, e))
}

/// Replaces a file; after a crash it is the old or the new one. `mode` as in chmod.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), HostError> {
    let new = path.with_extension("new");
    // A leftover has the mode of whoever left it.
    let _ = std::fs::remove_file(&new);
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
    };
    write().map_err(|e| failed(path, e))
}

/// Replaces a file unless it has this content already. Whether it did.
pub(crate) fn replace_if_other(path: &Path, content: &[u8], mode: u32) -> Result<bool, HostError> {
    if std::fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    replace(path, content, mode).map(|()| true)
}

/// A file's content; `None` when there is no file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, HostError> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

/// Removes a file, which may be gone already.
pub(crate) fn remove(path: &Path) -> Result<(), HostError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(path, error)),
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it; it may be gone already.
pub(crate) fn remove_folder(path: &Path) -> Result<(), HostError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(path, error)),
        _ => Ok(()),
    }
}
