//! The guests of this machine: libvirt's domains with our facts in their metadata.
//!
//! Domains are transient: one step brings a guest to life and nothing of it is left when it ends, so there is no
//! definition that could be started without its lease.
//!
//! | module | what |
//! |---|---|
//! | [`spec`], [`flavour`] | orders, checked; what systems can drive |
//! | [`domain`], [`xml`] | domains written and read |
//! | [`table`] | what is known of them |
//! | [`daemon`], [`watch`] | lines to libvirt; what it tells |
//! | [`life`], [`devices`], [`nics`], [`cd`], [`migrate`] | orders |
//! | [`container`] | what is different with containers |
//! | [`process`] | QEMU seen from outside |

mod cd;
mod container;
mod daemon;
mod devices;
mod domain;
mod flavour;
mod life;
mod migrate;
mod nics;
mod process;
mod rates;
mod spec;
mod table;
mod watch;
mod xml;

pub(super) use daemon::{Daemon, Lines, told};
pub(super) use devices::Copier;
pub(super) use table::{Deed, Guest, Permit, Phase, Table};
pub(super) use watch::look_at;

use super::KvmOptions;
use super::driver::{Parts, done};
use super::storage::template_file;
use crate::hypervisor::{Digest, Done, Failure, News, Work};
use crate::lease::Areas;
use contract::ApiError;
use contract_agent::state_entry::Body as Entry;
use contract_agent::{EnsurePool, HostUp, PowerReason, PowerState, Report, VmEvent, VmState, outcome};
use libvirt::EventStream;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedMutexGuard, mpsc, watch as channel};

/// Where leases lie within a pool's folder.
const LEASES: &str = ".arcus/leases";
/// How long a pool may take to be reachable when the agent starts; later ones are waited for beside.
const POOL_PATIENCE: Duration = Duration::from_secs(20);

/// All guests.
pub(crate) struct Guests {
    pub(super) options: KvmOptions,
    pub(super) daemon: Daemon,
    pub(super) areas: Arc<Areas>,
    parts: Arc<OnceLock<Parts>>,
    table: Mutex<Table>,
    /// One order at a time for each VM.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    news: Mutex<Option<mpsc::UnboundedSender<News>>>,
    /// The keeper is to look now.
    pub(super) kick: Notify,
    /// Something about some guest changed.
    changes: channel::Sender<()>,
    /// What [`Guests::open`] leaves for [`Guests::keep`].
    events: Mutex<Option<EventStream>>,
    pub(super) moves: migrate::Moves,
    /// Guests are containers, and these are their root file systems.
    pub(super) roots: Option<Arc<container::Roots>>,
}

impl Guests {
    pub fn new(options: KvmOptions, state_dir: PathBuf, lease: Duration) -> Arc<Guests> {
        let parts = Arc::new(OnceLock::<Parts>::new());
        let known = parts.clone();
        // A VM without disks has nothing that others could write to.
        let alone = state_dir.join("leases");
        let locate = move |pool: &str| match uuid::Uuid::parse_str(pool) {
            Ok(_) => Some(known.get()?.storage.pool_dir(pool)?.join(LEASES)),
            Err(_) => Some(alone.join(pool)),
        };
        Arc::new(Guests {
            daemon: Daemon::new(
                options.libvirt_socket.clone(),
                options.containers.then(|| options.libvirt_root.join(container::STATES)),
            ),
            roots: options.containers.then(|| Arc::new(container::Roots::new(&options))),
            areas: Arc::new(Areas::located(locate, lease)),
            options,
            parts,
            table: Mutex::default(),
            turns: Mutex::default(),
            news: Mutex::default(),
            kick: Notify::new(),
            changes: channel::Sender::new(()),
            events: Mutex::default(),
            moves: migrate::Moves::default(),
        })
    }

