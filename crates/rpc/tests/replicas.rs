//! Channels to the living replicas of a service: real servers on loopback, membership in process.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that can't go on has failed

use axum::Router;
use axum::routing::any;
use coord::{Coord, Member, Membership};
use futures::StreamExt as _;
use futures::future::join_all;
use rpc::{LEAVING, PeerChannel, Repeatable, Streamed};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::{Endpoint, Server};
use tower::{Service as _, ServiceExt as _};

/// A replica in a runtime of its own, so that it can end as a process does.
struct Replica {
    calls: Arc<AtomicUsize>,
    hangs: Arc<AtomicBool>,
    stop: CancellationToken,
    ended: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
    membership: Option<Membership>,
    id: String,
}

impl Replica {
    async fn start(coord: &Coord, id: &str) -> Replica {
        let (calls, hangs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, hang) = (calls.clone(), hangs.clone());
        let handler = move || {
            let (seen, hang) = (seen.clone(), hang.clone());
            async move {
                seen.fetch_add(1, Ordering::SeqCst);
                if hang.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                "answer"
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (stopping, over) = (stop.clone(), ended.clone());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            let routes = tonic::service::Routes::from(Router::new().fallback(any(handler)));
            let served = Server::builder().add_routes(routes);
            served.serve_with_incoming_shutdown(incoming, stopping.cancelled_owned()).await.unwrap();
            over.cancel();
        });
        let member = Member { id: id.into(), service: "network".into(), address: Some(address), ..Member::default() };
        let membership = Some(coord.join(member).await.unwrap());
        Replica { calls, hangs, stop, ended, runtime: Some(runtime), membership, id: id.into() }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// As a replica ends in order.
    async fn end(mut self, coord: &Coord) {
        coord.publish(LEAVING, &self.id);
        // The drain time: calls that were on their way arrive. Closing under one of them may reset the connection.
        let (mut seen, mut same) = (self.calls(), 0);
        let quiet = || {
            let calls = self.calls();
            same = if calls == seen { same + 1 } else { 0 };
            seen = calls;
            std::future::ready(same > 6)
        };
        testkit::wait_until(quiet, Duration::from_secs(10)).await;
        self.stop.cancel();
        self.ended.cancelled().await;
        self.membership = None;
        self.kill();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn channel(coord: &Coord) -> PeerChannel {
    let dial = Arc::new(|address: &str| {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Ok(endpoint.connect_lazy())
    });
    let (channel, follow) = PeerChannel::to_replicas("network", coord, dial);
    tokio::spawn(follow);
    channel
}

fn request() -> http::Request<Body> {
    http::Request::post("http://network/call").body(Body::new("question".to_owned())).unwrap()
}

fn repeatable() -> http::Request<Body> {
    let mut request = request();
    request.extensions_mut().insert(Repeatable);
    request
}

async fn call(channel: &PeerChannel) -> Result<(), String> {
    send(channel, request()).await
}

async fn send(channel: &PeerChannel, request: http::Request<Body>) -> Result<(), String> {
    let mut channel = channel.clone();
    match channel.ready().await.unwrap().call(request).await {
        Ok(answer) if answer.status() == 200 => Ok(()),
        Ok(answer) => Err(answer.status().to_string()),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn calls_go_to_all_and_not_to_the_dead() {
    let coord = Coord::local();
    let channel = channel(&coord);
    let mut one = Replica::start(&coord, "one").await;
    let two = Replica::start(&coord, "two").await;
    let both = || async {
        assert_eq!(call(&channel).await, Ok(()));
        one.calls() > 0 && two.calls() > 0
    };
    testkit::wait_until(both, Duration::from_secs(10)).await;
    // Killed, and still a member: calls that find nobody there, or are cut off and may be repeated, go to the other.
    one.kill();
    let answers = join_all((0..40).map(|_| send(&channel, repeatable()))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn only_what_may_be_repeated_is() {
    let coord = Coord::local();
    let channel = channel(&coord);
    let mut one = Replica::start(&coord, "one").await;
    one.hangs.store(true, Ordering::SeqCst);
    let reads = send(&channel, repeatable());
    let keyed = async {
        let mut keyed = request();
        keyed.headers_mut().insert(telemetry::JOB, "7.1.0".parse().unwrap());
        send(&channel, keyed).await
    };
    let mut two = None;
    let change = async {
        testkit::wait_until(|| async { one.calls() == 3 }, Duration::from_secs(10)).await;
        two = Some(Replica::start(&coord, "two").await);
        one.kill();
    };
    let (reads, keyed, writes, ()) = tokio::join!(reads, keyed, call(&channel), change);
    assert_eq!((reads, keyed), (Ok(()), Ok(())));
    assert!(writes.unwrap_err().contains("may have been done"));
    assert_eq!(two.unwrap().calls(), 2);
}

#[tokio::test]
async fn who_is_no_member_any_more_is_not_waited_for() {
    let coord = Coord::local();
    let channel = channel(&coord);
    let mut one = Replica::start(&coord, "one").await;
    one.hangs.store(true, Ordering::SeqCst);
    let lost = async {
        testkit::wait_until(|| async { one.calls() == 1 }, Duration::from_secs(10)).await;
        one.membership = None;
    };
    let (writes, ()) = tokio::join!(call(&channel), lost);
    assert!(writes.unwrap_err().contains("the replica is gone"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_replicas_loses_no_call() {
    let coord = Coord::local();
    let channel = channel(&coord);
    let mut running = vec![Replica::start(&coord, "r-0").await, Replica::start(&coord, "r-1").await];
    let stop = CancellationToken::new();
    let callers = (0..16).map(|_| {
        let (channel, stop) = (channel.clone(), stop.clone());
        tokio::spawn(async move {
            let mut failed = Vec::new();
            let mut made = 0;
            while !stop.is_cancelled() {
                made += 1;
                failed.extend(call(&channel).await.err());
            }
            (made, failed)
        })
    });
    let callers: Vec<_> = callers.collect();
    for turn in 2..12 {
        let next = Replica::start(&coord, &format!("r-{turn}")).await;
        testkit::wait_until(|| async { next.calls() > 0 }, Duration::from_secs(10)).await;
        running.push(next);
        running.remove(0).end(&coord).await;
    }
    stop.cancel();
    let mut made = 0;
    for caller in callers {
        let (calls, failed) = caller.await.unwrap();
        made += calls;
        assert_eq!(failed, Vec::<String>::new());
    }
    println!("{made} calls over 10 replacements");
}

#[tokio::test]
async fn without_a_replica_the_wait_is_bounded() {
    let coord = Coord::local();
    let channel = channel(&coord);
    let error = call(&channel).await.unwrap_err();
    assert!(error.contains("network can't be reached") && error.contains("no replica is known"), "{error}");
}

#[tokio::test]
async fn a_stream_is_answered_while_it_goes_on() {
    let coord = Coord::local();
    let channel = channel(&coord);
    let one = Replica::start(&coord, "one").await;
    // It never ends: whoever waited for all of it would never send it.
    let piece = Ok::<_, std::io::Error>(hyper::body::Frame::data("piece".into()));
    let pieces = futures::stream::iter([piece]).chain(futures::stream::pending());
    let body = Body::new(http_body_util::StreamBody::new(pieces));
    let mut request: http::Request<Body> = http::Request::post("http://network/call").body(body).unwrap();
    request.extensions_mut().insert(Streamed);
    let answered = tokio::time::timeout(Duration::from_secs(10), send(&channel, request)).await;
    assert_eq!(answered, Ok(Ok(())));
    assert_eq!(one.calls(), 1);
}
