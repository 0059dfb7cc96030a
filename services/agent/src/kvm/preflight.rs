//! What a machine lacks to be a KVM host, and how to mend it: `arcus agent check`. It changes nothing.

mod acceleration;
mod filter;
mod kernel;
mod machine;
mod network;
mod tools;

use super::KvmOptions;
use std::path::PathBuf;

/// What is to be checked.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// What the agent would be started with.
    pub kvm: KvmOptions,
    /// The agent's state folder.
    pub state_dir: PathBuf,
    /// Addresses of the control plane, `host:port`.
    pub endpoints: Vec<String>,
    /// Folders of programs, as in `PATH`.
    pub path: String,
    /// Whether the agent runs as a service of systemd.
    pub service: bool,
}

impl Preflight {
    /// With this process's `PATH`, for a service.
    pub fn new(kvm: KvmOptions, state_dir: impl Into<PathBuf>) -> Preflight {
        let path = std::env::var("PATH").unwrap_or_default();
        Preflight { kvm, state_dir: state_dir.into(), endpoints: Vec::new(), path, service: true }
    }

    /// Where a program is.
    fn program(&self, name: &str) -> Option<PathBuf> {
        let dirs = self.path.split(':').chain(["/usr/sbin", "/sbin"]).filter(|dir| !dir.is_empty());
        dirs.map(|dir| PathBuf::from(dir).join(name)).find(|file| file.is_file())
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not well, or it can't be told.
    Warn,
    /// A host can't work so.
    Fail,
}

impl Verdict {
    /// The word that is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        }
    }
}

/// One line of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// What mends it: commands on Debian and Ubuntu.
    pub mend: Option<String>,
}

impl Check {
    fn ok(name: impl Into<String>, text: impl Into<String>) -> Check {
        Check { name: name.into(), verdict: Verdict::Ok, text: text.into(), mend: None }
    }

    fn warn(name: impl Into<String>, text: impl Into<String>, mend: impl Into<String>) -> Check {
        Check { name: name.into(), verdict: Verdict::Warn, text: text.into(), mend: Some(mend.into()) }
    }

    fn fail(name: impl Into<String>, text: impl Into<String>, mend: impl Into<String>) -> Check {
        Check { name: name.into(), verdict: Verdict::Fail, text: text.into(), mend: Some(mend.into()) }
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<4}  {:<16} {}", self.verdict.as_str(), self.name, self.text)?;
        match &self.mend {
            Some(mend) => write!(f, "\n      {:<16} mend: {mend}", ""),
            None => Ok(()),
        }
    }
}

/// Whether a host can work so.
pub fn passes(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.verdict < Verdict::Fail)
}

