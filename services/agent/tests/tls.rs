//! Separate processes: enrolment by token, mutual TLS, renewal, revocation.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use arcus_agent::Dial;
use common::*;
use contract::secret::Secret;
use contract_agent::hub_client::HubClient;
use contract_agent::{AgentKind, AgentMessage, EnrolRequest, Hello, RenewRequest, agent_message};
use contract_infra::ExecuteRequest;
use contract_infra::host_commands_client::HostCommandsClient;
use hub::{HubOptions, tls_dial};
use pki::token::NewToken;
use pki::{CertificateRequest, ClientAuth, ClientTls, Credentials, Identity, San, ServerTls, TlsIncoming, Trust};
use rpc::LocalNet;
use std::sync::Arc;
use tokio::net::TcpListener;
use tonic::transport::Server;

/// Serves a replica's hub on a port of its own.
async fn listen(replica: &Replica, auth: ClientAuth) -> String {
    let identity = replica.pki.service_identity("orchestrator", &[San::parse("127.0.0.1")]).await.unwrap();
    listen_with(replica, auth, Credentials::new(identity)).await
}

async fn listen_with(replica: &Replica, auth: ClientAuth, credentials: Credentials) -> String {
    let tls = ServerTls::new(replica.pki.clone(), credentials, auth);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (routes, stop) = (replica.hub.routes(), replica.node.stop.clone());
    let incoming = TlsIncoming::new(listener, tls);
    replica.node.tasks.spawn(async move {
        Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, stop.cancelled()).await.unwrap();
    });
    address
}

fn tls(address: &str, token: Option<&str>) -> Dial {
    Dial::Tls { addresses: vec![address.to_owned()], token: token.map(|t| Secret::new(t.to_owned())) }
}

fn trusting(replica: &Replica) -> ClientTls {
    ClientTls::new("orchestrator", Trust::Root(replica.pki.ca_der().clone()))
}

/// A real machine's agent, on a real libvirtd.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_enrols_and_waits_and_is_deleted() {
    if !testkit::Libvirtd::available("a_machine_enrols_and_waits_and_is_deleted") {
        return;
    }
    let libvirtd = testkit::Libvirtd::start().await;
    let db = testkit::TestDb::sqlite();
    let replica = Replica::start(&db, patient()).await;
    let address = listen(&replica, ClientAuth::Optional).await;
    // Where routers lie must be passable for their daemons.
    let dir = tempfile::Builder::new().prefix("ma").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let machine = |token: Option<&str>| arcus_agent::Options {
        hypervisor: arcus_agent::Kind::Kvm,
        kvm: arcus_agent::kvm::KvmOptions {
            libvirt_socket: Some(libvirtd.socket()),
            mount_root: dir.path().join("m"),
            private_ip: Some("127.0.0.1".into()),
            ..Default::default()
        },
        ..options(dir.path(), tls(&address, token))
    };
    // A token for factories lets no machine in.
    let (_, wrong) = replica.pki.new_token(&NewToken::for_factories("test")).await.unwrap();
    let refused = Running::with(machine(Some(wrong.expose()))).ended().await.unwrap_err();
    assert!(refused.text.contains("kind factory"), "{}", refused.text);
    let (_, token) = replica.pki.new_token(&NewToken::for_host("test")).await.unwrap();
    let agent = Running::with(machine(Some(token.expose())));
    testkit::wait_until(|| async { replica.hub.waiting_here() == 1 }, 60 * SECOND).await;
    let pem = std::fs::read_to_string(dir.path().join("agent.pem")).unwrap();
    let identity = Identity::from_pem(&pem, &pem).unwrap();
    let Some(pki::Subject::Host(uuid)) = identity.subject() else { panic!("no agent") };
    // What is known of it, before anybody adds it. Killed meanwhile, it waits again, without a token.
    let name = "SELECT name FROM waiting_agents WHERE hypervisor = 'KVM' AND private_ip = '127.0.0.1' AND cpus > 0 AND memory > 0";
    let row = replica.node.db.one(store::Sql::new(name)).await.unwrap();
    assert_eq!(row.at::<String>(0).unwrap(), libvirtd.name());
    agent.kill().await;
    testkit::wait_until(|| async { replica.hub.waiting_here() == 0 }, 30 * SECOND).await;
    let agent = Running::with(machine(None));
    testkit::wait_until(|| async { replica.hub.waiting_here() == 1 }, 60 * SECOND).await;
    insert_hosts(&replica.node.db, &[(1, uuid.clone(), "machine".into())], "KVM").await;
    replica.hub.hurry(&uuid);
    replica.await_status(1, "Up").await;
    assert_eq!((replica.hub.waiting_here(), replica.hub.connected()), (0, 1));
    // Deleted behind its back: it is told, forgets who it is, and ends.
    let removed = store::Sql::new("UPDATE hosts SET removed = 1, hub = NULL WHERE id = 1");
    store::tx!(replica.node.db, "delete", |tx| tx.exec(removed.clone()).await).await.unwrap();
    replica.hub.hurry(&uuid);
    let ended = agent.ended().await.unwrap_err();
    assert!(ended.text.contains("new enrolment token"), "{}", ended.text);
    assert!(!dir.path().join("agent.pem").exists() && !dir.path().join("agent.key").exists());
    replica.end().await;
}

