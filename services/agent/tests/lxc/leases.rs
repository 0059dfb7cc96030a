//! Never two copies of a container, and never two that write.

use crate::common::SECOND;
use crate::world::{LEASE, World, start, stop};
use contract_agent::{FenceVm, PowerReason, PowerState, command};
use libvirt::DomainState;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_was_taken_over_is_killed_and_writes_nothing_more() {
    let test = "a_container_that_was_taken_over_is_killed_and_writes_nothing_more";
    let Some(mut world) = World::with_short_leases(test, 2).await else { return };
    let mut spec = world.spec().await;
    world.running(1, &spec, 1).await;
    world.inside(1, &spec, "echo safe >/root/safe; sync").await;
    spec.generation = 2;
    let held = world.execute(2, start(&spec, false)).await.unwrap_err();
    assert!(held.full_text().contains(&world.hosts[0].uuid) && !held.is_transient(), "{held}");
    // It writes as fast as it can, without syncing.
    world.ask(1, &spec, "while :; do dd if=/dev/urandom of=/root/dirty bs=1M count=8; done");
    testkit::wait_until(|| async { world.root(1, &spec).join("root/dirty").exists() }, 60 * SECOND).await;
    let begun = Instant::now();
    world.started(2, &spec, true).await;
    assert!(begun.elapsed() >= 2 * LEASE);
    let told = world.await_news(1, &spec.uuid, PowerState::Off, PowerReason::LeaseLost).await;
    assert_eq!((told.generation, told.lost_to), (1, 2));
    assert_eq!(world.domain(1, &spec.uuid).await, None);
    assert_eq!(world.helpers(&spec).len(), 1);
    assert!(world.inventory(1).await.vms.is_empty());
    world.await_boots(2, &spec, 2).await;
    assert_eq!(world.inside(2, &spec, "cat /root/safe").await, "safe\n");
    // The image is whole: nothing of the first host came after the second mounted it.
    world.vm(2, stop(&spec, true)).await;
    world.assert_gone(2, &spec).await;
    let image = world.pool_dir().join(&spec.disks[0].path);
    let check = std::process::Command::new("e2fsck").args(["-f", "-n"]).arg(&image).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_whose_lease_cannot_be_read_stands_still_until_it_can() {
    let test = "a_container_whose_lease_cannot_be_read_stands_still_until_it_can";
    let Some(mut world) = World::with_short_leases(test, 1).await else { return };
    let spec = world.spec().await;
    world.running(1, &spec, 1).await;
    let (leases, aside) = (world.lease_dir(), world.pool_dir().join("aside"));
    std::fs::rename(&leases, &aside).unwrap();
    std::fs::write(&leases, b"").unwrap();
    world.await_news(1, &spec.uuid, PowerState::Paused, PowerReason::LeaseUnreadable).await;
    world.await_domain(1, &spec.uuid, Some(DomainState::PAUSED)).await;
    // A restarted agent doesn't let it run either.
    world.kill_agent(0).await;
    world.start_agent(0).await;
    let report = world.inventory(1).await;
    assert_eq!((report.vms[0].power(), report.vms[0].reason()), (PowerState::Paused, PowerReason::LeaseUnreadable));
    std::fs::remove_file(&leases).unwrap();
    std::fs::rename(&aside, &leases).unwrap();
    world.await_news(1, &spec.uuid, PowerState::On, PowerReason::Unspecified).await;
    world.await_domain(1, &spec.uuid, Some(DomainState::RUNNING)).await;
    assert_eq!(world.inside(1, &spec, "echo on >/root/x; wc -l </boots").await.trim(), "1");

    // One that stands still, on a frozen file system, can be stopped nevertheless.
    std::fs::rename(&leases, &aside).unwrap();
    std::fs::write(&leases, b"").unwrap();
    world.await_news(1, &spec.uuid, PowerState::Paused, PowerReason::LeaseUnreadable).await;
    world.vm(1, stop(&spec, false)).await;
    world.assert_gone(1, &spec).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_daemon_containers_stand_still_and_are_killed_nevertheless() {
    let test = "without_the_daemon_containers_stand_still_and_are_killed_nevertheless";
    let Some(mut world) = World::with_short_leases(test, 2).await else { return };
    let mut spec = world.spec().await;
    world.running(1, &spec, 1).await;
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
    testkit::wait_until(|| async { world.helpers(&spec).len() == 1 }, 60 * SECOND).await;
    world.vm(2, stop(&spec, true)).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_ends_what_runs_and_leaves_the_lease_free() {
    let Some(world) = World::with_short_leases("a_fence_ends_what_runs_and_leaves_the_lease_free (LXC)", 1).await
    else {
        return;
    };
    let spec = world.spec().await;
    world.running(1, &spec, 1).await;
    let fence = FenceVm { vm_uuid: spec.uuid.clone(), pool_uuid: world.pool.clone(), generation: 5 };
    world.execute(1, command::Body::FenceVm(fence)).await.unwrap();
    world.assert_gone(1, &spec).await;
    assert!(world.claims(&spec.uuid).contains(&"5.free".to_owned()), "{:?}", world.claims(&spec.uuid));
    assert!(world.execute(1, start(&spec, true)).await.unwrap_err().is_transient());
    world.end().await;
}
