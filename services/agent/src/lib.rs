//! The agent: dials the hub, keeps one stream, and does what it is ordered.
//!
//! Way of an order: [`line`] (the stream) → [`executor`] (is the route fresh, was this effect asked for before) →
//! [`hypervisor`] (the trait that drivers implement) → [`journal`] (the state file: what an order did and that it was
//! done are one record) → the answer, once the record is on the disk.
//!
//! The drivers are [`kvm`], the one machine that the agent runs on (with QEMU's guests or with containers), and [`simulator`], any number of hosts in one process.
//! VMs survive the agent and the control plane.
//! An agent does nothing by itself when the control plane is gone, but one thing: it protects disks ([`lease`]).

mod backoff;
mod console;
mod executor;
mod hypervisor;
mod identity;
mod journal;
pub mod kvm;
pub mod lease;
mod line;
mod log;
mod memory;
pub mod simulator;

pub use console::ConsoleEndpoint;
pub use hypervisor::{Done, Failure, Hypervisor, Work};
pub use simulator::SimulatorHandle;

use contract::ApiError;
use contract::secret::Secret;
use contract_agent::protocol::Spoken;
use executor::Executor;
use journal::Journal;
use kvm::{Kvm, KvmOptions};
use lease::Areas;
use line::Line;
use simulator::Simulator;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Largest message on the line.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// How the agent reaches hubs.
pub enum Dial {
    /// Over a channel that the same process provides.
    Channel(Channel),
    /// By TLS. Without a certificate in the state folder it enrols with the token first.
    Tls {
        /// Addresses of the control plane's replicas, `host:port`.
        addresses: Vec<String>,
        /// The enrolment token.
        token: Option<Secret<String>>,
    },
}

/// What an agent drives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Simulated hosts, as many as are added.
    #[default]
    Simulator,
    /// The machine that the agent runs on, by libvirt and QEMU.
    Kvm,
    /// The same machine with containers as guests, by libvirt's driver for LXC.
    Lxc,
}

impl std::str::FromStr for Kind {
    type Err = ApiError;

    fn from_str(name: &str) -> Result<Kind, ApiError> {
        match name.to_ascii_lowercase().as_str() {
            "simulator" => Ok(Kind::Simulator),
            "kvm" => Ok(Kind::Kvm),
            "lxc" => Ok(Kind::Lxc),
            _ => Err(ApiError::param(format!(
                "{name:?} is no hypervisor that this agent drives: use \"kvm\", \"lxc\" or \"simulator\""
            ))),
        }
    }
}

/// What an agent is started with.
///
/// On its first start it needs a token, which names the CA's fingerprint; from then on key and certificate are in the
/// state folder, and the token is ignored.
pub struct Options {
    /// For people.
    pub name: String,
    /// Where it keeps its state, key and certificate. No two agents may share one.
    pub state_dir: PathBuf,
    /// What it drives.
    pub hypervisor: Kind,
    /// How it reaches hubs.
    pub dial: Dial,
    /// Whether an answered order survives a power cut. Without, it survives only the end of the process.
    pub durable: bool,
    /// How long it remembers what jobs' orders gave.
    pub memory: Duration,
    /// The folder that stands for the hosts' shared storage: leases lie there. Agents that are given the same one simulate
    /// hosts with the same storage. None: a folder of its own, within the state folder.
    pub pool_dir: Option<PathBuf>,
    /// The lease time of pools that have none yet; a pool keeps the first it was given. A take-over takes twice as long.
    pub lease: Duration,
    /// What it says that it is: the version that listHosts shows, and the protocols that it speaks. Others than this
    /// build's are for tests of agents and hubs that aren't of one age.
    pub says: Says,
    /// How often simulated guests write to their disks ([`lease::overlaps`] tells whether ever two wrote at once). None:
    /// they don't.
    pub guest_writes: Option<Duration>,
    /// What a KVM host is set to.
    pub kvm: KvmOptions,
}

