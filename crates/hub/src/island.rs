//! A replica that etcd doesn't reach any more. Others take it for dead and send no orders to hosts that hang on it: as soon as
//! it knows that they go on without it, it lets its agents go to them, and takes none until it has a lease again.
//!
//! Etcd can't tell it. The leader of `host-watch`, whom etcd reaches, counts rounds in the database: when they go on although
//! nobody who lost etcd together with this replica can lead any more, others have etcd. When etcd is lost by all, nobody
//! counts, and all agents stay where they are.

use crate::Hub;
use ::store::{Db, Result, Sql, Tx};
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks, and between two rounds.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Without etcd and without the database for so long, this replica can do nothing for anybody.
const USELESS: Duration = Duration::from_secs(10);

/// What a replica without a lease has seen.
#[derive(Debug)]
struct Alone {
    since: Instant,
    /// The round at which nobody leads any more who lost etcd when this replica did.
    round: Option<i64>,
    /// Since when the database doesn't answer.
    blind: Option<Instant>,
}

impl Alone {
    fn new() -> Alone {
        Alone { since: Instant::now(), round: None, blind: None }
    }

    /// Whether others go on without this replica, or it can't serve whatever they do.
    fn judge(&mut self, lease: Duration, round: Result<i64>) -> bool {
        let Ok(round) = round else {
            return self.blind.get_or_insert_with(Instant::now).elapsed() >= USELESS;
        };
        self.blind = None;
        if self.since.elapsed() < lease {
            return false;
        }
        round != *self.round.get_or_insert(round)
    }
}

/// Looks whether this replica is an island.
pub(crate) fn start(hub: &Hub) {
    let hub = hub.clone();
    hub.0.node.clone().spawn("hub-island", async move {
        let node = &hub.0.node;
        let mut alone: Option<Alone> = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(lease) = node.coord.without_lease() else {
                alone = None;
                if hub.0.island.send_replace(false) {
                    tracing::info!("agents are welcome again");
                }
                continue;
            };
            if !*hub.0.island.borrow() && alone.get_or_insert_with(Alone::new).judge(lease, round(&node.db).await) {
                tracing::warn!(
                    hosts = hub.connected(),
                    "etcd doesn't reach this replica: its agents are sent to others"
                );
                hub.0.island.send_replace(true);
            }
        }
    });
}

async fn round(db: &Db) -> Result<i64> {
    db.one(Sql::new("SELECT round FROM host_watch WHERE id = 1")).await?.at(0)
}

/// Counts a round of the leader, as part of its commit.
pub(crate) async fn count(tx: &mut Tx) -> Result<()> {
    tx.exec(Sql::new("UPDATE host_watch SET round = round + 1 WHERE id = 1")).await.map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);

    fn broken() -> Result<i64> {
        Err(::store::Error::Unavailable("gone".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_that_go_on_make_an_island() {
        let mut alone = Alone::new();
        // Others may lose their leases a little later.
        for round in 0..5 {
            assert!(!alone.judge(LEASE, Ok(round)));
            tokio::time::advance(LOOK).await;
        }
        assert!(!alone.judge(LEASE, Ok(7)) && !alone.judge(LEASE, Ok(7)));
        assert!(alone.judge(LEASE, Ok(8)));
    }

    #[tokio::test(start_paused = true)]
    async fn when_nobody_leads_agents_stay() {
        let mut alone = Alone::new();
        for _ in 0..1000 {
            assert!(!alone.judge(LEASE, Ok(3)));
            tokio::time::advance(LOOK).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_reaches_nothing_is_useless_after_a_while() {
        let mut alone = Alone::new();
        for _ in 0..3 {
            for _ in 0..9 {
                assert!(!alone.judge(LEASE, broken()));
                tokio::time::advance(LOOK).await;
            }
            assert!(!alone.judge(LEASE, Ok(1)), "it counts anew");
        }
        assert!(!alone.judge(LEASE, broken()));
        tokio::time::advance(USELESS).await;
        assert!(alone.judge(LEASE, broken()));
    }
}
