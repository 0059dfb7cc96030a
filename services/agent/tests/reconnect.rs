//! A hub that dies, or stands still: its hosts are with another one soon, and nothing that was ordered is lost or doubled.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use arcus_agent::Dial;
use common::*;
use contract::secret::Secret;
use contract_agent::Mock;
use futures::StreamExt as _;
use hub::{HubOptions, Timing};
use model::HostId;
use pki::token::NewToken;
use pki::{ClientAuth, Credentials, San, ServerTls, TlsIncoming};
use rpc::LocalNet;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::transport::Server;

const HOSTS: i64 = 1000;
const ORDERS: usize = 300;
/// As the settings give it, with a silence that is never reached.
const USUAL: Timing = Timing { beat: SECOND, silence: Duration::from_secs(600) };
const PROMISED: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wire {
    Whole,
    /// Nothing comes through: the peer is stopped, or the network is parted.
    Held,
    /// The peer is dead.
    Cut,
}

/// A wire to a hub that can be cut.
struct Proxy {
    address: String,
    wire: watch::Sender<Wire>,
}

impl Proxy {
    async fn to(target: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (wire, state) = watch::channel(Wire::Whole);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *state.borrow() == Wire::Cut {
                    continue;
                }
                let (target, state) = (target.clone(), state.clone());
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    tokio::select! {
                        () = pump(near_in, far_out, state.clone()) => {}
                        () = pump(far_in, near_out, state) => {}
                    }
                });
            }
        });
        Proxy { address, wire }
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<Wire>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut full = 0;
    loop {
        if state.wait_for(|wire| *wire != Wire::Held).await.is_err() || *state.borrow() == Wire::Cut {
            return;
        }
        if full > 0 && to.write_all(&buffer[..full]).await.is_err() {
            return;
        }
        full = 0;
        tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(n) if n > 0 => full = n,
                _ => return,
            },
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}

async fn listen(replica: &Replica) -> Proxy {
    let identity = replica.pki.service_identity("orchestrator", &[San::parse("127.0.0.1")]).await.unwrap();
    let tls = ServerTls::new(replica.pki.clone(), Credentials::new(identity), ClientAuth::Optional);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (routes, stop) = (replica.hub.routes(), replica.node.stop.clone());
    let incoming = TlsIncoming::new(listener, tls);
    replica.node.tasks.spawn(async move {
        Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, stop.cancelled()).await.unwrap();
    });
    Proxy::to(address).await
}

/// Two hubs behind wires, and agents that know both.
struct World {
    hubs: Vec<Replica>,
    wires: Vec<Proxy>,
    agents: Vec<Running>,
    dirs: Vec<tempfile::TempDir>,
    _db: testkit::TestDb,
}

impl World {
    async fn start(agents: usize) -> World {
        let usual = || HubOptions { timing: Some(USUAL), ..HubOptions::default() };
        let db = testkit::TestDb::sqlite();
        let a = Replica::start(&db, usual()).await;
        let b = a.another(LocalNet::new(), usual()).await;
        let wires = vec![listen(&a).await, listen(&b).await];
        let (_, token) = a.pki.new_token(&NewToken::for_factories("test")).await.unwrap();
        let rows: Vec<_> = (1..=HOSTS).map(|id| (id, model::new_uuid(), model::new_uuid())).collect();
        insert_hosts(&a.node.db, &rows, "Simulator").await;
        let mut world = World { hubs: vec![a, b], wires, agents: Vec::new(), dirs: Vec::new(), _db: db };
        for _ in 0..agents {
            let dir = testkit::temp_dir();
            let addresses = world.wires.iter().map(|wire| wire.address.clone()).collect();
            let dial = Dial::Tls { addresses, token: Some(Secret::new(token.expose().clone())) };
            world.agents.push(Running::with(options(dir.path(), dial)));
            world.dirs.push(dir);
        }
        let all = || async { world.hubs.iter().map(|r| r.hub.factories()).sum::<usize>() == agents };
        testkit::wait_until(all, 120 * SECOND).await;
        // Hosts go to both hubs' factories, or to the one that has any.
        let hubs: Vec<_> = world.hubs.iter().filter(|r| r.hub.factories() > 0).collect();
        futures::stream::iter(rows)
            .for_each_concurrent(200, |(id, uuid, guid)| {
                let hub = hubs[id as usize % hubs.len()].hub.clone();
                async move { drop(hub.spawn_on_factory(spec(id, uuid, guid), 60 * SECOND).await.unwrap()) }
            })
            .await;
        world
    }

    /// The hub with the most hosts, and the other one.
    fn busiest(&self) -> (usize, usize) {
        if self.hubs[0].hub.connected() >= self.hubs[1].hub.connected() { (0, 1) } else { (1, 0) }
    }

