//! Hosts with a real libvirtd and QEMU, several on one machine.
//!
//! A host has its own mount, PID and UTS namespaces: libvirt's folders (`/run/libvirt`, `/var/lib/libvirt`, …) are compiled into the
//! daemon, and QEMU must end with the host. So do named network namespaces (`/run/netns`) that are made inside. Everything else is
//! the machine's: paths of disk images mean the same in all hosts.
//! Guests are emulated (TCG): `/dev/kvm` is hidden, since where it exists without working, starting a guest hangs.

use crate::place::Folder;
use crate::{Place, Process, wait_until};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How a host is made.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// The host's name. Default: `host-N`.
    pub name: Option<String>,
    /// The network namespace that it is in, and the address that its name stands for.
    pub place: Place,
    /// Whether its libvirt can run containers (LXC), too; see [`Libvirtd::missing_for_containers`].
    pub containers: bool,
}

/// A host with a libvirtd that tests may kill, pause and restart.
#[derive(Debug)]
pub struct Libvirtd {
    // Fields are dropped in this order: the daemon's starter, then the host with all that runs in it, then its folder.
    daemon: Option<Process>,
    host: Option<Process>,
    /// Process 1 of the host, as seen from here.
    init: u32,
    folder: Folder,
    place: Place,
    name: String,
    uuid: String,
}

static HOSTS: AtomicU32 = AtomicU32::new(1);

const DRIVER: &str = "libvirt_driver_qemu.so";
const CONTAINERS: &str = "libvirt_driver_lxc.so";

/// Runs as process 1 of the host, which also buries what its parents left: libvirt waits for that.
const INIT: &str = r#"
set -e
dir=$1; name=$2; address=$3
hostname "$name"
for pair in /run/libvirt:run /run/netns:netns /var/lib/libvirt:lib /etc/libvirt:etc /var/cache/libvirt:cache /var/log/libvirt:logs; do
  mkdir -p "${pair%:*}"
  mount --bind "$dir/${pair#*:}" "${pair%:*}"
done
# The daemon insists on the user of Debian's package libvirt-daemon-system, even if QEMU runs as root.
for file in passwd group hosts; do
  cp "/etc/$file" "$dir/$file"
done
grep -q '^libvirt-qemu:' "$dir/passwd" || echo libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin >>"$dir/passwd"
grep -q '^libvirt-qemu:' "$dir/group" || echo libvirt-qemu:x:64055: >>"$dir/group"
echo "$address $name" >>"$dir/hosts"
for file in passwd group hosts; do
  mount --bind "$dir/$file" "/etc/$file"
done
# libvirt's containers don't start where groups of version 2 lie within those of version 1 without being used.
if grep -q ' /sys/fs/cgroup/unified cgroup2 ' /proc/mounts; then
  umount /sys/fs/cgroup/unified
fi
# A new network namespace comes with a /sys of its own, which has no control groups.
if [ -e "$dir/drivers/libvirt_driver_lxc.so" ] && ! grep -q ' /sys/fs/cgroup' /proc/mounts; then
  if grep -q '^[0-9]*:[a-z]' /proc/self/cgroup; then
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    cut -d: -f2 /proc/self/cgroup | grep . | while read -r group; do
      mkdir -p "/sys/fs/cgroup/${group#name=}"
      mount -t cgroup -o "$(echo "$group" | sed 's/^name=/none,name=/')" cgroup "/sys/fs/cgroup/${group#name=}"
    done
  else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
  fi
fi
# Each boot has its own. Not where containers run: under a /proc that something hides the kernel gives them none.
if [ ! -e "$dir/drivers/libvirt_driver_lxc.so" ]; then
  cat /proc/sys/kernel/random/uuid >"$dir/boot_id"
  mount --bind "$dir/boot_id" /proc/sys/kernel/random/boot_id
fi
if [ -e /dev/kvm ]; then
  : >"$dir/kvm"
  mount --bind "$dir/kvm" /dev/kvm
  mount -o remount,bind,ro /dev/kvm
fi
: >"$dir/ready"
while :; do
  sleep infinity &
  wait $! || :
done
"#;

impl Libvirtd {
    /// What this machine lacks for it, and how to mend that; `None` when hosts can be started.
    pub fn missing() -> Option<String> {
        let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
        if !root {
            return Some("needs root (namespaces and mounts): run the tests as root".into());
        }
        let packages = [
            (program("libvirtd").is_some(), "libvirt-daemon"),
            (driver(DRIVER).is_some(), "libvirt-daemon-driver-qemu"),
            (program("qemu-system-x86_64").is_some(), "qemu-system-x86"),
        ];
        let lacking: Vec<&str> = packages.iter().filter(|(there, _)| !there).map(|(_, package)| *package).collect();
        if !lacking.is_empty() {
            return Some(format!("needs {}: run deploy/setup-dev test, or apt-get install {0}", lacking.join(" ")));
        }
        let may = Command::new("unshare")
            .args(["--mount", "--pid", "--uts", "--fork", "true"])
            .stderr(Stdio::null())
            .status();
        (!may.is_ok_and(|s| s.success()))
            .then(|| "needs the right to make namespaces: a container must be privileged".into())
    }

