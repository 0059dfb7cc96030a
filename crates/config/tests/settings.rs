//! Settings on both databases, seen by several replicas.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use config::{Scope, Seal, Settings, find, keys};
use contract::ApiError;
use coord::Coord;
use std::sync::Arc;
use std::time::Duration;
use store::{Db, DbConfig, Sql};
use testkit::wait_until;

async fn connect(test: &testkit::TestDb) -> Db {
    let db = Db::connect(&DbConfig::new(test.url())).await.unwrap();
    db.migrate(config::MIGRATIONS).await.unwrap();
    db
}

async fn set(db: &Db, settings: &Settings, name: &str, value: &str, scope: Scope) -> Result<(), ApiError> {
    store::tx!(db, "set", |tx| settings.set(tx, name, value, scope).await).await
}

struct Backwards;

impl Seal for Backwards {
    fn seal(&self, context: &str, plain: &str) -> String {
        format!("{context}|{}", plain.chars().rev().collect::<String>())
    }
    fn open(&self, context: &str, sealed: &str) -> Result<String, ApiError> {
        let plain = sealed.strip_prefix(&format!("{context}|")).ok_or_else(|| ApiError::internal("another context"))?;
        Ok(plain.chars().rev().collect())
    }
}

testkit::databases! {
    // covers: INST-178
    async fn values_are_set_and_scoped(db: testkit::TestDb) {
        let db = connect(&db).await;
        let settings = Settings::load(&db, &Coord::local()).await.unwrap();
        assert_eq!(settings.get(keys::EXPUNGE_DELAY), 86400);
        assert_eq!(settings.get(keys::INTEGRATION_API_PORT), None);
        assert_eq!(settings.get(keys::MAX_DOMAIN_USER_VMS), -1, "the initial value counts, not the default");
        set(&db, &settings, "expunge.delay", " 20 ", Scope::Global).await.unwrap();
        assert_eq!(settings.get(keys::EXPUNGE_DELAY), 20, "at once, where it was set");
        set(&db, &settings, "guest.domain.suffix", "sandbox.simulator", Scope::Global).await.unwrap();
        assert_eq!(settings.get(keys::GUEST_DOMAIN_SUFFIX), "sandbox.simulator");

        let factor = keys::CPU_OVERPROVISIONING_FACTOR;
        set(&db, &settings, "cpu.overprovisioning.factor", "4", Scope::Cluster(7)).await.unwrap();
        assert_eq!(settings.get_in(factor, Scope::Cluster(7)), 4.0);
        assert_eq!(settings.get_in(factor, Scope::Cluster(8)), 1.0);
        assert_eq!(settings.get(factor), 1.0);
        set(&db, &settings, "cpu.overprovisioning.factor", "2", Scope::Global).await.unwrap();
        assert_eq!(settings.get_in(factor, Scope::Cluster(8)), 2.0);
        assert_eq!(settings.get_in(factor, Scope::Cluster(7)), 4.0);
        assert_eq!(settings.text(find(factor.name).unwrap(), Scope::Cluster(7)).as_deref(), Some("4"));

        let refused = set(&db, &settings, "expunge.delay", "5", Scope::Zone(1)).await.unwrap_err();
        assert_eq!(refused.text, "Invalid scope id provided for the parameter expunge.delay");
        let unknown = set(&db, &settings, "no.such.setting", "1", Scope::Global).await.unwrap_err();
        assert_eq!((unknown.code, unknown.cs_code), (431, 4350));
        assert_eq!(unknown.text, "Config parameter with name no.such.setting doesn't exist");
        set(&db, &settings, "expunge.delay", "soon", Scope::Global).await.unwrap_err();
        assert_eq!(settings.get(keys::EXPUNGE_DELAY), 20);
    }

    // covers: REL-119
    async fn values_are_cleared(db: testkit::TestDb) {
        let db = connect(&db).await;
        let settings = Settings::load(&db, &Coord::local()).await.unwrap();
        set(&db, &settings, "integration.api.port", "8096", Scope::Global).await.unwrap();
        assert_eq!(settings.get(keys::INTEGRATION_API_PORT), Some(8096));
        set(&db, &settings, "integration.api.port", "", Scope::Global).await.unwrap();
        assert_eq!(settings.get(keys::INTEGRATION_API_PORT), None);
        set(&db, &settings, "guest.domain.suffix", "null", Scope::Global).await.unwrap();
        assert_eq!(settings.get(keys::GUEST_DOMAIN_SUFFIX), "");
        set(&db, &settings, "expunge.delay", "1", Scope::Global).await.unwrap();
        set(&db, &settings, "expunge.delay", "", Scope::Global).await.unwrap();
        assert_eq!(settings.get(keys::EXPUNGE_DELAY), 86400);
        set(&db, &settings, "mem.overprovisioning.factor", "", Scope::Global).await.unwrap_err();
    }

    // covers: TOPO-025
    async fn a_change_is_seen_by_all_replicas_within_a_second(db: testkit::TestDb) {
        let db = connect(&db).await;
        let shared = Coord::local();
        let here = Settings::load(&db, &shared).await.unwrap();
        let nudged = Settings::load(&db, &shared).await.unwrap();
        // Hears no nudge at all, as when etcd is lost.
        let deaf = Settings::load(&db, &Coord::local()).await.unwrap();
        let mut changes = nudged.changes();
        for round in 1..=3 {
            set(&db, &here, "default.page.size", &round.to_string(), Scope::Global).await.unwrap();
            wait_until(|| async { nudged.get(keys::DEFAULT_PAGE_SIZE) == round }, Duration::from_secs(60)).await;
            wait_until(|| async { deaf.get(keys::DEFAULT_PAGE_SIZE) == round }, Duration::from_secs(60)).await;
        }
        changes.changed().await.unwrap();
        assert_eq!(Settings::load(&db, &shared).await.unwrap().get(keys::DEFAULT_PAGE_SIZE), 3, "after a restart too");
    }

    async fn concurrent_changes_are_all_kept(db: testkit::TestDb) {
        let db = connect(&db).await;
        let settings = Settings::load(&db, &Coord::local()).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..8 {
            let (db, settings) = (db.clone(), settings.clone());
            tasks.spawn(async move {
                set(&db, &settings, "cpu.overprovisioning.factor", "3", Scope::Cluster(n)).await.unwrap();
                set(&db, &settings, "wait", &(100 + n).to_string(), Scope::Global).await.unwrap();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let again = Settings::load(&db, &Coord::local()).await.unwrap();
        for n in 0..8 {
            assert_eq!(again.get_in(keys::CPU_OVERPROVISIONING_FACTOR, Scope::Cluster(n)), 3.0);
        }
        wait_until(|| async { settings.get(keys::WAIT) == again.get(keys::WAIT) }, Duration::from_secs(2)).await;
    }

    async fn secrets_are_encrypted_at_rest(db: testkit::TestDb) {
        let db = connect(&db).await;
        let coord = Coord::local();
        let plain = Settings::load(&db, &coord).await.unwrap();
        let name = "alert.smtp.password";
        set(&db, &plain, name, "geheim", Scope::Global).await.unwrap_err();
        let sealed = Settings::load_sealed(&db, &coord, Some(Arc::new(Backwards))).await.unwrap();
        set(&db, &sealed, name, "geheim", Scope::Global).await.unwrap();
        let stored: String =
            db.one(Sql::new("SELECT value FROM settings WHERE name = ?").bind(name)).await.unwrap().at(0).unwrap();
        assert!(stored.ends_with("mieheg") && !stored.contains("geheim"));
        let again = Settings::load_sealed(&db, &coord, Some(Arc::new(Backwards))).await.unwrap();
        assert_eq!(again.text(find(name).unwrap(), Scope::Global).as_deref(), Some("geheim"));
    }
}

#[tokio::test]
async fn what_is_hidden_is_not_listed() {
    let test = testkit::TestDb::sqlite();
    let db = connect(&test).await;
    let settings = Settings::load(&db, &Coord::local()).await.unwrap();
    assert!(settings.registry().iter().all(|s| !s.hidden));
    assert!(settings.registry().len() > 490);
    let aliased = "max.project.uservm";
    set(&db, &settings, aliased, "2", Scope::Global).await.unwrap();
    assert_eq!(settings.text(find("max.project.user.vms").unwrap(), Scope::Global).as_deref(), Some("2"));
    assert!(find("expunge.delay").unwrap().effective() && !find("ovm3.heartbeat.interval").unwrap().effective());
}
