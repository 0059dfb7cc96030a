//! Events of domains, as a [`Stream`](futures::Stream).

use crate::connection::{Connection, Then};
use crate::domain::DomainRef;
use crate::errors::{Error, Result};
use crate::message::Program;
use crate::params::Params;
use crate::procedure as p;
use crate::wire::{Decode, WireError, decode_all};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Events that may wait in an [`EventStream`]. More are dropped and counted in [`Event::Missed`].
pub const QUEUE: usize = 4096;

codes! {
    /// Kinds of events that can be subscribed to (`virDomainEventID`).
    pub struct EventKind {
        LIFECYCLE = 0, REBOOT = 1, WATCHDOG = 3, IO_ERROR = 6, DEVICE_REMOVED = 15, BLOCK_JOB = 16, AGENT_LIFECYCLE = 18,
        DEVICE_ADDED = 19, JOB_COMPLETED = 21, DEVICE_REMOVAL_FAILED = 22,
    }

    /// What happened to a domain (`virDomainEventType`). The detail's type is named at each.
    pub struct LifecycleChange {
        DEFINED = 0,
        UNDEFINED = 1,
        /// [`StartedDetail`]
        STARTED = 2,
        /// [`SuspendedDetail`]
        SUSPENDED = 3,
        /// [`ResumedDetail`]
        RESUMED = 4,
        /// [`StoppedDetail`]
        STOPPED = 5,
        /// The guest's operating system has ended; STOPPED follows.
        SHUTDOWN = 6,
        PM_SUSPENDED = 7,
        CRASHED = 8,
    }

    /// Why a domain started.
    pub struct StartedDetail { BOOTED = 0, MIGRATED = 1, RESTORED = 2, FROM_SNAPSHOT = 3, WAKEUP = 4, RECREATED = 5, }

    /// Why a domain stands still.
    pub struct SuspendedDetail {
        PAUSED = 0, MIGRATED = 1, IO_ERROR = 2, WATCHDOG = 3, RESTORED = 4, FROM_SNAPSHOT = 5, API_ERROR = 6, POSTCOPY = 7,
        POSTCOPY_FAILED = 8,
    }

    /// Why a domain goes on.
    pub struct ResumedDetail { UNPAUSED = 0, MIGRATED = 1, FROM_SNAPSHOT = 2, POSTCOPY = 3, POSTCOPY_FAILED = 4, }

    /// Why a domain ended.
    pub struct StoppedDetail {
        /// By itself.
        SHUTDOWN = 0,
        /// By a call here.
        DESTROYED = 1,
        CRASHED = 2,
        /// It runs elsewhere.
        MIGRATED = 3,
        SAVED = 4, FAILED = 5, FROM_SNAPSHOT = 6, RECREATED = 7,
    }

    /// What the hypervisor did when a guest's watchdog fired.
    pub struct WatchdogAction { NONE = 0, PAUSE = 1, RESET = 2, POWER_OFF = 3, SHUTDOWN = 4, DEBUG = 5, INJECT_NMI = 6, }

    /// What the hypervisor did on an error of a disk.
    pub struct IoErrorAction { NONE = 0, PAUSE = 1, REPORT = 2, }

    /// Whether the guest agent can be reached.
    pub struct AgentState { CONNECTED = 1, DISCONNECTED = 2, }

    /// Kinds of block jobs.
    pub struct BlockJobKind { UNKNOWN = 0, PULL = 1, COPY = 2, COMMIT = 3, ACTIVE_COMMIT = 4, BACKUP = 5, }

    /// How a block job stands.
    pub struct BlockJobStatus {
        COMPLETED = 0, FAILED = 1, CANCELED = 2,
        /// Source and destination are equal: it can be ended with PIVOT.
        READY = 3,
    }
}

