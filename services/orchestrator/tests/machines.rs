//! Real machines: their agents wait until they are added, whoever is killed in between. The agent is a line and what it was told.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use contract_agent::hub_client::HubClient;
use contract_agent::{
    AgentKind, AgentMessage, Answer, Beat, Hello, HostFacts, HostUp, HubMessage, Nothing, Outcome, agent_message,
    command, hub_message, outcome,
};
use contract_infra::{
    AddHostRequest, DeleteHostRequest, Host, ListHostsRequest, UpdateClusterRequest, UpdateHostRequest,
};
use hub::{Hub, HubOptions};
use node::Node;
use pki::Pki;
use rpc::LocalNet;
use rpc::cx::request;
use std::sync::Arc;
use std::time::Duration;
use store::{Sql, Value};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Server};

/// What an agent was told, one word each.
type Told = watch::Receiver<Vec<&'static str>>;

/// The agent of a machine, on a line that is open.
struct FakeAgent {
    told: Told,
    task: tokio::task::JoinHandle<()>,
}

fn facts(n: u8) -> HostFacts {
    HostFacts {
        name: format!("kvm{n}.example.org"),
        hypervisor: "KVM".into(),
        hypervisor_version: "9.2.0".into(),
        agent_version: "1.2.3".into(),
        sockets: 2,
        cpus: 16,
        cpu_mhz: 2400,
        memory_bytes: 64 << 30,
        dom0_memory_bytes: 1 << 30,
        private_ip: format!("10.9.8.{n}"),
        private_mac: "02:00:00:00:00:01".into(),
        capabilities: vec!["hvm".into(), "snapshot".into(), "kvm".into()],
    }
}

fn machine(uuid: &str, n: u8) -> HostUp {
    HostUp {
        host_uuid: uuid.into(),
        guid: format!("machine-{n}"),
        boot_id: "boot".into(),
        facts: Some(facts(n)),
        ..HostUp::default()
    }
}

impl FakeAgent {
    async fn connect(channel: Channel, up: HostUp) -> FakeAgent {
        let (out, messages) = mpsc::unbounded_channel();
        let say = |body| out.send(AgentMessage { body: Some(body) }).unwrap();
        say(agent_message::Body::Hello(Hello {
            agent_uuid: up.host_uuid.clone(),
            kind: AgentKind::Host.into(),
            version: "1.2.3".into(),
            hosts: vec![up],
            protocol: contract_agent::protocol::PROTOCOL,
            oldest_protocol: contract_agent::protocol::OLDEST_PROTOCOL,
        }));
        let mut inbound =
            HubClient::new(channel).attach(UnboundedReceiverStream::new(messages)).await.unwrap().into_inner();
        let (tell, told) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_secs(1));
            loop {
                tokio::select! {
                    message = inbound.message() => {
                        let Ok(Some(HubMessage { body: Some(body) })) = message else { return };
                        if let hub_message::Body::Execute(order) = &body {
                            let outcome = Outcome { body: Some(outcome::Body::Nothing(Nothing {})) };
                            let answer = Answer { request_id: order.request_id, outcome: Some(outcome), error: None };
                            let _ = out.send(AgentMessage { body: Some(agent_message::Body::Answer(answer)) });
                        }
                        tell.send_modify(|all| all.extend(word(&body)));
                    }
                    _ = beat.tick() => {
                        let _ = out.send(AgentMessage { body: Some(agent_message::Body::Beat(Beat::default())) });
                    }
                }
            }
        });
        FakeAgent { told, task }
    }

    async fn was_told(&self, word: &str) {
        let mut told = self.told.clone();
        let found = tokio::time::timeout(20 * SECOND, told.wait_for(|all| all.contains(&word))).await;
        assert!(found.is_ok_and(|f| f.is_ok()), "told {word}: {:?}", self.told.borrow());
    }

    /// The line breaks, as in a kill.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn word(body: &hub_message::Body) -> Option<&'static str> {
    match body {
        hub_message::Body::Welcome(welcome) if welcome.hosts.is_empty() => Some("welcome"),
        hub_message::Body::Welcome(_) | hub_message::Body::HostAccepted(_) => Some("accepted"),
        hub_message::Body::Refused(refused) if refused.forget => Some("forget"),
        hub_message::Body::Refused(refused) => refused.reason.contains("addHost").then_some("wait"),
        hub_message::Body::Execute(order) => {
            let body = order.command.as_ref().and_then(|c| c.body.as_ref());
            matches!(body, Some(command::Body::RemoveHost(_))).then_some("remove")
        }
        _ => None,
    }
}

