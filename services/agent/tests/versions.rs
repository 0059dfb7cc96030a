//! Agents and hubs that aren't of one age: neighbours work together, strangers are told why not, and whatever one side
//! doesn't know is passed over or refused with its reason.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use arcus_agent::{Dial, Options, Says};
use common::*;
use contract::ApiError;
use contract_agent::hub_server::{Hub as HubCalls, HubServer};
use contract_agent::protocol::{PROTOCOL, Spoken};
use contract_agent::{
    AgentKind, AgentMessage, Answer, ChangeCd, EnrolRequest, EnrolResponse, Execute, Hello, HostUp, HubMessage,
    Inventory, RenewRequest, TunnelData, Welcome, agent_message, command, hub_message,
};
use hub::{HostEvent, HubOptions};
use model::HostId;
use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _, Bytes};
use rpc::LocalNet;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response, Status, Streaming};

fn aged(dir: &Path, net: &Arc<LocalNet>, version: &str, newest: u32, oldest: u32) -> Options {
    let says = Says { version: version.into(), spoken: Spoken { newest, oldest } };
    Options { says, ..options(dir, Dial::Channel(net.channel("orchestrator"))) }
}

/// An order of the newest protocol.
fn newest() -> contract_agent::Command {
    contract_agent::Command { body: Some(command::Body::ChangeCd(ChangeCd::default())) }
}

