//! Membership and topics, in-process and on a real etcd.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use coord::{Coord, EtcdConfig, Member, Notice, Term, run_duty};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Db, DbConfig};
use testkit::{Etcd, eventually, wait_until};
use tokio_util::sync::CancellationToken;

const LEASE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);

fn member(id: &str) -> Member {
    Member { id: id.into(), service: "network".into(), kinds: vec!["vm.deploy@1".into()], ..Member::default() }
}

async fn connect(etcd: &Etcd) -> Coord {
    let mut config = EtcdConfig::new([etcd.endpoint()]);
    config.lease = LEASE;
    Coord::etcd(config).await.unwrap()
}

fn ids(coord: &Coord) -> Vec<String> {
    coord.members().borrow().iter().map(|m| m.id.clone()).collect()
}

async fn sees(coord: &Coord, wanted: &[&str]) {
    wait_until(|| async { ids(coord) == wanted }, PATIENCE).await;
}

/// What every implementation does. `a` and `b` are two processes.
async fn replicas_see_each_other(a: Coord, b: Coord) {
    let first = a.join(member("a")).await.unwrap();
    let second = b.join(member("b")).await.unwrap();
    sees(&a, &["a", "b"]).await;
    sees(&b, &["a", "b"]).await;
    assert_eq!(b.members().borrow()[0].kinds, ["vm.deploy@1"]);
    assert_eq!(first.id(), "a");
    drop(second);
    sees(&a, &["a"]).await;
    drop(first);
    sees(&b, &[]).await;
}

