//! NFS exports, mounted below one folder by the system's own `mount`.

use super::errors::io_error;
use super::notes;
use super::patience::{Gate, SHORT};
use contract::ApiError;
use rustix::fs::IFlags;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use url::Url;

/// No programs, devices or set-uid files come from shared storage; and it is waited for rather than data be lost. Folders
/// are looked at anew each time: a claim that another host has made must be seen by the next look at a lease.
const USUAL: &str = "nosuid,nodev,noexec,hard,timeo=600,retrans=2,acdirmin=0,acdirmax=0";
/// How long the system's own tries may take.
const PATIENCE: Duration = Duration::from_secs(150);
const MOUNTS: &str = "/proc/self/mountinfo";

/// What an NFS server exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Export {
    host: String,
    port: Option<u16>,
    path: String,
}

impl Export {
    /// Reads `nfs://server/path`.
    ///
    /// # Errors
    /// 431: it isn't that.
    pub fn parse(url: &str) -> Result<Export, ApiError> {
        let bad = || ApiError::param(format!("{url:?} is no URL of an NFS export: nfs://server/path is one"));
        let parsed = Url::parse(url).ok().filter(|u| u.scheme().eq_ignore_ascii_case("nfs")).ok_or_else(bad)?;
        let host = parsed.host_str().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let path = parsed.path();
        // What a URL would write with % is written as it is by everybody, and odd characters by nobody.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+@:~".contains(&b);
        let fine = path.starts_with('/') && path.bytes().all(plain) && !path.split('/').any(|part| part == "..");
        let host_fine =
            host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-[]:".contains(&b)) && !host.starts_with('-');
        if !fine || !host_fine || parsed.query().is_some() {
            return Err(bad());
        }
        let path = format!("/{}", path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"));
        Ok(Export { host: host.to_owned(), port: parsed.port(), path })
    }

    /// As `mount` takes it, and as the system shows it.
    fn source(&self) -> String {
        format!("{}:{}", self.host, self.path)
    }

    fn folder(&self) -> String {
        format!("nfs-{}", notes::digest(&format!("{} {}", self.source(), self.port.unwrap_or(0))))
    }

    /// The arguments of `mount`. `options` come after the usual ones, and win.
    fn arguments(&self, options: &str, at: &Path) -> Vec<OsString> {
        let port = self.port.map(|port| format!("port={port}"));
        let all = [Some(USUAL), port.as_deref(), Some(options)].into_iter().flatten().filter(|o| !o.is_empty());
        let all = all.collect::<Vec<_>>().join(",");
        vec!["-t".into(), "nfs".into(), "-o".into(), all.into(), self.source().into(), at.into()]
    }
}

/// Mount options that somebody asks for: words and numbers only.
fn check_options(options: &str) -> Result<(), ApiError> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b",=._-:/".contains(&b);
    let risky =
        |word: &str| matches!(word.split('=').next(), Some("suid" | "dev" | "exec" | "remount" | "bind" | "user"));
    if options.bytes().all(fine) && !options.split(',').any(risky) {
        return Ok(());
    }
    Err(ApiError::param(format!("{options:?} are no options that an export may be mounted with")))
}

/// What is mounted somewhere: the file system's type and its source. The latest mount on a place is the one that counts.
fn mounted_at(mountinfo: &[u8], at: &Path) -> Option<(String, String)> {
    let lines = mountinfo.split(|b| *b == b'\n').rev();
    lines.filter_map(parse_line).find(|(place, ..)| place == at).map(|(_, kind, source)| (kind, source))
}

/// `36 35 98:0 /root /mnt/x rw,noatime shared:1 - nfs4 server:/export rw`.
fn parse_line(line: &[u8]) -> Option<(PathBuf, String, String)> {
    let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let place = PathBuf::from(OsString::from_vec(unescape(words.get(4)?)));
    let dash = words.iter().skip(6).position(|word| *word == b"-")? + 6;
    let text = |word: Option<&&[u8]>| word.map(|word| String::from_utf8_lossy(&unescape(word)).into_owned());
    Some((place, text(words.get(dash + 1))?, text(words.get(dash + 2))?))
}

