//! What devices say is used of them (`storage.stats.interval`), for lists and for the threshold of used space.

use crate::store::{infra, pools};
use crate::{Storage, bytes, hosts};
use config::keys;
use contract::ApiError;
use coord::Term;
use futures::stream::{self, StreamExt};
use std::time::Duration;

const DUTY: &str = "storage/pool-stats";
/// Pools of one look, and pools that are asked about at the same time.
const BATCH: i64 = 64;
const PARALLEL: usize = 8;
/// The shortest interval.
const LEAST: Duration = Duration::from_secs(1);

/// Starts the duty.
pub fn start(s: &Storage) {
    let storage = s.clone();
    s.node.duty(DUTY, move |term| {
        let storage = storage.clone();
        async move {
            loop {
                tokio::time::sleep(interval(&storage)).await;
                if let Err(error) = round(&storage, &term).await {
                    tracing::warn!(%error, "asking for the use of pools");
                }
            }
        }
    });
}

fn interval(s: &Storage) -> Duration {
    let millis: String = s.node.settings.get(keys::STORAGE_STATS_INTERVAL);
    Duration::from_millis(millis.trim().parse().unwrap_or(60_000)).max(LEAST)
}

async fn round(s: &Storage, term: &Term) -> Result<(), ApiError> {
    let mut last = 0;
    loop {
        let rows = pools::after(&s.node.db, last, BATCH).await?;
        let Some(end) = rows.last() else { return Ok(()) };
        last = end.id;
        stream::iter(rows)
            .for_each_concurrent(PARALLEL, |row| async move {
                if let Err(error) = one(s, term, &row).await {
                    tracing::debug!(pool = row.name, %error, "the use of a pool isn't known");
                }
            })
            .await;
    }
}

async fn one(s: &Storage, term: &Term, row: &pools::PoolRow) -> Result<(), ApiError> {
    let (Some(target), Some(host)) = (row.target(), infra::hosts_of_pool(&s.node.db, row.id, 1).await?.pop()) else {
        return Ok(());
    };
    let outcome = s.hosts.tell(&rpc::cx::system_caller(), None, host, bytes::reach(&row.uuid, &target)).await?;
    let Some((_, used)) = hosts::pool_facts(&outcome) else { return Ok(()) };
    if used == row.used {
        return Ok(());
    }
    store::tx!(s.node.db, "pool-used", |tx| {
        term.fence(tx).await?;
        pools::set_used(tx, row.id, used).await?;
        Ok::<_, ApiError>(())
    })
    .await
}