/// A place for hosts of KVM.
async fn kvm_place(cloud: &Cloud, name: &str) -> Place {
    let place = cloud.zone(name, 16).await;
    let kvm =
        UpdateClusterRequest { id: place.cluster.id.clone(), hypervisor: Some("KVM".into()), ..Default::default() };
    ok(cloud.clusters().update(request(&root(), kvm)).await).unwrap();
    place
}

fn new_machine(place: &Place, address: &str) -> AddHostRequest {
    AddHostRequest {
        hypervisor: Some("KVM".into()),
        url: Some(format!("http://root:secret@{address}")),
        ..new_host(place, 0)
    }
}

async fn add(cloud: &Cloud, place: &Place, address: &str) -> Result<Host, contract::ApiError> {
    let added = ok(cloud.hosts().add(request(&root(), new_machine(place, address))).await)?;
    Ok(added.host.into_iter().next().unwrap())
}

async fn delete(cloud: &Cloud, host: &Host) {
    let delete = DeleteHostRequest { id: host.id.clone(), forced: Some(true), ..Default::default() };
    assert!(ok(cloud.hosts().delete(request(&root(), delete)).await).unwrap().success);
}

async fn waiting(cloud: &Cloud) -> i64 {
    cloud.count("SELECT COUNT(*) FROM waiting_agents").await
}

/// Another replica of the hub, and the way to it.
async fn another_replica(cloud: &Cloud) -> (Node, Hub, Arc<LocalNet>, coord::Membership) {
    let node = Node {
        replica: node::replica_id("other"),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        ..cloud.node.clone()
    };
    let pki = Pki::open(&node.db, &node.vault, &node.coord).await.unwrap();
    let member = coord::Member { id: node.replica.clone(), service: "orchestrator".into(), ..coord::Member::default() };
    let membership = node.coord.join(member).await.unwrap();
    let hub = Hub::with(node.clone(), pki, HubOptions::default());
    let net = LocalNet::new();
    let (incoming, routes, stop) = (net.listen("orchestrator"), hub.routes(), node.stop.clone());
    node.tasks.spawn(async move {
        Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, stop.cancelled()).await.unwrap();
    });
    (node, hub, net, membership)
}

