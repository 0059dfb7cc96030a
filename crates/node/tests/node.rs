//! What a node does by itself.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use config::{Scope, find};
use node::Node;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use store::{Db, DbConfig, Sql};
use testkit::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);

testkit::databases! {
    async fn secret_settings_are_sealed_by_the_vault(db: testkit::TestDb) {
        let db = Db::connect(&DbConfig::new(db.url())).await.unwrap();
        let (node, _net) = Node::for_tests(db).await;
        let (name, settings) = ("alert.smtp.password", &node.settings);
        store::tx!(node.db, "set", |tx| settings.set(tx, name, "geheim", Scope::Global).await).await.unwrap();
        assert_eq!(settings.text(find(name).unwrap(), Scope::Global).as_deref(), Some("geheim"));
        let stored = node.db.one(Sql::new("SELECT value FROM settings WHERE name = ?").bind(name)).await.unwrap();
        assert!(!stored.at::<String>(0).unwrap().contains("geheim"));
        node.shut_down(PATIENCE).await;
    }

    async fn background_work_ends_with_the_node(db: testkit::TestDb) {
        let db = Db::connect(&DbConfig::new(db.url())).await.unwrap();
        let (node, _net) = Node::for_tests(db).await;
        let running = Arc::new(AtomicUsize::new(0));
        node.spawn("panics", async { panic!("this ends only itself") });
        let counter = running.clone();
        node.spawn("waits", async move {
            counter.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        });
        let counter = running.clone();
        node.duty("leads", move |term| {
            assert!(term.epoch() > 0);
            counter.fetch_add(1, Ordering::SeqCst);
            std::future::pending()
        });
        wait_until(|| async { running.load(Ordering::SeqCst) == 2 }, PATIENCE).await;
        node.shut_down(PATIENCE).await;
        assert!(node.tasks.is_empty());
    }
}
