//! A database that is only looked at.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use store::{Db, DbConfig, Error, Migration, Schema, Sql};
use testkit::{MariaDb, TestDb};

const fn file(file: &'static str, sql: &'static str) -> Migration {
    Migration { owner: "test", file, sql }
}

const ONE: Migration = file("0001.sql", "CREATE TABLE things (id BIGINT NOT NULL PRIMARY KEY);\n");
const TWO: Migration = file("0002.sql", "CREATE TABLE others (id BIGINT NOT NULL PRIMARY KEY);\n");
const CHANGED: Migration = file("0001.sql", "CREATE TABLE things (id BIGINT NOT NULL);\n");

async fn look(url: &str) -> store::Result<Db> {
    Db::connect(&DbConfig { read_only: true, ..DbConfig::new(url) }).await
}

async fn add(db: &Db, id: i64) -> Result<(), Error> {
    store::tx!(db, "add", |tx| tx.exec(Sql::new("INSERT INTO things (id) VALUES (?)").bind(id)).await.map(drop)).await
}

async fn count(db: &Db) -> store::Result<i64> {
    db.one(Sql::new("SELECT COUNT(*) FROM things")).await?.at(0)
}

testkit::databases! {
    async fn nothing_is_made_or_changed(test: TestDb) {
        let missing = look(test.url()).await.unwrap_err();
        assert!(matches!(missing, Error::Other(_)), "{missing}");

        let own = Db::connect(&DbConfig::new(test.url())).await.unwrap();
        let seen = look(test.url()).await.unwrap();
        assert_eq!(seen.schema(&[ONE]).await.unwrap(), Schema::Absent);
        assert!(seen.migrate(&[ONE]).await.is_err());
        assert_eq!(seen.schema(&[ONE]).await.unwrap(), Schema::Absent, "a refused migration leaves nothing");

        own.migrate(&[ONE]).await.unwrap();
        add(&own, 1).await.unwrap();
        assert_eq!(count(&seen).await.unwrap(), 1, "what others write is seen");
        let refused = add(&seen, 2).await.unwrap_err();
        assert!(matches!(refused, Error::Other(_)), "{refused}");
        let mut tx = seen.begin().await;
        if let Ok(tx) = &mut tx {
            assert_eq!(tx.one("SELECT COUNT(*) FROM things").await.unwrap().at::<i64>(0).unwrap(), 1);
            assert!(tx.exec("UPDATE things SET id = 5").await.is_err());
        }
        drop(tx);
        assert_eq!(count(&own).await.unwrap(), 1);
    }

    async fn another_schema_is_told_apart(test: TestDb) {
        let own = Db::connect(&DbConfig::new(test.url())).await.unwrap();
        own.migrate(&[]).await.unwrap();
        assert_eq!(own.schema(&[ONE]).await.unwrap(), Schema::Absent);
        own.migrate(&[ONE]).await.unwrap();
        let seen = look(test.url()).await.unwrap();
        assert_eq!(seen.schema(&[ONE]).await.unwrap(), Schema::Same);
        assert_eq!(seen.schema(&[ONE, TWO]).await.unwrap(), Schema::Older("test/0002.sql".into()));
        assert_eq!(seen.schema(&[CHANGED]).await.unwrap(), Schema::Other("test/0001.sql".into()));
        own.migrate(&[ONE, TWO]).await.unwrap();
        assert_eq!(seen.schema(&[ONE]).await.unwrap(), Schema::Newer("test/0002.sql".into()));
        assert_eq!(seen.schema(&[ONE, TWO]).await.unwrap(), Schema::Same);
    }
}

/// Who may read only needs nothing else, and is told what he may not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_to_read_are_enough() {
    let server = MariaDb::shared().await;
    let url = server.fresh_url();
    let own = Db::connect(&DbConfig::new(&url)).await.unwrap();
    own.migrate(&[ONE]).await.unwrap();
    add(&own, 1).await.unwrap();
    let (_, name) = url.rsplit_once('/').unwrap();
    let user = format!("CREATE USER looker@'%'; GRANT SELECT ON {name}.* TO looker@'%'");
    server.statement(&user).await.unwrap();
    let url = url.replace("root@", "looker@");
    let seen = look(&url).await.unwrap();
    assert_eq!((seen.schema(&[ONE]).await.unwrap(), count(&seen).await.unwrap()), (Schema::Same, 1));
    assert!(add(&seen, 2).await.is_err());
    // The usual way needs more.
    let refused = Db::connect(&DbConfig::new(url.replace(name, "elsewhere"))).await.unwrap_err();
    assert!(refused.to_string().contains("denied"), "{refused}");
}