    /// What this machine lacks for hosts with containers; `None` when nothing.
    pub fn missing_for_containers() -> Option<String> {
        let packages = [
            (driver(CONTAINERS).is_some(), "libvirt-daemon-driver-lxc"),
            (program("mke2fs").is_some(), "e2fsprogs"),
            (program("xfs_io").is_some(), "xfsprogs"),
        ];
        let lacking: Vec<&str> = packages.iter().filter(|(there, _)| !there).map(|(_, package)| *package).collect();
        if !lacking.is_empty() {
            return Some(format!("needs {}: run deploy/setup-dev test, or apt-get install {0}", lacking.join(" ")));
        }
        let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let lacking = [
            (Path::new("/proc/self/ns/user").exists(), "user namespaces"),
            (Path::new("/dev/loop-control").exists(), "loop devices"),
            (Path::new("/dev/fuse").exists(), "FUSE"),
            (filesystems.lines().any(|line| line.trim() == "ext4"), "ext4"),
        ];
        let lacking: Vec<&str> = lacking.iter().filter(|(there, _)| !there).map(|(_, what)| *what).collect();
        (!lacking.is_empty()).then(|| format!("needs a kernel with {}", lacking.join(", "))).or_else(Libvirtd::missing)
    }

    /// Whether hosts can be started. If not, says so on the terminal even under `cargo test`, which swallows what passing tests print.
    pub fn available(test: &str) -> bool {
        let Some(missing) = Libvirtd::missing() else { return true };
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "\n!!! SKIPPED: {test}: {missing}\n");
        false
    }

    /// A host at 127.0.0.1.
    pub async fn start() -> Libvirtd {
        Libvirtd::start_with(&HostOptions::default()).await
    }

    /// A host; returns when its daemon answers.
    ///
    /// # Panics
    /// When it can't be started.
    pub async fn start_with(options: &HostOptions) -> Libvirtd {
        let number = HOSTS.fetch_add(1, Ordering::Relaxed);
        let name = options.name.clone().unwrap_or_else(|| format!("host-{number}"));
        // Distinct between test processes too: a migration between hosts of one UUID is refused.
        let uuid = format!("a4c05000-0000-4000-8000-{:06x}{:06x}", std::process::id() & 0xff_ffff, number & 0xff_ffff);
        let folder = Folder::new(None, "libvirt");
        prepare(folder.path(), &uuid, options.containers);
        let place = options.place.clone();
        let mut libvirtd = Libvirtd { daemon: None, host: None, init: 0, folder, place, name, uuid };
        libvirtd.boot().await;
        libvirtd
    }

    /// Starts the host after [`Libvirtd::kill`], with what it has on its disk; returns when its daemon answers.
    ///
    /// # Panics
    /// When it can't be started.
    pub async fn boot(&mut self) {
        let folder = self.folder.path();
        // What is in memory on a real host.
        for volatile in ["run", "netns"] {
            let _ = std::fs::remove_dir_all(folder.join(volatile));
            std::fs::create_dir_all(folder.join(volatile)).expect("a folder of the host");
        }
        let _ = std::fs::remove_file(folder.join("ready"));
        let dir = folder.display().to_string();
        let flags = ["--mount", "--pid", "--fork", "--mount-proc", "--uts", "--kill-child"];
        let command = std::iter::once("unshare").chain(flags).chain([
            "sh",
            "-c",
            INIT,
            "init",
            &dir,
            &self.name,
            &self.place.address,
        ]);
        let command = self.place.command(command.map(str::to_owned).collect());
        let host = Process::start(&command, &folder.join("host.log"), Some(folder));
        let ready = folder.join("ready");
        wait_until(
            || async {
                assert!(host.alive(), "the host can't be set up:\n{}", host.log_tail());
                ready.exists()
            },
            Duration::from_secs(30),
        )
        .await;
        self.init = child_of(host.pid()).expect("process 1 of the host");
        self.host = Some(host);
        self.start_daemon().await;
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's UUID, as in libvirt's capabilities.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("run/libvirt-sock")
    }

    /// The URI for libvirt's own clients, and for another host's daemon to migrate to.
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.socket().display())
    }

    /// A folder of the host for disk images and the like, with the same path inside and outside. Removed with the host.
    pub fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    /// The host's file system, as this process sees it.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.init))
    }

    /// Where libvirt and its guests write their logs; also of a host that is off.
    pub fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    /// The host's `/run/libvirt`; of a host that is off, as it was.
    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// The end of what the daemon wrote.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.folder.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// A command that runs inside the host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(self.enter()).arg(program);
        command
    }

    /// Kills the daemon alone: guests run on, as they do on a real host.
    pub async fn kill_daemon(&mut self) {
        self.signal_daemon("KILL");
        self.daemon = None;
        let socket = self.socket();
        wait_until(|| async { tokio::net::UnixStream::connect(&socket).await.is_err() }, Duration::from_secs(10)).await;
    }

    /// Stops the daemon with SIGSTOP: its connections stay open and nothing answers.
    pub fn pause_daemon(&self) {
        self.signal_daemon("STOP");
    }

    /// Lets it go on after [`Libvirtd::pause_daemon`].
    pub fn resume_daemon(&self) {
        self.signal_daemon("CONT");
    }

    /// Starts the daemon (again); returns when it answers.
    pub async fn start_daemon(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let drivers = format!("LIBVIRT_DRIVER_DIR={}", self.folder.path().join("drivers").display());
        let daemon =
            ["env", &drivers, "libvirtd", "-f", "/etc/libvirt/libvirtd.conf", "-p", "/run/libvirt/libvirtd.pid"];
        let command = std::iter::once("nsenter".to_owned()).chain(self.enter()).chain(daemon.map(str::to_owned));
        let daemon = Process::start(&command.collect::<Vec<_>>(), &self.folder.log(), None);
        let socket = self.socket();
        wait_until(
            || async {
                assert!(daemon.alive(), "libvirtd ended:\n{}", self.log_tail());
                tokio::net::UnixStream::connect(&socket).await.is_ok()
            },
            Duration::from_secs(60),
        )
        .await;
        self.daemon = Some(daemon);
    }

    /// The host dies at once with everything that runs in it: as when its power is cut. Its disk stays, for [`Libvirtd::boot`].
    pub async fn kill(&mut self) {
        let Some(host) = self.host.take() else { return };
        host.kill_sparing();
        // Its process 1 is the last of all.
        let status = format!("/proc/{}/stat", self.init);
        let gone = || {
            std::fs::read_to_string(&status)
                .map_or(true, |s| s.rsplit_once(") ").is_none_or(|(_, s)| s.starts_with(['Z', 'X'])))
        };
        wait_until(|| async { gone() }, Duration::from_secs(60)).await;
        self.daemon = None;
    }

    /// Arguments of `nsenter` for the host.
    fn enter(&self) -> Vec<String> {
        let target = format!("--target={}", self.init);
        [&target, "--mount", "--pid", "--uts", "--net", "--"].map(|s| s.to_owned()).to_vec()
    }

    fn signal_daemon(&self, signal: &str) {
        let kill = format!("kill -{signal} $(cat /run/libvirt/libvirtd.pid)");
        let status = self.command("sh").args(["-c", &kill]).status();
        assert!(status.is_ok_and(|s| s.success()), "signal {signal} to libvirtd of {}", self.name);
    }
}

