//! Never two copies of a guest.

use crate::common::SECOND;
use crate::world::{LEASE, SECTOR, World, start, stop};
use contract_agent::{
    DeleteDisk, FenceVm, InspectLease, LeaseState, Outcome, PowerReason, PowerState, VmSpec, command, outcome,
};
use libvirt::DomainState;
use std::time::Instant;

fn lease(outcome: Outcome) -> LeaseState {
    match outcome.body {
        Some(outcome::Body::Lease(state)) => state,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_was_taken_over_is_killed() {
    let Some(mut world) = World::with_short_leases("a_guest_that_was_taken_over_is_killed", 2).await else { return };
    let mut spec = world.spec(SECTOR).await;
    world.running(1, &spec).await;
    // Not by mistake.
    spec.generation = 2;
    let held = world.execute(2, start(&spec, false)).await.unwrap_err();
    assert!(held.full_text().contains(&world.hosts[0].uuid) && !held.is_transient(), "{held}");
    let inspect = InspectLease {
        vm_uuid: spec.uuid.clone(),
        pool_uuid: world.pool.clone(),
        observe_millis: u32::try_from(LEASE.as_millis()).unwrap() * 3,
    };
    let seen = lease(world.execute(2, command::Body::InspectLease(inspect)).await.unwrap());
    assert_eq!((seen.epoch, seen.free, seen.moved), (1, false, true));
    assert_eq!(seen.host_uuid, world.hosts[0].uuid);

    let begun = Instant::now();
    world.started(2, &spec, true).await;
    assert!(begun.elapsed() >= 2 * LEASE);
    let told = world.await_news(1, &spec.uuid, PowerState::Off, PowerReason::LeaseLost).await;
    assert_eq!((told.generation, told.lost_to), (1, 2));
    assert_eq!((world.domain(1, &spec.uuid).await, world.processes(&spec.uuid)), (None, 1));
    assert!(world.inventory(1).await.vms.is_empty());

    // Without an agent nothing ends the copy, though it was taken back: QEMU's own lock on the image keeps the other out.
    world.kill_agent(1).await;
    spec.generation = 3;
    let locked = world.execute(1, start(&spec, true)).await.unwrap_err();
    assert!(locked.full_text().contains("lock"), "{locked}");
    assert_eq!(world.processes(&spec.uuid), 1);
    // An agent that comes back sees it before it says hello.
    world.start_agent(1).await;
    assert_eq!((world.domain(2, &spec.uuid).await, world.processes(&spec.uuid)), (None, 0));
    assert!(world.inventory(2).await.vms.is_empty());
    spec.generation = 4;
    world.started(1, &spec, true).await;
    world.vm(1, stop(&spec, true)).await;
    world.end().await;
}

/// What is left of a VM on the pool when its root disk is gone, and it with that.
async fn expunged(world: &World, host: i64, spec: &VmSpec) -> Vec<String> {
    let root = &spec.disks[0];
    let delete = DeleteDisk {
        volume_uuid: root.volume_uuid.clone(),
        pool_uuid: root.pool_uuid.clone(),
        path: root.path.clone(),
        ended_vm: Some(spec.uuid.clone()),
    };
    for _ in 0..2 {
        world.execute(host, command::Body::DeleteDisk(delete.clone())).await.unwrap();
    }
    world.claims(&spec.uuid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_is_no_more_leaves_nothing_and_no_late_writer() {
    let Some(mut world) = World::with_short_leases("a_vm_that_is_no_more_leaves_nothing_and_no_late_writer", 2).await
    else {
        return;
    };
    let mut spec = world.spec(SECTOR).await;
    world.running(1, &spec).await;
    world.vm(1, stop(&spec, true)).await;
    spec.generation = 2;
    world.running(2, &spec).await;
    world.vm(2, stop(&spec, true)).await;
    assert!(expunged(&world, 1, &spec).await.is_empty());
    assert!(!world.lease_dir().join(&spec.uuid).exists());

    // Taken from a host whose agent is away: its copy goes on, with a data disk that is another's soon.
    let mut spec = world.spec(SECTOR).await;
    spec.disks.push(world.volume(1).await);
    world.running(1, &spec).await;
    world.kill_agent(0).await;
    let fence = FenceVm { vm_uuid: spec.uuid.clone(), pool_uuid: world.pool.clone(), generation: 2 };
    world.execute(2, command::Body::FenceVm(fence)).await.unwrap();
    let lost = || async { world.claims(&spec.uuid) == ["1.lost", "2", "2.free"] };
    testkit::wait_until(lost, 60 * SECOND).await;
    assert_eq!(expunged(&world, 2, &spec).await, ["1.lost", "2", "2.free", "ended"]);
    assert_eq!(world.processes(&spec.uuid), 1);
    // It ends before its agent says hello, and what told so goes with it.
    world.start_agent(0).await;
    assert_eq!(world.processes(&spec.uuid), 0);
    testkit::wait_until(|| async { !world.lease_dir().join(&spec.uuid).exists() }, 60 * SECOND).await;

    // The same with one that nobody has taken over before: its host was away when it was destroyed.
    let spec = world.spec(SECTOR).await;
    world.running(1, &spec).await;
    world.kill_agent(0).await;
    assert_eq!(expunged(&world, 2, &spec).await, ["1.lost", "2", "2.free", "ended"]);
    world.crash(&spec.uuid);
    world.start_agent(0).await;
    testkit::wait_until(|| async { !world.lease_dir().join(&spec.uuid).exists() }, 60 * SECOND).await;
    assert!(world.inventory(1).await.vms.is_empty());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_whose_lease_cannot_be_read_is_paused_until_it_can() {
    let Some(mut world) =
        World::with_short_leases("a_guest_whose_lease_cannot_be_read_is_paused_until_it_can", 1).await
    else {
        return;
    };
    let spec = world.spec(SECTOR).await;
    world.running(1, &spec).await;
    // A file in the place of the folder: an error, not an empty answer.
    let (leases, aside) = (world.lease_dir(), world.pool_dir().join("aside"));
    std::fs::rename(&leases, &aside).unwrap();
    std::fs::write(&leases, b"").unwrap();
    world.await_news(1, &spec.uuid, PowerState::Paused, PowerReason::LeaseUnreadable).await;
    world.await_domain(1, &spec.uuid, Some(DomainState::PAUSED)).await;
    let report = world.inventory(1).await;
    assert_eq!(report.vms[0].reason(), PowerReason::LeaseUnreadable);
    // A restarted agent doesn't let it run either.
    world.kill_agent(0).await;
    world.start_agent(0).await;
    let report = world.inventory(1).await;
    assert_eq!((report.vms[0].power(), report.vms[0].reason()), (PowerState::Paused, PowerReason::LeaseUnreadable));

    std::fs::remove_file(&leases).unwrap();
    std::fs::rename(&aside, &leases).unwrap();
    world.await_news(1, &spec.uuid, PowerState::On, PowerReason::Unspecified).await;
    world.await_domain(1, &spec.uuid, Some(DomainState::RUNNING)).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_daemon_guests_are_paused_and_killed_nevertheless() {
    let Some(mut world) =
        World::with_short_leases("without_the_daemon_guests_are_paused_and_killed_nevertheless", 2).await
    else {
        return;
    };
    let mut spec = world.spec(SECTOR).await;
    world.running(1, &spec).await;
    world.hosts[0].libvirtd.kill_daemon().await;
    let (leases, aside) = (world.lease_dir(), world.pool_dir().join("aside"));
    std::fs::rename(&leases, &aside).unwrap();
    std::fs::write(&leases, b"").unwrap();
    world.await_news(1, &spec.uuid, PowerState::Paused, PowerReason::LeaseUnreadable).await;
    std::fs::remove_file(&leases).unwrap();
    std::fs::rename(&aside, &leases).unwrap();
    // Another host takes it: this copy ends, though nobody is there to end it.
    spec.generation = 2;
    world.started(2, &spec, true).await;
    world.await_news(1, &spec.uuid, PowerState::Off, PowerReason::LeaseLost).await;
    assert_eq!(world.processes(&spec.uuid), 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_ends_what_runs_and_leaves_the_lease_free() {
    let test = "a_fence_ends_what_runs_and_leaves_the_lease_free";
    let Some(world) = World::with_short_leases(test, 2).await else { return };
    let mut spec = world.spec(SECTOR).await;
    world.running(1, &spec).await;
    for (host, generation) in [(2, 5), (1, 7)] {
        let fence = FenceVm { vm_uuid: spec.uuid.clone(), pool_uuid: world.pool.clone(), generation };
        let fenced = lease(world.execute(host, command::Body::FenceVm(fence)).await.unwrap());
        assert_eq!((fenced.epoch, fenced.free), (generation, true));
        assert_eq!(world.processes(&spec.uuid), 0);
        assert!(world.claims(&spec.uuid).contains(&format!("{generation}.free")), "{:?}", world.claims(&spec.uuid));
        assert!(world.execute(1, start(&spec, true)).await.unwrap_err().is_transient());
        // On the very host where it runs, too.
        spec.generation = generation + 1;
        // Not told to take it over: only a free lease lets it.
        world.running(1, &spec).await;
    }
    world.vm(1, stop(&spec, true)).await;
    world.end().await;
}
