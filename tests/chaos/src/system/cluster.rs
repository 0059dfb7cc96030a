//! The production form: replicas of each service, etcd and a database cluster.

use super::{Part, System};
use anyhow::{Result, bail};
use async_trait::async_trait;
use cluster::{Cluster, Kind, Options};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long all nodes of a database have to be in step before the next one may be hurt: longer than they take to suspect.
const AGREED: Duration = Duration::from_secs(3);
/// Longest wait for that.
const WELL_IN: Duration = Duration::from_secs(90);

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

    /// Three nodes of a database bear the loss of one, but not of a second one while they still agree who is left: for that
    /// they need longer than to suspect each other. Nobody but an operator can make a majority of a minority.
    async fn well(&self, name: &str) -> Result<()> {
        let all = self.cluster.parts();
        let Some(kind) = all.iter().find(|p| p.name == name).map(|p| p.kind) else { return Ok(()) };
        if kind != Kind::Database {
            return Ok(());
        }
        let nodes: Vec<&str> = all.iter().filter(|p| p.kind == kind).map(|p| p.name.as_str()).collect();
        let (begun, mut since) = (Instant::now(), None);
        loop {
            let ready = futures::future::join_all(nodes.iter().map(|node| self.cluster.ready(node))).await;
            if ready.contains(&false) {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() > AGREED {
                return Ok(());
            }
            if begun.elapsed() > WELL_IN {
                bail!("the nodes of the database don't find together again");
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
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
