//! The driver: orders to this machine, and what it says of itself.

use super::KvmOptions;
use super::facts::{self, FactsConfig};
use super::guests::{Copier, Guests};
use super::network::{Network, NetworkConfig};
use super::probe::{self, Acceleration, Probe};
use super::storage::{Storage, StorageConfig};
use crate::console::ConsoleEndpoint;
use crate::executor::nothing;
use crate::hypervisor::{Done, Failure, Hypervisor, News, Work};
use contract::ApiError;
use contract_agent::state_entry::Body as Entry;
use contract_agent::{
    AgentKind, ApplyRouter, AttachDisk, BeginMigration, ChangeCd, ConfirmMigration, DeleteDisk, DeleteImage,
    DetachDisk, EnsureDisk, EnsureIso, EnsurePool, FenceVm, FetchImage, FinishMigration, HostFacts, HostUp,
    InspectHost, InspectLease, ListDisks, Mock, PerformMigration, PlugNic, PrepareMigration, ReadImage, RebootVm,
    RemoveRouter, Report, ResizeDisk, SpawnHost, StartVm, StopVm, StoreDisk, UnplugNic, outcome,
};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// The kernel's number of this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How long the guests and routers of a deleted host may take to end.
const LAST: Duration = Duration::from_secs(60);

/// The one machine that this agent runs on.
pub(crate) struct Kvm {
    pub(super) options: KvmOptions,
    state_dir: PathBuf,
    pub(super) guests: Arc<Guests>,
    parts: OnceLock<Parts>,
    /// What must end before the agent does.
    last: TaskTracker,
}

/// What there is once the machine was looked at.
#[derive(Clone)]
pub(super) struct Parts {
    /// Its UUID: that of its agent.
    pub host: String,
    pub boot_id: String,
    pub storage: Storage,
    pub network: Network,
    pub acceleration: Acceleration,
    facts: Arc<Mutex<HostFacts>>,
}

impl Parts {
    pub fn facts(&self) -> MutexGuard<'_, HostFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kvm {
    /// A machine that isn't looked at yet. `lease` is the lease time of pools that have none.
    pub fn new(options: KvmOptions, state_dir: PathBuf, lease: Duration) -> Arc<Kvm> {
        let guests = Guests::new(options.clone(), state_dir.clone(), lease);
        Arc::new(Kvm { options, state_dir, guests, parts: OnceLock::new(), last: TaskTracker::new() })
    }

    /// Looks at the machine: what it can, what runs on it, and which of that may go on.
    ///
    /// # Errors
    /// The machine isn't fit to be a host.
    pub async fn open(self: &Arc<Self>, host: &str) -> Result<(), ApiError> {
        let options = &self.options;
        let boot_id = std::fs::read_to_string(BOOT_ID)
            .map_err(|e| ApiError::internal(format!("{BOOT_ID} can't be read: {e}")))?;
        let storage = Storage::open(StorageConfig {
            state_dir: self.state_dir.clone(),
            mount_root: options.mount_root.clone(),
            work_dir: options.work_dir.clone(),
            max_virtual_bytes: options.max_virtual_bytes,
            allow_unmounted: options.allow_unmounted,
        })
        .await?;
        let network = Network::open(NetworkConfig::of(options, &self.state_dir)).await?;
        let acceleration = match (&options.acceleration, probe::emulator()) {
            _ if options.containers => Acceleration::Unneeded,
            (Some(known), _) => known.clone(),
            (None, Some(emulator)) => probe::acceleration(&Probe::new(emulator, &self.state_dir)).await,
            (None, None) => return Err(ApiError::internal("QEMU for this machine's processors isn't installed")),
        };
        let connection = self.guests.daemon.open().await.lines.orders;
        let facts =
            facts::facts(&connection, &FactsConfig::of(options, env!("CARGO_PKG_VERSION")), &acceleration).await?;
        let parts = Parts {
            host: host.to_owned(),
            boot_id: boot_id.trim().to_owned(),
            storage,
            network,
            acceleration,
            facts: Arc::new(Mutex::new(facts)),
        };
        parts.storage.set_moment(Arc::new(Copier(Arc::downgrade(&self.guests))));
        self.guests.open(parts.clone()).await?;
        let _ = self.parts.set(parts); // it is opened once
        Ok(())
    }

    /// Keeps leases, and listens to libvirt, for ever.
    pub async fn keep(&self) {
        self.guests.keep().await;
    }

    /// Waits until all that ran on a host which was deleted has ended: nobody cares for it once the agent is gone.
    pub async fn settle(&self) {
        self.last.close();
        if tokio::time::timeout(LAST, self.last.wait()).await.is_err() {
            tracing::warn!("not all guests and routers of the deleted host have ended: end them by hand");
        }
    }

