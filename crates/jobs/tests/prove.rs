//! The harness over the toy job: failed and killed at every point, it leaves everything or nothing.
#![allow(clippy::unwrap_used)]

mod toy;

use jobs::harness::prove;
use toy::Scenario;

const STEPS: &[&str] = &["row", "left", "right", "paint", "top", "finish"];

async fn proven(mariadb: bool, flaky: bool) {
    let proof = prove(&Scenario { mariadb, flaky }, STEPS).await.unwrap_or_else(|e| panic!("{e}"));
    for point in ["before undo row", "after undo top", "before fail", "after abort"] {
        assert!(proof.points.contains(point), "{point} was never disturbed: {:?}", proof.points);
    }
    assert!(proof.runs > 40, "{proof:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn toy_on_sqlite() {
    proven(false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn toy_on_mariadb() {
    proven(true, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn toy_with_lost_answers() {
    proven(false, true).await;
}

/// A step that the job doesn't have is found missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreached_step_is_an_error() {
    let error = prove(&Scenario { mariadb: false, flaky: false }, &["row", "bottom"]).await.unwrap_err();
    assert!(error.contains("step bottom was never reached"), "{error}");
}