impl Options {
    /// The usual ones.
    pub fn new(name: impl Into<String>, state_dir: impl Into<PathBuf>, dial: Dial) -> Options {
        let day = Duration::from_secs(24 * 3600);
        Options {
            name: name.into(),
            state_dir: state_dir.into(),
            hypervisor: Kind::default(),
            dial,
            durable: true,
            memory: day,
            pool_dir: None,
            lease: Duration::from_secs(10),
            says: Says::default(),
            guest_writes: None,
            kvm: KvmOptions::default(),
        }
    }
}

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Says {
    /// Its version.
    pub version: String,
    /// The protocols that it speaks.
    pub spoken: Spoken,
}

impl Default for Says {
    fn default() -> Says {
        Says { version: env!("CARGO_PKG_VERSION").into(), spoken: Spoken::OURS }
    }
}

/// An agent.
pub struct Agent {
    options: Options,
    simulator: Arc<Simulator>,
    kvm: Option<Arc<Kvm>>,
    executor: Arc<Executor>,
}

impl Agent {
    /// Reads the state folder: the hosts and VMs of the last run are there again.
    ///
    /// # Errors
    /// When the folder can't be read or written, or another agent uses it.
    pub fn open(options: Options) -> Result<Agent, ApiError> {
        let (journal, entries) = Journal::open(&options.state_dir, options.durable)?;
        let journal = Arc::new(journal);
        let pool_dir = options.pool_dir.clone().unwrap_or_else(|| options.state_dir.join("pools"));
        let lease = options.lease.max(Duration::from_millis(100));
        let simulator = Arc::new(Simulator::new(journal.clone(), Areas::new(pool_dir, lease)));
        let kvm = match options.hypervisor {
            Kind::Simulator => None,
            Kind::Kvm | Kind::Lxc => {
                let kvm = KvmOptions { containers: options.hypervisor == Kind::Lxc, ..options.kvm.clone() };
                Some(Kvm::new(kvm, options.state_dir.clone(), lease))
            }
        };
        let driver: Arc<dyn Hypervisor> = match &kvm {
            None => simulator.clone(),
            Some(kvm) => kvm.clone(),
        };
        let executor = Arc::new(Executor::new(journal, driver, options.memory));
        executor.load(entries);
        Ok(Agent { options, simulator, kvm, executor })
    }

    /// A look into the simulated hosts, and a hand on their switches. An agent that drives a real machine has none.
    pub fn simulator(&self) -> SimulatorHandle {
        SimulatorHandle::new(self.simulator.clone())
    }

    /// Connects, and again whenever the connection is lost, until `stop`. Orders under way then have a moment to end.
    ///
    /// # Errors
    /// When the agent can't be enrolled, its state can't be written any more, or the machine isn't fit to be a host.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ApiError> {
        let identity = identity::open(&self.options, self.executor.driver.kind(), &stop).await?;
        let Some(identity) = identity else { return Ok(()) };
        if let Some(kvm) = self.kvm {
            // A host has the UUID of its agent. Nothing is said before all guests' leases were looked at.
            let opened = tokio::select! {
                opened = kvm.open(&identity.uuid) => opened,
                () = stop.cancelled() => return Ok(()),
            };
            opened?;
            let result = tokio::select! {
                result = Line::new(self.executor, identity, self.options.says).keep(stop) => result,
                () = kvm.keep() => Ok(()),
            };
            kvm.settle().await;
            return result;
        }
        self.simulator.first_round().await;
        let guest_writes = self.options.guest_writes;
        let guests = async {
            match guest_writes {
                Some(every) => self.simulator.clone().write_on(every).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = Line::new(self.executor, identity, self.options.says).keep(stop) => result,
            () = self.simulator.clone().keep_leases() => Ok(()),
            () = guests => Ok(()),
        }
    }
}

/// Opens an agent and runs it until `stop`.
///
/// # Errors
/// As [`Agent::open`] and [`Agent::run`].
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), ApiError> {
    Agent::open(options)?.run(stop).await
}
