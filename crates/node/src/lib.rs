//! What every service starts from.
//!
//! A [`Node`] is one replica's set of handles: database, coordination, settings, channels to the other services, secrets,
//! the entrance for requests, and the background work that ends with it.

use config::Settings;
use contract::ApiError;
use coord::{Coord, Term};
use futures::FutureExt;
use rpc::{LocalNet, Peers, Rpc};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use store::Db;
use telemetry::metrics;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use vault::Vault;

/// Handles of one replica. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    /// The database.
    pub db: Db,
    /// Membership, elections, nudges.
    pub coord: Coord,
    /// The settings in force.
    pub settings: Settings,
    /// Channels to the other services.
    pub peers: Peers,
    /// Encryption of secrets at rest.
    pub vault: Vault,
    /// Where handlers let requests in.
    pub rpc: Rpc,
    /// Member id of this incarnation.
    pub replica: String,
    /// All background work of this replica.
    pub tasks: TaskTracker,
    /// Fires when this replica is to end.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("replica", &self.replica).finish_non_exhaustive()
    }
}

/// The vault as the settings use it.
struct SealSettings(Vault);

impl config::Seal for SealSettings {
    fn seal(&self, context: &str, plain: &str) -> String {
        self.0.seal(context, plain.as_bytes())
    }

    fn open(&self, context: &str, sealed: &str) -> Result<String, ApiError> {
        String::from_utf8(self.0.open_sealed(context, sealed)?)
            .map_err(|_| ApiError::internal(format!("what was sealed for {context} is no text")))
    }
}

/// An id for one incarnation of a replica.
pub fn replica_id(service: &str) -> String {
    format!("{service}-{}", model::new_uuid())
}

/// Figures of the database handle as metrics.
fn show(db: &Db) {
    let done = metrics::gauges("database_done", "Statements, commits and retried transactions since the start");
    let failovers = metrics::gauges("database_failovers", "How often another database node was taken into use");
    let well = metrics::gauges("database_well", "Whether a database node is in use");
    let (db, node) = (db.downgrade(), db.node());
    metrics::before_each_scrape(move || {
        let Some(db) = db.upgrade() else { return false };
        let stats = db.stats();
        for (what, count) in [("statements", stats.statements), ("commits", stats.commits), ("retries", stats.retries)]
        {
            done.get_or_create(&vec![("what", what.to_owned())]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let now = node.borrow();
        failovers.get_or_create(&Vec::new()).set(i64::try_from(now.failovers).unwrap_or(i64::MAX));
        well.get_or_create(&Vec::new()).set(i64::from(now.address.is_some()));
        true
    });
}

impl Node {
    /// Assembles a replica. The tables of `config` and `coord` exist by then.
    ///
    /// # Errors
    /// When the settings can't be read.
    pub async fn new(db: Db, coord: Coord, peers: Peers, vault: Vault, replica: String) -> Result<Node, ApiError> {
        let settings = Settings::load_sealed(&db, &coord, Some(Arc::new(SealSettings(vault.clone())))).await?;
        let rpc = Rpc::new(db.clone());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let node = Node { db, coord, settings, peers, vault, rpc, replica, tasks, stop };
        show(&node.db);
        node.spawn("outbox-nudges", events::forward_nudges(node.coord.clone()));
        Ok(node)
    }

    /// A replica for tests: in-process coordination and network, a vault that nothing survives. Creates the tables that
    /// a node itself needs (settings, duties), no others.
    ///
    /// # Panics
    /// When the database doesn't answer.
    #[allow(clippy::expect_used)] // a test that can't set up its parts has failed
    pub async fn for_tests(db: Db) -> (Node, Arc<LocalNet>) {
        db.migrate(coord::MIGRATIONS).await.expect("the tables of coord");
        db.migrate(config::MIGRATIONS).await.expect("the tables of config");
        let net = LocalNet::new();
        let peers = Peers::local(&net);
        let node = Node::new(db, Coord::local(), peers, Vault::ephemeral(), replica_id("test"));
        (node.await.expect("the settings"), net)
    }

    /// Runs background work until it ends or [`Node::stop`] fires, whichever is first. A panic is logged and ends it.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let work = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                ended = AssertUnwindSafe(work).catch_unwind() => if ended.is_err() {
                    tracing::error!("background work panicked");
                },
            }
        };
        self.tasks.spawn(work.instrument(tracing::info_span!("task", name)));
    }

    /// Campaigns for a singleton duty in the background, and runs `body` while leading ([`coord::run_duty`]).
    pub fn duty<F, Fut>(&self, name: &'static str, body: F)
    where
        F: Fn(Term) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (db, coord, replica, stop) = (self.db.clone(), self.coord.clone(), self.replica.clone(), self.stop.clone());
        self.spawn(name, async move { coord::run_duty(&db, &coord, name, &replica, stop, body).await });
    }

    /// Ends all background work; waits at most `patience` for it.
    pub async fn shut_down(&self, patience: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "background work didn't end in time");
        }
    }
}
