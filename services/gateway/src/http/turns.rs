//! Who reads next. What has arrived stays in the kernel until its connection's turn comes, and turns go round the addresses:
//! however much one sends, others are read at once.
//!
//! Reading is the beginning of all work that no gate has admitted yet: decryption, parsing, the check of the signature, the
//! refusal. A turn lasts until its connection waits for something, so there is only a handful of these at a time.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use lanes::{Gate, Permit, Rules, Shed};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::gates::{cores, site};

/// The turns of one port.
pub struct Turns(Gate<IpAddr>);

impl Turns {
    /// Enough of them to keep the cores busy; one address never has the last.
    pub fn new() -> Turns {
        let places = cores() * 2;
        Turns(Gate::new(Rules { share: (places - 1).max(1), ..Rules::places(places) }))
    }

    /// A connection that reads in turn, and what must be polled in its place.
    pub fn connection(&self, stream: TcpStream, peer: IpAddr) -> (InTurn, Slices) {
        let turn = Turn { gate: self.0.clone(), site: site(peer), waiting: None, held: None };
        let turn = Arc::new(Mutex::new(turn));
        (InTurn { stream, turn: turn.clone() }, Slices(turn))
    }
}

/// One connection's turn.
struct Turn {
    gate: Gate<IpAddr>,
    site: IpAddr,
    waiting: Option<BoxFuture<'static, Result<Permit<IpAddr>, Shed>>>,
    held: Option<Permit<IpAddr>>,
}

impl Turn {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.held.is_some() {
            return Poll::Ready(());
        }
        let (gate, site) = (&self.gate, self.site);
        let waiting = self.waiting.get_or_insert_with(|| {
            let gate = gate.clone();
            Box::pin(async move { gate.enter(site).await })
        });
        // Its queues have no bounds: nobody is refused. Connections are what is bounded.
        self.held = ready!(waiting.as_mut().poll(cx)).ok();
        self.waiting = None;
        Poll::Ready(())
    }
}

fn locked(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection of which nothing is read before its turn.
pub struct InTurn {
    stream: TcpStream,
    turn: Arc<Mutex<Turn>>,
}

impl AsyncRead for InTurn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // An idle connection doesn't wait for a turn, but for its peer.
        ready!(self.stream.poll_read_ready(cx))?;
        ready!(locked(&self.turn).poll(cx));
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for InTurn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Ends a connection's turn whenever it waits for something.
pub struct Slices(Arc<Mutex<Turn>>);

impl Slices {
    /// Polls what a connection does.
    pub async fn of(self, mut connection: BoxFuture<'static, ()>) {
        std::future::poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            let held = locked(&self.0).held.take();
            drop(held); // passes the turn on, so not under the lock
            polled
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A connection from this address, both ends.
    async fn pair(listener: &TcpListener, turns: &Turns, from: u8) -> (TcpStream, InTurn, Slices) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into()).unwrap();
        let (far, near) = tokio::join!(socket.connect(listener.local_addr().unwrap()), listener.accept());
        let (near, peer) = near.unwrap();
        let (stream, slices) = turns.connection(near, peer.ip());
        (far.unwrap(), stream, slices)
    }

    #[tokio::test]
    async fn turns_go_round_the_addresses() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // Two turns, one of them for an address at most.
        let turns = Turns(Gate::new(Rules { share: 1, ..Rules::places(2) }));
        let held =
            [turns.0.enter(IpAddr::from([127, 0, 0, 2])).await, turns.0.enter(IpAddr::from([127, 0, 0, 4])).await];
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for (n, from) in [2u8, 2, 2, 3].into_iter().enumerate() {
            let (mut far, mut near, slices) = pair(&listener, &turns, from).await;
            let order = order.clone();
            far.write_all(b"x").await.unwrap();
            let reads = async move {
                near.read_u8().await.unwrap();
                order.lock().unwrap().push(from);
                // Nothing more comes: the turn is over while it waits for that.
                drop(far);
                assert!(near.read_u8().await.is_err());
            };
            tasks.spawn(slices.of(Box::pin(reads)));
            testkit::wait_until(|| async { turns.0.stats().waiting == n + 1 }, std::time::Duration::from_secs(30))
                .await;
        }
        drop(held);
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        let order = order.lock().unwrap().clone();
        assert!(order[..2].contains(&3), "{order:?}");
        assert_eq!(turns.0.stats(), lanes::Stats::default());
    }

    #[tokio::test]
    async fn an_idle_connection_has_no_turn() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let turns = Turns::new();
        let (mut far, mut near, slices) = pair(&listener, &turns, 2).await;
        let reads = tokio::spawn(slices.of(Box::pin(async move { assert_eq!(near.read_u8().await.unwrap(), b'x') })));
        tokio::task::yield_now().await;
        assert_eq!(turns.0.stats(), lanes::Stats::default());
        far.write_all(b"x").await.unwrap();
        reads.await.unwrap();
        assert_eq!(turns.0.stats(), lanes::Stats::default());
    }
}
