//! The duty: what appears and what disappears is told once, and the metric says what is there.

use crate::world::World;
use config::Scope;
use orchestrator::audit::round;
use std::time::Duration;
use testkit::wait_until;

async fn alerts(world: &World) -> Vec<String> {
    let sql = "SELECT payload FROM outbox WHERE kind = 'ALERT.MANAGEMENT' ORDER BY id";
    let rows = world.node.db.all(store::Sql::new(sql)).await.unwrap();
    let payload =
        |row: &store::Row| -> serde_json::Value { serde_json::from_slice(&row.at::<Vec<u8>>(0).unwrap()).unwrap() };
    rows.iter().map(|row| payload(row)["Event"]["description"].as_str().unwrap().to_owned()).collect()
}

fn metric(check: &str) -> Option<i64> {
    let text = telemetry::metrics::text();
    let line =
        text.lines().find(|l| l.starts_with(&format!("arcus_audit_violations{{check=\"{check}\"}}")))?.to_owned();
    line.split_whitespace().last()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_appears_and_disappears_is_told_once() {
    let world = World::new().await;
    let (own, db) = (&world.orchestrator, &world.node.db);
    // The duty keeps out of the way.
    let settings = &world.node.settings;
    let interval = |seconds: &'static str| async move {
        store::tx!(*db, "interval", |tx| settings.set(tx, "arcus.audit.interval", seconds, Scope::Global).await)
            .await
            .unwrap();
    };
    interval("0").await;
    assert_eq!(round(own, None).await.unwrap().violations, vec![]);
    assert_eq!((alerts(&world).await.len(), metric("limit-count")), (0, Some(0)));

    world.change("UPDATE resource_counts SET used = used + 1 WHERE slot = 'account/2/0'").await;
    for _ in 0..2 {
        let found = round(own, None).await.unwrap().violations;
        assert_eq!(found.iter().map(|v| v.check).collect::<Vec<_>>(), ["limit-count"]);
        let told = alerts(&world).await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("Audit: limit-count found 1 times: count/account/2/0: counts "), "{told:?}");
        assert_eq!(metric("limit-count"), Some(1));
    }
    world.change("UPDATE resource_counts SET used = used - 1 WHERE slot = 'account/2/0'").await;
    assert_eq!(round(own, None).await.unwrap().violations, vec![]);
    assert!(alerts(&world).await[1].starts_with("Audit: limit-count no longer found 1 times: count/account/2/0"));
    assert_eq!(metric("limit-count"), Some(0));

    // And by itself.
    world.change("UPDATE ids SET next = 1 WHERE kind = 'vm'").await;
    interval("1").await;
    wait_until(|| async { alerts(&world).await.len() == 3 }, Duration::from_secs(60)).await;
    assert_eq!(metric("sequence-behind"), Some(1));
}
