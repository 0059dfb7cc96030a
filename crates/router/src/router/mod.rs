//! Routers on this host.

mod balancer;
mod converge;
mod links;
mod names;
mod neighbours;
mod remove;
mod rules;
mod store;

pub use rules::Usage;

use crate::guest_server::GuestServer;
use crate::host::files;
use crate::host::namespace::Namespace;
use crate::host::segments::Segments;
use crate::host::{Host, HostError};
use crate::layout::Layout;
use contract_agent::wanted::Wanted;
use contract_agent::{ApplyRouter, RouterApplied, RouterSpec, SectionFault, TakenPassword};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use store::Store;

/// The routers of a host. Work on one router is done in turn, on several at the same time.
///
/// After a start of the agent or of the host, [`Routers::resume`] brings every router back to what it was told last.
pub struct Routers {
    host: Host,
    segments: Segments,
    /// Whom haproxy becomes.
    user: Option<(String, String)>,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
}

/// One router.
struct Slot {
    context: Context,
    guests: GuestServer,
    state: tokio::sync::Mutex<State>,
}

/// What a router's parts are applied to.
struct Context {
    uuid: String,
    /// Of its network namespace.
    name: String,
    namespace: Namespace,
    layout: Layout,
    host: Host,
    /// The devices that this process limited: which one it was, and how fast it may be.
    limited: Mutex<BTreeMap<String, (u32, u64)>>,
}

impl Context {
    fn at(&self, point: &'static str) -> Result<(), HostError> {
        self.host.at(point)
    }
}

#[derive(Default)]
struct State {
    wanted: Wanted,
    /// The sections that were applied last.
    in_force: RouterSpec,
    faults: Vec<SectionFault>,
    /// What this process knows to be there.
    made: Option<converge::Made>,
    /// The router was removed while somebody waited for it.
    gone: bool,
}

impl Routers {
    /// Finds the routers of this host. Touches nothing yet; see [`Routers::resume`].
    ///
    /// # Errors
    /// The state's folder can't be made or read, or its path is too long.
    pub fn open(host: Host) -> Result<Routers, HostError> {
        // "/" + UUID + "/haproxy/stats" + what haproxy appends while it makes the socket, in 107 bytes.
        if host.state_dir.as_os_str().len() > 40 {
            let dir = host.state_dir.display();
            return Err(HostError::Refused(format!("the path {dir} is too long for sockets below it (40 bytes)")));
        }
        files::folder(&host.state_dir)?;
        passable(&host.state_dir)?;
        let routers =
            Routers { segments: Segments::new(host.clone()), user: balancer::user(), slots: Mutex::default(), host };
        let dirs = std::fs::read_dir(&routers.host.state_dir);
        let dirs = dirs.map_err(|e| HostError::failed(routers.host.state_dir.display(), e))?;
        for uuid in dirs.flatten().filter_map(|d| d.file_name().into_string().ok()) {
            routers.slot(&uuid)?;
        }
        Ok(routers)
    }

    /// The bridges of this host: the one instance, for whoever plugs guests in.
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Brings every router to what it was told last, and ends removals that were under way. Each router's report, by UUID.
    pub async fn resume(&self) -> BTreeMap<String, Result<RouterApplied, HostError>> {
        let mut reports = BTreeMap::new();
        for (uuid, slot) in self.all() {
            if slot.context.layout.leaving().exists() {
                if let Err(error) = self.remove(&uuid).await {
                    reports.insert(uuid, Err(error));
                }
                continue;
            }
            if let Some(report) = self.again(&slot).await {
                reports.insert(uuid, report);
            }
        }
        reports
    }

    /// Brings a router to what it was told last: starts what has died, mends what was changed by hand. `None`: there is no
    /// such router.
    pub async fn check(&self, uuid: &str) -> Option<Result<RouterApplied, HostError>> {
        let slot = self.all().remove(uuid)?;
        self.again(&slot).await
    }

    async fn again(&self, slot: &Slot) -> Option<Result<RouterApplied, HostError>> {
        let mut state = slot.state.lock().await;
        if state.gone || state.wanted.generation == 0 {
            return None;
        }
        Some(self.converge(slot, &mut state, true).await)
    }

