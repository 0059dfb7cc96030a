//! The machine itself: rights, libvirt, QEMU, folders.

use super::{Check, Preflight};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The daemon's usual sockets: the monolithic one and the modular one.
const SOCKETS: &[&str] = &["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"];
/// Debian 10's and Enterprise Linux 8's are newer than what the client needs; older ones aren't tested.
const OLDEST_TESTED: (u64, u64) = (7, 0);
/// Debian 11's.
const OLDEST_QEMU: (u64, u64) = (5, 2);
/// Free space in bytes below which routers and image tools can't work, and below which they have little.
const LEAST: u64 = 64 << 20;
const LITTLE: u64 = 2 << 30;
/// A daemon that answers at all does so at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// A daemon that has just been started by who calls it first tries all its emulators.
const FIRST_CALL: Duration = Duration::from_secs(60);
/// Longest path of the folder of routers, bytes.
const LONGEST: usize = 40;

pub(super) fn root() -> Check {
    if rustix::process::geteuid().is_root() {
        return Check::ok("root", "this runs as root");
    }
    Check::fail("root", "the agent needs root: bridges, namespaces, mounts", "sudo arcus agent check")
}

pub(super) fn system() -> Check {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let (name, id) = (value("PRETTY_NAME"), format!("{} {}", value("ID"), value("ID_LIKE")));
    if id.split(' ').any(|word| word == "debian") {
        return Check::ok("system", name);
    }
    let name = if name.is_empty() { "an unknown system".to_owned() } else { name };
    let how = "the commands below are Debian's; on Enterprise Linux the packages are qemu-kvm, libvirt-daemon-kvm, nftables, \
               dnsmasq, haproxy, iproute, util-linux (dnf install …)";
    Check::warn("system", format!("{name}: agents are tested on Debian and Ubuntu only"), how)
}

pub(super) async fn libvirt(preflight: &Preflight) -> Vec<Check> {
    let containers = preflight.kvm.containers;
    let install = match containers {
        false => "apt-get install libvirt-daemon-system && systemctl enable --now libvirtd",
        true => "apt-get install libvirt-daemon-system libvirt-daemon-driver-lxc && systemctl restart libvirtd",
    };
    let uri = if containers { "lxc:///system" } else { "qemu:///system" };
    let socket = match &preflight.kvm.libvirt_socket {
        Some(socket) => socket.clone(),
        None => SOCKETS.iter().map(PathBuf::from).find(|s| s.exists()).unwrap_or_else(|| SOCKETS[0].into()),
    };
    let shown = socket.display().to_string();
    let options = libvirt::Options { uri: uri.into(), ..libvirt::Options::default() };
    let opened = tokio::time::timeout(PATIENCE, libvirt::Connection::open(&socket, options)).await;
    let connection = match opened {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return vec![Check::fail("libvirt", error.to_string(), install)],
        Err(_) => {
            let text = format!("the daemon at {shown} doesn't answer");
            return vec![Check::fail("libvirt", text, "systemctl restart libvirtd")];
        }
    };
    let mut checks = Vec::new();
    match tokio::time::timeout(PATIENCE, connection.library_version()).await {
        Ok(Ok(version)) if (version.major, version.minor) < OLDEST_TESTED => {
            let text = format!("version {version} at {shown}: older than what is tested (7.0)");
            checks.push(Check::warn("libvirt", text, "upgrade to Debian 11, Ubuntu 22.04 or newer"));
        }
        Ok(Ok(version)) => checks.push(Check::ok("libvirt", format!("version {version} at {shown}"))),
        Ok(Err(error)) => checks.push(Check::fail("libvirt", error.to_string(), install)),
        Err(_) => {
            checks.push(Check::fail("libvirt", format!("the daemon at {shown} hangs"), "systemctl restart libvirtd"))
        }
    }
    if containers {
        checks.push(match tokio::time::timeout(PATIENCE, connection.hypervisor_version()).await {
            Ok(Ok(version)) => Check::ok("lxc", format!("libvirt runs containers on kernel {version}")),
            Ok(Err(error)) => Check::fail("lxc", format!("libvirt runs no containers: {error}"), install),
            Err(_) => Check::fail("lxc", "libvirt doesn't say whether it runs containers", install),
        });
        return checks;
    }
    let qemu = "apt-get install qemu-system-x86 libvirt-daemon-driver-qemu && systemctl restart libvirtd";
    match tokio::time::timeout(FIRST_CALL, connection.hypervisor_version()).await {
        Ok(Ok(version)) if (version.major, version.minor) < OLDEST_QEMU => {
            let text = format!("version {version}, by libvirt: older than what is tested (5.2)");
            checks.push(Check::warn("qemu", text, "upgrade to Debian 11, Ubuntu 22.04 or newer"));
        }
        Ok(Ok(version)) => checks.push(Check::ok("qemu", format!("version {version}, by libvirt"))),
        Ok(Err(error)) => checks.push(Check::fail("qemu", format!("libvirt finds no QEMU: {error}"), qemu)),
        Err(_) => checks.push(Check::fail("qemu", "libvirt doesn't say which QEMU it has", qemu)),
    }
    checks
}

