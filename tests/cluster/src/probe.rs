//! Whether something answers.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How to find out whether a part serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// This path answers 200.
    Http {
        /// Where.
        address: SocketAddr,
        /// "/readyz".
        path: String,
    },
    /// Something accepts connections.
    Tcp {
        /// Where.
        address: SocketAddr,
    },
    /// The process is there: nothing more can be seen of it from outside.
    Alive,
}

impl Probe {
    pub(crate) fn http(address: SocketAddr, path: &str) -> Probe {
        Probe::Http { address, path: path.to_owned() }
    }

    /// Asks.
    pub async fn ask(&self) -> bool {
        match self {
            Probe::Http { address, path } => status(*address, path).await == Some(200),
            Probe::Tcp { address } => {
                tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await.is_ok_and(|c| c.is_ok())
            }
            Probe::Alive => true,
        }
    }
}

/// The status of a GET over plain HTTP.
async fn status(address: SocketAddr, path: &str) -> Option<u16> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        String::from_utf8_lossy(&answer).split_whitespace().nth(1)?.parse().ok()
    };
    tokio::time::timeout(PATIENCE, ask).await.ok().flatten()
}
