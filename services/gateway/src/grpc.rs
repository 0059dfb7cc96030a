//! The commands over gRPC, for programs that hold an API key.
//!
//! Each call carries `arcus-api-key`, `arcus-expires` (seconds since 1970, at most an hour ahead) and `arcus-signature`:
//! base64 of HMAC-SHA256, by the secret key, over the gRPC path, the expiry and base64 of the SHA-256 of the encoded
//! message, joined by line feeds. Roles, source addresses and visibility are those of the query API. Only RPCs that are
//! commands are routed; nothing lists the others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response as HttpResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use contract::ApiError;
use futures::Stream;
use node::Node;
use store::now_micros;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::server::{Grpc, UnaryService};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{Connected, ServerTlsConfig, TcpConnectInfo};
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::Instrument as _;

use crate::auth::Principal;
use crate::call::{OnBehalf, RawCodec};
use crate::catalogue::Entry;
use crate::gates::Refusals;
use crate::gateway::{Gateway, Kept};
use crate::http::{Limits, Place, Room, retry_after};
use crate::{idempotency, render};

/// Who calls.
const API_KEY: &str = "arcus-api-key";
/// Until when the call may be made.
const EXPIRES: &str = "arcus-expires";
/// The signature.
const SIGNATURE: &str = "arcus-signature";
/// The idempotency key.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The id of the request, on its answer.
const REQUEST_ID: &str = "x-request-id";
/// Furthest expiry.
const FURTHEST: i64 = 3600;
/// Everything that may be wrong with a signature reads the same.
const UNVERIFIED: &str = "unable to verify user credentials and/or request signature";

/// Where gRPC is served.
#[derive(Clone)]
pub struct GrpcListener {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// With this, TLS.
    pub tls: Option<ServerTlsConfig>,
}

impl std::fmt::Debug for GrpcListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "grpc{}://{}", if self.tls.is_some() { "s" } else { "" }, self.address)
    }
}

/// Serves until the node stops; then calls under way are finished. Gives the address.
///
/// # Errors
/// When the address can't be had or the TLS configuration is no good.
pub async fn serve(
    node: &Node,
    gateway: Arc<Gateway>,
    listener: GrpcListener,
    limits: &Limits,
) -> Result<SocketAddr, ApiError> {
    let failed = |e: &dyn std::fmt::Display| ApiError::internal(format!("can't listen on {listener:?}: {e}"));
    let tcp = TcpListener::bind(listener.address).await.map_err(|e| failed(&e))?;
    let address = tcp.local_addr().map_err(|e| failed(&e))?;
    let room = Room::new(limits.connections, limits.address_connections, &limits.trusted_proxies);
    let shared = Shared { gateway, most: limits.body, patience: limits.answer };
    let router = Router::new().fallback(handle).with_state(Arc::new(shared));
    let mut server =
        Server::builder().http2_keepalive_interval(Some(limits.arrival)).concurrency_limit_per_connection(256);
    if let Some(tls) = listener.tls.clone() {
        server = server.tls_config(tls).map_err(|e| failed(&e))?;
    }
    let incoming = guests(tcp, room);
    let stop = node.stop.clone();
    let serving = server
        .add_routes(Routes::from(router))
        .serve_with_incoming_shutdown(incoming, async move { stop.cancelled().await });
    node.tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the gRPC port ended");
        }
    });
    tracing::info!(%address, "gRPC port listening");
    Ok(address)
}