/// Folders and configuration.
fn prepare(dir: &Path, uuid: &str, containers: bool) {
    for folder in ["run", "netns", "lib", "etc/qemu", "cache", "logs", "drivers", "scratch"] {
        std::fs::create_dir_all(dir.join(folder)).expect("a folder of the host");
    }
    // Guests' drivers alone: the others would look after the machine's own networks and devices.
    for name in [DRIVER].into_iter().chain(containers.then_some(CONTAINERS)) {
        let driver = driver(name).expect("libvirt's driver for guests");
        std::os::unix::fs::symlink(driver, dir.join("drivers").join(name)).expect("the driver's link");
    }
    let daemon = format!(
        r#"unix_sock_dir = "{}"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{uuid}"
log_outputs = "3:stderr"
"#,
        dir.join("run").display()
    );
    // With stdio_handler = "file", virtlogd isn't needed.
    let qemu = r#"security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
namespaces = [ ]
cgroup_controllers = [ ]
stdio_handler = "file"
"#;
    std::fs::write(dir.join("etc/libvirtd.conf"), daemon).expect("the daemon's configuration");
    std::fs::write(dir.join("etc/lxc.conf"), "security_driver = \"none\"\n").expect("the containers' configuration");
    std::fs::write(dir.join("etc/qemu.conf"), qemu).expect("QEMU's configuration");
}

/// Where a program is.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = path.split(':').chain(["/usr/sbin", "/sbin"]);
    dirs.map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())
}

/// Where a driver of libvirt's is: Debian and Ubuntu have a folder for each architecture, others `lib64`.
fn driver(name: &str) -> Option<PathBuf> {
    let libs = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|e| e.path());
    let libs = libs.chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/lib64")]);
    libs.map(|lib| lib.join("libvirt/connection-driver").join(name)).find(|file| file.is_file())
}

/// The child of a process.
fn child_of(parent: u32) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1).and_then(|p| p.parse().ok()) == Some(parent)
    })
}
