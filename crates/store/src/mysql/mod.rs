//! MySQL-compatible servers: one, or the nodes of a cluster of which one is used at a time.

mod hosts;
mod node;
mod probe;
mod session;
mod survey;
mod watch;

pub(crate) use session::Transaction;
pub use survey::{NodeHealth, NodeState, Survey};

use crate::db::DbConfig;
use crate::row::Row;
use crate::sql::Sql;
use crate::{Error, Result};
use hosts::Host;
use node::Node;
use probe::{Health, Probe};
use session::Session;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch as channel};
use tokio::task::AbortHandle;

/// How long a caller waits while no node is well.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts of a caller whose connection failed.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// A statement that defines tables may rebuild a large one.
const DEFINE_LIMIT: Duration = Duration::from_secs(3_600);
const DEFINE_ATTEMPTS: u32 = 10;
/// Creating the database.
const CREATE_LIMIT: Duration = Duration::from_secs(30);

/// The database node in use, as metrics and alerts show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInUse {
    /// `host:port`; `None` while no node is well.
    pub address: Option<String>,
    /// The one before.
    pub before: Option<String>,
    /// Why it is used, or why the one before is not.
    pub reason: String,
    /// How many times another node was taken into use since the start.
    pub failovers: u64,
}

/// The nodes of one URL.
pub(crate) struct Cluster {
    hosts: Vec<Host>,
    connections: u32,
    settle: Duration,
    read_only: bool,
    state: channel::Sender<State>,
    in_use: channel::Sender<NodeInUse>,
    suspicion: Arc<Notify>,
}

#[derive(Clone)]
enum State {
    /// This node is used.
    Open(Arc<Node>),
    /// None is, for this reason.
    Waiting(String),
    /// The program closed the database.
    Closed,
}

/// A cluster and the task that watches it; dropped, the task ends.
pub(crate) struct Watched {
    cluster: Arc<Cluster>,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::ops::Deref for Watched {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Cluster {
    /// Finds the first node that is well, creates the database there if need be and may, and watches from then on.
    pub(crate) async fn connect(config: &DbConfig) -> Result<Watched> {
        let hosts = hosts::parse(&config.url)?;
        let mut probes: Vec<Probe> = hosts.iter().cloned().map(Probe::new).collect();
        let (index, wsrep) = search(&mut probes).await?;
        if let Some(host) = hosts.get(index) {
            let prepare =
                async { if config.read_only { find_database(host).await } else { create_database(host).await } };
            tokio::time::timeout(CREATE_LIMIT, prepare)
                .await
                .map_err(|_| Error::Unavailable("the database couldn't be created in time".into()))??;
        }
        let cluster = Arc::new(Cluster {
            hosts,
            connections: config.connections,
            settle: config.settle,
            read_only: config.read_only,
            state: channel::Sender::new(State::Waiting("no node has been used yet".into())),
            in_use: channel::Sender::default(),
            suspicion: Arc::new(Notify::new()),
        });
        cluster.take(index, wsrep, "it is the first that is well").await;
        let task = tokio::spawn(watch::watch(cluster.clone(), probes)).abort_handle();
        Ok(Watched { cluster, task })
    }

    /// All rows of a SELECT outside any transaction; asked again, elsewhere if need be, when the connection fails.
    pub(crate) async fn select(&self, sql: Sql) -> Result<Vec<Row>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut session = self.session(deadline).await?;
            match session.all(sql.clone()).await {
                Err(Error::Unavailable(_)) if Instant::now() < deadline => tokio::time::sleep(RETRY_PAUSE).await,
                other => return other,
            }
        }
    }

    /// Runs a statement that defines tables, outside any transaction (it would commit one), and again when a node fails:
    /// it must be harmless when run twice.
    pub(crate) async fn define(&self, sql: Sql) -> Result<u64> {
        let mut attempts = 0;
        loop {
            let outcome = match self.session(Instant::now() + PATIENCE).await {
                Ok(mut session) => session.exec(sql.clone(), DEFINE_LIMIT).await,
                Err(e) => Err(e),
            };
            match outcome {
                Err(Error::Retry(_) | Error::Unavailable(_)) if attempts < DEFINE_ATTEMPTS => {
                    attempts += 1;
                    tokio::time::sleep(RETRY_PAUSE * attempts).await;
                }
                other => return other,
            }
        }
    }

