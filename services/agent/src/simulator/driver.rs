//! The driver: orders to simulated hosts.

use super::faults::{self, Verdict};
use super::guest::Guest;
use super::router;
use super::screen;
use super::state::{Host, Lease, State, Vm};
use crate::console::ConsoleEndpoint;
use crate::executor::nothing;
use crate::hypervisor::{Done, Failure, Hypervisor, News, Work};
use crate::journal::Journal;
use crate::lease::{Areas, Tenure, Wanted, lease_pool, outdated};
use contract::ApiError;
use contract_agent::state_entry::Body as Entry;
use contract_agent::{
    AgentKind, ApplyRouter, AttachDisk, BeginMigration, ChangeCd, ConfirmMigration, DeleteDisk, DeleteImage,
    DetachDisk, EnsureDisk, EnsureIso, EnsurePool, FenceVm, FetchImage, FinishMigration, ForgottenRouter, ForgottenVm,
    HostSpawned, HostUp, InspectHost, InspectLease, ListDisks, Mock, MockList, PerformMigration, PlugNic, PowerReason,
    PowerState, PrepareMigration, ReadImage, RebootVm, RemoveRouter, Report, ResizeDisk, RouterApplied, RouterChange,
    ScaleVm, SpawnHost, StartVm, StopVm, StoreDisk, UnplugNic, VmSpec, VmState, outcome,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

/// Bytes that fit between a simulated screen and its viewer.
const SCREEN_PIPE: usize = 64 * 1024;

/// All simulated hosts of a process.
pub(crate) struct Simulator {
    state: Mutex<State>,
    journal: Arc<Journal>,
    pub(super) areas: Arc<Areas>,
    /// The keeper is to look now.
    pub(super) kick: Notify,
    news: Mutex<Option<mpsc::UnboundedSender<News>>>,
}

impl Simulator {
    pub fn new(journal: Arc<Journal>, areas: Areas) -> Simulator {
        let areas = Arc::new(areas);
        Simulator { state: Mutex::default(), journal, areas, kick: Notify::new(), news: Mutex::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, when the order's host still answers.
    pub(super) fn alive(&self, work: &Work) -> Result<MutexGuard<'_, State>, Failure> {
        let state = self.state();
        match state.hosts.get(work.host()) {
            Some(host) if host.is_alive() => Ok(state),
            Some(_) => Err(Failure::Silent),
            None => Err(unknown(work.host()).into()),
        }
    }

    pub(super) fn tell(&self, news: News) {
        if let Some(listener) = &*self.news.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = listener.send(news); // the agent is ending
        }
    }

    /// What the delays and faults do to an order before it is carried out; whether its answer is to get lost.
    pub(super) async fn before(&self, work: &Work, names: &[&str]) -> Result<bool, Failure> {
        let verdict = self.judge(work, names)?;
        if !verdict.wait.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(verdict.wait) => {}
                // An undo has come while this waited: there is nothing to undo then. The undo itself waits its time.
                () = work.taken_back(), if !work.undo => {
                    return Err(ApiError::concurrent("the step was taken back before it was done").into());
                }
            }
        }
        if verdict.dies.is_some() {
            return Err(Failure::Silent);
        }
        if verdict.fault {
            return Err(ApiError::failed(format!("{} failed on the host, as the simulator was told", names[0])).into());
        }
        Ok(verdict.mute)
    }

    fn judge(&self, work: &Work, names: &[&str]) -> Result<Verdict, Failure> {
        // The usual case takes no section.
        let mut state = self.alive(work)?;
        if state.mocks.is_empty() {
            return Ok(Verdict::default());
        }
        drop(state);
        let section = self.journal.section();
        state = self.alive(work)?;
        let State { hosts, mocks, .. } = &mut *state;
        let Some(host) = hosts.get_mut(work.host()) else { return Err(unknown(work.host()).into()) };
        let verdict = faults::verdict(mocks, &host.spec, names);
        let mut entries = Vec::new();
        if verdict.counted {
            entries.push(Entry::Mocks(MockList { mocks: mocks.clone() }));
        }
        if let Some(mock) = verdict.dies {
            host.dead = true;
            host.killed_by = mock;
            entries.extend(host.lose_everything());
        }
        if !entries.is_empty() {
            drop(section.write(entries)); // nothing is answered that depends on it
        }
        Ok(verdict)
    }

    /// Changes a host by hand, for [`super::SimulatorHandle`].
    pub(super) fn by_hand<T>(&self, change: impl FnOnce(&mut State, &mut Vec<Entry>) -> T) -> T {
        let section = self.journal.section();
        let mut state = self.state();
        let mut entries = Vec::new();
        let value = change(&mut state, &mut entries);
        if !entries.is_empty() {
            drop(section.write(entries)); // whoever pulls a plug doesn't wait for a disk
        }
        value
    }
}

