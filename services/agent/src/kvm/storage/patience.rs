//! Work on storage that may stop answering: a hung NFS server holds threads for ever, and an order must not wait with them.

use super::errors::io_error;
use contract::ApiError;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Threads that one piece of storage may hold.
const PLACES: usize = 8;
/// How long small work may take.
pub(super) const SHORT: Duration = Duration::from_secs(30);
/// How long work may take that looks at many files.
pub(super) const LONG: Duration = Duration::from_secs(300);

/// The way to one piece of storage.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    name: Arc<str>,
    places: Arc<Semaphore>,
}

impl Gate {
    /// `name` is for errors: "pool …".
    pub fn new(name: impl Into<Arc<str>>) -> Gate {
        Gate { name: name.into(), places: Arc::new(Semaphore::new(PLACES)) }
    }

    /// Runs blocking work; it goes on by itself when this gives up waiting, so a repeat has to be harmless.
    ///
    /// # Errors
    /// The work's; 534 when the storage doesn't answer in time.
    pub async fn run<T: Send + 'static>(
        &self,
        longest: Duration,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let silent = |_| ApiError::unavailable(format!("{} doesn't answer", self.name));
        let place = timeout(longest, self.places.clone().acquire_owned()).await.map_err(silent)?;
        let running = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        let done = timeout(longest, running).await.map_err(silent)?;
        done.unwrap_or_else(|e| Err(ApiError::internal(format!("work on {} ended: {e}", self.name))))
    }
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// By nobody else.
    Alone,
    /// By others too who hold it so.
    Together,
}

/// A lock on a file (flock): it dies with its holder, on shared file systems too, and holds off other hosts.
#[derive(Debug)]
pub(super) struct Held {
    _file: File,
}

/// Takes a lock if nobody holds it otherwise. Blocks, but not for others to let go.
pub(super) fn try_hold(path: &Path, how: How) -> io::Result<Option<Held>> {
    loop {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let locked = match how {
            How::Alone => file.try_lock(),
            How::Together => file.try_lock_shared(),
        };
        match locked {
            Ok(()) if is_at(&file, path) => return Ok(Some(Held { _file: file })),
            // It was removed between the two: whoever comes next makes another file.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    matches!((file.metadata().map(id), std::fs::symlink_metadata(path).map(id)), (Ok(a), Ok(b)) if a == b)
}

/// Takes a lock, as soon as nobody holds it otherwise. Dropping the future ends the waiting.
pub(super) async fn hold(gate: &Gate, path: PathBuf, how: How) -> Result<Held, ApiError> {
    let mut pause = Duration::from_millis(10);
    loop {
        let at = path.clone();
        if let Some(held) = gate.run(SHORT, move || try_hold(&at, how).map_err(io_error)).await? {
            return Ok(held);
        }
        // Others tell nobody that they let go.
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
