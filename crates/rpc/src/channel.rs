//! The way to a service: over memory within one process, or to whichever of its replicas lives.
//!
//! Replicas are followed through membership. A call goes to the one with the fewest calls under way; one that can't be
//! reached rests for a while; one that is leaving gets no new calls. A call that certainly wasn't begun goes to another
//! replica. One whose answer was lost goes to another only when a repeat does no harm: it carries a step key, or it is
//! marked [`Repeatable`]; else the caller is told that it may have been done.

use bytes::Bytes;
use coord::{Coord, Member, Notice};
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use std::collections::HashSet;
use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Service, ServiceExt as _};

/// Topic on which a replica that is to end says so, by its member id.
pub const LEAVING: &str = "leaving";
/// How long a call waits for a replica that can be reached.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long one that can't be reached rests, at first and at most.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// How long calls under way may go on once their replica is no member any more.
const GRACE: Duration = Duration::from_millis(500);

type BoxError = Box<dyn StdError + Send + Sync>;
type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Marks a request (in its extensions) that may be done twice: it only reads, or its receiver knows a repeat by a key.
#[derive(Clone, Copy, Debug)]
pub struct Repeatable;

/// Marks a request (in its extensions) whose messages are a stream: it goes to one replica as it comes, and is never
/// repeated.
#[derive(Clone, Copy, Debug)]
pub struct Streamed;

/// Makes a channel to a replica's address.
pub type Dial = Arc<dyn Fn(&str) -> Result<Channel, contract::ApiError> + Send + Sync>;

/// A channel to a service. Cheap to clone.
#[derive(Clone)]
pub struct PeerChannel(Way);

#[derive(Clone)]
enum Way {
    One(Channel),
    Replicas(Arc<Replicas>),
}

impl From<Channel> for PeerChannel {
    fn from(channel: Channel) -> Self {
        PeerChannel(Way::One(channel))
    }
}

impl PeerChannel {
    /// To the living replicas of `service`. Also gives the work of following them, which the caller runs.
    pub fn to_replicas(
        service: &'static str,
        coord: &Coord,
        dial: Dial,
    ) -> (PeerChannel, impl Future<Output = ()> + Send + 'static) {
        let replicas = Arc::new(Replicas { service, dial, known: watch::Sender::new(Vec::new()) });
        // Subscribed before the members are read: nobody leaves unnoticed in between.
        let (leaving, members) = (coord.subscribe(LEAVING), coord.members());
        replicas.follow_members(&members.borrow());
        let follow = follow(replicas.clone(), members, leaving);
        (PeerChannel(Way::Replicas(replicas)), follow)
    }
}

async fn follow(
    replicas: Arc<Replicas>,
    mut members: watch::Receiver<Arc<Vec<Member>>>,
    mut leaving: coord::Subscription,
) {
    loop {
        tokio::select! {
            changed = members.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = members.borrow_and_update().clone();
                replicas.follow_members(&now);
            }
            // A lost notice costs little: the connection itself says that it ends.
            notice = leaving.next() => if let Notice::Message(id) = notice {
                replicas.is_leaving(&id);
            },
        }
    }
}

/// The replicas of one service.
struct Replicas {
    service: &'static str,
    dial: Dial,
    known: watch::Sender<Vec<Arc<Replica>>>,
}

struct Replica {
    id: String,
    address: String,
    channel: Channel,
    under_way: AtomicUsize,
    leaving: AtomicBool,
    rest: Mutex<Rest>,
    /// Fires when calls under way can't be answered any more.
    gone: CancellationToken,
}

/// Until when a replica isn't tried, and how long the next rest is.
#[derive(Clone, Copy)]
struct Rest {
    until: Option<Instant>,
    next: Duration,
}

impl Replica {
    fn is_resting(&self, now: Instant) -> bool {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).until.is_some_and(|until| until > now)
    }

    fn failed(&self) {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // Calls that fail together are one failure.
        if rest.until.is_none_or(|until| until <= now) {
            rest.until = Some(now + rest.next);
            rest.next = (rest.next * 2).min(REST.1);
        }
    }

    fn worked(&self) {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Rest { until: None, next: REST.0 };
    }
}

