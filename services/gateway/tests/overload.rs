//! More than can be done: what is refused, how, and who isn't.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{ADMIN, Answer, Cloud, USER, another, signed};
use serde_json::json;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const LIST: &[(&str, &str)] = &[("command", "listZones")];

/// A gateway with few places, and queues that nobody is refused from for waiting.
async fn small(at_work: usize, account: usize) -> Arc<Cloud> {
    let cloud = Cloud::with(
        |options| {
            let queues = &mut options.limits.queues;
            (queues.at_work, queues.account, queues.all) = (at_work, account, 10 * account);
            queues.patience.longest = Duration::from_secs(120);
            queues.patience.standing = Duration::from_secs(120);
        },
        None,
    );
    Arc::new(cloud.await)
}

/// Sends that many lists at once.
fn flood(cloud: &Arc<Cloud>, keys: (&'static str, &'static str), n: usize) -> JoinSet<Answer> {
    let mut sent = JoinSet::new();
    for _ in 0..n {
        let cloud = cloud.clone();
        sent.spawn(async move { cloud.get(keys, LIST).await });
    }
    sent
}

async fn calls(cloud: &Cloud, n: usize) {
    let reached = || async { cloud.orchestrator.calls.load(Ordering::SeqCst) == n };
    testkit::wait_until(reached, Duration::from_secs(30)).await;
}

#[tokio::test]
async fn a_flood_of_one_account_is_refused_and_others_pass() {
    let cloud = small(8, 10).await;
    let held = cloud.orchestrator.gate.clone().lock_owned().await;
    let mut sent = flood(&cloud, USER, 60);
    // Seven are at work (the last place isn't one account's), ten wait; all others are refused at once.
    let mut refused = Vec::new();
    while refused.len() < 43 {
        refused.push(sent.join_next().await.unwrap().unwrap());
    }
    for answer in &refused {
        assert_eq!(answer.status, 503, "{}", answer.body);
        let after: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=3).contains(&after));
        let text = contract::ApiError::overloaded("").text;
        let body = json!({"uuidList": [], "errorcode": 503, "cserrorcode": 9999, "errortext": text});
        assert_eq!(answer.json()["listzonesresponse"], body);
        assert_eq!(answer.header("x-description"), text.as_str());
    }
    calls(&cloud, 7).await;
    // Another account reaches the service…
    let mut other = flood(&cloud, ADMIN, 1);
    calls(&cloud, 8).await;
    // … and what is quick passes, of the flooding account too.
    for keys in [USER, ADMIN] {
        assert_eq!(cloud.get(keys, &[("command", "queryAsyncJobResult"), ("jobid", "x")]).await.status, 200);
        assert_eq!(cloud.get(keys, &[("command", "listApis"), ("name", "listZones")]).await.status, 200);
    }
    cloud.login("admin", "password").await;
    drop(held);
    assert_eq!(other.join_next().await.unwrap().unwrap().status, 200);
    while let Some(answer) = sent.join_next().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(cloud.orchestrator.calls.load(Ordering::SeqCst), 18, "what was refused never reached the service");
    let metrics = telemetry::metrics::text();
    assert!(metrics.contains("arcus_api_shed_total{gate=\"orchestrator\",reason=\"full\"}"), "{metrics}");
    assert!(metrics.contains("arcus_api_queue_seconds_count{gate=\"orchestrator\"}"), "{metrics}");
}

#[tokio::test]
async fn who_waits_too_long_is_refused_before_anything_is_done() {
    let cloud = Cloud::with(
        |options| {
            options.limits.queues.at_work = 1;
            options.limits.queues.patience.longest = Duration::from_millis(50);
        },
        None,
    );
    let cloud = Arc::new(cloud.await);
    let held = cloud.orchestrator.gate.clone().lock_owned().await;
    let mut first = flood(&cloud, USER, 1);
    calls(&cloud, 1).await;
    let late = cloud.get(ADMIN, LIST).await;
    assert_eq!((late.status, late.header("retry-after").len()), (503, 1));
    assert!(late.body.contains("didn't come in time"), "root admins read why: {}", late.body);
    drop(held);
    assert_eq!(first.join_next().await.unwrap().unwrap().status, 200);
    assert_eq!(cloud.orchestrator.calls.load(Ordering::SeqCst), 1);
    assert_eq!(cloud.get(ADMIN, LIST).await.status, 200, "the same request, repeated");
}

