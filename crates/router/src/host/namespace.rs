//! Network namespaces.

use super::HostError;
use super::tools;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// The one of this process.
    Own,
    /// The one whose file this is.
    At(PathBuf),
}

impl Namespace {
    /// The one that `ip netns` knows by a name.
    pub fn named(name: &str) -> Namespace {
        Namespace::At(PathBuf::from(NAMES).join(name))
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        match self {
            Namespace::Own => PathBuf::from("/proc/self/ns/net"),
            Namespace::At(path) => path.clone(),
        }
    }

    /// The number that tells it from others, while it lives.
    ///
    /// # Errors
    /// There is no such namespace.
    pub fn number(&self) -> std::io::Result<u64> {
        std::fs::metadata(self.path()).map(|m| m.ino())
    }

    /// Runs `work` in this namespace, on a thread of its own. What it opens (sockets) belongs to the namespace and may be
    /// used anywhere. Blocks until it is done.
    ///
    /// # Errors
    /// The namespace isn't there, or can't be entered.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
        let file = match self {
            Namespace::Own => None,
            Namespace::At(path) => Some(std::fs::File::open(path)?),
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, move || {
                if let Some(file) = file {
                    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                }
                Ok(work())
            })?;
            thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the work in a namespace panicked")))
        })
    }

    /// The same without blocking the runtime.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HostError> {
        let namespace = self.clone();
        let done = tokio::task::spawn_blocking(move || namespace.within(work)).await;
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(HostError::failed(format!("network namespace {}", self.path().display()), error)),
            Err(error) => Err(HostError::failed("a thread", error)),
        }
    }
}

/// Makes a namespace, unless it is there.
pub(crate) async fn ensure(name: &str) -> Result<(), HostError> {
    let namespace = Namespace::named(name);
    // A kill, or a reboot, may leave the file without the namespace: then both numbers are those of a plain file.
    let file = std::fs::metadata(namespace.path()).map(|m| m.dev());
    if let (Ok(device), Ok(own)) = (file, std::fs::metadata("/proc/self/ns/net")) {
        if device == own.dev() {
            return Ok(());
        }
        let _ = std::fs::remove_file(namespace.path());
    }
    tools::run("ip", &["netns", "add", name]).await.map(|_| ())
}

/// Removes a namespace, and with it all links in it.
pub(crate) async fn remove(name: &str) -> Result<(), HostError> {
    if !Namespace::named(name).path().exists() {
        return Ok(());
    }
    tools::run("ip", &["netns", "del", name]).await.map(|_| ())
}