/// Blanks and such are written as `\040`.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten().and_then(|digits| {
            digits.iter().try_fold(0_u32, |sum, d| (b'0'..=b'7').contains(d).then(|| sum * 8 + u32::from(d - b'0')))
        });
        match octal.and_then(|value| u8::try_from(value).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

/// Whether anything is mounted on a folder, by the system's own list: the folder itself isn't touched. Blocks.
pub(super) fn is_mount_point(at: &Path) -> Result<bool, ApiError> {
    let list = std::fs::read(MOUNTS).map_err(io_error)?;
    Ok(mounted_at(&list, at).is_some())
}

/// The exports that this host has mounted.
#[derive(Debug)]
pub(super) struct Mounts {
    root: PathBuf,
    program: PathBuf,
    /// One at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Mounts {
    pub fn new(root: PathBuf) -> Mounts {
        Mounts { root, program: "mount".into(), turn: tokio::sync::Mutex::default() }
    }

    /// Where an export is mounted when it is.
    pub fn folder(&self, export: &Export) -> PathBuf {
        self.root.join(export.folder())
    }

    /// Mounts an export, unless it is mounted already.
    ///
    /// # Errors
    /// 431: bad options. 530: this host can't mount NFS; the text says what is missing. 534: the server can't be reached.
    pub async fn ensure(&self, export: &Export, options: &str) -> Result<PathBuf, ApiError> {
        check_options(options)?;
        let at = self.folder(export);
        let _turn = self.turn.lock().await;
        if mounted(export, &at)? {
            return Ok(at);
        }
        let gate = Gate::new("the folder of mounts");
        let place = at.clone();
        gate.run(SHORT, move || prepare(&place).map_err(io_error)).await?;
        let ran = tokio::process::Command::new(&self.program)
            .args(export.arguments(options, &at))
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let ran = match tokio::time::timeout(PATIENCE, ran).await {
            Err(_) => Err(ApiError::unavailable(format!("{} doesn't answer: it can't be mounted", export.source()))),
            Ok(Err(e)) => Err(ApiError::failed(format!("The host can't run mount: {e}"))),
            Ok(Ok(ran)) => Ok(ran),
        };
        match (mounted(export, &at)?, ran) {
            (true, _) => Ok(at),
            (false, Err(error)) => {
                release(&at);
                Err(error)
            }
            (false, Ok(ran)) => {
                release(&at);
                let (kernel, helper) = (kernel_has_nfs(), helper_is_there());
                Err(failed(export, &String::from_utf8_lossy(&ran.stderr), kernel, helper))
            }
        }
    }
}

fn mounted(export: &Export, at: &Path) -> Result<bool, ApiError> {
    let list = std::fs::read(MOUNTS).map_err(io_error)?;
    match mounted_at(&list, at) {
        None => Ok(false),
        Some((kind, source))
            if kind.starts_with("nfs") && source.trim_end_matches('/') == export.source().trim_end_matches('/') =>
        {
            Ok(true)
        }
        Some((kind, source)) => Err(ApiError::failed(format!(
            "{} is mounted on {} in place of {}: unmount it",
            source,
            at.display(),
            export.source()
        ))
        .with_internal(format!("file system {kind}"))),
    }
}

/// Makes the folder, and that nobody can write to it while nothing is mounted: what is meant for the export must never land on
/// the host's own disk. Blocks.
fn prepare(at: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(at)?;
    set_immutable(at, true);
    Ok(())
}

fn release(at: &Path) {
    set_immutable(at, false);
}

/// File systems that can't do this are used without.
fn set_immutable(at: &Path, immutable: bool) {
    let changed = File::open(at).map_err(|e| e.to_string()).and_then(|folder| {
        let flags = rustix::fs::ioctl_getflags(&folder).map_err(|e| e.to_string())?;
        let wanted = if immutable { flags | IFlags::IMMUTABLE } else { flags & !IFlags::IMMUTABLE };
        rustix::fs::ioctl_setflags(&folder, wanted).map_err(|e| e.to_string())
    });
    if let Err(reason) = changed {
        tracing::debug!(folder = %at.display(), reason, "a mount's folder can't be kept from being written to");
    }
}

fn kernel_has_nfs() -> bool {
    std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.lines().any(|line| line.contains("nfs")))
}

fn helper_is_there() -> bool {
    ["/sbin/mount.nfs", "/usr/sbin/mount.nfs"].iter().any(|path| Path::new(path).exists())
}

