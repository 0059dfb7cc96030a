//! Where servers run: addresses, network namespaces, folders.

use crate::Durability;
use std::path::{Path, PathBuf};

/// Where one server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The IP address it binds and that others reach it at. This process must reach it too.
    pub address: String,
    /// Put before the command: `["ip", "netns", "exec", NAME]`. It must become the command by exec, for signals.
    pub prefix: Vec<String>,
}

impl Default for Place {
    fn default() -> Self {
        Place { address: "127.0.0.1".into(), prefix: Vec::new() }
    }
}

impl Place {
    /// At `address` in the network namespace `name`, which exists and has that address.
    pub fn namespace(name: &str, address: impl Into<String>) -> Place {
        let prefix = ["ip", "netns", "exec", name].map(str::to_owned).to_vec();
        Place { address: address.into(), prefix }
    }

    pub(crate) fn command(&self, command: Vec<String>) -> Vec<String> {
        self.prefix.iter().cloned().chain(command).collect()
    }
}

/// How servers are started. The default is one on 127.0.0.1, in a temporary folder.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// One server for each.
    pub places: Vec<Place>,
    /// Each server has a folder of its own here, which stays; data found there is used. Absent: temporary folders.
    /// Everybody must be allowed to pass through it (servers of databases run as another user than root), and its
    /// path must be short (a socket's path has at most 107 bytes).
    pub dir: Option<PathBuf>,
    /// What a commit of a database waits for.
    pub durability: Durability,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions { places: vec![Place::default()], dir: None, durability: Durability::Process }
    }
}

impl ServerOptions {
    /// `n` servers on 127.0.0.1, in temporary folders.
    pub fn local(n: usize) -> ServerOptions {
        ServerOptions { places: vec![Place::default(); n], ..ServerOptions::default() }
    }
}

/// A server's folder, removed when dropped if it is temporary.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    pub(crate) fn new(parent: Option<&Path>, name: &str) -> Folder {
        let Some(parent) = parent else { return Folder { path: crate::temp_dir().keep(), keep: false } };
        let path = parent.join(name);
        std::fs::create_dir_all(&path).expect("the server's folder");
        Folder { path, keep: true }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file that the server's output goes to.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