impl State {
    pub fn host(&mut self, uuid: &str) -> Result<&mut Host, Failure> {
        self.hosts.get_mut(uuid).ok_or_else(|| unknown(uuid).into())
    }
}

fn unknown(host: &str) -> ApiError {
    ApiError::unavailable(format!("this agent doesn't stand for host {host}"))
}

#[async_trait::async_trait]
impl Hypervisor for Simulator {
    fn kind(&self) -> AgentKind {
        AgentKind::Factory
    }

    fn hosts(&self) -> Vec<HostUp> {
        let mut state = self.state();
        let alive = state.hosts.values_mut().filter(|host| host.is_alive());
        alive
            .map(|host| {
                let up = host.up();
                host.reported.clone_from(&up.digest);
                host.dirty = false;
                up
            })
            .collect()
    }

    fn host(&self, host: &str) -> Option<HostUp> {
        self.state().hosts.get(host).filter(|host| host.is_alive()).map(Host::up)
    }

    fn silent(&self) -> Vec<String> {
        self.state().hosts.iter().filter(|(_, host)| !host.is_alive()).map(|(uuid, _)| uuid.clone()).collect()
    }

    fn dead(&self) -> Vec<String> {
        self.state().hosts.iter().filter(|(_, host)| host.dead).map(|(uuid, _)| uuid.clone()).collect()
    }

    fn report(&self, host: &str) -> Option<Report> {
        let mut state = self.state();
        let host = state.hosts.get_mut(host).filter(|host| host.is_alive())?;
        let report = host.report();
        host.reported.clone_from(&report.digest);
        host.dirty = false;
        Some(report)
    }

    fn changed(&self) -> Vec<String> {
        let mut changed = Vec::new();
        for (uuid, host) in self.state().hosts.iter_mut().filter(|(_, host)| host.dirty && host.is_alive()) {
            host.dirty = host.digest() != host.reported;
            if host.dirty {
                changed.push(uuid.clone());
            }
        }
        changed
    }

    fn listen(&self, news: mpsc::UnboundedSender<News>) {
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(news);
    }

    async fn start_vm(&self, work: &Work, order: StartVm) -> Result<Done, Failure> {
        let mute = self.before(work, &["StartVm", "StartCommand"]).await?;
        let spec = order.vm.unwrap_or_default();
        let (vm, pool, epoch) = (spec.uuid.clone(), lease_pool(&spec).to_owned(), spec.generation);
        if let Some(state) = self.alive(work)?.runs(work.host(), &spec)? {
            return Ok(work.commit(|_| Ok((outcome::Body::Vm(state), ())))?.mute(mute));
        }
        let wanted = Wanted { vm: &vm, pool: &pool, epoch, take_over: order.take_over };
        let done = match self.take(work, wanted).await {
            Ok(taken) => work.commit(|entries| {
                let mut state = self.alive(work)?;
                let body = state.start(work.host(), spec, taken.tenure, entries)?;
                Ok((outcome::Body::Vm(body), state))
            }),
            Err(failure) => Err(failure),
        };
        match done {
            Ok(done) => {
                self.clear_below(work.host(), &vm, &pool, epoch);
                Ok(done.mute(mute))
            }
            Err(failure) => {
                self.give_back(work.host(), &vm);
                Err(failure)
            }
        }
    }

    async fn stop_vm(&self, work: &Work, order: StopVm) -> Result<Done, Failure> {
        let mute = self.before(work, &["StopVm", "StopCommand"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let body = state.stop(work.host(), &order, entries)?;
            Ok((outcome::Body::Vm(body), state))
        })?;
        self.give_back(work.host(), &order.uuid);
        Ok(done.mute(mute))
    }

    async fn begin_migration(&self, work: &Work, order: BeginMigration) -> Result<Done, Failure> {
        self.do_begin_migration(work, order).await
    }

