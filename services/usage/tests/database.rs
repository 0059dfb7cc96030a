//! How the database's nodes are, told to operators: on a real cluster, whose nodes are killed and stopped.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod world;

use contract::api::RoleType;
use contract_usage::{ListAlertsRequest, ListEventsRequest};
use std::time::{Duration, Instant};
use store::{Db, DbConfig, Sql};
use testkit::{Galera, wait_until};
use tokio::sync::{Mutex, MutexGuard};
use world::{World, caller};

const PATIENCE: Duration = Duration::from_secs(60);
const PEOPLE: &str = "INSERT INTO users (id, uuid, username) VALUES";

/// What `listEvents` and `listAlerts` show of the database: level and text, newest first.
async fn told(world: &World) -> Vec<(String, String)> {
    let admin = caller(2, "admin", RoleType::Admin);
    let kind = Some("ALERT.MANAGEMENT".to_owned());
    let request = ListEventsRequest { list_all: Some(true), r#type: kind.clone(), ..Default::default() };
    // While the cluster chooses another node, a question may fail.
    let Ok(events) = world.list(&admin, request).await else { return Vec::new() };
    let Ok(alerts) = world.list_alerts(&admin, ListAlertsRequest { name: kind, ..Default::default() }).await else {
        return Vec::new();
    };
    let of_events: Vec<String> = events.event.iter().map(|e| e.description().to_owned()).collect();
    let of_alerts: Vec<String> = alerts.alert.iter().map(|a| a.description().to_owned()).collect();
    if of_events != of_alerts {
        return Vec::new(); // one was archived in between
    }
    assert!(alerts.alert.iter().all(|a| a.r#type == Some(14)));
    events.event.iter().map(|e| (e.level().to_owned(), e.description().to_owned())).collect()
}

/// Waits for what begins so, at that level; gives how long it took.
async fn until(world: &World, level: &str, text: &str) -> Duration {
    let begun = Instant::now();
    let there = || async { told(world).await.iter().any(|(l, t)| l == level && t.starts_with(text)) };
    if tokio::time::timeout(PATIENCE, wait_until(there, PATIENCE * 2)).await.is_err() {
        panic!("{level} {text:?} isn't among {:#?}", told(world).await);
    }
    println!("{level} {text}: after {:?}", begun.elapsed());
    begun.elapsed()
}

/// One event tells it, and no other.
async fn once(world: &World, text: &str) {
    let told = told(world).await;
    assert_eq!(told.iter().filter(|(_, t)| t.contains(text)).count(), 1, "{text}: {told:#?}");
}

/// Clusters are large, and metrics are the process's: one test at a time.
async fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.lock().await
}

/// A figure of a node.
fn metric(name: &str, node: &str) -> Option<i64> {
    let (text, wanted) = (telemetry::metrics::text(), format!("arcus_{name}{{node=\"{node}\"}} "));
    text.lines().find_map(|l| l.strip_prefix(&wanted)?.parse().ok())
}

async fn write(db: &Db, id: i64) {
    let sql = format!("{PEOPLE} ({id}, 'u-{id}', 'u')");
    store::tx!(db, "write", |tx| tx.exec(sql.as_str()).await).await.unwrap();
}

// covers: OPS-148, OPS-147
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_rejoin_and_stopped_replication_are_told() {
    if !Galera::installed() {
        println!("not run: Galera isn't installed");
        return;
    }
    let _alone = alone().await;
    let mut cluster = Galera::start(3).await;
    let [a, b, c] = [0, 1, 2].map(|i| cluster.address(i));
    let name = cluster.fresh_name();
    let config = DbConfig { settle: Duration::from_secs(3), ..DbConfig::new(cluster.urls(&name)) };
    let world = World::on(&config).await;
    wait_until(|| async { metric("database_node_in_use", &a) == Some(1) }, PATIENCE).await;
    let states = || [&a, &b, &c].map(|node| metric("database_node_state", node));
    assert_eq!((states(), metric("database_node_in_use", &b)), ([Some(2); 3], Some(0)));
    assert_eq!(told(&world).await, []);

    // The node in use dies.
    cluster.kill(0);
    until(&world, "ERROR", &format!("Database node {b} is used instead of {a}: ")).await;
    until(&world, "ERROR", &format!("Database node {a} has left: ")).await;
    assert_eq!((states(), metric("database_node_in_use", &b)), ([Some(0), Some(2), Some(2)], Some(1)));
    assert_eq!((metric("database_node_queue", &a), metric("database_node_queue", &b)), (None, Some(0)));

    // It comes back, and is used again.
    cluster.restart(0).await;
    until(&world, "INFO", &format!("Database node {a} is back and keeps in step")).await;
    // A node that gave it what it missed may have been left for the third one in between.
    until(&world, "INFO", &format!("Database node {a} is used instead of ")).await;

    // One that stands by dies and comes back.
    cluster.kill(2);
    until(&world, "ERROR", &format!("Database node {c} has left: ")).await;
    cluster.restart(2).await;
    until(&world, "INFO", &format!("Database node {c} is back and keeps in step")).await;
    for text in [format!("{a} has left"), format!("{c} has left"), format!("is used instead of {a}")] {
        once(&world, &text).await;
    }

    // Replication stops on one: it serves, and applies nothing.
    let stopped = Db::connect(&DbConfig::new(cluster.url(1, &name))).await.unwrap();
    let mut lock = stopped.begin().await.unwrap();
    lock.exec("FLUSH TABLES WITH READ LOCK").await.unwrap();
    for id in 100..150 {
        write(&world.node.db, id).await;
    }
    wait_until(|| async { metric("database_node_queue", &b) >= Some(40) }, PATIENCE).await;
    assert_eq!(metric("database_node_state", &b), Some(1));
    let took = until(&world, "ERROR", &format!("Database node {b} doesn't keep in step: ")).await;
    assert!(took < Duration::from_secs(60), "{took:?}");
    drop(lock);
    until(&world, "INFO", &format!("Database node {b} is back and keeps in step")).await;
    wait_until(|| async { metric("database_node_queue", &b) == Some(0) }, PATIENCE).await;
    let behind = stopped.one(Sql::new("SELECT COUNT(*) FROM users WHERE id >= 100")).await.unwrap();
    assert_eq!(behind.at::<i64>(0).unwrap(), 50);

    world.node.shut_down(Duration::from_secs(5)).await;
}

// What changes while nobody watches is told by whoever watches next, and what was told isn't told again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_watched_is_told_by_the_next() {
    if !Galera::installed() {
        println!("not run: Galera isn't installed");
        return;
    }
    let _alone = alone().await;
    let mut cluster = Galera::start(3).await;
    let [a, b] = [0, 1].map(|i| cluster.address(i));
    let config = DbConfig { settle: Duration::from_secs(3), ..DbConfig::new(cluster.urls(&cluster.fresh_name())) };
    let world = World::on(&config).await;
    let known = async |db: &Db| {
        let rows = db.all(Sql::new("SELECT address FROM database_nodes WHERE in_use = 1")).await.unwrap();
        rows.iter().map(|r| r.at::<String>(0).unwrap()).collect::<Vec<_>>()
    };
    wait_until(|| async { known(&world.node.db).await == [a.clone()] }, PATIENCE).await;
    world.node.shut_down(Duration::from_secs(5)).await;
    world.node.db.close().await;

    cluster.kill(0);
    wait_until(|| async { cluster.synced(1).await }, PATIENCE).await;
    let world = World::again(&config).await;
    until(&world, "ERROR", &format!("Database node {b} is used instead of {a}: ")).await;
    until(&world, "ERROR", &format!("Database node {a} has left: ")).await;
    world.node.shut_down(Duration::from_secs(5)).await;
    world.node.db.close().await;

    let world = World::again(&config).await;
    cluster.restart(0).await;
    until(&world, "INFO", &format!("Database node {a} is used instead of ")).await;
    once(&world, &format!("is used instead of {a}")).await;
    once(&world, &format!("{a} has left")).await;
    world.node.shut_down(Duration::from_secs(5)).await;
}