    /// What there is, for orders to this host.
    pub(super) fn parts(&self, work: &Work) -> Result<&Parts, Failure> {
        match self.parts.get() {
            Some(parts) if parts.host == work.host() => Ok(parts),
            Some(_) => Err(ApiError::unavailable(format!("this agent doesn't stand for host {}", work.host())).into()),
            None => Err(ApiError::unavailable("the host's agent has just begun").into()),
        }
    }
}

/// An outcome of which the driver's state holds nothing.
pub(super) fn done(work: &Work, body: outcome::Body) -> Result<Done, Failure> {
    work.commit(|_| Ok((body, ())))
}

fn no_factory() -> Failure {
    ApiError::unsupported("this agent drives the machine that it runs on: it makes no hosts and feigns no faults")
        .into()
}

#[async_trait::async_trait]
impl Hypervisor for Kvm {
    fn kind(&self) -> AgentKind {
        AgentKind::Host
    }

    fn hosts(&self) -> Vec<HostUp> {
        self.parts.get().map(|parts| self.guests.up(parts, true)).into_iter().collect()
    }

    fn host(&self, host: &str) -> Option<HostUp> {
        let parts = self.parts.get().filter(|parts| parts.host == host)?;
        Some(self.guests.up(parts, false))
    }

    /// Without libvirt orders are refused, but the host isn't silent: its guests and their leases go on, and nobody need
    /// ask whether it lives.
    fn silent(&self) -> Vec<String> {
        Vec::new()
    }

    fn dead(&self) -> Vec<String> {
        Vec::new()
    }

    fn report(&self, host: &str) -> Option<Report> {
        let parts = self.parts.get().filter(|parts| parts.host == host)?;
        Some(self.guests.report(parts, true))
    }

    fn changed(&self) -> Vec<String> {
        let changed = self.parts.get().filter(|parts| self.guests.has_changed(parts));
        changed.map(|parts| parts.host.clone()).into_iter().collect()
    }

    fn listen(&self, news: mpsc::UnboundedSender<News>) {
        self.guests.listen(news);
    }

    async fn start_vm(&self, work: &Work, order: StartVm) -> Result<Done, Failure> {
        self.guests.start(work, self.parts(work)?, order).await
    }

    async fn stop_vm(&self, work: &Work, order: StopVm) -> Result<Done, Failure> {
        self.guests.stop(work, self.parts(work)?, order).await
    }

    async fn reboot_vm(&self, work: &Work, order: RebootVm) -> Result<Done, Failure> {
        self.parts(work)?;
        self.guests.reboot(work, order).await
    }

    async fn begin_migration(&self, work: &Work, order: BeginMigration) -> Result<Done, Failure> {
        self.parts(work)?;
        self.guests.refuse_for_containers("Migration while it runs")?;
        self.guests.begin_migration(work, order).await
    }

    async fn prepare_migration(&self, work: &Work, order: PrepareMigration) -> Result<Done, Failure> {
        self.guests.refuse_for_containers("Migration while it runs")?;
        self.guests.prepare_migration(work, self.parts(work)?, order).await
    }

    async fn perform_migration(&self, work: &Work, order: PerformMigration) -> Result<Done, Failure> {
        self.parts(work)?;
        self.guests.perform_migration(work, order).await
    }

    async fn finish_migration(&self, work: &Work, order: FinishMigration) -> Result<Done, Failure> {
        self.guests.finish_migration(work, self.parts(work)?, order).await
    }

    async fn confirm_migration(&self, work: &Work, order: ConfirmMigration) -> Result<Done, Failure> {
        self.guests.confirm_migration(work, self.parts(work)?, order).await
    }

    async fn inspect_lease(&self, work: &Work, order: InspectLease) -> Result<Done, Failure> {
        self.parts(work)?;
        self.guests.inspect_lease(work, order).await
    }

    async fn inspect_host(&self, work: &Work, order: InspectHost) -> Result<Done, Failure> {
        self.parts(work)?;
        self.guests.inspect_host(work, order).await
    }

    async fn fence_vm(&self, work: &Work, order: FenceVm) -> Result<Done, Failure> {
        self.parts(work)?;
        self.guests.fence(work, order).await
    }

    async fn ensure_pool(&self, work: &Work, order: EnsurePool) -> Result<Done, Failure> {
        self.guests.ensure_pool(work, self.parts(work)?, order).await
    }

    async fn ensure_disk(&self, work: &Work, order: EnsureDisk) -> Result<Done, Failure> {
        let disk = self.parts(work)?.storage.ensure_disk(&order).await?;
        done(work, outcome::Body::Disk(disk))
    }

