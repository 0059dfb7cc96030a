//! Duties: one at a time, and the database refuses whoever was deposed.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use coord::{Coord, Term, run_duty};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use store::{Db, DbConfig};
use testkit::{eventually, wait_until};
use tokio_util::sync::CancellationToken;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

async fn connect(test: &testkit::TestDb) -> Db {
    let db = Db::connect(&DbConfig::new(test.url())).await.unwrap();
    db.migrate(coord::MIGRATIONS).await.unwrap();
    db
}

/// Runs a duty that only shows its terms, until the token fires.
fn lead(db: &Db, coord: &Coord, member: &'static str, terms: &Arc<Mutex<Vec<Term>>>) -> CancellationToken {
    let stop = CancellationToken::new();
    let (db, coord, terms, token) = (db.clone(), coord.clone(), terms.clone(), stop.clone());
    tokio::spawn(async move {
        run_duty(&db, &coord, "test", member, token, |term| {
            terms.lock().unwrap().push(term.clone());
            std::future::pending()
        })
        .await;
    });
    stop
}

async fn fence(db: &Db, term: &Term) -> Result<(), contract::ApiError> {
    store::tx!(db, "fenced", |tx| term.fence(tx).await).await
}

testkit::databases! {
    async fn a_deposed_leader_cannot_write(db: testkit::TestDb) {
        let db = connect(&db).await;
        let coord = Coord::local();
        let terms = Arc::new(Mutex::new(Vec::new()));
        let first_stop = lead(&db, &coord, "a", &terms);
        let first = eventually(|| async { terms.lock().unwrap().first().cloned() }).await;
        assert_eq!(first.epoch(), 1);
        fence(&db, &first).await.unwrap();
        let second_stop = lead(&db, &coord, "b", &terms);
        first_stop.cancel();
        let second = eventually(|| async { terms.lock().unwrap().get(1).cloned() }).await;
        assert_eq!(second.epoch(), 2);
        let error = fence(&db, &first).await.unwrap_err();
        assert_eq!((error.code, error.cs_code), (530, 4300));
        assert!(first.is_lost());
        fence(&db, &second).await.unwrap();
        second_stop.cancel();
    }

    async fn a_leader_that_does_not_know_it_was_deposed_is_fenced(db: testkit::TestDb) {
        // Two worlds that don't see each other: each lets its own replica lead, as after a partition.
        let db = connect(&db).await;
        let terms = Arc::new(Mutex::new(Vec::new()));
        let stops = [lead(&db, &Coord::local(), "a", &terms)];
        let first = eventually(|| async { terms.lock().unwrap().first().cloned() }).await;
        let other = Arc::new(Mutex::new(Vec::new()));
        let other_stop = lead(&db, &Coord::local(), "b", &other);
        let second = eventually(|| async { other.lock().unwrap().first().cloned() }).await;
        assert!(!first.is_lost() && second.epoch() > first.epoch());
        fence(&db, &second).await.unwrap();
        fence(&db, &first).await.unwrap_err();
        assert!(first.is_lost(), "the failed fence ends the turn");
        // It campaigns again, and so takes the duty back in its own world, with a higher epoch.
        let third = eventually(|| async { terms.lock().unwrap().get(1).cloned() }).await;
        assert!(third.epoch() > second.epoch());
        stops.iter().for_each(CancellationToken::cancel);
        other_stop.cancel();
    }

    async fn a_duty_that_panics_or_ends_is_run_again(db: testkit::TestDb) {
        let db = connect(&db).await;
        let coord = Coord::local();
        let (runs, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (counter, token) = (runs.clone(), stop.clone());
        let running = tokio::spawn(async move {
            run_duty(&db, &coord, "flaky", "a", token, |_term| {
                let run = counter.fetch_add(1, Ordering::SeqCst);
                async move {
                    assert_ne!(run, 0, "the first run panics");
                    if run > 1 {
                        std::future::pending::<()>().await;
                    }
                }
            })
            .await;
        });
        wait_until(|| async { runs.load(Ordering::SeqCst) == 3 }, PATIENCE).await;
        stop.cancel();
        running.await.unwrap();
    }
}

#[tokio::test]
async fn only_one_leads_and_the_next_follows() {
    let test = testkit::TestDb::sqlite();
    let db = connect(&test).await;
    let coord = Coord::local();
    let terms = Arc::new(Mutex::new(Vec::<Term>::new()));
    let stops: Vec<_> = ["a", "b", "c"].map(|m| lead(&db, &coord, m, &terms)).into();
    for n in 1..=5 {
        eventually(|| async { terms.lock().unwrap().get(n - 1).cloned() }).await;
        let living = terms.lock().unwrap().iter().filter(|t| !t.is_lost()).count();
        assert_eq!(living, 1, "exactly one leads");
        coord.depose("test").await.unwrap();
    }
    let epochs: Vec<i64> = terms.lock().unwrap().iter().map(Term::epoch).collect();
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    stops.iter().for_each(CancellationToken::cancel);
}
