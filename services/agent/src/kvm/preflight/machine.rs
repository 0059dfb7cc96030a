//! The machine itself: rights, libvirt, QEMU, acceleration, folders.

use super::{Check, Preflight};
use crate::kvm::probe::{self, Acceleration, Probe};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The daemon's usual sockets: the monolithic one and the modular one.
const SOCKETS: &[&str] = &["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"];
/// Debian 10's and Enterprise Linux 8's are newer than what the client needs; older ones aren't tested.
const OLDEST_TESTED: (u64, u64) = (7, 0);
/// A daemon that answers at all does so at once.
const PATIENCE: Duration = Duration::from_secs(5);
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
    let install = "apt-get install libvirt-daemon-system && systemctl enable --now libvirtd";
    let socket = match &preflight.kvm.libvirt_socket {
        Some(socket) => socket.clone(),
        None => SOCKETS.iter().map(PathBuf::from).find(|s| s.exists()).unwrap_or_else(|| SOCKETS[0].into()),
    };
    let shown = socket.display().to_string();
    let opened = tokio::time::timeout(PATIENCE, libvirt::Connection::open(&socket, libvirt::Options::default())).await;
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
    let qemu = "apt-get install qemu-system-x86 libvirt-daemon-driver-qemu && systemctl restart libvirtd";
    match tokio::time::timeout(PATIENCE, connection.hypervisor_version()).await {
        Ok(Ok(version)) => checks.push(Check::ok("qemu", format!("version {version}, by libvirt"))),
        Ok(Err(error)) => checks.push(Check::fail("qemu", format!("libvirt finds no QEMU: {error}"), qemu)),
        Err(_) => checks.push(Check::fail("qemu", "libvirt doesn't say which QEMU it has", qemu)),
    }
    checks
}

/// A guest is run to know.
pub(super) async fn acceleration() -> Check {
    let Some(emulator) = probe::emulator() else {
        let text = "there is no QEMU for this processor: nothing can be tried";
        return Check::fail("acceleration", text, "apt-get install qemu-system-x86");
    };
    // Not the agent's folder, which may not be there yet: a check makes nothing.
    let dir = std::env::temp_dir().join(format!("arcus-check-{}", std::process::id()));
    let found = probe::look(&Probe::new(emulator, &dir)).await;
    let _ = std::fs::remove_dir(&dir); // the probe has removed what it made in it
    match found {
        Acceleration::Kvm => Check::ok("acceleration", "the processor runs guests (a tiny one was run)"),
        Acceleration::Tcg { why } => Check::warn(
            "acceleration",
            format!("guests would be EMULATED, some ten times slower: {why}"),
            "switch on VT-x or AMD-V in the firmware (in a VM: nested virtualisation), then modprobe kvm_intel or kvm_amd",
        ),
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
