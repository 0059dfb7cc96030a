//! No control plane at all.

use crate::scene::Scene;
use chaos::hosts;
use cluster::Kind;
use std::time::Duration;
use testkit::wait_until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn hosts_go_on_without_a_control_plane_and_come_back_by_themselves() {
    let scene = Scene::small(1).await;
    for n in 0..3 {
        scene.deploy(&format!("goes-on-{n}")).await;
    }
    let running = || {
        let mut vms = hosts::read(&[scene.cluster.dir().join("agent")]).unwrap().running;
        vms.sort();
        vms
    };
    let before = running();
    assert!(before.len() >= 3, "{before:?}");
    let services: Vec<String> =
        scene.cluster.parts().into_iter().filter(|p| matches!(p.kind, Kind::Service(_))).map(|p| p.name).collect();
    for name in &services {
        scene.cluster.kill(name).await;
    }
    for endpoint in scene.cluster.endpoints() {
        let gateway = scene.cluster.api().at(endpoint);
        assert!(gateway.call("listZones", &[]).await.is_err(), "somebody answers");
        assert!(gateway.call("deployVirtualMachine", &scene.deploy_params("never")).await.is_err());
    }
    // A lease of a VM is renewed many times meanwhile; an agent that gave up would have stopped its VMs.
    let until = tokio::time::Instant::now() + Duration::from_secs(12);
    while tokio::time::Instant::now() < until {
        assert_eq!(running(), before, "a host did something without being told");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for name in &services {
        scene.cluster.restart(name).await.unwrap();
    }
    // Agents are back without anybody's doing: their hosts can be used.
    wait_until(
        || async {
            let hosts = scene.api.call("listHosts", &[("type", "Routing"), ("state", "Up")]).await;
            hosts.is_ok_and(|h| h.get("count").and_then(serde_json::Value::as_i64) == Some(4))
        },
        Duration::from_secs(30),
    )
    .await;
    assert_eq!(running(), before);
    scene.deploy("works-again").await;
    scene.is_sound().await;
}
