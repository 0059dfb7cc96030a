//! A connection with the daemon: many calls at once, told apart by their serial numbers.
//!
//! Three tasks belong to a connection: one writes whole messages, one reads and hands out what came, one sees to keepalives.
//! They end when the last [`Connection`] (or stream of it) is dropped, or when the connection is lost.

use crate::errors::{Error, RemoteError, Result};
use crate::events::{self, Queue};
use crate::keepalive::{self, Keepalive};
use crate::message::{self, Header, Kind, Lost, Message, Program, Status};
use crate::procedure as p;
use crate::streams::{self, Sink, Verdict};
use crate::wire::{Decode, Encode, decode_all};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Where the daemons of Debian, Ubuntu and Enterprise Linux listen: the modular one first, then the one for all.
pub const SOCKETS: [&str; 2] = ["/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"];

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which hypervisor the daemon is asked for.
    pub uri: String,
    /// Calls that wait for their answer at the same moment; more wait here. The daemon stops reading from a client that has five
    /// calls in work (`max_client_requests`), keepalives included: so one less.
    pub max_calls: usize,
    /// Signs of life.
    pub keepalive: Keepalive,
    /// How long a daemon may take until the connection is open. One that has just been started first looks at its guests.
    pub open_within: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            uri: "qemu:///system".into(),
            max_calls: 4,
            keepalive: Keepalive::default(),
            open_within: Duration::from_secs(30),
        }
    }
}

/// A connection with a libvirt daemon. Cheap to clone; clones share the line.
///
/// **Cancelling** (dropping a call's future, e.g. by a time-out) only stops the waiting: the daemon carries the call out, and its
/// answer is thrown away. Nothing on the line gets torn.
///
/// **Losing**: all waiting calls fail with [`Error::Lost`], all streams end. Connecting again is the caller's business.
///
/// **Long calls** (migration, an agent command) hold one of [`Options::max_calls`]: use a connection of their own for them.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

/// Stops the tasks, and by that closes the socket, with the last user.
#[derive(Debug)]
struct Tasks {
    shared: Arc<Shared>,
    handles: Vec<AbortHandle>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.shared.lose(Lost::Closed);
        self.handles.iter().for_each(AbortHandle::abort);
    }
}

/// Bytes for the writer, and who wants to know that they are out.
type Outgoing = (Vec<u8>, Option<oneshot::Sender<()>>);

/// What the tasks and the users share.
#[derive(Debug)]
pub(crate) struct Shared {
    outgoing: mpsc::UnboundedSender<Outgoing>,
    state: Mutex<State>,
    lost: watch::Sender<Option<Lost>>,
    slots: Arc<Semaphore>,
    received: Mutex<Instant>,
}

#[derive(Debug, Default)]
struct State {
    serial: u32,
    calls: HashMap<u32, Waiting>,
    streams: HashMap<u32, Sink>,
    callbacks: HashMap<i32, Arc<Queue>>,
}

impl State {
    fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        self.serial
    }
}

/// A call without an answer yet. It stays here until the answer comes even if nobody waits any more: till then the daemon counts it.
#[derive(Debug)]
struct Waiting {
    program: Program,
    procedure: i32,
    reply: oneshot::Sender<Result<Vec<u8>>>,
    then: Then,
    _slot: OwnedSemaphorePermit,
}

/// What comes with a call's success.
#[derive(Debug)]
pub(crate) enum Then {
    Nothing,
    /// The answer is a callback's number, whose events go here.
    Subscribe(Arc<Queue>),
    /// Pieces of a stream follow.
    Stream(Sink),
}

impl Connection {
    /// Connects, authenticates and opens the hypervisor's driver.
    ///
    /// # Errors
    /// [`Error::Connect`] when nobody listens, [`Error::Authentication`], or what the daemon says.
    pub async fn open(socket: impl AsRef<Path>, options: Options) -> Result<Connection> {
        let path = socket.as_ref();
        let failed = |e: std::io::Error| Error::Connect { path: path.to_owned(), reason: e.to_string() };
        let stream = UnixStream::connect(path).await.map_err(failed)?;
        let connection = Connection::over(stream, options.max_calls);
        let greet = async {
            connection.authenticate().await?;
            // Also makes the daemon begin with its own keepalives, as its configuration says.
            let alive: bool = connection.call::<i32>(p::CONNECT_SUPPORTS_FEATURE, p::FEATURE_KEEPALIVE).await? != 0;
            let () = connection.call(p::CONNECT_OPEN, (Some(options.uri.as_str()), 0_u32)).await?;
            Ok::<bool, Error>(alive)
        };
        let silent = |_| Error::Lost(Lost::Silent(options.open_within));
        if tokio::time::timeout(options.open_within, greet).await.map_err(silent)?? {
            connection.keep_alive(options.keepalive);
        }
        Ok(connection)
    }

    /// The first of [`SOCKETS`] that exists.
    pub fn default_socket() -> Option<PathBuf> {
        SOCKETS.iter().map(PathBuf::from).find(|path| path.exists())
    }

