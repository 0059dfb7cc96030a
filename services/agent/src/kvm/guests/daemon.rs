//! The lines to libvirt's daemon: made anew whenever they are lost. Guests go on without them.

use super::container;
use super::process::{self, Process};
use crate::backoff;
use contract::ApiError;
use libvirt::{Connection, EventKind, EventStream, Options};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::watch;
use uuid::Uuid;

/// How long a daemon may take to open a line: one that was just started looks at its guests first.
const OPENING: Duration = Duration::from_secs(30);

/// How libvirt's driver for containers is asked for.
const CONTAINERS: &str = "lxc:///system";

/// Two lines, so that what must be done at once never waits behind orders.
#[derive(Clone)]
pub(crate) struct Lines {
    /// For orders.
    pub orders: Connection,
    /// For pausing and ending guests, and for looks at them.
    pub keeper: Connection,
}

/// What a new pair of lines brings.
pub(in crate::kvm) struct Opened {
    pub lines: Lines,
    /// What happens to guests, from before anybody asked which there are.
    pub events: EventStream,
}

/// The daemon.
pub(crate) struct Daemon {
    socket: Option<PathBuf>,
    /// Guests are containers, and here libvirt keeps what it runs of them.
    containers: Option<PathBuf>,
    lines: watch::Sender<Option<Lines>>,
    /// Its PID namespace, once it was seen.
    namespace: Mutex<Option<PathBuf>>,
}

impl Daemon {
    /// `containers`: guests are containers, and there libvirt keeps what it runs of them.
    pub fn new(socket: Option<PathBuf>, containers: Option<PathBuf>) -> Daemon {
        Daemon { socket, containers, lines: watch::Sender::new(None), namespace: Mutex::default() }
    }

    /// The process of a guest; what can't be found out is told, and taken for none.
    pub fn process_of(&self, vm: Uuid) -> Option<Arc<Process>> {
        let known = self.namespace.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let find = |namespace: &Path| match &self.containers {
            None => Process::find(vm, namespace),
            Some(states) => container::find(vm, states, namespace),
        };
        let found = match known {
            Some(namespace) => find(&namespace),
            None => process::namespace_of(std::process::id()).and_then(|own| find(&own)),
        };
        match found {
            Ok(process) => process.map(Arc::new),
            Err(error) => {
                tracing::warn!(%vm, %error, "processes can't be looked at");
                None
            }
        }
    }

    /// Whoever listens on the socket is the daemon, or has started it.
    async fn locate(&self, socket: &Path) -> std::io::Result<()> {
        let peer = UnixStream::connect(socket).await?.peer_cred()?;
        if let Some(pid) = peer.pid().and_then(|pid| u32::try_from(pid).ok()) {
            let namespace = process::namespace_of(pid)?;
            *self.namespace.lock().unwrap_or_else(PoisonError::into_inner) = Some(namespace);
        }
        Ok(())
    }

    /// The lines, if they stand.
    ///
    /// # Errors
    /// 534: libvirt doesn't answer. Guests run nevertheless.
    pub fn lines(&self) -> Result<Lines, ApiError> {
        let lines = self
            .lines
            .borrow()
            .clone()
            .filter(|lines| lines.orders.is_lost().is_none() && lines.keeper.is_lost().is_none());
        lines.ok_or_else(|| ApiError::unavailable("libvirt doesn't answer on the host: see the state of its service"))
    }

    /// Opens the lines, as often as it takes.
    pub async fn open(&self) -> Opened {
        let mut waits = backoff::waits();
        loop {
            match self.try_open().await {
                Ok(opened) => return opened,
                Err(error) => tracing::warn!(%error, "no line to libvirt; trying again"),
            }
            tokio::time::sleep(waits.next().unwrap_or(OPENING)).await;
        }
    }

    fn options(&self) -> Options {
        let options = Options { open_within: OPENING, ..Options::default() };
        match &self.containers {
            None => options,
            Some(_) => Options { uri: CONTAINERS.into(), ..options },
        }
    }

    fn socket(&self) -> PathBuf {
        let socket = self.socket.clone().or_else(Connection::default_socket);
        socket.unwrap_or_else(|| PathBuf::from(libvirt::connection::SOCKETS[0]))
    }

    /// One more line, for work that takes long.
    ///
    /// # Errors
    /// 534: libvirt doesn't answer.
    pub async fn line(&self) -> Result<Connection, ApiError> {
        Connection::open(self.socket(), self.options()).await.map_err(|e| told(&e))
    }

    async fn try_open(&self) -> Result<Opened, libvirt::Error> {
        let socket = self.socket();
        let options = self.options();
        let keeper = Connection::open(&socket, options.clone()).await?;
        let events = keeper.events(&[EventKind::LIFECYCLE], None).await?;
        let orders = Connection::open(&socket, options).await?;
        if let Err(error) = self.locate(&socket).await {
            tracing::warn!(%error, "it isn't known where libvirt's daemon has its processes");
        }
        Ok(Opened { lines: Lines { orders, keeper }, events })
    }

    /// Gives the lines to all, or takes them away.
    pub fn publish(&self, lines: Option<Lines>) {
        self.lines.send_replace(lines);
    }
}

/// What libvirt says, for those who ordered something.
pub(crate) fn told(error: &libvirt::Error) -> ApiError {
    use libvirt::Error;
    match error {
        Error::Lost(_) | Error::Connect { .. } => ApiError::unavailable(error.to_string()),
        _ if error.is_busy() => ApiError::unavailable(error.to_string()),
        _ => ApiError::internal(error.to_string()),
    }
}
