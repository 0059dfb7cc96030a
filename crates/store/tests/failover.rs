//! Nodes that die, hang and come back under writers; servers that don't answer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use futures::future::join_all;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::{Db, DbConfig, Error, Migration, Sql};
use testkit::{Durability, Galera, MariaDb, wait_until};

/// A row for each attempt: an attempt that took place though its caller was told otherwise shows as a second row.
const TABLES: &[Migration] = &[Migration {
    owner: "test",
    file: "0001.sql",
    sql: "CREATE TABLE tags (id BIGINT NOT NULL, attempt BIGINT NOT NULL, PRIMARY KEY (id, attempt));\n\
          CREATE TABLE total (id BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL);\n",
}];

const PATIENCE: Duration = Duration::from_secs(40);

static ATTEMPTS: AtomicI64 = AtomicI64::new(1);

/// What a writer was told about its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Done,
    Unknown,
    Failed,
}

async fn connect(url: &str) -> Db {
    let config = DbConfig { settle: Duration::from_secs(3), ..DbConfig::new(url) };
    Db::connect(&config).await.unwrap()
}

async fn write(db: &Db, id: i64) -> Told {
    let outcome = store::tx!(db, "tag", |tx| {
        let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        tx.exec(Sql::new("INSERT INTO tags (id, attempt) VALUES (?, ?)").bind(id).bind(attempt)).await?;
        tx.exec(Sql::new("UPDATE total SET n = n + 1 WHERE id = ?").bind(id % 8)).await?;
        Ok::<_, Error>(())
    })
    .await;
    match outcome {
        Ok(()) => Told::Done,
        Err(Error::CommitUnknown(_)) => Told::Unknown,
        Err(Error::Retry(_) | Error::Unavailable(_)) => Told::Failed,
        Err(e) => panic!("{e}"),
    }
}

/// Writers that go on until told to stop.
#[derive(Default)]
struct Writers {
    next: AtomicI64,
    stop: AtomicBool,
    told: Mutex<Vec<(i64, Told, Instant)>>,
}

impl Writers {
    fn done(&self) -> usize {
        self.told.lock().unwrap().iter().filter(|t| t.1 == Told::Done).count()
    }

    async fn run(&self, db: &Db) {
        while !self.stop.load(Ordering::Relaxed) {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            let told = write(db, id).await;
            self.told.lock().unwrap().push((id, told, Instant::now()));
            if told == Told::Done {
                let row = db.optional(Sql::new("SELECT id FROM tags WHERE id = ?").bind(id)).await;
                assert!(!matches!(row, Ok(None)), "{id} was acknowledged and isn't read");
            }
        }
    }

    /// The longest time without an acknowledgement, and how many there were of each kind.
    fn summary(&self) -> (Duration, String) {
        let mut told = self.told.lock().unwrap().clone();
        told.sort_by_key(|t| t.2);
        let done: Vec<Instant> = told.iter().filter(|t| t.1 == Told::Done).map(|t| t.2).collect();
        let gap = done.windows(2).map(|w| w[1] - w[0]).max().unwrap_or_default();
        let count = |what| told.iter().filter(|t| t.1 == what).count();
        let (unknown, failed) = (count(Told::Unknown), count(Told::Failed));
        (gap, format!("{} acknowledged, {unknown} unknown, {failed} failed, longest gap {gap:?}", done.len()))
    }

    /// Every acknowledged write is there once, what failed isn't, and the sums agree.
    async fn check(&self, db: &Db) {
        let rows = db.all(Sql::new("SELECT id FROM tags")).await.unwrap();
        let mut found = std::collections::HashMap::<i64, usize>::new();
        for row in &rows {
            *found.entry(row.at(0).unwrap()).or_default() += 1;
        }
        for (id, told, _) in self.told.lock().unwrap().iter() {
            let n = found.get(id).copied().unwrap_or(0);
            let right = match told {
                Told::Done => n == 1,
                Told::Unknown => n <= 1,
                Told::Failed => n == 0,
            };
            assert!(right, "write {id} was told {told:?} and is there {n} times");
        }
        let sum: i64 = db.one(Sql::new("SELECT CAST(SUM(n) AS SIGNED) FROM total")).await.unwrap().at(0).unwrap();
        assert_eq!(sum, i64::try_from(rows.len()).unwrap(), "a transaction was torn");
    }
}

