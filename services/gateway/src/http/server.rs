//! Listeners and connections.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use config::keys;
use contract::ApiError;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use node::Node;
use telemetry::metrics;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tracing::Instrument as _;

use super::answer::{Answer, Content};
use super::api::{self, Purpose};
use super::exchange::{self, Exchange, Unreadable};
use crate::gateway::Gateway;

/// A page that says what this is, until there is a console.
const PAGE: &str = "<!doctype html><meta charset=\"utf-8\"><title>Arcus</title><h1>Arcus</h1>\
                    <p>The API is at <code>/client/api</code>.</p>";

/// Where to listen.
#[derive(Clone)]
pub struct Listener {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// With this, HTTPS.
    pub tls: Option<Arc<ServerConfig>>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }
}

/// What is refused as too large, too slow or too many.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most bytes of the request line and headers.
    pub head: usize,
    /// Most bytes of a body.
    pub body: usize,
    /// How long a head or a body may take to arrive, and a connection may be idle.
    pub arrival: Duration,
    /// How long an answer may take.
    pub answer: Duration,
    /// Most connections at a time.
    pub connections: usize,
    /// Proxies that say for whom they ask (`X-Forwarded-For`).
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head: 256 * 1024,
            body: 2 * 1024 * 1024,
            arrival: Duration::from_secs(60),
            answer: Duration::from_secs(300),
            connections: 10_000,
            trusted_proxies: Vec::new(),
        }
    }
}

/// What a listener offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// `/client`.
    Client,
    /// The integration port: any path, everybody is the system account.
    Integration,
}

struct Server {
    gateway: Arc<Gateway>,
    limits: Limits,
    port: Port,
    requests: metrics::Counters,
    seconds: metrics::Histograms,
}

/// Serves until the node stops; then requests under way are finished. Gives the address.
///
/// # Errors
/// When the address can't be had.
pub async fn serve(
    node: &Node,
    gateway: Arc<Gateway>,
    listener: Listener,
    port: Port,
    limits: Limits,
) -> Result<SocketAddr, ApiError> {
    let failed = |e: std::io::Error| ApiError::internal(format!("can't listen on {listener:?}: {e}"));
    let tcp = TcpListener::bind(listener.address).await.map_err(failed)?;
    let address = tcp.local_addr().map_err(failed)?;
    tracing::info!(?port, %address, tls = listener.tls.is_some(), "listening");
    let server = Arc::new(Server {
        gateway,
        limits,
        port,
        requests: metrics::counters("api_requests", "Requests of the query API by command and status"),
        seconds: metrics::histograms("api_request_seconds", "Time to answer requests of the query API"),
    });
    // Not `node.spawn`: that drops its work at stop, and connections are to finish theirs.
    node.tasks.spawn(accept(node.clone(), tcp, listener.tls.map(TlsAcceptor::from), server));
    Ok(address)
}

