//! A proxy before MariaDB that loses the answer to a COMMIT, or the COMMIT itself.

use std::sync::Arc;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The request: nothing takes place.
    Commit,
    /// The answer: it took place.
    Answer,
}

#[derive(Default)]
struct State {
    armed: Option<(usize, Loss)>,
    lost: bool,
}

/// A proxy.
#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    pub async fn start(server: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = Proxy { port: listener.local_addr().unwrap().port(), state: Arc::default() };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().carry(client, server));
            }
        });
        proxy
    }

    /// Loses the n-th COMMIT from now on, counted from 0.
    pub fn arm(&self, n: usize, loss: Loss) {
        *self.state.lock().unwrap() = State { armed: Some((n, loss)), lost: false };
    }

    /// Loses nothing from now on.
    pub fn disarm(&self) {
        self.state.lock().unwrap().armed = None;
    }

    /// Whether one was lost since.
    pub fn lost(&self) -> bool {
        self.state.lock().unwrap().lost
    }

    fn met(&self) -> Option<Loss> {
        let mut state = self.state.lock().unwrap();
        match state.armed {
            Some((0, loss)) => {
                state.armed = None;
                state.lost = true;
                Some(loss)
            }
            Some((n, loss)) => {
                state.armed = Some((n - 1, loss));
                None
            }
            None => None,
        }
    }

    async fn carry(self, client: TcpStream, server: u16) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let answers = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut buffer = vec![0u8; 64 * 1024];
        while let Ok(n) = from_client.read(&mut buffer).await {
            if n == 0 {
                break;
            }
            let packet = &buffer[..n];
            let loss = if packet.ends_with(b"\x03COMMIT") { self.met() } else { None };
            match loss {
                Some(Loss::Commit) => break,
                Some(Loss::Answer) => {
                    answers.abort();
                    let _ = to_server.write_all(packet).await;
                    // The server must have read it before the connection breaks.
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    break;
                }
                None => {
                    if to_server.write_all(packet).await.is_err() {
                        break;
                    }
                }
            }
        }
        answers.abort();
    }
}
