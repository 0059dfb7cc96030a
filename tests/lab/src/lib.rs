//! Machines with a kernel of their own, for what a test's machine can't do itself or must not: 802.1Q, NFS, IPsec, hosts that share nothing
//! and die alone. Emulated by QEMU, with Debian's cloud kernel and packages, on virtual switches in a network namespace; up in seconds,
//! and gone with the test however it ends. `README.md` tells how to use them.
//!
//! ```ignore
//! let Some(lab) = Lab::open("two machines").await else { return };
//! let lan = lab.switch("lan");
//! let (a, b) = tokio::join!(
//!     lab.machine("a").nic(&lan, "10.0.0.1/24").start(),
//!     lab.machine("b").nic(&lan, "10.0.0.2/24").start(),
//! );
//! a.run("ping -c 1 b").await;
//! ```
#![allow(clippy::expect_used, clippy::unwrap_used)] // a test that can't set up its lab has failed

mod agent;
mod image;
mod machine;
mod switch;

pub use agent::Output;
pub use image::Image;
pub use machine::{Builder, Machine};
pub use switch::Switch;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use testkit::{Place, Process};

/// A place for machines and switches: a network namespace and folders. Everything in it ends with the last machine and the lab itself.
#[derive(Clone, Debug)]
pub struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    test: String,
    begun: Instant,
    /// Of the namespace, and before the names of devices.
    name: String,
    image: Image,
    /// Disks and sockets; removed by the keeper, even if the test is killed.
    dir: PathBuf,
    /// Consoles and logs; they stay until the same test runs again.
    logs: PathBuf,
    /// Names of machines with their addresses, for `/etc/hosts`.
    hosts: Mutex<Vec<(String, String)>>,
    devices: AtomicU32,
    keeper: Option<Process>,
}

impl Lab {
    /// A lab of machines that have [`Image::BASE`]; `None` when this machine can't, which it says loudly. `test` names the folder of logs.
    ///
    /// # Panics
    /// When it can't be set up though nothing is missing.
    pub async fn open(test: &str) -> Option<Lab> {
        Lab::with_packages(test, &[]).await
    }

    /// The same with more packages in all machines. Each set is an image of its own (built in a minute or two, then kept): better a few
    /// sets for all tests than one for each; see [`Image::HYPERVISOR`].
    ///
    /// # Panics
    /// As [`Lab::open`].
    pub async fn with_packages(test: &str, packages: &[&str]) -> Option<Lab> {
        if let Some(why) = Image::missing(packages) {
            say(&format!("\n!!! SKIPPED: {test}: {why}\n"));
            return None;
        }
        sweep();
        static LABS: AtomicU32 = AtomicU32::new(0);
        let name = format!("lab{}x{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let begun = Instant::now();
        let image = Image::of(packages).await;
        let dir = tempfile(&name);
        let logs = image.logs(test);
        let _ = std::fs::remove_dir_all(&logs);
        std::fs::create_dir_all(&logs).expect("the folder of logs");
        let keeper = Process::start(&["sleep".into(), "infinity".into()], &logs.join("keeper.log"), Some(&dir));
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        let (test, hosts, devices, keeper) = (test.to_owned(), Mutex::default(), AtomicU32::new(0), Some(keeper));
        let inner = Inner { test, begun, name, image, dir, logs, hosts, devices, keeper };
        Some(Lab { inner: Arc::new(inner) })
    }

    /// A new switch.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn switch(&self, name: &str) -> Switch {
        Switch::new(self.inner.clone(), name)
    }

    /// A machine, to be told what it has and started.
    pub fn machine(&self, name: &str) -> Builder {
        Builder::new(self.inner.clone(), name)
    }

    /// The lab's own network namespace, from where machines are reached over switches in which the lab has an address
    /// ([`Switch::join`]): for control planes, clients and servers of the test's own. `address` is what they bind.
    pub fn place(&self, address: &str) -> Place {
        Place::namespace(&self.inner.name, address)
    }

    /// The name of that namespace.
    pub fn namespace(&self) -> &str {
        &self.inner.name
    }

    /// The first three bytes of a /24 that no other lab of this machine has: for switches that are [joined](Switch::join_here).
    pub fn own_network(&self) -> String {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        format!("10.{}.{low}", 64 | (high & 0x3f))
    }

    /// Says on the terminal how far the test has come, past the harness, which shows nothing of tests that pass: a lab takes minutes.
    pub fn done(&self, what: &str) {
        self.inner.done(what);
    }

    /// Where consoles and logs are.
    pub fn logs(&self) -> &Path {
        &self.inner.logs
    }
}

impl Inner {
    /// A new name for a device: unique in the namespace, at most 15 bytes.
    fn device(&self, kind: &str) -> String {
        format!("{kind}{}", self.devices.fetch_add(1, Ordering::Relaxed))
    }

    fn done(&self, what: &str) {
        say(&format!("lab {}: {:6.1} s: {what}", self.test, self.begun.elapsed().as_secs_f64()));
    }

    fn ip(&self, args: &str) -> String {
        ip(&format!("-n {} {args}", self.name))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keeper = None;
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A line on the terminal, past the capture of the test harness.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Where disks and sockets are: a short path, since a socket's has at most 107 bytes.
fn tempfile(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).expect("a folder");
    dir
}

/// Runs `ip`.
fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split(' ')).output().expect("ip (Debian package iproute2)");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Removes namespaces of test processes that were killed.
fn sweep() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("lab").and_then(|rest| rest.split_once('x')).and_then(|(pid, _)| pid.parse().ok());
        let Some(pid) = pid else { continue };
        let _: u32 = pid;
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}
