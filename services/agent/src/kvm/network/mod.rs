//! Networks of a KVM host: the bridges that guests are plugged into, and the routers in namespaces.
//!
//! Routers are kept by [`router::Routers`], whose folder holds what each router was told last, whole and synced before
//! anything of it is applied. That folder is the only record: the agent's state file keeps no router changes (as the
//! simulator's does), for a second copy could say something else after a kill, and would hold passwords once more. The
//! order of a kill doesn't matter: an order whose effect wasn't recorded comes again, and a generation that the router
//! has is only verified.

mod held;
#[cfg(test)]
mod tests;

use crate::kvm::KvmOptions;
use contract::ApiError;
use contract_agent::{ApplyRouter, RouterApplied, VmNic};
use held::Held;
use router::plan::Traffic;
use router::{BroadcastUri, Host, HostError, Namespace, Routers, Segment, Wiring};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;

/// Between looks whether routers are as they were told: a daemon that died is back after at most this.
const LOOK: Duration = Duration::from_secs(30);

/// What carries the networks of a host.
#[derive(Clone, Debug)]
pub(crate) struct NetworkConfig {
    /// Routers have a folder each in here. At most 40 bytes long, and passable for every user.
    pub state_dir: PathBuf,
    /// Devices of guest and public traffic, and labels.
    pub wiring: Wiring,
    /// The host's own network namespace; another one where a host is only a namespace.
    pub namespace: Namespace,
    /// Before a router's UUID in the name of its namespace. Hosts that share a machine need different ones.
    pub namespace_prefix: String,
}

/// The folder of routers within the agent's state folder.
pub(crate) fn routers_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("r")
}

impl NetworkConfig {
    /// As a host is set to. In a namespace of its own a host gives its namespaces names of its own, too.
    pub fn of(options: &KvmOptions, state_dir: &Path) -> NetworkConfig {
        let wiring =
            Wiring { labels: options.devices.clone(), ..Wiring::new(&options.guest_device, &options.public_device) };
        let config = NetworkConfig::new(routers_dir(state_dir), wiring);
        match &options.network_namespace {
            None => config,
            Some(name) => NetworkConfig {
                namespace: Namespace::named(name),
                namespace_prefix: format!("arcus-{name}-"),
                ..config
            },
        }
    }

    /// On the machine's own network.
    pub fn new(state_dir: impl Into<PathBuf>, wiring: Wiring) -> NetworkConfig {
        NetworkConfig {
            state_dir: state_dir.into(),
            wiring,
            namespace: Namespace::Own,
            namespace_prefix: "arcus-".into(),
        }
    }

    fn host(&self) -> Host {
        Host {
            network: self.namespace.clone(),
            namespace_prefix: self.namespace_prefix.clone(),
            ..Host::new(&self.state_dir, self.wiring.clone())
        }
    }
}

/// Where a guest's NIC is plugged in. While it lives, the bridge isn't removed; let it go once the guest's device is a
/// port of the bridge.
#[derive(Debug)]
pub(crate) struct Plug {
    /// The bridge's name.
    pub bridge: String,
    /// Largest frame, in bytes.
    pub mtu: Option<u32>,
    _held: held::Hold,
}

/// Networks and routers of this host. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Network(Arc<Inner>);

struct Inner {
    routers: Routers,
    /// The last report of each router. Kept here because a report must not wait for a router that is being changed.
    reports: Mutex<BTreeMap<String, RouterApplied>>,
    held: Held,
    keeper: Mutex<Option<AbortHandle>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.abort();
        }
    }
}

