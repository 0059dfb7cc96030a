//! A running VM moves between hosts of two agents on the same storage: it never writes twice, and every order may come twice.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use arcus_agent::{Dial, Options, lease};
use common::*;
use contract_agent::{
    BeginMigration, Command, ConfirmMigration, FinishMigration, InspectLease, MigrationStep, Outcome, PerformMigration,
    PowerReason, PowerState, PrepareMigration, VmSpec, command, outcome,
};
use std::path::Path;
use std::time::Duration;

const LEASE: Duration = Duration::from_millis(600);
const WRITES: Duration = Duration::from_millis(5);

/// A hub; two agents whose hosts, 1 and 2, have the same storage.
struct Shared {
    replica: Replica,
    one: Running,
    two: Running,
    dirs: [tempfile::TempDir; 3],
    _db: testkit::TestDb,
}

fn sharing(dir: &Path, pools: &Path, replica: &Replica) -> Options {
    let dial = Dial::Channel(replica.net.channel("orchestrator"));
    Options { pool_dir: Some(pools.to_owned()), lease: LEASE, guest_writes: Some(WRITES), ..options(dir, dial) }
}

impl Shared {
    async fn start() -> Shared {
        let db = testkit::TestDb::sqlite();
        let replica = Replica::start(&db, patient()).await;
        let dirs = [testkit::temp_dir(), testkit::temp_dir(), testkit::temp_dir()];
        let one = Running::with(sharing(dirs[0].path(), dirs[2].path(), &replica));
        testkit::wait_until(|| async { replica.hub.factories() == 1 }, 60 * SECOND).await;
        replica.add_host(1).await;
        // The new one has the fewest hosts.
        let two = Running::with(sharing(dirs[1].path(), dirs[2].path(), &replica));
        testkit::wait_until(|| async { replica.hub.factories() == 2 }, 60 * SECOND).await;
        replica.add_host(2).await;
        Shared { replica, one, two, dirs, _db: db }
    }

    /// Runs on host 1, booted twice.
    async fn running(&self, vm: &str) {
        self.replica.execute(1, None, start(vm, 1)).await.unwrap();
        self.replica.execute(1, None, reboot(vm)).await.unwrap();
        self.await_writes(vm, 1, 1).await;
    }

    fn writes(&self, vm: &str, epoch: i64) -> usize {
        let text = std::fs::read_to_string(self.dirs[2].path().join("no-pool/writes").join(vm)).unwrap_or_default();
        text.lines().filter(|line| line.starts_with(&format!("{epoch} "))).count()
    }

    async fn await_writes(&self, vm: &str, epoch: i64, least: usize) {
        testkit::wait_until(|| async { self.writes(vm, epoch) >= least }, 60 * SECOND).await;
    }

    /// An order that comes twice; an agent that has just come back may be known by its former connection still.
    async fn twice(&self, host: i64, step: Option<&str>, body: command::Body) -> Outcome {
        let command = Command { body: Some(body) };
        let key = step.map(|step| key(7, step));
        let tell = || async {
            match self.replica.execute(host, key.as_ref(), command.clone()).await {
                Ok(outcome) => Some(outcome),
                Err(error) if error.is_transient() => None,
                Err(error) => panic!("{error:?}"),
            }
        };
        let first = testkit::eventually(tell).await;
        // One that is gone has no name any more.
        let nameless = |mut outcome: Outcome| {
            if let Some(outcome::Body::Vm(vm)) = &mut outcome.body {
                vm.instance_name.clear();
            }
            outcome
        };
        assert_eq!(nameless(testkit::eventually(tell).await), nameless(first.clone()));
        first
    }

    /// Everything up to the moment when all of it is at host 2.
    async fn sent(&self, vm: &str) -> MigrationStep {
        let offer = step(self.twice(1, None, begin(vm, 1)).await);
        let ready = step(self.twice(2, Some("prepare"), prepare(vm, 2, offer.cookie)).await);
        let waiting = self.two.simulator.copies();
        assert_eq!((waiting[0].1.as_str(), waiting[0].2, waiting[0].3), (vm, 2, false));
        let sent = step(self.twice(1, None, perform(vm, 1, ready)).await);
        assert!(sent.sent && sent.sent_bytes == sent.total_bytes && sent.total_bytes > 0);
        let source = self.one.simulator.vm(vm).unwrap();
        assert_eq!((source.power, source.reason), (PowerState::Paused, PowerReason::Sent));
        let whole = step(self.twice(2, None, finish(vm, 2, sent.cookie, false)).await);
        assert!(whole.sent);
        whole
    }

    async fn lease(&self, vm: &str) -> (i64, bool) {
        let order = InspectLease { vm_uuid: vm.into(), ..InspectLease::default() };
        let command = Command { body: Some(command::Body::InspectLease(order)) };
        match self.replica.execute(2, None, command).await.unwrap().body {
            Some(outcome::Body::Lease(lease)) => (lease.epoch, lease.free),
            other => panic!("{other:?} is no lease"),
        }
    }

    async fn end(self) {
        let (writes, overlaps) = lease::overlaps(self.dirs[2].path()).unwrap();
        assert!(writes > 0 && overlaps.is_empty(), "of {writes} writes: {overlaps:?}");
        self.one.end().await.unwrap();
        self.two.end().await.unwrap();
        self.replica.end().await;
    }
}

fn step(outcome: Outcome) -> MigrationStep {
    match outcome.body {
        Some(outcome::Body::Migration(step)) => step,
        other => panic!("{other:?} is no step"),
    }
}

fn spec(vm: &str, generation: i64) -> VmSpec {
    match start(vm, generation).body {
        Some(command::Body::StartVm(order)) => order.vm.unwrap(),
        other => panic!("{other:?} is no start"),
    }
}

