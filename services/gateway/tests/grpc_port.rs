//! The commands over gRPC, against a running gateway.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{ADMIN, Cloud, USER};
use contract_identity::authority_client::AuthorityClient;
use contract_identity::sessions_client::SessionsClient;
use contract_identity::{ByApiKeyRequest, ListApisRequest, LoginRequest};
use contract_infra::zones_client::ZonesClient;
use contract_infra::{CreateZoneRequest, ListZonesRequest};
use prost::Message;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

async fn start() -> (Cloud, Channel) {
    start_with(|_| {}).await
}

async fn start_with(limits: impl FnOnce(&mut arcus_gateway::Limits)) -> (Cloud, Channel) {
    let cloud = Cloud::with(
        |options| {
            limits(&mut options.limits);
            options.grpc =
                Some(arcus_gateway::GrpcListener { address: SocketAddr::from(([127, 0, 0, 1], 0)), tls: None });
        },
        None,
    )
    .await;
    let address = cloud.serving.grpc.unwrap();
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (cloud, channel)
}

fn signed<M: Message>(keys: (&str, &str), path: &str, ahead: i64, message: M) -> Request<M> {
    let expires = (store::now_micros() / 1_000_000 + ahead).to_string();
    let digest = STANDARD.encode(digest::digest(&digest::SHA256, &message.encode_to_vec()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, keys.1.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, format!("{path}\n{expires}\n{digest}").as_bytes()));
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("arcus-api-key", keys.0.parse().unwrap());
    metadata.insert("arcus-expires", expires.parse().unwrap());
    metadata.insert("arcus-signature", signature.parse().unwrap());
    request
}

const LIST: &str = "/arcus.infra.v1.Zones/List";
const CREATE: &str = "/arcus.infra.v1.Zones/Create";

#[tokio::test]
async fn commands_are_called_with_a_key() {
    let (cloud, channel) = start().await;
    let mut zones = ZonesClient::new(channel.clone());
    let request = ListZonesRequest { keyword: Some("x".into()), ..ListZonesRequest::default() };
    let mut request = signed(USER, LIST, 60, request);
    request.metadata_mut().insert("idempotency-key", "k".parse().unwrap());
    let answer = zones.list(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap().len(), 36);
    assert_eq!(answer.into_inner().count(), 1);
    assert_eq!(cloud.orchestrator.listed.lock().unwrap().keyword(), "x");
    let caller = cloud.orchestrator.caller.lock().unwrap().clone();
    assert_eq!((caller.user_id, caller.command.as_str(), caller.request_hash.len()), (5, "listZones", 32));
    // What the gateway answers itself.
    let mut sessions = SessionsClient::new(channel);
    let request =
        signed(USER, "/arcus.identity.v1.Sessions/ListApis", 60, ListApisRequest { name: Some("listZones".into()) });
    assert_eq!(sessions.list_apis(request).await.unwrap().into_inner().api[0].name(), "listZones");
}

