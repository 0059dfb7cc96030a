//! Whose a VM is: two agents with hosts on the same storage. Guests write all the time, and never two of them at once.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use arcus_agent::{Dial, Options, lease};
use common::*;
use contract_agent::{
    Command, EnsurePool, FenceVm, HeartbeatState, InspectHost, InspectLease, LeaseState, Mock, Outcome, PowerReason,
    PowerState, VmState, command, outcome,
};
use hub::HostEvent;
use model::HostId;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;

const LEASE: Duration = Duration::from_millis(1000);
const WRITES: Duration = Duration::from_millis(5);

/// A hub; two agents whose hosts, 1 and 2, have the same storage.
struct Shared {
    replica: Replica,
    one: Running,
    two: Running,
    uuids: [String; 2],
    dirs: [tempfile::TempDir; 3],
    events: Receiver<HostEvent>,
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
        let events = replica.hub.subscribe();
        let dirs = [testkit::temp_dir(), testkit::temp_dir(), testkit::temp_dir()];
        let one = Running::with(sharing(dirs[0].path(), dirs[2].path(), &replica));
        testkit::wait_until(|| async { replica.hub.factories() == 1 }, 30 * SECOND).await;
        let first = replica.add_host(1).await.host_uuid;
        // The new one has the fewest hosts.
        let two = Running::with(sharing(dirs[1].path(), dirs[2].path(), &replica));
        testkit::wait_until(|| async { replica.hub.factories() == 2 }, 30 * SECOND).await;
        let second = replica.add_host(2).await.host_uuid;
        assert_eq!((one.simulator.hosts(), two.simulator.hosts()), (vec![first.clone()], vec![second.clone()]));
        Shared { replica, one, two, uuids: [first, second], dirs, events, _db: db }
    }

    fn pools(&self) -> &Path {
        self.dirs[2].path()
    }

    /// A state that the first host is in until the next call.
    async fn fault(&self, change: impl FnOnce(&mut Mock)) {
        let mut mock = Mock { id: 1, host_uuid: Some(self.uuids[0].clone()), ..Mock::default() };
        change(&mut mock);
        self.replica.set_mocks(vec![mock]).await;
    }

    /// Waits until a VM's guest has written in an epoch.
    async fn await_writes(&self, vm: &str, epoch: i64) {
        let path = self.pools().join("no-pool/writes").join(vm);
        let start = format!("{epoch} ");
        let wrote = || std::fs::read_to_string(&path).is_ok_and(|text| text.lines().any(|l| l.starts_with(&start)));
        testkit::wait_until(|| async { wrote() }, 30 * SECOND).await;
    }

    async fn await_vm(&mut self, host: i64, power: PowerState, reason: PowerReason) -> VmState {
        hear(&mut self.events, |event| match event {
            HostEvent::Vm { host: at, state } => {
                (at == HostId(host) && state.power() == power && state.reason() == reason).then_some(state)
            }
            _ => None,
        })
        .await
    }

    /// How long it took.
    async fn take(&self, host: i64, vm: &str, generation: i64) -> Duration {
        let begun = Instant::now();
        // An agent that has just come back may be known by its former connection still: such an order is repeated, as jobs do.
        testkit::eventually(|| async {
            match self.replica.execute(host, None, take_over(vm, generation)).await {
                Ok(_) => Some(()),
                Err(error) if error.is_transient() => None,
                Err(error) => panic!("{error:?}"),
            }
        })
        .await;
        begun.elapsed()
    }

    async fn end(self) {
        let (writes, overlaps) = lease::overlaps(self.pools()).unwrap();
        assert!(writes > 0 && overlaps.is_empty(), "of {writes} writes: {overlaps:?}");
        self.one.end().await.unwrap();
        self.two.end().await.unwrap();
        self.replica.end().await;
    }
}

fn inspect(vm: &str, observe: Duration) -> Command {
    let observe_millis = observe.as_millis() as u32;
    let order = InspectLease { vm_uuid: vm.into(), observe_millis, ..InspectLease::default() };
    Command { body: Some(command::Body::InspectLease(order)) }
}

fn fence(vm: &str, generation: i64) -> Command {
    let order = FenceVm { vm_uuid: vm.into(), generation, ..FenceVm::default() };
    Command { body: Some(command::Body::FenceVm(order)) }
}

