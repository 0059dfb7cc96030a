//! The agent is replaced, or killed, while its VMs run and jobs are under way.

use crate::scene::Scene;
use chaos::hosts;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use store::{Db, Sql};
use testkit::wait_until;

/// The lease time of the cluster's pools: a restart must be shorter, or guests would have to stand still.
const LEASE: Duration = Duration::from_secs(10);
/// What the agent logs when a lease stops a guest for a moment, or for ever.
const TROUBLE: [&str; 3] = ["lease changed what it may do", "was taken over", "claim is gone"];

/// A VM on its host: host, generation, boots, whether it is on.
type Copy = (String, i64, u64, bool);

fn on_hosts(scene: &Scene) -> BTreeMap<String, Copy> {
    let vms = hosts::vms(&scene.cluster.dir().join("agent")).unwrap();
    let copy = |vm: agent::simulator::VmView| {
        let on = vm.power == contract_agent::PowerState::On;
        (vm.spec.uuid.clone(), (vm.host, vm.spec.generation, vm.boots, on))
    };
    vms.into_iter().map(copy).collect()
}

fn disks_of(scene: &Scene) -> usize {
    hosts::read(&[scene.cluster.dir().join("agent")]).unwrap().lying.len()
}

/// The epochs that were ever claimed of a VM, on all pools.
fn epochs(pools: &Path, vm: &str) -> Vec<String> {
    let mut found = Vec::new();
    for pool in std::fs::read_dir(pools).unwrap().flatten() {
        let claims = std::fs::read_dir(pool.path().join("leases").join(vm)).into_iter().flatten().flatten();
        found.extend(claims.map(|claim| claim.file_name().to_string_lossy().into_owned()));
    }
    found.sort();
    found
}

/// Looks all the time whether hosts are taken for dead.
struct Watch {
    end: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Watch {
    fn start(db: &Db) -> Watch {
        let (end, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(look(db.clone(), end.clone(), looks.clone()));
        Watch { end, looks, task }
    }

    /// The states that were seen other than Up and Disconnected.
    async fn end(self) -> Vec<String> {
        self.end.store(true, Ordering::Relaxed);
        assert!(self.looks.load(Ordering::Relaxed) > 10, "it looked");
        self.task.await.unwrap()
    }
}

async fn look(db: Db, end: Arc<AtomicBool>, looks: Arc<AtomicUsize>) -> Vec<String> {
    let mut seen = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while !end.load(Ordering::Relaxed) {
        tick.tick().await;
        let sql = Sql::new("SELECT status FROM hosts WHERE removed IS NULL AND status NOT IN ('Up', 'Disconnected')");
        seen.extend(db.all(sql).await.unwrap().iter().map(|r| r.at::<String>(0).unwrap()));
        looks.fetch_add(1, Ordering::Relaxed);
    }
    seen
}

async fn all_up(scene: &Scene) -> bool {
    let sql = Sql::new("SELECT COUNT(*) FROM hosts WHERE removed IS NULL AND (status <> 'Up' OR hub IS NULL)");
    scene.db.one(sql).await.unwrap().at::<i64>(0).unwrap() == 0
}

async fn connections(scene: &Scene) -> i64 {
    scene.db.one(Sql::new("SELECT MIN(conn_epoch) FROM hosts WHERE removed IS NULL")).await.unwrap().at(0).unwrap()
}

/// A binary of one's own, which can be replaced.
fn own_binary(dir: &Path) -> PathBuf {
    let own = dir.join("arcus");
    replace(&own);
    own
}

/// As a package manager does it: the new file takes the old one's name.
fn replace(own: &Path) {
    let new = own.with_extension("new");
    std::fs::copy(cluster::arcus_binary().unwrap(), &new).unwrap();
    std::fs::rename(new, own).unwrap();
}

/// Ends the agent with `end` while VMs run and jobs have orders with it, puts another binary in its place and starts it.
async fn is_replaced(end: impl AsyncFn(&Scene)) {
    let folder = testkit::temp_dir();
    let own = own_binary(folder.path());
    let scene = Scene::with(|options| options.arcus.clone_from(&own)).await;
    for n in 0..4 {
        scene.deploy(&format!("runs-{n}")).await;
    }
    let before = on_hosts(&scene);
    assert!(before.len() >= 4 && before.values().all(|(_, _, boots, on)| *on && *boots == 1), "{before:?}");
    let (connected, pools) = (connections(&scene).await, scene.cluster.dir().join("pools"));
    let claims: BTreeMap<&String, Vec<String>> = before.keys().map(|vm| (vm, epochs(&pools, vm))).collect();
    assert!(claims.values().all(|epochs| epochs.len() == 1), "{claims:?}");
    let (watch, disks) = (Watch::start(&scene.db), disks_of(&scene));
    scene.slow("StartVm", 6).await;
    let mut jobs = Vec::new();
    for n in 0..4 {
        jobs.push(scene.begin("deployVirtualMachine", &scene.deploy_params(&format!("comes-{n}"))).await);
    }
    // Their disks are made: what comes next, and takes long, is the start.
    let wanted = disks + jobs.len();
    wait_until(|| async { disks_of(&scene) >= wanted }, Duration::from_secs(30)).await;
    let begun = Instant::now();
    end(&scene).await;
    let ended = begun.elapsed();
    replace(&own);
    scene.cluster.restart("agent-1").await.unwrap();
    let back = || async { all_up(&scene).await && connections(&scene).await > connected };
    wait_until(back, Duration::from_secs(30)).await;
    let away = begun.elapsed();
    println!("the agent ended after {ended:?}, its hosts were back after {away:?}");
    assert!(away < LEASE, "{away:?}: this proves nothing about leases");
    for job in &jobs {
        assert_eq!(scene.end_of(job, Duration::from_secs(90)).await, "Done");
    }
    scene.is_sound().await;
    assert_eq!(watch.end().await, Vec::<String>::new(), "hosts were taken for something else");
    let after = on_hosts(&scene);
    assert_eq!(after.len(), before.len() + jobs.len());
    for (vm, copy) in &before {
        assert_eq!(after.get(vm), Some(copy), "the same copy, not booted again");
        assert_eq!(epochs(&pools, vm), claims[vm], "nobody took it over");
    }
    for (vm, (_, generation, boots, on)) in after.iter().filter(|(vm, _)| !before.contains_key(*vm)) {
        assert!(*on && *boots == 1, "{vm} was started {boots} times");
        assert_eq!(epochs(&pools, vm), [generation.to_string()]);
    }
    let told = scene.log("agent-1");
    let trouble: Vec<&str> = told.lines().filter(|line| TROUBLE.iter().any(|words| line.contains(words))).collect();
    assert!(trouble.is_empty(), "{trouble:?}");
    let versions = "SELECT COUNT(*) FROM hosts WHERE removed IS NULL AND (version IS NULL OR version <> ?)";
    let other = Sql::new(versions).bind(env!("CARGO_PKG_VERSION"));
    assert_eq!(scene.db.one(other).await.unwrap().at::<i64>(0).unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn an_agent_is_upgraded_under_running_vms() {
    is_replaced(async |scene| scene.cluster.stop("agent-1").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn an_agent_is_killed_and_replaced_under_running_vms() {
    is_replaced(async |scene| scene.cluster.kill("agent-1").await).await;
}