    async fn ensure_iso(&self, work: &Work, order: EnsureIso) -> Result<Done, Failure> {
        let parts = self.parts(work)?;
        self.guests.refuse_for_containers("A CD drive")?;
        parts.storage.ensure_iso(&order).await?;
        done(work, nothing())
    }

    async fn change_cd(&self, work: &Work, order: ChangeCd) -> Result<Done, Failure> {
        self.guests.change_cd(work, self.parts(work)?, order).await
    }

    async fn delete_disk(&self, work: &Work, order: DeleteDisk) -> Result<Done, Failure> {
        let parts = self.parts(work)?;
        self.guests.refuse_in_use(&order.volume_uuid)?;
        parts.storage.delete_disk(&order).await?;
        if let Some(vm) = &order.ended_vm {
            self.guests.forget_vm(work.host(), vm, &order.pool_uuid).await?;
        }
        done(work, nothing())
    }

    async fn resize_disk(&self, work: &Work, order: ResizeDisk) -> Result<Done, Failure> {
        self.guests.resize_disk(work, self.parts(work)?, order).await
    }

    async fn attach_disk(&self, work: &Work, order: AttachDisk) -> Result<Done, Failure> {
        self.guests.attach_disk(work, self.parts(work)?, order).await
    }

    async fn detach_disk(&self, work: &Work, order: DetachDisk) -> Result<Done, Failure> {
        self.parts(work)?;
        self.guests.detach_disk(work, order).await
    }

    async fn plug_nic(&self, work: &Work, order: PlugNic) -> Result<Done, Failure> {
        self.guests.plug_nic(work, self.parts(work)?, order).await
    }

    async fn unplug_nic(&self, work: &Work, order: UnplugNic) -> Result<Done, Failure> {
        self.guests.unplug_nic(work, self.parts(work)?, order).await
    }

    async fn fetch_image(&self, work: &Work, order: FetchImage) -> Result<Done, Failure> {
        let image = self.parts(work)?.storage.fetch_image(&order).await?;
        done(work, outcome::Body::Image(image))
    }

    async fn read_image(&self, work: &Work, order: ReadImage) -> Result<Done, Failure> {
        let piece = self.parts(work)?.storage.read_image(&order).await?;
        done(work, outcome::Body::ImagePiece(piece))
    }

    async fn delete_image(&self, work: &Work, order: DeleteImage) -> Result<Done, Failure> {
        self.parts(work)?.storage.delete_image(&order).await?;
        done(work, nothing())
    }

    async fn store_disk(&self, work: &Work, order: StoreDisk) -> Result<Done, Failure> {
        let image = self.parts(work)?.storage.store_disk(&order).await?;
        done(work, outcome::Body::Image(image))
    }

    async fn console(&self, work: &Work, vm_uuid: &str) -> Result<ConsoleEndpoint, Failure> {
        self.parts(work)?;
        Ok(ConsoleEndpoint::Unix(self.guests.screen(vm_uuid)?))
    }

    async fn apply_router(&self, work: &Work, order: ApplyRouter) -> Result<Done, Failure> {
        let applied = self.parts(work)?.network.apply_router(&order).await?;
        self.guests.touch();
        done(work, outcome::Body::Router(applied))
    }

    async fn remove_router(&self, work: &Work, order: RemoveRouter) -> Result<Done, Failure> {
        self.parts(work)?.network.remove_router(&order.router_uuid).await?;
        self.guests.touch();
        done(work, nothing())
    }

    async fn spawn_host(&self, _work: &Work, _order: SpawnHost) -> Result<Done, Failure> {
        Err(no_factory())
    }

    /// What runs on a host that was deleted ends: nobody else would end it.
    fn remove_host(&self, work: &Work) -> Result<Done, Failure> {
        if let Ok(parts) = self.parts(work) {
            let (guests, network) = (self.guests.clone(), parts.network.clone());
            self.last.spawn(async move {
                guests.abandon().await;
                network.forget().await;
            });
        }
        done(work, nothing())
    }

    fn set_mocks(&self, _work: &Work, _mocks: Vec<Mock>) -> Result<Done, Failure> {
        Err(no_factory())
    }

    fn mocks(&self) -> Vec<Mock> {
        Vec::new()
    }

    async fn inventory(&self, work: &Work) -> Result<Done, Failure> {
        self.guests.inventory(work, self.parts(work)?).await
    }

    async fn list_disks(&self, work: &Work, order: ListDisks) -> Result<Done, Failure> {
        let disks = self.parts(work)?.storage.list_disks(&order).await?;
        done(work, outcome::Body::Disks(disks))
    }

    fn load(&self, entry: Entry) {
        self.guests.load(entry);
    }

    fn snapshot(&self) -> Vec<Entry> {
        self.guests.snapshot()
    }
}
