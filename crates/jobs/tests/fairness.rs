//! Accounts share workers and queues: thousands of one delay another's single job by a turn, and too many are refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod toy;

use contract::ApiError;
use coord::{Coord, Member};
use jobs::{Accept, Bounds, Claim, JobState, Jobs};
use rpc::LocalNet;
use std::sync::Arc;
use std::time::Duration;
use store::{Db, Sql};
use testkit::{eventually, wait_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use toy::{Build, Receiver, World, accept_of, database, look, pace, submit_as};

/// One replica with few workers.
struct Small {
    db: Db,
    jobs: Jobs,
    world: Arc<World>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _membership: coord::Membership,
}

impl Small {
    async fn start(url: &str, bounds: Bounds) -> Small {
        let db = database(url).await;
        let (coord, net) = (Coord::local(), LocalNet::new());
        Receiver::serve(&net, db.clone());
        let member = Member { id: "replica-1".into(), service: "toy".into(), ..Member::default() };
        let membership = coord.join(member).await.unwrap();
        let world = World::new(&net);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let jobs = Jobs::builder(db.clone(), coord, "toy", "replica-1".into())
            .register::<Build>(world.clone())
            .pace(pace())
            .bounds(bounds)
            .start(stop.clone(), &tasks);
        Small { db, jobs, world, stop, tasks, _membership: membership }
    }

    async fn submit(&self, account: i64, name: &str) -> Result<String, ApiError> {
        submit_as(&self.db, &self.jobs, of(account, name)).await
    }

    /// How many toys of an account have been made, or are being made.
    async fn made(&self, account: i64) -> i64 {
        let sql = Sql::new("SELECT COUNT(*) FROM toys WHERE name LIKE ?").bind(format!("{account}-%"));
        self.db.one(sql).await.unwrap().at(0).unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn of(account: i64, name: &str) -> Accept<Build> {
    let mut accept = accept_of(Build::named(&format!("{account}-{name}")));
    accept.caller.account_id = account;
    accept
}

async fn until(condition: impl Fn() -> bool) {
    wait_until(|| std::future::ready(condition()), Duration::from_secs(30)).await;
}

async fn done(jobs: &Jobs, uuid: &str) {
    let job = tokio::time::timeout(Duration::from_secs(60), jobs.end_of(uuid)).await.expect("it ends").unwrap();
    assert_eq!(job.state, JobState::Done);
}

testkit::databases! {
    async fn a_job_that_only_waits_holds_no_worker(test: testkit::TestDb) {
        let small = Small::start(test.url(), Bounds { workers: 1, ..Bounds::default() }).await;
        let gate = small.world.gate("paint");
        let mut uuids = Vec::new();
        for n in 0..3 {
            uuids.push(small.submit(5, &n.to_string()).await.unwrap());
        }
        // All of them come to where they wait, with one worker; and it works on what doesn't wait.
        until(|| small.world.passed("paint") == 3).await;
        assert_eq!(small.jobs.stats().waiting, 0);
        let top = small.world.gate("top");
        gate.add_permits(3);
        // Then they share the worker again.
        until(|| small.world.passed("top") == 1 && small.jobs.stats().waiting == 2).await;
        top.add_permits(3);
        for uuid in &uuids {
            done(&small.jobs, uuid).await;
        }
        small.end().await;
    }

    async fn a_single_job_waits_for_no_queue(test: testkit::TestDb) {
        let bounds = Bounds { workers: 4, ..Bounds::default() };
        let small = Small::start(test.url(), bounds).await;
        let gate = small.world.gate("row");
        let mut uuids = Vec::new();
        for n in 0..40 {
            uuids.push(small.submit(5, &n.to_string()).await.unwrap());
        }
        for n in 0..10 {
            uuids.push(small.submit(6, &n.to_string()).await.unwrap());
        }
        until(|| small.world.passed("row") == 4).await;
        uuids.push(small.submit(7, "single").await.unwrap());
        until(|| small.jobs.stats().waiting == 47).await;
        // Four jobs end, whichever they are: by then each of the three accounts has had its turn.
        for n in 1..=4usize {
            gate.add_permits(1);
            until(|| small.world.passed("row") == 4 + n).await;
        }
        // The single job is at work now; it is made with the next four, whichever order the gate gives.
        gate.add_permits(4);
        eventually(|| async { (small.made(7).await == 1).then_some(()) }).await;
        assert!(small.made(5).await + small.made(6).await < 15, "it didn't wait for the fifty before it");
        gate.add_permits(1000);
        for uuid in uuids {
            done(&small.jobs, &uuid).await;
        }
        assert_eq!(small.jobs.stats().waiting, 0);
        small.end().await;
    }

    async fn an_account_never_has_all_workers(test: testkit::TestDb) {
        let bounds = Bounds { workers: 8, ..Bounds::default() };
        let small = Small::start(test.url(), bounds).await;
        let gate = small.world.gate("row");
        let mut uuids = Vec::new();
        for n in 0..20 {
            uuids.push(small.submit(5, &n.to_string()).await.unwrap());
        }
        until(|| small.world.passed("row") == 7).await;
        // Another's job is at work although nothing has ended.
        uuids.push(small.submit(6, "single").await.unwrap());
        until(|| small.world.passed("row") == 8).await;
        until(|| small.jobs.stats().waiting == 13).await;
        gate.add_permits(1000);
        for uuid in uuids {
            done(&small.jobs, &uuid).await;
        }
        small.end().await;
    }

    async fn too_many_are_refused_and_change_nothing(test: testkit::TestDb) {
        let bounds = Bounds { workers: 2, account: 5, all: 8 };
        let small = Small::start(test.url(), bounds).await;
        let gate = small.world.gate("row");
        let mut uuids = Vec::new();
        for n in 0..7 {
            uuids.push(small.submit(5, &n.to_string()).await.unwrap());
        }
        until(|| small.jobs.stats().waiting == 5).await;
        let before = look(&small.db).await;
        let refused = small.submit(5, "more").await.unwrap_err();
        assert_eq!((refused.code, refused.is_transient()), (503, true), "{refused}");
        assert_eq!(look(&small.db).await, before);
        let jobs: i64 = small.db.one(Sql::new("SELECT COUNT(*) FROM jobs")).await.unwrap().at(0).unwrap();
        assert_eq!(jobs, 7);
        // Others still have room, until all of it is used; then each has its part.
        for n in 0..4 {
            uuids.push(small.submit(6, &n.to_string()).await.unwrap());
        }
        until(|| small.jobs.stats().waiting == 9).await;
        assert_eq!(small.submit(6, "more").await.unwrap_err().code, 503);
        uuids.push(small.submit(7, "first").await.unwrap());
        gate.add_permits(1000);
        for uuid in &uuids {
            done(&small.jobs, uuid).await;
        }
        // What was refused may be asked for again.
        done(&small.jobs, &small.submit(5, "more").await.unwrap()).await;
        small.end().await;
    }

    async fn jobs_that_wait_for_claims_count(test: testkit::TestDb) {
        let bounds = Bounds { workers: 8, account: 3, all: 100 };
        let small = Small::start(test.url(), bounds).await;
        let gate = small.world.gate("row");
        let same = |n: i64| {
            let mut accept = of(5, &n.to_string());
            accept.claims = vec![Claim::Exclusive("toy/contended".into())];
            accept
        };
        let mut uuids = Vec::new();
        for n in 0..4 {
            uuids.push(submit_as(&small.db, &small.jobs, same(n)).await.unwrap());
        }
        assert_eq!(submit_as(&small.db, &small.jobs, same(4)).await.unwrap_err().code, 503);
        assert!(small.submit(6, "another account's").await.is_ok());
        gate.add_permits(1000);
        for uuid in &uuids {
            done(&small.jobs, uuid).await;
        }
        // They are counted anew now and then.
        let accepted = eventually(|| async { submit_as(&small.db, &small.jobs, same(5)).await.ok() }).await;
        done(&small.jobs, &accepted).await;
        small.end().await;
    }
}
