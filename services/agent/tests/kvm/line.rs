//! The line to libvirt's daemon.

use crate::common::SECOND;
use crate::world::{SECTOR, World, start, stop};
use contract_agent::{PowerReason, PowerState};
use libvirt::DomainState;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_and_their_agent_outlive_the_daemon() {
    let Some(mut world) = World::start("guests_and_their_agent_outlive_the_daemon", 1).await else { return };
    let (spec, crashing) = (world.spec(SECTOR).await, world.spec(SECTOR).await);
    world.running(1, &spec).await;
    world.running(1, &crashing).await;
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    world.hosts[0].libvirtd.kill_daemon().await;
    // Orders are refused, for now; the host is as alive as ever.
    let refused = world.execute(1, stop(&spec, true)).await;
    assert!(refused.is_ok() || refused.as_ref().is_err_and(|e| e.code == 534), "{refused:?}");
    assert_eq!(world.replica.status(1).await.0, "Up");
    // One crashes while nobody listens.
    world.crash(&crashing.uuid);
    world.hosts[0].libvirtd.start_daemon().await;
    world.await_news(1, &crashing.uuid, PowerState::Off, PowerReason::Guest).await;
    if refused.is_err() {
        world.await_domain(1, &spec.uuid, Some(DomainState::RUNNING)).await;
        world.vm(1, start(&spec, true)).await;
        assert_eq!(world.domain(1, &spec.uuid).await.unwrap().0.id, domain.id);
        world.vm(1, stop(&spec, false)).await;
    }
    let mut again = spec.clone();
    again.generation = 2;
    world.running(1, &again).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_waits_for_its_daemon() {
    let Some(mut world) = World::start("an_agent_waits_for_its_daemon", 1).await else { return };
    let spec = world.spec(SECTOR).await;
    world.running(1, &spec).await;
    world.kill_agent(0).await;
    world.hosts[0].libvirtd.kill_daemon().await;
    let started = tokio::time::timeout(3 * SECOND, world.start_agent(0)).await;
    assert!(started.is_err(), "it says hello only once it knows what runs");
    world.hosts[0].libvirtd.start_daemon().await;
    world.await_hosts().await;
    let report = world.inventory(1).await;
    assert_eq!((report.vms.len(), report.vms[0].power()), (1, PowerState::On));
    world.end().await;
}