    /// Finds what runs, and looks at the leases of all that does: what may not go on doesn't, from then on.
    ///
    /// # Errors
    /// libvirt refuses.
    pub async fn open(self: &Arc<Self>, parts: Parts) -> Result<(), ApiError> {
        let _ = self.parts.set(parts.clone()); // it is opened once
        // libvirt makes it only later than it makes files in it.
        let consoles = self.options.libvirt_root.join(domain::CONSOLES.trim_start_matches('/'));
        std::fs::create_dir_all(&consoles)
            .map_err(|e| ApiError::internal(format!("{} can't be made: {e}", consoles.display())))?;
        self.reach_pools(&parts).await;
        let opened = self.daemon.open().await;
        self.daemon.publish(Some(opened.lines.clone()));
        self.list(&opened.lines, true).await.map_err(|e| told(&e))?;
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened.events);
        self.first_round(&parts).await;
        parts.network.settle().await;
        self.sweep_roots();
        Ok(())
    }

    /// Keeps leases and listens to libvirt, for ever.
    pub async fn keep(self: &Arc<Self>) {
        let Some(parts) = self.parts.get() else { return };
        tokio::join!(self.watch(), self.keep_leases(parts));
    }

    /// Pools stay mounted when an agent ends, but not when the machine does.
    async fn reach_pools(self: &Arc<Self>, parts: &Parts) {
        let pools: Vec<EnsurePool> = self.table().pools.values().cloned().collect();
        let reach = pools.into_iter().map(|order| {
            let (guests, storage) = (self.clone(), parts.storage.clone());
            tokio::spawn(async move {
                if let Err(error) = storage.ensure_pool(&order).await {
                    tracing::warn!(pool = order.pool_uuid, %error, "a pool can't be reached");
                } else if let Err(error) = guests.open_area(&order).await {
                    tracing::warn!(pool = order.pool_uuid, %error, "the leases of a pool can't be reached");
                }
                guests.kick.notify_one();
            })
        });
        let all: Vec<_> = reach.collect();
        let wait = async {
            for one in all {
                let _ = one.await; // an error means that the process ends
            }
        };
        if tokio::time::timeout(POOL_PATIENCE, wait).await.is_err() {
            tracing::warn!(
                "not all pools were reached in time: guests whose leases lie there are paused until they are"
            );
        }
    }

    pub(super) fn parts(&self) -> Option<&Parts> {
        self.parts.get()
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other order is at a VM.
    pub(super) async fn turn(&self, vm: &str) -> OwnedMutexGuard<()> {
        self.turn_of(vm).lock_owned().await
    }

    /// The same, unless one is.
    pub(super) fn try_turn(&self, vm: &str) -> Option<OwnedMutexGuard<()>> {
        self.turn_of(vm).try_lock_owned().ok()
    }

    fn turn_of(&self, vm: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for or has.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(vm.to_owned()).or_default().clone()
    }

    /// Something changed: whoever waits for it looks again.
    pub fn touch(&self) {
        self.changes.send_replace(());
    }

    pub fn listen(&self, news: mpsc::UnboundedSender<News>) {
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(news);
    }

    /// Tells what a guest did by itself.
    pub(super) fn tell(&self, vm: VmState) {
        let Some(parts) = self.parts() else { return };
        if let Some(listener) = &*self.news.lock().unwrap_or_else(PoisonError::into_inner) {
            let event = VmEvent { host_uuid: parts.host.clone(), vm: Some(vm) };
            let _ = listener.send(News::Vm(event)); // the agent is ending
        }
    }

    /// What the host says of itself; `told`: the control plane hears it.
    pub fn up(&self, parts: &Parts, told: bool) -> HostUp {
        let report = self.report(parts, told);
        HostUp {
            host_uuid: report.host_uuid,
            guid: parts.host.clone(),
            boot_id: parts.boot_id.clone(),
            facts: Some(parts.facts().clone()),
            digest: report.digest,
        }
    }

    /// All that the host runs, as far as is known when libvirt doesn't answer; `told`: the control plane hears it.
    pub fn report(&self, parts: &Parts, told: bool) -> Report {
        let routers = parts.network.routers_now();
        let mut table = self.table();
        let vms = table.states();
        let mut digest = Digest::new(&parts.boot_id);
        vms.iter().for_each(|vm| digest.vm(&vm.uuid, vm.power(), vm.generation));
        for router in &routers {
            digest.router(&router.router_uuid, router.generation);
            router.taken.iter().for_each(|taken| digest.taken(&taken.vm_uuid, &taken.password_id));
        }
        let digest = digest.finish();
        if told {
            table.reported.clone_from(&digest);
        }
        Report { host_uuid: parts.host.clone(), digest, vms, routers }
    }

    /// Whether a report would say something new.
    pub fn has_changed(&self, parts: &Parts) -> bool {
        let digest = self.report(parts, false).digest;
        digest != self.table().reported
    }

    pub async fn inventory(self: &Arc<Self>, work: &Work, parts: &Parts) -> Result<Done, Failure> {
        // What is known by events may be a moment old.
        self.list(&self.daemon.lines()?, false).await.map_err(|e| told(&e))?;
        done(work, outcome::Body::Inventory(self.report(parts, false)))
    }

    pub async fn ensure_pool(&self, work: &Work, parts: &Parts, order: EnsurePool) -> Result<Done, Failure> {
        let mut facts = parts.storage.ensure_pool(&order).await?;
        facts.lease_millis = match parts.storage.pool_dir(&order.pool_uuid) {
            Some(_) => self.open_area(&order).await?,
            None => 0,
        };
        work.commit(|entries| {
            let mut table = self.table();
            if table.pools.get(&order.pool_uuid) != Some(&order) {
                table.pools.insert(order.pool_uuid.clone(), order.clone());
                entries.push(Entry::Pool(order));
            }
            Ok((outcome::Body::Pool(facts), table))
        })
    }

    /// The socket of a guest's screen, as this process sees it.
    pub fn screen(&self, vm: &str) -> Result<PathBuf, ApiError> {
        let table = self.table();
        let shows = |phase: Phase| !matches!(phase, Phase::Starting | Phase::Waiting { .. });
        let guest = table.guests.get(vm).filter(|guest| shows(guest.phase));
        let guest =
            guest.ok_or_else(|| ApiError::failed("The VM doesn't run on this host: start it to see its console"))?;
        let socket = guest.described.vnc.as_deref();
        let socket = socket.ok_or_else(|| ApiError::failed(format!("VM {} has no screen", guest.domain.name)))?;
        Ok(self.options.libvirt_root.join(socket.trim_start_matches('/')))
    }

    /// A volume's bytes are a guest's as long as it is plugged in, and an ISO's as long as it lies in a guest's drive.
    pub fn refuse_in_use(&self, volume: &str) -> Result<(), ApiError> {
        let table = self.table();
        let iso = format!("/{}", template_file(volume));
        let reads = |guest: &&Guest| {
            let drive = guest.described.drive.as_ref().and_then(|drive| drive.file.as_deref());
            drive.is_some_and(|file| file.ends_with(&iso))
        };
        if let Some(guest) = table.guests.values().find(reads) {
            let text = format!("ISO {volume} is in the CD drive of VM {}, which runs on this host", guest.domain.name);
            return Err(ApiError::in_use(text));
        }
        let user = table
            .guests
            .values()
            .find(|guest| guest.described.disks.iter().any(|disk| disk.volume.to_string() == volume));
        match user {
            None => Ok(()),
            Some(guest) => Err(ApiError::failed(format!(
                "Volume {volume} is plugged into VM {}, which runs on this host: detach it first",
                guest.domain.name
            ))),
        }
    }

    pub fn load(&self, entry: Entry) {
        let mut table = self.table();
        match entry {
            Entry::Lease(saved) => drop(table.generations.insert(saved.vm_uuid, saved.generation)),
            Entry::Pool(order) => drop(table.pools.insert(order.pool_uuid.clone(), order)),
            // Those of a simulator that had this folder before.
            _ => {}
        }
    }

    pub fn snapshot(&self) -> Vec<Entry> {
        let host = self.parts().map(|parts| parts.host.clone()).unwrap_or_default();
        let table = self.table();
        let pools = table.pools.values().cloned().map(Entry::Pool);
        let leases = table.generations.iter().map(|(vm, generation)| table::lease_saved(vm, *generation, &host));
        pools.chain(leases).collect()
    }
}

/// What became of a guest that is no more.
pub(super) fn ended(guest: &Guest, reason: PowerReason, lost_to: i64) -> VmState {
    VmState { power: PowerState::Off.into(), reason: reason.into(), lost_to, vnc: None, ..guest.state() }
}
