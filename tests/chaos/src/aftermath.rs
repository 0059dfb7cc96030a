//! What is there when all is mended and quiet: as the API shows it through each gateway, as the database has it, and as
//! the hosts run it.

use crate::client::Client;
use crate::hosts;
use crate::system::System;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use store::{Db, DbConfig, Sql};

/// A VM that the API shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VmSeen {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// Ids of its networks with its addresses there.
    pub nics: Vec<(String, String)>,
}

/// A volume that the API shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VolumeSeen {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// Whether it is a VM's root disk.
    pub root: bool,
    /// In bytes.
    pub size: i64,
    /// Name of the VM that has it.
    pub vm: Option<String>,
}

/// A network that the API shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkSeen {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
}

/// What the API shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// All VMs.
    pub vms: Vec<VmSeen>,
    /// All volumes.
    pub volumes: Vec<VolumeSeen>,
    /// All networks.
    pub networks: Vec<NetworkSeen>,
    /// Tags of VMs: name of the VM, key, value.
    pub tags: Vec<(String, String, String)>,
}

/// A job as the database has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// Its id.
    pub id: String,
    /// Kind.
    pub kind: String,
    /// Waiting, Running, Undoing, Done, Failed, Parked.
    pub state: String,
    /// Step that it is at.
    pub step: Option<String>,
}

/// A VM on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OnHost {
    /// The VM's id.
    pub vm: String,
    /// The host's id.
    pub host: String,
    /// Generation.
    pub generation: i64,
}

/// Bytes on a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OnPool {
    /// The volume's id.
    pub volume: String,
    /// The pool's id.
    pub pool: String,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aftermath {
    /// When it was read, in microseconds since the run began.
    pub at: u64,
    /// Whether all became quiet in time.
    pub quiet: bool,
    /// What each gateway shows, by its address.
    pub shown: BTreeMap<String, Shown>,
    /// All jobs.
    pub jobs: Vec<JobRow>,
    /// VMs that the database says to run.
    pub should_run: Vec<OnHost>,
    /// VMs that hosts run.
    pub do_run: Vec<OnHost>,
    /// Volumes that the database says to lie on pools.
    pub should_lie: Vec<OnPool>,
    /// Volumes that lie on pools.
    pub do_lie: Vec<OnPool>,
    /// What the audit found.
    pub audit: Vec<String>,
}

/// Longest wait for quiet: longer than any deadline of a step.
const QUIET_IN: Duration = Duration::from_secs(180);