    async fn prepare_migration(&self, work: &Work, order: PrepareMigration) -> Result<Done, Failure> {
        self.do_prepare_migration(work, order).await
    }

    async fn perform_migration(&self, work: &Work, order: PerformMigration) -> Result<Done, Failure> {
        self.do_perform_migration(work, order).await
    }

    async fn finish_migration(&self, work: &Work, order: FinishMigration) -> Result<Done, Failure> {
        self.do_finish_migration(work, order).await
    }

    async fn confirm_migration(&self, work: &Work, order: ConfirmMigration) -> Result<Done, Failure> {
        self.do_confirm_migration(work, order).await
    }

    async fn inspect_lease(&self, work: &Work, order: InspectLease) -> Result<Done, Failure> {
        self.do_inspect_lease(work, order).await
    }

    async fn inspect_host(&self, work: &Work, order: InspectHost) -> Result<Done, Failure> {
        self.do_inspect_host(work, order).await
    }

    async fn fence_vm(&self, work: &Work, order: FenceVm) -> Result<Done, Failure> {
        self.do_fence_vm(work, order).await
    }

    async fn reboot_vm(&self, work: &Work, order: RebootVm) -> Result<Done, Failure> {
        let mute = self.before(work, &["RebootVm", "RebootCommand"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let vm = state.host(work.host())?.vms.get_mut(&order.uuid);
            let vm = vm
                .filter(|vm| vm.power == PowerState::On)
                .ok_or_else(|| ApiError::failed("The VM doesn't run on this host: start it instead of rebooting it"))?;
            vm.boots += 1;
            entries.push(vm.saved(work.host()));
            Ok((outcome::Body::Vm(vm.state()), state))
        });
        Ok(done?.mute(mute))
    }

    async fn ensure_pool(&self, work: &Work, order: EnsurePool) -> Result<Done, Failure> {
        self.do_ensure_pool(work, order).await
    }

    async fn ensure_disk(&self, work: &Work, order: EnsureDisk) -> Result<Done, Failure> {
        self.do_ensure_disk(work, order).await
    }

    async fn delete_disk(&self, work: &Work, order: DeleteDisk) -> Result<Done, Failure> {
        self.do_delete_disk(work, order).await
    }

    async fn resize_disk(&self, work: &Work, order: ResizeDisk) -> Result<Done, Failure> {
        self.do_resize_disk(work, order).await
    }

    async fn attach_disk(&self, work: &Work, order: AttachDisk) -> Result<Done, Failure> {
        self.do_attach_disk(work, order).await
    }

    async fn detach_disk(&self, work: &Work, order: DetachDisk) -> Result<Done, Failure> {
        self.do_detach_disk(work, order).await
    }

    async fn plug_nic(&self, work: &Work, order: PlugNic) -> Result<Done, Failure> {
        self.do_plug_nic(work, order).await
    }

    async fn unplug_nic(&self, work: &Work, order: UnplugNic) -> Result<Done, Failure> {
        self.do_unplug_nic(work, order).await
    }

    async fn ensure_iso(&self, work: &Work, order: EnsureIso) -> Result<Done, Failure> {
        self.do_ensure_iso(work, order).await
    }

    async fn change_cd(&self, work: &Work, order: ChangeCd) -> Result<Done, Failure> {
        self.do_change_cd(work, order).await
    }

    async fn scale_vm(&self, work: &Work, order: ScaleVm) -> Result<Done, Failure> {
        self.do_scale_vm(work, order).await
    }