    pub(crate) fn over(stream: UnixStream, max_calls: usize) -> Connection {
        let (read, write) = stream.into_split();
        let (outgoing, frames) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            outgoing,
            state: Mutex::default(),
            lost: watch::Sender::new(None),
            slots: Arc::new(Semaphore::new(max_calls.max(1))),
            received: Mutex::new(Instant::now()),
        });
        let reader = tokio::spawn(read_all(read, shared.clone())).abort_handle();
        let writer = tokio::spawn(write_all(write, frames, shared.clone())).abort_handle();
        let tasks = Arc::new(Tasks { shared: shared.clone(), handles: vec![reader, writer] });
        Connection { shared, _tasks: tasks }
    }

    fn keep_alive(&self, keepalive: Keepalive) {
        // Ends by itself when the connection is lost, which dropping the last user brings about.
        tokio::spawn(keepalive::watch(self.shared.clone(), keepalive));
    }

    async fn authenticate(&self) -> Result<()> {
        const NONE: u32 = 0;
        const POLKIT: u32 = 2;
        let kinds: Vec<u32> = self.call(p::AUTH_LIST, ()).await?;
        if kinds.is_empty() || kinds.contains(&NONE) {
            return Ok(());
        }
        if !kinds.contains(&POLKIT) {
            return Err(Error::Authentication(format!(
                "only kinds {kinds:?} are offered: connect as root, or by polkit"
            )));
        }
        let complete: i32 = self.call(p::AUTH_POLKIT, ()).await?;
        if complete == 1 { Ok(()) } else { Err(Error::Authentication("polkit refuses".into())) }
    }

    /// Says goodbye. Without it the daemon sees the socket close, which does as well.
    ///
    /// # Errors
    /// When the connection is lost already.
    pub async fn close(self) -> Result<()> {
        let closed = self.call::<()>(p::CONNECT_CLOSE, ()).await;
        self.shared.lose(Lost::Closed);
        closed
    }

    /// Waits until the connection is lost and says why.
    pub async fn lost(&self) -> Lost {
        let mut lost = self.shared.lost.subscribe();
        let seen = lost.wait_for(Option::is_some).await.ok().and_then(|lost| lost.clone());
        seen.unwrap_or(Lost::Closed)
    }

    /// Why the connection is lost, if it is.
    pub fn is_lost(&self) -> Option<Lost> {
        self.shared.lost.borrow().clone()
    }

    /// A call of the main program, and its answer.
    pub(crate) async fn call<R: Decode>(&self, procedure: i32, arguments: impl Encode) -> Result<R> {
        self.call_program(Program::REMOTE, procedure, arguments).await
    }

    pub(crate) async fn call_program<R: Decode>(
        &self,
        to: Program,
        procedure: i32,
        arguments: impl Encode,
    ) -> Result<R> {
        let (_, answer) = self.shared.call(to, procedure, arguments, Then::Nothing).await?;
        decode_all(&answer).map_err(Error::Malformed)
    }
}

