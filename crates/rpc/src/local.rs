//! The in-process network: tonic over in-memory pipes, so that one process and many run the same code.

use crate::peer::Peer;
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

/// Bytes that fit into a pipe before the writer waits.
const PIPE: usize = 256 * 1024;

/// Connects clients with the listeners of this process.
#[derive(Default)]
pub struct LocalNet {
    ports: Mutex<HashMap<String, Port>>,
}

struct Port {
    dial: mpsc::UnboundedSender<DuplexStream>,
    /// Until the service listens.
    waiting: Option<mpsc::UnboundedReceiver<DuplexStream>>,
}

impl Port {
    fn new() -> Port {
        let (dial, waiting) = mpsc::unbounded_channel();
        Port { dial, waiting: Some(waiting) }
    }
}

impl LocalNet {
    /// An empty network.
    pub fn new() -> Arc<LocalNet> {
        Arc::default()
    }

    /// The incoming connections of `service`. Listening again replaces a listener that ended.
    pub fn listen(&self, service: &str) -> LocalIncoming {
        let mut ports = self.ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let port = ports.entry(service.to_owned()).or_insert_with(Port::new);
        let waiting = port.waiting.take().unwrap_or_else(|| {
            *port = Port::new();
            // A new port always has its receiver.
            port.waiting.take().unwrap_or_else(|| mpsc::unbounded_channel().1)
        });
        LocalIncoming(waiting)
    }

    /// A channel to `service`; connects when first used, and again after the service restarted.
    pub fn channel(self: &Arc<Self>, service: &'static str) -> Channel {
        let net = self.clone();
        Endpoint::from_static("http://local")
            .initial_connection_window_size(8 * 1024 * 1024)
            .initial_stream_window_size(1024 * 1024)
            .connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
                let dialled = net.dial(service);
                async move { dialled.map(TokioIo::new) }
            }))
    }

    fn dial(&self, service: &str) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(PIPE);
        let mut ports = self.ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let port = ports.entry(service.to_owned()).or_insert_with(Port::new);
        port.dial
            .send(far)
            .map_err(|_| io::Error::new(io::ErrorKind::ConnectionRefused, format!("{service} isn't running")))?;
        Ok(near)
    }
}

/// Incoming in-process connections, for `Server::serve_with_incoming`.
pub struct LocalIncoming(mpsc::UnboundedReceiver<DuplexStream>);

impl Stream for LocalIncoming {
    type Item = io::Result<LocalIo>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|io| io.map(|io| Ok(LocalIo(io))))
    }
}

/// The server's end of an in-process connection.
pub struct LocalIo(DuplexStream);

impl Connected for LocalIo {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer::InProcess
    }
}

impl AsyncRead for LocalIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for LocalIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
