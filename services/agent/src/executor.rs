//! Carries orders out: each effect at most once.

use crate::console::ConsoleEndpoint;
use crate::hypervisor::{Done, Failure, Hypervisor, Work};
use crate::journal::Journal;
use crate::memory::{EffectKey, Known, Memory};
use contract::ApiError;
use contract_agent::state_entry::Body as Entry;
use contract_agent::{Command, Execute, MockList, Nothing, Outcome, command, outcome};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) struct Executor {
    pub driver: Arc<dyn Hypervisor>,
    journal: Arc<Journal>,
    memory: Arc<Mutex<Memory>>,
    /// Effects under way: a repeat waits for the first, an undo for the do.
    slots: Mutex<HashMap<EffectKey, Arc<Slot>>>,
    snapshotting: AtomicBool,
}

#[derive(Default)]
struct Slot {
    turn: tokio::sync::Mutex<()>,
    taken_back: CancellationToken,
}

impl Executor {
    pub fn new(journal: Arc<Journal>, driver: Arc<dyn Hypervisor>, keep: Duration) -> Executor {
        Executor {
            driver,
            journal,
            memory: Arc::new(Mutex::new(Memory::new(keep))),
            slots: Mutex::default(),
            snapshotting: AtomicBool::new(false),
        }
    }

    /// Takes over the state file, and writes it anew without what is out of date.
    pub fn load(&self, entries: Vec<Entry>) {
        for entry in entries {
            match entry {
                Entry::Effect(effect) => self.memory().load(effect),
                Entry::HostForgotten(host) => {
                    self.memory().forget_host(&host);
                    self.driver.load(Entry::HostForgotten(host));
                }
                other => self.driver.load(other),
            }
        }
        self.memory().expire(store::now_micros());
        self.snapshot();
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) {
        self.journal.snapshot(|| {
            let mut entries = self.driver.snapshot();
            entries.extend(self.memory().entries());
            entries
        });
    }

    /// Whether the state can't be written any more.
    pub fn has_failed(&self) -> bool {
        self.journal.has_failed()
    }

    /// Does what is ordered. The route (`conn_epoch`) was checked before.
    pub async fn execute(&self, order: Execute) -> Result<Outcome, Failure> {
        let begun = Instant::now();
        let deadline = Duration::from_millis(order.deadline_millis.into());
        let key = EffectKey::of(&order);
        let command = order.command.ok_or_else(|| ApiError::internal("the command is missing"))?;
        let work = |key, taken_back| Work {
            host: order.host_uuid.clone(),
            key,
            undo: order.undo,
            journal: self.journal.clone(),
            memory: self.memory.clone(),
            taken_back,
        };
        let done = match key {
            None => self.run(&work(None, CancellationToken::new()), command).await?,
            Some(key) => {
                self.memory().fence(&key, order.job_epoch)?;
                let slot = self.enter(&key);
                if order.undo {
                    slot.taken_back.cancel();
                }
                let turn = slot.turn.lock().await;
                let answer = match self.answered_before(&key, order.undo, order.job_epoch) {
                    Err(refused) => Err(refused.into()),
                    Ok(Some(outcome)) => Ok(Done { outcome, ticket: None, mute: false }),
                    Ok(None) if deadline > Duration::ZERO && begun.elapsed() >= deadline => {
                        Err(ApiError::unavailable("the order waited for longer than it was worth").into())
                    }
                    Ok(None) => {
                        if order.undo {
                            self.bury(&key);
                        }
                        self.run(&work(Some(key.clone()), slot.taken_back.clone()), command).await
                    }
                };
                drop(turn);
                self.leave(&key, slot);
                answer?
            }
        };
        if let Some(ticket) = done.ticket {
            ticket.flushed().await?;
            self.snapshot_if_due();
        }
        if done.mute { Err(Failure::Silent) } else { Ok(done.outcome) }
    }

    /// What the effect gave when it was asked for before.
    fn answered_before(&self, key: &EffectKey, undo: bool, epoch: i64) -> Result<Option<Outcome>, ApiError> {
        let mut memory = self.memory();
        // Again: another worker may have come while this order waited for its turn.
        memory.fence(key, epoch)?;
        match (memory.known(key), undo) {
            (Some(Known::Done(outcome)), false) | (Some(Known::Undone(outcome)), true) => Ok(Some(outcome.clone())),
            (Some(Known::Undoing | Known::Undone(_)), false) => Err(ApiError::concurrent(format!(
                "step {} of job {} was taken back on this host: it can't be done any more",
                key.step, key.job
            ))),
            _ => Ok(None),
        }
    }

    /// Leaves a tombstone: whether or not the undo succeeds, the do is refused from now on.
    fn bury(&self, key: &EffectKey) {
        let section = self.journal.section();
        let entry = self.memory().remember(key, Known::Undoing, store::now_micros());
        // Not waited for: the end of the undo is written behind it.
        drop(section.write(vec![entry]));
    }

