//! Accounts and domains that are deleted with all that is theirs.

use crate::tenants::{Tenant, Tenants};
use serde_json::Value;
use std::time::Duration;
use store::Sql;
use testkit::wait_until;

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

/// What the database still knows of a tenant.
async fn left(t: &Tenants, of: &Tenant) -> Vec<String> {
    let mut found = Vec::new();
    for table in ["vms", "volumes", "snapshots", "templates", "networks", "affinity_groups", "accounts"] {
        let own = if table == "accounts" { "x.id = a.id" } else { "x.account_id = a.id" };
        let sql = format!(
            "SELECT COUNT(*) FROM {table} x JOIN accounts a ON {own} WHERE a.name = '{}' AND x.removed IS NULL",
            of.account
        );
        let count: i64 = t.db.one(Sql::new(&sql)).await.unwrap().at(0).unwrap();
        if count > 0 {
            found.push(format!("{count} {table}"));
        }
    }
    for (what, table) in [("addresses", "ip_addresses"), ("key pairs", "ssh_keypairs"), ("groups", "instance_groups")] {
        let sql = format!("SELECT COUNT(*) FROM {table} x JOIN accounts a ON x.account_id = a.id WHERE a.name = ?");
        let count: i64 = t.db.one(Sql::new(&sql).bind(of.account.as_str())).await.unwrap().at(0).unwrap();
        if count > 0 {
            found.push(format!("{count} {what}"));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_accounts_and_domains_leave_nothing() {
    let mut t = Tenants::settle_in().await;
    let api = &t.admin.api;
    // More than the usual: a template of the root disk, a snapshot, a disk that is attached.
    for of in [&t.first, &t.second] {
        let volumes = of.api.call("listVolumes", &[("type", "ROOT")]).await.unwrap();
        let root = text(&volumes, "/volume/0/id");
        of.api.run("createSnapshot", &[("volumeid", &root)]).await.unwrap();
        let machine = text(&of.api.call("listVirtualMachines", &[]).await.unwrap(), "/virtualmachine/0/id");
        let disks = of.api.call("listVolumes", &[("type", "DATADISK")]).await.unwrap();
        let disk = text(&disks, "/volume/0/id");
        of.api.run("attachVolume", &[("id", &disk), ("virtualmachineid", &machine)]).await.unwrap();
    }
    let id_of = async |of: &Tenant| {
        let found = api.call("listAccounts", &[("name", &of.account), ("listall", "true")]).await.unwrap();
        text(&found, "/account/0/id")
    };
    let before = left(&t, &t.second).await;
    assert!(before.len() >= 7, "{before:?}");
    // A user with things, whose deletion is cut off somewhere.
    let first = id_of(&t.first).await;
    let job = text(&api.call("deleteAccount", &[("id", &first)]).await.unwrap(), "/jobid");
    let begun = async || {
        let sql = "SELECT COUNT(*) FROM vms v JOIN accounts a ON a.id = v.account_id WHERE a.name = 'firstuser' AND v.state = 'Running'";
        t.db.one(Sql::new(sql)).await.unwrap().at::<i64>(0).unwrap() == 0
    };
    wait_until(begun, Duration::from_secs(60)).await;
    t.dev.kill();
    t.dev.restart().await;
    let api = &t.admin.api;
    let ended = async || {
        let state = api.call("queryAsyncJobResult", &[("jobid", &job)]).await.ok()?;
        (state["jobstatus"].as_i64() != Some(0)).then_some(state)
    };
    let state = testkit::eventually(ended).await;
    assert_eq!(state["jobstatus"].as_i64(), Some(1), "{state}");
    testkit::until_ok(
        || async {
            let left = left(&t, &t.first).await;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        },
        Duration::from_secs(90),
    )
    .await;
    assert_eq!(left(&t, &t.second).await, before, "others keep theirs");
    // A domain only with what is in it; whoever is in it goes, too.
    let domain = t.second.domain.clone();
    assert!(api.run("deleteDomain", &[("id", &domain)]).await.is_err());
    assert_eq!(left(&t, &t.second).await, before);
    api.run("deleteDomain", &[("id", &domain), ("cleanup", "true")]).await.unwrap();
    testkit::until_ok(
        || async {
            let left = left(&t, &t.second).await;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        },
        Duration::from_secs(90),
    )
    .await;
    let machines = api.call("listVirtualMachines", &[("listall", "true")]).await.unwrap();
    assert!(!machines.to_string().contains("user-machine"), "{machines}");
    t.dev.settle().await;
    t.dev.audit().await;
}
