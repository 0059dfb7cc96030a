//! The life of jobs: ends, events, cancellation, panics, zombies, takeovers, orderly stops, idempotency.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod toy;

use contract::ApiError;
use contract::api::Success;
use coord::Coord;
use jobs::{Claim, JobFilter, JobState, JobView, Jobs, view};
use model::ListScope;
use rpc::LocalNet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::{Db, Sql};
use testkit::{eventually, wait_until};
use toy::{Build, Receiver, Replica, Toy, caller, database, look, submit, submit_as};

async fn end(jobs: &Jobs, uuid: &str) -> JobView {
    tokio::time::timeout(Duration::from_secs(30), jobs.end_of(uuid)).await.expect("the job ends in time").unwrap()
}

async fn count(db: &Db, sql: &str) -> i64 {
    db.one(Sql::new(sql)).await.unwrap().at(0).unwrap()
}

testkit::databases! {
    async fn a_job_ends_well(test: testkit::TestDb) {
        let toy = Toy::new(test.url()).await;
        let commits = toy.db.stats().commits;
        let uuid = toy.submit(Build::named("duck")).await;
        let job = end(&toy.replica.jobs, &uuid).await;
        assert_eq!(job.state, JobState::Done);
        assert_eq!(job.output::<Success>().unwrap().display_text.as_deref(), Some("made duck"));
        assert_eq!((job.status(), job.result_code()), (1, 0));
        assert_eq!(look(&toy.db).await, "toy duck Ready\npart duck/left x\npart duck/right x\npart duck/top x\n");
        // Accept, two local steps, finish; one at the receiver for each of three calls; blocks of ids.
        let commits = toy.db.stats().commits - commits;
        assert!(commits <= 8, "{commits} commits");
        assert_eq!(toy::events(&toy.db).await, [
            "TOY.BUILD Scheduled Info Scheduled async job for building toy duck",
            "TOY.BUILD Completed Info Successfully completed building toy duck",
        ]);
        toy.replica.end().await;
    }

    async fn a_failed_job_is_undone_last_first(test: testkit::TestDb) {
        let toy = Toy::new(test.url()).await;
        let uuid = toy.submit(Build { fail_after: Some("top".into()), ..Build::named("duck") }).await;
        let job = end(&toy.replica.jobs, &uuid).await;
        assert_eq!((job.state, job.status(), job.result_code()), (JobState::Failed, 2, 530));
        assert_eq!(job.error().unwrap(), ApiError::in_use("no luck after top"));
        assert_eq!(look(&toy.db).await, "");
        let log = toy.replica.world.log.lock().unwrap().clone();
        let undos: Vec<&str> = log.iter().filter(|s| s.starts_with("undo") || *s == "abort").map(String::as_str).collect();
        assert_eq!((undos[0], undos[3], undos[4], undos.len()), ("undo top", "undo row", "abort", 5));
        assert_eq!(toy::events(&toy.db).await[1], "TOY.BUILD Completed Error Error while building toy duck");
        toy.replica.end().await;
    }

    async fn a_panic_is_a_failure(test: testkit::TestDb) {
        let toy = Toy::new(test.url()).await;
        let uuid = toy.submit(Build { panic: true, ..Build::named("duck") }).await;
        let job = end(&toy.replica.jobs, &uuid).await;
        assert_eq!(job.state, JobState::Failed);
        assert!(job.error().unwrap().full_text().contains("panicked"), "{:?}", job.error());
        assert_eq!(look(&toy.db).await, "");
        toy.replica.end().await;
    }

    async fn lost_answers_are_asked_for_again(test: testkit::TestDb) {
        let toy = Toy::new(test.url()).await;
        toy.receiver.flaky.store(true, Ordering::SeqCst);
        let uuid = toy.submit(Build::named("duck")).await;
        assert_eq!(end(&toy.replica.jobs, &uuid).await.state, JobState::Done);
        assert_eq!(toy.receiver.calls.load(Ordering::SeqCst), 6);
        assert_eq!(count(&toy.db, "SELECT COUNT(*) FROM toy_parts").await, 3);
        toy.replica.end().await;
    }

    async fn a_cancelled_job_is_undone(test: testkit::TestDb) {
        let toy = Toy::new(test.url()).await;
        let gate = toy.replica.world.gate("paint");
        let uuid = toy.submit(Build::named("duck")).await;
        wait_until(|| async { toy.replica.world.passed("paint") == 1 }, Duration::from_secs(10)).await;
        assert!(toy.replica.jobs.cancel(&uuid).await.unwrap());
        gate.add_permits(1);
        let job = end(&toy.replica.jobs, &uuid).await;
        assert_eq!(job.state, JobState::Failed);
        assert!(job.error().unwrap().text.contains("cancelled"));
        assert_eq!(look(&toy.db).await, "");
        assert!(!toy.replica.jobs.cancel(&uuid).await.unwrap());
        toy.replica.end().await;
    }

    async fn a_dead_replicas_job_is_taken_over_and_its_zombie_writes_nothing(test: testkit::TestDb) {
        let mut toy = Toy::new(test.url()).await;
        let gate = toy.replica.world.gate("paint");
        let uuid = toy.submit(Build::named("duck")).await;
        wait_until(|| async { toy.replica.world.passed("paint") == 1 }, Duration::from_secs(10)).await;
        let second = Replica::start(&toy.db, &toy.coord, &toy.net, "replica-2").await;
        let held = second.world.gate("top");
        // The lease is lost; the process doesn't know.
        toy.replica.membership = None;
        wait_until(|| async { second.world.passed("top") == 1 }, Duration::from_secs(10)).await;
        gate.add_permits(1);
        // The zombie meets the fence and is dropped, while the job goes on.
        wait_until(|| async { toy.replica.jobs.stats().running == 0 }, Duration::from_secs(10)).await;
        held.add_permits(1);
        assert_eq!(end(&second.jobs, &uuid).await.state, JobState::Done);
        assert_eq!(look(&toy.db).await, "toy duck Ready\npart duck/left x\npart duck/right x\npart duck/top x\n");
        assert_eq!(toy.replica.world.passed("top"), 0);
        // "row" was journaled; the parts were not, and were asked for again with the same keys.
        assert_eq!(count(&toy.db, "SELECT COUNT(*) FROM effects").await, 3);
        second.end().await;
        toy.replica.end().await;
    }

    async fn a_zombies_call_is_refused(test: testkit::TestDb) {
        let mut toy = Toy::new(test.url()).await;
        let gate = toy.replica.world.gate("top");
        let uuid = toy.submit(Build::named("duck")).await;
        wait_until(|| async { toy.replica.world.passed("top") == 1 }, Duration::from_secs(10)).await;
        let second = Replica::start(&toy.db, &toy.coord, &toy.net, "replica-2").await;
        let held = second.world.gate("top");
        toy.replica.membership = None;
        wait_until(|| async { second.world.passed("top") == 1 }, Duration::from_secs(10)).await;
        let calls = toy.receiver.calls.load(Ordering::SeqCst);
        gate.add_permits(1);
        wait_until(|| async { toy.replica.jobs.stats().running == 0 }, Duration::from_secs(10)).await;
        assert_eq!(toy.receiver.calls.load(Ordering::SeqCst), calls, "the call did nothing");
        assert_eq!(count(&toy.db, "SELECT COUNT(*) FROM toy_parts").await, 2);
        held.add_permits(1);
        assert_eq!(end(&second.jobs, &uuid).await.state, JobState::Done);
        second.end().await;
        toy.replica.end().await;
    }

    async fn a_stopping_replica_hands_its_jobs_over(test: testkit::TestDb) {
        let db = database(test.url()).await;
        let (coord, net) = (Coord::local(), LocalNet::new());
        Receiver::serve(&net, db.clone());
        let first = Replica::start(&db, &coord, &net, "replica-1").await;
        let second = Replica::start(&db, &coord, &net, "replica-2").await;
        let gate = first.world.gate("paint");
        let uuid = submit(&db, &first.jobs, Build::named("duck")).await.unwrap();
        wait_until(|| async { first.world.passed("paint") == 1 }, Duration::from_secs(10)).await;
        first.end().await;
        drop(gate);
        let job = end(&second.jobs, &uuid).await;
        assert_eq!((job.state, job.replica.as_deref()), (JobState::Done, Some("replica-2")));
        // What was known was handed over, too: nothing was asked for twice.
        assert_eq!(second.world.passed("paint"), 1);
        second.end().await;
    }

    async fn jobs_that_keep_killing_their_workers_are_parked(test: testkit::TestDb) {
        let toy = Toy::new(test.url()).await;
        let gate = toy.replica.world.gate("row");
        let uuid = toy.submit(Build::named("duck")).await;
        wait_until(|| async { toy.replica.world.passed("row") == 1 }, Duration::from_secs(10)).await;
        store::tx!(toy.db, "test", |tx| {
            // As if it had been taken over twelve times already from workers that died.
            let sql = "UPDATE jobs SET owner = 'dead', takeovers = 12, epoch = 9";
            tx.exec(sql).await
        }).await.unwrap();
        let job = eventually(|| async {
            view::find(&toy.db, &uuid).await.unwrap().filter(|j| j.state == JobState::Parked)
        }).await;
        assert_eq!((job.status(), job.ended), (0, None));
        assert!(toy::events(&toy.db).await.iter().any(|e| e.starts_with("ALERT.MANAGEMENT Completed Error ") && e.contains("is parked")));
        assert!(look(&toy.db).await.contains("claim toy/duck held"));
        gate.add_permits(2);
        assert!(toy.replica.jobs.resume(&uuid).await.unwrap());
        assert_eq!(end(&toy.replica.jobs, &uuid).await.state, JobState::Done);
        toy.replica.end().await;
    }

    async fn jobs_accepted_before_the_engine_starts_wait_for_it(test: testkit::TestDb) {
        let db = database(test.url()).await;
        let (coord, net) = (Coord::local(), LocalNet::new());
        Receiver::serve(&net, db.clone());
        let early = Jobs::builder(db.clone(), coord.clone(), "toy", "early".into()).handle();
        let uuid = submit(&db, &early, Build::named("duck")).await.unwrap();
        let replica = Replica::start(&db, &coord, &net, "replica-1").await;
        assert_eq!(end(&replica.jobs, &uuid).await.state, JobState::Done);
        replica.end().await;
    }

    async fn one_vm_is_worked_on_by_one_job_at_a_time(test: testkit::TestDb) {
        let toy = Toy::new(test.url()).await;
        let gate = toy.replica.world.gate("top");
        let first = toy.submit(Build::named("duck")).await;
        wait_until(|| async { toy.replica.world.passed("top") == 1 }, Duration::from_secs(10)).await;
        let mut accept = toy::accept_of(Build::named("drake"));
        accept.claims = vec![Claim::Exclusive("toy/duck".into()), Claim::Shared("shelf/1".into())];
        let second = submit_as(&toy.db, &toy.replica.jobs, accept).await.unwrap();
        // A third with other leaves passes on the shared containers.
        let third = toy.submit(Build { fail_after: Some("row".into()), ..Build::named("goose") }).await;
        assert_eq!(end(&toy.replica.jobs, &third).await.state, JobState::Failed);
        let waiting = view::find(&toy.db, &second).await.unwrap().unwrap();
        assert_eq!((waiting.state, waiting.started), (JobState::Waiting, None));
        // A synchronous command on the same thing is refused meanwhile.
        let busy = async |claim: Claim| {
            jobs::mutate!(toy.db, caller(), "test", |tx| {
                jobs::free(tx, std::slice::from_ref(&claim)).await?;
                Ok(Success::default())
            }).await
        };
        assert_eq!(busy(Claim::Exclusive("toy/duck".into())).await.unwrap_err().cs_code, 4300);
        assert_eq!(busy(Claim::Shared("toy/duck".into())).await.unwrap_err().cs_code, 4300);
        assert_eq!(busy(Claim::Exclusive("shelf/1".into())).await.unwrap_err().cs_code, 4300);
        busy(Claim::Shared("shelf/1".into())).await.unwrap();
        busy(Claim::Exclusive("toy/goose".into())).await.unwrap();
        let pending = view::pending(&toy.db, &["uuid-duck".into(), "uuid-drake".into(), "uuid-goose".into()]).await.unwrap();
        assert_eq!(pending.len(), 2);
        assert_eq!(pending["uuid-drake"], (second.clone(), 0));
        gate.add_permits(2);
        assert_eq!(end(&toy.replica.jobs, &first).await.state, JobState::Done);
        let second = end(&toy.replica.jobs, &second).await;
        assert!(second.started.unwrap() > view::find(&toy.db, &first).await.unwrap().unwrap().created);
        assert_eq!(second.state, JobState::Done);
        assert!(!look(&toy.db).await.contains("claim"));
        toy.replica.end().await;
    }

    async fn the_same_key_gets_the_same_answer(test: testkit::TestDb) {
        let toy = Toy::new(test.url()).await;
        let mut accept = toy::accept_of(Build::named("duck"));
        accept.caller.idempotency_key = Some("k1".into());
        accept.caller.request_hash = vec![1, 2, 3];
        let again = (0..8).map(|_| submit_as(&toy.db, &toy.replica.jobs, accept.clone()));
        let uuids = futures::future::try_join_all(again).await.unwrap();
        assert!(uuids.iter().all(|u| *u == uuids[0]), "{uuids:?}");
        assert_eq!(count(&toy.db, "SELECT COUNT(*) FROM jobs").await, 1);
        end(&toy.replica.jobs, &uuids[0]).await;
        assert_eq!(submit_as(&toy.db, &toy.replica.jobs, accept.clone()).await.unwrap(), uuids[0]);
        let mut other = accept.clone();
        other.caller.request_hash = vec![4];
        assert_eq!(submit_as(&toy.db, &toy.replica.jobs, other).await.unwrap_err().code, 431);
        // The key of another account is another key.
        let mut other = accept;
        other.caller.account_id = 3;
        other.job.name = "swan".into();
        assert_ne!(submit_as(&toy.db, &toy.replica.jobs, other).await.unwrap(), uuids[0]);
        toy.replica.end().await;
    }

    async fn a_failed_mutation_leaves_no_answer(test: testkit::TestDb) {
        let db = database(test.url()).await;
        let mut caller = caller();
        caller.idempotency_key = Some("k".into());
        let try_it = async |fails: bool| {
            jobs::mutate!(db, caller, "test", |tx| {
                tx.exec("INSERT INTO toys (name, state) VALUES ('a', 'b')").await?;
                if fails { Err(ApiError::failed("no")) } else { Ok(Success { success: true, display_text: None }) }
            }).await
        };
        assert_eq!(try_it(true).await.unwrap_err().text, "no");
        assert!(try_it(false).await.unwrap().success);
        assert!(try_it(true).await.unwrap().success, "a repeat answers what was stored");
    }

    async fn custom_ids_are_new_ones(test: testkit::TestDb) {
        let toy = Toy::new(test.url()).await;
        let mut accept = toy::accept_of(Build::named("duck"));
        accept.custom_id = Some("11111111-2222-3333-4444-555555555555".into());
        let uuid = submit_as(&toy.db, &toy.replica.jobs, accept.clone()).await.unwrap();
        assert_eq!(Some(&uuid), accept.custom_id.as_ref());
        accept.job.name = "drake".into();
        assert_eq!(submit_as(&toy.db, &toy.replica.jobs, accept).await.unwrap_err().code, 431);
        end(&toy.replica.jobs, &uuid).await;
        toy.replica.end().await;
    }

    async fn lists_show_what_callers_may_see(test: testkit::TestDb) {
        let toy = Toy::new(test.url()).await;
        for name in ["a", "b", "c"] {
            let uuid = toy.submit(Build::named(name)).await;
            end(&toy.replica.jobs, &uuid).await;
        }
        let list = async |scope: ListScope, keyword: Option<&str>, limit: i64| {
            let page = contract::Page { offset: 0, limit: Some(limit) };
            view::list(&toy.db, &JobFilter { scope: &scope, since: None, keyword, page }).await.unwrap()
        };
        let (jobs, n) = list(ListScope::All, None, 2).await;
        assert_eq!((jobs.len(), n), (2, 3));
        assert_eq!(jobs[0].job_class, "toy.BuildToyCmd");
        assert_eq!((jobs[0].account_uuid.as_str(), jobs[0].user_uuid.as_str()), ("account", "user"));
        assert_eq!(list(ListScope::Account(2), Some("bUiLd"), 9).await.1, 3);
        assert_eq!(list(ListScope::Account(2), Some("nothing"), 9).await.1, 0);
        assert_eq!(list(ListScope::Account(5), None, 9).await.1, 0);
        assert_eq!(list(ListScope::Subtree("/1/".into()), None, 9).await.1, 3);
        toy.replica.end().await;
    }

    async fn effects_that_were_not_journaled_are_undone_too(test: testkit::TestDb) {
        let mut toy = Toy::new(test.url()).await;
        let _gate = toy.replica.world.gate("paint");
        let uuid = toy.submit(Build::named("duck")).await;
        // Both parts are there, and known to nobody but the first worker and the receiver.
        wait_until(|| async { toy.replica.world.passed("paint") == 1 }, Duration::from_secs(10)).await;
        assert_eq!(count(&toy.db, "SELECT COUNT(*) FROM job_steps").await, 1);
        store::tx!(toy.db, "test", |tx| tx.exec("UPDATE jobs SET cancel = 1").await).await.unwrap();
        toy.replica.membership = None;
        let second = Replica::start(&toy.db, &toy.coord, &toy.net, "replica-2").await;
        // The second worker fails before it comes to the parts.
        assert_eq!(end(&second.jobs, &uuid).await.state, JobState::Failed);
        assert_eq!(second.world.passed("paint"), 0);
        assert_eq!(look(&toy.db).await, "");
        second.end().await;
    }

    async fn a_job_whose_code_changed_is_parked(test: testkit::TestDb) {
        let mut toy = Toy::new(test.url()).await;
        let gate = toy.replica.world.gate("paint");
        let uuid = toy.submit(Build::named("duck")).await;
        wait_until(|| async { toy.replica.world.passed("paint") == 1 }, Duration::from_secs(10)).await;
        store::tx!(toy.db, "test", |tx| tx.exec("UPDATE job_steps SET input_hash = 'other'").await).await.unwrap();
        toy.replica.membership = None;
        let second = Replica::start(&toy.db, &toy.coord, &toy.net, "replica-2").await;
        eventually(|| async {
            view::find(&toy.db, &uuid).await.unwrap().filter(|j| j.state == JobState::Parked)
        }).await;
        gate.add_permits(1);
        wait_until(|| async { toy.replica.jobs.stats().running + second.jobs.stats().running == 0 }, Duration::from_secs(10)).await;
        assert!(look(&toy.db).await.contains("toy duck Building"));
        assert!(toy::events(&toy.db).await.iter().any(|e| e.contains("isn't the one that was recorded")));
        second.end().await;
    }

    async fn what_ended_jobs_leave_is_removed_in_time(test: testkit::TestDb) {
        let toy = Toy::new(test.url()).await;
        let old = toy.submit(Build::named("duck")).await;
        let young = toy.submit(Build::named("goose")).await;
        end(&toy.replica.jobs, &old).await;
        end(&toy.replica.jobs, &young).await;
        let age = async |uuid: &str, hours: i64| {
            let back = hours * 3_600_000_000;
            store::tx!(toy.db, "test", |tx| {
                let ids = "SELECT id FROM jobs WHERE uuid = ?";
                let sql = format!("UPDATE effects SET created = created - {back} WHERE job_id = ({ids})");
                tx.exec(Sql::new(&sql).bind(uuid)).await?;
                tx.exec("UPDATE idempotency SET created = 0").await?;
                tx.exec(Sql::new(&format!("UPDATE jobs SET ended = ended - {back} WHERE uuid = ?")).bind(uuid)).await
            })
            .await
            .unwrap();
        };
        age(&old, 2).await;
        let left = async |table: &str| count(&toy.db, &format!("SELECT COUNT(*) FROM {table}")).await;
        wait_until(|| async { left("effects").await == 3 }, Duration::from_secs(10)).await;
        assert_eq!(left("jobs").await, 2, "the result can still be asked for");
        age(&old, 23).await;
        wait_until(|| async { left("jobs").await == 1 }, Duration::from_secs(10)).await;
        wait_until(|| async { left("idempotency").await + left("claims").await == 0 }, Duration::from_secs(10)).await;
        assert_eq!((left("job_steps").await, left("effects").await), (5, 3));
        assert!(view::find(&toy.db, &old).await.unwrap().is_none());
        toy.replica.end().await;
    }

    async fn many_jobs_on_the_same_things_all_end(test: testkit::TestDb) {
        let toy = Toy::new(test.url()).await;
        let submit = (0..40).map(async |n: u32| {
            let mut accept = toy::accept_of(Build { fail_after: (n % 5 == 4).then(|| "top".into()), ..Build::named(&format!("toy-{n}")) });
            accept.claims = vec![Claim::Exclusive(format!("bench/{}", n % 4)), Claim::Shared("shelf/1".into())];
            if n % 10 == 3 {
                accept.claims.push(Claim::Exclusive("shelf/1".into()));
            }
            submit_as(&toy.db, &toy.replica.jobs, accept).await.unwrap()
        });
        let uuids = futures::future::join_all(submit).await;
        for (n, uuid) in uuids.iter().enumerate() {
            let wanted = if n % 5 == 4 { JobState::Failed } else { JobState::Done };
            assert_eq!(end(&toy.replica.jobs, uuid).await.state, wanted);
        }
        let left = look(&toy.db).await;
        assert!(!left.contains("claim") && !left.contains("ticket"), "{left}");
        assert_eq!(left.matches("Ready").count(), 32);
        toy.replica.end().await;
    }
}
