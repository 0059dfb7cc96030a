//! How all nodes are, whether they are used or not: for metrics, events and alerts (OPS-147, OPS-148).

use super::probe::{Health, Probe};
use futures::future::join_all;
use std::time::Duration;

/// A node that doesn't answer within this time counts as away.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How a database node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It serves, with all that is committed.
    Well,
    /// It serves, but doesn't keep in step with the others: it gives one of them its data, or was told not to.
    Apart,
    /// It doesn't serve: dead, cut off, or joining again. Why, for people.
    Away(String),
}

/// A database node as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeHealth {
    /// `host:port`.
    pub address: String,
    /// How it is.
    pub state: NodeState,
    /// Write sets of the others that it has received and not applied yet; `None` when it didn't say.
    pub queue: Option<i64>,
}

/// Asks all nodes over connections of its own, one to each.
#[derive(Debug, Default)]
pub struct Survey {
    probes: Vec<Probe>,
}

impl Survey {
    pub(crate) fn new(probes: Vec<Probe>) -> Survey {
        Survey { probes }
    }

    /// Whether there are no nodes to ask: the database is embedded.
    pub fn is_empty(&self) -> bool {
        self.probes.is_empty()
    }

    /// Asks all at once, which takes at most a second. They come in the order of the URL; an embedded database has none.
    pub async fn ask(&mut self) -> Vec<NodeHealth> {
        join_all(self.probes.iter_mut().map(|probe| async {
            let state = match probe.ask(ANSWER_LIMIT).await {
                Health::Well { .. } => NodeState::Well,
                Health::Donor => NodeState::Apart,
                Health::Unwell(why) | Health::Silent(why) | Health::Refused(why) => NodeState::Away(why),
            };
            NodeHealth { address: probe.address().to_owned(), state, queue: probe.queue() }
        }))
        .await
    }
}
