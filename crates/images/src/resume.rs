//! Downloads that can be gone on with after the process was killed.
//!
//! Beside the file, `NAME.known` says what was asked for, the file's tag, and how many bytes are certainly there. Bytes behind
//! those may be anything after a power cut, and are cut off.

use crate::checksum::Hasher;
use crate::download::{Downloaded, Downloader, Progress, Request, Work, join};
use crate::errors::{DownloadError, Error};
use crate::place::sync_folder;
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use tokio::io::AsyncSeekExt as _;
use tokio::sync::watch;

/// So many bytes may have to come again.
const STEP: u64 = 16 << 20;

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Of the URL and the checksum; the URL itself may hold a password.
    asked: String,
    etag: Option<String>,
    total: Option<u64>,
    bytes: u64,
    /// All is there, and the checksum was right.
    done: bool,
}

/// Where that is written.
pub(crate) struct Note {
    path: PathBuf,
    asked: String,
    written: u64,
}

fn asked(request: &Request) -> String {
    let checksum = request.checksum.as_ref().map(ToString::to_string).unwrap_or_default();
    let text = format!("{}\0{checksum}", request.url);
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    target.with_file_name(name)
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

impl Note {
    /// Whether it is time to write it again.
    pub fn is_due(&self, bytes: u64) -> bool {
        bytes >= self.written.saturating_add(STEP)
    }

    pub async fn write(&mut self, bytes: u64, etag: Option<&str>, total: Option<u64>, done: bool) -> Result<(), Error> {
        let known = Known { asked: self.asked.clone(), etag: etag.map(str::to_owned), total, bytes, done };
        let path = self.path.clone();
        let at = path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let aside = beside(&path, ".new");
            let text = serde_json::to_vec(&known).map_err(std::io::Error::other).map_err(Error::io(&path))?;
            File::create(&aside)
                .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
                .map_err(Error::io(&aside))?;
            std::fs::rename(&aside, &path).map_err(Error::io(&path))?;
            path.parent().map_or(Ok(()), sync_folder)
        });
        join(&at, written.await)?;
        self.written = bytes;
        Ok(())
    }

    pub async fn remove(&mut self) -> Result<(), Error> {
        let path = self.path.clone();
        let at = path.clone();
        self.written = 0;
        join(&at, tokio::task::spawn_blocking(move || remove(&path)).await)
    }
}

/// What was found: a file with so many good bytes, and the hash so far.
struct Found {
    file: File,
    known: Option<Known>,
    hasher: Option<Hasher>,
}

/// Opens or makes the file, and cuts off what isn't certain. Blocks.
fn find(target: &Path, note: &Path, request: &Request, asked: &str) -> Result<Found, Error> {
    let known = match std::fs::read(note) {
        Ok(text) => serde_json::from_slice::<Known>(&text).ok(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io(note)(error)),
    };
    let failed = || Error::io(target);
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(target).map_err(failed())?;
    let length = file.metadata().map_err(failed())?.len();
    let good = |known: &Known| known.asked == asked && known.bytes <= length && (known.done || known.etag.is_some());
    let known = known.filter(good);
    let bytes = known.as_ref().map_or(0, |known| known.bytes);
    file.set_len(bytes).map_err(failed())?;
    let mut hasher = request.checksum.as_ref().map(|sum| Hasher::new(sum.algorithm()));
    if let Some(hasher) = hasher.as_mut().filter(|_| known.as_ref().is_some_and(|known| !known.done)) {
        let mut piece = vec![0; 1 << 20];
        loop {
            match file.read(&mut piece).map_err(failed())? {
                0 => break,
                read => hasher.update(&piece[..read]),
            }
        }
    }
    Ok(Found { file, known, hasher })
}

impl Downloader {
    /// Downloads to `target`, or goes on with what an earlier run of the same request left there: the process may have been
    /// killed, or the future dropped. Until this is done the target is a part of a file; `NAME.known` beside it says how far it
    /// is. A repeat after that gives the same. The caller sees to it that nobody else works on the target.
    ///
    /// # Errors
    /// See [`DownloadError`]. After [`DownloadError::Broken`] and [`DownloadError::File`] what is there stays for a repeat;
    /// else nothing does.
    pub async fn resume(
        &self,
        request: &Request,
        target: &Path,
        progress: &watch::Sender<Progress>,
    ) -> Result<Downloaded, DownloadError> {
        let (at, note_path, asked, request_) =
            (target.to_owned(), beside(target, ".known"), asked(request), request.clone());
        let (path, text) = (note_path.clone(), asked.clone());
        let found = tokio::task::spawn_blocking(move || find(&at, &path, &request_, &text)).await;
        let Found { file, known, hasher } = join(target, found)?;
        if let Some(known) = known.as_ref().filter(|known| known.done) {
            progress.send_replace(Progress { bytes: known.bytes, total: Some(known.bytes) });
            return Ok(Downloaded { bytes: known.bytes, resumed: 0 });
        }
        let (bytes, etag, total) = known.map_or((0, None, None), |known| (known.bytes, known.etag, known.total));
        let mut file = tokio::fs::File::from_std(file);
        file.seek(std::io::SeekFrom::Start(bytes)).await.map_err(Error::io(target))?;
        progress.send_replace(Progress { bytes, total });
        let note = || Note { path: note_path.clone(), asked: asked.clone(), written: bytes };
        let work =
            Work { request, path: target, file, hasher, bytes, etag, total, resumed: 0, progress, note: Some(note()) };
        match self.finish(work).await {
            Ok(done) => {
                let at = target.to_owned();
                let synced = tokio::task::spawn_blocking(move || {
                    File::open(&at).and_then(|file| file.sync_all()).map_err(Error::io(&at))
                });
                join(target, synced.await)?;
                note().write(done.bytes, None, Some(done.bytes), true).await?;
                Ok(done)
            }
            Err(error @ (DownloadError::Broken { .. } | DownloadError::File(_))) => Err(error),
            Err(error) => {
                note().remove().await?;
                let at = target.to_owned();
                join(target, tokio::task::spawn_blocking(move || remove(&at)).await)?;
                Err(error)
            }
        }
    }
}
