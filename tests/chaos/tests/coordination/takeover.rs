//! The jobs of a replica that is killed.

use crate::scene::Scene;
use std::time::{Duration, Instant};

/// From the kill until another replica has the job.
const WITHIN: Duration = Duration::from_secs(5);

// covers: OPS-096
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn jobs_of_a_killed_replica_go_on_elsewhere_within_five_seconds() {
    let scene = Scene::small(1).await;
    scene.slow("StartVm", 6).await;
    let jobs: Vec<String> = {
        let mut jobs = Vec::new();
        for n in 0..6 {
            let name = format!("taken-{n}");
            jobs.push(scene.begin("deployVirtualMachine", &scene.deploy_params(&name)).await);
        }
        jobs
    };
    let (first, victim) = scene.at_work(&jobs[0], "place", "orchestrator").await;
    let mut left = Vec::new();
    for job in &jobs {
        let live = scene.job(job).await;
        if live.owner == first.owner {
            left.push((job, live));
        }
    }
    scene.cluster.kill(&victim).await;
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    for (job, live) in &left {
        longest = longest.max(scene.taken_over(job, live, begun).await);
    }
    println!("{} jobs of {victim} were taken over within {longest:?}", left.len());
    assert!(longest < WITHIN, "{longest:?}");
    for job in &jobs {
        assert_eq!(scene.end_of(job, Duration::from_secs(60)).await, "Done");
    }
    scene.is_sound().await;
    scene.cluster.restart(&victim).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn jobs_of_a_killed_storage_replica_go_on_elsewhere_within_five_seconds() {
    let scene = Scene::small(1).await;
    let vm = scene.deploy("has-disk").await;
    let params = [
        ("zoneid", scene.ground.zone.as_str()),
        ("diskofferingid", scene.ground.disk_offering.as_str()),
        ("size", "1"),
        ("name", "disk"),
    ];
    let volume = crate::scene::text(&scene.api.call("createVolume", &params).await.unwrap(), "/volume/id");
    scene.slow("AttachDisk", 6).await;
    let job = scene.begin("attachVolume", &[("id", &volume), ("virtualmachineid", &vm)]).await;
    let (live, victim) = scene.at_work(&job, "", "storage").await;
    scene.cluster.kill(&victim).await;
    let took = scene.taken_over(&job, &live, Instant::now()).await;
    println!("the job of {victim} was taken over after {took:?}");
    assert!(took < WITHIN, "{took:?}");
    assert_eq!(scene.end_of(&job, Duration::from_secs(60)).await, "Done");
    scene.is_sound().await;
}
