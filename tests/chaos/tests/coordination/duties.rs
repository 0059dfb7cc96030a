//! Singleton duties.

use crate::scene::Scene;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use testkit::wait_until;

// covers: OPS-100
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn duties_of_killed_replicas_move_and_have_one_owner_at_a_time() {
    let scene = Scene::small(1).await;
    let before = scene.duties().await;
    assert!(before.len() > 5, "{before:?}");
    // One epoch has one owner, whenever one looks.
    let mut owners: BTreeMap<(String, i64), BTreeSet<String>> = BTreeMap::new();
    for service in ["orchestrator", "network", "storage", "usage", "identity"] {
        let duties = scene.duties().await;
        let of_service: Vec<_> = duties.iter().filter(|(_, (_, o))| o.starts_with(&format!("{service}-"))).collect();
        let Some((_, (_, owner))) = of_service.first() else { continue };
        let victim = scene.part_of(service, owner);
        let lost: Vec<_> = of_service.iter().filter(|(_, (_, o))| o == owner).collect();
        scene.cluster.kill(&victim).await;
        let begun = Instant::now();
        wait_until(
            || async {
                let now = scene.duties().await;
                lost.iter().all(|(name, (epoch, owner))| now[*name].0 > *epoch && now[*name].1 != *owner)
            },
            Duration::from_secs(15),
        )
        .await;
        println!("{} duties of {victim} moved within {:?}", lost.len(), begun.elapsed());
        scene.cluster.restart(&victim).await.unwrap();
        for (name, (epoch, owner)) in scene.duties().await {
            owners.entry((name, epoch)).or_default().insert(owner);
        }
    }
    assert!(owners.values().all(|o| o.len() == 1), "{owners:?}");
    scene.is_sound().await;
}

/// When a line was logged, as text that sorts.
fn time_of(log: &str, has: impl Fn(&str) -> bool) -> Option<String> {
    log.lines().filter(|l| has(l)).last().and_then(|l| l.split_whitespace().next()).map(str::to_owned)
}

// covers: OPS-101
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn a_leader_that_is_cut_off_from_etcd_stops_before_another_leads() {
    let Some(scene) = Scene::isolated(3).await else { return };
    let duties = scene.duties().await;
    let (_, owner) = &duties["vm-sweep"];
    let leader = scene.part_of("orchestrator", owner);
    let lost: Vec<_> = duties.iter().filter(|(_, (_, o))| o == owner).collect();
    scene.cluster.partition_from(&leader, &["etcd-1", "etcd-2", "etcd-3"]).await;
    wait_until(
        || async {
            let now = scene.duties().await;
            lost.iter().all(|(name, (epoch, _))| now[*name].0 > *epoch)
        },
        Duration::from_secs(20),
    )
    .await;
    let log = scene.log(&leader);
    let now = scene.duties().await;
    for (name, (epoch, _)) in &lost {
        let of_duty = |l: &str| l.contains(&format!("\"{name}\""));
        let stopped = time_of(&log, |l| l.contains("deposed") && of_duty(l));
        let stopped = stopped.unwrap_or_else(|| panic!("{leader} hasn't stopped {name} ({epoch})"));
        let next = scene.part_of("orchestrator", &now[*name].1);
        let began = time_of(&scene.log(&next), |l| l.contains("leading") && of_duty(l)).unwrap();
        assert!(stopped < began, "{name}: {leader} stopped at {stopped}, {next} began at {began}");
    }
    println!("{} duties stopped before they began elsewhere", lost.len());
    scene.cluster.heal(&leader).await;
    scene.is_sound().await;
}
