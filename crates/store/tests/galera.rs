//! Writers on several nodes of a Galera cluster at the same time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use futures::future::join_all;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::{Db, DbConfig, Error, Migration, Sql};
use testkit::Galera;

const TABLES: &[Migration] = &[Migration {
    owner: "test",
    file: "0001.sql",
    sql: "CREATE TABLE hot (id BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL);\n\
          CREATE TABLE part (tx BIGINT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (tx, n));\n\
          CREATE TABLE claim (name VARCHAR(64) NOT NULL PRIMARY KEY, tx BIGINT NOT NULL);\n",
}];

/// Rows that everybody updates.
const HOT: i64 = 4;
/// Rows that each transaction writes.
const PARTS: i64 = 5;

async fn connect(url: &str) -> Db {
    Db::connect(&DbConfig::new(url)).await.unwrap()
}

/// Writes the parts of transaction `id`, with updates of contended rows in between. With `prepares`, statements of ever
/// other text follow each update: the server prepares them, and closes old ones, while others want the rows.
async fn write(db: &Db, id: i64, seed: &AtomicU64, prepares: bool) -> Result<(), Error> {
    store::tx!(db, "parts", |tx| {
        for n in 0..PARTS {
            let random =
                seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33;
            tx.exec(Sql::new("INSERT INTO part (tx, n) VALUES (?, ?)").bind(id).bind(n)).await?;
            let hot = i64::try_from(random).unwrap_or(0) % HOT;
            // A refused row is no failure: the body goes on, as handlers do.
            let claim = Sql::new("INSERT INTO claim (name, tx) VALUES (?, ?)").bind(format!("claim/{hot}")).bind(id);
            match tx.exec(claim).await {
                Ok(_) if random.is_multiple_of(2) => {
                    tx.exec(Sql::new("DELETE FROM claim WHERE name = ?").bind(format!("claim/{hot}"))).await?;
                }
                Ok(_) => {}
                Err(Error::Unique { .. }) => {
                    tx.optional(Sql::new("SELECT tx FROM claim WHERE name = ?").bind(format!("claim/{hot}"))).await?;
                }
                Err(e) => return Err(e),
            }
            tx.exec(Sql::new("UPDATE hot SET n = n + 1 WHERE id = ?").bind(hot)).await?;
            if prepares {
                for k in 0..3 {
                    // Long, so that it takes the server a while.
                    let list: Vec<String> = (0..400).map(|i| format!("{}", random % 100_000 + i * 3 + k)).collect();
                    let sql = format!("SELECT n FROM hot WHERE id IN ({})", list.join(", "));
                    tx.all(Sql::new(&sql)).await?;
                }
            }
            if random.is_multiple_of(3) {
                tokio::time::sleep(Duration::from_millis(random % 7)).await; // what a body does between statements
            }
        }
        Ok::<_, Error>(())
    })
    .await
}

async fn stress(prepares: bool, span: Duration) {
    if !Galera::installed() {
        return;
    }
    let cluster = Galera::start(2).await;
    let name = cluster.fresh_name();
    let nodes = [connect(&cluster.url(0, &name)).await, connect(&cluster.url(1, &name)).await];
    nodes[0].migrate(TABLES).await.unwrap();
    store::tx!(nodes[0], "hot", |tx| {
        for id in 0..HOT {
            tx.exec(Sql::new("INSERT INTO hot (id, n) VALUES (?, 0)").bind(id)).await?;
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
    let (ids, seed) = (AtomicU64::new(0), AtomicU64::new(42));
    let end = Instant::now() + span;
    let work = (0..12).map(async |w: usize| {
        let mut done = Vec::new();
        while Instant::now() < end {
            let id = i64::try_from(ids.fetch_add(1, Ordering::Relaxed)).unwrap();
            match write(&nodes[w % 2], id, &seed, prepares).await {
                Ok(()) => done.push(id),
                Err(e) => assert!(matches!(e, Error::Retry(_)), "{e}"),
            }
        }
        done
    });
    let done: Vec<i64> = join_all(work).await.into_iter().flatten().collect();
    let retries: u64 = nodes.iter().map(|d| d.stats().retries).sum();
    println!("{} transactions, {retries} conflicts", done.len());
    for db in &nodes {
        let sql = "SELECT tx, CAST(COUNT(*) AS SIGNED) FROM part GROUP BY tx HAVING COUNT(*) <> ?";
        testkit::wait_until(
            || async {
                let n: i64 = db
                    .one(Sql::new("SELECT CAST(COUNT(DISTINCT tx) AS SIGNED) FROM part"))
                    .await
                    .unwrap()
                    .at(0)
                    .unwrap();
                n >= i64::try_from(done.len()).unwrap()
            },
            Duration::from_secs(10),
        )
        .await;
        let torn = db.all(Sql::new(sql).bind(PARTS)).await.unwrap();
        let torn: Vec<(i64, i64)> = torn.iter().map(|r| (r.at(0).unwrap(), r.at(1).unwrap())).collect();
        assert!(torn.is_empty(), "torn transactions (id, rows): {torn:?}");
        let sum: i64 = db.one(Sql::new("SELECT CAST(SUM(n) AS SIGNED) FROM hot")).await.unwrap().at(0).unwrap();
        assert_eq!(sum, PARTS * i64::try_from(done.len()).unwrap(), "lost or doubled updates");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_on_two_nodes_are_whole() {
    stress(false, Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_are_whole_while_statements_are_prepared() {
    stress(true, Duration::from_secs(8)).await;
}

/// What one service was told is known to all others, whichever node they use, however busy that node is with applying.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_on_one_node_is_seen_on_the_other() {
    if !Galera::installed() {
        return;
    }
    let cluster = Galera::start(2).await;
    let name = cluster.fresh_name();
    let (here, there) = (connect(&cluster.url(0, &name)).await, connect(&cluster.url(1, &name)).await);
    here.migrate(TABLES).await.unwrap();
    let end = std::sync::atomic::AtomicBool::new(false);
    // Gives the other node much to apply.
    let load = async {
        let mut id = 1_000_000;
        while !end.load(Ordering::Relaxed) {
            id += 1;
            store::tx!(here, "load", |tx| {
                let rows: Vec<String> = (0..500).map(|n| format!("({id}, {n})")).collect();
                tx.exec(Sql::new(&format!("INSERT INTO part (tx, n) VALUES {}", rows.join(", ")))).await?;
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
        }
    };
    let asks = async {
        for id in 0..400_i64 {
            let insert = || Sql::new("INSERT INTO hot (id, n) VALUES (?, 0)").bind(id);
            store::tx!(here, "row", |tx| tx.exec(insert()).await.map(drop)).await.unwrap();
            let select = || Sql::new("SELECT n FROM hot WHERE id = ?").bind(id);
            if id % 2 == 0 {
                assert!(there.optional(select()).await.unwrap().is_some(), "row {id} isn't seen");
            } else {
                let seen = store::tx!(there, "seen", |tx| tx.optional(select()).await).await.unwrap();
                assert!(seen.is_some(), "row {id} isn't seen in a transaction");
            }
        }
        end.store(true, Ordering::Relaxed);
    };
    futures::join!(load, asks);
}