fn begin(vm: &str, generation: i64) -> command::Body {
    command::Body::BeginMigration(BeginMigration { vm_uuid: vm.into(), generation })
}

fn prepare(vm: &str, generation: i64, cookie: Vec<u8>) -> command::Body {
    command::Body::PrepareMigration(PrepareMigration {
        vm: Some(spec(vm, generation)),
        cookie,
        ..PrepareMigration::default()
    })
}

fn perform(vm: &str, generation: i64, ready: MigrationStep) -> command::Body {
    command::Body::PerformMigration(PerformMigration {
        vm_uuid: vm.into(),
        generation,
        cookie: ready.cookie,
        uri: ready.uri,
        ..PerformMigration::default()
    })
}

fn finish(vm: &str, generation: i64, cookie: Vec<u8>, cancelled: bool) -> command::Body {
    command::Body::FinishMigration(FinishMigration { vm_uuid: vm.into(), generation, cookie, cancelled })
}

fn confirm(vm: &str, generation: i64, cookie: Vec<u8>, cancelled: bool) -> command::Body {
    command::Body::ConfirmMigration(ConfirmMigration { vm_uuid: vm.into(), generation, cookie, cancelled })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_vm_moves() {
    let shared = Shared::start().await;
    shared.running("a").await;
    let whole = shared.sent("a").await;
    // Nobody runs, and the source has the lease still: the copy can't be started but by taking that over.
    assert_eq!(shared.lease("a").await, (1, false));
    let refused = shared.replica.execute(2, None, start("a", 2)).await.unwrap_err();
    assert!(refused.code == 530 && !refused.is_transient(), "{refused}");
    assert_eq!(shared.two.simulator.copies().len(), 1, "the refusal changes nothing");
    let gone = vm(shared.twice(1, None, confirm("a", 1, whole.cookie, false)).await);
    assert_eq!(gone.power(), PowerState::Off);
    assert!(shared.one.simulator.vm("a").is_none());
    shared.twice(2, Some("boot"), start("a", 2).body.unwrap()).await;
    let moved = shared.two.simulator.vm("a").unwrap();
    assert_eq!((moved.power, moved.boots, moved.spec.generation), (PowerState::On, 2, 2), "its guest didn't notice");
    assert!(shared.two.simulator.copies().is_empty());
    assert_eq!(shared.lease("a").await, (2, false));
    shared.await_writes("a", 2, 3).await;
    // Late orders of the same migration find nothing to do, and harm nobody.
    assert!(
        step(shared.replica.execute(2, None, Command { body: Some(finish("a", 2, Vec::new(), true)) }).await.unwrap())
            .cookie
            .is_empty()
    );
    assert!(shared.replica.execute(2, None, Command { body: Some(prepare("a", 2, Vec::new())) }).await.is_err());
    assert!(shared.replica.execute(1, None, Command { body: Some(begin("a", 1)) }).await.is_err());
    assert!(is_on(&shared.two.simulator, "a"));
    shared.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_is_cancelled_leaves_the_vm_where_it_was() {
    let shared = Shared::start().await;
    shared.running("a").await;
    let whole = shared.sent("a").await;
    let before = shared.writes("a", 1);
    let undo = key(7, "prepare").undoing();
    let cancel = Command { body: Some(finish("a", 2, Vec::new(), true)) };
    let cancel_undo = || shared.replica.hub.execute(model::HostId(2), Some(&undo), true, cancel.clone(), 10 * SECOND);
    assert!(!step(cancel_undo().await.unwrap()).sent);
    assert!(!step(cancel_undo().await.unwrap()).sent);
    assert!(shared.two.simulator.copies().is_empty());
    assert_eq!(vm(shared.twice(1, None, confirm("a", 1, whole.cookie.clone(), true)).await).power(), PowerState::On);
    shared.await_writes("a", 1, before + 3).await;
    assert_eq!(shared.one.simulator.vm("a").unwrap().boots, 2);
    // What is late of it is refused, whoever sends it.
    for late in [prepare("a", 2, whole.cookie.clone()), finish("a", 2, whole.cookie.clone(), false)] {
        assert!(shared.replica.execute(2, None, Command { body: Some(late) }).await.is_err());
    }
    let ready = MigrationStep { cookie: whole.cookie.clone(), ..MigrationStep::default() };
    for late in [perform("a", 1, ready), confirm("a", 1, whole.cookie, false)] {
        assert!(shared.replica.execute(1, None, Command { body: Some(late) }).await.is_err());
    }
    assert!(is_on(&shared.one.simulator, "a"));
    shared.end().await;
}

/// Both agents are killed while the VM is nowhere: what was sent goes on where it came to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_are_killed_keep_what_was_sent() {
    let mut shared = Shared::start().await;
    shared.running("a").await;
    let whole = shared.sent("a").await;
    shared.one.kill().await;
    shared.two.kill().await;
    shared.one = Running::with(sharing(shared.dirs[0].path(), shared.dirs[2].path(), &shared.replica));
    shared.two = Running::with(sharing(shared.dirs[1].path(), shared.dirs[2].path(), &shared.replica));
    assert!(shared.two.simulator.copies()[0].3, "all of it is there");
    let writes = shared.writes("a", 1);
    shared.twice(1, None, confirm("a", 1, whole.cookie, false)).await;
    assert_eq!(shared.writes("a", 1), writes, "what was sent doesn't go on here");
    shared.twice(2, Some("boot"), start("a", 2).body.unwrap()).await;
    assert_eq!(shared.two.simulator.vm("a").unwrap().boots, 2);
    shared.await_writes("a", 2, 3).await;
    shared.end().await;
}
