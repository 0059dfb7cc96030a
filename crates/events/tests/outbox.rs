//! Nothing is lost, doubled or reordered, whatever happens to writers, sequencers and consumers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use contract::ApiError;
use coord::Coord;
use events::{Consumer, EventRecord, EventState, Feed, Handler, News, Numbered, Record};
use model::Owner;
use std::collections::BTreeSet;
use std::time::Duration;
use store::{Db, DbConfig, Sql, Tx};
use testkit::{eventually, wait_until};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(test: &testkit::TestDb) -> Db {
    let db = Db::connect(&DbConfig::new(test.url())).await.unwrap();
    db.migrate(coord::MIGRATIONS).await.unwrap();
    db.migrate(events::MIGRATIONS).await.unwrap();
    store::tx!(db, "table", |tx| {
        tx.exec("CREATE TABLE IF NOT EXISTS handled (seq BIGINT NOT NULL PRIMARY KEY, id BIGINT NOT NULL)").await?;
        Ok::<_, store::Error>(())
    })
    .await
    .unwrap();
    db
}

fn change(id: i64) -> Record {
    Record::Change { kind: "host".into(), id }
}

async fn write(db: &Db, ids: std::ops::Range<i64>) {
    store::tx!(db, "write", |tx| {
        let records: Vec<Record> = ids.clone().map(change).collect();
        events::record(tx, &records).await
    })
    .await
    .unwrap();
}

fn sequence(db: &Db, coord: &Coord, member: &'static str) -> CancellationToken {
    let stop = CancellationToken::new();
    let (db, coord, token) = (db.clone(), coord.clone(), stop.clone());
    tokio::spawn(async move { events::run_sequencer(&db, &coord, member, token).await });
    stop
}

fn consume(db: &Db, coord: &Coord) -> tokio::task::JoinHandle<()> {
    let (db, coord) = (db.clone(), coord.clone());
    tokio::spawn(async move { Consumer::new(&db, &coord, "test").await.unwrap().run(&Keep).await })
}

/// Writes what it gets into a table.
struct Keep;

impl Handler for Keep {
    async fn handle(&self, tx: &mut Tx, rows: &[Numbered]) -> Result<(), ApiError> {
        for row in rows {
            let Record::Change { id, .. } = row.record else { panic!("only changes are written") };
            tx.exec(Sql::new("INSERT INTO handled (seq, id) VALUES (?, ?)").bind(row.seq).bind(id)).await?;
        }
        Ok(())
    }
}

async fn handled(db: &Db) -> Vec<i64> {
    let rows = db.all(Sql::new("SELECT id FROM handled ORDER BY seq")).await.unwrap();
    rows.iter().map(|r| r.at(0).unwrap()).collect()
}