    /// Starts VMs as jobs do: with keys, and again until it is certain.
    fn order(&self) -> Vec<tokio::task::JoinHandle<()>> {
        let hubs: Vec<_> = self.hubs.iter().map(|r| r.hub.clone()).collect();
        (0..ORDERS)
            .map(|n| {
                let hubs = hubs.clone();
                tokio::spawn(async move {
                    let (host, key) = (HostId(n as i64 % HOSTS + 1), key(n as i64 + 1, "start"));
                    for attempt in 0.. {
                        let hub = &hubs[attempt % hubs.len()];
                        match hub.execute(host, Some(&key), false, start(&format!("{n}"), 1), 5 * SECOND).await {
                            Ok(_) => return,
                            Err(e) => assert!(e.code == 534 || e.is_transient(), "{e}"),
                        }
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                })
            })
            .collect()
    }

    async fn slow_starts(&self) {
        let slow = Mock { id: 1, command: "StartVm".into(), wait_millis: 300, ..Mock::default() };
        for replica in self.hubs.iter().filter(|replica| replica.hub.factories() > 0) {
            replica.set_mocks(vec![slow.clone()]).await;
        }
    }

    /// Breaks the busiest hub's wire in the middle of orders; how long its hosts took to be with the other one.
    async fn lose_a_hub(&self, how: Wire) -> Duration {
        self.slow_starts().await;
        let (lost, left) = self.busiest();
        let orders = self.order();
        let under_way = || async { self.hubs[lost].hub.connected() > 0 };
        testkit::wait_until(under_way, 10 * SECOND).await;
        let begun = Instant::now();
        self.wires[lost].wire.send(how).unwrap();
        self.hubs[left].await_connected(HOSTS as usize).await;
        let took = begun.elapsed();
        for order in orders {
            order.await.unwrap();
        }
        let vms: Vec<_> = self.agents.iter().flat_map(|agent| agent.simulator.vms()).collect();
        assert_eq!(vms.len(), ORDERS, "each order once");
        assert!(vms.iter().all(|vm| vm.boots == 1));
        took
    }

    async fn end(self) {
        for agent in self.agents {
            agent.end().await.unwrap();
        }
        for replica in self.hubs {
            replica.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hosts_leave_a_dead_hub() {
    let world = World::start(1).await;
    let took = world.lose_a_hub(Wire::Cut).await;
    eprintln!("1 agent with {HOSTS} hosts left a dead hub within {took:?}");
    assert!(took < PROMISED, "{took:?}");
    world.end().await;
}

// covers: HOST-152
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_agents_with_a_thousand_hosts_leave_a_dead_hub() {
    let world = World::start(50).await;
    let counts = world.hubs.iter().map(|r| r.hub.factories()).collect::<Vec<_>>();
    assert!(counts.iter().all(|n| *n >= 10), "balanced: {counts:?}");
    let took = world.lose_a_hub(Wire::Cut).await;
    eprintln!("50 agents, {counts:?} by hub, with {HOSTS} hosts left a dead hub within {took:?}");
    assert!(took < PROMISED, "{took:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hosts_leave_a_hub_that_stands_still() {
    let world = World::start(1).await;
    let (lost, left) = world.busiest();
    let took = world.lose_a_hub(Wire::Held).await;
    eprintln!("1 agent with {HOSTS} hosts left a hub that stands still within {took:?}");
    assert!(took < PROMISED, "{took:?}");
    // It still believes that it has them. What it orders comes by a dead route, even when the wire is whole again.
    assert!(world.hubs[lost].hub.is_connected(HostId(1)));
    let hub = world.hubs[lost].hub.clone();
    let stale = tokio::spawn(async move { hub.execute(HostId(1), None, false, start("stale", 1), 20 * SECOND).await });
    tokio::task::yield_now().await;
    world.wires[lost].wire.send(Wire::Whole).unwrap();
    assert_eq!(stale.await.unwrap().unwrap_err().code, 534);
    assert!(world.agents[0].simulator.vm("stale").is_none());
    // And it doesn't take them away from the one that has them.
    testkit::wait_until(|| async { world.hubs[lost].hub.connected() == 0 }, 30 * SECOND).await;
    let (status, _, hub) = world.hubs[left].status(1).await;
    assert_eq!((status.as_str(), hub), ("Up", Some(world.hubs[left].node.replica.clone())));
    world.hubs[left].execute(1, None, start("fresh", 1)).await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_waits_for_is_kept() {
    let db = testkit::TestDb::sqlite();
    let replica = Replica::start(&db, patient()).await;
    let dir = testkit::temp_dir();
    let agent = Running::start(dir.path(), &replica.net);
    testkit::wait_until(|| async { replica.hub.factories() == 1 }, 30 * SECOND).await;
    replica.add_host(1).await;
    let slow = Mock { id: 1, command: "StartVm".into(), wait_millis: 400, remaining: Some(1), ..Mock::default() };
    replica.set_mocks(vec![slow]).await;
    let key = key(3, "start");
    let short = Duration::from_millis(100);
    let late = replica.hub.execute(HostId(1), Some(&key), false, start("a", 1), short).await.unwrap_err();
    assert_eq!(late.code, 534);
    // It comes, and nobody waits. The line goes on, and whoever asks again gets it.
    testkit::wait_until(|| async { is_on(&agent.simulator, "a") }, 30 * SECOND).await;
    replica.execute(1, None, start("b", 1)).await.unwrap();
    replica.execute(1, Some(&key), start("a", 1)).await.unwrap();
    assert_eq!(agent.simulator.vm("a").unwrap().boots, 1);
    agent.end().await.unwrap();
    replica.end().await;
}
