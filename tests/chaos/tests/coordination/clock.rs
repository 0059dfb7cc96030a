//! Wall clocks that jump.

use crate::scene::Scene;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use testkit::wait_until;

/// libfaketime, of the Debian package.
fn library() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let mut folders = found.map(|e| e.path().join("faketime/libfaketimeMT.so.1"));
    folders.find(|p| p.exists())
}

fn step(file: &Path, by: &str) {
    let draft = file.with_extension("new");
    std::fs::write(&draft, format!("{by}\n")).unwrap();
    std::fs::rename(draft, file).unwrap();
}

/// One replica's clock jumps an hour ahead, then an hour back behind the others: no lease ends, no duty moves, no job is
/// taken from anybody, and jobs go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn steps_of_the_wall_clock_change_nothing() {
    let Some(library) = library() else {
        panic!("libfaketime is missing: run deploy/setup-dev test (Debian package faketime)");
    };
    let scene = Scene::small(1).await;
    let file = scene.cluster.dir().join("clock");
    step(&file, "+0");
    let words = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    for part in ["orchestrator-1", "network-1", "storage-1"] {
        scene.cluster.prefix(part, &words).await.unwrap();
        scene.cluster.restart(part).await.unwrap();
    }
    scene.deploy("settles").await;
    let settled = || async {
        let now = scene.duties().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        now == scene.duties().await
    };
    wait_until(settled, Duration::from_secs(20)).await;
    let before = scene.duties().await;
    scene.slow("StartVm", 3).await;
    for (n, by) in ["+3600", "-3600", "+0"].iter().enumerate() {
        let job = scene.begin("deployVirtualMachine", &scene.deploy_params(&format!("clock-{n}"))).await;
        let (live, _) = scene.at_work(&job, "place", "orchestrator").await;
        step(&file, by);
        let begun = Instant::now();
        assert_eq!(scene.end_of(&job, Duration::from_secs(60)).await, "Done");
        assert_eq!(scene.job(&job).await.epoch, live.epoch, "{by}: the job changed hands");
        // Longer than a lease.
        while begun.elapsed() < Duration::from_secs(5) {
            assert_eq!(scene.duties().await, before, "{by}: a duty moved");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    scene.is_sound().await;
}