/// What containers need of the kernel.
pub(super) fn containers() -> Check {
    let kernel =
        [("user namespaces", "/proc/self/ns/user"), ("loop devices", "/dev/loop-control"), ("FUSE", "/dev/fuse")];
    let lacking: Vec<&str> =
        kernel.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(what, _)| *what).collect();
    match lacking.as_slice() {
        [] => Check::ok("containers", "the kernel has what they need"),
        lacking => {
            let text = format!("the kernel has no {}", lacking.join(", "));
            Check::fail("containers", text, "modprobe loop fuse, or boot Debian's kernel")
        }
    }
}

pub(super) fn folders(preflight: &Preflight) -> Vec<Check> {
    let routers = super::super::network::routers_dir(&preflight.state_dir);
    let state = preflight.state_dir.display();
    let length = routers.as_os_str().len();
    let state = if length > LONGEST {
        let text =
            format!("{}: the routers' folder has {length} bytes, and sockets in it allow {LONGEST}", routers.display());
        Check::fail("state folder", text, "set state_dir under [agent] to a shorter path, /var/lib/arcus/agent")
    } else if let Some(shut) = shut(&routers) {
        let text = format!("{state}: dnsmasq, which doesn't stay root, can't pass {}", shut.display());
        Check::fail("state folder", text, format!("chmod o+x {}", shut.display()))
    } else {
        writable("state folder", &preflight.state_dir)
    };
    vec![state, writable("mount folder", &preflight.kvm.mount_root)]
}

/// The first folder on the way that others can't pass.
fn shut(path: &Path) -> Option<PathBuf> {
    let there = path.ancestors().filter(|dir| dir.is_dir());
    there.filter(|dir| dir.metadata().is_ok_and(|m| m.mode() & 0o001 == 0)).map(Path::to_owned).last()
}

/// Whether a folder is on a file system that is written to, as far as can be told without writing.
fn writable(name: &str, path: &Path) -> Check {
    let shown = path.display();
    let Some(there) = path.ancestors().find(|dir| dir.exists()) else {
        return Check::fail(name, format!("{shown} isn't an absolute path"), "set it to one that begins with /");
    };
    if !there.is_dir() {
        return Check::fail(
            name,
            format!("{} isn't a folder", there.display()),
            format!("mv {0} {0}.old", there.display()),
        );
    }
    match rustix::fs::access(there, rustix::fs::Access::WRITE_OK) {
        Ok(()) if there == path => Check::ok(name, format!("{shown}")),
        Ok(()) => Check::ok(name, format!("{shown}: the agent will make it")),
        Err(error) => {
            let text = format!("{} can't be written: {error}", there.display());
            Check::fail(name, text, format!("mount -o remount,rw the file system of {}", there.display()))
        }
    }
}

/// What is free where the agent keeps its state and where image tools work.
pub(super) fn space(preflight: &Preflight) -> Vec<Check> {
    let work = preflight.kvm.work_dir.as_ref().map(|dir| ("work space", dir.as_path()));
    let dirs = [("disk space", preflight.state_dir.as_path())].into_iter().chain(work);
    dirs.filter_map(|(name, dir)| {
        // Another check tells of paths that can't be.
        let there = dir.ancestors().find(|dir| dir.is_dir())?;
        let found = rustix::fs::statvfs(there).ok()?;
        Some(free(name, there, found.f_bavail.saturating_mul(found.f_frsize), found.f_favail))
    })
    .collect()
}

fn free(name: &str, at: &Path, bytes: u64, files: u64) -> Check {
    let shown = format!("{}.{} GiB free at {}", bytes >> 30, ((bytes % (1 << 30)) * 10) >> 30, at.display());
    let mend = format!("df -h {0}; df -i {0}: make room, or a file system of its own", at.display());
    // Some file systems don't count files, and say that there are none.
    let no_files = (1..100).contains(&files);
    match bytes {
        _ if no_files => Check::fail(name, format!("{files} files can still be made at {}", at.display()), mend),
        0..LEAST => Check::fail(name, shown, mend),
        LEAST..LITTLE => Check::warn(name, format!("{shown}: little for images that are unpacked"), mend),
        _ => Check::ok(name, shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::preflight::Verdict;

    #[test]
    fn a_full_disk_is_told() {
        let at = Path::new("/var");
        let verdict = |bytes, files| free("disk space", at, bytes, files).verdict;
        assert_eq!((verdict(10 << 30, 1000), verdict(10 << 30, 0)), (Verdict::Ok, Verdict::Ok));
        assert_eq!((verdict(1 << 30, 1000), verdict(1 << 20, 1000)), (Verdict::Warn, Verdict::Fail));
        assert_eq!(verdict(10 << 30, 3), Verdict::Fail);
        assert!(free("disk space", at, 3 << 29, 9999).text.contains("1.5 GiB free at /var"));
    }
}
