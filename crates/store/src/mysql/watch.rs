//! The loop that watches the nodes and decides which one is used.
//!
//! All services of an installation use the first node that is well, in the order of their URL: writers on one node don't
//! conflict at commit. A node that fails is left within about two seconds. A node further ahead is used again when it has
//! been well for a while.

use super::node::Node;
use super::probe::{Health, Probe};
use super::{Cluster, State};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two questions to a node that is well.
const INTERVAL: Duration = Duration::from_millis(500);
/// While none is.
const SEARCH_INTERVAL: Duration = Duration::from_millis(200);
/// An answer of the node in use takes at most so long.
const ANSWER_LIMIT: Duration = Duration::from_millis(1_400);
/// An answer of a node that might be used.
const OFFER_LIMIT: Duration = Duration::from_secs(1);
/// So many times the only node may be silent before it is given up: giving it up ends what waits for it.
const SILENCES: u32 = 3;
/// So many times it may say that it doesn't serve, or gives another node its data: what that node missed is sent quickly.
const REFUSALS: u32 = 2;

/// The first of `probes` that is well: its place and whether it is a member of a Galera cluster.
pub(super) async fn first_well(probes: &mut [Probe]) -> Result<(usize, bool), Vec<Health>> {
    let mut answers: FuturesOrdered<_> = probes.iter_mut().map(|p| p.ask(OFFER_LIMIT)).collect();
    let mut others = Vec::new();
    while let Some(health) = answers.next().await {
        match health {
            Health::Well { wsrep } => return Ok((others.len(), wsrep)),
            other => others.push(other),
        }
    }
    Err(others)
}

/// Watches until the task is aborted.
pub(super) async fn watch(cluster: Arc<Cluster>, mut probes: Vec<Probe>) {
    let mut failures = 0;
    // The node further ahead that is well, and since when.
    let mut better: Option<(usize, Instant)> = None;
    loop {
        let state = cluster.state.borrow().clone();
        let pause = if matches!(state, State::Open(_)) { INTERVAL } else { SEARCH_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cluster.suspicion.notified() => {}
        }
        match state {
            State::Closed => return,
            State::Waiting(_) => {
                if let Ok((index, wsrep)) = first_well(&mut probes).await {
                    cluster.take(index, wsrep, "it is the first that is well").await;
                }
                (failures, better) = (0, None);
            }
            State::Open(node) => {
                let (ahead, rest) = probes.split_at_mut(node.index);
                let Some(used) = rest.first_mut() else { return };
                let (health, offer) = tokio::join!(used.ask(ANSWER_LIMIT), first_well(ahead));
                let (reason, most) = match health {
                    Health::Well { .. } => {
                        failures = 0;
                        better = move_back(&cluster, &node, offer.ok(), better).await;
                        continue;
                    }
                    Health::Donor => {
                        failures += 1;
                        if failures >= REFUSALS
                            && let Some((index, wsrep)) = other_well(&mut probes, node.index).await
                        {
                            failures = 0;
                            cluster.leave(&node).await;
                            cluster.take(index, wsrep, "the one before gives another node its data").await;
                        }
                        continue;
                    }
                    Health::Silent(reason) => (reason, SILENCES),
                    Health::Unwell(reason) | Health::Refused(reason) => (reason, REFUSALS),
                };
                failures += 1;
                better = None;
                let other = other_well(&mut probes, node.index).await;
                tracing::debug!(node = node.address, reason, failures, ?other, "the database node in use is not well");
                if other.is_some() || failures >= most {
                    failures = 0;
                    cluster.give_up(&node, &reason);
                }
                if let Some((index, wsrep)) = other {
                    cluster.take(index, wsrep, &reason).await;
                }
            }
        }
    }
}

/// Uses a node further ahead that has been well for long enough; gives how long it has been.
async fn move_back(
    cluster: &Cluster,
    node: &Node,
    offer: Option<(usize, bool)>,
    better: Option<(usize, Instant)>,
) -> Option<(usize, Instant)> {
    let (index, wsrep) = offer?;
    let since = better.filter(|(known, _)| *known == index).map_or_else(Instant::now, |(_, since)| since);
    if since.elapsed() < cluster.settle {
        return Some((index, since));
    }
    cluster.leave(node).await;
    cluster.take(index, wsrep, "it comes first and is well again").await;
    None
}

async fn other_well(probes: &mut [Probe], except: usize) -> Option<(usize, bool)> {
    let mut others: Vec<(usize, &mut Probe)> = probes.iter_mut().enumerate().filter(|(i, _)| *i != except).collect();
    let mut answers: FuturesOrdered<_> =
        others.iter_mut().map(|(i, p)| async { (*i, p.ask(OFFER_LIMIT).await) }).collect();
    while let Some((index, health)) = answers.next().await {
        if let Health::Well { wsrep } = health {
            return Some((index, wsrep));
        }
    }
    None
}
