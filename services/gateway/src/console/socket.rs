//! The WebSocket of a console, and what is asked of the orchestrator for it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use bytes::{Bytes, BytesMut};
use config::keys;
use contract::ApiError;
use contract_agent::TunnelData;
use contract_infra::consoles_client::ConsolesClient;
use contract_infra::{ConsoleAccess, ConsoleAccessRequest, ConsoleUp, console_up};
use futures::{SinkExt as _, StreamExt as _, stream};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Streaming;
use tonic::metadata::MetadataValue;

use super::page::Page;
use super::places::{self, Place};
use super::token::Token;
use super::{Refused, thumbnail};
use crate::auth::Principal;
use crate::call::{self, OnBehalf};
use crate::gateway::Gateway;
use crate::http::Exchange;
use crate::store::consoles;

/// The one protocol that is spoken with viewers: bytes as they are.
const BINARY: &str = "binary";
/// What the name of a token's protocol begins with.
const TOKEN: &str = "token.";
/// Largest message of a viewer.
const MESSAGE: usize = 1024 * 1024;
/// Bytes between the WebSocket and the tunnel.
const PIPE: usize = 64 * 1024;
/// How long the orchestrator and the host may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a viewer is asked for a sign of life; one that gave none three times is gone.
const PULSE: Duration = Duration::from_secs(20);
/// How long a viewer may take to hear that it is over.
const FAREWELL: Duration = Duration::from_secs(2);

/// Asks whether this caller may have this VM's console now.
pub async fn access(
    gateway: &Gateway,
    principal: &Principal,
    exchange: &Exchange,
    vm: &str,
) -> Result<ConsoleAccess, Refused> {
    let root = principal.is_root_admin();
    let _pass = gateway.gates.pass_to(principal, "orchestrator").await.map_err(|e| Refused::of(&e, root))?;
    let asked = request(principal, exchange.remote, &exchange.request_id, wanted(vm), rpc::Repeatable);
    let answer = tokio::time::timeout(PATIENCE, client(gateway).access(asked)).await;
    let answer = answer.unwrap_or_else(|_| Err(ApiError::unavailable("the orchestrator doesn't answer").into()));
    answer.map(tonic::Response::into_inner).map_err(|status| Refused::of(&status.into(), root))
}

fn wanted(vm: &str) -> ConsoleAccessRequest {
    ConsoleAccessRequest { vm: Some(vm.to_owned()) }
}

fn client(gateway: &Gateway) -> ConsolesClient<rpc::PeerChannel> {
    ConsolesClient::new(gateway.consoles.node.peers.orchestrator())
}

/// A call in the name of this user.
fn request<T>(
    principal: &Principal,
    remote: IpAddr,
    request_id: &str,
    message: T,
    mark: impl Clone + Send + Sync + 'static,
) -> tonic::Request<T> {
    let behalf =
        OnBehalf { request_id: request_id.to_owned(), remote_address: remote.to_string(), ..OnBehalf::default() };
    let caller = call::caller(principal, behalf, "console");
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert_bin(rpc::CALLER, MetadataValue::from_bytes(&caller));
    request.extensions_mut().insert(mark);
    telemetry::propagate::inject(request.metadata_mut());
    request
}

/// Both ways of a console that is open.
struct Opened {
    far: Streaming<TunnelData>,
    out: mpsc::Sender<TunnelData>,
}

/// Opens a VM's console in the name of this user.
async fn dial(
    gateway: &Gateway,
    principal: &Principal,
    remote: IpAddr,
    request_id: &str,
    vm: &str,
) -> Result<Opened, ApiError> {
    let (out, mut messages) = mpsc::channel(tunnel::QUEUE);
    let up = |body| ConsoleUp { body: Some(body) };
    let first = stream::iter([up(console_up::Body::Open(wanted(vm)))]);
    let rest = stream::poll_fn(move |cx| messages.poll_recv(cx)).map(move |data| up(console_up::Body::Data(data)));
    let asked = request(principal, remote, request_id, first.chain(rest), rpc::Streamed);
    let opened = tokio::time::timeout(PATIENCE, client(gateway).open(asked)).await;
    let far = opened.map_err(|_| ApiError::unavailable("the host doesn't answer"))??.into_inner();
    Ok(Opened { far, out })
}

/// Carries a console's bytes in the background; gives the near end of the pipe. It ends when that is dropped.
fn carried(opened: Opened) -> DuplexStream {
    let (near, pipe) = tokio::io::duplex(PIPE);
    tokio::spawn(tunnel::carry(pipe, opened.far, opened.out));
    near
}

