//! What an audit costs with many machines.
//!
//! `ARCUS_AUDIT_VMS=10000 cargo test -p arcus --test audit large -- --nocapture` gives the recorded figures.

use crate::sample;
use audit::Auditor;
use std::time::{Duration, Instant};
use store::{Db, Sql};

async fn exec(db: &Db, sql: &str) {
    store::tx!(*db, "grow", |tx| tx.exec(Sql::new(sql)).await).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// Copies the row of a table that `condition` names, once a number, with some columns changed.
async fn multiply(db: &Db, table: &str, condition: &str, changed: &[(&str, &str)]) {
    let columns = db.all(Sql::new("SELECT name FROM pragma_table_info(?)").bind(table)).await.unwrap();
    let columns: Vec<String> = columns.iter().map(|r| r.at(0).unwrap()).collect();
    let values: Vec<String> = columns
        .iter()
        .map(|c| changed.iter().find(|(name, _)| name == c).map_or(format!("x.{c}"), |(_, e)| (*e).to_owned()))
        .collect();
    let sql = format!(
        "INSERT INTO {table} ({}) SELECT {} FROM {table} x, numbers n WHERE {condition}",
        columns.join(", "),
        values.join(", ")
    );
    exec(db, &sql).await;
}

/// A world with `n` more running machines.
async fn grow(db: &Db, n: i64) {
    exec(db, "CREATE TABLE numbers (n BIGINT NOT NULL PRIMARY KEY)").await;
    let sql = format!(
        "INSERT INTO numbers WITH RECURSIVE c(n) AS (SELECT 100001 UNION ALL SELECT n + 1 FROM c WHERE n < {}) SELECT n FROM c",
        100_000 + n
    );
    exec(db, &sql).await;
    let first = "(SELECT id FROM vms WHERE name = 't-first')";
    let vm_uuid = "'00000000-0000-4000-8000-000000' || n.n";
    let volume_uuid = "'00000000-0000-4000-9000-000000' || n.n";
    let of_vm = format!("x.vm_id = {first} AND x.removed IS NULL");
    multiply(
        db,
        "nics",
        &of_vm,
        &[
            ("id", "n.n"),
            ("uuid", "'nic-' || n.n"),
            ("vm_id", "n.n"),
            ("vm_uuid", vm_uuid),
            ("mac", "'m' || n.n"),
            ("live_mac", "'m' || n.n"),
            ("ip", "'ip' || n.n"),
            ("ip_number", "n.n"),
        ],
    )
    .await;
    multiply(
        db,
        "volumes",
        &of_vm,
        &[("id", "n.n"), ("uuid", volume_uuid), ("vm_id", "n.n"), ("slot", "n.n || '/0'"), ("path", "'p' || n.n")],
    )
    .await;
    multiply(db, "vm_capacity", &format!("x.vm_id = {first}"), &[("vm_id", "n.n")]).await;
    let vm = "x.holder = (SELECT limits_key FROM vms WHERE name = 't-first')";
    multiply(db, "limit_reservations", vm, &[("holder", &format!("'vm:' || {vm_uuid}"))]).await;
    let volume = format!("x.holder = (SELECT 'volume:' || uuid FROM volumes WHERE vm_id = {first})");
    multiply(db, "limit_reservations", &volume, &[("holder", &format!("'volume:' || {volume_uuid}"))]).await;
    multiply(db, "vm_names", &format!("x.vm_id = {first}"), &[("vm_id", "n.n"), ("name_lower", "'v' || n.n")]).await;
    multiply(
        db,
        "vms",
        &format!("x.id = {first}"),
        &[
            ("id", "n.n"),
            ("uuid", vm_uuid),
            ("name", "'v' || n.n"),
            ("name_lower", "'v' || n.n"),
            ("instance_name", "'i-2-' || n.n || '-VM'"),
            ("limits_key", &format!("'vm:' || {vm_uuid}")),
            // Accounting knows nothing of them, and is asked only about those that haven't changed for a minute.
            ("changed", &(store::now_micros() + 3_600_000_000).to_string()),
        ],
    )
    .await;
    for sql in [
        "UPDATE ids SET next = 1000000",
        "UPDATE host_capacity SET cpu_total_mhz = 1000000000000, mem_total = 1000000000000000000, \
         cpu_used_mhz = (SELECT COALESCE(SUM(c.cpu_mhz), 0) FROM vm_capacity c WHERE c.host_id = host_capacity.host_id), \
         mem_used = (SELECT COALESCE(SUM(c.memory), 0) FROM vm_capacity c WHERE c.host_id = host_capacity.host_id), \
         vms = (SELECT COUNT(*) FROM vm_capacity c WHERE c.host_id = host_capacity.host_id)",
        "UPDATE storage_pools SET allocated_bytes = (SELECT SUM(o.size) FROM volumes o WHERE o.pool_id = storage_pools.id AND \
         o.removed IS NULL) + (SELECT COALESCE(SUM(t.size), 0) FROM template_pool_refs t WHERE t.pool_id = storage_pools.id)",
        "UPDATE resource_counts SET used = (SELECT COALESCE(SUM(l.amount), 0) FROM limit_reservations l \
         WHERE l.account_id = resource_counts.owner_id AND l.type = resource_counts.type) WHERE owner_kind = 'account'",
    ] {
        exec(db, sql).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_of_many_machines_is_quick_and_gentle() {
    let n: i64 = std::env::var("ARCUS_AUDIT_VMS").ok().and_then(|v| v.parse().ok()).unwrap_or(1000);
    let (db, _dir) = sample::database().await;
    grow(&db, n).await;
    for (how, auditor) in [("at full speed", Auditor::new(&db).at_rest()), ("beside others", Auditor::new(&db))] {
        let before = db.stats().statements;
        let audit = auditor.run();
        // What somebody else's read waits meanwhile.
        let others = async {
            let mut longest = Duration::ZERO;
            loop {
                let begun = Instant::now();
                db.one(Sql::new("SELECT COUNT(*) FROM vms WHERE id < 100")).await.unwrap();
                longest = longest.max(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(5)).await;
                if longest > Duration::from_secs(60) {
                    return longest;
                }
            }
        };
        let outcome = tokio::select! {
            outcome = audit => outcome.unwrap(),
            longest = others => panic!("a read waited for {longest:?}"),
        };
        assert_eq!(outcome.violations, vec![], "{how}");
        let statements = db.stats().statements - before;
        println!("{n} machines, {how}: {:.2} s, about {statements} statements", outcome.took.as_secs_f64());
        assert!(outcome.took < Duration::from_secs(30), "{how}: {:?}", outcome.took);
    }
}
