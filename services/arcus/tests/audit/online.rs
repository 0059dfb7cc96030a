//! Beside a storm of work, audits find nothing: nothing is wrong.
//!
//! `ARCUS_ONLINE_SECONDS=300 ARCUS_SEED=7 cargo test -p arcus --test audit online -- --nocapture` runs it longer.

use crate::template::{self, Template};
use arcus::api_client::ApiClient;
use audit::{Auditor, GrpcReports};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn id(answer: &Value, pointer: &str) -> Option<String> {
    answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

/// Deploys, stops, starts and destroys machines; makes, attaches, detaches and deletes volumes; takes and gives addresses.
async fn work(api: Arc<ApiClient>, worker: u64, end: Arc<AtomicBool>, done: Arc<AtomicUsize>, seed: u64) {
    let ids = Template::shared().await.ids.clone();
    let disk = api.call("listDiskOfferings", &[("name", "Small")]).await.unwrap();
    let disk = id(&disk, "/diskoffering/0/id").unwrap();
    let mut random = StdRng::seed_from_u64(seed ^ (worker << 32));
    let mut n = 0;
    while !end.load(Ordering::Relaxed) {
        n += 1;
        let name = format!("s{worker}-{n}");
        let params = [
            ("zoneid", ids.zone.as_str()),
            ("templateid", &ids.template),
            ("serviceofferingid", &ids.offering),
            ("networkids", &ids.network),
            ("name", &name),
        ];
        let Ok(deployed) = api.run("deployVirtualMachine", &params).await else { continue };
        let vm = id(&deployed, "/virtualmachine/id").unwrap();
        if random.random_bool(0.5) {
            let params = [("zoneid", ids.zone.as_str()), ("name", &name), ("diskofferingid", &disk)];
            let made = api.run("createVolume", &params).await.unwrap();
            let volume = id(&made, "/volume/id").unwrap();
            let attached = api.run("attachVolume", &[("id", &volume), ("virtualmachineid", &vm)]).await;
            if attached.is_ok() {
                api.run("detachVolume", &[("id", &volume)]).await.unwrap();
            }
            api.call("deleteVolume", &[("id", &volume)]).await.unwrap();
        }
        if random.random_bool(0.3) {
            let taken = api.run("associateIpAddress", &[("networkid", &ids.network)]).await.unwrap();
            let address = id(&taken, "/ipaddress/id").unwrap();
            api.run("disassociateIpAddress", &[("id", &address)]).await.unwrap();
        }
        if random.random_bool(0.5) {
            api.run("stopVirtualMachine", &[("id", &vm)]).await.unwrap();
            if random.random_bool(0.5) {
                api.run("startVirtualMachine", &[("id", &vm)]).await.unwrap();
            }
        }
        let expunge = if random.random_bool(0.8) { "true" } else { "false" };
        api.run("destroyVirtualMachine", &[("id", &vm), ("expunge", expunge)]).await.unwrap();
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_false_is_told_in_a_storm() {
    let (seconds, seed) = (setting("ARCUS_ONLINE_SECONDS", 20), setting("ARCUS_SEED", rand::random()));
    println!("ARCUS_ONLINE_SECONDS={seconds} ARCUS_SEED={seed}");
    let dir = Template::shared().await.copy();
    let (stack, api) = template::open(dir.path()).await;
    let reports = GrpcReports::new(stack.node.peers.orchestrator());
    let (api, end, done) = (Arc::new(api), Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..6).map(|w| tokio::spawn(work(api.clone(), w, end.clone(), done.clone(), seed))).collect();
    let begun = Instant::now();
    let mut runs = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        // As a duty does, and without any rest, which meets more moments.
        let auditor = Auditor::new(&stack.node.db).ask(&reports);
        let outcome = auditor.run().await.unwrap();
        let told: Vec<String> = outcome.violations.iter().map(ToString::to_string).collect();
        assert!(told.is_empty(), "run {runs}: {told:#?}");
        runs += 1;
    }
    end.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    let done = done.load(Ordering::Relaxed);
    println!("{runs} audits beside {done} machines that came and went");
    assert!(runs > 0 && done > 0);
    let outcome = Auditor::new(&stack.node.db).ask(&reports).run().await.unwrap();
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
    stack.shut_down().await;
}
