//! A database node that dies under calls: nothing that was acknowledged is lost, and operators are told.

use crate::audit::{audit, looker};
use crate::{alone, call, deploy, few_hosts};
use cluster::{Api, Cluster, Options};
use futures::future::join_all;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use testkit::{Galera, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const CALLS: usize = 200;

/// Sets a tag; an error is what the client is told.
async fn tag(api: &Api, vm: &str, key: &str) -> anyhow::Result<()> {
    let params = [("resourcetype", "UserVm"), ("resourceids", vm), ("tags[0].key", key), ("tags[0].value", "v")];
    tokio::time::timeout(PATIENCE, api.run("createTags", &params)).await?.map(drop)
}

/// The values at `key` of each of a list's items.
fn values(answer: &Value, list: &str, key: &str) -> Vec<String> {
    let items = answer.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
    items.iter().filter_map(|i| i.get(key)?.as_str().map(str::to_owned)).collect()
}

// covers: OPS-150
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn two_hundred_tags_survive_a_database_node() {
    if !Galera::installed() {
        println!("not run: Galera isn't installed");
        return;
    }
    let _alone = alone().await;
    let dir = testkit::temp_dir();
    let cluster = Cluster::start(Options { galera: 3, ..few_hosts(dir.path()) }).await.unwrap();
    let (api, vm) = (cluster.api(), deploy(cluster.api(), "one").await);
    let (next, done, repeated) = (AtomicUsize::new(0), Mutex::new(Vec::new()), AtomicUsize::new(0));
    let acknowledged = || done.lock().unwrap().len();
    let calls = join_all((0..4).map(async |_| {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= CALLS {
                break;
            }
            let mut key = format!("k{n}");
            if let Err(first) = tag(api, &vm, &key).await {
                // Under another key: the first may have taken place though its client was told that it failed.
                key = format!("again{n}");
                repeated.fetch_add(1, Ordering::Relaxed);
                let second = tag(api, &vm, &key).await;
                assert!(second.is_ok(), "call {n} failed twice: {first:#}; {second:?}");
            }
            done.lock().unwrap().push(key);
        }
    }));
    let kill = async {
        wait_until(|| async { acknowledged() >= 60 }, PATIENCE * 2).await;
        cluster.kill("database-1").await;
        acknowledged()
    };
    let ((), at) = tokio::join!(async { drop(calls.await) }, kill);
    assert!(at < CALLS, "it was killed after the last call");
    println!("{} of {CALLS} calls were repeated; the node died after {at}", repeated.load(Ordering::Relaxed));

    let listed = call(api, "listTags", &[("resourceid", &vm), ("listall", "true"), ("page", "1"), ("pagesize", "500")])
        .await
        .unwrap();
    let there: HashSet<String> = values(&listed, "tag", "key").into_iter().collect();
    let lost: Vec<String> = done.lock().unwrap().iter().filter(|key| !there.contains(*key)).cloned().collect();
    assert!(lost.is_empty() && acknowledged() == CALLS, "{lost:?} were acknowledged and are lost");

    let url = cluster.database_url();
    let hosts = url.rsplit_once('@').unwrap().1.trim_end_matches("/arcus").to_owned();
    let [first, second, _] = hosts.split(',').collect::<Vec<_>>().try_into().unwrap();
    let told = async |text: String| {
        let there = || async {
            let alerts = call(api, "listAlerts", &[("type", "14")]).await;
            let events = call(api, "listEvents", &[("type", "ALERT.MANAGEMENT"), ("listall", "true")]).await;
            let (Ok(alerts), Ok(events)) = (alerts, events) else { return false };
            [(&alerts, "alert"), (&events, "event")]
                .iter()
                .all(|(answer, list)| values(answer, list, "description").iter().any(|d| d.starts_with(&text)))
        };
        wait_until(there, PATIENCE).await;
    };
    told(format!("Database node {second} is used instead of {first}: ")).await;
    told(format!("Database node {first} has left: ")).await;
    cluster.restart("database-1").await.unwrap();
    told(format!("Database node {first} is back and keeps in step")).await;

    // On a cluster of three, too, an audit needs no right to write.
    let said = audit(&looker(&cluster).await).await;
    assert!(said.code == Some(0), "{:?}: {}", said.code, said.text);
    cluster.shut_down().await;
}
