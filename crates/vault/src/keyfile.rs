//! The file that holds master keys: one a line, `ID BASE64`; the last one seals.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::ApiError;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use zeroize::{Zeroize as _, Zeroizing};

const KEY: usize = 32;

/// One key, wiped from memory when dropped.
pub(crate) struct MasterKey {
    id: String,
    bytes: Zeroizing<[u8; KEY]>,
}

impl MasterKey {
    /// A fresh key. Its id is a fingerprint, so that two files never give one id to two keys.
    ///
    /// # Panics
    /// When the system has no randomness: nothing safe can be done then.
    #[allow(clippy::expect_used)]
    pub(crate) fn random() -> MasterKey {
        let mut bytes = Zeroizing::new([0; KEY]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice()).expect("the system gives random bytes");
        let print = digest(&SHA256, bytes.as_slice());
        let id = print.as_ref().iter().take(4).map(|b| format!("{b:02x}")).collect();
        MasterKey { id, bytes }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    fn line(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{} {}\n", self.id, STANDARD.encode(self.bytes.as_slice())))
    }

    fn parse(line: &str) -> Option<MasterKey> {
        let (id, text) = line.split_once(' ')?;
        let mut decoded = STANDARD.decode(text.trim()).ok()?;
        let bytes = <[u8; KEY]>::try_from(decoded.as_slice()).ok();
        decoded.zeroize();
        let fits = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric());
        Some(MasterKey { id: id.to_owned(), bytes: Zeroizing::new(bytes?) }).filter(|_| fits)
    }
}

/// Reads the keys of `path`, after making one when there is no file.
pub(crate) fn open(path: &Path) -> Result<Vec<MasterKey>, ApiError> {
    match read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            create(path).map_err(|e| failed(path, &e))?;
            read(path)
        }
        other => other,
    }
    .map_err(|e| failed(path, &e))
}

fn failed(path: &Path, e: &std::io::Error) -> ApiError {
    ApiError::internal(format!("master key file {}: {e}", path.display()))
}

fn read(path: &Path) -> std::io::Result<Vec<MasterKey>> {
    let invalid = |why: String| std::io::Error::new(ErrorKind::InvalidData, why);
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(invalid(format!("mode {:o} lets others read it; run chmod 600", mode & 0o777)));
    }
    let text = Zeroizing::new(std::io::read_to_string(file)?);
    let keys = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(n, line)| MasterKey::parse(line).ok_or_else(|| invalid(format!("line {n} is no key"))))
        .collect::<std::io::Result<Vec<_>>>()?;
    if keys.is_empty() { Err(invalid("it holds no key".to_owned())) } else { Ok(keys) }
}

/// Writes a new key beside `path` and links it there: readers see the whole file or none, and who comes second keeps the
/// first one's key.
fn create(path: &Path) -> std::io::Result<()> {
    let key = MasterKey::random();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.{}", std::process::id(), key.id()));
    let draft = Path::new(&name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    let made = file.write_all(key.line().as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        match std::fs::hard_link(draft, path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    });
    let _ = std::fs::remove_file(draft);
    made?;
    // The name itself must survive a power cut, or every sealed secret is lost.
    path.parent().filter(|p| !p.as_os_str().is_empty()).map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
