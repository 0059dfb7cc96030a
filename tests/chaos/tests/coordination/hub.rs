//! The process of an orchestrator that holds the lines of a thousand hosts dies, or stands still.

use crate::scene::Scene;
use std::time::{Duration, Instant};
use store::Sql;
use testkit::wait_until;

const HOSTS: usize = 1000;
/// From the fault until all hosts are connected with the other replica.
const PROMISED: Duration = Duration::from_secs(15);
const JOBS: i64 = 24;

/// The replica that holds most lines, and how many.
async fn busiest(scene: &Scene) -> (String, i64) {
    let sql = "SELECT hub, COUNT(*) FROM hosts WHERE status = 'Up' AND hub IS NOT NULL GROUP BY hub ORDER BY 2 DESC";
    let row = scene.db.one(Sql::new(sql)).await.unwrap();
    (row.at(0).unwrap(), row.at(1).unwrap())
}

/// Hosts that are connected with another replica than `lost`.
async fn elsewhere(scene: &Scene, lost: &str) -> usize {
    let sql = "SELECT COUNT(*) FROM hosts WHERE removed IS NULL AND status = 'Up' AND hub <> ?";
    let row = scene.db.one(Sql::new(sql).bind(lost)).await.unwrap();
    usize::try_from(row.at::<i64>(0).unwrap()).unwrap()
}

/// Takes the busiest orchestrator away with `fault` while jobs have orders with its hosts.
async fn is_lost(fault: impl AsyncFn(&Scene, &str), mended: impl AsyncFn(&Scene, &str)) {
    let scene = Scene::with(|options| options.hosts = HOSTS).await;
    wait_until(|| async { elsewhere(&scene, "").await == HOSTS }, Duration::from_secs(60)).await;
    scene.slow("StartVm", 8).await;
    let mut jobs = Vec::new();
    for n in 0..JOBS {
        jobs.push(scene.begin("deployVirtualMachine", &scene.deploy_params(&format!("kept-{n}"))).await);
    }
    let placed = "SELECT COUNT(*) FROM job_steps s JOIN jobs j ON j.id = s.job_id WHERE s.name LIKE 'place%' AND j.ended IS NULL";
    let all = || async { scene.db.one(Sql::new(placed)).await.unwrap().at::<i64>(0).unwrap() >= JOBS };
    wait_until(all, Duration::from_secs(60)).await;
    let (lost, lines) = busiest(&scene).await;
    let part = scene.part_of("orchestrator", &lost);
    let begun = Instant::now();
    fault(&scene, &part).await;
    wait_until(|| async { elsewhere(&scene, &lost).await == HOSTS }, Duration::from_secs(60)).await;
    let took = begun.elapsed();
    println!("{part} had {lines} hosts; all were with the other replica after {took:?}");
    assert!(took < PROMISED, "{took:?}");
    for job in &jobs {
        assert_eq!(scene.end_of(job, Duration::from_secs(120)).await, "Done");
    }
    println!("{JOBS} jobs ended well {:?} after the fault", begun.elapsed());
    mended(&scene, &part).await;
    wait_until(|| scene.cluster.ready(&part), Duration::from_secs(60)).await;
    // What it still believed changes nothing.
    scene.deploy("after").await;
    scene.is_sound().await;
    assert_eq!(elsewhere(&scene, &lost).await, HOSTS);
    let named = Sql::new("SELECT COUNT(*) FROM vms WHERE removed IS NULL AND name LIKE 'kept-%' AND state = 'Running'");
    assert_eq!(scene.db.one(named).await.unwrap().at::<i64>(0).unwrap(), JOBS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn a_thousand_hosts_leave_an_orchestrator_that_is_killed() {
    let restart = async |scene: &Scene, part: &str| scene.cluster.restart(part).await.unwrap();
    is_lost(async |scene, part| scene.cluster.kill(part).await, restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn a_thousand_hosts_leave_an_orchestrator_that_stands_still() {
    let pause = async |scene: &Scene, part: &str| scene.cluster.pause(part);
    is_lost(pause, async |scene, part| scene.cluster.resume(part)).await;
}