    fn enter(&self, key: &EffectKey) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(key.clone()).or_default().clone()
    }

    fn leave(&self, key: &EffectKey, slot: Arc<Slot>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // This one and the table's: nobody else is here or can come in.
        if Arc::strong_count(&slot) == 2 {
            slots.remove(key);
        }
    }

    fn snapshot_if_due(&self) {
        if self.journal.is_due() && !self.snapshotting.swap(true, Ordering::Relaxed) {
            self.snapshot();
            self.snapshotting.store(false, Ordering::Relaxed);
        }
    }

    async fn run(&self, work: &Work, command: Command) -> Result<Done, Failure> {
        use command::Body;
        let driver = &self.driver;
        match command.body {
            Some(Body::StartVm(order)) => driver.start_vm(work, order).await,
            Some(Body::StopVm(order)) => driver.stop_vm(work, order).await,
            Some(Body::RebootVm(order)) => driver.reboot_vm(work, order).await,
            Some(Body::BeginMigration(order)) => driver.begin_migration(work, order).await,
            Some(Body::PrepareMigration(order)) => driver.prepare_migration(work, order).await,
            Some(Body::PerformMigration(order)) => driver.perform_migration(work, order).await,
            Some(Body::FinishMigration(order)) => driver.finish_migration(work, order).await,
            Some(Body::ConfirmMigration(order)) => driver.confirm_migration(work, order).await,
            Some(Body::InspectLease(order)) => driver.inspect_lease(work, order).await,
            Some(Body::InspectHost(order)) => driver.inspect_host(work, order).await,
            Some(Body::FenceVm(order)) => driver.fence_vm(work, order).await,
            Some(Body::EnsurePool(order)) => driver.ensure_pool(work, order).await,
            Some(Body::EnsureDisk(order)) => driver.ensure_disk(work, order).await,
            Some(Body::DeleteDisk(order)) => driver.delete_disk(work, order).await,
            Some(Body::ResizeDisk(order)) => driver.resize_disk(work, order).await,
            Some(Body::AttachDisk(order)) => driver.attach_disk(work, order).await,
            Some(Body::DetachDisk(order)) => driver.detach_disk(work, order).await,
            Some(Body::PlugNic(order)) => driver.plug_nic(work, order).await,
            Some(Body::UnplugNic(order)) => driver.unplug_nic(work, order).await,
            Some(Body::ScaleVm(order)) => driver.scale_vm(work, order).await,
            Some(Body::EnsureIso(order)) => driver.ensure_iso(work, order).await,
            Some(Body::ChangeCd(order)) => driver.change_cd(work, order).await,
            Some(Body::FetchImage(order)) => driver.fetch_image(work, order).await,
            Some(Body::DeleteImage(order)) => driver.delete_image(work, order).await,
            Some(Body::StoreDisk(order)) => driver.store_disk(work, order).await,
            Some(Body::ReadImage(order)) => driver.read_image(work, order).await,
            Some(Body::ApplyRouter(order)) => driver.apply_router(work, order).await,
            Some(Body::RemoveRouter(order)) => driver.remove_router(work, order).await,
            Some(Body::Inventory(_)) => driver.inventory(work).await,
            Some(Body::ListDisks(order)) => driver.list_disks(work, order).await,
            // It is about the line that it came by, which does it.
            Some(Body::RenewCertificate(_)) => Err(ApiError::internal("certificates are renewed by the line").into()),
            // It needs the line that it came by: `Executor::console` is asked instead.
            Some(Body::OpenConsole(_)) => Err(ApiError::internal("a console is opened by the line").into()),
            Some(Body::SpawnHost(order)) => driver.spawn_host(work, order).await,
            Some(Body::RemoveHost(_)) => self.remove_host(work),
            Some(Body::SetMocks(order)) => driver.set_mocks(work, order.mocks),
            Some(Body::QueryMocks(_)) => {
                let mocks = driver.mocks();
                work.commit(|_| Ok((outcome::Body::Mocks(MockList { mocks }), ())))
            }
            None => {
                let text = "this agent is older than the control plane and doesn't know the command: upgrade the agent";
                Err(ApiError::unsupported(text).into())
            }
        }
    }

    fn remove_host(&self, work: &Work) -> Result<Done, Failure> {
        let done = self.driver.remove_host(work)?;
        self.memory().forget_host(work.host());
        Ok(done)
    }

    /// Work of a host that is no job's.
    fn keyless(&self, host: &str) -> Work {
        Work {
            host: host.to_owned(),
            key: None,
            undo: false,
            journal: self.journal.clone(),
            memory: self.memory.clone(),
            taken_back: CancellationToken::new(),
        }
    }

    /// Where the console of a VM is that runs on this host.
    pub async fn console(&self, host: &str, vm_uuid: &str) -> Result<ConsoleEndpoint, Failure> {
        self.driver.console(&self.keyless(host), vm_uuid).await
    }

    /// Forgets a host that the hub says was deleted.
    pub fn forget(&self, host: &str) {
        if let Err(Failure::Refused(error)) = self.remove_host(&self.keyless(host)) {
            tracing::warn!(host, %error, "a deleted host can't be forgotten");
        }
    }
}