testkit::databases! {
    async fn a_row_that_commits_late_is_not_lost(db: testkit::TestDb) {
        let db = connect(&db).await;
        let coord = Coord::local();
        let stop = sequence(&db, &coord, "a");
        let consumer = consume(&db, &coord);
        write(&db, 0..1).await;
        wait_until(|| async { handled(&db).await == [0] }, PATIENCE).await;
        // Makes its id first, commits last; on SQLite, which has one writer, the row is made with an old id.
        let early = uuid::Uuid::now_v7().to_string();
        write(&db, 1..3).await;
        wait_until(|| async { handled(&db).await == [0, 1, 2] }, PATIENCE).await;
        let payload = serde_json::to_vec(&change(3)).unwrap();
        store::tx!(db, "late", |tx| {
            let sql = Sql::new("INSERT INTO outbox (id, topic, kind, payload, created) VALUES (?, 'change', 'host', ?, 0)");
            tx.exec(sql.bind(early.as_str()).bind(payload.clone())).await
        })
        .await
        .unwrap();
        wait_until(|| async { handled(&db).await == [0, 1, 2, 3] }, PATIENCE).await;
        // What is rolled back never was.
        let mut tx = db.begin().await.unwrap();
        events::record(&mut tx, &[change(99)]).await.unwrap();
        tx.rollback().await;
        write(&db, 4..5).await;
        wait_until(|| async { handled(&db).await == [0, 1, 2, 3, 4] }, PATIENCE).await;
        consumer.abort();
        stop.cancel();
    }

    async fn all_rows_arrive_once_while_leaders_and_consumers_change(db: testkit::TestDb) {
        let db = connect(&db).await;
        // Two worlds that don't see each other: both let a sequencer lead, and the database must keep them apart.
        let (here, there) = (Coord::local(), Coord::local());
        let stops = [sequence(&db, &here, "a"), sequence(&db, &there, "b")];
        let mut consumers = vec![consume(&db, &here), consume(&db, &there)];
        let mut writers = tokio::task::JoinSet::new();
        for w in 0..8i64 {
            let db = db.clone();
            writers.spawn(async move {
                for t in 0..25 {
                    let first = (w * 25 + t) * 3;
                    write(&db, first..first + 3).await;
                }
            });
        }
        let mut turn = 0;
        while !writers.is_empty() {
            here.depose(events::DUTY).await.unwrap();
            turn += 1;
            if turn % 3 == 0 {
                consumers.remove(0).abort();
                consumers.push(consume(&db, &here));
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), writers.join_next()).await;
        }
        wait_until(|| async { handled(&db).await.len() >= 600 }, PATIENCE).await;
        let got = handled(&db).await;
        assert_eq!(got.len(), 600, "none twice");
        assert_eq!(got.iter().copied().collect::<BTreeSet<_>>(), (0..600).collect(), "none lost");
        stops.iter().for_each(CancellationToken::cancel);
        consumers.iter().for_each(tokio::task::JoinHandle::abort);
    }

    async fn numbering_costs_few_commits(db: testkit::TestDb) {
        let db = connect(&db).await;
        for n in 0..30 {
            write(&db, n * 100..(n + 1) * 100).await;
        }
        let before = db.stats();
        let start = std::time::Instant::now();
        let coord = Coord::local();
        let stop = sequence(&db, &coord, "a");
        let left = || async {
            db.one(Sql::new("SELECT COUNT(*) FROM outbox WHERE seq IS NULL")).await.unwrap().at::<i64>(0).unwrap()
        };
        wait_until(|| async { left().await == 0 }, PATIENCE).await;
        let commits = db.stats().commits - before.commits;
        eprintln!("3000 rows numbered in {:?} with {commits} commits", start.elapsed());
        assert!(commits <= 6, "{commits} commits");
        stop.cancel();
    }

    async fn consumers_see_only_their_topics_and_hold_nothing_back(db: testkit::TestDb) {
        let db = connect(&db).await;
        let coord = Coord::local();
        let stop = sequence(&db, &coord, "a");
        let mut events_only = Consumer::new(&db, &coord, "events-only").await.unwrap().only(&["event"]);
        let waiting = tokio::spawn(async move { events_only.next().await.unwrap().rows });
        write(&db, 0..50).await;
        // It goes past rows of other topics by itself.
        let lag = || async { events::lags(&db).await.unwrap().into_iter().find(|(n, _)| n == "events-only").unwrap().1 };
        wait_until(|| async { lag().await == 0 && head(&db).await == 50 }, PATIENCE).await;
        let owner = Owner { account_id: 2, domain_id: 1, domain_path: "/1/".into() };
        let event = EventRecord {
            owner,
            ..EventRecord::new(&contract::Caller::default(), "VM.CREATE", EventState::Created, "creating a VM")
        };
        store::tx!(db, "event", |tx| events::record(tx, &[Record::Event(event.clone())]).await).await.unwrap();
        let rows = waiting.await.unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].record, Record::Event(event));
        events::forget(&db, "events-only").await.unwrap();
        assert!(events::lags(&db).await.unwrap().is_empty());
        stop.cancel();
    }

    async fn a_feed_follows_from_now_on(db: testkit::TestDb) {
        let db = connect(&db).await;
        let coord = Coord::local();
        let stop = sequence(&db, &coord, "a");
        write(&db, 0..5).await;
        wait_until(|| async { head(&db).await == 5 }, PATIENCE).await;
        let mut feed = Feed::new(&db, &coord, &["change"]).await.unwrap();
        write(&db, 5..7).await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let News::Rows(rows) = feed.next().await.unwrap() else { panic!("nothing was missed") };
            seen.extend(rows.into_iter().map(|r| r.record));
        }
        assert_eq!(seen, [change(5), change(6)]);
        // Pruned past it: it must build anew.
        store::tx!(db, "prune", |tx| {
            tx.exec("UPDATE outbox_head SET seq = 100, pruned = 100 WHERE id = 1").await
        })
        .await
        .unwrap();
        assert_eq!(feed.next().await.unwrap(), News::Missed);
        stop.cancel();
    }
}

async fn head(db: &Db) -> i64 {
    eventually(|| async { db.optional(Sql::new("SELECT seq FROM outbox_head")).await.unwrap() }).await.at(0).unwrap()
}
