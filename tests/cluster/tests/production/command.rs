//! `arcus-cluster up`, `status`, `down`.

use crate::{alone, call, deploy, processes, state};
use cluster::{Api, FILE, Report};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};
use testkit::wait_until;
use tokio::process::Command;

async fn command(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcus-cluster"));
    command.args(args).arg("--dir").arg(dir).kill_on_drop(true);
    tokio::time::timeout(Duration::from_secs(300), command.output()).await.expect("it ends in time").unwrap()
}

async fn succeed(dir: &Path, args: &[&str]) -> String {
    let output = command(dir, args).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn report(dir: &Path) -> Report {
    Report::read(dir).unwrap().expect("cluster.json")
}

fn pid(dir: &Path, name: &str) -> Option<u32> {
    report(dir).parts.iter().find(|p| p.name == name).expect(name).pid
}

fn kill(pid: u32) {
    assert!(std::process::Command::new("kill").arg("-9").arg(pid.to_string()).status().unwrap().success());
}

fn api(dir: &Path) -> Api {
    let report = report(dir);
    Api::new(report.endpoint, report.apikey, report.secretkey)
}

/// Kills a part and waits until it serves again under another process id; asks the API all the while.
async fn killed(dir: &Path, api: &Api, name: &str) {
    let before = pid(dir, name).expect("it runs");
    let begun = Instant::now();
    kill(before);
    let mut failed = Vec::new();
    let mut asked = 0;
    loop {
        asked += 1;
        if let Err(e) = call(api, "listZones", &[]).await {
            failed.push(format!("{e:#}"));
        }
        let new = pid(dir, name).is_some_and(|now| now != before);
        if new && command(dir, &["status"]).await.status.success() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{name} doesn't come back: {failed:?}");
    }
    println!("{name}: back after {:.1} s; {} of {asked} calls failed", begun.elapsed().as_secs_f64(), failed.len());
    // Reads are asked again at another replica. Only where nobody is in the way of all calls may they fail.
    assert!(failed.is_empty() || name == "balancer", "{name}: {failed:?}");
    call(api, "listVirtualMachines", &[]).await.unwrap();
}

// covers: OPS-096
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn up_breaks_and_mends_down() {
    let _alone = alone().await;
    let temporary = testkit::temp_dir();
    // A folder of its own: nobody may pass through a temporary one.
    std::fs::set_permissions(temporary.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let dir = &temporary.path().join("cluster");
    std::fs::create_dir(dir).unwrap();
    std::fs::write(dir.join(FILE), "of a killed run").unwrap();

    let shown = succeed(dir, &["up", "--free-ports", "--hosts", "20"]).await;
    println!("{shown}");
    assert!(shown.contains("etcd: 3 members") && shown.contains("database: 3 nodes") && shown.contains("try next"));
    let first = report(dir);
    assert_eq!(std::fs::metadata(dir.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!((first.parts.len(), first.gateways.len(), first.etcd.len()), (20, 2, 3));
    let api = &api(dir);
    let vm = deploy(api, "one").await;
    assert_eq!(succeed(dir, &["up", "--free-ports"]).await.lines().next(), Some("The cluster runs already."));

    for name in ["etcd-1", "database-1", "balancer", "agent-1"] {
        killed(dir, api, name).await;
    }
    for service in cluster::SERVICES {
        killed(dir, api, &format!("{service}-1")).await;
    }
    assert_eq!(state(api, &vm).await.as_deref(), Some("Running"));
    deploy(api, "two").await;
    println!("{}", succeed(dir, &["status"]).await);

    println!("{}", succeed(dir, &["down"]).await);
    assert!(!dir.join(FILE).exists());
    assert_eq!(processes(dir), Vec::<String>::new());
    assert_eq!(command(dir, &["status"]).await.status.code(), Some(3));

    let again = succeed(dir, &["up", "--free-ports", "--hosts", "20"]).await;
    println!("again:\n{}", again.lines().filter(|l| l.contains(" s  ")).collect::<Vec<_>>().join("\n"));
    let api = &self::api(dir);
    assert_eq!(state(api, &vm).await.as_deref(), Some("Running"));
    // Whatever happens to the supervisor, nothing outlives it.
    kill(report(dir).supervisor);
    wait_until(|| async { processes(dir).is_empty() }, Duration::from_secs(20)).await;
    let shown = succeed(dir, &["up", "--free-ports", "--hosts", "20"]).await;
    assert!(shown.contains("ready"));
    let ready = || async { state(&self::api(dir), &vm).await.as_deref() == Some("Running") };
    wait_until(ready, Duration::from_secs(30)).await;
    succeed(dir, &["down"]).await;
}

#[tokio::test]
#[ignore = "minutes of real processes: make test-chaos"]
async fn what_cannot_start_says_why() {
    let _alone = alone().await;
    let temporary = testkit::temp_dir();
    let dir = temporary.path();
    let output = command(dir, &["up", "--small", "--free-ports", "--arcus", "/nowhere/arcus"]).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("/nowhere/arcus"), "{error}");
    assert_eq!(processes(dir), Vec::<String>::new());
    assert!(!dir.join(FILE).exists());
}
