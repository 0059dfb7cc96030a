//! Domains: found, defined, started, stopped, described.

use crate::connection::Connection;
use crate::errors::Result;
use crate::flags::{
    AffectFlags, CreateFlags, DefineFlags, DestroyFlags, ListFlags, MemoryFlags, RebootFlags, ShutdownFlags,
    UndefineFlags, VcpuFlags, XmlFlags,
};
use crate::procedure as p;
use crate::wire::{Decode, Decoder, Encode, Encoder, WireError};
use uuid::Uuid;

/// Which domain. libvirt finds it by the UUID; name and id are as they were when this was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DomainRef {
    /// Its name, unique on the host at a time.
    pub name: String,
    /// Its UUID, for ever.
    pub uuid: Uuid,
    /// Number of this run; -1 while it doesn't run.
    pub id: i32,
}

impl Encode for DomainRef {
    fn encode(&self, to: &mut Encoder) {
        to.string(&self.name);
        to.fixed(self.uuid.as_bytes());
        self.id.encode(to);
    }
}

impl Decode for DomainRef {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(DomainRef { name: from.string()?, uuid: from.uuid()?, id: Decode::decode(from)? })
    }
}

codes! {
    /// What a domain does (`virDomainState`).
    pub struct DomainState {
        NO_STATE = 0, RUNNING = 1, BLOCKED = 2, PAUSED = 3, SHUTTING_DOWN = 4, SHUT_OFF = 5, CRASHED = 6, PM_SUSPENDED = 7,
    }

    /// Why a domain is RUNNING.
    pub struct RunningReason {
        UNKNOWN = 0, BOOTED = 1, MIGRATED = 2, RESTORED = 3, FROM_SNAPSHOT = 4, UNPAUSED = 5, MIGRATION_CANCELED = 6,
        SAVE_CANCELED = 7, WAKEUP = 8, CRASHED = 9, POSTCOPY = 10, POSTCOPY_FAILED = 11,
    }

    /// Why a domain is PAUSED.
    pub struct PausedReason {
        UNKNOWN = 0, USER = 1, MIGRATION = 2, SAVE = 3, DUMP = 4, IO_ERROR = 5, WATCHDOG = 6, FROM_SNAPSHOT = 7, SHUTTING_DOWN = 8,
        SNAPSHOT = 9, CRASHED = 10, STARTING_UP = 11, POSTCOPY = 12, POSTCOPY_FAILED = 13, API_ERROR = 14,
    }

    /// Why a domain is SHUT_OFF.
    pub struct ShutOffReason {
        /// Also: never started since the daemon knows it.
        UNKNOWN = 0,
        SHUTDOWN = 1, DESTROYED = 2, CRASHED = 3, MIGRATED = 4, SAVED = 5, FAILED = 6, FROM_SNAPSHOT = 7,
        /// The daemon killed it while starting.
        DAEMON = 8,
    }
}

/// A domain's state and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// What it does.
    pub state: DomainState,
    /// Why: a number of the state's own list.
    pub reason: i32,
}

impl State {
    /// Why it stands still, if it does.
    pub fn paused(&self) -> Option<PausedReason> {
        (self.state == DomainState::PAUSED).then_some(PausedReason(self.reason))
    }

    /// Why it runs, if it does.
    pub fn running(&self) -> Option<RunningReason> {
        (self.state == DomainState::RUNNING).then_some(RunningReason(self.reason))
    }

    /// Why it is off, if it is.
    pub fn shut_off(&self) -> Option<ShutOffReason> {
        (self.state == DomainState::SHUT_OFF).then_some(ShutOffReason(self.reason))
    }
}

impl Decode for State {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(State { state: Decode::decode(from)?, reason: Decode::decode(from)? })
    }
}

/// The size of a domain and what it has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    /// What it does.
    pub state: DomainState,
    /// Memory that it may have at most, KiB.
    pub max_memory: u64,
    /// Memory that it has, KiB.
    pub memory: u64,
    /// Virtual processors.
    pub vcpus: u32,
    /// Processor time used, ns.
    pub cpu_time: u64,
}

impl Decode for DomainInfo {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(DomainInfo {
            state: Decode::decode(from)?,
            max_memory: Decode::decode(from)?,
            memory: Decode::decode(from)?,
            vcpus: Decode::decode(from)?,
            cpu_time: Decode::decode(from)?,
        })
    }
}

/// Which piece of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata<'a> {
    /// The text for people.
    Description,
    /// A line for people.
    Title,
    /// An XML element of our own.
    Element {
        /// Its namespace: the key.
        uri: &'a str,
        /// The namespace's prefix, when it is set.
        prefix: &'a str,
    },
}

