//! A guest for tests of whole VMs: a disk image of Debian's packages that boots in seconds even when emulated, behaves as a cloud's guest
//! should (DHCP, metadata, user-data, SSH key, password, power button), tells on its serial console what it does, and obeys tests.
//!
//! What it says, a line each, with `key=value` pairs (see [`told`]):
//!
//! | line | when |
//! |---|---|
//! | `GUEST up seconds= kernel=` | its init begins |
//! | `GUEST disks vda=BYTES …` | disks are there |
//! | `GUEST lease nic= mac= ip= router= dns= domain= hostname= mtu= server=` | each NIC's DHCP |
//! | `GUEST ready ip= hostname= seconds=` | the first lease is taken on; servers listen |
//! | `GUEST meta KEY=VALUE` | each entry of the metadata (first line) |
//! | `GUEST ssh-keys=N` | keys for root (0: none offered) |
//! | `GUEST userdata-sha256= bytes=` or `GUEST userdata-none` | user-data; a script (`#!`) is run: `GUEST userdata-exit=N` |
//! | `GUEST password-set sha256=` or `GUEST password-none answer=` | the password server's; SHA-256 of the password |
//! | `GUEST metadata-unreachable`, `GUEST password-server-unreachable` | nobody listens |
//! | `GUEST configured seconds=` | all of that is done |
//! | `GUEST unplugged nic=` | a NIC went |
//! | `GUEST stopping` | it shuts down |
//!
//! Its servers: TCP 7 echoes, 22 is SSH (root; keys and passwords), 80 a web page with its host name, 2007 numbers the lines of a connection
//! ([`Session`]), 2323 runs commands ([`Guest`]).
//! Keys, passwords and what tests put into `/persist` stay on its disk; all else is in memory. Without a password server root's password
//! is `password`, as in CloudStack's own templates.

mod client;
mod held;

pub use client::{Done, Guest, talk};
pub use held::{Pings, Session};

use crate::debian::{self, Package};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::sync::OnceCell;

/// Besides the kernel. Libraries are the SSH server's.
const PACKAGES: [&str; 11] = [
    "busybox-static",
    "dropbear-bin",
    "libc6",
    "libcrypt1",
    "libgmp10",
    "libtomcrypt1",
    "libtommath1",
    "mtools",
    "syslinux",
    "syslinux-common",
    "zlib1g",
];

const BUILD: &str = include_str!("build.sh");

/// What is ours in the guest.
const ROOT: [(&str, &str); 20] = [
    ("init", include_str!("root/init")),
    ("bin/disk", include_str!("root/bin/disk")),
    ("etc/acpi/PWRF/00000080", include_str!("root/etc/acpi/PWRF/00000080")),
    ("etc/cmdline", include_str!("root/etc/cmdline")),
    ("etc/group", include_str!("root/etc/group")),
    ("etc/guest/command", include_str!("root/etc/guest/command")),
    ("etc/guest/configure", include_str!("root/etc/guest/configure")),
    ("etc/guest/count", include_str!("root/etc/guest/count")),
    ("etc/guest/functions", include_str!("root/etc/guest/functions")),
    ("etc/guest/lease", include_str!("root/etc/guest/lease")),
    ("etc/guest/nic", include_str!("root/etc/guest/nic")),
    ("etc/guest/plug", include_str!("root/etc/guest/plug")),
    ("etc/guest/start", include_str!("root/etc/guest/start")),
    ("etc/guest/stop", include_str!("root/etc/guest/stop")),
    ("etc/hosts", "127.0.0.1 localhost\n"),
    ("etc/inittab", include_str!("root/etc/inittab")),
    ("etc/issue", include_str!("root/etc/issue")),
    ("etc/nsswitch.conf", include_str!("root/etc/nsswitch.conf")),
    ("etc/passwd", include_str!("root/etc/passwd")),
    ("etc/shells", include_str!("root/etc/shells")),
];

/// The image, kept between runs. It is shared: guests need overlays or copies of it.
#[derive(Clone, Debug)]
pub struct GuestImage {
    /// The disk, bootable by a BIOS from virtio-blk, virtio-scsi or IDE. 66 MiB virtual, about 24 MiB on disk.
    pub qcow2: PathBuf,
    /// For booting without a disk: the kernel …
    pub kernel: PathBuf,
    /// … its initramfs, which is the whole system …
    pub initramfs: PathBuf,
    /// … and its command line.
    pub cmdline: String,
}

/// What this machine lacks to make the image; `None` when nothing.
pub fn missing() -> Option<String> {
    let tools = [("busybox", "busybox"), ("qemu-img", "qemu-utils"), ("mke2fs", "e2fsprogs")];
    for (tool, package) in tools {
        let version = if tool == "mke2fs" { "-V" } else { "--help" };
        if !debian::runs(Command::new(tool).arg(version)) {
            return Some(format!("needs {package}: run deploy/setup-dev test"));
        }
    }
    debian::missing(&PACKAGES).or_else(|| debian::missing(&[debian::KERNEL]))
}

/// The image, built first when it isn't there: some seconds and about 30 MB of packages.
///
/// # Panics
/// When it can't be built; see [`missing`].
pub async fn image() -> GuestImage {
    static IMAGE: OnceCell<GuestImage> = OnceCell::const_new();
    let made = || async {
        let made = tokio::task::spawn_blocking(make).await.expect("the building thread");
        made.unwrap_or_else(|why| panic!("the guest image can't be made: {why}"))
    };
    IMAGE.get_or_init(made).await.clone()
}

fn make() -> Result<GuestImage, String> {
    let mut packages = debian::resolve(&PACKAGES)?;
    for kernel in debian::resolve(&[debian::KERNEL])? {
        packages.push(kernel.newest()?);
    }
    let folder = debian::prepared("guest", &(&packages, BUILD, ROOT), |folder| build(&packages, folder))?;
    let cmdline = ROOT.iter().find(|(path, _)| *path == "etc/cmdline").map_or("", |(_, text)| text.trim());
    Ok(GuestImage {
        qcow2: folder.join("guest.qcow2"),
        kernel: folder.join("vmlinuz"),
        initramfs: folder.join("initramfs"),
        cmdline: cmdline.to_owned(),
    })
}

fn build(packages: &[Package], folder: &Path) -> Result<(), String> {
    let parts = tempfile::tempdir_in(folder).map_err(|e| format!("a folder: {e}"))?;
    let (unpacked, root) = (parts.path().join("packages"), parts.path().join("root"));
    debian::unpack(packages, &unpacked)?;
    for (path, text) in ROOT {
        let path = root.join(path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        written.map_err(|e| format!("{}: {e}", path.display()))?;
    }
    debian::run(Command::new("sh").args(["-c", BUILD, "build.sh"]).args([&unpacked, &root]).arg(folder))
}

/// The pairs of the last line `GUEST what …` of a serial console, e.g. of `ready`. A line such as `GUEST userdata-exit=0` is found by
/// `userdata-exit`, and its value under that name.
pub fn told(console: &str, what: &str) -> Option<BTreeMap<String, String>> {
    // What is behind the last line end is still being said.
    let said = console.rfind('\n').map_or("", |end| &console[..end]);
    let line = said.lines().rev().find_map(|line| {
        let said = line.trim_end().strip_prefix("GUEST ")?;
        let rest = said.strip_prefix(what)?;
        (rest.is_empty() || rest.starts_with([' ', '='])).then_some(said)
    })?;
    let pairs = line.split(' ').filter_map(|word| word.split_once('='));
    Some(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}
