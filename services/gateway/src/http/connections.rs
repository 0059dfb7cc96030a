//! Connections: let in while there is room, and ended without losing a request.
//!
//! A replica that is to end says so first ([`crate::Serving::drain`]): from then on each answer closes its connection, while
//! new ones are still let in, so that clients and balancers move on by themselves. When the node stops, the port closes;
//! requests under way are finished, and a connection that was used a moment ago gets a moment more.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::ApiError;
use futures::FutureExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use node::Node;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::room::{Place, Room};
use super::server::{Limits, Listener, Port, Server};
use super::stalls::NoStalls;
use super::turns::{InTurn, Turns};
use crate::gates::Refusals;
use crate::gateway::Gateway;

/// After the stop, how long a connection that has just come or was just answered may still send a request.
const LINGER: Duration = Duration::from_secs(1);
/// Connections that the kernel has taken but nobody has accepted when the port closes.
const BACKLOG: usize = 1024;
/// What a connection reads for which there is no room.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
    Content-Type: text/plain; charset=UTF-8\r\nContent-Length: 41\r\n\r\nThere are too many connections: try later";
/// Connections that are being told so at a time; more are just closed.
const TOLD: usize = 1024;

/// One port.
struct Door {
    node: Node,
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    server: Arc<Server>,
    room: Arc<Room>,
    turns: Turns,
    told: Arc<Semaphore>,
    refused: Refusals,
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
    let door = Door {
        node: node.clone(),
        tcp,
        tls: listener.tls.map(TlsAcceptor::from),
        room: Room::new(limits.connections, limits.address_connections, &limits.trusted_proxies),
        turns: Turns::new(),
        server: Arc::new(Server::new(gateway, limits, port)),
        told: Arc::new(Semaphore::new(TOLD)),
        refused: Refusals::default(),
    };
    // Not `node.spawn`: that drops its work at stop, and connections are to finish theirs.
    node.tasks.spawn(door.accept());
    Ok(address)
}

impl Door {
    async fn accept(self) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.node.stop.cancelled() => break,
                accepted = self.tcp.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.let_in(stream, peer),
                Err(error) => {
                    // Out of file descriptors, mostly: some connection has to end first.
                    tracing::warn!(%error, "can't accept connections");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        // Who is connected by now would be cut off by the closing of the port.
        for _ in 0..BACKLOG {
            let Some(Ok((stream, peer))) = self.tcp.accept().now_or_never() else { return };
            self.let_in(stream, peer);
        }
    }

    fn let_in(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(place) = self.room.take(peer.ip()) else { return self.turn_away(stream) };
        // Answers are written at once: nothing is gained by waiting for more.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let (stream, slices) = self.turns.connection(stream, peer.ip());
        let connection = connection(self.node.clone(), stream, peer, self.tls.clone(), self.server.clone(), place);
        self.node.tasks.spawn(slices.of(connection.boxed()));
    }

    /// Tells a connection that there is no room; what is encrypted, or too much, is closed without a word.
    fn turn_away(&self, mut stream: TcpStream) {
        self.refused.note("connections", "full");
        let Ok(permit) = self.told.clone().try_acquire_owned() else { return };
        if self.tls.is_some() {
            return;
        }
        self.node.spawn("turn-away", async move {
            let _permit = permit;
            let told = async {
                stream.write_all(NO_ROOM).await?;
                stream.shutdown().await?;
                // What is unread when a socket closes resets it, and the answer is lost.
                let mut rest = [0; 4096];
                while stream.read(&mut rest).await? > 0 {}
                Ok::<_, std::io::Error>(())
            };
            let _ = tokio::time::timeout(Duration::from_secs(1), told).await; // a courtesy
        });
    }
}

async fn connection(
    node: Node,
    stream: InTurn,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    server: Arc<Server>,
    _place: Place,
) {
    let patience = server.limits().arrival;
    let stream = NoStalls::new(stream, patience);
    let Some(tls) = tls else { return talk(&node, stream, peer, server).await };
    match tokio::time::timeout(patience, tls.accept(stream)).await {
        Ok(Ok(stream)) => talk(&node, stream, peer, server).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

/// When a connection was used last.
struct Used(Mutex<Instant>);

impl Used {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn until(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) + LINGER
    }
}

async fn talk(
    node: &Node,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    server: Arc<Server>,
) {
    let limits = server.limits();
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.arrival).max_buf_size(limits.head.max(8192));
    let used = Arc::new(Used(Mutex::new(Instant::now())));
    let (shared, noted, stop) = (server.clone(), used.clone(), node.stop.clone());
    let service = service_fn(move |request| {
        let (server, used, stop) = (shared.clone(), noted.clone(), stop.clone());
        async move {
            let answer = server.respond(request, peer.ip(), &stop).await;
            used.now();
            Ok::<_, Infallible>(answer)
        }
    });
    // Consoles go on as WebSockets.
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = node.stop.cancelled() => tokio::select! {
            ended = connection.as_mut() => ended,
            () = tokio::time::sleep_until(used.until()) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