impl Connection {
    /// All domains that the flags ask for.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn domains(&self, which: ListFlags) -> Result<Vec<DomainRef>> {
        let (domains, _count): (Vec<DomainRef>, u32) = self.call(p::CONNECT_LIST_ALL_DOMAINS, (1_i32, which)).await?;
        Ok(domains)
    }

    /// The domain of that UUID.
    ///
    /// # Errors
    /// [`is_no_domain`](crate::Error::is_no_domain) when there is none.
    pub async fn domain_by_uuid(&self, uuid: Uuid) -> Result<DomainRef> {
        struct Raw(Uuid);
        impl Encode for Raw {
            fn encode(&self, to: &mut Encoder) {
                to.fixed(self.0.as_bytes());
            }
        }
        self.call(p::DOMAIN_LOOKUP_BY_UUID, Raw(uuid)).await
    }

    /// The domain of that name.
    ///
    /// # Errors
    /// [`is_no_domain`](crate::Error::is_no_domain) when there is none.
    pub async fn domain_by_name(&self, name: &str) -> Result<DomainRef> {
        self.call(p::DOMAIN_LOOKUP_BY_NAME, name).await
    }

    /// Defines a persistent domain, or changes the definition of the one with this UUID.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn define(&self, xml: &str, flags: DefineFlags) -> Result<DomainRef> {
        self.call(p::DOMAIN_DEFINE_XML_FLAGS, (xml, flags)).await
    }

    /// Starts a domain that vanishes when it ends.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn create_transient(&self, xml: &str, flags: CreateFlags) -> Result<DomainRef> {
        self.call(p::DOMAIN_CREATE_XML, (xml, flags)).await
    }

    /// Starts a defined domain; gives it with its new id.
    ///
    /// # Errors
    /// [`is_wrong_state`](crate::Error::is_wrong_state) when it runs already.
    pub async fn start(&self, domain: &DomainRef, flags: CreateFlags) -> Result<DomainRef> {
        self.call(p::DOMAIN_CREATE_WITH_FLAGS, (domain, flags)).await
    }

    /// Asks the guest to shut down; returns at once. Whether it does is told by an event.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn shutdown(&self, domain: &DomainRef, flags: ShutdownFlags) -> Result<()> {
        self.call(p::DOMAIN_SHUTDOWN_FLAGS, (domain, flags)).await
    }

    /// Ends the domain at once.
    ///
    /// # Errors
    /// [`is_wrong_state`](crate::Error::is_wrong_state) when it doesn't run.
    pub async fn destroy(&self, domain: &DomainRef, flags: DestroyFlags) -> Result<()> {
        self.call(p::DOMAIN_DESTROY_FLAGS, (domain, flags)).await
    }

    /// Forgets the definition; a running domain becomes transient.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn undefine(&self, domain: &DomainRef, flags: UndefineFlags) -> Result<()> {
        self.call(p::DOMAIN_UNDEFINE_FLAGS, (domain, flags)).await
    }

    /// Asks the guest to reboot; returns at once.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn reboot(&self, domain: &DomainRef, flags: RebootFlags) -> Result<()> {
        self.call(p::DOMAIN_REBOOT, (domain, flags)).await
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn reset(&self, domain: &DomainRef) -> Result<()> {
        self.call(p::DOMAIN_RESET, (domain, 0_u32)).await
    }

    /// Stops the virtual processors.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn suspend(&self, domain: &DomainRef) -> Result<()> {
        self.call(p::DOMAIN_SUSPEND, domain).await
    }

    /// Lets the virtual processors go on.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn resume(&self, domain: &DomainRef) -> Result<()> {
        self.call(p::DOMAIN_RESUME, domain).await
    }

    /// What it does and why.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn state(&self, domain: &DomainRef) -> Result<State> {
        self.call(p::DOMAIN_GET_STATE, (domain, 0_u32)).await
    }

    /// Its size and processor time.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn info(&self, domain: &DomainRef) -> Result<DomainInfo> {
        self.call(p::DOMAIN_GET_INFO, domain).await
    }

    /// Its description, XML.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn xml(&self, domain: &DomainRef, flags: XmlFlags) -> Result<String> {
        self.call(p::DOMAIN_GET_XML_DESC, (domain, flags)).await
    }

    /// Whether the daemon starts it when it starts itself.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn set_autostart(&self, domain: &DomainRef, on: bool) -> Result<()> {
        self.call(p::DOMAIN_SET_AUTOSTART, (domain, on)).await
    }

    /// Changes the number of virtual processors.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn set_vcpus(&self, domain: &DomainRef, count: u32, flags: VcpuFlags) -> Result<()> {
        self.call(p::DOMAIN_SET_VCPUS_FLAGS, (domain, count, flags)).await
    }

    /// Changes the memory, KiB.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn set_memory(&self, domain: &DomainRef, kib: u64, flags: MemoryFlags) -> Result<()> {
        self.call(p::DOMAIN_SET_MEMORY_FLAGS, (domain, kib, flags)).await
    }

    /// Sets a piece of metadata; `None` removes it.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn set_metadata(
        &self,
        domain: &DomainRef,
        what: Metadata<'_>,
        value: Option<&str>,
        flags: AffectFlags,
    ) -> Result<()> {
        let (kind, uri, prefix) = what.parts();
        self.call(p::DOMAIN_SET_METADATA, (domain, kind, value, prefix, uri, flags)).await
    }

    /// A piece of metadata.
    ///
    /// # Errors
    /// [`is_no_metadata`](crate::Error::is_no_metadata) when it isn't there.
    pub async fn metadata(&self, domain: &DomainRef, what: Metadata<'_>, flags: AffectFlags) -> Result<String> {
        let (kind, uri, _) = what.parts();
        self.call(p::DOMAIN_GET_METADATA, (domain, kind, uri, flags)).await
    }
}

impl<'a> Metadata<'a> {
    fn parts(self) -> (i32, Option<&'a str>, Option<&'a str>) {
        match self {
            Metadata::Description => (0, None, None),
            Metadata::Title => (1, None, None),
            Metadata::Element { uri, prefix } => (2, Some(uri), Some(prefix)),
        }
    }
}
