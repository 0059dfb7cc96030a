//! A hundred random faults on a cluster under load. `ARCUS_FAULTS=2000 ARCUS_SEED=7 cargo test -p arcus-chaos --test
//! kill_loop -- --nocapture` makes more of them and repeats a seed; `arcus-chaos run` does the same with a release build.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use chaos::faults::Plan;
use chaos::run::{Options, am_root, run};
use chaos::system::System;
use chaos::system::cluster::Production;
use chaos::workload::Load;
use std::sync::Arc;
use std::time::Duration;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_faults_lose_double_and_stick_nothing() {
    let (faults, seed) = (setting("ARCUS_FAULTS", 100), setting("ARCUS_SEED", rand::random()));
    println!("ARCUS_FAULTS={faults} ARCUS_SEED={seed}");
    if !am_root() {
        println!("WITHOUT PARTITIONS: network namespaces need root");
    }
    let dir = testkit::temp_dir();
    let cluster =
        cluster::Options { hosts: 6, isolated: am_root(), seed, ..cluster::Options::new(dir.path()).unwrap() };
    let system: Arc<dyn System> = Arc::new(Production::start(cluster).await.unwrap());
    let every = (Duration::from_millis(500), Duration::from_millis(1500));
    let options = Options {
        plan: Plan { faults: Some(faults), time: None, every, wild: false, seed },
        load: Load { workers: 8, think: Duration::from_millis(400), seed },
        accounts: 4,
        calm: Duration::from_secs(15),
        keep: std::env::var_os("ARCUS_KEEP").map(Into::into),
    };
    let done = run(system, &options).await.unwrap();
    println!("{done}");
    assert!(done.report.findings.is_empty(), "ARCUS_SEED={seed}: {} findings", done.report.findings.len());
}