/// The connections of a port, as long as there is room.
fn guests(tcp: TcpListener, room: Arc<Room>) -> impl Stream<Item = io::Result<Guest>> {
    let refused = Refusals::default();
    futures::stream::unfold((tcp, room, refused), |(tcp, room, refused)| async move {
        loop {
            match tcp.accept().await {
                Ok((stream, peer)) => {
                    let Some(place) = room.take(peer.ip()) else {
                        refused.note("grpc-connections", "full");
                        continue;
                    };
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "no TCP_NODELAY");
                    }
                    return Some((Ok(Guest { stream, _place: place }), (tcp, room, refused)));
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept gRPC connections");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

/// A connection that has its place.
struct Guest {
    stream: TcpStream,
    _place: Place,
}

impl Connected for Guest {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Guest {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

struct Shared {
    gateway: Arc<Gateway>,
    most: usize,
    patience: Duration,
}

async fn handle(State(shared): State<Arc<Shared>>, request: HttpRequest) -> HttpResponse {
    let path = request.uri().path().to_owned();
    let call = Call { most: shared.most, shared, path };
    let mut grpc = Grpc::new(RawCodec).max_decoding_message_size(call.most);
    grpc.unary(call, request).await.map(Body::new)
}

/// One call.
struct Call {
    shared: Arc<Shared>,
    path: String,
    most: usize,
}

impl UnaryService<Bytes> for Call {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (shared, path) = (self.shared.clone(), self.path.clone());
        Box::pin(async move {
            let request_id = uuid::Uuid::now_v7().to_string();
            let span = tracing::info_span!("request", request_id, command = tracing::field::Empty);
            telemetry::propagate::follow(&span, request.metadata());
            let work = Box::pin(answer(&shared.gateway, &path, request, request_id.clone()));
            let answered = tokio::time::timeout(shared.patience, work).instrument(span).await;
            let mut answered = answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("the command took too long")));
            if let Ok(id) = MetadataValue::<Ascii>::try_from(request_id) {
                let metadata = match &mut answered {
                    Ok(response) => response.metadata_mut(),
                    Err(status) => status.metadata_mut(),
                };
                metadata.insert(REQUEST_ID, id);
            }
            answered
        })
    }
}

async fn answer(
    gateway: &Gateway,
    path: &str,
    request: Request<Bytes>,
    request_id: String,
) -> Result<Response<Bytes>, Status> {
    let entry = gateway.catalogue.at_path(path).filter(|e| !e.info.authenticator);
    let Some(entry) = entry else { return Err(Status::unimplemented("there is no such command")) };
    tracing::Span::current().record("command", entry.info.name.as_ref());
    let remote = request.remote_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |a| a.ip().to_canonical());
    let (metadata, _, message) = request.into_parts();
    let principal = identify(gateway, path, &metadata, &message, remote).await?;
    match perform(gateway, &principal, entry, &metadata, message, remote, request_id).await {
        Ok(bytes) => Ok(Response::new(bytes)),
        Err(mut error) => {
            tracing::debug!(code = error.code, text = error.full_text(), "refused");
            if !principal.is_root_admin() {
                error.internal_text = None;
            }
            Err(told(error))
        }
    }
}

/// The status of an error; what was refused for overload says when to repeat it.
fn told(error: ApiError) -> Status {
    let overloaded = error.code == 503;
    let status = Status::from(error);
    if !overloaded {
        return status;
    }
    let details = ErrorDetails::with_retry_info(Some(retry_after()));
    Status::with_error_details_and_metadata(status.code(), status.message(), details, status.metadata().clone())
}

async fn perform(
    gateway: &Gateway,
    principal: &Principal,
    entry: &Entry,
    metadata: &MetadataMap,
    message: Bytes,
    remote: IpAddr,
    request_id: String,
) -> Result<Bytes, ApiError> {
    gateway.admit(principal, entry, remote).await.map_err(|kept| match kept {
        Kept::Denied | Kept::Unavailable => ApiError::unauthenticated(UNVERIFIED),
        Kept::Failed(error) => error,
    })?;
    let _pass = gateway.gates.pass(principal, entry).await?;
    let none = crate::query::Query::default();
    let key = idempotency::key(text(metadata, IDEMPOTENCY_KEY), &none)?;
    let behalf = OnBehalf {
        request_id,
        remote_address: remote.to_string(),
        idempotency_key: key.map(str::to_owned),
        request_hash: if key.is_some() { idempotency::message_hash(&entry.info.name, &message) } else { Vec::new() },
    };
    let bytes = gateway.call(principal, entry, behalf, message).await?;
    render::redact(&gateway.catalogue, entry.output, bytes, principal.role_type())
}

async fn identify(
    gateway: &Gateway,
    path: &str,
    metadata: &MetadataMap,
    message: &[u8],
    remote: IpAddr,
) -> Result<Arc<Principal>, Status> {
    let refused = || Status::from(ApiError::unauthenticated(UNVERIFIED));
    let given = |name| text(metadata, name).ok_or_else(refused);
    let (api_key, expires, signature) = (given(API_KEY)?, given(EXPIRES)?, given(SIGNATURE)?);
    let until: i64 = expires.parse().map_err(|_| refused())?;
    let now = now_micros() / 1_000_000;
    if until < now || until > now + FURTHEST {
        return Err(refused());
    }
    let signature = STANDARD.decode(signature).map_err(|_| refused())?;
    let found = gateway.authority.by_api_key(api_key, remote).await.map_err(|mut error| {
        error.internal_text = None;
        told(error)
    })?;
    let signed = to_sign(path, expires, message);
    found
        .filter(|p| p.is_enabled())
        .filter(|p| p.key().is_some_and(|key| hmac::verify(key.sha256(), signed.as_bytes(), &signature).is_ok()))
        .ok_or_else(refused)
}

/// What is signed.
fn to_sign(path: &str, expires: &str, message: &[u8]) -> String {
    let digest = STANDARD.encode(digest::digest(&digest::SHA256, message));
    format!("{path}\n{expires}\n{digest}")
}

fn text<'m>(metadata: &'m MetadataMap, name: &str) -> Option<&'m str> {
    metadata.get(name)?.to_str().ok()
}
