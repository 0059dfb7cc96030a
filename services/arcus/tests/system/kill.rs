//! `kill -9` at random moments under load: afterwards every job has ended and the books agree.
//!
//! `ARCUS_KILLS=100 ARCUS_SEED=7 cargo test -p arcus --test system kill -- --nocapture` repeats the recorded run.

use crate::dev::{Dev, deploy_params};
use arcus::api_client::ApiClient;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Workers of the load.
const WORKERS: usize = 8;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Deploys, stops, starts and destroys until told to end. Errors are expected: the server dies.
async fn work(
    api: Arc<ApiClient>,
    ids: Arc<[String; 4]>,
    worker: usize,
    round: usize,
    end: Arc<AtomicBool>,
    seed: u64,
) {
    let mut random = StdRng::seed_from_u64(seed ^ ((worker as u64) << 32) ^ round as u64);
    let mut n = 0;
    while !end.load(Ordering::Relaxed) {
        n += 1;
        let name = format!("k{round}-{worker}-{n}");
        let Ok(done) = api.run("deployVirtualMachine", &deploy_params(&ids, &name)).await else { continue };
        let Some(id) = done.pointer("/virtualmachine/id").and_then(Value::as_str) else { continue };
        if random.random_bool(0.4) {
            let _ = api.run("stopVirtualMachine", &[("id", id)]).await;
            if random.random_bool(0.5) {
                let _ = api.run("startVirtualMachine", &[("id", id)]).await;
            }
        }
        if random.random_bool(0.7) {
            let expunge = if random.random_bool(0.7) { "true" } else { "false" };
            let _ = api.run("destroyVirtualMachine", &[("id", id), ("expunge", expunge)]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments() {
    let (kills, seed) = (setting("ARCUS_KILLS", 8), setting("ARCUS_SEED", rand::random()));
    println!("ARCUS_KILLS={kills} ARCUS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut dev = Dev::with_zone(6).await;
    let ids = Arc::new(dev.ids().await);
    for round in 0..usize::try_from(kills).unwrap() {
        let end = Arc::new(AtomicBool::new(false));
        let api = Arc::new(dev.api());
        let workers: Vec<_> =
            (0..WORKERS).map(|w| tokio::spawn(work(api.clone(), ids.clone(), w, round, end.clone(), seed))).collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(10..700))).await;
        dev.kill();
        end.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.abort();
        }
        dev.restart().await;
        if round % 10 == 9 {
            dev.settle().await;
            dev.audit().await;
        }
    }
    dev.settle().await;
    dev.audit().await;
}