/// A picture of a VM's screen, as `cmd=thumbnail` wants it.
pub async fn thumbnail(
    gateway: &Gateway,
    principal: &Principal,
    exchange: &Exchange,
    access: &ConsoleAccess,
) -> Result<Page, Refused> {
    let of = |name: &str, usual: u16| exchange.query.exact(name).and_then(|n| n.parse().ok()).unwrap_or(usual);
    let size = thumbnail::size(of("w", 0), of("h", 0));
    let _place = place(gateway, principal)?;
    let dialled = dial(gateway, principal, exchange.remote, &exchange.request_id, &access.vm_uuid).await;
    let opened = dialled.map_err(|e| Refused::of(&e, principal.is_root_admin()))?;
    let png = thumbnail::take(carried(opened), size).await;
    let png = png.map_err(|e| Refused::new(StatusCode::BAD_GATEWAY, format!("The screen can't be read: {e}")))?;
    Ok(Page::image(png, "image/png"))
}

fn place(gateway: &Gateway, principal: &Principal) -> Result<Place, Refused> {
    let most = gateway.settings.get(keys::CONSOLEPROXY_SESSION_MAX);
    let taken = gateway.consoles.places.take(principal.credentials().account_id, most);
    taken.map_err(|text| {
        places::refused("full");
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })
}

/// Checks a connection and opens its console. Everything that is wrong with a token reads the same.
pub async fn open(
    gateway: &Arc<Gateway>,
    parts: &mut Parts,
    remote: IpAddr,
    request_id: &str,
) -> Result<Response<Full<Bytes>>, Refused> {
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await;
    let upgrade = upgrade.map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "This is for WebSockets"))?;
    let refused = |why| {
        places::refused(why);
        Refused::new(StatusCode::FORBIDDEN, "The console's token isn't good: open the page anew")
    };
    let consoles = &gateway.consoles;
    let sealed = token_of(&parts.headers).ok_or_else(|| refused("token"))?;
    let token = Token::open(&consoles.node.vault, sealed).ok_or_else(|| refused("token"))?;
    if !is_from(&parts.headers, &token.host) {
        return Err(refused("origin"));
    }
    let failed = |error: ApiError| Refused::of(&error, false);
    let principal = gateway.authority.by_user(token.user_id, remote).await.map_err(failed)?;
    let principal = principal.filter(|p| p.is_enabled() && gateway.may_come_from(p, remote));
    let principal = principal.ok_or_else(|| refused("user"))?;
    let place = place(gateway, &principal)?;
    if !consoles::take(&consoles.node.db, &token.nonce, token.expires).await.map_err(failed)? {
        return Err(refused("used"));
    }
    let opened = dial(gateway, &principal, remote, request_id, &token.vm).await.map_err(|error| {
        places::refused("host");
        Refused::of(&error, principal.is_root_admin())
    })?;
    let viewer = Viewer { gateway: gateway.clone(), user_id: token.user_id, vm: token.vm, remote, _place: place };
    let tasks = consoles.node.tasks.clone();
    let upgrade = upgrade.protocols([BINARY]).max_message_size(MESSAGE).max_frame_size(MESSAGE);
    let response = upgrade.on_upgrade(move |socket| async move {
        // Of the replica's tasks: its end waits for the farewell.
        drop(tasks.spawn(viewer.serve(socket, opened)).await);
    });
    let (head, _) = response.into_parts();
    Ok(Response::from_parts(head, Full::default()))
}

/// The token among the protocols that a viewer names.
fn token_of(headers: &HeaderMap) -> Option<&str> {
    let named = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|value| value.split(',')).find_map(|protocol| protocol.trim().strip_prefix(TOKEN))
}

/// Whether a page from this host connects. Browsers always say which page it is.
fn is_from(headers: &HeaderMap, host: &str) -> bool {
    let origin = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok());
    let named = origin.and_then(|origin| origin.strip_prefix("https://").or(origin.strip_prefix("http://")));
    named.is_some_and(|named| named.eq_ignore_ascii_case(host))
}

/// Who looks at which console.
struct Viewer {
    gateway: Arc<Gateway>,
    user_id: i64,
    vm: String,
    remote: IpAddr,
    _place: Place,
}

/// Why a session ended: for metrics, and for the viewer's close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Viewer,
    Host,
    Protocol,
    Idle,
    Silent,
    Denied,
    Ending,
}

impl Why {
    fn word(self) -> &'static str {
        match self {
            Why::Viewer => "viewer",
            Why::Host => "host",
            Why::Protocol => "protocol",
            Why::Idle => "idle",
            Why::Silent => "silent",
            Why::Denied => "denied",
            Why::Ending => "ending",
        }
    }

    /// Code (RFC 6455, 7.4.1) and text of the close frame.
    fn told(self) -> (u16, &'static str) {
        match self {
            Why::Viewer => (1000, ""),
            Why::Host => (1000, "the console ended"),
            Why::Protocol => (1003, "only binary messages are understood"),
            Why::Idle => (1000, "nothing happened for too long"),
            Why::Silent => (1000, "the viewer gave no sign of life"),
            Why::Denied => (1008, "this user may no longer look"),
            Why::Ending => (1001, "this server is ending"),
        }
    }
}