async fn accept(node: Node, tcp: TcpListener, tls: Option<TlsAcceptor>, server: Arc<Server>) {
    let room = Arc::new(Semaphore::new(server.limits.connections));
    loop {
        let permit = tokio::select! {
            () = node.stop.cancelled() => return,
            permit = room.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else { return };
        let accepted = tokio::select! {
            () = node.stop.cancelled() => return,
            accepted = tcp.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(node.clone(), stream, peer, tls.clone(), server.clone(), permit);
                node.tasks.spawn(connection);
            }
            Err(error) => {
                // Out of file descriptors, mostly: some connection has to end first.
                tracing::warn!(%error, "can't accept connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    node: Node,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    server: Arc<Server>,
    _permit: OwnedSemaphorePermit,
) {
    // Answers are written at once: nothing is gained by waiting for more.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let Some(tls) = tls else { return talk(&node, stream, peer, server).await };
    let patience = server.limits.arrival;
    match tokio::time::timeout(patience, tls.accept(stream)).await {
        Ok(Ok(stream)) => talk(&node, stream, peer, server).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

async fn talk(
    node: &Node,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    server: Arc<Server>,
) {
    let limits = &server.limits;
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.arrival).max_buf_size(limits.head.max(8192));
    let service = service_fn(|request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.respond(request, peer.ip()).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = node.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

impl Server {
    async fn respond(&self, request: Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        let request_id = uuid::Uuid::now_v7().to_string();
        let span = tracing::info_span!(
            "request",
            request_id,
            command = tracing::field::Empty,
            account = tracing::field::Empty
        );
        telemetry::propagate::follow_headers(&span, request.headers());
        self.route(request, peer, request_id).instrument(span).await
    }

    async fn route(&self, request: Request<Incoming>, peer: IpAddr, request_id: String) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let json = self.gateway.settings.get(keys::JSON_CONTENT_TYPE);
        let purpose = match (self.port, parts.uri.path().trim_end_matches('/')) {
            (Port::Integration, _) | (_, "/client/api") => Purpose::Call,
            (_, "/client/plan") => Purpose::Plan,
            (_, path) => return page(path, &request_id),
        };
        let remote = self.client(peer, &parts.headers);
        let began = Instant::now();
        let limits = &self.limits;
        let read = Exchange::read(&parts, body, remote, request_id.clone(), limits.body, limits.arrival).await;
        let exchange = match read {
            Ok(exchange) => exchange,
            Err(Unreadable(status, text)) => {
                return Answer::text(status, text).into_response(&request_id, &json, false);
            }
        };
        // Boxed: what is below is deep, and most connections are idle.
        let work = Box::pin(self.answer(&exchange, purpose));
        let answer = match tokio::time::timeout(limits.answer, work).await {
            Ok(answer) => answer,
            Err(_) => {
                let error = ApiError::unavailable("the command took too long; it may still be done");
                let entry = exchange.query.exact("command").and_then(|c| self.gateway.catalogue.command(c));
                Answer::error(api::wrapper(&exchange, entry), &error, false, exchange.language)
            }
        };
        self.count(&exchange, &answer, began);
        answer.into_response(&request_id, &json, self.port == Port::Integration)
    }

    async fn answer(&self, exchange: &Exchange, purpose: Purpose) -> Answer {
        match self.port {
            Port::Client => api::answer(&self.gateway, exchange, purpose).await,
            Port::Integration => api::trusted(&self.gateway, exchange).await,
        }
    }

    /// Counts and logs a request: what it asked for and how it went, never a value of it.
    fn count(&self, exchange: &Exchange, answer: &Answer, began: Instant) {
        let entry = exchange.query.exact("command").and_then(|c| self.gateway.catalogue.command(c));
        // Names that aren't commands are anybody's text: they don't become labels or fields.
        let command = entry.map_or("unknown", |e| e.info.name.as_ref());
        let status = answer.status.as_u16();
        let taken = began.elapsed();
        let labels = vec![("command", command.to_owned()), ("status", status.to_string())];
        self.requests.get_or_create(&labels).inc();
        self.seconds.get_or_create(&vec![("command", command.to_owned())]).observe(taken.as_secs_f64());
        tracing::Span::current().record("command", command);
        let millis = taken.as_micros() as f64 / 1000.0;
        let quiet = status == 200 && entry.is_some_and(|e| e.info.event.is_empty());
        if quiet {
            tracing::debug!(status, millis, remote = %exchange.remote, "answered");
        } else {
            tracing::info!(status, millis, remote = %exchange.remote, "answered");
        }
    }

    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        exchange::client(peer, headers, &self.limits.trusted_proxies)
    }
}

fn page(path: &str, request_id: &str) -> Response<Full<Bytes>> {
    match path {
        "/client" => Answer::new(StatusCode::OK, PAGE, Content::Html).into_response(request_id, "", false),
        "" => {
            let mut answer = Answer::text(StatusCode::FOUND, "See /client/").into_response(request_id, "", false);
            answer.headers_mut().insert(header::LOCATION, header::HeaderValue::from_static("/client/"));
            answer
        }
        _ => Answer::text(StatusCode::NOT_FOUND, "Nothing here; the API is at /client/api")
            .into_response(request_id, "", false),
    }
}
