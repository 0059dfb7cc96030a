//! A node in use, and its connections.

use super::Cluster;
use super::hosts::Host;
use super::session::{CATCH_UP, CAUSAL, READ_ONLY, SETUP};
use crate::{Error, Result};
use sqlx::Executor;
use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long a caller waits for a connection when all are at work.
const BUSY_LIMIT: Duration = Duration::from_secs(30);
/// How long a new node may take to apply what the cluster committed before. The others may have to agree first that a
/// dead node is dead.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(10);
/// How long transactions under way may go on when the node is left in good order.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// One node's connections, from when it is taken into use until it is given up.
pub(super) struct Node {
    /// Its place in the URL.
    pub index: usize,
    /// `host:port`.
    pub address: String,
    /// Whether it is a member of a Galera cluster.
    pub wsrep: bool,
    /// Its connections.
    pub pool: MySqlPool,
    gone: CancellationToken,
    suspicion: Arc<Notify>,
}

impl Node {
    /// Of `cluster`, the one at place `index` in its URL.
    pub(super) fn new(cluster: &Cluster, index: usize, host: &Host, wsrep: bool) -> Arc<Node> {
        let read_only = cluster.read_only;
        let pool = MySqlPoolOptions::new()
            .max_connections(cluster.connections.max(1))
            .acquire_timeout(BUSY_LIMIT)
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    connection.execute(SETUP).await?;
                    if wsrep {
                        connection.execute(CAUSAL).await?;
                    }
                    if read_only {
                        connection.execute(READ_ONLY).await?;
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(host.options.clone());
        let (address, suspicion) = (host.address.clone(), cluster.suspicion.clone());
        Arc::new(Node { index, address, wsrep, pool, gone: CancellationToken::new(), suspicion })
    }

    /// Makes sure that the node answers and has all that the cluster committed before now, so that nobody reads less
    /// than he wrote or read elsewhere.
    pub(super) async fn catch_up(&self) -> Result<()> {
        self.within(CATCH_UP_LIMIT, async {
            self.pool.acquire().await?.execute(CATCH_UP).await?;
            Ok(())
        })
        .await
    }

    /// The outcome of `work`, unless it takes longer than `limit` or the node is given up meanwhile.
    pub(super) async fn within<T>(&self, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            r = work => r,
            () = self.gone.cancelled() => Err(Error::Unavailable(format!("node {} was given up", self.address))),
            () = tokio::time::sleep(limit) => {
                Err(Error::Unavailable(format!("node {} didn't answer within {} s", self.address, limit.as_secs())))
            }
        }
    }

    /// Whether it was given up.
    pub(super) fn gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Waits until it is given up, at most `limit`.
    pub(super) async fn gone_within(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.gone.cancelled()).await;
    }

    /// Something failed that makes it worth to ask the node now how it is.
    pub(super) fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// Gives it up: what is under way ends with an error.
    pub(super) fn give_up(&self) {
        self.gone.cancel();
        let pool = self.pool.clone();
        // Says goodbye where somebody listens; connections at work are closed by who holds them.
        tokio::spawn(async move { tokio::time::timeout(LEAVE_LIMIT, pool.close()).await });
    }

    /// Lets what is under way end, if it does soon, and gives the node up.
    pub(super) async fn leave(&self) {
        let _ = tokio::time::timeout(LEAVE_LIMIT, self.pool.close()).await;
        self.gone.cancel();
    }
}