/// Something that happened to a domain.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It was defined, started, stopped …
    Lifecycle {
        /// Which.
        domain: DomainRef,
        /// What.
        change: LifecycleChange,
        /// Why; see [`LifecycleChange`].
        detail: i32,
    },
    /// The guest rebooted, or was reset.
    Reboot {
        /// Which.
        domain: DomainRef,
    },
    /// The guest's watchdog fired.
    Watchdog {
        /// Which.
        domain: DomainRef,
        /// What was done.
        action: WatchdogAction,
    },
    /// A disk failed to read or write.
    IoError {
        /// Which.
        domain: DomainRef,
        /// The image's path.
        path: String,
        /// The device's alias.
        device: String,
        /// What was done.
        action: IoErrorAction,
        /// `"enospc"` or nothing.
        reason: String,
    },
    /// A device is gone: detaching has succeeded, or the guest threw it out.
    DeviceRemoved {
        /// Which.
        domain: DomainRef,
        /// The device's alias.
        device: String,
    },
    /// The guest refused to give a device back.
    DeviceRemovalFailed {
        /// Which.
        domain: DomainRef,
        /// The device's alias.
        device: String,
    },
    /// A device was attached.
    DeviceAdded {
        /// Which.
        domain: DomainRef,
        /// The device's alias.
        device: String,
    },
    /// A block job ended, or is ready.
    BlockJob {
        /// Which.
        domain: DomainRef,
        /// The disk's target: `"vda"`.
        disk: String,
        /// What kind of job.
        kind: BlockJobKind,
        /// How it stands.
        status: BlockJobStatus,
    },
    /// The guest agent came or went.
    AgentLifecycle {
        /// Which.
        domain: DomainRef,
        /// Whether it is there.
        state: AgentState,
    },
    /// A migration, save or dump ended here.
    JobCompleted {
        /// Which.
        domain: DomainRef,
        /// Its statistics.
        stats: Params,
    },
    /// So many events were lost, because they weren't taken fast enough or made no sense: look at the domains again.
    Missed(u64),
}

/// The callback's number and the event. `None`: not an event of ours.
pub(crate) fn decode(procedure: i32, payload: &[u8]) -> Option<(i32, Event)> {
    match decode_known(procedure, payload)? {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::warn!(procedure, %error, "an event of libvirt makes no sense");
            // The number of the callback comes first in all of them.
            let callback = payload.first_chunk().map(|n| i32::from_be_bytes(*n))?;
            Some((callback, Event::Missed(1)))
        }
    }
}

fn decode_known(procedure: i32, payload: &[u8]) -> Option<Result<(i32, Event), WireError>> {
    fn of<T: Decode>(bytes: &[u8], event: impl FnOnce(DomainRef, T) -> Event) -> Result<(i32, Event), WireError> {
        decode_all::<(i32, DomainRef, T)>(bytes).map(|(callback, domain, rest)| (callback, event(domain, rest)))
    }
    Some(match procedure {
        p::DOMAIN_EVENT_CALLBACK_LIFECYCLE => {
            of(payload, |domain, (change, detail)| Event::Lifecycle { domain, change, detail })
        }
        p::DOMAIN_EVENT_CALLBACK_REBOOT => of(payload, |domain, ()| Event::Reboot { domain }),
        p::DOMAIN_EVENT_CALLBACK_WATCHDOG => of(payload, |domain, action| Event::Watchdog { domain, action }),
        p::DOMAIN_EVENT_CALLBACK_IO_ERROR_REASON => of(payload, |domain, (path, device, action, reason)| {
            Event::IoError { domain, path, device, action, reason }
        }),
        p::DOMAIN_EVENT_CALLBACK_DEVICE_REMOVED => {
            of(payload, |domain, device| Event::DeviceRemoved { domain, device })
        }
        p::DOMAIN_EVENT_CALLBACK_DEVICE_REMOVAL_FAILED => {
            of(payload, |domain, device| Event::DeviceRemovalFailed { domain, device })
        }
        p::DOMAIN_EVENT_CALLBACK_DEVICE_ADDED => of(payload, |domain, device| Event::DeviceAdded { domain, device }),
        p::DOMAIN_EVENT_BLOCK_JOB_2 => {
            of(payload, |domain, (disk, kind, status)| Event::BlockJob { domain, disk, kind, status })
        }
        p::DOMAIN_EVENT_CALLBACK_AGENT_LIFECYCLE => {
            of(payload, |domain, (state, _reason): (AgentState, i32)| Event::AgentLifecycle { domain, state })
        }
        p::DOMAIN_EVENT_CALLBACK_JOB_COMPLETED => of(payload, |domain, stats| Event::JobCompleted { domain, stats }),
        _ => return None,
    })
}

