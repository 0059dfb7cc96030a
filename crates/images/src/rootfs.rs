//! Root file systems of containers: a tar archive is looked at, unpacked, and made a raw image with ext4.
//!
//! Unpacking trusts nothing: each entry's folder is opened by the kernel below the root's (`RESOLVE_IN_ROOT`), so links of the
//! archive lead nowhere else, and the last part of a name is never followed. The image is made from the folder by `mke2fs -d`:
//! nothing is mounted.

use crate::archive::{Archive, Entry, Fault, What};
use crate::errors::{Error, Refusal};
use crate::inspect::{Format, Inspection, Origin, Rules, inspect};
use crate::operations::blocking;
use crate::place::Temporary;
use crate::tool::{Limits, leashed};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, chmodat, chownat, fchmod, fchown, futimens,
    linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A block of the file system.
const CLUSTER: u64 = 4096;
/// What a name and an inode take.
const PER_ENTRY: u64 = 512;
/// Journal, tables, and room to live in.
const SPARE: u64 = 64 << 20;
const MIB: u64 = 1 << 20;
/// An owner that a container can't have is its `nobody`.
const NOBODY: u32 = 65_534;
const BUFFER: usize = 1 << 20;
/// For `mke2fs`: it copies the whole tree.
const LIMITS: Limits =
    Limits { address_space: 2 << 30, cpu: Duration::from_secs(60 * 60), deadline: Duration::from_secs(180 * 60) };

/// The ids of the host that a container's stand for: 0 to 65535 are `first` and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The host's id of the container's root.
    pub first: u32,
}

impl Ids {
    /// How many ids a container has.
    pub const COUNT: u32 = 65_536;

    fn of(self, id: u64) -> u32 {
        let id = u32::try_from(id).ok().filter(|id| *id < Ids::COUNT).unwrap_or(NOBODY);
        self.first.saturating_add(id)
    }
}

fn error(path: &Path) -> impl Fn(Fault) -> Error + '_ {
    move |fault| match fault {
        Fault::Refused(refusal) => Error::Refused { path: path.to_owned(), refusal },
        Fault::Io(reason) => Error::Io { path: path.to_owned(), reason },
    }
}

/// Reads all of an archive, and gives the size of the smallest disk that it is unpacked to.
pub(crate) fn needs(path: &Path, most_bytes: u64) -> Result<u64, Error> {
    let refused = error(path);
    let file = File::open(path).map_err(Error::io(path))?;
    let mut archive = Archive::new(BufReader::with_capacity(BUFFER, file), most_bytes);
    let (mut bytes, mut entries) = (0_u64, 0_u64);
    while let Some(entry) = archive.next().map_err(&refused)? {
        bytes = bytes.saturating_add(entry.size.next_multiple_of(CLUSTER));
        entries += 1;
    }
    if entries == 0 {
        return Err(refused(Fault::Refused(Refusal::Empty)));
    }
    let inodes = entries.saturating_mul(PER_ENTRY);
    let all = bytes.saturating_add(bytes / 8).saturating_add(inodes).saturating_add(SPARE).next_multiple_of(MIB);
    if all > most_bytes {
        return Err(refused(Fault::Refused(Refusal::TooLarge { bytes: all, max: most_bytes })));
    }
    Ok(all)
}