#[tokio::test]
async fn strangers_wait_for_themselves() {
    let cloud = Cloud::with(|options| (options.limits.queues.strangers, options.limits.queues.address) = (2, 3), None);
    let cloud = Arc::new(cloud.await);
    cloud.identity.put(another(9, "ann", ("ann-key", "ann-secret")), "x");
    assert_eq!(cloud.get(USER, LIST).await.status, 200);
    let held = cloud.identity.gate().lock_owned().await;
    let looked_up = cloud.identity.look_ups();
    let mut sent = JoinSet::new();
    for n in 0..20 {
        let cloud = cloud.clone();
        sent.spawn(async move { cloud.get((&format!("unknown-{n}"), "x"), LIST).await.status });
    }
    // One look-up is under way for this address, three wait.
    for _ in 0..16 {
        assert_eq!(sent.join_next().await.unwrap().unwrap(), 503);
    }
    assert_eq!(cloud.identity.look_ups(), looked_up + 1);
    // Who is known isn't looked up, and another address has its own lane.
    assert_eq!(cloud.get(USER, LIST).await.status, 200);
    let elsewhere = reqwest::Client::builder().local_address("127.0.0.2".parse::<IpAddr>().unwrap()).build().unwrap();
    let url = format!("{}?{}", cloud.url(), signed(("ann-key", "ann-secret"), LIST));
    let ann = tokio::spawn(elsewhere.get(url).send());
    let looked = || async { cloud.identity.look_ups() == looked_up + 2 };
    testkit::wait_until(looked, Duration::from_secs(30)).await;
    drop(held);
    assert_eq!(ann.await.unwrap().unwrap().status().as_u16(), 200);
    while let Some(status) = sent.join_next().await {
        assert_eq!(status.unwrap(), 401);
    }
}

#[tokio::test]
async fn a_service_that_can_do_no_more_is_a_503() {
    let cloud = Cloud::start().await;
    let fail = |error| *cloud.orchestrator.fail.lock().unwrap() = Some(error);
    let zone =
        [("command", "createZone"), ("dns1", "1"), ("internaldns1", "2"), ("name", "z"), ("networktype", "Basic")];
    fail(contract::ApiError::overloaded("10000 jobs wait"));
    let answer = cloud.get(ADMIN, &zone).await;
    assert_eq!((answer.status, answer.header("retry-after").len()), (503, 1), "{}", answer.body);
    assert_eq!(answer.json()["createzoneresponse"]["errortext"], "10000 jobs wait");
    // A list that couldn't be made changed nothing; what becomes of a change isn't known.
    fail(contract::ApiError::unavailable("no"));
    assert_eq!(cloud.get(USER, LIST).await.status, 503);
    fail(contract::ApiError::unavailable("no"));
    let answer = cloud.get(ADMIN, &zone).await;
    assert_eq!((answer.status, answer.header("retry-after")), (534, ""));
}

#[tokio::test]
async fn connections_without_room_are_told_so() {
    let cloud = Cloud::with(|options| options.limits.connections = 2, None).await;
    let address = cloud.serving.http[0];
    let request = format!("GET /client/api?{} HTTP/1.1\r\nhost: x\r\n\r\n", signed(USER, LIST));
    let mut held = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    for _ in 0..2 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let n = tcp.read(&mut buffer).await.unwrap();
        assert!(buffer[..n].starts_with(b"HTTP/1.1 200 OK\r\n"));
        held.push(tcp);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    third.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    third.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"), "{text}");
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
    held.pop();
    testkit::eventually(|| async { (cloud.get(USER, LIST).await.status == 200).then_some(()) }).await;
}

#[tokio::test]
async fn slow_senders_lose_their_connection() {
    let cloud = Cloud::with(|options| options.limits.arrival = Duration::from_millis(200), None).await;
    let address = cloud.serving.http[0];
    let mut text = String::new();
    // Half a head, and nothing at all.
    for sent in [&b"GET /client/api?command=li"[..], b""] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(sent).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), tcp.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(!text.contains("200 OK"), "{text}");
    }
    // Half a body.
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"POST /client/api HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\ncommand=").await.unwrap();
    text.clear();
    tokio::time::timeout(Duration::from_secs(30), tcp.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
}

