//! Several gateways: the loss of one is no loss, and each can do everything.

use crate::load::{Load, login};
use crate::scene::{Scene, text};
use serde_json::Value;
use std::time::Duration;

// covers: OPS-096, OPS-097, OPS-107
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn the_loss_of_one_gateway_is_no_loss() {
    let scene = Scene::small(1).await;
    let [one, two] = scene.cluster.endpoints().try_into().unwrap();
    let (one, two) = (scene.cluster.api().at(one), scene.cluster.api().at(two));
    // What one was told, the other knows.
    let accepted = one.call("deployVirtualMachine", &scene.deploy_params("shared")).await.unwrap();
    let job = text(&accepted, "/jobid");
    assert_eq!(scene.end_of(&job, Duration::from_secs(60)).await, "Done");
    let asked = [("jobid", job.as_str())];
    let told = [&one, &two].map(|gateway| gateway.call("queryAsyncJobResult", &asked));
    let [first, second] = futures::future::try_join_all(told).await.unwrap().try_into().unwrap();
    assert_eq!(first, second);
    let session = login(&one.endpoint, &scene.cluster.dir().join("admin.password")).await;
    let load = Load::start(scene.cluster.api(), Duration::from_millis(20));
    scene.cluster.kill("gateway-1").await;
    let zones: Value = session.call(&two.endpoint, "listZones").await;
    assert!(zones.pointer("/listzonesresponse/count").is_some(), "the session is lost with its gateway: {zones}");
    load.have(50).await;
    let sent = load.end().await;
    // Only those that were under way in the killed process may fail; the load has at most one of each kind under way.
    println!("{} requests, {} failed: {:?}", sent.all, sent.failed.len(), sent.failed);
    assert!(sent.failed.len() <= 4, "{:?}", sent.failed);
    scene.cluster.restart("gateway-1").await.unwrap();
    assert!(one.call("listZones", &[]).await.is_ok());
    scene.is_sound().await;
}