/// When something happened last.
struct Last(Mutex<Instant>);

impl Last {
    fn now() -> Last {
        Last(Mutex::new(Instant::now()))
    }

    fn again(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn ago(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Viewer {
    async fn serve(self, mut socket: WebSocket, opened: Opened) {
        let begun = Instant::now();
        tracing::info!(vm = self.vm, user = self.user_id, remote = %self.remote, "a console is open");
        let why = self.carry(&mut socket, opened).await;
        let (code, reason) = why.told();
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        let _ = tokio::time::timeout(FAREWELL, socket.send(close)).await; // it may be gone
        places::ended(why.word());
        tracing::info!(
            vm = self.vm,
            user = self.user_id,
            why = why.word(),
            seconds = begun.elapsed().as_secs(),
            "a console was closed"
        );
    }

    async fn carry(&self, socket: &mut WebSocket, opened: Opened) -> Why {
        let stop = self.gateway.consoles.node.stop.clone();
        let (mut from_host, mut to_host) = tokio::io::split(carried(opened));
        let (mut sink, mut source) = socket.split();
        let (used, heard) = (Last::now(), Last::now());
        let down = async {
            while let Some(message) = source.next().await {
                heard.again();
                match message {
                    Ok(Message::Binary(bytes)) => {
                        used.again();
                        if to_host.write_all(&bytes).await.is_err() {
                            return Why::Host;
                        }
                    }
                    Ok(Message::Ping(_) | Message::Pong(_)) => {}
                    Ok(Message::Text(_)) => return Why::Protocol,
                    Ok(Message::Close(_)) | Err(_) => return Why::Viewer,
                }
            }
            Why::Viewer
        };
        let up = async {
            let mut pulse = tokio::time::interval(PULSE.min(self.idle().map_or(PULSE, |idle| idle / 4)));
            pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(PIPE / 2);
                let message = tokio::select! {
                    read = from_host.read_buf(&mut buffer) => match read {
                        Ok(0) | Err(_) => return Why::Host,
                        Ok(_) => {
                            used.again();
                            Message::Binary(buffer.split().freeze())
                        }
                    },
                    _ = pulse.tick() => {
                        if let Some(why) = self.judge(&used, &heard).await {
                            return why;
                        }
                        Message::Ping(Bytes::new())
                    }
                };
                if sink.send(message).await.is_err() {
                    return Why::Viewer;
                }
            }
        };
        tokio::select! {
            why = down => why,
            why = up => why,
            () = stop.cancelled() => Why::Ending,
        }
    }

    /// How long nothing may happen; none: for ever.
    fn idle(&self) -> Option<Duration> {
        let millis = self.gateway.settings.get(keys::CONSOLEPROXY_SESSION_TIMEOUT);
        u64::try_from(millis).ok().filter(|millis| *millis > 0).map(Duration::from_millis)
    }

    /// Whether the session is to end.
    async fn judge(&self, used: &Last, heard: &Last) -> Option<Why> {
        if self.idle().is_some_and(|idle| used.ago() >= idle) {
            return Some(Why::Idle);
        }
        if heard.ago() > PULSE * 3 {
            return Some(Why::Silent);
        }
        // Identity may be away for a while: that is no reason to end what it allowed.
        match self.gateway.authority.by_user(self.user_id, self.remote).await {
            Ok(user) if !user.as_ref().is_some_and(|user| user.is_enabled()) => Some(Why::Denied),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_token_is_a_protocol_beside_the_one_that_is_spoken() {
        let of =
            |values: &[&'static str]| token_of(&headers(header::SEC_WEBSOCKET_PROTOCOL, values)).map(str::to_owned);
        assert_eq!(of(&["binary, token.v1.a.b"]).as_deref(), Some("v1.a.b"));
        assert_eq!(of(&["binary", "token.x"]).as_deref(), Some("x"));
        assert_eq!(of(&["binary"]), None);
    }

    #[test]
    fn only_the_page_that_was_served_may_connect() {
        let from = |origin: &'static str| is_from(&headers(header::ORIGIN, &[origin]), "cloud.example:8443");
        assert!(from("https://cloud.example:8443") && from("http://Cloud.Example:8443"));
        for other in
            ["https://evil.example", "https://cloud.example", "null", "", "https://cloud.example:8443.evil.example"]
        {
            assert!(!from(other), "{other}");
        }
        assert!(!is_from(&HeaderMap::new(), "cloud.example:8443"));
    }
}
