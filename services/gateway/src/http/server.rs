//! What a port answers, and what it refuses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use config::keys;
use contract::ApiError;
use futures::FutureExt as _;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use ipnet::IpNet;
use telemetry::metrics;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::answer::{Answer, Content};
use super::api::{self, Purpose};
use super::exchange::{self, Exchange, Intake, Unreadable};
use crate::console::{self, Wanted};
use crate::download::{self, Body};
use crate::gates::Queues;
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the request line and headers.
    pub head: usize,
    /// Most bytes of a body.
    pub body: usize,
    /// How long a head or a body may take to arrive, and a connection may be idle.
    pub arrival: Duration,
    /// How long an answer may take.
    pub answer: Duration,
    /// Most connections at a time, of each port.
    pub connections: usize,
    /// Of them, those of one address; trusted proxies aren't counted.
    pub address_connections: usize,
    /// Most bytes of large bodies at a time.
    pub bodies: usize,
    /// How many requests are at work, and may wait.
    pub queues: Queues,
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
            address_connections: 5_000,
            bodies: 64 * 1024 * 1024,
            queues: Queues::default(),
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

/// What answers the requests of one port.
pub struct Server {
    gateway: Arc<Gateway>,
    limits: Limits,
    intake: Intake,
    port: Port,
    requests: metrics::Counters,
    seconds: metrics::Histograms,
}

impl Server {
    /// A server of this port.
    pub fn new(gateway: Arc<Gateway>, limits: Limits, port: Port) -> Server {
        Server {
            gateway,
            intake: Intake::new(&limits),
            limits,
            port,
            requests: metrics::counters("api_requests", "Requests of the query API by command and status"),
            seconds: metrics::histograms("api_request_seconds", "Time to answer requests of the query API"),
        }
    }

    /// What it refuses.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Answers a request. Once the replica is to end, the answer is the connection's last one.
    pub async fn respond(&self, request: Request<Incoming>, peer: IpAddr, stop: &CancellationToken) -> Response<Body> {
        let request_id = uuid::Uuid::now_v7().to_string();
        let span = tracing::info_span!(
            "request",
            request_id,
            command = tracing::field::Empty,
            account = tracing::field::Empty
        );
        telemetry::propagate::follow_headers(&span, request.headers());
        let mut response = self.find(request, peer, request_id).instrument(span).await;
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if !upgraded && (self.gateway.draining.is_cancelled() || stop.is_cancelled()) {
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        response
    }

    async fn find(&self, request: Request<Incoming>, peer: IpAddr, request_id: String) -> Response<Body> {
        if self.port == Port::Client && download::token(request.uri().path()).is_some() {
            let (parts, _) = request.into_parts();
            let token = download::token(parts.uri.path()).unwrap_or_default();
            return self.gateway.downloads.serve(token, &parts, &request_id).await;
        }
        self.route(request, peer, request_id).await.map(Either::Left)
    }

    async fn route(&self, request: Request<Incoming>, peer: IpAddr, request_id: String) -> Response<Full<Bytes>> {
        let (mut parts, body) = request.into_parts();
        let uri = parts.uri.clone(); // shares its bytes
        if self.port == Port::Client
            && let Some(wanted) = Wanted::of(uri.path())
        {
            return Box::pin(self.console(wanted, &mut parts, body, peer, request_id)).await;
        }
        let json = self.gateway.settings.get(keys::JSON_CONTENT_TYPE);
        let purpose = match (self.port, parts.uri.path().trim_end_matches('/')) {
            (Port::Integration, _) | (_, "/client/api") => Purpose::Call,
            (_, "/client/plan") => Purpose::Plan,
            (_, path) => return page(path, &request_id),
        };
        let remote = self.client(peer, &parts.headers);
        let began = Instant::now();
        let limits = &self.limits;
        let read = Exchange::read(&parts, body, remote, request_id.clone(), &self.intake).await;
        let exchange = match read {
            Ok(exchange) => exchange,
            Err(Unreadable(status, text)) => {
                return Answer::text(status, text).into_response(&request_id, &json, false);
            }
        };
        // It holds what was read from the connection: a request that waits does so with its parameters only.
        drop(parts);
        // Boxed: what is below is deep, and most connections are idle.
        let work = self.answer(&exchange, purpose).boxed();
        let answer = match tokio::time::timeout(limits.answer, work).await {
            Ok(answer) => answer,
            Err(_) => {
                let entry = exchange.query.exact("command").and_then(|c| self.gateway.catalogue.command(c));
                let error = match entry {
                    Some(entry) if entry.only_reads() => ApiError::overloaded("the command took too long"),
                    _ => ApiError::unavailable("the command took too long; it may still be done"),
                };
                Answer::error(api::wrapper(&exchange, entry), &error, false, exchange.language)
            }
        };
        self.count(&exchange, &answer, began);
        answer.into_response(&request_id, &json, self.port == Port::Integration)
    }

    /// Serves what is about consoles.
    async fn console(
        &self,
        wanted: Wanted<'_>,
        parts: &mut Parts,
        body: Incoming,
        peer: IpAddr,
        request_id: String,
    ) -> Response<Full<Bytes>> {
        let (gateway, remote) = (&self.gateway, self.client(peer, &parts.headers));
        match wanted {
            Wanted::Socket => console::socket(gateway, parts, remote, &request_id).await,
            Wanted::File(name) => console::file(gateway, name, &request_id).await,
            Wanted::Page => match Exchange::read(parts, body, remote, request_id.clone(), &self.intake).await {
                Ok(exchange) => console::page(gateway, &exchange, &parts.headers).await,
                Err(Unreadable(status, text)) => Answer::text(status, text).into_response(&request_id, "", false),
            },
        }
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
        // A flood isn't made worse by a line for each refusal.
        let quiet = status == 503 || (status == 200 && entry.is_some_and(|e| e.info.event.is_empty()));
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