/// Makes a raw image of `size` bytes with ext4 and what an archive holds in it. Replaces a target that is there. `scratch`, which
/// isn't there yet, is where the archive is unpacked meanwhile; what a killed run leaves of it is for the caller to remove.
/// Needs root. Dropping the future ends the work.
///
/// # Errors
/// As [`inspect`] of the archive, the target's name, the size is too small, or the tool fails.
pub async fn rootfs(archive: &Path, target: &Path, scratch: &Path, size: u64, ids: Ids) -> Result<Inspection, Error> {
    let rules = Rules { origin: Origin::Foreign, max_virtual_bytes: u64::MAX };
    let (from, at) = (archive.to_owned(), target.to_owned());
    let (least, part) =
        blocking(archive, move || Ok((inspect(&from, Format::Tar, rules)?.virtual_bytes, Temporary::new(&at)?)))
            .await?;
    if size < least || !size.is_multiple_of(CLUSTER) {
        return Err(Error::Size(size));
    }
    let stop = Stop(Arc::default());
    let (from, into, stopped) = (archive.to_owned(), Scratch(scratch.to_owned()), stop.0.clone());
    let into = blocking(archive, move || {
        unpack(&from, &into.0, ids, size, &stopped)?;
        Ok(into)
    })
    .await?;
    File::options()
        .write(true)
        .open(part.path())
        .and_then(|file| file.set_len(size))
        .map_err(Error::io(part.path()))?;
    let (owner, blocks) = (format!("root_owner={0}:{0},lazy_itable_init=1,nodiscard", ids.first), size / CLUSTER);
    let (folder, blocks) = (into.0.clone(), blocks.to_string());
    let block = CLUSTER.to_string();
    let words = ["-q", "-F", "-t", "ext4", "-b", &block, "-m", "0", "-E", &owner, "-d"].map(OsStr::new);
    let rest = [folder.as_os_str(), part.path().as_os_str(), OsStr::new(&blocks)];
    let args: Vec<&OsStr> = words.into_iter().chain(rest).collect();
    let ran = leashed(OsStr::new("mke2fs"), "mke2fs".into(), &args, LIMITS, size, (Some(part.lock()), None)).await?;
    ran.succeeded()?;
    blocking(target, move || {
        drop(into);
        let made = inspect(part.path(), Format::Raw, Rules { origin: Origin::Pool, max_virtual_bytes: u64::MAX })?;
        part.place()?;
        Ok(made)
    })
    .await
}

/// Ends unpacking when nobody waits for it any more.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A folder that goes with this.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %self.0.display(), %error, "what an archive was unpacked to can't be removed");
        }
    }
}

/// Unpacks an archive into a new folder that only root may enter. Blocks.
fn unpack(archive: &Path, into: &Path, ids: Ids, most_bytes: u64, stop: &AtomicBool) -> Result<(), Error> {
    DirBuilder::new().mode(0o700).create(into).map_err(Error::io(into))?;
    let root: OwnedFd = File::open(into).map_err(Error::io(into))?.into();
    let file = File::open(archive).map_err(Error::io(archive))?;
    let mut reader = Archive::new(BufReader::with_capacity(BUFFER, file), most_bytes);
    let tree = Tree { root, ids };
    let mut left_out = 0_u64;
    while let Some(entry) = reader.next().map_err(error(archive))? {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::io(archive)(io::ErrorKind::Interrupted.into()));
        }
        if entry.what == What::Device {
            left_out += 1;
            continue;
        }
        tree.make(&entry, &mut reader.data()).map_err(error(archive))?;
    }
    if left_out > 0 {
        tracing::info!(archive = %archive.display(), left_out, "device nodes of an archive were left out");
    }
    Ok(())
}

/// What is unpacked, and for whom.
struct Tree {
    root: OwnedFd,
    ids: Ids,
}