impl Network {
    /// Finds the routers of this host, and from now on keeps them as they were told: those that a restart of the agent
    /// or of the machine, or somebody's hand, has changed are brought back, and removals that were cut off are ended.
    ///
    /// # Errors
    /// The folder can't be used for routers.
    pub async fn open(config: NetworkConfig) -> Result<Network, ApiError> {
        let routers = Routers::open(config.host()).map_err(refused)?;
        let reports = routers.reports().await.into_iter().map(|r| (r.router_uuid.clone(), r)).collect();
        let network = Network(Arc::new(Inner {
            routers,
            reports: Mutex::new(reports),
            held: Held::default(),
            keeper: Mutex::default(),
        }));
        // Beside: a host with many routers says hello before each of them was looked at.
        let weak = Arc::downgrade(&network.0);
        let keeper = tokio::spawn(async move {
            if let Some(inner) = weak.upgrade() {
                inner.resume().await;
            }
            loop {
                tokio::time::sleep(LOOK).await;
                match weak.upgrade() {
                    Some(inner) => inner.look().await,
                    None => return,
                }
            }
        });
        *network.0.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper.abort_handle());
        Ok(network)
    }

    /// Makes sure of the bridge that a guest's NIC is plugged into.
    ///
    /// # Errors
    /// 431 for a URI that no host can carry; else the host lacks a device or its kernel can't do it: the text names it.
    pub async fn plug(&self, nic: &VmNic) -> Result<Plug, ApiError> {
        let segment = self.segment(&nic.broadcast_uri)?;
        let hold = self.0.held.hold(&segment).await;
        let bridge = self.0.routers.segments().ensure(&segment).await.map_err(refused)?;
        Ok(Plug { bridge: bridge.name, mtu: Some(bridge.mtu), _held: hold })
    }

    /// Limits how fast a guest's device of this host is, each way, in megabits a second; 0: no limit.
    ///
    /// # Errors
    /// The device isn't there, or the kernel can't: the text says what.
    pub async fn limit(&self, device: &str, mbps: u64) -> Result<(), ApiError> {
        self.0.routers.segments().limit(device, mbps).await.map_err(refused)
    }

    /// When the agent has looked which guests there are, and before it takes orders: removes what those needed that ended
    /// meanwhile. What can't be removed stays for the next time.
    pub async fn settle(&self) {
        let segments = self.0.routers.segments();
        if let Err(error) = segments.forget_limits().await {
            tracing::debug!(%error, "what limited a guest's device stays until the next one goes");
        }
        if let Err(error) = segments.sweep().await {
            tracing::warn!(%error, "bridges that nothing is plugged into can't be removed");
        }
    }

    /// After a guest has ended: removes the bridges of its networks that nothing is plugged into any more. One that can't
    /// be removed stays for the next time.
    pub async fn unplug(&self, nics: &[VmNic]) {
        if let Err(error) = self.0.routers.segments().forget_limits().await {
            tracing::debug!(%error, "what limited a guest's device stays until the next one goes");
        }
        for nic in nics {
            let Ok(segment) = self.segment(&nic.broadcast_uri) else { continue };
            let release = || self.0.routers.segments().release(&segment);
            if let Some(Err(error)) = self.0.held.unless_held(&segment, release).await {
                tracing::warn!(network = nic.broadcast_uri, %error, "a network's bridge can't be removed");
            }
        }
    }

    /// Brings a router to a wanted state. Sections that fail are in the answer; the others run.
    ///
    /// # Errors
    /// This host can't carry the router at all.
    pub async fn apply_router(&self, order: &ApplyRouter) -> Result<RouterApplied, ApiError> {
        let applied = self.0.routers.apply(order.clone()).await.map_err(refused)?;
        // One that is behind has no new state to report; the one that it has was reported.
        if !applied.behind {
            self.0.note(&order.router_uuid, Some(applied.clone()));
        }
        Ok(applied)
    }

    /// Removes a router with everything of it; one that isn't there is removed already.
    ///
    /// # Errors
    /// Something of it can't be removed: it is tried again, by a repeat or by the next start of the agent.
    pub async fn remove_router(&self, uuid: &str) -> Result<(), ApiError> {
        self.0.routers.remove(uuid).await.map_err(refused)?;
        self.0.note(uuid, None);
        Ok(())
    }

    /// What this host's routers were told, which of their sections failed, and which passwords were taken. Doesn't wait for changes under way.
    pub fn routers_now(&self) -> Vec<RouterApplied> {
        let mut routers: Vec<RouterApplied> = self.0.reports().values().cloned().collect();
        for router in &mut routers {
            router.taken = self.0.routers.taken(&router.router_uuid);
        }
        routers
    }

    /// Removes all routers: the host was deleted. What can't be removed is told and tried by the next start.
    pub async fn forget(&self) {
        for router in self.routers_now() {
            if let Err(error) = self.remove_router(&router.router_uuid).await {
                tracing::warn!(router = router.router_uuid, %error, "a router of a deleted host can't be removed");
            }
        }
    }

    fn segment(&self, uri: &str) -> Result<Segment, ApiError> {
        let parsed = BroadcastUri::parse(uri).map_err(ApiError::param)?;
        Ok(self.0.routers.segments().locate(parsed, Traffic::Guest, None))
    }
}

impl Inner {
    fn reports(&self) -> MutexGuard<'_, BTreeMap<String, RouterApplied>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, uuid: &str, report: Option<RouterApplied>) {
        let mut reports = self.reports();
        match report {
            // Two changes of one router may end here in another order than they were made in.
            Some(report) if reports.get(uuid).is_some_and(|known| known.generation > report.generation) => {}
            Some(report) => drop(reports.insert(uuid.to_owned(), report)),
            None => drop(reports.remove(uuid)),
        }
    }

    async fn resume(&self) {
        for (uuid, result) in self.routers.resume().await {
            self.looked_at(&uuid, result);
        }
    }

    async fn look(&self) {
        let uuids: Vec<String> = self.reports().keys().cloned().collect();
        for uuid in uuids {
            if let Some(result) = self.routers.check(&uuid).await {
                self.looked_at(&uuid, result);
            }
        }
    }

    fn looked_at(&self, uuid: &str, result: Result<RouterApplied, HostError>) {
        match result {
            // Only of routers that are known: this one may have been removed since.
            Ok(report) if self.reports().contains_key(uuid) => self.note(uuid, Some(report)),
            Ok(_) => {}
            Err(error) => tracing::warn!(router = uuid, %error, "a router can't be brought to its wanted state"),
        }
    }
}

/// Both kinds stay as they are until somebody mends the host or orders anew: the text says what is wrong.
fn refused(error: HostError) -> ApiError {
    match error {
        HostError::Refused(text) => ApiError::failed(text),
        HostError::Failed(text) => ApiError::internal(text),
        HostError::Interrupted(_) => ApiError::internal(error.to_string()),
    }
}
