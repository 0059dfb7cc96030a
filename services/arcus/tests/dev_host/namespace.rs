//! A network namespace that stands for a machine's network.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use testkit::Place;

/// Removed when dropped.
pub struct Namespace(pub String);

impl Namespace {
    /// Without any device but `lo`.
    pub fn new() -> Namespace {
        static NAMES: AtomicU32 = AtomicU32::new(0);
        let name = format!("dm{}x{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
        let run = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success(), "ip {args:?}");
        run(&["netns", "add", &name]);
        run(&["-n", &name, "link", "set", "lo", "up"]);
        Namespace(name)
    }

    /// Where programs run in it.
    pub fn place(&self) -> Place {
        Place::namespace(&self.0, "127.0.0.1")
    }

    /// Its IPv4 addresses, as `ip` tells them.
    pub fn addresses(&self) -> String {
        let output = Command::new("ip").args(["-n", &self.0, "-o", "-4", "addr"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}
