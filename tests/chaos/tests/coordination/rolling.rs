//! Graceful stop.

use crate::load::Load;
use crate::scene::{Scene, text};
use cluster::{Kind, SERVICES};
use std::time::{Duration, Instant};
use testkit::wait_until;

// covers: OPS-094
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn a_rolling_restart_under_load_loses_no_request() {
    let scene = Scene::small(1).await;
    let load = Load::start(scene.cluster.api(), Duration::from_millis(20));
    load.have(50).await;
    let mut jobs = Vec::new();
    for (n, service) in SERVICES.iter().enumerate() {
        for part in scene.cluster.parts().into_iter().filter(|p| p.kind == Kind::Service(service)) {
            // Work is under way, too.
            jobs.push(scene.begin("deployVirtualMachine", &scene.deploy_params(&format!("{}-{n}", part.name))).await);
            let begun = Instant::now();
            scene.cluster.stop(&part.name).await;
            let stopped = begun.elapsed();
            scene.cluster.restart(&part.name).await.unwrap();
            println!("{}: stopped after {stopped:?}, back after {:?}", part.name, begun.elapsed());
        }
    }
    let sent = load.end().await;
    println!("{} requests, {} failed", sent.all, sent.failed.len());
    assert!(sent.failed.is_empty(), "{:?}", sent.failed);
    for job in &jobs {
        assert_eq!(scene.end_of(job, Duration::from_secs(60)).await, "Done");
    }
    // A changed parameter is everywhere at once, without a restart.
    let setting = [("name", "expunge.delay"), ("value", "77777")];
    scene.api.call("updateConfiguration", &setting).await.unwrap();
    for endpoint in scene.cluster.endpoints() {
        let gateway = scene.cluster.api().at(endpoint);
        let told = async || gateway.call("listConfigurations", &[("name", "expunge.delay")]).await.unwrap();
        wait_until(|| async { text(&told().await, "/configuration/0/value") == "77777" }, Duration::from_secs(1)).await;
    }
    scene.is_sound().await;
}

// covers: OPS-095
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn a_replica_that_is_stopped_hands_its_jobs_and_duties_over() {
    let scene = Scene::small(1).await;
    scene.slow("StartVm", 10).await;
    let job = scene.begin("deployVirtualMachine", &scene.deploy_params("handed")).await;
    let (live, leaving) = scene.at_work(&job, "place", "orchestrator").await;
    let owner = live.owner.clone().unwrap();
    let begun = Instant::now();
    let ((), took) = futures::join!(scene.cluster.stop(&leaving), scene.taken_over(&job, &live, begun));
    println!("{leaving}: its job was taken over after {took:?}, it had stopped after {:?}", begun.elapsed());
    let duties = scene.duties().await;
    wait_until(|| async { scene.duties().await.values().all(|(_, o)| *o != owner) }, Duration::from_secs(5)).await;
    println!("duties before the last look: {duties:?}");
    assert_eq!(scene.end_of(&job, Duration::from_secs(60)).await, "Done");
    scene.is_sound().await;
}