/// The outcome of orders that have none.
pub(crate) fn nothing() -> outcome::Body {
    outcome::Body::Nothing(Nothing {})
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use crate::lease::Areas;
    use crate::simulator::Simulator;
    use contract_agent::{RebootVm, SpawnHost, StartVm, VmSpec};
    use proptest::prelude::*;

    /// What a job's worker, the network and the machine may do.
    #[derive(Clone, Debug)]
    enum Event {
        Do(u8),
        Undo(u8),
        /// An order of a worker that was replaced.
        Late(u8),
        Restart,
        Snapshot,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => (0..4u8).prop_map(Event::Do),
            3 => (0..4u8).prop_map(Event::Undo),
            1 => (0..4u8).prop_map(Event::Late),
            1 => Just(Event::Restart),
            1 => Just(Event::Snapshot),
        ];
        proptest::collection::vec(event, 1..40)
    }

    /// What must be true of a step.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Model {
        Never,
        Done,
        Undone,
    }

    fn open(dir: &std::path::Path) -> Executor {
        let (journal, entries) = Journal::open(dir, false).unwrap();
        let journal = Arc::new(journal);
        let driver = Arc::new(Simulator::new(journal.clone(), Areas::new(dir.join("pools"), Duration::from_secs(10))));
        let executor = Executor::new(journal, driver, Duration::from_secs(3600));
        executor.load(entries);
        executor
    }

    fn order(epoch: i64, step: u8, undo: bool, body: command::Body) -> Execute {
        Execute {
            host_uuid: "h".into(),
            job_id: 1,
            step: format!("{step}"),
            job_epoch: epoch,
            undo,
            command: Some(Command { body: Some(body) }),
            ..Execute::default()
        }
    }

    async fn spawn(executor: &Executor) {
        let spec = SpawnHost { host_uuid: "h".into(), ..SpawnHost::default() };
        let command = Some(Command { body: Some(command::Body::SpawnHost(spec)) });
        executor.execute(Execute { command, ..Execute::default() }).await.unwrap();
        let vm = VmSpec { uuid: "vm".into(), generation: 1, ..VmSpec::default() };
        let start = command::Body::StartVm(StartVm { vm: Some(vm), take_over: false });
        let command = Some(Command { body: Some(start) });
        executor.execute(Execute { host_uuid: "h".into(), command, ..Execute::default() }).await.unwrap();
    }

    /// Each do and each undo reboots the VM: its count shows how often anything took place.
    fn boots(executor: &Executor) -> u64 {
        let saved = executor.driver.snapshot().into_iter().find_map(|entry| match entry {
            Entry::Vm(vm) => Some(vm.boots),
            _ => None,
        });
        saved.unwrap()
    }

    async fn run(events: Vec<Event>) {
        let dir = tempfile::tempdir().unwrap();
        let mut executor = open(dir.path());
        spawn(&executor).await;
        let reboot = || command::Body::RebootVm(RebootVm { uuid: "vm".into() });
        let mut steps = [Model::Never; 4];
        let mut answers: HashMap<(u8, bool), Outcome> = HashMap::new();
        let mut expected = boots(&executor);
        for event in events {
            match event {
                Event::Do(step) => {
                    let result = executor.execute(order(5, step, false, reboot())).await;
                    let known = &mut steps[usize::from(step)];
                    if *known == Model::Undone {
                        assert!(matches!(result, Err(Failure::Refused(e)) if e.is_transient()));
                        continue;
                    }
                    expected += u64::from(*known == Model::Never);
                    *known = Model::Done;
                    let outcome = result.unwrap();
                    assert_eq!(*answers.entry((step, false)).or_insert_with(|| outcome.clone()), outcome);
                }
                Event::Undo(step) => {
                    let outcome = executor.execute(order(5, step, true, reboot())).await.unwrap();
                    let known = &mut steps[usize::from(step)];
                    expected += u64::from(*known != Model::Undone);
                    *known = Model::Undone;
                    assert_eq!(*answers.entry((step, true)).or_insert_with(|| outcome.clone()), outcome);
                }
                Event::Late(step) => {
                    // Only refused once the newer worker was seen.
                    if steps.iter().any(|step| *step != Model::Never) {
                        assert!(executor.execute(order(4, step, false, reboot())).await.is_err());
                    }
                }
                Event::Restart => {
                    drop(executor);
                    executor = open(dir.path());
                }
                Event::Snapshot => executor.snapshot(),
            }
            assert_eq!(boots(&executor), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn effects_take_place_at_most_once(events in events()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(events));
        }
    }
}
