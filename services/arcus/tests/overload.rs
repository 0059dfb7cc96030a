//! The whole system under far more load than it can carry: one account's flood is its own trouble.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "system/dev.rs"]
#[allow(dead_code)] // its other half is used by the other tests
mod dev;

use arcus::api_client::ApiClient;
use dev::{Dev, deploy_params};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// More than may be at work and wait for one account.
const CLIENTS: usize = 1300;

/// How long the load lasts: `ARCUS_OVERLOAD_SECONDS=60` for the whole minute.
fn seconds() -> u64 {
    std::env::var("ARCUS_OVERLOAD_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(5)
}

/// A client of a new account.
async fn account(admin: &ApiClient, dev: &Dev, name: &str) -> ApiClient {
    let params = [
        ("accounttype", "0"),
        ("email", "a@example.org"),
        ("firstname", "F"),
        ("lastname", "L"),
        ("username", name),
        ("password", "pw-12345"),
    ];
    let made = admin.call("createAccount", &params).await.unwrap();
    let user = made.pointer("/account/user/0/id").and_then(Value::as_str).unwrap().to_owned();
    let keys = admin.call("registerUserKeys", &[("id", &user)]).await.unwrap();
    let text = |name: &str| keys.pointer(&format!("/userkeys/{name}")).and_then(Value::as_str).unwrap().to_owned();
    dev.api_as(&text("apikey"), &text("secretkey"))
}

/// Times of `n` lists, one after the other, sorted. None is refused.
async fn lists(api: &ApiClient, n: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..n {
        let begun = Instant::now();
        let answer = api.once("listVirtualMachines", &[("page", "1"), ("pagesize", "20")]).await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.body());
        times.push(begun.elapsed());
    }
    times.sort();
    times
}

/// Resident memory of the process that works in this folder, in MiB.
fn resident(dev: &Dev) -> usize {
    let flag = format!("--data-dir={}", dev.data().display());
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|e| Some(e.ok()?.path()));
    let ours = processes.filter(|p| std::fs::read_to_string(p.join("cmdline")).is_ok_and(|c| c.contains(&flag)));
    // The largest is the system itself; there may be a watchdog beside it.
    let pages = |p: std::path::PathBuf| std::fs::read_to_string(p.join("statm")).ok()?.split(' ').nth(1)?.parse().ok();
    ours.filter_map(pages).max().unwrap_or(0usize) * 4 / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_its_own_trouble() {
    let dev = Dev::with_zone(4).await;
    let (calm, ids) = (dev.api(), dev.ids().await);
    let noisy = Arc::new(account(&calm, &dev, "noisy").await);
    lists(&calm, 20).await;
    let before = lists(&calm, 40).await;
    let memory = resident(&dev);
    let end = Arc::new(AtomicBool::new(false));
    let (done, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut flood = JoinSet::new();
    for _ in 0..CLIENTS {
        let (noisy, end, done, refused) = (noisy.clone(), end.clone(), done.clone(), refused.clone());
        flood.spawn(async move {
            while !end.load(Ordering::SeqCst) {
                let answer = noisy.once("listVirtualMachines", &[("page", "1"), ("pagesize", "20")]).await.unwrap();
                match answer.status().as_u16() {
                    200 => done.fetch_add(1, Ordering::SeqCst),
                    503 => {
                        // It comes again when it is told to, as all others do.
                        let after = answer.headers().get("retry-after").unwrap().to_str().unwrap();
                        refused.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_secs(after.parse().unwrap())).await;
                        0
                    }
                    _ => panic!("{answer:?}"),
                };
            }
        });
    }
    testkit::wait_until(|| std::future::ready(refused.load(Ordering::SeqCst) > 0), Duration::from_secs(120)).await;
    // Others work as ever: lists, and a machine from its deploy to its end.
    let begun = Instant::now();
    let mut others = Vec::new();
    let mut machines = 0;
    while begun.elapsed() < Duration::from_secs(seconds()) || machines == 0 {
        others.extend(lists(&calm, 5).await);
        let name = format!("calm-{machines}");
        let made = calm.run("deployVirtualMachine", &deploy_params(&ids, &name)).await.unwrap();
        assert_eq!(made.pointer("/virtualmachine/state").unwrap(), "Running");
        machines += 1;
    }
    let lasted = begun.elapsed().as_secs_f64();
    let grown = resident(&dev).saturating_sub(memory);
    end.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let mut after = lists(&calm, 10).await;
    // To twice of what it was before; what is less than a busy machine's hiccup doesn't count.
    while after[5] > (2 * before[20]).max(Duration::from_millis(20)) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?} before, still {:?}", before[20], after[5]);
        after = lists(&calm, 10).await;
    }
    let recovered = begun.elapsed();
    while let Some(ended) = flood.join_next().await {
        ended.unwrap();
    }
    others.sort();
    println!(
        "in {lasted:.1} s: {done:?} lists done and {refused:?} refused of the flood of {CLIENTS} clients; others: {} lists, p50 {:?}, \
         p99 {:?}, {machines} machines; before: p50 {:?}; back after {recovered:?}; {grown} MiB more",
        others.len(),
        others[others.len() / 2],
        others[others.len() * 99 / 100],
        before[20],
    );
    assert!(grown < 400, "{grown} MiB more");
    dev.settle().await;
    dev.audit().await;
}
