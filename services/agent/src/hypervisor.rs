//! What a hypervisor's driver does.

use crate::console::ConsoleEndpoint;
use crate::journal::Journal;
use crate::log::Ticket;
use crate::memory::{EffectKey, Known, Memory};
use aws_lc_rs::digest::{Context, SHA256};
use contract::ApiError;
use contract_agent::state_entry::Body as Entry;
use contract_agent::{
    AgentKind, ApplyRouter, AttachDisk, BeginMigration, ChangeCd, ConfirmMigration, DeleteDisk, DeleteImage,
    DetachDisk, EnsureDisk, EnsureIso, EnsurePool, FenceVm, FetchImage, FinishMigration, HostUp, InspectHost,
    InspectLease, ListDisks, Mock, Outcome, PerformMigration, PlugNic, PowerState, PrepareMigration, ReadImage,
    RebootVm, RemoveRouter, Report, ResizeDisk, ScaleVm, SpawnHost, StartVm, StopVm, StoreDisk, UnplugNic, VmEvent,
    outcome,
};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Why an order gave no outcome.
#[derive(Debug)]
pub enum Failure {
    /// It was refused or failed, and left nothing behind.
    Refused(ApiError),
    /// The host says nothing at all.
    Silent,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Failure::Refused(error)
    }
}

/// An order that was carried out, and what is on its way to the disk. Only [`Work`] makes it, so that nothing is answered
/// that wasn't written.
pub struct Done {
    pub(crate) outcome: Outcome,
    pub(crate) ticket: Option<Ticket>,
    /// The answer gets lost on purpose.
    pub(crate) mute: bool,
}

impl Done {
    /// Loses the answer: for faults that tests ask for.
    #[must_use]
    pub fn mute(mut self, mute: bool) -> Done {
        self.mute = mute;
        self
    }
}

/// One order under way: where it goes, whose effect it is, and the pen for the state file.
pub struct Work {
    pub(crate) host: String,
    pub(crate) key: Option<EffectKey>,
    pub(crate) undo: bool,
    pub(crate) journal: Arc<Journal>,
    pub(crate) memory: Arc<Mutex<Memory>>,
    pub(crate) taken_back: CancellationToken,
}

impl Work {
    /// The host that is to do it; empty for the agent itself.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Waits until an undo of this very effect has come: work that hasn't begun yet need not begin.
    pub async fn taken_back(&self) {
        self.taken_back.cancelled().await;
    }

    /// Ends the order: `change` alters the driver's state and pushes what is to be written of it. It gives the outcome,
    /// and the lock under which it worked: the record gets its place before that is released. All that and "this effect
    /// took place" is one record.
    ///
    /// # Errors
    /// What `change` refuses; it must not have altered anything then.
    pub fn commit<G>(
        &self,
        change: impl FnOnce(&mut Vec<Entry>) -> Result<(outcome::Body, G), Failure>,
    ) -> Result<Done, Failure> {
        let section = self.journal.section();
        let mut entries = Vec::new();
        let (body, _lock) = change(&mut entries)?;
        let outcome = Outcome { body: Some(body) };
        if let Some(key) = &self.key {
            let known = if self.undo { Known::Undone(outcome.clone()) } else { Known::Done(outcome.clone()) };
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let now = store::now_micros();
            entries.push(memory.remember(key, known, now));
            memory.expire(now);
        }
        let ticket = (!entries.is_empty()).then(|| section.write(entries));
        Ok(Done { outcome, ticket, mute: false })
    }
}