/// Waits until nothing is under way and the books agree; gives whether that came about in time.
///
/// # Errors
/// When the database can't be asked at all.
pub async fn quiet(db: &Db) -> Result<bool> {
    let begun = Instant::now();
    let count = async |sql: &str| -> Result<i64> { Ok(db.one(Sql::new(sql)).await?.at::<i64>(0)?) };
    let mut pause = Duration::from_millis(50);
    loop {
        let jobs = count("SELECT COUNT(*) FROM jobs WHERE state NOT IN ('Done', 'Failed', 'Parked')").await?;
        let moving = count(
            "SELECT COUNT(*) FROM vms WHERE removed IS NULL \
             AND state IN ('Starting', 'Stopping', 'Migrating', 'Expunging')",
        )
        .await?;
        let debts =
            count("SELECT (SELECT COUNT(*) FROM host_debts) + (SELECT COUNT(*) FROM pending_deletions)").await?;
        if jobs == 0 && moving == 0 && debts == 0 && audit::run(db).await?.is_empty() {
            return Ok(true);
        }
        if begun.elapsed() > QUIET_IN {
            return Ok(false);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Connects with the database of a system.
///
/// # Errors
/// When it doesn't answer within a minute.
pub async fn database(system: &dyn System) -> Result<Db> {
    let begun = Instant::now();
    loop {
        match Db::connect(&DbConfig { connections: 4, ..DbConfig::new(system.database_url()) }).await {
            Ok(db) => return Ok(db),
            Err(e) if begun.elapsed() > Duration::from_secs(60) => return Err(e).context("the database"),
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

/// Waits for quiet, then reads everything.
///
/// # Errors
/// What can't be read.
pub async fn read(system: &dyn System, admin: &Client, now: impl Fn() -> u64) -> Result<Aftermath> {
    let db = database(system).await?;
    let quiet = quiet(&db).await?;
    let mut after = Aftermath { at: now(), quiet, ..Aftermath::default() };
    for endpoint in system.endpoints() {
        let shown = shown(admin, &endpoint).await.with_context(|| format!("what {endpoint} shows"))?;
        after.shown.insert(endpoint, shown);
    }
    for row in db.all(Sql::new("SELECT uuid, kind, state, step FROM jobs ORDER BY id")).await? {
        after.jobs.push(JobRow { id: row.at(0)?, kind: row.at(1)?, state: row.at(2)?, step: row.at(3)? });
    }
    let running = "SELECT v.uuid, h.uuid, v.generation FROM vms v JOIN hosts h ON h.id = v.host_id \
                   WHERE v.removed IS NULL AND v.state = 'Running'";
    for row in db.all(Sql::new(running)).await? {
        after.should_run.push(OnHost { vm: row.at(0)?, host: row.at(1)?, generation: row.at(2)? });
    }
    let lying = "SELECT v.uuid, p.uuid FROM volumes v JOIN storage_pools p ON p.id = v.pool_id \
                 WHERE v.removed IS NULL AND v.state = 'Ready'";
    for row in db.all(Sql::new(lying)).await? {
        after.should_lie.push(OnPool { volume: row.at(0)?, pool: row.at(1)? });
    }
    let hosts = hosts::read(&system.agent_states()).context("the agents' state")?;
    (after.do_run, after.do_lie) = (hosts.running, hosts.lying);
    for list in [&mut after.should_run, &mut after.do_run] {
        list.sort();
    }
    for list in [&mut after.should_lie, &mut after.do_lie] {
        list.sort();
    }
    after.audit = audit::run(&db).await?.iter().map(ToString::to_string).collect();
    Ok(after)
}

async fn shown(admin: &Client, endpoint: &str) -> Result<Shown> {
    let mut shown = Shown::default();
    for vm in all(admin, endpoint, "listVirtualMachines", "virtualmachine").await? {
        let nics = vm.get("nic").and_then(Value::as_array).cloned().unwrap_or_default();
        let nics = nics.iter().map(|n| (text(n, "networkid"), text(n, "ipaddress"))).collect();
        shown.vms.push(VmSeen { name: text(&vm, "name"), id: text(&vm, "id"), state: text(&vm, "state"), nics });
        let tags = vm.get("tags").and_then(Value::as_array).cloned().unwrap_or_default();
        shown.tags.extend(tags.iter().map(|t| (text(&vm, "name"), text(t, "key"), text(t, "value"))));
    }
    for volume in all(admin, endpoint, "listVolumes", "volume").await? {
        let vm = Some(text(&volume, "vmname")).filter(|name| !name.is_empty());
        shown.volumes.push(VolumeSeen {
            name: text(&volume, "name"),
            id: text(&volume, "id"),
            state: text(&volume, "state"),
            root: text(&volume, "type") == "ROOT",
            size: volume.get("size").and_then(Value::as_i64).unwrap_or_default(),
            vm,
        });
    }
    for network in all(admin, endpoint, "listNetworks", "network").await? {
        shown.networks.push(NetworkSeen { name: text(&network, "name"), id: text(&network, "id") });
    }
    shown.vms.sort();
    shown.volumes.sort();
    shown.networks.sort();
    shown.tags.sort();
    Ok(shown)
}

/// Every page of a list.
async fn all(admin: &Client, endpoint: &str, command: &str, item: &str) -> Result<Vec<Value>> {
    let mut found: Vec<Value> = Vec::new();
    for page in 1.. {
        let page = page.to_string();
        let params = [("listall", "true"), ("page", page.as_str()), ("pagesize", "200")];
        let answer = admin.plain(endpoint, command, &params).await?;
        let items = answer.get(item).and_then(Value::as_array).cloned().unwrap_or_default();
        let last = items.len() < 200;
        found.extend(items);
        if last {
            break;
        }
    }
    Ok(found)
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
