//! The production form: replicas of each service, etcd and a database cluster.

use super::{Part, System};
use anyhow::Result;
use async_trait::async_trait;
use cluster::{Cluster, Kind, Options};
use std::path::PathBuf;

/// A cluster as the kill loop sees it.
pub struct Production {
    cluster: Cluster,
    options: Options,
}

impl Production {
    /// Starts it.
    ///
    /// # Errors
    /// What doesn't start.
    pub async fn start(options: Options) -> Result<Production> {
        Ok(Production { cluster: Cluster::start(options.clone()).await?, options })
    }

    /// The cluster itself.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn spare(&self, kind: Kind) -> usize {
        match kind {
            Kind::Service(_) => self.options.replicas.saturating_sub(1),
            Kind::Etcd => self.options.etcd.saturating_sub(1) / 2,
            Kind::Database => self.options.galera.saturating_sub(1) / 2,
            Kind::Agent => 1,
            // There is one, and it isn't ours.
            Kind::Balancer => 0,
        }
    }
}

#[async_trait]
impl System for Production {
    fn parts(&self) -> Vec<Part> {
        let part = |p: cluster::Part| Part { group: p.kind.to_string(), spare: self.spare(p.kind), name: p.name };
        self.cluster.parts().into_iter().map(part).filter(|p| p.group != "balancer").collect()
    }

    async fn kill(&self, name: &str) {
        self.cluster.kill(name).await;
    }

    async fn stop(&self, name: &str) {
        self.cluster.stop(name).await;
    }

    async fn restart(&self, name: &str) -> Result<()> {
        self.cluster.restart(name).await
    }

    fn pause(&self, name: &str) {
        self.cluster.pause(name);
    }

    fn resume(&self, name: &str) {
        self.cluster.resume(name);
    }

    fn can_partition(&self) -> bool {
        self.options.isolated
    }

    async fn partition(&self, name: &str) {
        self.cluster.partition(name).await;
    }

    async fn heal(&self, name: &str) {
        self.cluster.heal(name).await;
    }

    fn endpoints(&self) -> Vec<String> {
        self.cluster.endpoints()
    }

    fn front(&self) -> String {
        self.cluster.api().endpoint.clone()
    }

    fn keys(&self) -> (String, String) {
        (self.cluster.api().key.clone(), self.cluster.api().secret.clone())
    }

    fn database_url(&self) -> String {
        self.cluster.database_url()
    }

    fn agent_states(&self) -> Vec<PathBuf> {
        vec![self.cluster.dir().join("agent")]
    }

    fn log(&self, name: &str) -> PathBuf {
        self.cluster.logs(name)
    }
}