// covers: HOST-152
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_goes_round_the_hubs() {
    let db = testkit::TestDb::sqlite();
    let a = Replica::start(&db, patient()).await;
    let b = a.another(LocalNet::new(), patient()).await;
    let c = a.another(LocalNet::new(), patient()).await;
    let mut addresses = Vec::new();
    for replica in [&a, &b, &c] {
        addresses.push(listen(replica, ClientAuth::Optional).await);
    }
    let (_, token) = a.pki.new_token(&NewToken::for_factories("test")).await.unwrap();
    let dir = testkit::temp_dir();
    let dial = Dial::Tls { addresses, token: Some(Secret::new(token.expose().clone())) };
    let agent = Running::with(options(dir.path(), dial));
    let mut left = vec![a, b, c];
    // Whoever has it ends; the agent is with another one soon, until the last.
    while left.len() > 1 {
        testkit::wait_until(|| async { left.iter().any(|replica| replica.hub.factories() == 1) }, 30 * SECOND).await;
        let with = left.iter().position(|replica| replica.hub.factories() == 1).unwrap();
        left.remove(with).end().await;
    }
    let last = left.remove(0);
    testkit::wait_until(|| async { last.hub.factories() == 1 }, 60 * SECOND).await;
    agent.end().await.unwrap();
    last.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_without_a_restart() {
    let db = testkit::TestDb::sqlite();
    let replica = Replica::start(&db, patient()).await;
    let short = pki::Validity { host: 6 * SECOND, service: 6 * SECOND, ..pki::Validity::default() };
    let authority =
        pki::Pki::open_with(&replica.node.db, &replica.node.vault, &replica.node.coord, short).await.unwrap();
    let hasty =
        Replica { hub: hub::Hub::with(replica.node.clone(), authority.clone(), patient()), pki: authority, ..replica };
    let identity = hasty.pki.service_identity("orchestrator", &[]).await.unwrap();
    let credentials = Credentials::new(identity);
    let before = credentials.current();
    hasty.node.spawn(
        "keep",
        hasty.pki.clone().keep("orchestrator".into(), vec![], credentials.clone(), hasty.node.stop.clone()),
    );
    let address = listen_with(&hasty, ClientAuth::Optional, credentials.clone()).await;
    let (_, token) = hasty.pki.new_token(&NewToken::for_factories("test")).await.unwrap();
    let dir = testkit::temp_dir();
    let agent = Running::with(options(dir.path(), tls(&address, Some(token.expose()))));
    testkit::wait_until(|| async { hasty.hub.factories() == 1 }, 30 * SECOND).await;
    let read = || std::fs::read_to_string(dir.path().join("agent.pem")).unwrap();
    let first = read();
    testkit::wait_until(|| async { read() != first && !Arc::ptr_eq(&before, &credentials.current()) }, 30 * SECOND)
        .await;
    // The old ones are over; both ends go on with the new ones.
    testkit::wait_until(|| async { before.is_expired() }, 30 * SECOND).await;
    agent.end().await.unwrap();
    let agent = Running::with(options(dir.path(), tls(&address, None)));
    testkit::wait_until(|| async { hasty.hub.factories() == 1 }, 30 * SECOND).await;
    agent.end().await.unwrap();
    hasty.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_told_to_renew_its_certificate() {
    let db = testkit::TestDb::sqlite();
    let replica = Replica::start(&db, patient()).await;
    let address = listen(&replica, ClientAuth::Optional).await;
    let (_, token) = replica.pki.new_token(&NewToken::for_factories("test")).await.unwrap();
    let dir = testkit::temp_dir();
    let agent = Running::with(options(dir.path(), tls(&address, Some(token.expose()))));
    testkit::wait_until(|| async { replica.hub.factories() == 1 }, 60 * SECOND).await;
    replica.add_host(1).await;
    replica.execute(1, None, start("a", 1)).await.unwrap();
    let shown = || {
        let pem = std::fs::read_to_string(dir.path().join("agent.pem")).unwrap();
        let chain = Identity::from_pem(&pem, &pem).unwrap();
        (chain.subject(), pem)
    };
    let renew = |reconnect| {
        let order = contract_agent::RenewCertificate { reconnect };
        contract_agent::Command { body: Some(contract_agent::command::Body::RenewCertificate(order)) }
    };
    let epoch = async || replica.status(1).await.1;
    let (first, line) = (shown(), epoch().await);
    // The line goes on with the old one.
    replica.execute(1, None, renew(false)).await.unwrap();
    let second = shown();
    assert_eq!((&first.0, epoch().await), (&second.0, line));
    assert_ne!(first.1, second.1);
    // And now it is made anew, with what runs untouched.
    replica.execute(1, None, renew(true)).await.unwrap();
    testkit::wait_until(|| async { epoch().await > line }, 60 * SECOND).await;
    replica.await_status(1, "Up").await;
    assert_eq!(agent.simulator.vm("a").unwrap().boots, 1);
    let third = shown();
    // The serial number that is revoked is the one in use: only then does the line end.
    let serial = |pem: &str| Identity::from_pem(pem, pem).unwrap().serial().unwrap();
    assert!(replica.pki.revoke_certificate(&serial(&second.1), "test").await.unwrap());
    replica.execute(1, None, start("b", 1)).await.unwrap();
    assert!(replica.pki.revoke_certificate(&serial(&third.1), "test").await.unwrap());
    replica.await_status(1, "Disconnected").await;
    agent.kill().await;
    replica.end().await;
}

testkit::databases! {
    async fn an_agent_enrols_and_is_thrown_out(db: testkit::TestDb) {
        let replica = Replica::start(&db, patient()).await;
        let address = listen(&replica, ClientAuth::Optional).await;
        let (_, token) = replica.pki.new_token(&NewToken::for_factories("test")).await.unwrap();
        let dir = testkit::temp_dir();
        let agent = Running::with(options(dir.path(), tls(&address, Some(token.expose()))));
        testkit::wait_until(|| async { replica.hub.factories() == 1 }, 30 * SECOND).await;
        replica.add_host(1).await;
        replica.execute(1, None, start("a", 1)).await.unwrap();
        assert!(is_on(&agent.simulator, "a"));
        agent.end().await.unwrap();
        // It needs no token any more.
        let agent = Running::with(options(dir.path(), tls(&address, None)));
        replica.await_connected(1).await;
        // Revoked: the line ends at once, and no new one comes about.
        let pem = std::fs::read_to_string(dir.path().join("agent.pem")).unwrap();
        let identity = Identity::from_pem(&pem, &pem).unwrap();
        let Some(pki::Subject::Host(uuid)) = identity.subject() else { panic!("no agent") };
        assert!(replica.pki.revoke_agent(&uuid, "test").await.unwrap());
        replica.await_status(1, "Disconnected").await;
        let mut hub = HubClient::new(pki::channel(&address, trusting(&replica).with(Credentials::new(identity))).unwrap());
        let request = CertificateRequest::new().unwrap();
        assert!(hub.renew(RenewRequest { csr_pem: request.csr_pem.clone() }).await.is_err());
        assert_eq!(replica.hub.factories(), 0);
        agent.kill().await;
        replica.end().await;
    }

    async fn tokens_are_checked(db: testkit::TestDb) {
        let replica = Replica::start(&db, patient()).await;
        let address = listen(&replica, ClientAuth::Optional).await;
        let mut hub = HubClient::new(pki::channel(&address, trusting(&replica)).unwrap());
        let request = CertificateRequest::new().unwrap();
        let ask = |token: &str, csr: &CertificateRequest| EnrolRequest {
            token: token.to_owned(),
            csr_pem: csr.csr_pem.clone(),
            kind: AgentKind::Host.into(),
            name: "h".into(),
        };
        let (uuid, once) = replica.pki.new_token(&NewToken::for_host("test")).await.unwrap();
        let once = once.expose().clone();
        // The wrong kind doesn't use the token up.
        let wrong = EnrolRequest { kind: AgentKind::Factory.into(), ..ask(&once, &request) };
        assert!(hub.enrol(wrong).await.is_err());
        let first = hub.enrol(ask(&once, &request)).await.unwrap().into_inner();
        // The answer was lost: the same key gets the same agent. Another key gets nothing: the token is used up.
        let again = hub.enrol(ask(&once, &request)).await.unwrap().into_inner();
        assert_eq!(again.agent_uuid, first.agent_uuid);
        let other = CertificateRequest::new().unwrap();
        assert_eq!(hub.enrol(ask(&once, &other)).await.unwrap_err().code(), tonic::Code::Unauthenticated);
        assert!(hub.enrol(ask("nonsense", &other)).await.is_err());
        let forged = format!("x{once}");
        assert!(hub.enrol(ask(&forged, &other)).await.is_err());
        let expired = NewToken { valid: std::time::Duration::ZERO, ..NewToken::for_host("test") };
        let (_, expired) = replica.pki.new_token(&expired).await.unwrap();
        assert!(hub.enrol(ask(expired.expose(), &other)).await.is_err());
        assert!(replica.pki.revoke_token(&uuid).await.unwrap());
        // With a certificate it renews; without one it doesn't, and may not attach or command.
        let identity = Identity::from_pem(&first.certificate_pem, request.key_pem.expose()).unwrap();
        let channel = pki::channel(&address, trusting(&replica).with(Credentials::new(identity))).unwrap();
        let renewed = HubClient::new(channel.clone()).renew(RenewRequest { csr_pem: other.csr_pem.clone() }).await.unwrap();
        Identity::from_pem(&renewed.into_inner().certificate_pem, other.key_pem.expose()).unwrap();
        assert!(hub.renew(RenewRequest { csr_pem: other.csr_pem.clone() }).await.is_err());
        let hello = Hello { agent_uuid: "somebody".into(), kind: AgentKind::Host.into(), ..Hello::default() };
        for client in [HubClient::new(channel.clone()), hub.clone()] {
            let hello = AgentMessage { body: Some(agent_message::Body::Hello(hello.clone())) };
            let mut client = client;
            let mut stream = client.attach(tokio_stream::once(hello)).await.unwrap().into_inner();
            assert_eq!(stream.message().await.unwrap_err().code(), tonic::Code::Unauthenticated);
        }
        let command = ExecuteRequest { host_id: 1, command: Some(start("a", 1)), ..ExecuteRequest::default() };
        let refused = HostCommandsClient::new(channel).execute(command).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        replica.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_poses_as_the_hub() {
    let (db, other_db) = (testkit::TestDb::sqlite(), testkit::TestDb::sqlite());
    let replica = Replica::start(&db, patient()).await;
    let impostor = Replica::start(&other_db, patient()).await;
    let address = listen(&impostor, ClientAuth::Optional).await;
    // A token of ours isn't shown to a hub with another root.
    let (_, token) = replica.pki.new_token(&NewToken::for_factories("test")).await.unwrap();
    let dir = testkit::temp_dir();
    let tls_to = ClientTls::new("orchestrator", Trust::Fingerprint(replica.pki.fingerprint()));
    let request = CertificateRequest::new().unwrap();
    let ask = EnrolRequest { token: token.expose().clone(), csr_pem: request.csr_pem, ..EnrolRequest::default() };
    let failed = HubClient::new(pki::channel(&address, tls_to).unwrap()).enrol(ask).await.unwrap_err();
    assert_eq!(failed.code(), tonic::Code::Unavailable, "{failed}");
    drop(dir);
    // Nor does another service of ours pass for the orchestrator.
    let address = listen(&replica, ClientAuth::Required).await;
    let as_network = ClientTls::new("network", Trust::Root(replica.pki.ca_der().clone()));
    let mut client = HubClient::new(pki::channel(&address, as_network).unwrap());
    assert!(client.enrol(EnrolRequest::default()).await.is_err());
    // A port that requires certificates lets nobody in without.
    let mut client = HubClient::new(pki::channel(&address, trusting(&replica)).unwrap());
    let refused = contract::ApiError::from(client.enrol(EnrolRequest::default()).await.unwrap_err());
    assert_eq!(refused.code, 534, "{refused}");
    replica.end().await;
    impostor.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_forward_by_tls() {
    let db = testkit::TestDb::sqlite();
    let a = Replica::start(&db, patient()).await;
    let address = listen(&a, ClientAuth::Required).await;
    let dir = testkit::temp_dir();
    let agent = Running::start(dir.path(), &a.net);
    testkit::wait_until(|| async { a.hub.factories() == 1 }, 30 * SECOND).await;
    a.add_host(1).await;
    let identity = a.pki.service_identity("orchestrator", &[]).await.unwrap();
    let by_tls = tls_dial(&a.pki, Credentials::new(identity));
    // The member's address is where it listens.
    let dial: hub::Dial =
        Arc::new(move |member| by_tls(&coord::Member { address: Some(address.clone()), ..member.clone() }));
    let b = a.another(LocalNet::new(), HubOptions { dial: Some(dial), ..patient() }).await;
    b.execute(1, Some(&key(1, "s")), start("x", 1)).await.unwrap();
    assert!(is_on(&agent.simulator, "x"));
    agent.end().await.unwrap();
    b.end().await;
    a.end().await;
}
