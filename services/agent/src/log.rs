//! An append-only file of records. What waits is written together, with one flush to the disk.
//!
//! A record is its length (4 bytes), the start of its SHA-256 (8 bytes) and its bytes. A torn record at the end is what a
//! killed process leaves: nothing of it was answered, and it is cut off.

use contract::ApiError;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use tokio::sync::oneshot;

const MAGIC: &[u8] = b"arcus-log-1\n";
const HEAD: usize = 12;
/// Most bytes that are written before a flush.
const BATCH: usize = 4 * 1024 * 1024;

/// The file and the thread that writes it.
pub(crate) struct Log {
    send: Option<mpsc::Sender<Item>>,
    writer: Option<std::thread::JoinHandle<()>>,
    shared: Arc<Shared>,
    lock: File,
}

#[derive(Default)]
struct Shared {
    size: AtomicU64,
    failed: AtomicBool,
}

enum Item {
    Append(Vec<u8>, oneshot::Sender<()>),
    Rewrite(Vec<u8>),
}

/// A record on its way to the disk.
pub(crate) struct Ticket(oneshot::Receiver<()>);

impl Ticket {
    /// Waits until the record is safe.
    pub async fn flushed(self) -> Result<(), ApiError> {
        self.0.await.map_err(|_| failed())
    }
}

fn failed() -> ApiError {
    ApiError::unavailable("the agent's state file can't be written: the effect is unknown")
}

impl Log {
    /// Opens or makes `name` in `dir`, and gives its records.
    pub fn open(dir: &Path, name: &str, durable: bool) -> io::Result<(Log, Vec<Vec<u8>>)> {
        std::fs::create_dir_all(dir)?;
        let lock = private(&dir.join(format!("{name}.lock")), false)?;
        lock.try_lock()
            .map_err(|_| io::Error::new(io::ErrorKind::AddrInUse, format!("another agent uses {}", dir.display())))?;
        let path = dir.join(name);
        let (records, sound) = read(&path)?;
        let mut file = private(&path, true)?;
        if sound == 0 {
            file.set_len(0)?;
            file.write_all(MAGIC)?;
        } else {
            file.set_len(sound)?;
        }
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        let shared = Arc::new(Shared::default());
        shared.size.store(file.metadata()?.len(), Ordering::Relaxed);
        let (send, items) = mpsc::channel();
        let writer = Writer { file, path, durable, shared: shared.clone() };
        let writer = std::thread::Builder::new().name("agent-log".into()).spawn(move || writer.run(&items))?;
        Ok((Log { send: Some(send), writer: Some(writer), shared, lock }, records))
    }

    /// Puts a record behind all earlier ones.
    pub fn append(&self, record: &[u8]) -> Ticket {
        let (send, flushed) = oneshot::channel();
        let mut frame = Vec::with_capacity(HEAD + record.len());
        put(&mut frame, record);
        self.send(Item::Append(frame, send));
        Ticket(flushed)
    }

    /// Replaces all earlier records by these.
    pub fn rewrite<'r>(&self, records: impl IntoIterator<Item = &'r [u8]>) {
        let mut content = MAGIC.to_vec();
        for record in records {
            put(&mut content, record);
        }
        self.send(Item::Rewrite(content));
    }

    fn send(&self, item: Item) {
        // An error means that the writer has failed; the ticket tells.
        if let Some(send) = &self.send {
            let _ = send.send(item);
        }
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.shared.size.load(Ordering::Relaxed)
    }

    /// Whether nothing can be written any more.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.send = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // a panicked writer has nothing left to write
        }
        // Closing isn't enough: a process that was just forked holds the file, too, until it is another program.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the state file's lock goes only with this process");
        }
    }
}

fn private(path: &Path, append: bool) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).write(true).append(append).mode(0o600).open(path)
}

fn put(out: &mut Vec<u8>, record: &[u8]) {
    // Records are far below 4 GiB; one that isn't would be cut off at the next start, so it must not look sound.
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&checksum(record));
    out.extend_from_slice(record);
}

fn checksum(record: &[u8]) -> [u8; 8] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, record);
    let mut sum = [0; 8];
    sum.copy_from_slice(&digest.as_ref()[..8]);
    sum
}

