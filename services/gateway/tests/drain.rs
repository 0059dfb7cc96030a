//! A replica that ends behind a balancer: no request is lost.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Cloud, USER, signed};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const LIST: &[(&str, &str)] = &[("command", "listZones")];

fn list() -> String {
    format!("GET /client/api?{} HTTP/1.1\r\nhost: x\r\n\r\n", signed(USER, LIST))
}

/// Reads one answer; gives its head.
async fn answer(tcp: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = tcp.read(&mut buffer).await.unwrap();
        assert!(n > 0, "closed without an answer: {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length: usize =
            head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
        if body.len() >= length {
            return head.to_owned();
        }
    }
}

async fn ended(tcp: &mut TcpStream) -> bool {
    let mut rest = [0; 16];
    tokio::time::timeout(Duration::from_secs(30), tcp.read(&mut rest)).await.unwrap().is_ok_and(|n| n == 0)
}

#[tokio::test]
async fn while_draining_each_answer_is_a_connections_last() {
    let cloud = Cloud::start().await;
    let mut kept = TcpStream::connect(cloud.serving.http[0]).await.unwrap();
    kept.write_all(list().as_bytes()).await.unwrap();
    assert!(!answer(&mut kept).await.contains("connection: close"));
    assert!(!cloud.serving.is_draining());
    cloud.serving.drain();
    assert!(cloud.serving.is_draining());
    // The old connection has one more answer, new ones are let in.
    let mut new = TcpStream::connect(cloud.serving.http[0]).await.unwrap();
    for tcp in [&mut kept, &mut new] {
        tcp.write_all(list().as_bytes()).await.unwrap();
        let head = answer(tcp).await;
        assert!(head.starts_with("http/1.1 200 ok") && head.contains("connection: close"), "{head}");
        assert!(ended(tcp).await);
    }
}

#[tokio::test]
async fn who_has_just_come_is_served_after_the_stop() {
    let cloud = Cloud::start().await;
    let mut used = TcpStream::connect(cloud.serving.http[0]).await.unwrap();
    used.write_all(list().as_bytes()).await.unwrap();
    answer(&mut used).await;
    let mut new = TcpStream::connect(cloud.serving.http[0]).await.unwrap();
    // The one before it has an answer: this one has been let in, or waits at the port.
    cloud.node.stop.cancel();
    for tcp in [&mut used, &mut new] {
        tcp.write_all(list().as_bytes()).await.unwrap();
    }
    for tcp in [&mut used, &mut new] {
        // The doubles behind end at the same time: what counts is that there is an answer.
        assert!(answer(tcp).await.contains("connection: close"));
        assert!(ended(tcp).await);
    }
    cloud.node.tasks.close();
    tokio::time::timeout(Duration::from_secs(30), cloud.node.tasks.wait()).await.unwrap();
}

/// Addresses that a balancer gives requests to.
#[derive(Clone)]
struct Balancer(Arc<Mutex<Vec<SocketAddr>>>, Arc<AtomicUsize>);

impl Balancer {
    fn next(&self) -> SocketAddr {
        let turn = self.1.fetch_add(1, Ordering::SeqCst);
        let ready = self.0.lock().unwrap();
        ready[turn % ready.len()]
    }

    async fn requests(&self, more: usize) {
        let until = self.1.load(Ordering::SeqCst) + more;
        let reached = || async { self.1.load(Ordering::SeqCst) >= until };
        testkit::wait_until(reached, Duration::from_secs(60)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_lose_no_request() {
    let mut serving = vec![Cloud::start().await, Cloud::start().await];
    let balancer = Balancer(Arc::new(Mutex::new(serving.iter().map(|c| c.serving.http[0]).collect())), Arc::default());
    let end = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for n in 0..8 {
        let (balancer, end) = (balancer.clone(), end.clone());
        // Half of them keep their connections, half make one for each request.
        let idle = if n % 2 == 0 { usize::MAX } else { 0 };
        let http = reqwest::Client::builder().pool_max_idle_per_host(idle).build().unwrap();
        clients.push(tokio::spawn(async move {
            let mut done = 0;
            while !end.load(Ordering::SeqCst) {
                let url = format!("http://{}/client/api?{}", balancer.next(), signed(USER, LIST));
                let answer = http.get(url).send().await.unwrap_or_else(|e| panic!("request {done}: {e:?}"));
                assert_eq!(answer.status().as_u16(), 200, "request {done}");
                done += 1;
            }
            done
        }));
    }
    for _ in 0..3 {
        balancer.requests(100).await;
        let leaves = serving.remove(0);
        leaves.serving.drain();
        // The balancer notices a little later.
        balancer.requests(50).await;
        let address = leaves.serving.http[0];
        balancer.0.lock().unwrap().retain(|a| *a != address);
        balancer.requests(50).await;
        leaves.node.stop.cancel();
        leaves.node.tasks.close();
        tokio::time::timeout(Duration::from_secs(30), leaves.node.tasks.wait()).await.unwrap();
        let comes = Cloud::start().await;
        balancer.0.lock().unwrap().push(comes.serving.http[0]);
        serving.push(comes);
    }
    balancer.requests(100).await;
    end.store(true, Ordering::SeqCst);
    let mut done = 0;
    for client in clients {
        done += client.await.unwrap();
    }
    println!("{done} requests, none failed");
}