#[tokio::test]
async fn large_bodies_share_their_memory() {
    let cloud = Cloud::with(|options| options.limits.bodies = 100 * 1024, None).await;
    // Sent in part, and held.
    let mut tcp = TcpStream::connect(cloud.serving.http[0]).await.unwrap();
    tcp.write_all(b"POST /client/api HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
    tcp.write_all(&[b'a'; 100 * 1024]).await.unwrap();
    let large = || async { (cloud.post_body("x".repeat(60 * 1024)).await.status == 503).then_some(()) };
    testkit::eventually(large).await;
    let small = cloud.post_body(signed(USER, LIST)).await;
    assert_eq!(small.status, 200, "{}", small.body);
    drop(tcp);
    let large = || async { (cloud.post_body("x".repeat(60 * 1024)).await.status == 401).then_some(()) };
    testkit::eventually(large).await;
}

/// How long the load lasts: `ARCUS_OVERLOAD_SECONDS=60` for the whole minute.
fn seconds() -> u64 {
    std::env::var("ARCUS_OVERLOAD_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3)
}

/// Resident memory, in MiB.
fn resident() -> usize {
    let pages: usize = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4 / 1024
}

/// The median and the 99th percentile of `n` lists, one after the other; all are answered well.
async fn latency(cloud: &Cloud, keys: (&str, &str), n: usize) -> (Duration, Duration) {
    let mut times = Vec::new();
    for _ in 0..n {
        let begun = Instant::now();
        let answer = cloud.get(keys, LIST).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        times.push(begun.elapsed());
    }
    times.sort();
    (times[n / 2], times[n * 99 / 100])
}

// Ten times of what can be done, by one account: it gets what can be done and 503s, another account is never refused,
// and when it ends everything is as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_the_load_and_back() {
    let cloud = small(8, 40).await;
    // 8 places of 100 ms: 80 requests a second can be done, of which one account may have 70.
    cloud.orchestrator.work.store(100, Ordering::SeqCst);
    let before = latency(&cloud, ADMIN, 10).await;
    let memory = resident();
    let (counts, ended) = (Arc::new(Mutex::new((0usize, 0usize))), Arc::new(AtomicBool::new(false)));
    let load = {
        let (cloud, counts, ended) = (cloud.clone(), counts.clone(), ended.clone());
        tokio::spawn(async move {
            // An open loop: requests come when they come, whatever became of those before.
            let mut due = tokio::time::interval(Duration::from_millis(10));
            let mut sent = JoinSet::new();
            for _ in 0..seconds() * 100 {
                due.tick().await;
                // A machine that is busy otherwise needn't hold thousands of connections.
                for _ in 0..8.min(1000usize.saturating_sub(sent.len())) {
                    let (cloud, counts) = (cloud.clone(), counts.clone());
                    sent.spawn(async move {
                        let answer = cloud.get(USER, LIST).await;
                        let mut counts = counts.lock().unwrap();
                        match answer.status {
                            200 => counts.0 += 1,
                            503 if !answer.header("retry-after").is_empty() => counts.1 += 1,
                            _ => panic!("{answer:?}"),
                        }
                    });
                }
                while let Some(done) = sent.try_join_next() {
                    done.unwrap();
                }
            }
            ended.store(true, Ordering::SeqCst);
            while let Some(done) = sent.join_next().await {
                done.unwrap();
            }
        })
    };
    let mut others = Vec::new();
    while !ended.load(Ordering::SeqCst) {
        others.push(latency(&cloud, ADMIN, 1).await.0);
    }
    others.sort();
    let mut after = latency(&cloud, ADMIN, 5).await;
    let begun = Instant::now();
    while after.0 > 2 * before.0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{before:?} before, still {after:?}");
        after = latency(&cloud, ADMIN, 5).await;
    }
    let recovered = begun.elapsed();
    load.await.unwrap();
    let (done, refused) = *counts.lock().unwrap();
    let grown = resident().saturating_sub(memory);
    println!(
        "{done} done, {refused} refused in {} s; another account: {} requests, p99 {:?} ({before:?} before, {after:?} \
         after {recovered:?}); {grown} MiB more",
        seconds(),
        others.len(),
        others[others.len() * 99 / 100],
    );
    assert!(refused > 0, "not all of ten times the load is done");
    assert!(done >= 8, "what can be done is done: {done}");
    assert!(!others.is_empty());
    assert!(grown < 300, "{grown} MiB more");
}
