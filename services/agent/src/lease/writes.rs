//! What simulated guests write to their disks, in order: the proof that a VM never had two writers.
//!
//! `writes/VM` on the pool has a line a write: `EPOCH HOST NUMBER`. Whoever writes while a higher epoch has written before
//! is a second writer. As RBD's blocklist or a SCSI-3 reservation does, the pool refuses writes of an epoch that isn't the
//! highest; a pool can be told not to (a file `unfenced` in its folder), then nothing but the protocol's times protects it.

use super::area::{Area, file_name};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;

const WRITES: &str = "writes";
const UNFENCED: &str = "unfenced";

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is on the disk.
    Yes,
    /// Somebody else is at it this very moment: try again.
    Busy,
    /// Another epoch counts.
    Refused,
}

impl Area {
    /// A guest writes to its disk.
    pub fn write(&self, vm: &str, epoch: i64, host: &str, number: u64) -> io::Result<Written> {
        let folder = self.dir().join(WRITES);
        fs::create_dir_all(&folder)?;
        let mut file = OpenOptions::new().create(true).append(true).open(folder.join(file_name(vm)?))?;
        // The lock makes check and write one thing, as they are in a storage server. Never waited for: its holder may be
        // a stopped process.
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(Written::Busy),
            Err(fs::TryLockError::Error(e)) => return Err(e),
        }
        let fenced = !self.dir().join(UNFENCED).exists();
        if fenced && self.glance(vm)?.epoch != epoch {
            return Ok(Written::Refused);
        }
        file.write_all(format!("{epoch} {host} {number}\n").as_bytes())?;
        Ok(Written::Yes)
    }
}

/// A write after a higher epoch had written: two writers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The pool's UUID.
    pub pool: String,
    /// The VM's UUID.
    pub vm: String,
    /// The line number of the late write.
    pub line: usize,
    /// What was written there, `EPOCH HOST NUMBER`, after what.
    pub what: String,
}

/// Looks for second writers in all that simulated guests wrote below a pool folder; gives the number of writes and what
/// was found.
///
/// # Errors
/// When the folder can't be read.
pub fn overlaps(pool_dir: &Path) -> io::Result<(usize, Vec<Overlap>)> {
    let mut found = Vec::new();
    let mut writes = 0;
    for pool in entries(pool_dir)? {
        for vm in entries(&pool_dir.join(&pool).join(WRITES))? {
            let mut text = String::new();
            File::open(pool_dir.join(&pool).join(WRITES).join(&vm))?.read_to_string(&mut text)?;
            let mut last = (0, "");
            for (n, line) in text.lines().enumerate() {
                writes += 1;
                let mut words = line.split(' ');
                let epoch = words.next().and_then(|word| word.parse::<i64>().ok());
                let host = words.next().unwrap_or_default();
                let late = epoch.is_none_or(|epoch| epoch < last.0 || (epoch == last.0 && host != last.1));
                if late {
                    let what = format!("{line:?} after epoch {} of {}", last.0, last.1);
                    found.push(Overlap { pool: pool.clone(), vm: vm.clone(), line: n + 1, what });
                } else if let Some(epoch) = epoch {
                    last = (epoch, host);
                }
            }
        }
    }
    Ok((writes, found))
}

fn entries(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::super::area::Areas;
    use super::*;
    use std::time::Duration;

    #[test]
    fn second_writers_are_refused_and_found() {
        let dir = testkit::temp_dir();
        let pool = Areas::new(dir.path().to_owned(), Duration::from_secs(1)).of("p", None).unwrap();
        for (epoch, host) in [(1, "a"), (2, "b")] {
            assert!(pool.claim("vm", epoch, host).unwrap());
            assert_eq!(pool.write("vm", epoch, host, 1).unwrap(), Written::Yes);
        }
        assert_eq!(pool.write("vm", 1, "a", 2).unwrap(), Written::Refused);
        assert_eq!(overlaps(dir.path()).unwrap(), (2, vec![]));
        // Without the pool's own fence nothing stops it, and it is found.
        fs::write(dir.path().join("p").join(UNFENCED), b"").unwrap();
        assert_eq!(pool.write("vm", 1, "a", 2).unwrap(), Written::Yes);
        let (writes, found) = overlaps(dir.path()).unwrap();
        assert_eq!((writes, found.len(), found[0].line), (3, 1, 3));
    }
}
