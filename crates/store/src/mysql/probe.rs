//! Asking a node how it is.

use super::hosts::Host;
use crate::Error;
use sqlx::mysql::MySqlConnection;
use sqlx::{ConnectOptions, Executor, Row};
use std::time::Duration;

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It serves. `wsrep`: as a member of a Galera cluster.
    Well { wsrep: bool },
    /// It serves, but gives another node its data, for which it may stop writes.
    Donor,
    /// It says that it doesn't serve, or nobody listens.
    Unwell(String),
    /// It gives no answer in time: dead, paused, cut off, or very busy.
    Silent(String),
    /// It refuses us: a wrong password. Nothing that another attempt cures.
    Refused(String),
}

/// One node's standing connection for questions.
pub(crate) struct Probe {
    host: Host,
    open: Option<Open>,
    queue: Option<i64>,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its host holds a password.
        write!(f, "Probe({})", self.host.address)
    }
}

struct Open {
    connection: MySqlConnection,
    wsrep: bool,
}

impl Probe {
    pub(super) fn new(host: Host) -> Probe {
        Probe { host, open: None, queue: None }
    }

    /// `host:port`.
    pub(super) fn address(&self) -> &str {
        &self.host.address
    }

    /// How many write sets it had still to apply when it was asked last; `None` when it didn't say.
    pub(super) fn queue(&self) -> Option<i64> {
        self.queue
    }

    /// Asks, which takes at most `limit`. A connection that broke is made anew once: the server may have closed it.
    pub(super) async fn ask(&mut self, limit: Duration) -> Health {
        self.queue = None;
        match tokio::time::timeout(limit, self.answer()).await {
            Ok(health) => health,
            Err(_) => {
                self.open = None;
                Health::Silent(format!("no answer within {} ms", limit.as_millis()))
            }
        }
    }

    async fn answer(&mut self) -> Health {
        // Taken out, so that an answer that comes too late is never taken for the next one.
        if let Some(mut open) = self.open.take()
            && let Ok((health, queue)) = open.health().await
        {
            (self.open, self.queue) = (Some(open), queue);
            return health;
        }
        match self.connect().await {
            Ok(mut open) => match open.health().await {
                Ok((health, queue)) => {
                    (self.open, self.queue) = (Some(open), queue);
                    health
                }
                Err(e) => Health::Unwell(e.to_string()),
            },
            Err(e @ Error::Other(_)) => Health::Refused(e.to_string()),
            Err(e) => Health::Unwell(e.to_string()),
        }
    }

    async fn connect(&self) -> Result<Open, Error> {
        // The database may not exist yet.
        let mut connection = self.host.options.clone().database("").connect().await?;
        let ask = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('wsrep_on', 'wsrep_provider')";
        let found = pairs(&mut connection, ask).await?;
        let value = |name: &str| found.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let provider = value("wsrep_provider").is_some_and(|p| !p.is_empty() && p != "none");
        Ok(Open { connection, wsrep: provider && value("wsrep_on") == Some("ON") })
    }
}

impl Open {
    /// How the node is, and its queue.
    async fn health(&mut self) -> Result<(Health, Option<i64>), Error> {
        if !self.wsrep {
            self.connection.execute("SELECT 1").await?;
            return Ok((Health::Well { wsrep: false }, None));
        }
        let ask = "SHOW GLOBAL STATUS WHERE Variable_name IN \
                   ('wsrep_ready', 'wsrep_cluster_status', 'wsrep_local_state', 'wsrep_local_state_comment', \
                   'wsrep_local_recv_queue')";
        let found = pairs(&mut self.connection, ask).await?;
        let value = |name: &str| found.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
        let (ready, status, state) = (value("wsrep_ready"), value("wsrep_cluster_status"), value("wsrep_local_state"));
        let health = match (ready, status, state) {
            ("ON", "Primary", "4") => Health::Well { wsrep: true },
            ("ON", "Primary", "2") => Health::Donor,
            _ => {
                let comment = value("wsrep_local_state_comment");
                Health::Unwell(format!("wsrep_ready is {ready}, the component is {status}, the node is {comment}"))
            }
        };
        Ok((health, value("wsrep_local_recv_queue").parse().ok()))
    }
}

async fn pairs(connection: &mut MySqlConnection, ask: &'static str) -> Result<Vec<(String, String)>, Error> {
    let rows = connection.fetch_all(ask).await?;
    rows.iter().map(|r| Ok((r.try_get_unchecked::<String, _>(0)?, r.try_get_unchecked::<String, _>(1)?))).collect()
}
