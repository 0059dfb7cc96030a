//! Root file systems of containers: images that are mounted before the start and unmounted after the end.
//!
//! All of it happens where libvirt's daemon sees it, in a folder whose mounts are shared: libvirt's helpers copy the mounts of
//! the moment in which they start, and must see those go that aren't theirs. Which image is whose lies beside the mounts, so that
//! a lease is given back only when no loop device has the image any more, also by an agent that was killed meanwhile.

use crate::kvm::KvmOptions;
use contract::ApiError;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// The folder below that of pools' mounts.
const FOLDER: &str = "containers";
/// What the note of an image ends with.
const NOTE: &str = "image";
/// How long mounting and unmounting may take: all that is dirty is written.
const LONG: Duration = Duration::from_secs(60);
/// How long looking through a file system may take that has grown.
const LONGEST: Duration = Duration::from_secs(600);
/// The largest block of a file system.
const MOST_BLOCK: u64 = 64 << 10;
/// How long freezing may: with storage that doesn't answer it hangs.
const SHORT: Duration = Duration::from_secs(5);
/// How long the kernel may take to let go of a loop device after its last user.
const DETACH: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The roots of a host's containers.
pub(crate) struct Roots {
    folder: PathBuf,
    /// The mount namespace of libvirt's daemon, unless it is ours.
    namespace: Option<PathBuf>,
    /// What is mounted there.
    mounts: PathBuf,
    /// Whether the folder is ready.
    prepared: tokio::sync::Mutex<bool>,
}

impl Roots {
    /// As a host is set to.
    pub fn new(options: &KvmOptions) -> Roots {
        // `/proc/PID/root` is how a daemon in another namespace is named.
        let process = options.libvirt_root.parent().filter(|_| options.libvirt_root.ends_with("root"));
        Roots {
            folder: options.mount_root.join(FOLDER),
            namespace: process.map(|process| process.join("ns/mnt")),
            mounts: process.map_or_else(|| "/proc/self/mountinfo".into(), |process| process.join("mountinfo")),
            prepared: tokio::sync::Mutex::default(),
        }
    }

    /// Where a VM's root is mounted.
    fn place(&self, vm: &str) -> PathBuf {
        self.folder.join(vm)
    }

    fn note(&self, vm: &str) -> PathBuf {
        self.folder.join(format!("{vm}.{NOTE}"))
    }

