//! etcd without a majority.

use crate::scene::Scene;
use std::time::{Duration, Instant};
use testkit::wait_until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn without_a_majority_of_etcd_requests_go_on_and_nobody_is_elected() {
    let scene = Scene::small(3).await;
    let before = scene.duties().await;
    for member in ["etcd-1", "etcd-2"] {
        scene.cluster.kill(member).await;
    }
    // Longer than any lease, so that all duties have paused.
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < Duration::from_secs(8) {
        n += 1;
        let vm = scene.deploy(&format!("orphan-{n}")).await;
        let found = scene.cluster.api().call("listVirtualMachines", &[("id", &vm)]).await.unwrap();
        assert_eq!(crate::scene::text(&found, "/virtualmachine/0/state"), "Running");
        scene.api.call("stopVirtualMachine", &[("id", &vm)]).await.unwrap();
    }
    println!("{n} deploys and stops without etcd");
    assert_eq!(scene.duties().await, before, "somebody was elected without a majority");
    for member in ["etcd-1", "etcd-2"] {
        scene.cluster.restart(member).await.unwrap();
    }
    let begun = Instant::now();
    wait_until(
        || async {
            let now = scene.duties().await;
            before.iter().all(|(name, (epoch, _))| now[name].0 > *epoch)
        },
        Duration::from_secs(30),
    )
    .await;
    println!("all {} duties are led again after {:?}", before.len(), begun.elapsed());
    scene.is_sound().await;
}
