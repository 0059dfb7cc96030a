//! What tests build of Debian's packages: fetched with apt, unpacked without being installed, kept between runs.

use crate::cache_dir;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// The kernel for guests: small, unpacked fast (LZ4), with all of virtio, NFS, 802.1Q and IPsec as modules.
pub const KERNEL: &str = "linux-image-cloud-amd64";

/// How long something prepared that nobody used is kept.
const KEPT: Duration = Duration::from_secs(3 * 24 * 3600);

/// A package of a certain version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// The version that apt would install.
    pub version: String,
    depends: String,
}

/// What this machine lacks to fetch these packages; `None` when nothing.
pub fn missing(names: &[&str]) -> Option<String> {
    for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
        if !runs(Command::new(tool).arg("--version")) {
            return Some(format!("needs {tool}, thus Debian"));
        }
    }
    resolve(names).err()
}

/// The versions of packages that apt knows, without the network. [`KERNEL`] and other packages that only name the newest
/// of a kind are to be followed with [`Package::newest`].
///
/// # Errors
/// When apt doesn't know one.
pub fn resolve(names: &[&str]) -> Result<Vec<Package>, String> {
    let output = Command::new("apt-cache").args(["show", "--no-all-versions"]).args(names).env("LC_ALL", "C").output();
    let output = output.map_err(|e| format!("apt-cache: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let known: Vec<Package> = text.split("\n\n").filter_map(stanza).collect();
    let find = |name: &&str| {
        let found = known.iter().find(|package| package.name == *name).cloned();
        found.ok_or_else(|| format!("apt doesn't know the package {name}: run apt-get update (Debian only)"))
    };
    names.iter().map(find).collect()
}

fn stanza(text: &str) -> Option<Package> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map(|value| value.trim().to_owned())
    };
    Some(Package { name: field("Package")?, version: field("Version")?, depends: field("Depends").unwrap_or_default() })
}

impl Package {
    /// The package that this one stands for: the first that it depends on.
    ///
    /// # Errors
    /// When it depends on nothing that apt knows.
    pub fn newest(&self) -> Result<Package, String> {
        let first = self.depends.split([' ', ',']).next().unwrap_or_default();
        let mut found = resolve(&[first])?;
        found.pop().ok_or_else(|| format!("{} stands for no package", self.name))
    }
}

/// Downloads packages and unpacks them all into the folder `into`, which is made.
///
/// # Errors
/// When that fails; the text says how.
pub fn unpack(packages: &[Package], into: &Path) -> Result<(), String> {
    let debs = tempfile::tempdir_in(cache_dir()).map_err(|e| format!("a folder for packages: {e}"))?;
    let exact: Vec<String> = packages.iter().map(|p| format!("{}={}", p.name, p.version)).collect();
    let fetch = || {
        // As root, apt would fetch as a user who may not write here.
        let mut command = Command::new("apt-get");
        command.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(&exact).current_dir(debs.path());
        run(&mut command)
    };
    fetch().map_err(|e| format!("{e}\nIf the versions have gone from the mirror: apt-get update"))?;
    fs::create_dir_all(into).map_err(|e| format!("{}: {e}", into.display()))?;
    let debs = fs::read_dir(debs.path()).map_err(|e| format!("the packages: {e}"))?;
    for deb in debs.flatten() {
        run(Command::new("dpkg-deb").arg("-x").arg(deb.path()).arg(into))?;
    }
    Ok(())
}

/// A folder `name-KEY` between runs, made by `build` (which gets the folder to fill) when it isn't there: whole or not at all, once even if several
/// processes want it. `material` is all that the result depends on. What is older and unused goes.
///
/// Blocks, for minutes if need be.
///
/// # Errors
/// Those of `build`, and of the file system.
pub fn prepared(
    name: &str,
    material: &impl Hash,
    build: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    material.hash(&mut hasher);
    let folder = cache_dir().join(format!("{name}-{:016x}", hasher.finish()));
    let failed = |what: &str, e: std::io::Error| format!("{name}: {what}: {e}");
    let lock = File::create(cache_dir().join(format!("{name}.lock"))).map_err(|e| failed("its lock", e))?;
    lock.lock().map_err(|e| failed("its lock", e))?;
    if !folder.exists() {
        let asides = format!(".{name}.");
        sweep(|entry, _| entry.starts_with(&asides));
        let aside = tempfile::Builder::new().prefix(&asides).tempdir_in(cache_dir());
        let aside = aside.map_err(|e| failed("a folder", e))?;
        build(aside.path())?;
        let aside = aside.keep();
        fs::rename(&aside, &folder).map_err(|e| failed("putting it in its place", e))?;
        let prefix = format!("{name}-");
        sweep(|entry, unused| entry.strip_prefix(&prefix).is_some_and(|key| key.len() == 16) && unused > KEPT);
    }
    // The time of its last use.
    File::create(folder.join(".used")).map_err(|e| failed("its mark", e))?;
    Ok(folder)
}

/// Removes folders of the cache by name and how long they weren't used.
fn sweep(goes: impl Fn(&str, Duration) -> bool) {
    for entry in fs::read_dir(cache_dir()).into_iter().flatten().flatten() {
        let used = fs::metadata(entry.path().join(".used")).or_else(|_| entry.metadata()).and_then(|m| m.modified());
        let unused = used.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
        if entry.path().is_dir() && goes(&entry.file_name().to_string_lossy(), unused) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs a command to its end.
///
/// # Errors
/// What it printed, when it fails.
pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    let printed = [output.stdout, output.stderr].concat();
    let lines: Vec<String> = String::from_utf8_lossy(&printed).lines().map(str::to_owned).collect();
    let end = lines[lines.len().saturating_sub(20)..].join("\n");
    Err(format!("{:?} ended with {}:\n{end}", command.get_program(), output.status))
}

/// Whether a command is there and content.
pub(crate) fn runs(command: &mut Command) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.env("PATH", format!("{path}:/usr/sbin:/sbin")).status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn several_that_want_it_get_what_one_made() {
        let name = format!("test{}", std::process::id());
        let (made, together) = (AtomicU32::new(0), Barrier::new(4));
        let want = || {
            together.wait();
            let build = |folder: &Path| {
                made.fetch_add(1, Ordering::SeqCst);
                fs::write(folder.join("half"), "").map_err(|e| e.to_string())?;
                fs::write(folder.join("whole"), "").map_err(|e| e.to_string())
            };
            let folder = prepared(&name, &"same", build).unwrap();
            assert!(folder.join("whole").exists());
            folder
        };
        let folders: Vec<PathBuf> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(want)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
        fs::remove_dir_all(&folders[0]).unwrap();
        fs::remove_file(cache_dir().join(format!("{name}.lock"))).unwrap();
    }

    #[test]
    fn what_fails_leaves_nothing_and_is_made_again() {
        let name = format!("testf{}", std::process::id());
        let fails = |folder: &Path| {
            fs::write(folder.join("half"), "").map_err(|e| e.to_string())?;
            Err("on purpose".to_owned())
        };
        assert_eq!(prepared(&name, &1, fails).unwrap_err(), "on purpose");
        let folder = prepared(&name, &1, |_| Ok(())).unwrap();
        assert!(!folder.join("half").exists());
        let other = prepared(&name, &2, |_| Ok(())).unwrap();
        assert_ne!(folder, other);
        for folder in [folder, other] {
            fs::remove_dir_all(folder).unwrap();
        }
        fs::remove_file(cache_dir().join(format!("{name}.lock"))).unwrap();
    }
}
