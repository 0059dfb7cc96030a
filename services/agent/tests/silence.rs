//! Hosts, agents and replicas that fall silent.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use contract_agent::hub_client::HubClient;
use contract_agent::protocol::PROTOCOL;
use contract_agent::{
    AgentKind, AgentMessage, Answer, Beat, Execute, Hello, HostUp, HubMessage, Mock, Nothing, Outcome, agent_message,
    hub_message, outcome,
};
use hub::{HostEvent, HubOptions, Timing};
use model::HostId;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Half a second without a beat is too long.
fn hasty() -> HubOptions {
    let timing = Timing { beat: Duration::from_millis(50), silence: Duration::from_millis(500) };
    HubOptions { timing: Some(timing), ..HubOptions::default() }
}

/// An agent by hand.
struct Raw {
    say: mpsc::UnboundedSender<AgentMessage>,
    hear: tonic::Streaming<HubMessage>,
}

impl Raw {
    async fn connect(replica: &Replica, kind: AgentKind, agent: &str, hosts: &[&str]) -> Raw {
        let (say, messages) = mpsc::unbounded_channel();
        let up = |uuid: &&str| HostUp { host_uuid: (*uuid).to_owned(), ..HostUp::default() };
        let hello = Hello {
            agent_uuid: agent.into(),
            kind: kind.into(),
            hosts: hosts.iter().map(up).collect(),
            protocol: PROTOCOL,
            ..Hello::default()
        };
        say.send(AgentMessage { body: Some(agent_message::Body::Hello(hello)) }).unwrap();
        let mut client = HubClient::new(replica.net.channel("orchestrator"));
        let hear = client.attach(UnboundedReceiverStream::new(messages)).await.unwrap().into_inner();
        Raw { say, hear }
    }

    async fn next(&mut self) -> hub_message::Body {
        self.hear.message().await.unwrap().unwrap().body.unwrap()
    }

    fn say(&self, body: agent_message::Body) {
        self.say.send(AgentMessage { body: Some(body) }).unwrap();
    }
}