/// A driver. Orders name wanted states: doing one twice is doing it once.
#[async_trait::async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// What its agents are.
    fn kind(&self) -> AgentKind;
    /// The hosts that it stands for.
    fn hosts(&self) -> Vec<HostUp>;
    /// One of them.
    fn host(&self, host: &str) -> Option<HostUp>;
    /// Hosts that don't answer at the moment, dead or alive.
    fn silent(&self) -> Vec<String>;
    /// Those of them that are known to be off.
    fn dead(&self) -> Vec<String>;
    /// All that a host runs.
    fn report(&self, host: &str) -> Option<Report>;
    /// Hosts whose report would differ from the last that was taken.
    fn changed(&self) -> Vec<String>;
    /// Where it tells what happens by itself.
    fn listen(&self, news: mpsc::UnboundedSender<News>);

    /// Defines and starts a VM.
    async fn start_vm(&self, work: &Work, order: StartVm) -> Result<Done, Failure>;
    /// Stops a VM and drops its definition.
    async fn stop_vm(&self, work: &Work, order: StopVm) -> Result<Done, Failure>;
    /// Reboots a running VM.
    async fn reboot_vm(&self, work: &Work, order: RebootVm) -> Result<Done, Failure>;

    /// Says what a running VM is, for the host that it is to move to.
    async fn begin_migration(&self, work: &Work, order: BeginMigration) -> Result<Done, Failure> {
        let _ = (work, order);
        Err(no_migration())
    }
    /// Makes a copy of a VM that waits, paused, for the VM's memory.
    async fn prepare_migration(&self, work: &Work, order: PrepareMigration) -> Result<Done, Failure> {
        let _ = (work, order);
        Err(no_migration())
    }
    /// Sends a VM's memory to the copy that waits, or tells where that stands.
    async fn perform_migration(&self, work: &Work, order: PerformMigration) -> Result<Done, Failure> {
        let _ = (work, order);
        Err(no_migration())
    }
    /// Says whether the copy that waits is whole, or throws it away.
    async fn finish_migration(&self, work: &Work, order: FinishMigration) -> Result<Done, Failure> {
        let _ = (work, order);
        Err(no_migration())
    }
    /// Ends the copy that was sent, or lets it go on.
    async fn confirm_migration(&self, work: &Work, order: ConfirmMigration) -> Result<Done, Failure> {
        let _ = (work, order);
        Err(no_migration())
    }

    /// Says whose a VM is, and whether its holder lives.
    async fn inspect_lease(&self, work: &Work, order: InspectLease) -> Result<Done, Failure>;
    /// Says whether another host lives, as far as a pool shows.
    async fn inspect_host(&self, work: &Work, order: InspectHost) -> Result<Done, Failure>;
    /// Makes sure that a VM runs nowhere.
    async fn fence_vm(&self, work: &Work, order: FenceVm) -> Result<Done, Failure>;

    /// Makes a pool reachable.
    async fn ensure_pool(&self, work: &Work, order: EnsurePool) -> Result<Done, Failure>;
    /// Makes a volume.
    async fn ensure_disk(&self, work: &Work, order: EnsureDisk) -> Result<Done, Failure>;
    /// Removes a volume's bytes.
    async fn delete_disk(&self, work: &Work, order: DeleteDisk) -> Result<Done, Failure>;
    /// Changes a volume's size.
    async fn resize_disk(&self, work: &Work, order: ResizeDisk) -> Result<Done, Failure>;
    /// Plugs a volume into a running VM.
    async fn attach_disk(&self, work: &Work, order: AttachDisk) -> Result<Done, Failure>;
    /// Unplugs a volume.
    async fn detach_disk(&self, work: &Work, order: DetachDisk) -> Result<Done, Failure>;

    /// Plugs a NIC into a running VM.
    async fn plug_nic(&self, work: &Work, order: PlugNic) -> Result<Done, Failure> {
        let _ = (work, order);
        Err(no_plugging())
    }
    /// Unplugs a NIC.
    async fn unplug_nic(&self, work: &Work, order: UnplugNic) -> Result<Done, Failure> {
        let _ = (work, order);
        Err(no_plugging())
    }

    /// Makes sure that an ISO is on a pool.
    async fn ensure_iso(&self, work: &Work, order: EnsureIso) -> Result<Done, Failure> {
        let _ = (work, order);
        Err(no_drives())
    }
    /// Changes what lies in the CD drive of a running VM.
    async fn change_cd(&self, work: &Work, order: ChangeCd) -> Result<Done, Failure> {
        let _ = (work, order);
        Err(no_drives())
    }

    /// Gives a running VM other CPUs and memory.
    async fn scale_vm(&self, work: &Work, order: ScaleVm) -> Result<Done, Failure> {
        let _ = (work, order);
        Err(ApiError::unsupported("this hypervisor's driver can't change the size of running virtual machines").into())
    }

    /// Fetches an image from outside into a secondary store, or tells where that stands.
    async fn fetch_image(&self, work: &Work, order: FetchImage) -> Result<Done, Failure>;
    /// Removes an image from a secondary store.
    async fn delete_image(&self, work: &Work, order: DeleteImage) -> Result<Done, Failure>;
    /// Copies a volume into a secondary store, or tells where that stands.
    async fn store_disk(&self, work: &Work, order: StoreDisk) -> Result<Done, Failure>;
    /// Reads a piece of an image in a secondary store.
    async fn read_image(&self, work: &Work, order: ReadImage) -> Result<Done, Failure> {
        let _ = (work, order);
        Err(ApiError::unsupported("this hypervisor's driver can't read images piece by piece").into())
    }

    /// Brings a router to a wanted state.
    async fn apply_router(&self, work: &Work, order: ApplyRouter) -> Result<Done, Failure>;
    /// Removes a router.
    async fn remove_router(&self, work: &Work, order: RemoveRouter) -> Result<Done, Failure>;

    /// Stands for one more host.
    async fn spawn_host(&self, work: &Work, order: SpawnHost) -> Result<Done, Failure>;
    /// Forgets everything about a host.
    fn remove_host(&self, work: &Work) -> Result<Done, Failure>;
    /// Replaces delays and faults.
    fn set_mocks(&self, work: &Work, mocks: Vec<Mock>) -> Result<Done, Failure>;
    /// The delays and faults, with what remains of their counts.
    fn mocks(&self) -> Vec<Mock>;

    /// Where the console of a running VM is.
    ///
    /// # Errors
    /// 530 when the VM doesn't run on the order's host; 431 for drivers that have none.
    async fn console(&self, work: &Work, vm_uuid: &str) -> Result<ConsoleEndpoint, Failure> {
        let _ = (work, vm_uuid);
        Err(ApiError::unsupported("this hypervisor's driver shows no consoles").into())
    }

    /// What the order's host runs, without noting that it was reported.
    async fn inventory(&self, work: &Work) -> Result<Done, Failure>;
    /// A page of what lies on a pool.
    async fn list_disks(&self, work: &Work, order: ListDisks) -> Result<Done, Failure>;

    /// Takes over an entry of the state file.
    fn load(&self, entry: Entry);
    /// Everything that the state file must hold.
    fn snapshot(&self) -> Vec<Entry>;
}

