//! Consoles: what a driver says where a VM's is, connected with the hub by a stream of its own.

use contract::ApiError;
use contract_agent::TunnelData;
use contract_agent::hub_client::HubClient;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// How long console and hub may take to be reached.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a VM's console speaks RFB, without a password: nobody but this host's root may reach it, and whoever looks was
/// checked by the control plane.
#[derive(Debug)]
pub enum ConsoleEndpoint {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A port of this machine's loopback.
    Loopback(SocketAddr),
    /// Served by this very process.
    Pipe(DuplexStream),
}

trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Connects the console with the hub, and carries bytes until one of both ends, or `ended` fires.
///
/// # Errors
/// 530 when the console can't be reached; 534 when the hub doesn't take the tunnel.
pub(crate) async fn open(
    endpoint: ConsoleEndpoint,
    mut hub: HubClient<Channel>,
    tunnel: String,
    ended: CancellationToken,
) -> Result<(), ApiError> {
    let reached = tokio::time::timeout(PATIENCE, reach(endpoint)).await;
    let near = reached
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|e| ApiError::failed("The console can't be reached on the host").with_internal(e.to_string()))?;
    let (out, messages) = mpsc::channel(tunnel::QUEUE);
    let late = || ApiError::unavailable("the hub doesn't take the tunnel");
    out.send(TunnelData { tunnel, ..TunnelData::default() }).await.map_err(|_| late())?;
    let attached = tokio::time::timeout(PATIENCE, hub.tunnel(ReceiverStream::new(messages))).await;
    let far = attached.map_err(|_| late())??.into_inner();
    tokio::spawn(async move {
        tokio::select! {
            () = ended.cancelled() => {}
            end = tunnel::carry(near, far, out) => tracing::debug!(?end, "a console was closed"),
        }
    });
    Ok(())
}

async fn reach(endpoint: ConsoleEndpoint) -> io::Result<Box<dyn Bytes>> {
    Ok(match endpoint {
        ConsoleEndpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
        ConsoleEndpoint::Loopback(address) if address.ip().is_loopback() => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        ConsoleEndpoint::Loopback(address) => {
            return Err(io::Error::other(format!("{address} is not on this machine")));
        }
        ConsoleEndpoint::Pipe(pipe) => Box::new(pipe),
    })
}
