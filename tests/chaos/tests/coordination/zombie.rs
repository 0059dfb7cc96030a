//! A replica that others have taken for dead and that comes back: what it still wants to write isn't written.

use crate::scene::{Live, Scene};
use std::time::{Duration, Instant};
use store::Sql;

/// What must not change once a job was taken over and has ended.
async fn record(scene: &Scene, job: &str) -> (Live, i64, Option<Vec<u8>>) {
    let sql = Sql::new("SELECT seq, result FROM jobs WHERE uuid = ?").bind(job);
    let row = scene.db.one(sql).await.unwrap();
    (scene.job(job).await, row.at(0).unwrap(), row.at(1).unwrap())
}

/// Lets a replica work on a job, takes it away with `hide`, waits until others have ended the job and all duties have
/// moved, brings it back with `show`, and proves that nothing of what it had under way came through.
async fn comes_back(scene: &Scene, hide: impl AsyncFn(&str), show: impl AsyncFn(&str)) {
    scene.slow("StartVm", 5).await;
    let job = scene.begin("deployVirtualMachine", &scene.deploy_params("zombie")).await;
    let (live, victim) = scene.at_work(&job, "place", "orchestrator").await;
    let zombie = live.owner.clone().unwrap();
    let begun = Instant::now();
    hide(&victim).await;
    let took = scene.taken_over(&job, &live, begun).await;
    println!("{victim} lost its job after {took:?}");
    assert_eq!(scene.end_of(&job, Duration::from_secs(60)).await, "Done");
    testkit::wait_until(
        || async { scene.duties().await.values().all(|(_, owner)| *owner != zombie) },
        Duration::from_secs(15),
    )
    .await;
    let (before, duties) = (record(scene, &job).await, scene.duties().await);
    show(&victim).await;
    // It is back when it is a member again and serves; whatever it had under way has met its fence by then.
    testkit::wait_until(|| async { scene.cluster.ready(&victim).await }, Duration::from_secs(30)).await;
    scene.deploy("after").await;
    scene.is_sound().await;
    let (after, later) = (record(scene, &job).await, scene.duties().await);
    assert_eq!(before, after, "the job was written by a replica that had lost it");
    for (name, (epoch, owner)) in &duties {
        let (now, owner_now) = &later[name];
        assert!(now > epoch || owner_now == owner, "{name}: {owner_now} leads with an epoch that isn't its own");
    }
    let twice = Sql::new("SELECT COUNT(*) FROM vms WHERE removed IS NULL AND name = 'zombie'");
    assert_eq!(scene.db.one(twice).await.unwrap().at::<i64>(0).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn a_paused_replica_cannot_write_when_it_goes_on() {
    let scene = Scene::small(1).await;
    let cluster = &scene.cluster;
    comes_back(&scene, async |name| cluster.pause(name), async |name| cluster.resume(name)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn a_replica_that_was_cut_off_cannot_write_when_it_is_back() {
    let Some(scene) = Scene::isolated(1).await else { return };
    let cluster = &scene.cluster;
    comes_back(&scene, async |name| cluster.partition(name).await, async |name| cluster.heal(name).await).await;
}

/// It sees the database, and not who took its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn a_replica_that_is_cut_off_from_etcd_alone_loses_its_jobs_and_duties() {
    let Some(scene) = Scene::isolated(3).await else { return };
    let cluster = &scene.cluster;
    let from = ["etcd-1", "etcd-2", "etcd-3"];
    comes_back(&scene, async |name| cluster.partition_from(name, &from).await, async |name| cluster.heal(name).await)
        .await;
}
