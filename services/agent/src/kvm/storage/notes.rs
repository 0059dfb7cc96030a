//! Small files that appear whole or not at all, and names that lead nowhere else.

use contract::ApiError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::time::Duration;

/// With what is put around it a name stays within the 255 bytes that file systems allow.
const MOST_NAME: usize = 150;
/// How old a file aside is that nobody writes any more.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// Writes a note: after a crash there is the old one or this one. Blocks.
pub(super) fn save(path: &Path, note: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec(note).map_err(io::Error::other)?)
}

/// The same for bytes. Blocks.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_file_name(format!(".{}.new", uuid::Uuid::new_v4().simple()));
    let written = File::create_new(&aside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside); // the error that matters is the other one
    }
    written?;
    sync_folder_of(path)
}

/// Writes a file unless there is one: of many that try, one does. Blocks.
pub(super) fn write_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_file_name(format!(".{}.new", uuid::Uuid::new_v4().simple()));
    let written = File::create_new(&aside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::hard_link(&aside, path));
    fs::remove_file(&aside)?;
    match written {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        _ => sync_folder_of(path),
    }
}

/// Removes a file that a killed writer left aside, an hour later: no writer takes so long. Blocks.
pub(super) fn tidy(path: &Path) {
    let aside = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with('.') && n.ends_with(".new"));
    let age = || fs::symlink_metadata(path).ok()?.modified().ok()?.elapsed().ok();
    if aside && age().is_some_and(|age| age > FORGOTTEN) {
        let _ = fs::remove_file(path); // the next one tries again
    }
}

/// Reads a note; none when there is none. Blocks.
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let damaged = |e| io::Error::new(ErrorKind::InvalidData, format!("{} is damaged: {e}", path.display()));
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// The bytes of a file; none when there is none. Blocks.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Removes a file, if it is there, for good. Blocks.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder_of(path),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Makes new, renamed and removed files in a file's folder last. Blocks.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// A name for what a text stands for.
pub(super) fn digest(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref()[..16].iter().map(|b| format!("{b:02x}")).collect()
}

/// A name that needs no care anywhere: no path, no protocol of QEMU's, no option, not hidden.
pub(super) fn plain(name: &str) -> Result<&str, ApiError> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let good = name.len() <= MOST_NAME
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(fine);
    if good { Ok(name) } else { Err(ApiError::param(format!("{name:?} can't be the name of a file here"))) }
}

/// What is at a path, links not followed; none when nothing is. Blocks.
pub(super) fn look(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