async fn messages_arrive(a: Coord, b: Coord) {
    let mut here = a.subscribe("settings");
    let mut there = b.subscribe("settings");
    let mut other = b.subscribe("outbox");
    // A follower may still be opening its watch: repeat until the first one came.
    let hello = async {
        loop {
            a.publish("settings", "hello");
            if let Ok(notice) = tokio::time::timeout(Duration::from_millis(200), there.next()).await {
                assert_eq!(notice, Notice::Message("hello".into()));
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, hello).await.unwrap();
    for n in 0..50 {
        a.publish("settings", &n.to_string());
    }
    let (mut got, wanted) = (HashSet::new(), (0..50).map(|n| n.to_string()).collect::<HashSet<_>>());
    while !got.is_superset(&wanted) {
        if let Notice::Message(m) = tokio::time::timeout(PATIENCE, there.next()).await.unwrap() {
            got.insert(m);
        }
    }
    let mut got = HashSet::new();
    while !got.is_superset(&wanted) {
        if let Notice::Message(m) = here.next().await {
            got.insert(m);
        }
    }
    b.publish("outbox", "end");
    assert_eq!(other.next().await, Notice::Message("end".into()), "one topic doesn't hear another's messages");
}

#[tokio::test]
async fn in_process() {
    let coord = Coord::local();
    replicas_see_each_other(coord.clone(), coord.clone()).await;
    messages_arrive(coord.clone(), coord).await;
}

#[tokio::test]
async fn a_slow_subscriber_is_told_that_it_missed_something() {
    let coord = Coord::local();
    let mut slow = coord.subscribe("t");
    for n in 0..5000 {
        coord.publish("t", &n.to_string());
    }
    assert_eq!(slow.next().await, Notice::Missed);
    assert!(matches!(slow.next().await, Notice::Message(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_etcd() {
    let etcd = Etcd::start().await;
    let (a, b) = (connect(&etcd).await, connect(&etcd).await);
    replicas_see_each_other(a.clone(), b.clone()).await;
    messages_arrive(a, b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_goes_leaves_nothing_behind() {
    let etcd = Etcd::start().await;
    let (a, b) = (connect(&etcd).await, connect(&etcd).await);
    let membership = a.join(member("a")).await.unwrap();
    sees(&b, &["a"]).await;
    std::mem::forget(membership); // it doesn't leave: its process ends with the lease revoked
    drop(a);
    sees(&b, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_etcd_pauses_duties_and_keeps_what_is_known() {
    let test = testkit::TestDb::sqlite();
    let db = Db::connect(&DbConfig::new(test.url())).await.unwrap();
    db.migrate(coord::MIGRATIONS).await.unwrap();
    let mut etcd = Etcd::start().await;
    let (a, b) = (connect(&etcd).await, connect(&etcd).await);
    let terms = Arc::new(Mutex::new(Vec::<Term>::new()));
    let stop = CancellationToken::new();
    for (coord, name) in [(a.clone(), "a"), (b.clone(), "b")] {
        let (db, terms, stop) = (db.clone(), terms.clone(), stop.clone());
        tokio::spawn(async move {
            run_duty(&db, &coord, "recovery", name, stop, |term| {
                terms.lock().unwrap().push(term);
                std::future::pending()
            })
            .await;
        });
    }
    let stay = CancellationToken::new();
    for (coord, id) in [(a.clone(), "a"), (b.clone(), "b")] {
        let stay = stay.clone();
        tokio::spawn(async move { coord.stay(member(id), stay).await });
    }
    let first = eventually(|| async { terms.lock().unwrap().first().cloned() }).await;
    sees(&b, &["a", "b"]).await;
    let mut notices = b.subscribe("identity");

    etcd.kill();
    tokio::time::timeout(PATIENCE, first.lost()).await.expect("the leader's own clock tells it");
    assert_eq!(ids(&b), ["a", "b"], "what was known stays");
    a.publish("identity", "user/7"); // waits for etcd
    assert_eq!(terms.lock().unwrap().len(), 1, "nobody is elected meanwhile");

    etcd.restart().await;
    let second = eventually(|| async { terms.lock().unwrap().get(1).cloned() }).await;
    assert!(second.epoch() > first.epoch());
    sees(&a, &["a", "b"]).await;
    let mut heard = Vec::new();
    while !heard.contains(&Notice::Message("user/7".into())) {
        heard.push(tokio::time::timeout(PATIENCE, notices.next()).await.unwrap());
    }
    assert!(heard.contains(&Notice::Missed), "caches are dropped after an outage");
    stay.cancel();
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_etcd_counts_as_lost() {
    let etcd = Etcd::start().await;
    let coord = connect(&etcd).await;
    let membership = coord.join(member("a")).await.unwrap();
    etcd.process().signal("STOP");
    tokio::time::timeout(LEASE * 3, membership.lost()).await.expect("lost by the own clock");
    assert!(coord.join(member("a2")).await.is_err(), "joining fails in bounded time");
    etcd.process().signal("CONT");
    let again = eventually(|| async { coord.join(member("a3")).await.ok() }).await;
    assert_eq!(again.id(), "a3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_when_it_is_taken_or_its_holder_goes() {
    let test = testkit::TestDb::sqlite();
    let db = Db::connect(&DbConfig::new(test.url())).await.unwrap();
    db.migrate(coord::MIGRATIONS).await.unwrap();
    let etcd = Etcd::start().await;
    let terms = Arc::new(Mutex::new(Vec::<(&str, Term)>::new()));
    let lead = |coord: Coord, name: &'static str| {
        let (db, terms, stop) = (db.clone(), terms.clone(), CancellationToken::new());
        let token = stop.clone();
        tokio::spawn(async move {
            run_duty(&db, &coord, "usage", name, token, |term| {
                terms.lock().unwrap().push((name, term));
                std::future::pending()
            })
            .await;
        });
        stop
    };
    let (a, b) = (connect(&etcd).await, connect(&etcd).await);
    let stop_a = lead(a.clone(), "a");
    eventually(|| async { terms.lock().unwrap().first().cloned() }).await;
    let stop_b = lead(b.clone(), "b");
    stop_a.cancel();
    let (name, term) = eventually(|| async { terms.lock().unwrap().get(1).cloned() }).await;
    assert_eq!(name, "b");
    a.depose("usage").await.unwrap();
    tokio::time::timeout(PATIENCE, term.lost()).await.unwrap();
    let (_, next) = eventually(|| async { terms.lock().unwrap().get(2).cloned() }).await;
    assert!(next.epoch() > term.epoch());
    stop_b.cancel();
}