/// Looks at everything; the checks in the order in which they are best mended.
pub async fn check(preflight: &Preflight) -> Vec<Check> {
    let mut checks = vec![machine::root(), machine::system()];
    checks.extend(machine::libvirt(preflight).await);
    checks.push(if preflight.kvm.containers { machine::containers() } else { acceleration::check().await });
    checks.extend(tools::all(preflight));
    checks.push(kernel::nfs(preflight));
    checks.extend(machine::folders(preflight));
    checks.extend(machine::space(preflight));
    checks.extend(network::devices(preflight).await);
    checks.extend(kernel::features(preflight).await);
    checks.extend(kernel::settings());
    checks.extend(filter::policies(preflight).await);
    checks.push(filter::ports());
    if preflight.service {
        checks.push(tools::service(preflight).await);
    }
    checks.push(tools::clock(preflight).await);
    checks.extend(network::endpoints(preflight).await);
    checks
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    pub(super) fn named<'c>(checks: &'c [Check], name: &str) -> &'c Check {
        checks.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no check {name} in {checks:?}"))
    }

    /// A machine with these programs: shell scripts. What lies in `/usr/sbin` is there, too, unless it is among them.
    pub(super) fn with_programs(programs: &[(&str, &str)]) -> (tempfile::TempDir, Preflight) {
        let dir = tempfile::tempdir().unwrap();
        for (name, script) in programs {
            let file = dir.path().join(name);
            std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = dir.path().display().to_string();
        (dir, Preflight { path, ..Preflight::new(KvmOptions::default(), "/var/lib/arcus/agent") })
    }

    #[tokio::test]
    async fn each_thing_that_is_missing_is_told_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let kvm = KvmOptions {
            libvirt_socket: Some(dir.path().join("no-socket")),
            guest_device: "nothere0".into(),
            public_device: "lo".into(),
            ..KvmOptions::default()
        };
        let long = dir.path().join("a-folder-whose-name-is-far-too-long-for-sockets");
        // A port that nobody listens at.
        let port = testkit::free_port();
        let preflight = Preflight {
            endpoints: vec![format!("127.0.0.1:{port}"), "no port".into()],
            path: dir.path().display().to_string(),
            ..Preflight::new(kvm, &long)
        };
        let checks = check(&preflight).await;
        assert!(!passes(&checks));
        let libvirt = named(&checks, "libvirt");
        assert_eq!(libvirt.verdict, Verdict::Fail);
        assert!(libvirt.mend.as_ref().unwrap().contains("apt-get install libvirt-daemon-system"), "{libvirt}");
        let guest = named(&checks, "guest device");
        assert!(guest.verdict == Verdict::Fail && guest.text.contains("nothere0"), "{guest}");
        assert!(guest.mend.as_ref().unwrap().contains("ip link add nothere0 type bridge"), "{guest}");
        assert_eq!(named(&checks, "public device").verdict, Verdict::Warn, "lo is no bridge");
        let state = named(&checks, "state folder");
        assert!(state.verdict == Verdict::Fail && state.text.contains("40"), "{state}");
        for (name, package) in [("qemu-img", "qemu-utils"), ("haproxy", "haproxy"), ("dnsmasq", "dnsmasq-base")] {
            let tool = named(&checks, name);
            // What lies in /usr/sbin is found whatever the path says.
            if tool.verdict == Verdict::Fail {
                assert!(tool.mend.as_ref().unwrap().contains(package), "{tool}");
            }
        }
        assert_eq!(named(&checks, "qemu-img").verdict, Verdict::Fail);
        let endpoints: Vec<&Check> = checks.iter().filter(|c| c.name == "endpoint").collect();
        assert!(endpoints.len() == 2 && endpoints.iter().all(|c| c.verdict == Verdict::Fail), "{endpoints:?}");
        // One line a check, and one for the remedy.
        assert!(checks.iter().all(|c| c.to_string().lines().count() == if c.mend.is_some() { 2 } else { 1 }));
    }

    #[tokio::test]
    async fn what_is_there_is_found() {
        if !testkit::Libvirtd::available("what_is_there_is_found") {
            return;
        }
        let host = testkit::Libvirtd::start().await;
        let dir = tempfile::Builder::new().prefix("pf").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kvm = KvmOptions {
            libvirt_socket: Some(host.socket()),
            mount_root: dir.path().join("m"),
            ..KvmOptions::default()
        };
        let preflight = Preflight {
            endpoints: vec![listener.local_addr().unwrap().to_string()],
            ..Preflight::new(kvm, dir.path().join("s"))
        };
        let checks = check(&preflight).await;
        for name in [
            "root",
            "libvirt",
            "qemu",
            "qemu-img",
            "ip",
            "tc",
            "nsenter",
            "bridges",
            "veth",
            "nat",
            "state folder",
            "mount folder",
            "endpoint",
        ] {
            assert_eq!(named(&checks, name).verdict, Verdict::Ok, "{}", named(&checks, name));
        }
        // Hardware acceleration is there or it isn't: never a failure, and never a guess.
        assert!(named(&checks, "acceleration").verdict < Verdict::Fail);
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let state = check(&preflight).await;
        let state = named(&state, "state folder");
        assert!(state.verdict == Verdict::Fail && state.mend.as_ref().unwrap().contains("chmod o+x"), "{state}");
    }
}
