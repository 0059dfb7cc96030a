//! Tells operators how the database's nodes are (OPS-147, OPS-148): another one is used, one has left, doesn't keep in
//! step, or has come back, by events of alerts; how each is now, by metrics.
//!
//! One replica's duty, which sees what all see: they prefer the same nodes in the same order. What was told last is in
//! the database, so that nothing is told twice, and what changed while nobody watched is told by the next.

use crate::store::database_nodes;
use ::store::{NodeHealth, NodeInUse, NodeState};
use coord::Term;
use events::{Alert, Record};
use node::Node;
use std::collections::HashMap;
use std::time::Duration;
use telemetry::metrics::{Gauges, gauges};
use tokio::time::Instant;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a node must be away before that counts: it may only be slow.
const AWAY: Duration = Duration::from_millis(1_500);
/// How long a node must be out of step before that counts: whoever lets another one join is for a moment.
const APART: Duration = Duration::from_secs(15);

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It serves with all there is.
    Well,
    /// It serves and doesn't keep in step.
    Apart,
    /// It doesn't serve.
    Away,
}

/// What is told of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub address: String,
    pub state: State,
    pub in_use: bool,
}

/// Watches while leading.
pub async fn watch(node: Node, term: Term) {
    let (mut survey, mut in_use) = (node.db.survey(), node.db.node());
    let mut told: Option<Vec<Seen>> = None;
    if survey.is_empty() {
        // An embedded database is one thing for ever.
        return std::future::pending().await;
    }
    let mut settling = loop {
        match database_nodes::read(&node.db).await {
            Ok(told) => break Settling::new(told),
            Err(error) => tracing::warn!(%error, "what was told of the database's nodes can't be read yet"),
        }
        tokio::time::sleep(LOOK).await;
    };
    let metrics = Metrics::new();
    loop {
        let found = survey.ask().await;
        let used = in_use.borrow_and_update().clone();
        metrics.show(&found, &used);
        let states = settling.states(&found, Instant::now());
        // Without any node in use there is nowhere to write to.
        if used.address.is_some() {
            let now: Vec<Seen> = states
                .into_iter()
                .map(|(address, state)| Seen { in_use: used.address.as_ref() == Some(&address), address, state })
                .collect();
            if told.as_ref() != Some(&now) {
                match tell(&node, &term, &found, &used, &now).await {
                    Ok(()) => told = Some(now),
                    Err(_) if term.is_lost() => return,
                    Err(error) => tracing::warn!(%error, "how the database's nodes are can't be recorded yet"),
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            // Ends with the database handle, which this node holds.
            _ = in_use.changed() => {}
        }
    }
}

async fn tell(
    node: &Node,
    term: &Term,
    found: &[NodeHealth],
    used: &NodeInUse,
    now: &[Seen],
) -> Result<(), contract::ApiError> {
    let news = ::store::tx!(node.db, "database-nodes", |tx| {
        term.fence(tx).await?;
        let news = news(&database_nodes::told(tx).await?, now, found, used);
        database_nodes::replace(tx, now).await?;
        let records: Vec<Record> = news.iter().map(News::record).collect();
        events::record(tx, &records).await?;
        Ok::<_, contract::ApiError>(news)
    })
    .await?;
    for news in news {
        if news.bad {
            tracing::warn!("{}", news.text);
        } else {
            tracing::info!("{}", news.text);
        }
    }
    Ok(())
}

/// Something to tell.
#[derive(Debug, PartialEq, Eq)]
struct News {
    text: String,
    /// It is a trouble, not the end of one.
    bad: bool,
}

impl News {
    fn record(&self) -> Record {
        let alert = Alert::management("Database", "nodes");
        if self.bad { alert.raise(self.text.as_str()) } else { alert.clear(self.text.as_str()) }
    }
}

/// What has changed since `before` was told.
fn news(before: &[Seen], now: &[Seen], found: &[NodeHealth], used: &NodeInUse) -> Vec<News> {
    let health = |address: &str| found.iter().find(|f| f.address == address);
    let mut news = Vec::new();
    let old = before.iter().find(|b| b.in_use).map(|b| b.address.as_str());
    if let (Some(old), Some(new)) = (old, used.address.as_deref())
        && old != new
    {
        // A move between nodes that are well is the return to the one that comes first.
        let bad = health(old).is_none_or(|h| h.state != NodeState::Well);
        let text = format!("Database node {new} is used instead of {old}: {}", used.reason);
        news.push(News { text, bad });
    }
    for node in now {
        let (address, known) = (&node.address, before.iter().find(|b| b.address == node.address).map(|b| b.state));
        let health = health(address);
        match (known, node.state) {
            (Some(State::Apart | State::Away), State::Well) => {
                news.push(News { text: format!("Database node {address} is back and keeps in step"), bad: false });
            }
            (None | Some(State::Well | State::Apart), State::Away) => {
                let why = match health.map(|h| &h.state) {
                    Some(NodeState::Away(why)) => why.as_str(),
                    _ => "it doesn't serve",
                };
                news.push(News { text: format!("Database node {address} has left: {why}"), bad: true });
            }
            (None | Some(State::Well), State::Apart) => {
                let queue = health.and_then(|h| h.queue).unwrap_or(0);
                let text =
                    format!("Database node {address} doesn't keep in step: {queue} write sets are to be applied");
                news.push(News { text, bad: true });
            }
            // One that is away may be out of step on its way back.
            (Some(State::Away), State::Apart) => {}
            (None, State::Well) | (Some(State::Well), State::Well) => {}
            (Some(State::Apart), State::Apart) | (Some(State::Away), State::Away) => {}
        }
    }
    news
}

/// Which states have lasted long enough to count. Who is new here is taken to be well.
struct Settling(HashMap<String, Settled>);

struct Settled {
    counts: State,
    /// What it is lately, and since when.
    lately: Option<(State, Instant)>,
}

impl Settling {
    fn new(told: Vec<Seen>) -> Settling {
        Settling(told.into_iter().map(|t| (t.address, Settled { counts: t.state, lately: None })).collect())
    }

    fn states(&mut self, found: &[NodeHealth], now: Instant) -> Vec<(String, State)> {
        let state = |health: &NodeHealth| {
            let (state, time) = match health.state {
                NodeState::Well => (State::Well, Duration::ZERO),
                NodeState::Apart => (State::Apart, APART),
                NodeState::Away(_) => (State::Away, AWAY),
            };
            let new = || Settled { counts: State::Well, lately: None };
            let settled = self.0.entry(health.address.clone()).or_insert_with(new);
            let since = settled.lately.filter(|(s, _)| *s == state).map_or(now, |(_, since)| since);
            settled.lately = Some((state, since));
            if now - since >= time {
                settled.counts = state;
            }
            (health.address.clone(), settled.counts)
        };
        found.iter().map(state).collect()
    }
}

/// Figures of the nodes, by address, while this replica watches.
struct Metrics {
    state: Gauges,
    in_use: Gauges,
    queue: Gauges,
}

impl Metrics {
    fn new() -> Metrics {
        Metrics {
            state: gauges("database_node_state", "How a database node is: 2 well, 1 out of step, 0 away"),
            in_use: gauges("database_node_in_use", "Whether a database node is the one in use (1) or stands by (0)"),
            queue: gauges("database_node_queue", "How far a database node lags: write sets that it has still to apply"),
        }
    }

    fn show(&self, found: &[NodeHealth], used: &NodeInUse) {
        for node in found {
            let labels = vec![("node", node.address.clone())];
            let state = match node.state {
                NodeState::Well => 2,
                NodeState::Apart => 1,
                NodeState::Away(_) => 0,
            };
            self.state.get_or_create(&labels).set(state);
            self.in_use.get_or_create(&labels).set(i64::from(used.address.as_ref() == Some(&node.address)));
            match node.queue {
                Some(queue) => drop(self.queue.get_or_create(&labels).set(queue)),
                None => drop(self.queue.remove(&labels)),
            }
        }
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        // Another replica's figures count from now on.
        for family in [&self.state, &self.in_use, &self.queue] {
            family.clear();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that can't go on has failed
mod tests {
    use super::*;

    fn seen(address: &str, state: State, in_use: bool) -> Seen {
        Seen { address: address.to_owned(), state, in_use }
    }

    fn health(address: &str, state: NodeState) -> NodeHealth {
        NodeHealth { address: address.to_owned(), state, queue: Some(7) }
    }

    fn told(before: &[Seen], now: &[Seen], found: &[NodeHealth]) -> Vec<(String, bool)> {
        let address = now.iter().find(|n| n.in_use).map(|n| n.address.clone());
        let used = NodeInUse { address, reason: "so".into(), ..NodeInUse::default() };
        news(before, now, found, &used).into_iter().map(|n| (n.text, n.bad)).collect()
    }

    #[test]
    fn what_changes_is_told_once() {
        use State::{Apart, Away, Well};
        let gone = || NodeState::Away("dead".into());
        let well = [seen("a", Well, true), seen("b", Well, false)];
        let all_well = [health("a", NodeState::Well), health("b", NodeState::Well)];
        assert_eq!(told(&[], &well, &all_well), []);
        assert_eq!(told(&well, &well, &all_well), []);

        let over = [seen("a", Away, false), seen("b", Well, true)];
        let found = [health("a", gone()), health("b", NodeState::Well)];
        let used = ("Database node b is used instead of a: so".to_owned(), true);
        let left = ("Database node a has left: dead".to_owned(), true);
        assert_eq!(told(&well, &over, &found), [used, left]);
        assert_eq!(told(&over, &over, &found), []);
        let back = [seen("a", Well, false), seen("b", Well, true)];
        let rejoined = ("Database node a is back and keeps in step".to_owned(), false);
        assert_eq!(told(&over, &back, &all_well), std::slice::from_ref(&rejoined));
        // A new leader that finds all of it at once.
        assert_eq!(told(&over, &well, &all_well)[0], ("Database node a is used instead of b: so".to_owned(), false));

        let apart = [seen("a", Well, true), seen("b", Apart, false)];
        let found = [health("a", NodeState::Well), health("b", NodeState::Apart)];
        let text = "Database node b doesn't keep in step: 7 write sets are to be applied".to_owned();
        assert_eq!(told(&well, &apart, &found), [(text, true)]);
        let away = [seen("a", Well, true), seen("b", Away, false)];
        assert_eq!(told(&away, &apart, &found), []);
    }

    #[test]
    fn what_passes_quickly_does_not_count() {
        let (mut settling, begun) = (Settling::new(vec![seen("c", State::Away, false)]), Instant::now());
        let mut states = |millis: u64, of: [NodeState; 3]| {
            let found: Vec<NodeHealth> = ["a", "b", "c"].iter().zip(of).map(|(a, s)| health(a, s)).collect();
            let states = settling.states(&found, begun + Duration::from_millis(millis));
            states.into_iter().map(|(_, state)| state).collect::<Vec<_>>()
        };
        use NodeState::{Apart, Well};
        let gone = || NodeState::Away("dead".into());
        assert_eq!(states(0, [gone(), Apart, gone()]), [State::Well, State::Well, State::Away]);
        assert_eq!(states(1_000, [Well, Apart, Apart]), [State::Well, State::Well, State::Away]);
        assert_eq!(states(2_000, [gone(), Apart, Apart]), [State::Well, State::Well, State::Away]);
        assert_eq!(states(3_500, [gone(), Apart, Apart]), [State::Away, State::Well, State::Away]);
        assert_eq!(states(15_000, [Well, Apart, Apart]), [State::Well, State::Apart, State::Away]);
        assert_eq!(states(15_100, [Well, Apart, Well]), [State::Well, State::Apart, State::Well]);
    }
}
