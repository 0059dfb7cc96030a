//! Parts that are cut off from the others.

use crate::{alone, am_root, call, deploy, few_hosts, namespaces, processes, state};
use cluster::{Cluster, Options};
use std::time::{Duration, Instant};
use testkit::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn cut_off_and_back() {
    if !am_root() {
        println!("not run: network namespaces need root");
        return;
    }
    let _alone = alone().await;
    let dir = testkit::temp_dir();
    let options = Options { isolated: true, etcd: 3, ..few_hosts(dir.path()) };
    let cluster = Cluster::start(options).await.unwrap();
    println!("{:?}, {}", cluster.start_time(), cluster.memory());
    let api = cluster.api();
    let vm = deploy(api, "before").await;

    // A member of etcd: the others elect and serve, it doesn't.
    cluster.partition("etcd-1").await;
    wait_until(|| async { !cluster.ready("etcd-1").await }, PATIENCE).await;
    assert!(cluster.alive("etcd-1") && cluster.ready("etcd-2").await && cluster.ready("etcd-3").await);
    deploy(api, "without-etcd-1").await;
    cluster.heal("etcd-1").await;
    wait_until(|| cluster.ready("etcd-1"), PATIENCE).await;

    // A gateway: the balancer finds out and leaves it alone. Nobody is told: a call to it waits in vain.
    let direct = api.at(cluster.endpoints()[0].clone());
    call(&direct, "listZones", &[]).await.unwrap();
    cluster.partition("gateway-1").await;
    let begun = Instant::now();
    let silent = tokio::time::timeout(Duration::from_secs(3), direct.call("listZones", &[])).await;
    assert!(silent.is_err(), "a call came through: {silent:?}");
    let well = || async { call(api, "listZones", &[]).await.is_ok() };
    wait_until(well, PATIENCE).await;
    println!("the API serves {:.1} s after a gateway was cut off", begun.elapsed().as_secs_f64());
    for _ in 0..20 {
        call(api, "listZones", &[]).await.unwrap();
    }
    deploy(api, "without-gateway-1").await;
    cluster.heal("gateway-1").await;
    wait_until(|| async { call(&direct, "listZones", &[]).await.is_ok() }, PATIENCE).await;

    // Only between two: everybody else reaches both.
    cluster.partition_from("etcd-2", &["etcd-3"]).await;
    assert!(cluster.ready("etcd-1").await);
    call(api, "listZones", &[]).await.unwrap();
    cluster.heal("etcd-2").await;
    for name in ["etcd-1", "etcd-2", "etcd-3"] {
        wait_until(|| cluster.ready(name), PATIENCE).await;
    }
    assert_eq!(state(api, &vm).await.as_deref(), Some("Running"));

    // Nothing is left.
    let network = std::fs::read_to_string(dir.path().join("network")).unwrap();
    assert!(!namespaces(&network).is_empty());
    drop(cluster);
    assert_eq!((processes(dir.path()), namespaces(&network)), (Vec::new(), Vec::new()));
    assert!(!std::path::Path::new("/sys/class/net").join(&network).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn what_a_killed_run_left_is_removed() {
    if !am_root() {
        println!("not run: network namespaces need root");
        return;
    }
    let _alone = alone().await;
    let dir = testkit::temp_dir();
    let up = async || {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_arcus-cluster"));
        command.args(["up", "--small", "--isolated", "--hosts", "0", "--replicas", "1", "--dir"]).arg(dir.path());
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        cluster::Report::read(dir.path()).unwrap().unwrap()
    };
    let first = up().await;
    let network = std::fs::read_to_string(dir.path().join("network")).unwrap();
    let made = namespaces(&network);
    assert!(std::process::Command::new("kill").arg("-9").arg(first.supervisor.to_string()).status().unwrap().success());
    wait_until(|| async { processes(dir.path()).is_empty() }, PATIENCE).await;
    assert_eq!(namespaces(&network).len(), made.len(), "namespaces outlive a killed process");
    // It takes the same addresses again, which are what etcd remembers.
    let second = up().await;
    assert_eq!((second.endpoint, second.etcd), (first.endpoint, first.etcd));
    let down = tokio::process::Command::new(env!("CARGO_BIN_EXE_arcus-cluster"))
        .args(["down", "--dir"])
        .arg(dir.path())
        .output()
        .await
        .unwrap();
    assert!(down.status.success());
    assert_eq!((processes(dir.path()), namespaces(&network)), (Vec::new(), Vec::new()));
}