fn inventory() -> contract_agent::Command {
    contract_agent::Command { body: Some(command::Body::Inventory(Inventory {})) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_the_protocol_before_works_but_for_what_is_new() {
    let db = testkit::TestDb::sqlite();
    let replica = Replica::start(&db, patient()).await;
    let dir = testkit::temp_dir();
    let mut events = replica.hub.subscribe();
    let agent = Running::with(aged(dir.path(), &replica.net, "0.0.9", PROTOCOL - 1, PROTOCOL - 1));
    testkit::wait_until(|| async { replica.hub.factories() == 1 }, 30 * SECOND).await;
    let spec = replica.add_row(1, "Simulator").await;
    let facts = replica.hub.spawn_on_factory(spec, 20 * SECOND).await.unwrap();
    assert_eq!(facts.agent_version, "0.0.9", "what addHost keeps");
    let version = |event| match event {
        HostEvent::Up { facts, .. } => Some(facts.agent_version),
        _ => None,
    };
    assert_eq!(hear(&mut events, version).await, "0.0.9");
    replica.execute(1, Some(&key(1, "start")), start("a", 1)).await.unwrap();
    // What is new isn't even sent, and the reason is told.
    let refused = replica.execute(1, None, newest()).await.unwrap_err();
    assert_eq!((refused.code, refused.is_transient()), (431, false), "{refused}");
    for word in ["ChangeCd", &format!("needs protocol {PROTOCOL}"), "\"0.0.9\"", "Upgrade the agent"] {
        assert!(refused.full_text().contains(word), "{word}: {refused}");
    }
    // The upgraded one shows its version and does it; what ran goes on.
    agent.end().await.unwrap();
    let agent = Running::start(dir.path(), &replica.net);
    replica.await_connected(1).await;
    assert_eq!(hear(&mut events, version).await, env!("CARGO_PKG_VERSION"));
    let understood = replica.execute(1, None, newest()).await.unwrap_err();
    assert!(understood.full_text().contains("doesn't run on this host"), "{understood}");
    let vm = agent.simulator.vm("a").unwrap();
    assert_eq!((vm.boots, vm.spec.generation), (1, 1));
    agent.end().await.unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_the_next_protocol_speaks_the_present_one() {
    let db = testkit::TestDb::sqlite();
    let replica = Replica::start(&db, patient()).await;
    let dir = testkit::temp_dir();
    let agent = Running::with(aged(dir.path(), &replica.net, "9.0.0", PROTOCOL + 1, PROTOCOL));
    testkit::wait_until(|| async { replica.hub.factories() == 1 }, 30 * SECOND).await;
    replica.add_host(1).await;
    replica.execute(1, None, start("a", 1)).await.unwrap();
    replica.execute(1, None, inventory()).await.unwrap();
    agent.end().await.unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_with_the_reason_and_their_vms_go_on() {
    let db = testkit::TestDb::sqlite();
    let first = Replica::start(&db, patient()).await;
    let dir = testkit::temp_dir();
    let agent = Running::start(dir.path(), &first.net);
    testkit::wait_until(|| async { first.hub.factories() == 1 }, 30 * SECOND).await;
    let host = first.add_host(1).await.host_uuid;
    first.execute(1, None, start("a", 1)).await.unwrap();
    // The control plane is upgraded by two protocols.
    let net = LocalNet::new();
    let newer = HubOptions { speaks: Some(Spoken { newest: PROTOCOL + 2, oldest: PROTOCOL + 1 }), ..patient() };
    let upgraded = first.another(net.clone(), newer).await;
    agent.end().await.unwrap();
    let mut events = upgraded.hub.subscribe();
    let agent = Running::start(dir.path(), &net);
    let misfit = |event| match event {
        HostEvent::Misfit { hosts, simulated, version, reason } => Some((hosts, simulated, version, reason)),
        _ => None,
    };
    let (hosts, simulated, version, reason) = hear(&mut events, misfit).await;
    assert_eq!((hosts, simulated, version.as_str()), (vec![host], true, env!("CARGO_PKG_VERSION")));
    assert!(reason.contains("upgrade the agent") && reason.contains(env!("CARGO_PKG_VERSION")), "{reason}");
    // It tries again, and what runs is left alone.
    hear(&mut events, misfit).await;
    assert_eq!((upgraded.hub.connected(), upgraded.hub.factories()), (0, 0));
    assert_eq!(upgraded.execute(1, None, start("b", 1)).await.unwrap_err().code, 534);
    assert!(is_on(&agent.simulator, "a"));
    agent.end().await.unwrap();
    let agent = Running::with(aged(dir.path(), &net, "9.0.0", PROTOCOL + 2, PROTOCOL + 1));
    upgraded.await_connected(1).await;
    assert_eq!(agent.simulator.vm("a").unwrap().boots, 1);
    agent.end().await.unwrap();
    // An agent that is too new is told to wait for the control plane.
    let mut events = first.hub.subscribe();
    let agent = Running::with(aged(dir.path(), &first.net, "9.0.0", PROTOCOL + 2, PROTOCOL + 1));
    let (_, _, _, reason) = hear(&mut events, misfit).await;
    assert!(reason.contains("upgrade the control plane first"), "{reason}");
    agent.end().await.unwrap();
    upgraded.end().await;
    first.end().await;
}

/// Messages as bytes.
#[derive(Clone, Default)]
struct AsBytes;

impl Codec for AsBytes {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = AsBytes;
    type Decoder = AsBytes;
    fn encoder(&mut self) -> AsBytes {
        AsBytes
    }
    fn decoder(&mut self) -> AsBytes {
        AsBytes
    }
}

impl Encoder for AsBytes {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for AsBytes {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let all = from.remaining();
        Ok(Some(from.copy_to_bytes(all)))
    }
}

/// A field that nobody knows yet: number 1000, with some bytes.
const UNKNOWN: &[u8] = &[0xc2, 0x3e, 3, 1, 2, 3];

fn with_unknown(mut bytes: Vec<u8>) -> Bytes {
    bytes.extend_from_slice(UNKNOWN);
    bytes.into()
}

/// An agent by hand that speaks bytes.
struct Raw {
    say: mpsc::UnboundedSender<Bytes>,
    hear: Streaming<Bytes>,
}

impl Raw {
    async fn connect(replica: &Replica) -> Raw {
        let (say, messages) = mpsc::unbounded_channel();
        let mut client = tonic::client::Grpc::new(replica.net.channel("orchestrator"));
        client.ready().await.unwrap();
        let path = "/arcus.agent.v1.Hub/Attach".parse().unwrap();
        let request = Request::new(UnboundedReceiverStream::new(messages));
        let hear = client.streaming(request, path, AsBytes).await.unwrap().into_inner();
        Raw { say, hear }
    }

    fn say(&self, body: agent_message::Body) {
        self.say.send(with_unknown(AgentMessage { body: Some(body) }.encode_to_vec())).unwrap();
    }

    async fn next(&mut self) -> hub_message::Body {
        let bytes = self.hear.message().await.unwrap().unwrap();
        HubMessage::decode(bytes).unwrap().body.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_passes_over_what_a_newer_agent_says() {
    let db = testkit::TestDb::sqlite();
    let replica = Replica::start(&db, patient()).await;
    let host = replica.add_row(1, "KVM").await.host_uuid;
    // Nobody says hello in words that nobody knows.
    let mut mute = Raw::connect(&replica).await;
    mute.say.send(Bytes::from_static(UNKNOWN)).unwrap();
    assert_eq!(mute.hear.message().await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let mut raw = Raw::connect(&replica).await;
    raw.say(agent_message::Body::Hello(Hello {
        agent_uuid: host.clone(),
        kind: AgentKind::Host.into(),
        version: "9.0.0".into(),
        hosts: vec![HostUp { host_uuid: host, ..HostUp::default() }],
        protocol: PROTOCOL + 1,
        oldest_protocol: PROTOCOL,
    }));
    let hub_message::Body::Welcome(welcome) = raw.next().await else { panic!("no welcome") };
    assert_eq!((welcome.hosts.len(), welcome.protocol), (1, PROTOCOL));
    // Unknown messages, then a known one with an unknown field in it.
    raw.say.send(Bytes::from_static(UNKNOWN)).unwrap();
    raw.say.send(Bytes::new()).unwrap();
    raw.say(agent_message::Body::Beat(contract_agent::Beat::default()));
    assert!(matches!(raw.next().await, hub_message::Body::Pulse(_)), "the line goes on");
    // An outcome that the hub doesn't know.
    let hub = replica.hub.clone();
    let order = tokio::spawn(async move { hub.execute(HostId(1), None, false, start("a", 1), 20 * SECOND).await });
    let hub_message::Body::Execute(Execute { request_id, needs, .. }) = raw.next().await else { panic!("no order") };
    assert_eq!(needs, 1);
    let mut answer = Answer { request_id, ..Answer::default() }.encode_to_vec();
    answer.extend_from_slice(&[0x12, u8::try_from(UNKNOWN.len()).unwrap()]); // field 2: an Outcome
    answer.extend_from_slice(UNKNOWN);
    let mut message = vec![0x22, u8::try_from(answer.len()).unwrap()]; // field 4: an Answer
    message.extend_from_slice(&answer);
    raw.say.send(message.into()).unwrap();
    let refused = order.await.unwrap().unwrap_err();
    assert!(refused.code == 431 && refused.full_text().contains("is newer"), "{refused}");
    replica.end().await;
}

/// A hub by hand: says what it is told to, and hands on what agents say.
struct Newer {
    orders: Vec<HubMessage>,
    protocol: u32,
    heard: mpsc::UnboundedSender<agent_message::Body>,
}

#[tonic::async_trait]
impl HubCalls for Newer {
    type AttachStream = UnboundedReceiverStream<Result<HubMessage, Status>>;
    type TunnelStream = UnboundedReceiverStream<Result<TunnelData, Status>>;
    async fn tunnel(&self, _: Request<Streaming<TunnelData>>) -> Result<Response<Self::TunnelStream>, Status> {
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
        let (orders, heard, mut inbound) = (self.orders.clone(), self.heard.clone(), r.into_inner());
        let welcome = Welcome { beat_millis: 50, protocol: self.protocol, ..Welcome::default() };
        let welcome = HubMessage { body: Some(hub_message::Body::Welcome(welcome)) };
        for message in std::iter::once(welcome).chain(orders) {
            out.send(Ok(message)).unwrap();
        }
        tokio::spawn(async move {
            let _open = out;
            while let Ok(Some(message)) = inbound.message().await {
                if let Some(body) = message.body {
                    let _ = heard.send(body); // the test may have ended
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(messages)))
    }
}

fn order(request_id: u64, needs: u32, command: contract_agent::Command) -> HubMessage {
    let execute = Execute { request_id, needs, command: Some(command), ..Execute::default() };
    HubMessage { body: Some(hub_message::Body::Execute(execute)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_refuses_what_a_newer_hub_orders_and_it_does_not_know() {
    let (say, mut heard) = mpsc::unbounded_channel();
    let spawn = command::Body::SpawnHost(spec(1, "h".into(), "g".into()));
    // As they come from the wire.
    let unknown_command = contract_agent::Command::decode(UNKNOWN).unwrap();
    let unknown_message = HubMessage::decode(UNKNOWN).unwrap();
    let query = contract_agent::Command { body: Some(command::Body::QueryMocks(contract_agent::QueryMocks {})) };
    let orders = vec![
        unknown_message,
        order(1, 0, unknown_command),
        order(2, PROTOCOL + 1, query.clone()), // a field of it would be passed over
        order(3, PROTOCOL, query),
        order(4, 1, contract_agent::Command { body: Some(spawn) }),
    ];
    let net = LocalNet::new();
    let hub = HubServer::new(Newer { orders, protocol: PROTOCOL, heard: say });
    tokio::spawn(tonic::transport::Server::builder().add_service(hub).serve_with_incoming(net.listen("orchestrator")));
    let dir = testkit::temp_dir();
    let agent = Running::start(dir.path(), &net);
    let mut said = std::collections::BTreeMap::new();
    while said.len() < 3 {
        if let agent_message::Body::Answer(answer) = heard.recv().await.unwrap() {
            said.insert(answer.request_id, answer.error.map(ApiError::from));
        }
    }
    let refused = |n: u64, word: &str| {
        let error = said[&n].clone().unwrap();
        assert!(error.code == 431 && !error.is_transient() && error.full_text().contains(word), "{n}: {error}");
    };
    refused(1, "doesn't know the command: upgrade the agent");
    refused(2, &format!("QueryMocks needs protocol {}", PROTOCOL + 1));
    assert!(said[&3].is_none(), "{said:?}");
    // The same line goes on: the host was made, and waits for its acceptance.
    testkit::wait_until(|| async { agent.simulator.hosts() == ["h"] }, 30 * SECOND).await;
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_leaves_a_hub_that_speaks_what_it_cannot() {
    let (say, mut heard) = mpsc::unbounded_channel();
    let query = contract_agent::Command { body: Some(command::Body::QueryMocks(contract_agent::QueryMocks {})) };
    let net = LocalNet::new();
    let hub = Newer { orders: vec![order(1, 0, query)], protocol: PROTOCOL + 5, heard: say };
    let server = tonic::transport::Server::builder().add_service(HubServer::new(hub));
    tokio::spawn(server.serve_with_incoming(net.listen("orchestrator")));
    let dir = testkit::temp_dir();
    let agent = Running::start(dir.path(), &net);
    // It comes, goes, and comes again, and obeys nothing.
    for _ in 0..3 {
        let said = heard.recv().await.unwrap();
        assert!(matches!(said, agent_message::Body::Hello(_)), "{said:?}");
    }
    agent.end().await.unwrap();
}