    async fn apply_router(&self, work: &Work, mut order: ApplyRouter) -> Result<Done, Failure> {
        // A section's fault fails the section; only a fault of the whole order fails it.
        let spec = self.alive(work)?.host(work.host())?.spec.clone();
        let faults = router::take_faulty(&mut order, |name| faults::section_fails(&self.state().mocks, &spec, name));
        let mut names = vec!["ApplyRouter"];
        names.extend(router::commands(&order));
        let mute = self.before(work, &names).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let host = state.host(work.host())?;
            let known = host.routers.get(&order.router_uuid);
            let behind = known.map_or(order.base > 0, |router| router.is_behind(&order));
            let mut generation = known.map_or(0, |router| router.generation);
            let router_uuid = order.router_uuid.clone();
            if !behind && (order.generation > generation || known.is_none()) {
                let router = host.routers.entry(router_uuid.clone()).or_default();
                router.merge(order.clone());
                generation = router.generation;
                host.dirty = true;
                entries.push(Entry::Router(RouterChange { host_uuid: work.host().into(), change: Some(order) }));
            }
            Ok((
                outcome::Body::Router(RouterApplied { router_uuid, generation, behind, faults, taken: Vec::new() }),
                state,
            ))
        });
        Ok(done?.mute(mute))
    }

    async fn remove_router(&self, work: &Work, order: RemoveRouter) -> Result<Done, Failure> {
        let mute = self.before(work, &["RemoveRouter"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let host = state.host(work.host())?;
            if host.routers.remove(&order.router_uuid).is_some() {
                host.dirty = true;
                let (host_uuid, router_uuid) = (work.host().to_owned(), order.router_uuid);
                entries.push(Entry::RouterForgotten(ForgottenRouter { host_uuid, router_uuid }));
            }
            Ok((nothing(), state))
        });
        Ok(done?.mute(mute))
    }

    async fn fetch_image(&self, work: &Work, order: FetchImage) -> Result<Done, Failure> {
        self.do_fetch_image(work, order).await
    }

    async fn delete_image(&self, work: &Work, order: DeleteImage) -> Result<Done, Failure> {
        self.do_delete_image(work, order).await
    }

    async fn read_image(&self, work: &Work, order: ReadImage) -> Result<Done, Failure> {
        self.do_read_image(work, order).await
    }

    async fn store_disk(&self, work: &Work, order: StoreDisk) -> Result<Done, Failure> {
        self.do_store_disk(work, order).await
    }

    async fn console(&self, work: &Work, vm_uuid: &str) -> Result<ConsoleEndpoint, Failure> {
        if self.before(work, &["OpenConsole", "GetVncPortCommand"]).await? {
            return Err(Failure::Silent);
        }
        let (spec, guest) = {
            let mut state = self.alive(work)?;
            let vm = state.host(work.host())?.vms.get(vm_uuid).filter(|vm| vm.power == PowerState::On);
            let vm = vm.ok_or_else(|| ApiError::failed("The VM doesn't run on this host: it shows nothing"))?;
            (vm.spec.clone(), vm.guest.clone())
        };
        let (pipe, near) = tokio::io::duplex(SCREEN_PIPE);
        tokio::spawn(async move {
            if let Err(error) = screen::serve(near, spec, &guest.screen).await {
                tracing::debug!(%error, "a viewer of a simulated screen is gone");
            }
        });
        Ok(ConsoleEndpoint::Pipe(pipe))
    }

    async fn inventory(&self, work: &Work) -> Result<Done, Failure> {
        self.do_inventory(work).await
    }

    async fn list_disks(&self, work: &Work, order: ListDisks) -> Result<Done, Failure> {
        self.do_list_disks(work, order).await
    }

    async fn spawn_host(&self, work: &Work, order: SpawnHost) -> Result<Done, Failure> {
        if order.host_uuid.is_empty() {
            return Err(ApiError::param("a host needs a UUID").into());
        }
        work.commit(|entries| {
            let mut state = self.state();
            let State { hosts, mocks, .. } = &mut *state;
            let host = hosts.entry(order.host_uuid.clone()).or_insert_with(|| {
                let mut host = Host::new(order.clone());
                host.apply_states(mocks);
                entries.push(host.saved());
                host
            });
            if host.spec != order {
                host.spec = order;
                entries.push(host.saved());
            }
            Ok((outcome::Body::Host(HostSpawned { facts: Some(host.facts()) }), state))
        })
    }

    fn remove_host(&self, work: &Work) -> Result<Done, Failure> {
        work.commit(|entries| {
            let mut state = self.state();
            if let Some(host) = state.hosts.remove(work.host()) {
                host.vms.values().for_each(|vm| vm.guest.off());
                self.abandon(work.host(), host.claims);
                entries.push(Entry::HostForgotten(work.host().to_owned()));
            }
            Ok((nothing(), state))
        })
    }

    fn set_mocks(&self, work: &Work, mocks: Vec<Mock>) -> Result<Done, Failure> {
        let mut booted = Vec::new();
        let done = work.commit(|entries| {
            let mut state = self.state();
            state.mocks.clone_from(&mocks);
            entries.push(Entry::Mocks(MockList { mocks }));
            booted = faults::revive(&mut state);
            state.apply_states();
            entries.extend(booted.iter().filter_map(|uuid| state.hosts.get(uuid)).map(Host::saved));
            Ok((nothing(), state))
        })?;
        self.kick.notify_one(); // hosts whose agents are back look at their leases before anything else
        for host in booted {
            self.tell(News::HostUp(host));
        }
        Ok(done)
    }

    fn mocks(&self) -> Vec<Mock> {
        self.state().mocks.clone()
    }

    fn load(&self, entry: Entry) {
        self.state().load(entry);
    }

    fn snapshot(&self) -> Vec<Entry> {
        self.state().entries()
    }
}

