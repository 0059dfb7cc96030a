#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use store::{Db, DbConfig};

/// What claims mean, without a database: requests in the order in which they came.
#[derive(Default)]
struct Model {
    holders: HashMap<i64, Vec<Claim>>,
    waiting: Vec<(i64, Vec<Claim>)>,
}

fn conflict(a: &[Claim], b: &[Claim]) -> bool {
    a.iter().any(|x| b.iter().any(|y| x.resource() == y.resource() && (x.is_exclusive() || y.is_exclusive())))
}

impl Model {
    fn settle(&mut self) -> Vec<i64> {
        let mut granted = Vec::new();
        let mut waiting: Vec<(i64, Vec<Claim>)> = Vec::new();
        for (job, claims) in std::mem::take(&mut self.waiting) {
            let held = self.holders.values().any(|h| conflict(h, &claims));
            let behind = waiting.iter().any(|(_, w)| conflict(w, &claims));
            if held || behind {
                waiting.push((job, claims));
            } else {
                self.holders.insert(job, claims);
                granted.push(job);
            }
        }
        self.waiting = waiting;
        granted.sort_unstable();
        granted
    }
}

#[derive(Clone, Debug)]
enum Op {
    Accept(Vec<Claim>),
    /// Ends the n-th of those that hold claims.
    End(prop::sample::Index),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let claim = (0..5u8, any::<bool>()).prop_map(|(r, x)| {
        let resource = format!("r/{r}");
        if x { Claim::Exclusive(resource) } else { Claim::Shared(resource) }
    });
    let accept = prop::collection::vec(claim, 1..4).prop_map(Op::Accept);
    let op = prop_oneof![3 => accept, 2 => any::<prop::sample::Index>().prop_map(Op::End)];
    prop::collection::vec(op, 1..40)
}

async fn step<T>(db: &Db, body: impl AsyncFn(&mut Tx) -> Result<T>) -> T {
    store::tx!(db, "test", |tx| body(tx).await).await.unwrap()
}

async fn agree(db: &Db, ops: Vec<Op>) {
    step(db, async |tx| {
        tx.exec("DELETE FROM claims").await?;
        tx.exec("DELETE FROM claim_queue").await
    })
    .await;
    let mut model = Model::default();
    for (job, op) in (1i64..).zip(ops) {
        match op {
            Op::Accept(claims) => {
                let claims = ordered(claims);
                let got = step(db, async |tx| take(tx, job, &claims).await).await;
                model.waiting.push((job, claims));
                assert_eq!(got, model.settle() == [job]);
            }
            Op::End(n) => {
                let mut holders: Vec<i64> = model.holders.keys().copied().collect();
                holders.sort_unstable();
                if holders.is_empty() {
                    continue;
                }
                let job = *n.get(&holders);
                let claims = model.holders.remove(&job).unwrap();
                let mut granted = step(db, async |tx| release(tx, job, &claims).await).await;
                granted.sort_unstable();
                assert_eq!(granted, model.settle());
            }
        }
        // Nothing that could be granted is left behind.
        let left = step(db, async |tx| {
            let resources = idle(tx).await?;
            grant(tx, resources).await
        })
        .await;
        assert_eq!(left, Vec::<i64>::new());
    }
    while let Some(job) = model.holders.keys().next().copied() {
        let claims = model.holders.remove(&job).unwrap();
        step(db, async |tx| release(tx, job, &claims).await).await;
        model.settle();
    }
    assert!(model.waiting.is_empty());
    step(db, async |tx| prune(tx).await).await;
    let left: i64 = db.one(Sql::new("SELECT COUNT(*) FROM claims")).await.unwrap().at(0).unwrap();
    assert_eq!(left, 0);
}

fn check(url: impl AsyncFnOnce() -> String, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let db = runtime.block_on(async {
        let db = Db::connect(&DbConfig::new(url().await)).await.unwrap();
        db.migrate(crate::MIGRATIONS).await.unwrap();
        db
    });
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&ops(), |ops| {
            runtime.block_on(agree(&db, ops));
            Ok(())
        })
        .unwrap();
}

#[test]
fn claims_are_first_come_first_served_on_sqlite() {
    check(async || "sqlite::memory:".to_owned(), 200);
}

#[test]
fn claims_are_first_come_first_served_on_mariadb() {
    check(async || testkit::TestDb::mariadb().await.url().to_owned(), 40);
}

/// Many at once: nobody waits for ever, and no two holders are in conflict.
async fn crowd(db: Db) {
    db.migrate(crate::MIGRATIONS).await.unwrap();
    let (granted, mut news) = tokio::sync::mpsc::unbounded_channel::<i64>();
    let claims_of = |job: i64| {
        let (a, b) = (job % 3, (job / 3) % 4);
        ordered(vec![
            Claim::Exclusive(format!("vm/{a}")),
            Claim::Shared(format!("net/{}", b % 2)),
            if job % 11 == 0 { Claim::Exclusive("net/0".into()) } else { Claim::Shared("account/1".into()) },
        ])
    };
    const JOBS: i64 = 60;
    for job in 1..=JOBS {
        let (db, granted) = (db.clone(), granted.clone());
        tokio::spawn(async move {
            let claims = claims_of(job);
            if store::tx!(db, "take", |tx| take(tx, job, &claims).await).await.unwrap() {
                granted.send(job).unwrap();
            }
        });
    }
    let holding: std::sync::Arc<std::sync::Mutex<HashMap<i64, Vec<Claim>>>> = std::sync::Arc::default();
    for _ in 0..JOBS {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), news.recv()).await;
        let job = next.unwrap_or_else(|_| panic!("a wake-up was missed")).unwrap();
        let claims = claims_of(job);
        {
            let mut holding = holding.lock().unwrap();
            assert!(!holding.values().any(|h| conflict(h, &claims)), "job {job} and others hold the same");
            holding.insert(job, claims.clone());
        }
        let (db, granted, holding) = (db.clone(), granted.clone(), holding.clone());
        tokio::spawn(async move {
            holding.lock().unwrap().remove(&job);
            for next in store::tx!(db, "release", |tx| release(tx, job, &claims).await).await.unwrap() {
                granted.send(next).unwrap();
            }
        });
    }
    testkit::wait_until(
        async || {
            db.one(Sql::new("SELECT COUNT(*) FROM claims WHERE exclusive <> 0 OR shared <> 0 OR waiting <> 0"))
                .await
                .unwrap()
                .at::<i64>(0)
                .unwrap()
                == 0
        },
        std::time::Duration::from_secs(20),
    )
    .await;
}

testkit::databases! {
    async fn a_crowd_gets_through(test: testkit::TestDb) {
        crowd(Db::connect(&DbConfig::new(test.url())).await.unwrap()).await;
    }
}
