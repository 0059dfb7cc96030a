//! What is done on the host: namespaces, links, processes, files.

pub mod devices;
pub(crate) mod files;
pub mod namespace;
pub(crate) mod netlink;
pub(crate) mod process;
pub(crate) mod rates;
pub mod segments;
pub(crate) mod tools;

use namespace::Namespace;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Why something couldn't be done on this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The host or its kernel can't do it, or it makes no sense: a repeat gives the same.
    #[error("{0}")]
    Refused(String),
    /// It went wrong.
    #[error("{0}")]
    Failed(String),
    /// A test interrupted the work at this point, as a kill would.
    #[error("interrupted at {0}")]
    Interrupted(&'static str),
}

impl HostError {
    pub(crate) fn failed(what: impl std::fmt::Display, error: impl std::fmt::Display) -> HostError {
        HostError::Failed(format!("{what}: {error}"))
    }
}

/// What a test asks at each point of the work: whether to interrupt it there.
pub type Interruptions = Arc<dyn Fn(&'static str) -> bool + Send + Sync>;

/// The host that routers run on.
#[derive(Clone)]
pub struct Host {
    /// Routers have a folder each in here. Short: a socket's path in it has at most 107 bytes.
    pub state_dir: PathBuf,
    /// The host's own network namespace; another one where a host is only a namespace.
    pub network: Namespace,
    /// Before each router's UUID in the name of its namespace. Hosts that share a machine need different ones.
    pub namespace_prefix: String,
    /// What networks are carried by.
    pub wiring: Wiring,
    /// Asked at each point of the work; for tests.
    pub interruptions: Option<Interruptions>,
}

impl Host {
    /// A host with the usual settings: routers in `state_dir`, on the machine's own network.
    pub fn new(state_dir: impl Into<PathBuf>, wiring: Wiring) -> Host {
        Host {
            state_dir: state_dir.into(),
            network: Namespace::Own,
            namespace_prefix: "arcus-".into(),
            wiring,
            interruptions: None,
        }
    }

    pub(crate) fn at(&self, point: &'static str) -> Result<(), HostError> {
        match &self.interruptions {
            Some(interrupt) if interrupt(point) => Err(HostError::Interrupted(point)),
            _ => Ok(()),
        }
    }
}

/// Which of the host's devices carry what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// The device of guest traffic, where a spec names none: VLANs and VXLANs are made on it, untagged networks are
    /// this very bridge.
    pub guest: String,
    /// The same for public traffic.
    pub public: String,
    /// UDP port of VXLAN. CloudStack's hosts use the kernel's own default.
    pub vxlan_port: u16,
    /// Further traffic labels and their devices; a label that isn't here is a device's name.
    pub labels: BTreeMap<String, String>,
}

impl Wiring {
    /// Both kinds of traffic on the devices named.
    pub fn new(guest: impl Into<String>, public: impl Into<String>) -> Wiring {
        Wiring { guest: guest.into(), public: public.into(), vxlan_port: 8472, labels: BTreeMap::new() }
    }
}
