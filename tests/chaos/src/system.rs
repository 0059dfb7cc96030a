//! What is hurt: a running system, as far as the kill loop needs to know it.

pub mod cluster;
pub mod dev;

use anyhow::Result;
use async_trait::async_trait;
use std::path::PathBuf;

/// A process that can be hurt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name, "orchestrator-1".
    pub name: String,
    /// Those of a group stand in for each other.
    pub group: String,
    /// How many of its group may be away at a time without anybody being told "not now" for longer than a moment.
    /// A group of agents has as many as there are: a host that is away is no failure of the control plane.
    pub spare: usize,
}

/// A running system.
#[async_trait]
pub trait System: Send + Sync {
    /// What can be hurt.
    fn parts(&self) -> Vec<Part>;
    /// `kill -9`.
    async fn kill(&self, name: &str);
    /// SIGTERM, and waits for the end.
    async fn stop(&self, name: &str);
    /// Starts it again; waits until it is ready.
    async fn restart(&self, name: &str) -> Result<()>;
    /// SIGSTOP.
    fn pause(&self, name: &str);
    /// SIGCONT.
    fn resume(&self, name: &str);
    /// Whether parts can be cut off.
    fn can_partition(&self) -> bool {
        false
    }
    /// Cuts it off from all others.
    async fn partition(&self, _name: &str) {}
    /// Ends that.
    async fn heal(&self, _name: &str) {}
    /// Waits until the group of a part that was mended can bear the next loss.
    ///
    /// # Errors
    /// When it doesn't come to that.
    async fn well(&self, _name: &str) -> Result<()> {
        Ok(())
    }
    /// The query API of each gateway (URLs).
    fn endpoints(&self) -> Vec<String>;
    /// The query API that clients use (URL): a balancer's, or the only gateway's.
    fn front(&self) -> String;
    /// API key and secret key of an administrator.
    fn keys(&self) -> (String, String);
    /// The database.
    fn database_url(&self) -> String;
    /// Where agents keep their state.
    fn agent_states(&self) -> Vec<PathBuf>;
    /// A file with what a part said.
    fn log(&self, name: &str) -> PathBuf;
}