testkit::databases! {
    async fn a_machine_is_added_when_its_agent_waits(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let place = kvm_place(&cloud, "Z").await;
        // Nobody there: the text tells what to do, and nothing is left.
        let error = add(&cloud, &place, "10.9.8.7").await.unwrap_err();
        assert_eq!(error.code, 530);
        assert!(error.full_text().contains("No agent waits") && error.full_text().contains("arcus token"), "{}", error.full_text());
        let uuid = model::new_uuid();
        let agent = FakeAgent::connect(cloud.channel(), machine(&uuid, 7)).await;
        agent.was_told("wait").await;
        assert_eq!((cloud.hub.waiting_here(), waiting(&cloud).await, cloud.hub.connected()), (1, 1, 0));
        // By another address than its own: those that wait are named.
        let error = add(&cloud, &place, "10.9.8.70").await.unwrap_err();
        assert!(error.full_text().contains("kvm7.example.org (10.9.8.7)"), "{}", error.full_text());
        // Not into a cluster of another hypervisor; it waits on.
        let other = cloud.zone("Y", 17).await;
        assert_eq!(add(&cloud, &other, "10.9.8.7").await.unwrap_err().code, 431);
        assert_eq!((cloud.count("SELECT COUNT(*) FROM hosts").await, waiting(&cloud).await), (0, 1));

        let host = add(&cloud, &place, "10.9.8.7").await.unwrap();
        assert_eq!((host.id(), host.name(), host.state(), host.hypervisor()), (uuid.as_str(), "kvm7.example.org", "Up", "KVM"));
        assert_eq!((host.ip_address(), host.hypervisor_version(), host.version()), ("10.9.8.7", "9.2.0", "1.2.3"));
        assert_eq!((host.cpu_number(), host.cpu_speed(), host.memory_total()), (16, 2400, 63 << 30));
        assert_eq!((host.capabilities(), host.cpu_sockets()), ("hvm,snapshot,kvm", 2));
        assert_eq!(cloud.db.one(Sql::new("SELECT url FROM hosts")).await.unwrap().at::<String>(0).unwrap(), "http://10.9.8.7");
        agent.was_told("accepted").await;
        assert_eq!((cloud.hub.waiting_here(), waiting(&cloud).await, cloud.hub.connected()), (0, 0, 1));
        assert_eq!(cloud.count("SELECT COUNT(*) FROM host_capacity WHERE accepting = 1").await, 1);
        // Once is enough.
        assert_eq!(add(&cloud, &place, "10.9.8.7").await.unwrap_err().code, 530);
        agent.kill().await;
        cloud.end().await;
    }

    async fn one_machine_is_one_host(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let place = kvm_place(&cloud, "Z").await;
        let first = FakeAgent::connect(cloud.channel(), machine(&model::new_uuid(), 1)).await;
        first.was_told("wait").await;
        // Two requests at once: one of them adds it. By name, whatever its case.
        let (one, two) = tokio::join!(add(&cloud, &place, "KVM1.example.org"), add(&cloud, &place, "10.9.8.1"));
        let host = match (one, two) {
            (Ok(host), Err(error)) | (Err(error), Ok(host)) => {
                assert_eq!(error.code, 530, "{}", error.full_text());
                host
            }
            both => panic!("{both:?}"),
        };
        // A second agent on the same machine, and another machine with its address.
        for up in [HostUp { facts: Some(facts(2)), ..machine(&model::new_uuid(), 1) }, HostUp { facts: Some(facts(1)), ..machine(&model::new_uuid(), 3) }] {
            let address = up.facts.clone().unwrap().private_ip;
            let agent = FakeAgent::connect(cloud.channel(), up).await;
            agent.was_told("wait").await;
            let error = add(&cloud, &place, &address).await.unwrap_err();
            assert!(error.code == 431 && error.full_text().contains("kvm1.example.org"), "{}", error.full_text());
            agent.kill().await;
            testkit::wait_until(|| async { waiting(&cloud).await == 0 }, 20 * SECOND).await;
        }
        // Several that are named by one name are not guessed from.
        let same = |n: u8| HostUp { facts: Some(HostFacts { name: "twin".into(), ..facts(n) }), ..machine(&model::new_uuid(), n) };
        let twins = [FakeAgent::connect(cloud.channel(), same(5)).await, FakeAgent::connect(cloud.channel(), same(6)).await];
        for twin in &twins {
            twin.was_told("wait").await;
        }
        assert_eq!(add(&cloud, &place, "twin").await.unwrap_err().code, 530);
        assert_eq!(add(&cloud, &place, "10.9.8.6").await.unwrap().ip_address(), "10.9.8.6");
        // A repeat with the same idempotency key is the first one's host.
        let keyed = keyed(root(), "machine-5");
        let repeat = async || ok(cloud.hosts().add(request(&keyed, new_machine(&place, "10.9.8.5"))).await).unwrap().host[0].id().to_owned();
        assert_eq!(repeat().await, repeat().await);
        assert_ne!(repeat().await, host.id());
        cloud.end().await;
    }

    async fn kills_in_between_lose_nothing(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let place = kvm_place(&cloud, "Z").await;
        // The agent is killed while it waits.
        let uuid = model::new_uuid();
        let agent = FakeAgent::connect(cloud.channel(), machine(&uuid, 1)).await;
        agent.was_told("wait").await;
        agent.kill().await;
        testkit::wait_until(|| async { waiting(&cloud).await == 0 }, 20 * SECOND).await;
        assert_eq!(add(&cloud, &place, "10.9.8.1").await.unwrap_err().code, 530);
        // It comes back, and whoever added it was killed right after its commit: the hub finds the row by itself.
        let agent = FakeAgent::connect(cloud.channel(), machine(&uuid, 1)).await;
        agent.was_told("wait").await;
        committed(&cloud, &uuid, 901).await;
        agent.was_told("accepted").await;
        testkit::wait_until(|| async { cloud.count("SELECT COUNT(*) FROM hosts WHERE status = 'Up'").await == 1 }, 20 * SECOND).await;
        assert_eq!(waiting(&cloud).await, 0);
        // Or the agent was, too: it is let in when it says hello.
        let late = model::new_uuid();
        committed(&cloud, &late, 902).await;
        let second = FakeAgent::connect(cloud.channel(), machine(&late, 2)).await;
        second.was_told("accepted").await;
        // A replica was killed and left its note: nobody is added by it, and it goes away.
        let row = [("agent_uuid", "dead"), ("hub", "no-such-replica"), ("guid", "dead"), ("name", "dead"), ("hypervisor", "KVM"), ("hypervisor_version", "1"), ("agent_version", "1"), ("private_ip", "10.9.8.9"), ("private_mac", ""), ("capabilities", "")];
        let mut row: Vec<(&str, Value)> = row.into_iter().map(|(k, v)| (k, v.into())).collect();
        row.extend(["since", "sockets", "cpus", "cpu_mhz", "memory", "memory_reserved"].map(|k| (k, Value::from(1_i64))));
        cloud.insert("waiting_agents", &row).await;
        assert_eq!(add(&cloud, &place, "10.9.8.9").await.unwrap_err().code, 530);
        testkit::wait_until(|| async { waiting(&cloud).await == 0 }, 30 * SECOND).await;
        // The agent's replica ends: it waits at another one, and is added there.
        let third = model::new_uuid();
        let (node, _hub, net, membership) = another_replica(&cloud).await;
        let agent = FakeAgent::connect(net.channel("orchestrator"), machine(&third, 3)).await;
        agent.was_told("wait").await;
        drop(membership);
        node.shut_down(5 * SECOND).await;
        let agent = FakeAgent::connect(cloud.channel(), machine(&third, 3)).await;
        agent.was_told("wait").await;
        assert_eq!(add(&cloud, &place, "10.9.8.3").await.unwrap().id(), third);
        cloud.end().await;
    }

    async fn an_agent_that_goes_away_meanwhile_leaves_no_host(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let place = kvm_place(&cloud, "Z").await;
        // A note of this very replica without a line: the agent hung up at this moment.
        let uuid = model::new_uuid();
        let agent = FakeAgent::connect(cloud.channel(), machine(&uuid, 1)).await;
        agent.was_told("wait").await;
        agent.kill().await;
        testkit::wait_until(|| async { waiting(&cloud).await == 0 }, 20 * SECOND).await;
        let row = [("agent_uuid", uuid.as_str()), ("hub", cloud.node.replica.as_str()), ("guid", "machine-1"), ("name", "kvm1"), ("hypervisor", "KVM"), ("hypervisor_version", "1"), ("agent_version", "1"), ("private_ip", "10.9.8.1"), ("private_mac", ""), ("capabilities", "")];
        let mut row: Vec<(&str, Value)> = row.into_iter().map(|(k, v)| (k, v.into())).collect();
        row.extend(["since", "sockets", "cpus", "cpu_mhz", "memory", "memory_reserved"].map(|k| (k, Value::from(1_i64))));
        cloud.insert("waiting_agents", &row).await;
        let error = add(&cloud, &place, "kvm1").await.unwrap_err();
        assert!(error.code == 530 && error.full_text().contains("went away"), "{}", error.full_text());
        assert_eq!(cloud.count("SELECT COUNT(*) FROM hosts").await + cloud.count("SELECT COUNT(*) FROM host_capacity").await, 0);
        // The same agent, back again, is added under the same UUID.
        let agent = FakeAgent::connect(cloud.channel(), machine(&uuid, 1)).await;
        agent.was_told("wait").await;
        assert_eq!(add(&cloud, &place, "10.9.8.1").await.unwrap().id(), uuid);
        cloud.end().await;
    }

    async fn a_deleted_machine_is_told_to_forget(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let place = kvm_place(&cloud, "Z").await;
        let add_one = async |channel: Channel, n: u8| {
            let agent = FakeAgent::connect(channel, machine(&model::new_uuid(), n)).await;
            agent.was_told("wait").await;
            (add(&cloud, &place, &format!("10.9.8.{n}")).await.unwrap(), agent)
        };
        // Its line is with the replica that deletes it.
        let (host, agent) = add_one(cloud.channel(), 1).await;
        delete(&cloud, &host).await;
        agent.was_told("remove").await;
        // It wasn't there when it was deleted.
        let (host, agent) = add_one(cloud.channel(), 2).await;
        agent.kill().await;
        delete(&cloud, &host).await;
        let agent = FakeAgent::connect(cloud.channel(), machine(host.id(), 2)).await;
        agent.was_told("forget").await;
        assert_eq!(waiting(&cloud).await, 0, "one that was deleted doesn't wait to be added");
        // Its line is with another replica: both additions and deletions get there.
        let (node, hub, net, membership) = another_replica(&cloud).await;
        let (host, agent) = add_one(net.channel("orchestrator"), 3).await;
        assert_eq!((host.state(), hub.connected()), ("Up", 1));
        delete(&cloud, &host).await;
        agent.was_told("forget").await;
        testkit::wait_until(|| async { hub.connected() == 0 }, 20 * SECOND).await;
        // The machine may be added anew: its agent enrols again, and so is another one.
        let (again, _agent) = add_one(cloud.channel(), 3).await;
        assert_ne!(again.id(), host.id());
        let listed = ok(cloud.hosts().list(request(&root(), ListHostsRequest::default())).await).unwrap();
        assert_eq!(listed.count(), 1);
        let disable = UpdateHostRequest { id: again.id.clone(), allocation_state: Some("Disable".into()), ..Default::default() };
        assert_eq!(ok(cloud.hosts().update(request(&root(), disable)).await).unwrap().resource_state(), "Disabled");
        drop(membership);
        node.shut_down(5 * SECOND).await;
        cloud.end().await;
    }
}

/// The commit of an addition whose replica was killed right after it.
async fn committed(cloud: &Cloud, uuid: &str, id: i64) {
    let number = |n: i64| Value::from(n);
    let mut row: Vec<(&str, Value)> =
        ["name", "name_lower", "live_key", "guid"].map(|c| (c, format!("half-{id}").into())).to_vec();
    row.extend([
        ("uuid", uuid.into()),
        ("url", "http://half".into()),
        ("capabilities", "".into()),
        ("tags", "".into()),
    ]);
    row.extend(["cluster_id", "pod_id", "zone_id", "cpu_cores", "cpu_mhz", "memory"].map(|c| (c, number(9))));
    row.extend([
        ("id", number(id)),
        ("hypervisor", "KVM".into()),
        ("version", "1".into()),
        ("status", "Connecting".into()),
    ]);
    row.extend([("resource_state", "Enabled".into()), ("conn_epoch", number(0)), ("created", number(1))]);
    cloud.insert("hosts", &row).await;
}
