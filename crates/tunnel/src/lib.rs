//! Bytes through streams of messages, from one end to the other, with whoever passes them on in between.
//!
//! A console's messages share an HTTP/2 connection with other calls: with the agents' line, with the commands of the API. A
//! stream that nobody reads would fill the connection's window, and the others would stand still with it. So the ends count:
//! each has at most [`WINDOW`] bytes under way that the other hasn't dealt with ([`TunnelData::credit`]). Whoever passes
//! messages on ([`relay`]) takes them at once, into a queue that can't overflow as long as the ends keep to that; when one
//! doesn't, the tunnel ends.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))] // a test that can't go on has failed

use contract_agent::TunnelData;
use futures::{Stream, StreamExt as _};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};
use tonic::Status;

/// Bytes of one direction that may be under way.
pub const WINDOW: usize = 256 * 1024;
/// What a message counts at least: many small ones are no way around the window.
const LEAST: usize = 256;
/// Messages of one direction that may be under way, those that only carry credit included.
pub const QUEUE: usize = WINDOW / LEAST + 64;
/// Most bytes of a message.
const CHUNK: u32 = 16 * 1024;
/// How long the near end may take for what came before the far one ended.
const REST: Duration = Duration::from_secs(5);

/// Why a tunnel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The near end closed, or doesn't take bytes any more.
    Near,
    /// The far end closed.
    Far,
    /// The way between them broke, or the far end didn't keep to the window.
    Broken(String),
}

fn cost(bytes: usize) -> usize {
    bytes.max(LEAST)
}

/// Carries bytes between `near` and the messages of the far end, until one of both ends. Dropping it ends the tunnel.
pub async fn carry(
    near: impl AsyncRead + AsyncWrite,
    far: impl Stream<Item = Result<TunnelData, Status>>,
    out: mpsc::Sender<TunnelData>,
) -> End {
    let (mut reader, mut writer) = tokio::io::split(near);
    let leave = Semaphore::new(WINDOW);
    let under_way = AtomicUsize::new(0);
    let held = AtomicUsize::new(0);
    let (queue, mut arrived) = mpsc::channel::<Vec<u8>>(QUEUE);

    let send = async {
        let mut buffer = vec![0; CHUNK as usize];
        loop {
            // The semaphore is never closed.
            let Ok(chunk) = leave.acquire_many(CHUNK).await else { return End::Near };
            let read = match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return End::Near,
                Ok(read) => read,
            };
            chunk.forget();
            leave.add_permits(CHUNK as usize - cost(read));
            under_way.fetch_add(cost(read), Ordering::Relaxed);
            let message = TunnelData { data: buffer[..read].to_vec(), ..TunnelData::default() };
            if out.send(message).await.is_err() {
                return End::Far;
            }
        }
    };
    let receive = async {
        let mut far = pin!(far);
        // Owned here: when this ends, what has come is the last.
        let queue = queue;
        loop {
            let message = match far.next().await {
                None => return End::Far,
                Some(Err(status)) => return End::Broken(status.message().to_owned()),
                Some(Ok(message)) => message,
            };
            let credit = message.credit as usize;
            let left = |n: usize| n.checked_sub(credit);
            if under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_err() {
                return End::Broken("the far end gives credit for what it wasn't sent".into());
            }
            leave.add_permits(credit);
            if message.data.is_empty() {
                continue;
            }
            let cost = cost(message.data.len());
            let full = held.fetch_add(cost, Ordering::Relaxed) + cost > WINDOW;
            if full || queue.try_send(message.data).is_err() {
                return End::Broken("the far end sends more than it may".into());
            }
        }
    };
    let write = async {
        let mut owed = 0;
        while let Some(data) = arrived.recv().await {
            if writer.write_all(&data).await.is_err() {
                return;
            }
            held.fetch_sub(cost(data.len()), Ordering::Relaxed);
            owed += cost(data.len());
            if owed >= WINDOW / 4 {
                let credit = u32::try_from(owed).unwrap_or(u32::MAX);
                if out.send(TunnelData { credit, ..TunnelData::default() }).await.is_err() {
                    return;
                }
                owed = 0;
            }
        }
        let _ = writer.shutdown().await; // it may be gone
    };
    let deliver = async {
        let mut write = pin!(write);
        let end = tokio::select! {
            end = receive => end,
            () = &mut write => return End::Near,
        };
        let _ = tokio::time::timeout(REST, write).await; // what it doesn't take by then is lost
        end
    };
    tokio::select! {
        end = send => end,
        end = deliver => end,
    }
}