    /// VMs that may have a root mounted.
    pub fn known(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| Some(name.strip_suffix(NOTE)?.strip_suffix('.')?.to_owned())).collect()
    }

    async fn run(&self, program: &str, args: &[&OsStr], within: Duration) -> Result<(), ApiError> {
        let mut command = match &self.namespace {
            None => Command::new(program),
            Some(namespace) => {
                let mut enter = Command::new("nsenter");
                let mut option = OsString::from("--mount=");
                option.push(namespace);
                enter.arg(option).arg("--").arg(program);
                enter
            }
        };
        command.args(args);
        ended(command, program, within).await
    }

    /// The device that is mounted at a place.
    fn mounted(&self, at: &Path) -> Result<Option<PathBuf>, ApiError> {
        let text = std::fs::read(&self.mounts)
            .map_err(|e| ApiError::unavailable(format!("{} can't be read: {e}", self.mounts.display())))?;
        // The last one is on top.
        Ok(text.split(|byte| *byte == b'\n').rev().find_map(|line| device_at(line, at)))
    }

    /// A folder that nobody may enter but the host's root and the containers' (libvirt's helper goes there as such), whose mounts
    /// are shared.
    async fn prepare(&self) -> Result<(), ApiError> {
        let mut prepared = self.prepared.lock().await;
        if *prepared {
            return Ok(());
        }
        let made = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&self.folder)?;
            std::os::unix::fs::chown(&self.folder, Some(0), Some(KvmOptions::CONTAINER_IDS.first))?;
            std::fs::set_permissions(&self.folder, std::fs::Permissions::from_mode(0o710))
        };
        made().map_err(|e| ApiError::internal(format!("{}: {e}", self.folder.display())))?;
        let shut = |dir: &&Path| dir.metadata().is_ok_and(|meta| meta.mode() & 0o001 == 0);
        if let Some(shut) = self.folder.ancestors().skip(1).find(shut) {
            let text = format!("containers can't pass {0} on the host: chmod o+x {0}", shut.display());
            return Err(ApiError::failed(text));
        }
        let folder = self.folder.as_os_str();
        if self.mounted(&self.folder)?.is_none() {
            self.run("mount", &["--bind".as_ref(), folder, folder], LONG).await?;
        }
        self.run("mount", &["--make-shared".as_ref(), folder], LONG).await?;
        *prepared = true;
        Ok(())
    }

    /// Mounts a VM's root, anew if it is mounted: another host may have written to the image since. Its file system is made as
    /// large as the image.
    ///
    /// # Errors
    /// 534: the image is still in use here, or the kernel doesn't mount it.
    pub async fn mount(&self, vm: &str, image: &Path) -> Result<PathBuf, ApiError> {
        self.prepare().await?;
        self.release(vm).await?;
        let place = self.place(vm);
        let io = |e: std::io::Error| ApiError::unavailable(format!("{}: {e}", place.display()));
        if is_looped(image) {
            return Err(in_use(image));
        }
        grow(image).await?;
        std::fs::write(self.note(vm), image.as_os_str().as_encoded_bytes()).map_err(io)?;
        std::fs::create_dir_all(&place).map_err(io)?;
        let options = "loop,nodev,noatime";
        let args = ["-t".as_ref(), "ext4".as_ref(), "-o".as_ref(), options.as_ref(), image.as_os_str(), place.as_ref()];
        if let Err(error) = self.run("mount", &args, LONG).await {
            if let Err(left) = self.release(vm).await {
                tracing::warn!(vm, error = %left, "a container's root can't be unmounted");
            }
            return Err(error);
        }
        Ok(place)
    }

    /// Unmounts a VM's root, with all that is dirty written, and returns once no loop device has the image.
    ///
    /// # Errors
    /// 534: something still uses it, or its storage doesn't answer.
    pub async fn release(&self, vm: &str) -> Result<(), ApiError> {
        let (place, note) = (self.place(vm), self.note(vm));
        let image = match std::fs::read(&note) {
            Ok(bytes) => PathBuf::from(OsString::from_vec(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(ApiError::unavailable(format!("{}: {error}", note.display()))),
        };
        while self.mounted(&place)?.is_some() {
            self.thaw(vm).await?; // else it can't be unmounted
            self.run("umount", &[place.as_os_str()], LONG).await?;
        }
        let detached = async {
            while is_looped(&image) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(DETACH, detached).await.map_err(|_| in_use(&image))?;
        // An empty folder, or none; the note last, for it says that there is something to do.
        let _ = std::fs::remove_dir(&place);
        std::fs::remove_file(&note).map_err(|e| ApiError::unavailable(format!("{}: {e}", note.display())))
    }

    /// Has the file system take no writes any more, and write nothing that it had taken: for copies that are lost.
    pub async fn cut(&self, vm: &str) {
        let place = self.place(vm);
        match self.mounted(&place) {
            Ok(None) => return,
            Ok(Some(_)) => {}
            Err(error) => tracing::warn!(vm, %error, "it isn't known whether a container's root is mounted"),
        }
        let args = ["-x".as_ref(), "-c".as_ref(), "shutdown".as_ref(), place.as_os_str()];
        if let Err(error) = self.run("xfs_io", &args, SHORT).await {
            tracing::warn!(vm, %error, "a lost container's root can't be cut off: what it had written may still reach the storage");
        }
        if let Err(error) = self.thaw(vm).await {
            tracing::warn!(vm, %error, "a lost container's root can't be thawed");
        }
    }

    /// Writes what is dirty, and keeps further writes waiting: for copies that are held.
    pub async fn freeze(&self, vm: &str) {
        let place = self.place(vm);
        if !matches!(self.mounted(&place), Ok(None))
            && let Err(error) = self.run("fsfreeze", &["-f".as_ref(), place.as_os_str()], SHORT).await
        {
            tracing::warn!(vm, %error, "the root of a container that is held can't be frozen");
        }
    }

    /// Lets it go on after [`Roots::freeze`]. Else nothing that writes there can be ended.
    ///
    /// # Errors
    /// 534: it is still being frozen, since its storage doesn't answer; it would be frozen as soon as that does.
    pub async fn thaw(&self, vm: &str) -> Result<(), ApiError> {
        let place = self.place(vm);
        if matches!(self.mounted(&place), Ok(None)) {
            return Ok(());
        }
        let thawed = async {
            loop {
                // Looked at before: what was frozen by then is thawed.
                let freezing = is_being_frozen(&place);
                // One that isn't frozen refuses.
                let thawed = self.run("fsfreeze", &["-u".as_ref(), place.as_os_str()], SHORT).await;
                tracing::trace!(vm, ?thawed, freezing, "a container's root was thawed");
                if !freezing {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let within = tokio::time::timeout(SHORT, thawed).await;
        within.map_err(|_| ApiError::unavailable(format!("the storage of {} doesn't answer", place.display())))
    }
}

/// Runs a program to its good end: e2fsck says 1 when it has mended something.
async fn ended(mut command: Command, program: &str, within: Duration) -> Result<(), ApiError> {
    command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
    let failed = |what: &dyn std::fmt::Display| ApiError::unavailable(format!("{program} on the host: {what}"));
    let good = |code: Option<i32>| code == Some(0) || (code == Some(1) && program == "e2fsck");
    match tokio::time::timeout(within, command.output()).await {
        Err(_) => Err(failed(&format_args!("not done within {} s", within.as_secs()))),
        Ok(Err(error)) => Err(failed(&error)),
        Ok(Ok(output)) if good(output.status.code()) => Ok(()),
        Ok(Ok(output)) => Err(failed(&String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Makes the file system of an image that isn't mounted as large as the image, if that has grown.
async fn grow(image: &Path) -> Result<(), ApiError> {
    let at = image.to_owned();
    let sizes = tokio::task::spawn_blocking(move || sizes(&at)).await;
    let sizes = sizes.map_err(|e| ApiError::internal(e.to_string()))?;
    let (inside, file) = sizes.map_err(|e| ApiError::unavailable(format!("{}: {e}", image.display())))?;
    if inside == 0 || file < inside + MOST_BLOCK {
        return Ok(()); // what is no file system at all the kernel tells
    }
    let mut check = Command::new("e2fsck");
    check.args(["-f", "-p"]).arg(image);
    ended(check, "e2fsck", LONGEST).await?;
    let mut resize = Command::new("resize2fs");
    resize.arg(image);
    ended(resize, "resize2fs", LONGEST).await
}

/// Bytes of the file system in an image, by its superblock (0: there is none), and of the image.
fn sizes(image: &Path) -> std::io::Result<(u64, u64)> {
    let file = std::fs::File::open(image)?;
    let mut block = [0; 1024];
    let read = std::os::unix::fs::FileExt::read_exact_at(&file, &mut block, 1024);
    let length = file.metadata()?.len();
    let word = |at: usize| u64::from(u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]));
    let exponent = word(0x18);
    if read.is_err() || block[0x38..0x3a] != [0x53, 0xef] || exponent > 6 {
        return Ok((0, length));
    }
    let wide = word(0x60) & 0x80 != 0;
    let blocks = word(0x4) | if wide { word(0x150) << 32 } else { 0 };
    Ok((blocks.saturating_mul(1024 << exponent), length))
}

fn in_use(image: &Path) -> ApiError {
    ApiError::unavailable(format!("{} is still in use on the host by a container that ended", image.display()))
}

/// Whether a loop device has an image. What can't be read is a device that comes or goes: the next look tells.
fn is_looped(image: &Path) -> bool {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    devices.filter(|device| device.file_name().as_encoded_bytes().starts_with(b"loop")).any(|device| {
        let file = std::fs::read(device.path().join("loop/backing_file")).unwrap_or_default();
        let file = file.strip_suffix(b"\n").unwrap_or(&file);
        file.strip_suffix(b" (deleted)").unwrap_or(file) == image.as_os_str().as_encoded_bytes()
    })
}

/// Whether a program is at freezing what is mounted at a place: also one that was given up and can't end before the storage answers.
fn is_being_frozen(place: &Path) -> bool {
    let words = [b"fsfreeze".as_slice(), b"-f", place.as_os_str().as_encoded_bytes()];
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit()).any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).take(words.len()).eq(words)
    })
}

/// The device of a line of `mountinfo`, if it is of this place.
fn device_at(line: &[u8], at: &Path) -> Option<PathBuf> {
    let mut words = line.split(|byte| *byte == b' ');
    let place = words.nth(4)?;
    if unescaped(place) != at.as_os_str().as_encoded_bytes() {
        return None;
    }
    words.by_ref().find(|word| *word == b"-")?;
    Some(PathBuf::from(OsString::from_vec(unescaped(words.nth(1)?))))
}

/// The kernel writes blanks as `\040`.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = word;
    while let [byte, after @ ..] = rest {
        let code = (*byte == b'\\').then(|| std::str::from_utf8(after.get(..3)?).ok()).flatten();
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) => {
                plain.push(code);
                rest = &after[3..];
            }
            None => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let line = b"7012 6930 7:3 / /mnt/a\\040b rw,nodev shared:9 - ext4 /dev/loop3 rw";
        assert_eq!(device_at(line, Path::new("/mnt/a b")), Some("/dev/loop3".into()));
        assert_eq!(device_at(line, Path::new("/mnt/a")), None);
        assert_eq!(device_at(b"", Path::new("/")), None);
    }

    #[tokio::test]
    async fn a_root_is_mounted_grown_cut_off_and_released() {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            use std::io::Write as _;
            let _ = std::io::stderr().write_all(b"\n!!! SKIPPED: a_root_is_mounted: needs root and loop devices\n");
            return;
        }
        let dir = testkit::temp_dir();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let image = dir.path().join("root image");
        let make = |size: u64| {
            std::fs::File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&image)
                .unwrap()
                .set_len(size)
                .unwrap();
        };
        make(16 << 20);
        let made = std::process::Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&image).status().unwrap();
        assert!(made.success());
        let options = KvmOptions { mount_root: dir.path().join("mnt"), ..KvmOptions::default() };
        let roots = Roots::new(&options);
        let place = roots.mount("vm", &image).await.unwrap();
        std::fs::write(place.join("file"), b"kept").unwrap();
        assert!(is_looped(&image) && roots.known() == ["vm"]);
        let size = |place: &Path| rustix::fs::statvfs(place).unwrap().f_blocks;
        let small = size(&place);
        // Another one that knows nothing, as after a kill: it is mounted anew, and as large as the image by now.
        make(64 << 20);
        let roots = Roots::new(&options);
        let place = roots.mount("vm", &image).await.unwrap();
        assert_eq!(std::fs::read(place.join("file")).unwrap(), b"kept");
        assert!(size(&place) > 2 * small);
        // What isn't written when it is cut off never is.
        roots.freeze("vm").await;
        assert!(!is_being_frozen(&place));
        roots.thaw("vm").await.unwrap();
        std::fs::write(place.join("lost"), vec![7; 1 << 20]).unwrap();
        roots.cut("vm").await;
        assert!(std::fs::write(place.join("late"), b"x").is_err());
        roots.release("vm").await.unwrap();
        assert!(!is_looped(&image) && roots.known().is_empty() && !place.exists());
        let place = roots.mount("vm", &image).await.unwrap();
        assert!(place.join("file").exists() && !place.join("lost").exists() && !place.join("late").exists());
        // As long as somebody is in it, it isn't released.
        let held = std::fs::File::open(place.join("file")).unwrap();
        assert_eq!(roots.release("vm").await.unwrap_err().code, 534);
        drop(held);
        roots.release("vm").await.unwrap();
        roots.release("vm").await.unwrap();
        let folder = options.mount_root.join(FOLDER);
        assert!(std::process::Command::new("umount").arg(folder).status().unwrap().success());
    }
}
