//! Receivers of keyed calls: once, in order, and never after the undo.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod toy;

use contract::ApiError;
use contract::api::Success;
use jobs::StepKey;
use store::{Db, Sql};
use toy::database;

/// A job's row as a receiver sees it.
async fn job(db: &Db, id: i64, epoch: i64, state: &str) {
    store::tx!(db, "test", |tx| {
        tx.exec(Sql::new("DELETE FROM jobs WHERE id = ?").bind(id)).await?;
        let sql = "INSERT INTO jobs (id, uuid, service, kind, version, command, job_class, input, caller, account_id, user_id, domain_id, \
                   domain_path, resource_owner, claims, state, seq, epoch, takeovers, cancel, event, description, created) \
                   VALUES (?, ?, 'toy', 'k', 1, '', '', '', '', 1, 1, 1, '/1/', '', '', ?, 0, ?, 0, 0, '', '', 0)";
        tx.exec(Sql::new(sql).bind(id).bind(id.to_string()).bind(state).bind(epoch)).await
    })
    .await
    .unwrap();
}

async fn act(db: &Db, key: &StepKey, text: &str) -> Result<String, ApiError> {
    let done = jobs::effect!(db, key, |tx| {
        tx.exec(Sql::new("INSERT INTO toys (name, state) VALUES (?, 'x')").bind(text)).await?;
        Ok(Success { success: true, display_text: Some(text.to_owned()) })
    })
    .await?;
    Ok(done.display_text.unwrap_or_default())
}

async fn undo(db: &Db, key: &StepKey) -> Result<Option<String>, ApiError> {
    let seen = std::sync::Mutex::new(None);
    jobs::undo_effect!(db, key, |tx, done: Option<Success>| {
        let text = done.and_then(|d| d.display_text);
        if let Some(text) = &text {
            tx.exec(Sql::new("DELETE FROM toys WHERE name = ?").bind(text)).await?;
        }
        *seen.lock().unwrap() = text;
        Ok(())
    })
    .await?;
    Ok(seen.into_inner().unwrap())
}

async fn toys(db: &Db) -> i64 {
    db.one(Sql::new("SELECT COUNT(*) FROM toys")).await.unwrap().at(0).unwrap()
}

testkit::databases! {
    async fn a_repeat_answers_as_the_first_time(test: testkit::TestDb) {
        let db = database(test.url()).await;
        job(&db, 1, 1, "Running").await;
        let key = StepKey::new(1, "a", 1, false);
        assert_eq!(act(&db, &key, "first").await.unwrap(), "first");
        assert_eq!(act(&db, &key, "second").await.unwrap(), "first");
        assert_eq!(act(&db, &key.child("b"), "third").await.unwrap(), "third");
        assert_eq!(toys(&db).await, 2);
        // A new worker repeats what the old one did.
        job(&db, 1, 2, "Running").await;
        assert_eq!(act(&db, &StepKey::new(1, "a", 2, false), "fourth").await.unwrap(), "first");
    }

    async fn repeats_at_the_same_time_are_one_effect(test: testkit::TestDb) {
        let db = database(test.url()).await;
        job(&db, 1, 1, "Running").await;
        let key = StepKey::new(1, "a", 1, false);
        let texts: Vec<String> = (0..8).map(|n| format!("try-{n}")).collect();
        let all = futures::future::try_join_all(texts.iter().map(|t| act(&db, &key, t))).await.unwrap();
        assert!(all.iter().all(|a| *a == all[0]), "{all:?}");
        assert_eq!(toys(&db).await, 1);
    }

    async fn an_effect_that_failed_is_tried_again(test: testkit::TestDb) {
        let db = database(test.url()).await;
        job(&db, 1, 1, "Running").await;
        let key = StepKey::new(1, "a", 1, false);
        let failed: Result<Success, ApiError> = jobs::effect!(db, key, |tx| {
            tx.exec("INSERT INTO toys (name, state) VALUES ('a', 'x')").await?;
            Err(ApiError::in_use("no"))
        })
        .await;
        assert_eq!(failed.unwrap_err().code, 536);
        assert_eq!(toys(&db).await, 0);
        assert_eq!(act(&db, &key, "now").await.unwrap(), "now");
    }

    async fn workers_that_were_replaced_get_nothing_done(test: testkit::TestDb) {
        let db = database(test.url()).await;
        job(&db, 1, 2, "Running").await;
        for late in [StepKey::new(1, "a", 1, false), StepKey::new(9, "a", 1, false)] {
            assert_eq!(act(&db, &late, "late").await.unwrap_err().cs_code, 4300);
        }
        // While steps are done nothing is undone, and the other way round.
        assert_eq!(undo(&db, &StepKey::new(1, "a", 2, true)).await.unwrap_err().cs_code, 4300);
        act(&db, &StepKey::new(1, "a", 2, false), "a").await.unwrap();
        job(&db, 1, 2, "Undoing").await;
        assert_eq!(act(&db, &StepKey::new(1, "b", 2, false), "b").await.unwrap_err().cs_code, 4300);
        assert_eq!(undo(&db, &StepKey::new(1, "a", 1, true)).await.unwrap_err().cs_code, 4300);
        assert_eq!(toys(&db).await, 1);
        assert_eq!(undo(&db, &StepKey::new(1, "a", 2, true)).await.unwrap().as_deref(), Some("a"));
        job(&db, 1, 2, "Failed").await;
        assert_eq!(act(&db, &StepKey::new(1, "c", 2, false), "c").await.unwrap_err().cs_code, 4300);
        assert_eq!(toys(&db).await, 0);
    }

    async fn an_undo_leaves_a_tombstone(test: testkit::TestDb) {
        let db = database(test.url()).await;
        job(&db, 1, 1, "Undoing").await;
        let key = StepKey::new(1, "a", 1, false);
        assert_eq!(undo(&db, &key.undoing()).await.unwrap(), None, "it never took place");
        assert_eq!(undo(&db, &key.undoing()).await.unwrap(), None, "a repeat does nothing");
        job(&db, 1, 1, "Running").await; // as nobody ever will: the tombstone alone must refuse
        assert_eq!(act(&db, &key, "late").await.unwrap_err().cs_code, 4300);
        assert_eq!(toys(&db).await, 0);
    }

    async fn directions_are_not_mixed_up(test: testkit::TestDb) {
        let db = database(test.url()).await;
        job(&db, 1, 1, "Running").await;
        assert_eq!(act(&db, &StepKey::new(1, "a", 1, true), "x").await.unwrap_err().code, 530);
        assert_eq!(undo(&db, &StepKey::new(1, "a", 1, false)).await.unwrap_err().code, 530);
    }
}