fn lease_of(outcome: Outcome) -> LeaseState {
    match outcome.body {
        Some(outcome::Body::Lease(lease)) => lease,
        other => panic!("{other:?} is no lease"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_is_taken_from_a_host_that_lives() {
    let mut shared = Shared::start().await;
    let replica = &shared.replica;
    replica.execute(1, None, start("a", 1)).await.unwrap();
    shared.await_writes("a", 1).await;
    // Not without being told to, and the refusal changes nothing.
    let refused = replica.execute(2, None, start("a", 2)).await.unwrap_err();
    assert!(
        refused.code == 530 && !refused.is_transient() && refused.to_string().contains(&shared.uuids[0]),
        "{refused}"
    );
    assert!(is_on(&shared.one.simulator, "a"));
    let took = shared.take(2, "a", 2).await;
    assert!(took >= LEASE * 2, "{took:?}");
    let lost = shared.await_vm(1, PowerState::Off, PowerReason::LeaseLost).await;
    assert_eq!((lost.generation, lost.lost_to), (1, 2));
    assert!(shared.one.simulator.vms().is_empty() && is_on(&shared.two.simulator, "a"));
    shared.await_writes("a", 2).await;
    // Who lost can't come back with what it had.
    assert!(shared.replica.execute(1, None, take_over("a", 1)).await.unwrap_err().is_transient());
    // Stopped in order, it goes back without a wait.
    shared.replica.execute(2, None, stop("a", 2)).await.unwrap();
    let begun = Instant::now();
    shared.replica.execute(1, None, start("a", 3)).await.unwrap();
    assert!(begun.elapsed() < LEASE * 2, "{:?}", begun.elapsed());
    shared.await_writes("a", 3).await;
    shared.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_cant_read_its_leases_pauses() {
    let mut shared = Shared::start().await;
    shared.replica.execute(1, None, start("a", 1)).await.unwrap();
    shared.fault(|mock| mock.lease_unreachable = true).await;
    shared.await_vm(1, PowerState::Paused, PowerReason::LeaseUnreadable).await;
    // Nobody took it meanwhile: it goes on.
    shared.replica.set_mocks(Vec::new()).await;
    shared.await_vm(1, PowerState::On, PowerReason::Unspecified).await;
    shared.await_writes("a", 1).await;
    // Somebody does: it never runs again.
    shared.fault(|mock| mock.lease_unreachable = true).await;
    shared.take(2, "a", 2).await;
    shared.await_writes("a", 2).await;
    assert_eq!(shared.one.simulator.vm("a").unwrap().power, PowerState::Paused);
    assert!(shared.replica.execute(1, None, start("b", 1)).await.is_err(), "nor does it start anything");
    shared.replica.set_mocks(Vec::new()).await;
    shared.await_vm(1, PowerState::Off, PowerReason::LeaseLost).await;
    shared.end().await;
}

/// Freezes the host, or takes its agent away; takes the VM over meanwhile; lets the host come back.
async fn comes_back(change: impl FnOnce(&mut Mock)) {
    let mut shared = Shared::start().await;
    shared.replica.execute(1, None, start("a", 1)).await.unwrap();
    shared.replica.execute(1, None, start("b", 1)).await.unwrap();
    shared.await_writes("a", 1).await;
    shared.fault(change).await;
    shared.take(2, "a", 2).await;
    shared.await_writes("a", 2).await;
    assert!(shared.one.simulator.vm("a").is_some(), "its host has seen nothing yet");
    shared.replica.set_mocks(Vec::new()).await;
    // Only the one that was taken is stopped; nothing was rebooted.
    shared.await_vm(1, PowerState::Off, PowerReason::LeaseLost).await;
    testkit::wait_until(|| async { is_on(&shared.one.simulator, "b") }, 30 * SECOND).await;
    assert_eq!(shared.one.simulator.vm("b").unwrap().boots, 1);
    // Its line may just be coming back.
    let obeys = || async { shared.replica.execute(1, None, start("c", 1)).await.ok() };
    testkit::eventually(obeys).await;
    shared.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_host_wakes_up_without_what_was_taken() {
    comes_back(|mock| mock.frozen = true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_of_a_host_without_an_agent_write_no_longer_than_they_may() {
    comes_back(|mock| mock.agent_gone = true).await;
}

// covers: VM-188
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_times_alone_protect_a_pool_that_doesnt_fence() {
    let shared = Shared::start().await;
    shared.replica.execute(1, None, start("a", 1)).await.unwrap();
    std::fs::write(shared.pools().join("no-pool/unfenced"), b"").unwrap();
    // To and fro; the host that has it is cut off, or has no agent, or lives.
    for generation in 2..8 {
        let (from, to) = if generation % 2 == 0 { (0, 2) } else { (1, 1) };
        let host_uuid = Some(shared.uuids[from].clone());
        let (lease_unreachable, agent_gone) = (generation < 4, (4..6).contains(&generation));
        let fault = Mock { id: 1, host_uuid, lease_unreachable, agent_gone, ..Mock::default() };
        shared.replica.set_mocks(vec![fault]).await;
        shared.take(to, "a", generation).await;
        shared.await_writes("a", generation).await;
        shared.replica.set_mocks(Vec::new()).await;
        let (old, uuid) = (if from == 0 { &shared.one } else { &shared.two }, &shared.uuids[from]);
        testkit::wait_until(|| async { old.simulator.vms().is_empty() }, 30 * SECOND).await;
        let connected = || async { shared.replica.execute(from as i64 + 1, None, stop("none", 1)).await.is_ok() };
        testkit::wait_until(connected, 30 * SECOND).await;
        eprintln!("{uuid} lost generation {}", generation - 1);
    }
    shared.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_investigator_sees_who_lives() {
    let shared = Shared::start().await;
    let replica = &shared.replica;
    replica.execute(1, None, start("a", 1)).await.unwrap();
    let lives = lease_of(replica.execute(2, None, inspect("a", LEASE * 20)).await.unwrap());
    assert_eq!((lives.epoch, &lives.host_uuid, lives.free, lives.moved), (1, &shared.uuids[0], false, true));
    assert_eq!(lives.lease_millis, LEASE.as_millis() as u32);
    shared.fault(|mock| mock.lease_unreachable = true).await;
    // A round that was under way may still beat once.
    let still = || async { !lease_of(replica.execute(2, None, inspect("a", LEASE * 3 / 2)).await.unwrap()).moved };
    testkit::wait_until(still, 30 * SECOND).await;
    // Its VM is paused by then.
    assert_eq!(shared.one.simulator.vm("a").unwrap().power, PowerState::Paused);
    assert!(replica.execute(1, None, inspect("a", LEASE)).await.is_err(), "it can't read either");
    // Made sure of: certainly stopped, and free for anybody.
    let fenced = lease_of(replica.execute(2, None, fence("a", 2)).await.unwrap());
    assert_eq!((fenced.epoch, fenced.free), (2, true));
    let free = lease_of(replica.execute(2, None, inspect("a", Duration::ZERO)).await.unwrap());
    assert_eq!((free.epoch, free.free, free.moved), (2, true, false));
    let begun = Instant::now();
    replica.execute(2, None, start("a", 3)).await.unwrap();
    assert!(begun.elapsed() < LEASE * 2, "{:?}", begun.elapsed());
    replica.set_mocks(Vec::new()).await;
    testkit::wait_until(|| async { shared.one.simulator.vms().is_empty() }, 30 * SECOND).await;
    let nobody = lease_of(replica.execute(1, None, inspect("never", LEASE)).await.unwrap());
    assert_eq!((nobody.epoch, nobody.free), (0, true));
    shared.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_hosts_vms_are_taken_and_free_once_it_boots() {
    let shared = Shared::start().await;
    let replica = &shared.replica;
    for vm in ["a", "b"] {
        replica.execute(1, None, start(vm, 1)).await.unwrap();
    }
    assert!(shared.one.simulator.kill_host(&shared.uuids[0]));
    assert!(replica.execute(2, None, start("a", 2)).await.is_err(), "nobody knows that it is dead");
    shared.take(2, "a", 3).await;
    // It boots, with nothing: what it had is free.
    assert!(shared.one.simulator.boot_host(&shared.uuids[0]));
    let free = || async { lease_of(replica.execute(2, None, inspect("b", Duration::ZERO)).await.unwrap()).free };
    testkit::wait_until(free, 30 * SECOND).await;
    replica.execute(2, None, start("b", 2)).await.unwrap();
    assert_eq!(shared.two.simulator.vms().len(), 2);
    // A guest that ends by itself frees its VM too.
    assert!(shared.two.simulator.power_off("b"));
    testkit::wait_until(free, 30 * SECOND).await;
    shared.await_writes("a", 3).await;
    shared.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_while_it_takes_over_goes_on() {
    let mut shared = Shared::start().await;
    shared.replica.execute(1, None, start("a", 1)).await.unwrap();
    shared.await_writes("a", 1).await;
    let key = key(7, "take");
    let (hub, again) = (shared.replica.hub.clone(), key.clone());
    let lost =
        tokio::spawn(async move { hub.execute(HostId(2), Some(&again), false, take_over("a", 2), 20 * SECOND).await });
    // Its claim is made, as the holder finds, and it waits.
    shared.await_vm(1, PowerState::Off, PowerReason::LeaseLost).await;
    shared.two.kill().await;
    assert_eq!(lost.await.unwrap().unwrap_err().code, 534);
    shared.two = Running::with(sharing(shared.dirs[1].path(), shared.dirs[2].path(), &shared.replica));
    shared.replica.await_connected(2).await;
    shared.replica.execute(2, Some(&key), take_over("a", 2)).await.unwrap();
    assert_eq!(shared.two.simulator.vm("a").unwrap().boots, 1);
    shared.await_writes("a", 2).await;
    shared.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_returns_stops_what_it_lost_before_it_says_hello() {
    let mut shared = Shared::start().await;
    for vm in ["a", "b"] {
        shared.replica.execute(1, None, start(vm, 1)).await.unwrap();
    }
    shared.one.kill().await;
    shared.replica.execute(2, None, take_over("a", 2)).await.unwrap();
    let mut events = shared.replica.hub.subscribe();
    shared.one = Running::with(sharing(shared.dirs[0].path(), shared.dirs[2].path(), &shared.replica));
    // What it says first is true already.
    let reported = hear(&mut events, |event| match event {
        HostEvent::Report { host: HostId(1), vms, .. } => Some(vms),
        _ => None,
    });
    let vms = reported.await;
    assert_eq!((vms.len(), vms[0].uuid.as_str(), vms[0].power()), (1, "b", PowerState::On));
    assert_eq!(shared.one.simulator.vm("b").unwrap().boots, 1);
    shared.await_writes("a", 2).await;
    shared.end().await;
}

/// An upgrade is another process on the same state folder; what runs goes on, what is ordered meanwhile waits or fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_upgraded_under_running_vms() {
    let mut shared = Shared::start().await;
    for n in 0..20 {
        shared.replica.execute(1, None, start(&format!("{n}"), 1)).await.unwrap();
    }
    let mut ordered = Vec::new();
    for round in 0..3 {
        let orders: Vec<_> = (0..10)
            .map(|n| {
                let (hub, vm) = (shared.replica.hub.clone(), format!("new-{round}-{n}"));
                ordered.push(vm.clone());
                tokio::spawn(async move {
                    let key = key(100 + round, &vm);
                    loop {
                        match hub.execute(HostId(1), Some(&key), false, start(&vm, 1), 20 * SECOND).await {
                            Ok(_) => return,
                            Err(e) => assert!(e.code == 534 || e.is_transient(), "{e}"),
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                })
            })
            .collect();
        shared.one.end().await.unwrap();
        shared.one = Running::with(sharing(shared.dirs[0].path(), shared.dirs[2].path(), &shared.replica));
        for order in orders {
            order.await.unwrap();
        }
    }
    let vms = shared.one.simulator.vms();
    assert_eq!(vms.len(), 20 + ordered.len());
    assert!(vms.iter().all(|vm| vm.boots == 1 && vm.power == PowerState::On), "nothing was restarted");
    // Two agents can't have one folder, whatever their versions.
    assert!(arcus_agent::Agent::open(sharing(shared.dirs[0].path(), shared.dirs[2].path(), &shared.replica)).is_err());
    shared.await_writes("0", 1).await;
    shared.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_lost_its_leases_heals() {
    let shared = Shared::start().await;
    shared.replica.execute(1, None, start("a", 1)).await.unwrap();
    shared.await_writes("a", 1).await;
    std::fs::remove_dir_all(shared.pools().join("no-pool/leases/a")).unwrap();
    // Claimed again, and not used for two lease times.
    let claimed = || async {
        let lease = lease_of(shared.replica.execute(2, None, inspect("a", Duration::ZERO)).await.unwrap());
        lease.epoch == 1 && lease.host_uuid == shared.uuids[0]
    };
    testkit::wait_until(claimed, 30 * SECOND).await;
    testkit::wait_until(|| async { is_on(&shared.one.simulator, "a") }, 30 * SECOND).await;
    shared.take(2, "a", 2).await;
    shared.await_writes("a", 2).await;
    shared.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_vms_shows_that_it_lives() {
    let mut shared = Shared::start().await;
    shared.replica.execute(1, None, start("a", 1)).await.unwrap();
    shared.await_writes("a", 1).await;
    for host in [1, 2] {
        let order = EnsurePool { pool_uuid: "p".into(), ..EnsurePool::default() };
        let order = Command { body: Some(command::Body::EnsurePool(order)) };
        shared.replica.execute(host, None, order).await.unwrap();
    }
    let of = shared.uuids[0].clone();
    let hub = shared.replica.hub.clone();
    let try_look = |host: i64, pool: &str, observe: Duration| {
        let observe_millis = observe.as_millis() as u32;
        let order = InspectHost { host_uuid: of.clone(), pool_uuid: pool.to_owned(), observe_millis };
        let command = Command { body: Some(command::Body::InspectHost(order)) };
        let hub = hub.clone();
        async move { hub.execute(HostId(host), None, false, command, 20 * SECOND).await }
    };
    let look = |pool: &'static str, observe: Duration| {
        let answer = try_look(2, pool, observe);
        async move {
            match answer.await.unwrap().body {
                Some(outcome::Body::Heartbeat(seen)) => seen,
                other => panic!("{other:?} is no heartbeat"),
            }
        }
    };
    // On a pool where it has no VMs.
    testkit::wait_until(|| async { look("p", Duration::ZERO).await.seen }, 30 * SECOND).await;
    let lives = look("p", LEASE * 20).await;
    let millis = LEASE.as_millis() as u32;
    assert!(lives.moved && lives.observed_millis < millis * 20, "{lives:?}");
    assert_eq!((lives.lease_millis, lives.beat_millis), (millis, millis), "{lives:?}");
    // Nowhere else.
    let nowhere = look("q", LEASE).await;
    assert_eq!((nowhere.seen, nowhere.moved, nowhere.beat_millis), (false, false, 0), "{nowhere:?}");
    // Without an agent it stands still.
    let enough = LEASE * 5 / 2;
    shared.one.kill().await;
    let still = || async { Some(look("p", enough).await).filter(|seen| !seen.moved) };
    let still: HeartbeatState = testkit::eventually(still).await;
    assert!(still.seen && u128::from(still.observed_millis) >= enough.as_millis(), "{still:?}");
    // One that returns needs not be told of the pool again.
    shared.one = Running::with(sharing(shared.dirs[0].path(), shared.dirs[2].path(), &shared.replica));
    testkit::wait_until(|| async { look("p", enough).await.moved }, 30 * SECOND).await;
    // Where nobody can write, nobody can tell.
    let (aside, gone) = (shared.pools().join("p/aside"), shared.pools().join("p/gone"));
    std::fs::rename(&aside, &gone).unwrap();
    let error = testkit::eventually(|| async { try_look(2, "p", enough).await.err() }).await;
    assert!(error.full_text().contains("can't reach"), "{error}");
    std::fs::rename(&gone, &aside).unwrap();
    // Nor can one that is cut off.
    shared.replica.await_connected(2).await;
    shared.fault(|mock| mock.lease_unreachable = true).await;
    assert!(try_look(1, "p", Duration::ZERO).await.is_err());
    testkit::wait_until(|| async { !look("p", enough).await.moved }, 30 * SECOND).await;
    shared.replica.set_mocks(Vec::new()).await;
    shared.end().await;
}