    /// Brings a router to a newer wanted state. Sections that fail are in the report; the others run. A state that the
    /// router has is verified, an older one is ignored.
    ///
    /// # Errors
    /// The host can't carry the router at all.
    pub async fn apply(&self, change: ApplyRouter) -> Result<RouterApplied, HostError> {
        loop {
            let slot = self.slot(&change.router_uuid)?;
            if slot.context.layout.leaving().exists() {
                self.remove(&change.router_uuid).await?;
                continue;
            }
            let mut state = slot.state.lock().await;
            if state.gone {
                continue;
            }
            if state.wanted.is_behind(&change) {
                return Ok(RouterApplied { behind: true, ..report(&slot, &state) });
            }
            if change.generation < state.wanted.generation {
                return Ok(report(&slot, &state));
            }
            let newer = change.generation > state.wanted.generation;
            // A whole spec is sent to routers of which something may be amiss.
            let look = !newer || change.base == 0;
            if newer {
                let mut wanted = state.wanted.clone();
                wanted.merge(change);
                Store(&slot.context.layout).save_wanted(&slot.context.uuid, &wanted)?;
                state.wanted = wanted;
                slot.context.at("wanted")?;
            }
            match self.converge(&slot, &mut state, look).await {
                Err(error @ HostError::Interrupted(_)) => return Err(error),
                Ok(report) if look || report.faults.is_empty() => return Ok(report),
                Err(error) if look => return Err(error),
                // What it rested on may have been changed by somebody's hand: everything is looked at.
                Ok(_) | Err(_) => return self.converge(&slot, &mut state, true).await,
            }
        }
    }

    /// What this host's routers were told, and which of their sections failed.
    pub async fn reports(&self) -> Vec<RouterApplied> {
        let mut reports = Vec::new();
        for slot in self.all().into_values() {
            let state = slot.state.lock().await;
            if !state.gone && state.wanted.generation > 0 {
                reports.push(report(&slot, &state));
            }
        }
        reports
    }

    /// Passwords of a router's guests that those took. Doesn't wait for changes under way.
    pub fn taken(&self, uuid: &str) -> Vec<TakenPassword> {
        self.all().get(uuid).map(|slot| slot.guests.taken()).unwrap_or_default()
    }

    /// What passed each of a router's public addresses since the router came to this host. `None`: there is no such router.
    ///
    /// # Errors
    /// The counters can't be read.
    pub async fn usage(&self, uuid: &str) -> Option<Result<Vec<Usage>, HostError>> {
        let slot = self.all().remove(uuid)?;
        Some(rules::usage(&slot.context).await)
    }

    fn all(&self) -> BTreeMap<String, Arc<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn slot(&self, uuid: &str) -> Result<Arc<Slot>, HostError> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if !(1..=40).contains(&uuid.len()) || !uuid.bytes().all(fine) {
            return Err(HostError::Refused(format!("{uuid:?} can't be a router's UUID")));
        }
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(uuid) {
            return Ok(slot.clone());
        }
        let layout = Layout::new(self.host.state_dir.join(uuid));
        let (wanted, in_force) = Store(&layout).load()?;
        let name = format!("{}{uuid}", self.host.namespace_prefix);
        let context = Context {
            uuid: uuid.to_owned(),
            namespace: Namespace::named(&name),
            name,
            layout,
            host: self.host.clone(),
            limited: Mutex::default(),
        };
        let slot = Arc::new(Slot {
            guests: GuestServer::new(context.layout.taken()),
            context,
            state: tokio::sync::Mutex::new(State { wanted, in_force, ..State::default() }),
        });
        slots.insert(uuid.to_owned(), slot.clone());
        Ok(slot)
    }
}

/// dnsmasq reads its files after it has become another user.
fn passable(dir: &std::path::Path) -> Result<(), HostError> {
    use std::os::unix::fs::MetadataExt as _;
    let dir = dir.canonicalize().map_err(|e| HostError::failed(dir.display(), e))?;
    let shut = dir.ancestors().find(|d| d.metadata().is_ok_and(|m| m.mode() & 0o001 == 0));
    match shut {
        Some(shut) => Err(HostError::Refused(format!(
            "dnsmasq, which doesn't stay root, can't pass {} (chmod o+x, or another folder for routers)",
            shut.display()
        ))),
        None => Ok(()),
    }
}

fn report(slot: &Slot, state: &State) -> RouterApplied {
    RouterApplied {
        router_uuid: slot.context.uuid.clone(),
        generation: state.wanted.generation,
        behind: false,
        faults: state.faults.clone(),
        taken: Vec::new(),
    }
}