testkit::databases! {
    async fn a_dead_host_is_down_and_comes_back(db: testkit::TestDb) {
        let replica = Replica::start(&db, hasty()).await;
        let dir = testkit::temp_dir();
        let agent = Running::start(dir.path(), &replica.net);
        testkit::wait_until(|| async { replica.hub.factories() == 1 }, 30 * SECOND).await;
        let one = replica.add_host(1).await;
        replica.add_host(2).await;
        replica.execute(1, None, start("a", 1)).await.unwrap();
        let mut events = replica.hub.subscribe();
        agent.simulator.kill_host(&one.host_uuid);
        replica.await_status(1, "Down").await;
        let down = hear(&mut events, |event| match event {
                HostEvent::Down { host, .. } => Some(host),
                _ => None,
            });
        assert_eq!(down.await, HostId(1));
        assert_eq!(replica.status(2).await.0, "Up");
        assert_eq!(replica.execute(1, None, start("b", 1)).await.unwrap_err().code, 534);
        assert!(agent.simulator.boot_host(&one.host_uuid));
        replica.await_status(1, "Up").await;
        assert_eq!(replica.status(1).await.1, 2);
        assert!(agent.simulator.vms().is_empty(), "what ran is lost");
        // A fault of configureSimulator does the same, and its end switches the host on.
        let mock = Mock { id: 3, command: "StartCommand".into(), host_dies: true, remaining: Some(1), ..Mock::default() };
        replica.set_mocks(vec![mock]).await;
        let hub = &replica.hub;
        let died = hub.execute(HostId(2), None, false, start("c", 1), Duration::from_millis(300)).await;
        assert_eq!(died.unwrap_err().code, 534);
        replica.await_status(2, "Down").await;
        replica.set_mocks(Vec::new()).await;
        replica.await_status(2, "Up").await;
        agent.end().await.unwrap();
        replica.end().await;
    }

    async fn a_silent_agent_raises_an_alert(db: testkit::TestDb) {
        let replica = Replica::start(&db, hasty()).await;
        let host = replica.add_row(1, "KVM").await.host_uuid;
        let mut raw = Raw::connect(&replica, AgentKind::Host, &host, &[&host]).await;
        let hub_message::Body::Welcome(welcome) = raw.next().await else { panic!("no welcome") };
        assert_eq!(welcome.hosts.len(), 1);
        assert_eq!(replica.status(1).await.0, "Up");
        raw.say(agent_message::Body::Beat(Beat::default()));
        // No more beats, though the line is open.
        replica.await_status(1, "Alert").await;
        assert!(matches!(raw.next().await, hub_message::Body::Pulse(_)), "the one beat was answered");
        assert!(raw.hear.message().await.is_err(), "the hub gives the line up");
        replica.end().await;
    }

    async fn a_row_whose_end_was_never_written_is_put_right(db: testkit::TestDb) {
        let replica = Replica::start(&db, hasty()).await;
        replica.add_row(1, "KVM").await;
        let hub = replica.node.replica.clone();
        store::tx!(replica.node.db, "stray", |tx| {
            let sql = store::Sql::new("UPDATE hosts SET status = 'Up', hub = ?, conn_epoch = 4").bind(&hub);
            tx.exec(sql).await?;
            Ok::<_, store::Error>(())
        })
        .await
        .unwrap();
        replica.await_status(1, "Disconnected").await;
        replica.end().await;
    }

    async fn a_replica_that_vanished_loses_its_hosts(db: testkit::TestDb) {
        let replica = Replica::start(&db, hasty()).await;
        replica.add_row(1, "KVM").await;
        store::tx!(replica.node.db, "orphan", |tx| {
            tx.exec("UPDATE hosts SET status = 'Up', hub = 'vanished', conn_epoch = 4").await?;
            Ok::<_, store::Error>(())
        })
        .await
        .unwrap();
        replica.await_status(1, "Disconnected").await;
        assert_eq!(replica.status(1).await.1, 4);
        replica.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_routes_are_refused() {
    let db = testkit::TestDb::sqlite();
    let replica = Replica::start(&db, patient()).await;
    let dir = testkit::temp_dir();
    let agent = Running::start(dir.path(), &replica.net);
    testkit::wait_until(|| async { replica.hub.factories() == 1 }, 30 * SECOND).await;
    let host = replica.add_host(1).await.host_uuid;
    // Another agent claims the host: the hub tells the first, and its route is dead.
    let mut raw = Raw::connect(&replica, AgentKind::Factory, "twin", &[&host]).await;
    let hub_message::Body::Welcome(welcome) = raw.next().await else { panic!("no welcome") };
    assert_eq!(welcome.hosts[0].conn_epoch, 2);
    let hub = replica.hub.clone();
    let order = tokio::spawn(async move { hub.execute(HostId(1), None, false, start("a", 1), 20 * SECOND).await });
    let hub_message::Body::Execute(Execute { request_id, conn_epoch, .. }) = raw.next().await else {
        panic!("no order")
    };
    assert_eq!(conn_epoch, 2);
    let outcome = Some(Outcome { body: Some(outcome::Body::Nothing(Nothing {})) });
    raw.say(agent_message::Body::Answer(Answer { request_id, outcome, error: None }));
    order.await.unwrap().unwrap();
    assert!(agent.simulator.vms().is_empty());
    // An agent that stands for one host can't claim another.
    let mut thief = Raw::connect(&replica, AgentKind::Host, "thief", &[&host]).await;
    let hub_message::Body::Welcome(welcome) = thief.next().await else { panic!("no welcome") };
    assert!(welcome.hosts.is_empty());
    agent.end().await.unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_with_another_epoch_is_refused() {
    use arcus_agent::{Agent, Dial};
    use contract_agent::hub_server::{Hub, HubServer};
    use contract_agent::{EnrolRequest, EnrolResponse, HostAccepted, RenewRequest, Welcome};
    use std::sync::Mutex;
    use tonic::{Request, Response, Status, Streaming};

    /// A hub by hand: accepts hosts with epoch 5, orders with epoch 4.
    struct Stale(mpsc::UnboundedSender<Answer>, Mutex<Option<SpawnHost>>);
    use contract_agent::{Command, SpawnHost, command};

    #[tonic::async_trait]
    impl Hub for Stale {
        type AttachStream = UnboundedReceiverStream<Result<HubMessage, Status>>;
        type TunnelStream = UnboundedReceiverStream<Result<contract_agent::TunnelData, Status>>;
        async fn tunnel(
            &self,
            _: Request<Streaming<contract_agent::TunnelData>>,
        ) -> Result<Response<Self::TunnelStream>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn enrol(&self, _: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<EnrolResponse>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn attach(&self, r: Request<Streaming<AgentMessage>>) -> Result<Response<Self::AttachStream>, Status> {
            let (out, messages) = mpsc::unbounded_channel();
            let (answers, spec) = (self.0.clone(), self.1.lock().unwrap().clone());
            let mut inbound = r.into_inner();
            let say = move |body| drop(out.send(Ok(HubMessage { body: Some(body) })));
            tokio::spawn(async move {
                while let Ok(Some(message)) = inbound.message().await {
                    match message.body {
                        Some(agent_message::Body::Hello(_)) => {
                            let welcome = Welcome { beat_millis: 50, protocol: PROTOCOL, ..Welcome::default() };
                            say(hub_message::Body::Welcome(welcome));
                            let command = Command { body: spec.clone().map(command::Body::SpawnHost) };
                            say(hub_message::Body::Execute(Execute {
                                request_id: 1,
                                command: Some(command),
                                ..Execute::default()
                            }));
                        }
                        Some(agent_message::Body::HostUp(up)) => say(hub_message::Body::HostAccepted(HostAccepted {
                            host_uuid: up.host_uuid,
                            conn_epoch: 5,
                            want_report: false,
                        })),
                        Some(agent_message::Body::Answer(answer)) => {
                            if answer.request_id == 1 {
                                for conn_epoch in [4, 6, 5] {
                                    say(hub_message::Body::Execute(Execute {
                                        request_id: 10 + conn_epoch as u64,
                                        host_uuid: "h".into(),
                                        conn_epoch,
                                        command: Some(start("a", 1)),
                                        ..Execute::default()
                                    }));
                                }
                            }
                            answers.send(answer).unwrap();
                        }
                        _ => {}
                    }
                }
            });
            Ok(Response::new(UnboundedReceiverStream::new(messages)))
        }
    }

    let net = rpc::LocalNet::new();
    let (send, mut answers) = mpsc::unbounded_channel();
    let host = spec(1, "h".into(), "g".into());
    let server = HubServer::new(Stale(send, Mutex::new(Some(host))));
    let incoming = net.listen("orchestrator");
    tokio::spawn(tonic::transport::Server::builder().add_service(server).serve_with_incoming(incoming));
    let dir = testkit::temp_dir();
    let agent = Agent::open(options(dir.path(), Dial::Channel(net.channel("orchestrator")))).unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(agent.run(stop.clone()));
    let mut refused = std::collections::HashMap::new();
    while refused.len() < 4 {
        let answer = answers.recv().await.unwrap();
        refused.insert(answer.request_id, answer.error.is_some());
    }
    assert_eq!((refused[&1], refused[&14], refused[&15], refused[&16]), (false, true, false, true));
    stop.cancel();
    running.await.unwrap().unwrap();
}