/// The sound records of a file, and how many bytes of it are sound.
fn read(path: &Path) -> io::Result<(Vec<Vec<u8>>, u64)> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(e) => return Err(e),
    };
    let mut records = Vec::new();
    if !bytes.starts_with(MAGIC) {
        if MAGIC.starts_with(&bytes) {
            return Ok((records, 0)); // killed while making it
        }
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is no state file", path.display())));
    }
    let mut at = MAGIC.len();
    while let Some((record, next)) = record_at(&bytes, at) {
        records.push(record.to_vec());
        at = next;
    }
    if at < bytes.len() {
        // Most likely a torn end. Kept aside, because a damaged disk would look the same.
        tracing::warn!(path = %path.display(), bytes = bytes.len() - at, "the state file's end is torn and cut off");
        std::fs::write(path.with_extension("torn"), &bytes[at..])?;
    }
    Ok((records, at as u64))
}

fn record_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let head = bytes.get(at..at + HEAD)?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let end = at + HEAD + length;
    let record = bytes.get(at + HEAD..end)?;
    (checksum(record)[..] == head[4..]).then_some((record, end))
}

struct Writer {
    file: File,
    path: PathBuf,
    durable: bool,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self, items: &mpsc::Receiver<Item>) {
        let mut held = None;
        loop {
            let first = match held.take() {
                Some(item) => item,
                None => match items.recv() {
                    Ok(item) => item,
                    Err(_) => return,
                },
            };
            let done = match first {
                Item::Rewrite(content) => self.rewrite(&content),
                Item::Append(frame, flushed) => {
                    let mut batch = frame;
                    let mut waiting = vec![flushed];
                    while batch.len() < BATCH {
                        match items.try_recv() {
                            Ok(Item::Append(frame, flushed)) => {
                                batch.extend_from_slice(&frame);
                                waiting.push(flushed);
                            }
                            Ok(other) => {
                                held = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.write(&batch).map(|()| {
                        for flushed in waiting {
                            let _ = flushed.send(()); // nobody may wait
                        }
                    })
                }
            };
            if let Err(error) = done {
                // What is in the file now is unknown: nothing more may be answered.
                tracing::error!(path = %self.path.display(), %error, "the state file can't be written");
                self.shared.failed.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        self.file.write_all(batch)?;
        if self.durable {
            self.file.sync_data()?;
        }
        self.shared.size.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn rewrite(&mut self, content: &[u8]) -> io::Result<()> {
        let aside = self.path.with_extension("new");
        let _ = std::fs::remove_file(&aside); // what a killed run left
        let mut file = private(&aside, true)?;
        file.write_all(content)?;
        if self.durable {
            file.sync_all()?;
        }
        std::fs::rename(&aside, &self.path)?;
        if self.durable
            && let Some(dir) = self.path.parent()
        {
            File::open(dir)?.sync_all()?;
        }
        self.file = file;
        self.shared.size.store(content.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    fn open(dir: &Path) -> (Log, Vec<Vec<u8>>) {
        Log::open(dir, "state", false).unwrap()
    }

    #[tokio::test]
    async fn records_survive_and_torn_ends_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (log, records) = open(dir.path());
        assert!(records.is_empty());
        for record in [b"one".as_slice(), b"", b"three"] {
            log.append(record).flushed().await.unwrap();
        }
        drop(log);
        let path = dir.path().join("state");
        let whole = std::fs::read(&path).unwrap();
        // Cut anywhere within the last record: the first two remain.
        for cut in 1..HEAD + 5 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (log, records) = open(dir.path());
            assert_eq!(records, [b"one".to_vec(), b"".to_vec()], "{cut} bytes less");
            log.append(b"again").flushed().await.unwrap();
            drop(log);
            assert_eq!(open(dir.path()).1.last().unwrap(), b"again");
        }
    }

    #[tokio::test]
    async fn rewriting_keeps_order() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = open(dir.path());
        log.append(b"old").flushed().await.unwrap();
        log.rewrite([b"snapshot".as_slice()]);
        log.append(b"new").flushed().await.unwrap();
        let size = log.size();
        drop(log);
        assert_eq!(size, std::fs::metadata(dir.path().join("state")).unwrap().len());
        assert_eq!(open(dir.path()).1, [b"snapshot".to_vec(), b"new".to_vec()]);
    }

    #[test]
    fn a_folder_has_one_agent() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        assert!(Log::open(dir.path(), "state", false).is_err());
        // What a process holds that was forked meanwhile.
        let inherited = first.0.lock.try_clone().unwrap();
        drop(first);
        open(dir.path());
        drop(inherited);
    }

    #[test]
    fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state"), "something else entirely").unwrap();
        assert!(Log::open(dir.path(), "state", false).is_err());
    }
}
