//! Many hosts on one line.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use futures::StreamExt as _;
use model::HostId;
use std::time::{Duration, Instant};

const HOSTS: i64 = 1000;

/// A factory with a thousand hosts.
async fn factory(replica: &Replica, durable: bool) -> (Running, tempfile::TempDir) {
    let rows: Vec<_> = (1..=HOSTS).map(|id| (id, model::new_uuid(), model::new_uuid())).collect();
    insert_hosts(&replica.node.db, &rows, "Simulator").await;
    let dir = testkit::temp_dir();
    let dial = arcus_agent::Dial::Channel(replica.net.channel("orchestrator"));
    let agent = Running::with(arcus_agent::Options { durable, ..options(dir.path(), dial) });
    testkit::wait_until(|| async { replica.hub.factories() == 1 }, 30 * SECOND).await;
    futures::stream::iter(rows)
        .for_each_concurrent(200, |(id, uuid, guid)| async move {
            replica.hub.spawn_on_factory(spec(id, uuid, guid), 60 * SECOND).await.unwrap();
        })
        .await;
    (agent, dir)
}

async fn up(replica: &Replica) -> i64 {
    replica.node.db.one("SELECT COUNT(*) FROM hosts WHERE status = 'Up'".into()).await.unwrap().at(0).unwrap()
}

testkit::databases! {
    async fn a_thousand_hosts_reconnect(db: testkit::TestDb) {
        let replica = Replica::start(&db, patient()).await;
        let (agent, dir) = factory(&replica, false).await;
        assert_eq!(up(&replica).await, HOSTS);
        let commits = replica.node.db.stats().commits;
        agent.kill().await;
        testkit::wait_until(|| async { up(&replica).await == 0 }, 30 * SECOND).await;
        let begun = Instant::now();
        let agent = Running::start(dir.path(), &replica.net);
        replica.await_connected(1000).await;
        eprintln!("{HOSTS} hosts came back in {:?}", begun.elapsed());
        assert_eq!(up(&replica).await, HOSTS);
        let commits = replica.node.db.stats().commits - commits;
        assert!(commits < 20, "{commits} commits");
        // A replica that restarts hears them all again.
        let (net, node) = (replica.net.clone(), replica.node.clone());
        let again = replica.another(net, patient()).await;
        node.shut_down(5 * SECOND).await;
        again.await_connected(1000).await;
        assert_eq!(up(&again).await, HOSTS);
        agent.end().await.unwrap();
        again.end().await;
        drop(replica);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_flow() {
    const ORDERS: usize = 4000;
    let db = testkit::TestDb::sqlite();
    let replica = Replica::start(&db, patient()).await;
    let (agent, _dir) = factory(&replica, true).await;
    let begun = Instant::now();
    futures::stream::iter(0..ORDERS)
        .for_each_concurrent(256, |n| {
            let hub = replica.hub.clone();
            async move {
                let host = HostId(n as i64 % HOSTS + 1);
                let key = key(n as i64 + 1, "start");
                hub.execute(host, Some(&key), false, start(&format!("{n}"), 1), Duration::from_secs(60)).await.unwrap();
            }
        })
        .await;
    let rate = ORDERS as f64 / begun.elapsed().as_secs_f64();
    eprintln!("{rate:.0} orders/s (unoptimised: {})", cfg!(debug_assertions));
    assert_eq!(agent.simulator.vms().len(), ORDERS);
    agent.end().await.unwrap();
    replica.end().await;
}
