//! Accepting TLS connections.

use crate::server::ServerTls;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Handshakes at the same time: a storm of reconnecting agents waits in the kernel's queue, not in our memory.
const HANDSHAKES: usize = 64;
/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections whose handshake is done, for `Server::serve_with_incoming`.
pub struct TlsIncoming {
    ready: mpsc::Receiver<TlsStream<TcpStream>>,
    _stop: DropGuard,
}

impl TlsIncoming {
    /// Accepts on `listener` until dropped.
    pub fn new(listener: TcpListener, tls: ServerTls) -> TlsIncoming {
        let (send, ready) = mpsc::channel(HANDSHAKES);
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, tls, send, stop.clone()));
        TlsIncoming { ready, _stop: stop.drop_guard() }
    }
}

impl Stream for TlsIncoming {
    type Item = io::Result<TlsStream<TcpStream>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|stream| stream.map(Ok))
    }
}

async fn accept(
    listener: TcpListener,
    tls: ServerTls,
    ready: mpsc::Sender<TlsStream<TcpStream>>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or the peer was gone already: neither is cured by spinning.
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let config = match tls.config() {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(%error, "a connection is dropped");
                continue;
            }
        };
        let ready = ready.clone();
        tokio::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(PATIENCE, TlsAcceptor::from(config).accept(stream)).await {
                Ok(Ok(stream)) => drop(ready.send(stream).await),
                Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
                Err(_) => tracing::debug!("a handshake took too long"),
            }
        });
    }
}