#[tokio::test]
async fn signatures_and_roles_are_checked() {
    let (cloud, channel) = start().await;
    let mut zones = ZonesClient::new(channel);
    let list = ListZonesRequest::default;
    let changed = {
        let mut request = signed(USER, LIST, 60, list());
        request.get_mut().keyword = Some("changed".into());
        request
    };
    for (what, request) in [
        ("unsigned", Request::new(list())),
        ("another secret", signed((USER.0, "x"), LIST, 60, list())),
        ("unknown key", signed(("x", "x"), LIST, 60, list())),
        ("another path", signed(USER, CREATE, 60, list())),
        ("expired", signed(USER, LIST, -5, list())),
        ("too far ahead", signed(USER, LIST, 7200, list())),
        ("changed", changed),
    ] {
        let status = zones.list(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{what}: {status}");
    }
    let create = CreateZoneRequest::default;
    assert_eq!(zones.create(signed(USER, CREATE, 60, create())).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(cloud.orchestrator.calls.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert!(zones.create(signed(ADMIN, CREATE, 60, create())).await.is_ok());
}

#[tokio::test]
async fn internal_rpcs_are_never_routed() {
    let (_cloud, channel) = start().await;
    let mut authority = AuthorityClient::new(channel.clone());
    let request = ByApiKeyRequest { api_key: USER.0.into() };
    let request = signed(ADMIN, "/arcus.identity.v1.Authority/ByApiKey", 60, request);
    assert_eq!(authority.by_api_key(request).await.unwrap_err().code(), Code::Unimplemented);
    let mut sessions = SessionsClient::new(channel);
    let request = signed(ADMIN, "/arcus.identity.v1.Sessions/Login", 60, LoginRequest::default());
    assert_eq!(sessions.login(request).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_caller_may_not_speak_for_another() {
    let (cloud, channel) = start().await;
    let mut request = signed(USER, LIST, 60, ListZonesRequest::default());
    let forged = contract::api::Caller { user_id: 1, role_type: 1, ..Default::default() };
    let value = tonic::metadata::MetadataValue::from_bytes(&forged.encode_to_vec());
    request.metadata_mut().insert_bin("arcus-caller-bin", value);
    ZonesClient::new(channel).list(request).await.unwrap();
    assert_eq!(cloud.orchestrator.caller.lock().unwrap().user_id, 5);
}

#[tokio::test]
async fn internal_details_stay_inside() {
    let (cloud, channel) = start().await;
    let mut zones = ZonesClient::new(channel);
    for (keys, seen) in [(USER, false), (ADMIN, true)] {
        *cloud.orchestrator.fail.lock().unwrap() = Some(contract::ApiError::internal("on fire"));
        let status = zones.list(signed(keys, LIST, 60, ListZonesRequest::default())).await.unwrap_err();
        let error = contract::ApiError::from(status);
        assert_eq!((error.code, error.full_text() == "on fire"), (530, seen));
    }
}

async fn calls(cloud: &Cloud, n: usize) {
    let reached = || async { cloud.orchestrator.calls.load(Ordering::SeqCst) == n };
    testkit::wait_until(reached, Duration::from_secs(30)).await;
}

#[tokio::test]
async fn overload_says_when_to_come_again() {
    let (cloud, channel) = start_with(|limits| (limits.queues.at_work, limits.queues.account) = (1, 1)).await;
    let held = cloud.orchestrator.gate.clone().lock_owned().await;
    let list = |keys| {
        let mut zones = ZonesClient::new(channel.clone());
        tokio::spawn(async move { zones.list(signed(keys, LIST, 60, ListZonesRequest::default())).await })
    };
    let first = list(USER);
    calls(&cloud, 1).await;
    // One of these waits, the other is refused.
    let (left, right) = (list(USER), list(USER));
    let (refused, waits) = match futures::future::select(left, right).await {
        futures::future::Either::Left((done, waits)) | futures::future::Either::Right((done, waits)) => (done, waits),
    };
    let status = refused.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let after = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((1..=3).contains(&after.as_secs()));
    let error = contract::ApiError::from(status);
    assert_eq!((error.code, error.internal_text), (503, None));
    drop(held);
    assert!(first.await.unwrap().is_ok() && waits.await.unwrap().is_ok());
    assert_eq!(cloud.orchestrator.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn calls_under_way_are_finished_after_the_stop() {
    let (cloud, channel) = start().await;
    let held = cloud.orchestrator.gate.clone().lock_owned().await;
    let mut zones = ZonesClient::new(channel);
    let call = tokio::spawn(async move { zones.list(signed(USER, LIST, 60, ListZonesRequest::default())).await });
    calls(&cloud, 1).await;
    cloud.node.stop.cancel();
    let address = cloud.serving.grpc.unwrap();
    testkit::eventually(|| async { tokio::net::TcpStream::connect(address).await.err() }).await;
    drop(held);
    assert_eq!(call.await.unwrap().unwrap().into_inner().count(), 1);
    cloud.node.tasks.close();
    tokio::time::timeout(Duration::from_secs(30), cloud.node.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn connections_without_room_are_closed() {
    let (cloud, channel) = start_with(|limits| limits.connections = 1).await;
    let address = cloud.serving.grpc.unwrap();
    let mut second = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut nothing = [0; 16];
    let read = tokio::io::AsyncReadExt::read(&mut second, &mut nothing);
    let read = tokio::time::timeout(Duration::from_secs(30), read).await.unwrap();
    assert_eq!(read.unwrap_or(0), 0);
    assert!(ZonesClient::new(channel).list(signed(USER, LIST, 60, ListZonesRequest::default())).await.is_ok());
}