/// The refusal of drivers that can't move running VMs.
fn no_migration() -> Failure {
    ApiError::unsupported("this hypervisor's driver can't move running virtual machines").into()
}

/// The refusal of drivers that can't change the NICs of running VMs.
fn no_plugging() -> Failure {
    ApiError::unsupported("this hypervisor's driver can't plug NICs into running virtual machines").into()
}

/// The refusal of drivers whose VMs have no CD drives.
fn no_drives() -> Failure {
    ApiError::unsupported("virtual machines of this hypervisor's driver have no CD drives").into()
}

/// What must be equal for the control plane to know what runs on a host. VMs and routers are to be given in the order of
/// their UUIDs.
pub(crate) struct Digest(Context);

impl Digest {
    /// Of a host, booted so.
    pub fn new(boot_id: &str) -> Digest {
        let mut digest = Context::new(&SHA256);
        digest.update(boot_id.as_bytes());
        Digest(digest)
    }

    /// It has this VM.
    pub fn vm(&mut self, uuid: &str, power: PowerState, generation: i64) {
        self.0.update(b"v");
        self.0.update(uuid.as_bytes());
        self.0.update(&(power as i32).to_le_bytes());
        self.0.update(&generation.to_le_bytes());
    }

    /// It has this router.
    pub fn router(&mut self, uuid: &str, generation: i64) {
        self.0.update(b"r");
        self.0.update(uuid.as_bytes());
        self.0.update(&generation.to_le_bytes());
    }

    /// Its router has a password that this VM's guest took.
    pub fn taken(&mut self, vm: &str, password_id: &str) {
        self.0.update(b"p");
        self.0.update(vm.as_bytes());
        self.0.update(password_id.as_bytes());
    }

    /// All of it.
    pub fn finish(self) -> Vec<u8> {
        self.0.finish().as_ref()[..16].to_vec()
    }
}

/// What happens on hosts without an order.
#[derive(Clone, Debug)]
pub enum News {
    /// A VM changed its power state.
    Vm(VmEvent),
    /// A host booted.
    HostUp(String),
}