/// Why an export can't be mounted, with what to do.
fn failed(export: &Export, said: &str, kernel: bool, helper: bool) -> ApiError {
    let source = export.source();
    let said = said.trim();
    if !helper {
        return ApiError::failed(format!("The host can't mount {source}: install the NFS client (Debian: nfs-common)"))
            .with_internal(said);
    }
    if !kernel {
        return ApiError::failed(format!("The host can't mount {source}: its kernel has no NFS client (modprobe nfs)"))
            .with_internal(said);
    }
    let refused =
        ["access denied", "No such file", "Protocol not supported", "incorrect mount option", "not permitted"];
    match refused.iter().any(|word| said.contains(word)) {
        true => ApiError::failed(format!("The host can't mount {source}: {said}")),
        false => ApiError::unavailable(format!("{source} can't be mounted: {said}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;

    fn export(url: &str) -> Export {
        Export::parse(url).unwrap()
    }

    #[test]
    fn exports_are_read() {
        let plain = export("nfs://10.0.0.6/export/primary");
        assert_eq!(plain, export("NFS://10.0.0.6//export//primary/"));
        assert_eq!((plain.source().as_str(), plain.port), ("10.0.0.6:/export/primary", None));
        assert_eq!(export("nfs://store.example:2050/a").port, Some(2050));
        assert_eq!(export("nfs://[fd00::1]/a").source(), "[fd00::1]:/a");
        assert_eq!(export("nfs://s/").source(), "s:/");
        assert_ne!(plain.folder(), export("nfs://10.0.0.6/export/secondary").folder());
        for bad in [
            "",
            "/export",
            "nfs:/x/y",
            "http://s/a",
            "nfs:///a",
            "nfs://-o/a",
            "nfs://s/a b",
            "nfs://s/a,b",
            "nfs://s/a?x=1",
            "nfs://s/$(x)",
        ] {
            assert_eq!(Export::parse(bad).unwrap_err().code, 431, "{bad}");
        }
        // A URL's own rules end what would lead out.
        assert_eq!(export("nfs://s/a/../../b").source(), "s:/b");
    }

    #[test]
    fn the_command_lines_of_mount() {
        let line = |url: &str, options: &str| {
            let words = export(url).arguments(options, Path::new("/mnt/x"));
            words.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            line("nfs://10.0.0.6/e", ""),
            "-t nfs -o nosuid,nodev,noexec,hard,timeo=600,retrans=2,acdirmin=0,acdirmax=0 10.0.0.6:/e /mnt/x"
        );
        assert_eq!(
            line("nfs://s:2050/e", "vers=4.1,soft"),
            "-t nfs -o nosuid,nodev,noexec,hard,timeo=600,retrans=2,acdirmin=0,acdirmax=0,port=2050,vers=4.1,soft s:/e /mnt/x"
        );
        for bad in ["vers=4 -o x", "a;b", "exec", "vers=4,suid", "bind", "remount,rw"] {
            assert_eq!(check_options(bad).unwrap_err().code, 431, "{bad}");
        }
        check_options("vers=4.2,rsize=1048576,sec=krb5p,nconnect=4").unwrap();
    }

    #[test]
    fn the_systems_list_tells_what_is_mounted() {
        let list = b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            40 22 0:50 / /mnt/a rw shared:5 - nfs4 10.0.0.6:/export rw,vers=4.2\n\
            41 22 0:51 / /mnt/with\\040blank rw - nfs s:/x rw\n\
            42 22 0:52 / /mnt/twice rw - tmpfs tmpfs rw\n\
            43 22 0:53 / /mnt/twice rw - nfs s:/y rw\n\
            nonsense\n";
        let at = |path: &str| mounted_at(list, Path::new(path));
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(at("/mnt/a"), pair("nfs4", "10.0.0.6:/export"));
        assert_eq!(at("/mnt/with blank"), pair("nfs", "s:/x"));
        assert_eq!(at("/mnt/twice"), pair("nfs", "s:/y"));
        assert_eq!((at("/mnt"), at("/mnt/a/b")), (None, None));
        assert!(is_mount_point(Path::new("/proc")).unwrap() && !is_mount_point(Path::new("/proc/self")).unwrap());
    }

    #[test]
    fn what_is_missing_is_told() {
        let of = |said: &str, kernel, helper| failed(&export("nfs://s/e"), said, kernel, helper);
        assert!(of("bad option", true, false).text.contains("nfs-common"));
        assert!(of("mount: unknown filesystem type 'nfs'", false, true).text.contains("kernel has no NFS client"));
        let denied = of("mount.nfs: access denied by server while mounting s:/e", true, true);
        assert!(denied.text.contains("access denied") && !denied.is_transient());
        assert!(of("mount.nfs: Connection timed out", true, true).is_transient());
    }

    #[tokio::test]
    async fn a_mount_is_made_once_and_its_failure_leaves_nothing() {
        let dir = testkit::temp_dir();
        // A program that fails as the system's does, and counts.
        let program = dir.path().join("mount");
        let script =
            format!("#!/bin/sh\necho \"$@\" >> {}/calls\necho 'access denied' >&2\nexit 32\n", dir.path().display());
        std::fs::write(&program, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let mounts = Mounts { program, ..Mounts::new(dir.path().join("mnt")) };
        let wanted = export("nfs://10.9.9.9/e");
        mounts.ensure(&wanted, "").await.unwrap_err();
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        assert!(calls.trim_end().ends_with(&format!("10.9.9.9:/e {}", mounts.folder(&wanted).display())), "{calls}");
        // Nothing is left that would keep the folder.
        std::fs::remove_dir_all(dir.path().join("mnt")).unwrap();
        // A folder on which something else is mounted is left alone.
        let other = Mounts { root: "/".into(), ..Mounts::new("/".into()) };
        assert!(!mounted(&wanted, &other.folder(&wanted)).unwrap());
        assert!(mounted(&wanted, Path::new("/proc")).unwrap_err().text.contains("unmount it"));
    }
}