/// Where the events of a subscription wait.
#[derive(Debug)]
pub(crate) struct Queue {
    events: mpsc::Sender<Event>,
    missed: Arc<AtomicU64>,
}

impl Queue {
    /// Whether anybody still listens.
    pub(crate) fn put(&self, event: Event) -> bool {
        match self.events.try_send(event) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.missed.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// Events as they come; ends when the connection is lost. Dropping it ends the subscription.
#[derive(Debug)]
pub struct EventStream {
    connection: Connection,
    events: mpsc::Receiver<Event>,
    missed: Arc<AtomicU64>,
    callbacks: Vec<i32>,
}

impl EventStream {
    /// The next event; `None` when the connection is lost. Cancellation-safe.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        // First, so that nobody works through a long queue before hearing that it has holes.
        match self.missed.swap(0, Ordering::Relaxed) {
            0 => self.events.poll_recv(context),
            missed => Poll::Ready(Some(Event::Missed(missed))),
        }
    }
}

impl futures::Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll(context)
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        for callback in self.callbacks.drain(..) {
            self.connection.shared.forget_callback(callback);
        }
    }
}

impl Connection {
    /// Subscribes to events of one domain or of all. What happens after this returns isn't missed: to know the state, subscribe
    /// first and list then.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn events(&self, kinds: &[EventKind], domain: Option<&DomainRef>) -> Result<EventStream> {
        let (sender, events) = mpsc::channel(QUEUE);
        let missed = Arc::new(AtomicU64::new(0));
        let queue = Arc::new(Queue { events: sender, missed: missed.clone() });
        let mut stream = EventStream { connection: self.clone(), events, missed, callbacks: Vec::new() };
        for kind in kinds {
            let procedure = p::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;
            let then = Then::Subscribe(queue.clone());
            let (_, answer) = self.shared.call(Program::REMOTE, procedure, (kind, domain), then).await?;
            stream.callbacks.push(decode_all(&answer).map_err(Error::Malformed)?);
        }
        Ok(stream)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::{Encode, Encoder};
    use proptest::prelude::*;

    #[test]
    fn an_event_is_read_and_a_broken_one_counts_as_missed() {
        let domain = DomainRef { name: "i-2-3-VM".into(), uuid: uuid::Uuid::from_u128(7), id: 4 };
        let mut to = Encoder::new();
        (9_i32, &domain, LifecycleChange::STOPPED, 1_i32).encode(&mut to);
        let bytes = to.finish().unwrap();
        let (callback, event) = decode(p::DOMAIN_EVENT_CALLBACK_LIFECYCLE, &bytes).unwrap();
        assert_eq!(callback, 9);
        assert_eq!(event, Event::Lifecycle { domain, change: LifecycleChange::STOPPED, detail: 1 });
        let broken = decode(p::DOMAIN_EVENT_CALLBACK_LIFECYCLE, &bytes[..20]).unwrap();
        assert_eq!(broken, (9, Event::Missed(1)));
        assert_eq!(decode(p::DOMAIN_GET_INFO, &bytes), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_nothing(
            procedure in 310..370_i32,
            bytes in prop::collection::vec(prop_oneof![Just(0_u8), 0..8_u8, any::<u8>()], 0..200)
        ) {
            let _ = decode(procedure, &bytes);
        }
    }
}
