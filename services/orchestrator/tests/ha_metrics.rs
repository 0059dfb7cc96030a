//! The metrics of hosts and of high availability: a process of its own, for metrics are the process's.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "common/mod.rs"]
mod common;
#[path = "ha/fakes.rs"]
#[allow(dead_code)] // what the other tests of HA need
mod fakes;
#[path = "ha/site.rs"]
#[allow(dead_code)] // what the other tests of HA need
mod site;

use common::SECOND;
use site::Site;
use std::sync::atomic::Ordering;

#[allow(dead_code)] // what the other tests of HA call it
const VM: &str = "ALERT.USERVM";

fn metric(name: &str) -> Option<i64> {
    let text = telemetry::metrics::text();
    let line = text.lines().find(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?.to_owned();
    line.split_whitespace().last()?.parse().ok()
}

async fn shows(name: &str, value: i64) {
    testkit::wait_until(|| async { metric(name) == Some(value) }, 60 * SECOND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_investigations_and_restarts_are_counted() {
    let site = Site::open(&testkit::TestDb::sqlite(), 2).await;
    site.running(1, true, 0).await;
    site.running(2, true, 1).await; // its host reaches the pool, so it can see
    shows("arcus_hosts{state=\"Up\"}", 2).await;
    shows("arcus_hosts{state=\"Down\"}", 0).await;
    shows("arcus_ha_pending{state=\"waiting\"}", 0).await;
    // One that is cut off is looked at again and again.
    assert!(site.factory.simulator.silence_host(&site.hosts[0], true));
    shows("arcus_hosts{state=\"Alert\"}", 1).await;
    shows("arcus_host_investigations_under_way{}", 1).await;
    shows("arcus_host_investigations_under_way{}", 0).await;
    testkit::wait_until(
        || async { metric("arcus_host_investigations_total{verdict=\"Alive\"}").is_some_and(|n| n > 1) },
        60 * SECOND,
    )
    .await;
    assert!(site.factory.simulator.silence_host(&site.hosts[0], false));
    shows("arcus_hosts{state=\"Up\"}", 2).await;
    // One that stands still for good, while its VM can't be started elsewhere.
    site.set("restart.retry.interval", "5").await;
    site.network.broken.store(true, Ordering::SeqCst);
    site.freeze(0, true).await;
    shows("arcus_hosts{state=\"Down\"}", 1).await;
    shows("arcus_ha_restarts_total{result=\"failed\"}", 1).await;
    shows("arcus_ha_pending{state=\"waiting\"}", 1).await;
    site.network.broken.store(false, Ordering::SeqCst);
    shows("arcus_ha_restarts_total{result=\"done\"}", 1).await;
    shows("arcus_ha_pending{state=\"waiting\"}", 0).await;
    assert_eq!(metric("arcus_host_investigations_total{verdict=\"Dead\"}"), Some(1));
    assert_eq!(metric("arcus_ha_restarts_total{result=\"given up\"}"), None);
    site.freeze(0, false).await;
    shows("arcus_hosts{state=\"Up\"}", 2).await;
    // Who doesn't lead shows nothing.
    site.end().await;
    assert_eq!((metric("arcus_hosts{state=\"Up\"}"), metric("arcus_ha_pending{state=\"waiting\"}")), (None, None));
}
