//! Injected corruption of each kind is found and named; a sound world is clean.

use crate::cases::{CASES, Case};
use crate::sample;
use audit::{Auditor, CHECKS, Violation};
use std::collections::BTreeSet;
use store::{Db, Sql};

async fn found(db: &Db) -> Vec<Violation> {
    Auditor::new(db).at_rest().run().await.unwrap().violations
}

async fn corrupt(db: &Db, case: &Case) {
    for sql in case.corrupt {
        let changed = store::tx!(db, "corrupt", |tx| tx.exec(Sql::new(sql)).await).await;
        let changed = changed.unwrap_or_else(|e| panic!("{}: {sql}: {e}", case.check));
        assert!(changed > 0, "{}: {sql} changes nothing", case.check);
    }
}

/// What is wrong with what is found after the corruption.
async fn judge(db: &Db, case: &Case, only: bool) -> Option<String> {
    let resource: String = match db.optional(Sql::new(case.resource)).await.unwrap() {
        Some(row) => row.at(0).unwrap(),
        None => return Some(format!("{}: the resource isn't there: {}", case.check, case.resource)),
    };
    let found = found(db).await;
    if !found.iter().any(|v| v.check == case.check && v.resource == resource) {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        return Some(format!("{} doesn't name {resource}; found: {found:#?}", case.check));
    }
    let others: BTreeSet<&str> =
        found.iter().map(|v| v.check).filter(|c| *c != case.check && !case.related.contains(c)).collect();
    (only && !others.is_empty()).then(|| format!("{}: {others:?} tell, too: {found:#?}", case.check))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_world_is_clean() {
    let (db, _dir) = sample::database().await;
    assert_eq!(found(&db).await, Vec::new());
    assert_eq!(audit::run(&db).await.unwrap(), Vec::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_corruption_is_found_and_named() {
    let mut wrong = Vec::new();
    for case in CASES {
        let (db, _dir) = sample::database().await;
        corrupt(&db, case).await;
        wrong.extend(judge(&db, case, true).await);
        db.close().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let tested: BTreeSet<&str> = CASES.iter().map(|c| c.check).collect();
    let all: BTreeSet<&str> = CHECKS.iter().map(|c| c.name).collect();
    assert_eq!(tested, all, "each check has a case");
}

/// On a real MariaDB: the world is clean, and corruptions of each part of it are found, one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_mariadb() {
    let url = testkit::MariaDb::shared().await.fresh_url();
    let (stack, _api, _dir) = sample::on_mariadb(&url).await;
    let db = stack.node.db.clone();
    sample::drained(&db).await;
    assert_eq!(audit::run(&db).await.unwrap(), Vec::new(), "while it serves");
    stack.node.shut_down(std::time::Duration::from_secs(20)).await;
    assert_eq!(found(&db).await, Vec::new());
    let sample = [
        "claim-leaked",
        "claim-shared",
        "claim-waiting",
        "step-leaked",
        "sequence-behind",
        "outbox-late",
        "event-lost",
        "domain-path",
        "limit-count",
        "limit-domain-count",
        "limit-leaked-vm",
        "limit-unseen",
        "host-capacity",
        "affinity-member",
        "dedication-host",
        "vm-place",
        "vm-generation",
        "vlan-unheld",
        "router-generation",
        "mac-twice",
        "address-state",
        "volume-slot",
        "pool-capacity",
        "template-os-type",
        "template-copy-state",
        "image-deletion-of-living",
        "limit-missing-template",
    ];
    let mut wrong = Vec::new();
    for case in CASES.iter().filter(|c| sample.contains(&c.check)) {
        // Stopped machines of the template are not here.
        if case.corrupt.iter().any(|sql| sql.contains("'off'")) {
            continue;
        }
        corrupt(&db, case).await;
        wrong.extend(judge(&db, case, false).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    db.close().await;
}
