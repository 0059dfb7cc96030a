//! What machines boot, kept between runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::debian;

const BUILD: &str = include_str!("build.sh");
const ROOT: [(&str, &str); 7] = [
    ("early", include_str!("root/early")),
    ("etc/inittab", include_str!("root/etc/inittab")),
    ("etc/systemd/system/lab.service", include_str!("root/etc/systemd/system/lab.service")),
    ("lab/agent", include_str!("root/lab/agent")),
    ("lab/serve-libvirt", include_str!("root/lab/serve-libvirt")),
    ("lab/serve-nfs", include_str!("root/lab/serve-nfs")),
    ("lab/start", include_str!("root/lab/start")),
];

/// A kernel and a root file system of some Debian packages.
#[derive(Clone, Debug)]
pub struct Image {
    folder: PathBuf,
}

impl Image {
    /// What every machine has: tools for networks, an NFS server and client, servers that our router uses.
    pub const BASE: [&str; 17] = [
        "busybox-static",
        "ca-certificates",
        "curl",
        "dnsmasq-base",
        "e2fsprogs",
        "haproxy",
        "iproute2",
        "iputils-ping",
        "kmod",
        "netcat-openbsd",
        "nfs-common",
        "nfs-kernel-server",
        "nftables",
        "openssl",
        "procps",
        "qemu-guest-agent",
        "tcpdump",
    ];

    /// More for a host of VMs: libvirt with QEMU and LXC as Debian sets them up, AppArmor, and systemd for those that want it
    /// ([`crate::Builder::systemd`]).
    pub const HYPERVISOR: [&str; 10] = [
        "apparmor",
        "libvirt-clients",
        "libvirt-daemon",
        "libvirt-daemon-driver-lxc",
        "libvirt-daemon-driver-qemu",
        "libvirt-daemon-system",
        "qemu-system-x86",
        "qemu-utils",
        "systemd-sysv",
        "xfsprogs",
    ];

    /// What this machine lacks for a lab, and how to mend that; `None` when nothing.
    pub fn missing(packages: &[&str]) -> Option<String> {
        let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
        if !root {
            return Some("a lab needs root (namespaces, mmdebstrap)".into());
        }
        let tools = [
            ("mmdebstrap", "mmdebstrap"),
            ("busybox", "busybox"),
            ("mke2fs", "e2fsprogs"),
            ("qemu-system-x86_64", "qemu-system-x86"),
            ("qemu-img", "qemu-utils"),
            ("ip", "iproute2"),
            ("nsenter", "util-linux"),
        ];
        let path = std::env::var("PATH").unwrap_or_default();
        let there =
            |tool: &str| path.split(':').chain(["/usr/sbin", "/sbin"]).any(|d| Path::new(d).join(tool).exists());
        let lacking: Vec<&str> = tools.iter().filter(|(tool, _)| !there(tool)).map(|(_, package)| *package).collect();
        if !lacking.is_empty() {
            return Some(format!("a lab needs {}: run deploy/setup-dev lab", lacking.join(" ")));
        }
        if !Path::new("/dev/net/tun").exists() {
            return Some("a lab needs /dev/net/tun: modprobe tun, or give it to the container".into());
        }
        let names: Vec<&str> = Image::BASE.iter().chain(packages).copied().chain([debian::KERNEL]).collect();
        debian::missing(&names)
    }

    /// The image with these packages besides [`Image::BASE`], built first when it isn't there.
    ///
    /// # Panics
    /// When it can't be built.
    pub async fn of(packages: &[&str]) -> Image {
        let mut names: Vec<String> = Image::BASE.iter().chain(packages).map(|name| (*name).to_owned()).collect();
        names.sort();
        names.dedup();
        let made = tokio::task::spawn_blocking(move || make(&names)).await.expect("the building thread");
        Image { folder: made.unwrap_or_else(|why| panic!("the lab's image can't be made: {why}")) }
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    pub(crate) fn initramfs(&self) -> PathBuf {
        self.folder.join("initramfs")
    }

    /// The root file system, raw; shared, so machines have overlays.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root.img")
    }

    /// The folder for the logs of a test: `target/tmp/lab/TEST`.
    pub(crate) fn logs(&self, test: &str) -> PathBuf {
        let name: String = test.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let tmp = self.folder.ancestors().nth(2).expect("the folder that holds the cache");
        tmp.join("lab").join(name)
    }
}

fn make(names: &[String]) -> Result<PathBuf, String> {
    let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
    let packages = debian::resolve(&borrowed)?;
    let mut kernels = debian::resolve(&[debian::KERNEL])?;
    let kernel = kernels.pop().ok_or("no kernel")?.newest()?;
    let suite = suite()?;
    debian::prepared("lab", &(&packages, &kernel, &suite, BUILD, ROOT), |folder| {
        crate::say(&format!("lab: making an image with {}: a minute or two, once", names.join(" ")));
        let begun = std::time::Instant::now();
        let parts = folder.join("parts");
        let (unpacked, root) = (parts.join("kernel"), parts.join("root"));
        debian::unpack(std::slice::from_ref(&kernel), &unpacked)?;
        for (path, text) in ROOT {
            let path = root.join(path);
            let written =
                path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, text));
            written.map_err(|e| format!("{}: {e}", path.display()))?;
        }
        // What mmdebstrap mounts is seen by nobody else, even if all this is killed.
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            BUILD,
            "build.sh",
            &suite,
            &sources(),
            &names.join(","),
        ]);
        debian::run(command.args([&unpacked, &root]).arg(folder))?;
        std::fs::remove_dir_all(&parts).map_err(|e| format!("{}: {e}", parts.display()))?;
        crate::say(&format!("lab: the image was made in {:.0} s", begun.elapsed().as_secs_f64()));
        Ok(())
    })
}

/// The release of this machine: its packages fit to its sources and keys.
fn suite() -> Result<String, String> {
    let text = std::fs::read_to_string("/etc/os-release").map_err(|e| format!("/etc/os-release: {e}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    line.map(|name| name.trim_matches('"').to_owned()).ok_or_else(|| "the machine's release has no name".into())
}

/// The files that tell apt where Debian's own packages are, with spaces between.
fn sources() -> String {
    let listed = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|e| e.path());
    let mut files: Vec<PathBuf> = listed.chain([PathBuf::from("/etc/apt/sources.list")]).collect();
    files.sort();
    let debian = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| !line.starts_with('#') && line.contains("/debian"))
    };
    files.retain(debian);
    files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(" ")
}
