//! The parts themselves: killed, paused, restarted, in namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;
use std::time::Duration;
use testkit::{Etcd, Galera, MariaDb, Place, ServerOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_goes_on_with_two_of_three_members() {
    let mut members = Etcd::cluster(3).await;
    members[0].kill();
    for member in &members[1..] {
        member.await_ready().await; // the leader may have been the one that died
    }
    members[1].pause();
    assert!(!members[1].ready().await);
    members[1].resume();
    members[0].restart().await;
    assert!(members[0].pid().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wholly_killed_galera_begins_where_it_was() {
    if !Galera::installed() {
        return;
    }
    let mut cluster = Galera::start(3).await;
    let made =
        cluster.statement(0, "CREATE DATABASE d; CREATE TABLE d.t (n BIGINT PRIMARY KEY); INSERT INTO d.t VALUES (1)");
    assert!(made.await.is_some());
    // Node 0 misses the last row, so it mustn't be the one that begins.
    cluster.kill(0);
    testkit::wait_until(
        || async { cluster.statement(2, "INSERT INTO d.t VALUES (2)").await.is_some() },
        Duration::from_secs(20),
    )
    .await;
    cluster.kill(1);
    cluster.kill(2);
    cluster.bootstrap().await;
    for i in 0..3 {
        assert_eq!(cluster.statement(i, "SELECT COUNT(*) FROM d.t").await.unwrap().trim(), "2", "node {i}");
    }
    cluster.stop(1).await;
    cluster.restart(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_run_in_network_namespaces() {
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let name = format!("arcus-t{}", std::process::id());
    let ip = |args: &str| Command::new("ip").args(args.split(' ')).status().is_ok_and(|s| s.success());
    if !root || !ip(&format!("netns add {name}")) {
        return; // needs a machine of one's own
    }
    let near = format!("t{}", std::process::id() % 100_000);
    let net = format!("10.213.{}", std::process::id() % 250);
    assert!(ip(&format!("link add {near} type veth peer name far netns {name}")));
    assert!(ip(&format!("address add {net}.1/24 dev {near}")) && ip(&format!("link set {near} up")));
    assert!(ip(&format!("-n {name} address add {net}.2/24 dev far")) && ip(&format!("-n {name} link set far up")));
    let place = Place::namespace(&name, format!("{net}.2"));
    let options = ServerOptions { places: vec![place], ..ServerOptions::default() };
    let outcome = tokio::spawn(async move {
        let server = MariaDb::start_with(&options).await;
        assert!(server.ready().await);
        tokio::net::TcpStream::connect(format!("{net}.2:{}", server.port())).await.unwrap();
        let etcd = Etcd::cluster_with(&options).await;
        assert!(etcd[0].endpoint().contains(&net) && etcd[0].ready().await);
    })
    .await;
    assert!(ip(&format!("netns del {name}")));
    outcome.unwrap();
}
