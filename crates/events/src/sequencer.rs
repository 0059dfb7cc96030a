//! The one that numbers.

use crate::nudge::{NUMBERED, WRITTEN, commits};
use crate::store;
use ::store::{Db, now_micros};
use contract::ApiError;
use coord::{Coord, Term, run_duty};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Name of the duty.
pub const DUTY: &str = "outbox-sequencer";

/// Looks without a nudge: the safety net.
const POLL: Duration = Duration::from_secs(1);
/// Between two batches that weren't full: rows gather meanwhile, so that one commit of ours and one of each consumer
/// serve many. On a single-writer database these commits are taken from the requests' own.
const GATHER: Duration = Duration::from_millis(100);
/// Between prunings.
const PRUNE: Duration = Duration::from_secs(10);
/// Numbered rows are kept at least this long, for feeds that have no cursor.
const KEEP: Duration = Duration::from_secs(600);

/// Campaigns for the duty, and numbers while leading. Any process may run it; usage does.
pub async fn run_sequencer(db: &Db, coord: &Coord, member: &str, stop: CancellationToken) {
    run_duty(db, coord, DUTY, member, stop, |term| async move {
        if let Err(error) = lead(db, coord, &term, KEEP).await {
            tracing::warn!(%error, "the sequencer begins anew");
        }
    })
    .await;
}

async fn lead(db: &Db, coord: &Coord, term: &Term, keep: Duration) -> Result<(), ApiError> {
    let (mut local, mut remote) = (commits(), coord.subscribe(WRITTEN));
    let mut pruned = Instant::now();
    store::prepare(db).await?;
    loop {
        let numbered = store::number(db, term).await?;
        if numbered > 0 {
            coord.publish(NUMBERED, "");
        }
        if pruned.elapsed() >= PRUNE {
            let before = now_micros() - i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
            while store::prune(db, term, before).await? > 0 {}
            pruned = Instant::now();
        }
        if numbered == store::BATCH {
            continue;
        }
        if numbered > 0 {
            tokio::time::sleep(GATHER).await;
        }
        tokio::select! {
            _ = local.changed() => {}
            _ = remote.next() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use crate::{Consumer, Record, record};
    use ::store::{DbConfig, Sql};
    use testkit::wait_until;

    async fn kept(db: &Db) -> i64 {
        db.one(Sql::new("SELECT COUNT(*) FROM outbox")).await.unwrap().at(0).unwrap()
    }

    testkit::databases! {
        async fn rows_go_when_all_consumers_have_passed(test: testkit::TestDb) {
            let db = Db::connect(&DbConfig::new(test.url())).await.unwrap();
            db.migrate(coord::MIGRATIONS).await.unwrap();
            db.migrate(crate::MIGRATIONS).await.unwrap();
            let coord = Coord::local();
            let (sender, mut terms) = tokio::sync::mpsc::channel(1);
            let stop = CancellationToken::new();
            let (db2, coord2, token) = (db.clone(), coord.clone(), stop.clone());
            tokio::spawn(async move {
                run_duty(&db2, &coord2, DUTY, "a", token, |term| {
                    let sender = sender.clone();
                    async move {
                        sender.send(term).await.unwrap();
                        std::future::pending().await
                    }
                })
                .await;
            });
            let term = terms.recv().await.unwrap();
            let mut quick = Consumer::new(&db, &coord, "quick").await.unwrap();
            let slow = Consumer::new(&db, &coord, "slow").await.unwrap();
            let records: Vec<Record> = (0..1500).map(|id| Record::Change { kind: "host".into(), id }).collect();
            ::store::tx!(db, "write", |tx| record(tx, &records).await).await.unwrap();
            while store::number(&db, &term).await.unwrap() > 0 {}
            assert_eq!(store::prune(&db, &term, i64::MAX).await.unwrap(), 0, "nobody has passed any");
            for _ in 0..3 {
                let batch = quick.next().await.unwrap();
                ::store::tx!(db, "pass", |tx| batch.advance(tx).await).await.unwrap();
            }
            assert_eq!(store::prune(&db, &term, i64::MAX).await.unwrap(), 0, "slow hasn't");
            drop(slow);
            crate::forget(&db, "slow").await.unwrap();
            assert_eq!(store::prune(&db, &term, 0).await.unwrap(), 0, "they are young");
            while store::prune(&db, &term, i64::MAX).await.unwrap() > 0 {}
            wait_until(|| async { kept(&db).await == 0 }, Duration::from_secs(5)).await;
            // Numbers go on where they were, and a new consumer begins after what is pruned.
            ::store::tx!(db, "write", |tx| record(tx, &records[..1]).await).await.unwrap();
            store::number(&db, &term).await.unwrap();
            let mut late = Consumer::new(&db, &coord, "late").await.unwrap();
            assert_eq!(late.next().await.unwrap().rows[0].seq, 1501);
            stop.cancel();
        }
    }
}