impl Shared {
    /// Sends a call and waits; gives its serial number and the answer's payload.
    pub(crate) async fn call(
        &self,
        program: Program,
        procedure: i32,
        arguments: impl Encode,
        then: Then,
    ) -> Result<(u32, Vec<u8>)> {
        let header = Header { program, procedure, kind: Kind::Call, serial: 0, status: Status::Ok };
        let mut bytes = message::encode(header, arguments).map_err(Error::BadArgument)?;
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| self.why_lost())?;
        let (reply, answer) = oneshot::channel();
        let serial = {
            let mut state = self.state();
            if self.lost.borrow().is_some() {
                return Err(self.why_lost());
            }
            let serial = state.next_serial();
            message::set_serial(&mut bytes, serial);
            if let Then::Stream(sink) = &then {
                // Now: its first piece may come right behind the answer.
                state.streams.insert(serial, sink.clone());
            }
            state.calls.insert(serial, Waiting { program, procedure, reply, then, _slot: slot });
            // In the lock, so that serial numbers go out in order.
            self.send(bytes, None);
            serial
        };
        let answer = answer.await.unwrap_or_else(|_| Err(self.why_lost()));
        answer.map(|payload| (serial, payload)).inspect_err(|_| self.forget_stream(serial))
    }

    /// A call whose answer interests nobody: tidying up from a `drop`.
    pub(crate) fn call_and_forget(&self, procedure: i32, arguments: impl Encode) {
        let serial = self.state().next_serial();
        let header = Header { program: Program::REMOTE, procedure, kind: Kind::Call, serial, status: Status::Ok };
        if let Ok(bytes) = message::encode(header, arguments) {
            self.send(bytes, None);
        }
    }

    /// Gives bytes to the writer. After a loss they vanish, as they would on the line.
    pub(crate) fn send(&self, bytes: Vec<u8>, written: Option<oneshot::Sender<()>>) {
        let _ = self.outgoing.send((bytes, written));
    }

    pub(crate) fn forget_stream(&self, serial: u32) {
        self.state().streams.remove(&serial);
    }

    /// Tells the daemon that a stream is of no use any more.
    pub(crate) fn abort_stream(&self, procedure: i32, serial: u32) {
        self.forget_stream(serial);
        let abort = message::encode(streams::header(procedure, serial, Status::Error), ());
        if let Ok(bytes) = abort {
            self.send(bytes, None);
        }
    }

    pub(crate) fn forget_callback(&self, callback: i32) {
        self.state().callbacks.remove(&callback);
        self.call_and_forget(p::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, callback);
    }

    /// Ends the connection; the first reason counts.
    pub(crate) fn lose(&self, why: Lost) {
        let first = self.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert(why);
            first
        });
        if first {
            self.slots.close();
            // Dropping the senders wakes everybody who waits.
            let state = std::mem::take(&mut *self.state());
            drop(state);
        }
    }

    pub(crate) fn why_lost(&self) -> Error {
        Error::Lost(self.lost.borrow().clone().unwrap_or(Lost::Closed))
    }

    pub(crate) fn lost(&self) -> watch::Receiver<Option<Lost>> {
        self.lost.subscribe()
    }

    /// When the daemon last gave a sign of life.
    pub(crate) fn received(&self) -> Instant {
        *self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dispatch(&self, message: Message) {
        let header = message.header;
        match header.kind {
            _ if header.program == Program::KEEPALIVE => {
                if header.procedure == p::KEEPALIVE_PING {
                    keepalive::send(self, p::KEEPALIVE_PONG);
                }
            }
            Kind::Reply => self.reply(message),
            Kind::Stream => self.stream(message),
            Kind::Event if header.program == Program::REMOTE => self.event(&message),
            Kind::Event | Kind::Call => tracing::debug!(?header, "libvirt sent what nobody asked for"),
        }
    }

    fn reply(&self, message: Message) {
        let header = message.header;
        let mut state = self.state();
        // Answers of calls made from `drop` are expected to find nobody.
        let Some(waiting) = state.calls.remove(&header.serial) else { return };
        if (waiting.program, waiting.procedure) != (header.program, header.procedure) {
            tracing::warn!(
                ?header,
                procedure = waiting.procedure,
                "libvirt answered another procedure than was called"
            );
        }
        let answer = match header.status {
            Status::Error => {
                Err(decode_all::<RemoteError>(&message.payload).map_or_else(Error::Malformed, Error::Remote))
            }
            Status::Ok | Status::Continue => Ok(message.payload),
        };
        let mut callback = None;
        let mut stream = false;
        match (waiting.then, &answer) {
            (Then::Subscribe(queue), Ok(payload)) => {
                callback = decode_all::<i32>(payload).ok();
                state.callbacks.extend(callback.map(|number| (number, queue)));
            }
            (Then::Stream(_), Ok(_)) => stream = true,
            _ => {}
        }
        drop(state);
        if waiting.reply.send(answer).is_err() {
            // Whoever asked was cancelled meanwhile.
            if let Some(number) = callback {
                self.forget_callback(number);
            }
            if stream {
                self.abort_stream(header.procedure, header.serial);
            }
        }
    }

    fn stream(&self, message: Message) {
        let Header { serial, procedure, .. } = message.header;
        // Pieces still on their way after we ended the stream find nobody.
        let Some(sink) = self.state().streams.get(&serial).cloned() else { return };
        match sink.take(message) {
            Verdict::More => {}
            Verdict::End => self.forget_stream(serial),
            Verdict::Abort => self.abort_stream(procedure, serial),
        }
    }

    fn event(&self, message: &Message) {
        let Some((callback, event)) = events::decode(message.header.procedure, &message.payload) else { return };
        let Some(queue) = self.state().callbacks.get(&callback).cloned() else { return };
        if !queue.put(event) {
            self.forget_callback(callback); // nobody listens any more
        }
    }
}

async fn read_all(from: OwnedReadHalf, shared: Arc<Shared>) {
    let mut lost = shared.lost();
    let mut from = tokio::io::BufReader::with_capacity(64 << 10, from);
    let read = async {
        loop {
            match message::read(&mut from).await {
                Ok(message) => {
                    *shared.received.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    if let Some(message) = message {
                        shared.dispatch(message);
                    }
                }
                Err(why) => return shared.lose(why),
            }
        }
    };
    tokio::select! {
        biased;
        _ = lost.wait_for(Option::is_some) => {}
        () = read => {}
    }
}

async fn write_all(mut to: OwnedWriteHalf, mut frames: mpsc::UnboundedReceiver<Outgoing>, shared: Arc<Shared>) {
    let mut lost = shared.lost();
    let write = async {
        while let Some((bytes, written)) = frames.recv().await {
            to.write_all(&bytes).await?;
            if let Some(written) = written {
                let _ = written.send(());
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        result = write => if let Err(e) = result { shared.lose(message::failed(e)) },
        _ = lost.wait_for(Option::is_some) => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