/// Counts a call as under way.
struct UnderWay<'r>(&'r Replica);

impl<'r> UnderWay<'r> {
    fn at(replica: &'r Replica) -> Self {
        replica.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(replica)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a try ended without an answer.
enum Missed {
    /// Certainly not begun.
    NotBegun(BoxError),
    /// Begun, for all we know.
    Lost(BoxError),
}

impl Replicas {
    fn follow_members(&self, members: &[Member]) {
        self.known.send_if_modified(|known| {
            let wanted: Vec<(&str, &str)> = members
                .iter()
                .filter(|m| m.service == self.service)
                .filter_map(|m| Some((m.id.as_str(), m.address.as_deref()?)))
                .collect();
            let before = known.len();
            known.retain(|replica| {
                let stays = wanted.iter().any(|(id, address)| *id == replica.id && *address == replica.address);
                if !stays {
                    retire(replica.gone.clone());
                }
                stays
            });
            let mut changed = known.len() != before;
            for (id, address) in wanted {
                if known.iter().any(|r| r.id == id) {
                    continue;
                }
                match (self.dial)(address) {
                    Ok(channel) => {
                        known.push(Arc::new(Replica::new(id, address, channel)));
                        changed = true;
                    }
                    Err(error) => tracing::warn!(id, address, %error, "a replica can't be dialled"),
                }
            }
            changed
        });
    }

    fn is_leaving(&self, id: &str) {
        for replica in self.known.borrow().iter().filter(|r| r.id == id) {
            replica.leaving.store(true, Ordering::Relaxed);
        }
    }

    /// The best replica that wasn't tried; one that is leaving or resting only when there is no other.
    fn pick(&self, tried: &HashSet<String>) -> Option<Arc<Replica>> {
        let (now, draw) = (Instant::now(), rand::random::<u32>());
        let known = self.known.borrow();
        known
            .iter()
            .enumerate()
            .filter(|(_, r)| !tried.contains(&r.id) && !r.is_resting(now))
            .min_by_key(|(i, r)| {
                let turn = u32::try_from(*i).unwrap_or(0).wrapping_add(draw) % u32::try_from(known.len()).unwrap_or(1);
                (r.leaving.load(Ordering::Relaxed), r.under_way.load(Ordering::Relaxed), turn)
            })
            .map(|(_, r)| r.clone())
    }

    async fn call(self: Arc<Self>, request: Request) -> Result<Response, BoxError> {
        if request.extensions().get::<Streamed>().is_some() {
            return self.stream(request).await;
        }
        let (parts, body) = request.into_parts();
        // Most calls between services are unary: what is sent is a message, held until it is answered.
        let body = body.collect().await?.to_bytes();
        let repeatable = parts.extensions.get::<Repeatable>().is_some() || parts.headers.contains_key(telemetry::JOB);
        let deadline = Instant::now() + PATIENCE;
        let mut tried = HashSet::new();
        let mut last: Option<BoxError> = None;
        loop {
            let Some(replica) = self.pick(&tried) else {
                tried.clear();
                if !self.wait(deadline).await {
                    let why = last.map_or_else(|| "no replica is known".to_owned(), |e| told(&*e));
                    let text = format!("the service {} can't be reached: {why}", self.service);
                    return Err(Status::unavailable(text).into());
                }
                continue;
            };
            match replica.attempt(&parts, &body).await {
                Ok(response) => return Ok(response),
                Err(Missed::NotBegun(error)) => last = Some(error),
                Err(Missed::Lost(error)) if repeatable => last = Some(error),
                Err(Missed::Lost(error)) => {
                    let why = told(&*error);
                    let text = format!(
                        "the answer of the service {} was lost ({why}): the command may have been done; look before you repeat it",
                        self.service
                    );
                    return Err(Status::new(Code::DataLoss, text).into());
                }
            }
            tried.insert(replica.id.clone());
        }
    }

    /// Sends a stream to the best replica. What becomes of it then, it says itself.
    async fn stream(&self, request: Request) -> Result<Response, BoxError> {
        let (deadline, tried) = (Instant::now() + PATIENCE, HashSet::new());
        let replica = loop {
            match self.pick(&tried) {
                Some(replica) => break replica,
                None if self.wait(deadline).await => {}
                None => {
                    let text = format!("the service {} can't be reached: no replica is known", self.service);
                    return Err(Status::unavailable(text).into());
                }
            }
        };
        let _under_way = UnderWay::at(&replica);
        let mut channel = replica.channel.clone();
        let sent = async { channel.ready().await?.call(request).await };
        let ended = sent.await;
        match &ended {
            Ok(_) => replica.worked(),
            Err(_) => replica.failed(),
        }
        ended.map_err(Into::into)
    }

    /// Waits a moment, or until other replicas are known. False when the deadline has passed.
    async fn wait(&self, deadline: Instant) -> bool {
        let now = Instant::now();
        if now >= deadline {
            return false;
        }
        let mut known = self.known.subscribe();
        known.mark_unchanged();
        let pause = REST.0.min(deadline - now);
        // A replica that rests is tried again after its rest; a new one at once.
        let _ = tokio::time::timeout(pause, known.changed()).await;
        true
    }
}

impl Replica {
    fn new(id: &str, address: &str, channel: Channel) -> Replica {
        Replica {
            id: id.to_owned(),
            address: address.to_owned(),
            channel,
            under_way: AtomicUsize::new(0),
            leaving: AtomicBool::new(false),
            rest: Mutex::new(Rest { until: None, next: REST.0 }),
            gone: CancellationToken::new(),
        }
    }

    async fn attempt(&self, parts: &http::request::Parts, body: &Bytes) -> Result<Response, Missed> {
        let _under_way = UnderWay::at(self);
        let mut request = http::Request::new(Body::new(http_body_util::Full::new(body.clone())));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.version_mut() = parts.version;
        *request.headers_mut() = parts.headers.clone();
        *request.extensions_mut() = parts.extensions.clone();
        let mut channel = self.channel.clone();
        let sent = async {
            let ready = channel.ready().await.map_err(|e| Missed::NotBegun(e.into()))?;
            ready
                .call(request)
                .await
                .map_err(|e| if begun(&e) { Missed::Lost(e.into()) } else { Missed::NotBegun(e.into()) })
        };
        let ended = tokio::select! {
            biased;
            ended = sent => ended,
            () = self.gone.cancelled() => Err(Missed::Lost("the replica is gone".into())),
        };
        match &ended {
            Ok(_) => self.worked(),
            Err(_) => self.failed(),
        }
        ended
    }
}

/// Calls under way may have a moment: a replica that leaves in order has answered, its answers are on the way.
fn retire(gone: CancellationToken) {
    tokio::spawn(async move {
        tokio::time::sleep(GRACE).await;
        gone.cancel();
    });
}

/// Whether a failed call may have reached a handler.
fn begun(error: &tonic::transport::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return false;
        }
        if let Some(http) = error.downcast_ref::<hyper::Error>()
            && http.is_canceled()
        {
            return false; // it never left this process
        }
        if let Some(h2) = error.downcast_ref::<h2::Error>()
            && h2.is_remote()
        {
            // RFC 9113, 8.7 and 6.8: a refused stream wasn't processed, nor was one beyond the last that an orderly GOAWAY
            // names; those up to it end otherwise.
            let refused = h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            if refused || (h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR)) {
                return false;
            }
        }
        cause = error.source();
    }
    true
}

/// The error with its causes.
fn told(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Service<Request> for PeerChannel {
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.0 {
            Way::One(channel) => channel.poll_ready(cx).map_err(Into::into),
            Way::Replicas(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match &mut self.0 {
            Way::One(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { answer.await.map_err(Into::into) })
            }
            Way::Replicas(replicas) => Box::pin(replicas.clone().call(request)),
        }
    }
}

impl std::fmt::Debug for PeerChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Way::One(_) => f.write_str("PeerChannel"),
            Way::Replicas(r) => write!(f, "PeerChannel({}: {})", r.service, r.known.borrow().len()),
        }
    }
}