impl Tree {
    fn make(&self, entry: &Entry, data: &mut impl io::Read) -> Result<(), Fault> {
        let Some((name, above)) = entry.path.split_last() else { return Ok(()) }; // the root is there
        let made = self.folder(above).and_then(|folder| self.make_in(&folder, name, entry, data));
        made.map_err(|error| match error {
            Trouble::Os(Errno::NOSPC | Errno::DQUOT) => Fault::Io(Errno::NOSPC.into()),
            Trouble::Os(errno) => {
                let path: PathBuf = entry.path.iter().collect();
                let reason = io::Error::from(errno);
                Fault::Refused(Refusal::Archive(format!("{:?} can't be made: {reason}", path.display().to_string())))
            }
            Trouble::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Fault::Refused(Refusal::Truncated("data"))
            }
            Trouble::Io(error) => Fault::Io(error),
        })
    }

    /// A folder below the root, made if it isn't there. Links within are followed, and lead nowhere but below the root.
    fn folder(&self, parts: &[OsString]) -> Result<OwnedFd, Trouble> {
        let path: PathBuf = Path::new(".").components().chain(parts.iter().map(|p| normal(p))).collect();
        match self.open(&path) {
            Err(Errno::NOENT) => {}
            opened => return Ok(opened?),
        }
        let Some((name, above)) = parts.split_last() else { return Err(Errno::NOENT.into()) };
        let parent = self.folder(above)?;
        mkdirat(&parent, name.as_os_str(), Mode::from_raw_mode(0o755))?;
        self.own(&parent, name, 0, 0)?;
        Ok(self.open(&path)?)
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    fn make_in(&self, folder: &OwnedFd, name: &OsStr, entry: &Entry, data: &mut impl io::Read) -> Result<(), Trouble> {
        let mode = Mode::from_raw_mode(entry.mode);
        // What an earlier entry of this name made.
        match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
            Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::Directory => {
                unlinkat(folder, name, AtFlags::empty())?;
            }
            Ok(_) if entry.what == What::Folder => {
                self.own(folder, name, entry.uid, entry.gid)?;
                return Ok(chmodat(folder, name, mode, AtFlags::empty())?);
            }
            Ok(_) => return Err(Errno::ISDIR.into()),
        }
        match &entry.what {
            What::File => return self.file(folder, name, entry, data),
            What::HardLink(other) => {
                let (other, above) = other.split_last().ok_or(Errno::NOENT)?;
                let path: PathBuf = Path::new(".").components().chain(above.iter().map(|p| normal(p))).collect();
                // The very entry, even if it is a link; folders can't be linked.
                return Ok(linkat(self.open(&path)?, other.as_os_str(), folder, name, AtFlags::empty())?);
            }
            What::Symlink(to) => {
                symlinkat(to.as_os_str(), folder, name)?;
                return self.own(folder, name, entry.uid, entry.gid);
            }
            What::Folder => mkdirat(folder, name, Mode::from_raw_mode(0o700))?,
            What::Pipe => mknodat(folder, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?,
            What::Device => return Ok(()),
        }
        self.own(folder, name, entry.uid, entry.gid)?;
        Ok(chmodat(folder, name, mode, AtFlags::empty())?)
    }

    fn file(&self, folder: &OwnedFd, name: &OsStr, entry: &Entry, data: &mut impl io::Read) -> Result<(), Trouble> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(folder, name, flags, Mode::from_raw_mode(0o600))?);
        io::copy(data, &mut file).map_err(Trouble::Io)?;
        fchown(&file, Some(self.uid(entry.uid)), Some(self.gid(entry.gid)))?;
        // After the owner: a change of that takes the set-id bits away.
        fchmod(&file, Mode::from_raw_mode(entry.mode))?;
        let at = Timespec { tv_sec: entry.modified, tv_nsec: 0 };
        Ok(futimens(&file, &Timestamps { last_access: at, last_modification: at })?)
    }

    fn own(&self, folder: &OwnedFd, name: &OsStr, uid: u64, gid: u64) -> Result<(), Trouble> {
        let (uid, gid) = (Some(self.uid(uid)), Some(self.gid(gid)));
        Ok(chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn uid(&self, id: u64) -> Uid {
        Uid::from_raw(self.ids.of(id))
    }

    fn gid(&self, id: u64) -> Gid {
        Gid::from_raw(self.ids.of(id))
    }
}

/// A part of a name that was checked to be plain.
fn normal(part: &OsStr) -> std::path::Component<'_> {
    std::path::Component::Normal(part)
}

enum Trouble {
    Os(Errno),
    Io(io::Error),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Trouble {
        Trouble::Os(errno)
    }
}

#[cfg(test)]
mod tests;