    /// Begins a transaction on the node in use.
    pub(crate) async fn begin(&self) -> Result<Transaction> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.session(deadline).await?.begin().await {
                Err(Error::Unavailable(_)) if Instant::now() < deadline => tokio::time::sleep(RETRY_PAUSE).await,
                other => return other,
            }
        }
    }

    /// The node in use, now and from now on.
    pub(crate) fn in_use(&self) -> channel::Receiver<NodeInUse> {
        self.in_use.subscribe()
    }

    /// What asks all nodes how they are.
    pub(crate) fn survey(&self) -> Survey {
        Survey::new(self.hosts.iter().cloned().map(Probe::new).collect())
    }

    /// Closes all connections after the statements under way.
    pub(crate) async fn close(&self) {
        if let State::Open(node) = self.state.send_replace(State::Closed) {
            node.leave().await;
        }
    }

    /// A connection to the node in use.
    async fn session(&self, deadline: Instant) -> Result<Session> {
        loop {
            let node = self.node(deadline).await?;
            let acquired = node.within(PATIENCE * 10, async { Ok(node.pool.acquire().await) }).await;
            match acquired {
                Ok(Ok(connection)) => return Ok(Session::new(connection, node)),
                // Given up meanwhile: the next one is waited for.
                Err(_) | Ok(Err(sqlx::Error::PoolClosed)) if Instant::now() < deadline => {}
                Ok(Err(e @ sqlx::Error::Io(_))) if Instant::now() < deadline => {
                    tracing::debug!(node = node.address, error = %e, "connecting failed");
                    node.suspect();
                }
                Ok(Err(e)) => return Err(e.into()),
                Err(e) => return Err(e),
            }
            node.gone_within(RETRY_PAUSE).await;
        }
    }

    async fn node(&self, deadline: Instant) -> Result<Arc<Node>> {
        let mut states = self.state.subscribe();
        let wait = states.wait_for(|s| !matches!(s, State::Waiting(_)));
        let state = match tokio::time::timeout_at(deadline.into(), wait).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => State::Closed,
            Err(_) => self.state.borrow().clone(),
        };
        match state {
            State::Open(node) => Ok(node),
            State::Waiting(why) => Err(Error::Unavailable(format!("no database node is well: {why}"))),
            State::Closed => Err(Error::Unavailable("the database is closed".into())),
        }
    }

    /// Takes a node into use. When it fails at once, none is used.
    async fn take(&self, index: usize, wsrep: bool, reason: &str) {
        let Some(host) = self.hosts.get(index) else { return };
        let node = Node::new(self, index, host, wsrep);
        if let Err(e) = node.catch_up().await {
            tracing::warn!(node = node.address, error = %e, "the database node can't be used");
            node.give_up();
            return;
        }
        let taken = self.state.send_if_modified(|state| {
            let waiting = matches!(state, State::Waiting(_));
            if waiting {
                *state = State::Open(node.clone());
            }
            waiting
        });
        if !taken {
            node.give_up();
            return;
        }
        tracing::info!(node = node.address, reason, "the database node in use");
        self.in_use.send_modify(|seen| {
            let before = seen.address.take().or_else(|| seen.before.take());
            let moved = before.as_ref().is_some_and(|b| *b != node.address);
            seen.failovers += u64::from(moved);
            seen.address = Some(node.address.clone());
            seen.before = before;
            seen.reason = reason.to_owned();
        });
    }

    /// Ends the use of a node that fails: callers that wait for it get an error.
    fn give_up(&self, node: &Node, reason: &str) {
        tracing::warn!(node = node.address, reason, "the database node is given up");
        self.unused(node, reason);
        node.give_up();
    }

    /// Ends the use of a node that is well: new callers wait while what is under way ends.
    async fn leave(&self, node: &Node) {
        self.unused(node, "the node is left for a better one");
        node.leave().await;
    }

    fn unused(&self, node: &Node, reason: &str) {
        self.state.send_if_modified(|state| {
            let open = matches!(state, State::Open(_));
            if open {
                *state = State::Waiting(format!("{}: {reason}", node.address));
            }
            open
        });
        self.in_use.send_modify(|seen| {
            seen.before = seen.address.take();
            seen.reason = reason.to_owned();
        });
    }
}

/// The first node that is well, waited for.
async fn search(probes: &mut [Probe]) -> Result<(usize, bool)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let unwell = match watch::first_well(probes).await {
            Ok(found) => return Ok(found),
            Err(unwell) => unwell,
        };
        let mut why = String::new();
        for health in unwell {
            match health {
                Health::Refused(reason) => return Err(Error::Other(reason)),
                Health::Unwell(reason) | Health::Silent(reason) => why = reason,
                Health::Donor => why = "the node gives another one its data".into(),
                Health::Well { .. } => {}
            }
        }
        if Instant::now() > deadline {
            return Err(Error::Unavailable(format!("no database node is well: {why}")));
        }
        tokio::time::sleep(RETRY_PAUSE * 2).await;
    }
}

/// Says that there is no such database, which a pool of connections would not.
async fn find_database(host: &Host) -> Result<()> {
    Ok(sqlx::Connection::close(host.options.connect().await?).await?)
}

async fn create_database(host: &Host) -> Result<()> {
    let Some(name) = host.options.get_database() else { return Ok(()) };
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Error::Other(format!("a database name of letters, digits and _ is wanted, not {name:?}")));
    }
    // The empty name leaves the session without a default database.
    let mut connection = host.options.clone().database("").connect().await?;
    let text = format!("CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
    connection.execute(AssertSqlSafe(text)).await?;
    sqlx::Connection::close(connection).await?;
    Ok(())
}