/// Passes messages on until one of both ends does. Never waits for the receiver, and keeps no more than [`QUEUE`] messages:
/// `to` must be a channel of that size, and a sender that doesn't keep to the window is cut off.
pub async fn relay(from: impl Stream<Item = Result<TunnelData, Status>>, to: mpsc::Sender<TunnelData>) {
    let mut from = pin!(from);
    loop {
        let message = tokio::select! {
            () = to.closed() => return,
            message = from.next() => message,
        };
        let Some(Ok(message)) = message else { return };
        if to.try_send(message).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use tokio::io::{DuplexStream, duplex};

    fn messages(receiver: mpsc::Receiver<TunnelData>) -> impl Stream<Item = Result<TunnelData, Status>> {
        stream::unfold(receiver, |mut r| async move { r.recv().await.map(|m| (Ok(m), r)) })
    }

    /// Two ends with a relay on each way; what the test holds of them.
    fn tunnel() -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<End>, tokio::task::JoinHandle<End>) {
        let ((one, one_near), (two, two_near)) = (duplex(1024), duplex(1024));
        let wire = || {
            let ((out, sent), (passed, come)) = (mpsc::channel(QUEUE), mpsc::channel(QUEUE));
            tokio::spawn(relay(messages(sent), passed));
            (out, messages(come))
        };
        let ((from_one, to_two), (from_two, to_one)) = (wire(), wire());
        let first = tokio::spawn(carry(one_near, to_one, from_one));
        (one, two, first, tokio::spawn(carry(two_near, to_two, from_two)))
    }

    #[tokio::test]
    async fn bytes_come_in_order_both_ways_at_once() {
        let (one, two, ..) = tunnel();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let echo = |mut end: DuplexStream, sent: Vec<u8>| async move {
            let (mut reader, mut writer) = tokio::io::split(&mut end);
            let mut read = vec![0; sent.len()];
            let (wrote, came) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut read));
            wrote.unwrap();
            came.unwrap();
            assert!(read == sent);
            end
        };
        let _ends = tokio::join!(echo(one, sent.clone()), echo(two, sent.clone()));
    }

    #[tokio::test]
    async fn an_end_that_does_not_read_stops_the_other_and_loses_nothing() {
        let (mut one, mut two, ..) = tunnel();
        let mut written = 0;
        // Nobody reads: what fits is a window and the pipes.
        while let Ok(done) = tokio::time::timeout(Duration::from_millis(200), one.write_all(&[7; 1024])).await {
            done.unwrap();
            written += 1024;
            assert!(written <= WINDOW + 8 * 1024, "{written}");
        }
        // The other way isn't touched by that.
        two.write_all(b"still here").await.unwrap();
        let mut text = [0; 10];
        one.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"still here");
        let mut read = vec![0; written];
        two.read_exact(&mut read).await.unwrap();
        assert!(read.iter().all(|b| *b == 7));
    }

    #[tokio::test]
    async fn many_small_messages_fit_the_queues() {
        let (mut one, mut two, ..) = tunnel();
        // Each a message of its own, and nobody reads before it stands still.
        let mut sent = 0;
        while let Ok(done) = tokio::time::timeout(Duration::from_millis(100), one.write_all(b"x")).await {
            done.unwrap();
            sent += 1;
            tokio::task::yield_now().await;
            if sent == 4 * QUEUE {
                break;
            }
        }
        let mut read = vec![0; sent];
        two.read_exact(&mut read).await.unwrap();
        assert!(read.iter().all(|b| *b == b'x'));
    }

    #[tokio::test]
    async fn the_end_of_one_is_the_end_of_both_after_its_last_bytes() {
        let (mut one, mut two, first, second) = tunnel();
        one.write_all(b"last words").await.unwrap();
        drop(one);
        let mut text = Vec::new();
        two.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"last words");
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (End::Near, End::Far));
    }

    #[tokio::test]
    async fn whoever_ignores_the_window_is_cut_off() {
        let data = |bytes: usize| TunnelData { data: vec![0; bytes], ..TunnelData::default() };
        for flood in [vec![data(WINDOW + 1)], vec![data(1); QUEUE + 1]] {
            let (_kept, near) = duplex(16);
            let (out, _sent) = mpsc::channel(QUEUE);
            let far = stream::iter(flood.into_iter().map(Ok)).chain(stream::pending());
            assert!(matches!(carry(near, far, out).await, End::Broken(_)));
        }
        let (_kept, near) = duplex(16);
        let (out, _sent) = mpsc::channel(QUEUE);
        let far = stream::iter([Ok(TunnelData { credit: 1, ..TunnelData::default() })]).chain(stream::pending());
        assert!(matches!(carry(near, far, out).await, End::Broken(_)), "credit for nothing");
        // Nor does a relay keep more than its queue.
        let (to, mut come) = mpsc::channel(QUEUE);
        relay(stream::iter((0..=QUEUE).map(|_| Ok(data(1)))).chain(stream::pending()), to).await;
        let mut kept = 0;
        while come.recv().await.is_some() {
            kept += 1;
        }
        assert_eq!(kept, QUEUE);
    }
}
