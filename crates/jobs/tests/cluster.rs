//! Replicas that coordinate through etcd, and replicas on different nodes of a Galera cluster.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod toy;

use coord::{Coord, EtcdConfig};
use jobs::{Claim, JobState};
use rpc::LocalNet;
use std::time::Duration;
use store::{Db, DbConfig};
use testkit::{Etcd, Galera, wait_until};
use toy::{Build, Receiver, Replica, accept_of, database, look, submit, submit_as};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_lease_ended_is_relieved() {
    let etcd = Etcd::start().await;
    let test = testkit::TestDb::sqlite();
    let db = database(test.url()).await;
    let net = LocalNet::new();
    Receiver::serve(&net, db.clone());
    let coord = || async {
        let mut config = EtcdConfig::new([etcd.endpoint()]);
        config.lease = Duration::from_secs(2);
        Coord::etcd(config).await.unwrap()
    };
    let (near, far) = (coord().await, coord().await);
    let mut first = Replica::start(&db, &near, &net, "replica-1").await;
    let second = Replica::start(&db, &far, &net, "replica-2").await;
    let gate = first.world.gate("paint");
    let uuid = submit(&db, &first.jobs, Build::named("duck")).await.unwrap();
    wait_until(|| async { first.world.passed("paint") == 1 }, Duration::from_secs(10)).await;
    first.membership = None;
    let job = tokio::time::timeout(Duration::from_secs(20), second.jobs.end_of(&uuid)).await.unwrap().unwrap();
    assert_eq!((job.state, job.replica.as_deref()), (JobState::Done, Some("replica-2")));
    gate.add_permits(1);
    wait_until(|| async { first.jobs.stats().running == 0 }, Duration::from_secs(10)).await;
    assert_eq!(look(&db).await, "toy duck Ready\npart duck/left x\npart duck/right x\npart duck/top x\n");
    // A cancellation reaches the replica that works on the job, wherever it was asked for.
    let gate = second.world.gate("paint");
    let uuid = submit(&db, &second.jobs, Build::named("goose")).await.unwrap();
    wait_until(|| async { second.world.passed("paint") == 2 }, Duration::from_secs(10)).await;
    assert!(first.jobs.cancel(&uuid).await.unwrap());
    gate.add_permits(1);
    let job = tokio::time::timeout(Duration::from_secs(20), first.jobs.end_of(&uuid)).await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Failed);
    second.end().await;
    first.end().await;
}

/// Two replicas on a cluster; `nodes` are the ones that they write to.
async fn share_claims(nodes: [usize; 2]) {
    if !Galera::installed() {
        return;
    }
    let cluster = Galera::start(2).await;
    let name = cluster.fresh_name();
    let one = database(&cluster.url(nodes[0], &name)).await;
    let two = Db::connect(&DbConfig::new(cluster.url(nodes[1], &name))).await.unwrap();
    let (coord, net) = (Coord::local(), LocalNet::new());
    Receiver::serve(&net, one.clone());
    let first = Replica::start(&one, &coord, &net, "replica-1").await;
    let second = Replica::start(&two, &coord, &net, "replica-2").await;
    let run = (0..40).map(async |n: u32| {
        let mut accept = accept_of(Build::named(&format!("toy-{n}")));
        accept.claims = vec![Claim::Exclusive(format!("bench/{}", n % 5)), Claim::Shared("shelf/1".into())];
        let (db, jobs) = if n.is_multiple_of(2) { (&one, &first.jobs) } else { (&two, &second.jobs) };
        let uuid = submit_as(db, jobs, accept).await.unwrap();
        // Asked where it was accepted: another node may be a moment behind.
        let ended = tokio::time::timeout(Duration::from_secs(60), jobs.end_of(&uuid)).await;
        assert_eq!(ended.expect("the job ends in time").unwrap().state, JobState::Done);
    });
    futures::future::join_all(run).await;
    let other = Db::connect(&DbConfig::new(cluster.url(1, &name))).await.unwrap();
    wait_until(|| async { look(&other).await.matches("Ready").count() == 40 }, Duration::from_secs(10)).await;
    wait_until(|| async { !look(&other).await.contains("claim") }, Duration::from_secs(10)).await;
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_on_a_cluster_share_claims() {
    share_claims([0, 0]).await;
}

/// All services write to one node at a time, but two that change to another one do so at different moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_on_different_nodes_share_claims() {
    share_claims([0, 1]).await;
}