impl State {
    /// The VM, when it runs on this host with this very spec. Refuses what is out of date.
    fn runs(&self, host_uuid: &str, spec: &VmSpec) -> Result<Option<VmState>, Failure> {
        let known = self.leases.get(&spec.uuid).map_or(0, |lease| lease.generation);
        if spec.generation < known {
            return Err(outdated(&spec.instance_name, known, spec.generation).into());
        }
        let host = self.hosts.get(host_uuid).ok_or_else(|| unknown(host_uuid))?;
        let vm = host.vms.get(&spec.uuid).filter(|vm| vm.power == PowerState::On && vm.spec == *spec);
        Ok(vm.map(Vm::state))
    }

    /// Starts a VM that is this host's.
    fn start(
        &mut self,
        host_uuid: &str,
        spec: VmSpec,
        tenure: Tenure,
        entries: &mut Vec<Entry>,
    ) -> Result<VmState, Failure> {
        if let Some(running) = self.runs(host_uuid, &spec)? {
            return Ok(running);
        }
        let uuid = spec.uuid.clone();
        let lease = Lease { generation: spec.generation, host: host_uuid.to_owned() };
        let host = self.host(host_uuid)?;
        let before = host.vms.remove(&uuid);
        if let Some(before) = &before {
            before.guest.off();
        }
        // A whole copy that waits goes on as if nothing had been.
        let copy = host.take_copy(host_uuid, &uuid, spec.generation, entries);
        let boots = match copy.filter(|copy| copy.whole && copy.spec.generation == spec.generation) {
            Some(copy) => copy.boots,
            None => before.map_or(0, |vm| vm.boots) + 1,
        };
        let (power, reason) = (PowerState::On, PowerReason::Unspecified);
        let vm = Vm { power, reason, boots, spec, sent: Vec::new(), guest: Guest::new(tenure) };
        let state = vm.state();
        entries.extend([vm.saved(host_uuid), lease.saved(&uuid)]);
        host.vms.insert(uuid.clone(), vm);
        host.dirty = true;
        self.leases.insert(uuid, lease);
        Ok(state)
    }

    pub(super) fn stop(
        &mut self,
        host_uuid: &str,
        order: &StopVm,
        entries: &mut Vec<Entry>,
    ) -> Result<VmState, Failure> {
        let host = self.host(host_uuid)?;
        if let Some(vm) = host.vms.get(&order.uuid)
            && order.generation > 0
            && vm.spec.generation > order.generation
        {
            return Ok(vm.state());
        }
        let upto = if order.generation > 0 { order.generation } else { i64::MAX };
        host.take_copy(host_uuid, &order.uuid, upto, entries);
        let mut state = VmState { uuid: order.uuid.clone(), generation: order.generation, ..VmState::default() };
        if let Some(vm) = host.vms.remove(&order.uuid) {
            vm.guest.off();
            host.dirty = true;
            state = vm.state();
            state.reason = PowerReason::Unspecified.into();
            let (host_uuid, vm_uuid) = (host_uuid.to_owned(), order.uuid.clone());
            entries.push(Entry::VmForgotten(ForgottenVm { host_uuid, vm_uuid }));
        }
        state.power = PowerState::Off.into();
        // A start with a lower generation that is still on its way must not come after this.
        let known = self.leases.get(&order.uuid).map_or(0, |lease| lease.generation);
        if order.generation > known {
            let lease = Lease { generation: order.generation, host: host_uuid.to_owned() };
            entries.push(lease.saved(&order.uuid));
            self.leases.insert(order.uuid.clone(), lease);
        }
        Ok(state)
    }
}