async fn prepare(db: &Db) {
    db.migrate(TABLES).await.unwrap();
    store::tx!(db, "prepare", |tx| {
        for id in 0..8i64 {
            tx.exec(Sql::new("INSERT INTO total (id, n) VALUES (?, 0)").bind(id)).await?;
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

/// covers: OPS-150
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_tags_survive_the_loss_of_a_node() {
    if !Galera::installed() {
        return;
    }
    let mut cluster = Galera::start(3).await;
    let db = connect(&cluster.urls(&cluster.fresh_name())).await;
    prepare(&db).await;
    let writers = Writers::default();
    let calls = join_all((0..4).map(async |_| {
        loop {
            let id = writers.next.fetch_add(1, Ordering::Relaxed);
            if id >= 200 {
                break;
            }
            let mut told = write(&db, id).await;
            writers.told.lock().unwrap().push((id, told, Instant::now()));
            if told != Told::Done {
                // A client repeats what failed, under another number here; no call fails twice.
                told = write(&db, id + 1_000).await;
                writers.told.lock().unwrap().push((id + 1_000, told, Instant::now()));
            }
            assert_eq!(told, Told::Done, "call {id} failed twice");
        }
    }));
    let kill = async {
        wait_until(|| async { writers.done() >= 60 }, PATIENCE).await;
        cluster.kill(0);
    };
    tokio::join!(calls, kill);
    println!("killed under 200 tags: {}", writers.summary().1);
    writers.check(&db).await;
    assert!(db.node().borrow().failovers >= 1);
    assert!(writers.summary().0 < Duration::from_secs(10), "{}", writers.summary().1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_survive_nodes_that_die_hang_and_come_back() {
    if !Galera::installed() {
        return;
    }
    let mut cluster = Galera::start(3).await;
    let addresses: Vec<String> = (0..3).map(|i| cluster.address(i)).collect();
    let db = connect(&cluster.urls(&cluster.fresh_name())).await;
    prepare(&db).await;
    let writers = Arc::new(Writers::default());
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (writers, db) = (writers.clone(), db.clone());
            tokio::spawn(async move { writers.run(&db).await })
        })
        .collect();
    let node = db.node();
    let used = |i: usize| {
        let (node, address) = (node.clone(), addresses[i].clone());
        async move { node.borrow().address.as_ref() == Some(&address) }
    };
    let more = async |n: usize| {
        let before = writers.done();
        wait_until(|| async { writers.done() >= before + n }, PATIENCE).await;
    };
    assert!(used(0).await, "the first is used");
    more(50).await;

    cluster.kill(0);
    let start = Instant::now();
    wait_until(|| used(1), PATIENCE).await;
    println!("killed: the second is used after {:?}", start.elapsed());
    more(50).await;

    cluster.restart(0).await;
    let start = Instant::now();
    wait_until(|| used(0), PATIENCE).await;
    println!("back: the first is used again after {:?}", start.elapsed());
    more(50).await;

    cluster.pause(0);
    let start = Instant::now();
    wait_until(|| used(1), PATIENCE).await;
    println!("paused: the second is used after {:?}", start.elapsed());
    more(50).await;
    cluster.resume(0);
    wait_until(|| used(0), PATIENCE).await;
    more(50).await;
    // A node that gives another one its data may have been left in between.
    assert!(node.borrow().failovers >= 4);

    writers.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    println!("killed, back, paused, resumed: {}", writers.summary().1);
    writers.check(&db).await;
    assert!(writers.summary().0 < Duration::from_secs(12), "{}", writers.summary().1);

    // The node in use and another one die: the last has no majority.
    cluster.kill(0);
    cluster.kill(1);
    wait_until(|| async { db.node().borrow().address.is_none() }, PATIENCE).await;
    let start = Instant::now();
    let e = db.ping().await.unwrap_err();
    assert!(matches!(e, Error::Unavailable(_)), "{e}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    cluster.kill(2);
    cluster.bootstrap().await;
    wait_until(|| used(0), PATIENCE).await;
    writers.check(&db).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_or_hangs_makes_nobody_wait_for_long() {
    let mut server = MariaDb::start(Durability::Process).await;
    let db = connect(&server.fresh_url()).await;
    prepare(&db).await;
    let node = db.node();
    let bounded = async |what: &str, most: u64| {
        let start = Instant::now();
        let (read, told) = tokio::join!(db.ping(), write(&db, 7));
        println!("{what}: {read:?}, {told:?} after {:?}", start.elapsed());
        assert!(matches!(read, Err(Error::Unavailable(_))) && told == Told::Failed);
        assert!(start.elapsed() < Duration::from_secs(most), "{what}: {:?}", start.elapsed());
    };
    server.kill();
    bounded("killed", 9).await;
    bounded("dead", 9).await;
    assert_eq!(node.borrow().address, None);
    server.restart().await;
    wait_until(|| async { node.borrow().address.is_some() }, Duration::from_secs(5)).await;
    db.ping().await.unwrap();

    server.pause();
    bounded("paused", 13).await;
    bounded("hanging", 9).await;
    server.resume();
    wait_until(|| async { node.borrow().address.is_some() }, Duration::from_secs(10)).await;
    assert_eq!(write(&db, 1).await, Told::Done);
    assert_eq!(node.borrow().failovers, 0, "it is the same node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_ends_and_its_transaction_with_it() {
    let server = MariaDb::shared().await;
    let db = connect(&server.fresh_url()).await;
    prepare(&db).await;
    let start = Instant::now();
    let mut tx = db.begin().await.unwrap();
    tx.exec("INSERT INTO tags (id, attempt) VALUES (1, 0)").await.unwrap();
    let (read, slow) = tokio::join!(db.all(Sql::new("SELECT SLEEP(60)")), tx.all("SELECT SLEEP(60)"));
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    assert!(matches!(slow, Err(Error::Retry(_))), "{slow:?}");
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(14) && took < Duration::from_secs(20), "{took:?}");
    let after = tx.exec("INSERT INTO tags (id, attempt) VALUES (2, 0)").await;
    assert!(matches!(after, Err(Error::Retry(_))), "no more statement is sent: {after:?}");
    assert!(matches!(tx.commit().await, Err(Error::Retry(_))));
    let n: i64 = db.one(Sql::new("SELECT CAST(COUNT(*) AS SIGNED) FROM tags")).await.unwrap().at(0).unwrap();
    assert_eq!(n, 0);
    let idle = Sql::new("SELECT CAST(@@idle_transaction_timeout AS SIGNED)");
    assert_eq!(db.one(idle).await.unwrap().at::<i64>(0).unwrap(), 60, "what MariaDB alone understands is set");
    assert_eq!(db.node().borrow().failovers, 0, "the node answers others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_after_a_deadlock() {
    let server = MariaDb::shared().await;
    let db = connect(&server.fresh_url()).await;
    prepare(&db).await;
    let add = |id: i64| Sql::new("UPDATE total SET n = n + 1 WHERE id = ?").bind(id);
    let (mut one, mut two) = (db.begin().await.unwrap(), db.begin().await.unwrap());
    one.exec(add(1)).await.unwrap();
    two.exec(add(2)).await.unwrap();
    let (a, b) = tokio::join!(one.exec(add(2)), two.exec(add(1)));
    assert!(a.is_ok() != b.is_ok(), "one is chosen: {a:?}, {b:?}");
    for (outcome, tx) in [(a, &mut one), (b, &mut two)] {
        if outcome.is_err() {
            // A body that goes on in spite of the error: the server would commit this at once.
            let after = tx.exec("INSERT INTO tags (id, attempt) VALUES (1, 1)").await;
            assert!(matches!(after, Err(Error::Retry(_))), "{after:?}");
        }
    }
    let _ = (one.commit().await, two.commit().await);
    let n: i64 = db.one(Sql::new("SELECT CAST(COUNT(*) AS SIGNED) FROM tags")).await.unwrap().at(0).unwrap();
    let sum: i64 = db.one(Sql::new("SELECT CAST(SUM(n) AS SIGNED) FROM total")).await.unwrap().at(0).unwrap();
    assert_eq!((n, sum), (0, 2));
}
