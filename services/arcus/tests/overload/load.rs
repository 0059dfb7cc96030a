//! A load as clients make it who don't wait for each other, over kept connections, cheap enough that the server is what
//! gets tired.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Whoever sends a load: an address of its own, and a request that was signed once.
pub struct Source {
    server: SocketAddr,
    from: Ipv4Addr,
    request: Vec<u8>,
    idle: Mutex<Vec<TcpStream>>,
    under_way: AtomicUsize,
}

impl Source {
    /// Sends this signed query.
    pub fn new(server: SocketAddr, from: Ipv4Addr, query: &str) -> Arc<Source> {
        let request = format!("GET /client/api?{query} HTTP/1.1\r\nhost: {server}\r\n\r\n").into_bytes();
        Arc::new(Source { server, from, request, idle: Mutex::default(), under_way: AtomicUsize::new(0) })
    }

    /// Requests that have no answer yet.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Sends the request once more. It is under way from this call on, not from when it is first polled.
    pub fn ask(self: &Arc<Self>) -> impl Future<Output = Answer> + Send + 'static {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let source = self.clone();
        async move { source.answer().await }
    }

    async fn answer(&self) -> Answer {
        let kept = self.idle.lock().unwrap().pop();
        let answered = match kept {
            Some(stream) => match exchange(stream, &self.request).await {
                // The server may close what nobody used for a while.
                Err(_) => exchange(self.connect().await, &self.request).await,
                answered => answered,
            },
            None => exchange(self.connect().await, &self.request).await,
        };
        let (answer, stream) = answered.expect("an answer");
        self.idle.lock().unwrap().push(stream);
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(self.from.into(), 0)).unwrap();
        let stream = socket.connect(self.server).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

async fn exchange(mut stream: TcpStream, request: &[u8]) -> io::Result<(Answer, TcpStream)> {
    stream.write_all(request).await?;
    let mut read = Vec::with_capacity(2048);
    let end = loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let mut body = read.split_off(end);
    let head = String::from_utf8_lossy(&read).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let mut answer = Answer { status, head, body: Vec::new() };
    let length: usize =
        answer.header("content-length").and_then(|v| v.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    answer.body = body;
    Ok((answer, stream))
}

/// What became of a load.
#[derive(Debug, Default)]
pub struct Tally {
    pub done: AtomicUsize,
    pub refused: AtomicUsize,
    /// The different bodies of refusals; of each whether it had a good `Retry-After` is asserted when it comes.
    pub refusals: Mutex<BTreeSet<Vec<u8>>>,
}

impl Tally {
    /// Notes an answer; one that is neither done nor refused as it should be fails the test.
    pub fn note(&self, answer: Answer) {
        match answer.status {
            200 => self.done.fetch_add(1, Ordering::SeqCst),
            503 => {
                let after: Option<u64> = answer.header("retry-after").and_then(|v| v.parse().ok());
                assert!(after.is_some_and(|s| (1..=3).contains(&s)), "{answer:?}");
                assert!(answer.header("x-description").is_some_and(|d| !d.is_empty()), "{answer:?}");
                self.refusals.lock().unwrap().insert(answer.body);
                self.refused.fetch_add(1, Ordering::SeqCst)
            }
            _ => panic!("{answer:?}"),
        };
    }

    pub fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

/// What a closed loop of `each` clients of every source carries, in requests a second. None is refused.
pub async fn sustainable(sources: &[Arc<Source>], each: usize, lasting: Duration) -> f64 {
    let (begun, mut clients) = (Instant::now(), JoinSet::new());
    for source in sources.iter().flat_map(|s| std::iter::repeat_n(s, each)) {
        let source = source.clone();
        clients.spawn(async move {
            let mut done = 0usize;
            while begun.elapsed() < lasting {
                let answer = source.ask().await;
                assert_eq!(answer.status, 200, "{answer:?}");
                done += 1;
            }
            done
        });
    }
    let done: usize = clients.join_all().await.into_iter().sum();
    done as f64 / begun.elapsed().as_secs_f64()
}

/// A load that was offered.
pub struct Offered {
    /// Requests sent.
    pub sent: usize,
    /// How long that took.
    pub took: Duration,
    /// Requests that weren't sent when they were due, because their source had too many under way; they were sent later.
    pub held: usize,
    /// Those that have no answer yet.
    pub under_way: JoinSet<()>,
}

/// Offers `rate` requests a second for that long, whatever becomes of them, from all sources in turn. `most`: a source has
/// no more than so many under way. All of them are sent, if later on a machine that is busy otherwise.
pub async fn offer(sources: &[Arc<Source>], rate: f64, lasting: Duration, most: usize, tally: &Arc<Tally>) -> Offered {
    let all = (rate * lasting.as_secs_f64()) as usize;
    let (begun, mut under_way) = (Instant::now(), JoinSet::new());
    let (mut sent, mut held) = (0, 0);
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while sent < all {
        ticks.tick().await;
        let due = ((rate * begun.elapsed().as_secs_f64()) as usize).min(all);
        while sent < due {
            let source = &sources[sent % sources.len()];
            if source.under_way() >= most {
                held += 1;
                break;
            }
            let (asked, tally) = (source.ask(), tally.clone());
            under_way.spawn(async move { tally.note(asked.await) });
            sent += 1;
        }
        while let Some(ended) = under_way.try_join_next() {
            ended.unwrap();
        }
    }
    Offered { sent, took: begun.elapsed(), held, under_way }
}
