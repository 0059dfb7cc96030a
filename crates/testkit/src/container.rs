//! A root file system for containers, as a tar archive: busybox and an init that tests can talk to.
//!
//! Its process 1 notes each start in `/boots`, asks DHCP for an address on `eth0` if there is one, shows `/www` on port 80, ends on
//! SIGTERM, and obeys: a script that appears as `/do/NAME` is run, and its output is `/do/NAME.out` once it has ended.

use crate::debian::{self, Package};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::sync::OnceCell;

const PACKAGES: [&str; 1] = ["busybox-static"];

const INIT: &str = r#"#!/bin/sh
export PATH=/bin
echo boot >>/boots
trap 'exit 0' TERM
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  udhcpc -i eth0 -s /etc/udhcpc -b -q >/dev/null 2>&1 &
fi
httpd -p 80 -h /www
while :; do
  for script in /do/*.sh; do
    [ -e "$script" ] || continue
    mv "$script" "$script.run"
    { sh "$script.run" >"${script%.sh}.part" 2>&1; mv "${script%.sh}.part" "${script%.sh}.out"; } &
  done
  sleep 0.1 &
  wait $!
done
"#;

const UDHCPC: &str = r#"#!/bin/sh
case $1 in
  bound | renew)
    ip addr replace "$ip/$mask" dev "$interface"
    for via in $router; do ip route replace default via "$via"; done
    echo "$ip" >/www/address
    for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
    ;;
esac
"#;

/// What this machine lacks to make it; `None` when nothing.
pub fn missing() -> Option<String> {
    if !debian::runs(Command::new("tar").arg("--version")) {
        return Some("needs tar".into());
    }
    debian::missing(&PACKAGES)
}

/// The archive, made first when it isn't there: a second, and half a megabyte of packages. It is shared: not to be changed.
///
/// # Panics
/// When it can't be made; see [`missing`].
pub async fn archive() -> PathBuf {
    static ARCHIVE: OnceCell<PathBuf> = OnceCell::const_new();
    let made = || async {
        let made = tokio::task::spawn_blocking(make).await.expect("the building thread");
        made.unwrap_or_else(|why| panic!("the container's archive can't be made: {why}"))
    };
    ARCHIVE.get_or_init(made).await.clone()
}

fn make() -> Result<PathBuf, String> {
    let packages = debian::resolve(&PACKAGES)?;
    let folder = debian::prepared("container", &(&packages, INIT, UDHCPC), |folder| build(&packages, folder))?;
    Ok(folder.join("root.tar"))
}

fn build(packages: &[Package], folder: &Path) -> Result<(), String> {
    let parts = tempfile::tempdir_in(folder).map_err(|e| format!("a folder: {e}"))?;
    let (unpacked, root) = (parts.path().join("packages"), parts.path().join("root"));
    debian::unpack(packages, &unpacked)?;
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| unpacked.join(path));
    let busybox = busybox.iter().find(|path| path.exists()).ok_or("the package has no busybox")?;
    let written = || -> std::io::Result<()> {
        for dir in ["bin", "dev", "do", "etc", "proc", "root", "run", "sys", "tmp", "www"] {
            fs::create_dir_all(root.join(dir))?;
        }
        fs::copy(busybox, root.join("bin/busybox"))?;
        std::os::unix::fs::symlink("bin", root.join("sbin"))?;
        fs::write(root.join("bin/init"), INIT)?;
        fs::write(root.join("etc/udhcpc"), UDHCPC)?;
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )?;
        let applets = Command::new(busybox).arg("--list").output()?;
        for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|a| !matches!(*a, "busybox" | "init")) {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
        }
        Ok(())
    };
    written().map_err(|e| format!("the root: {e}"))?;
    debian::run(Command::new("chmod").arg("755").args([root.join("bin/init"), root.join("etc/udhcpc")]))?;
    let archive = folder.join("root.tar");
    debian::run(
        Command::new("tar")
            .args(["--owner=0", "--group=0", "--numeric-owner", "-C"])
            .arg(&root)
            .arg("-cf")
            .arg(archive)
            .arg("."),
    )
}
