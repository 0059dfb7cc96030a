//! The replica that sees to hosts and VMs dies while it does.

use crate::fleet::Fleet;
use crate::site::uuid;
use crate::{HOST, SECOND, VM};

/// A VM of a dead host runs once, elsewhere, whatever happened to who saw to it.
async fn is_restarted_once(fleet: Fleet, frozen: bool) {
    let site = &fleet.site;
    let (_, host, _) = site.await_restart(1).await;
    assert_eq!(host, Some(site.host(1).await));
    site.await_state(2, "Stopped").await;
    let open = "SELECT COUNT(*) FROM jobs WHERE state NOT IN ('Done', 'Failed')";
    testkit::wait_until(|| async { site.cloud.count(open).await == 0 }, 60 * SECOND).await;
    assert_eq!(site.standing(1).await, ("Running".to_owned(), host, 2), "it was started again once");
    assert_eq!(site.standing(3).await.2, 1, "its host lives");
    let done = |kind: &str| format!("SELECT COUNT(*) FROM jobs WHERE kind = '{kind}' AND state = 'Done'");
    assert_eq!(site.cloud.count(&done("vm.ha")).await, 1);
    assert_eq!(site.cloud.count("SELECT COUNT(*) FROM vm_restarts").await, 0);
    assert_eq!(site.told("VM.START", "HA started VM").await.len(), 1);
    assert_eq!(site.told(VM, &uuid(2)).await.len(), 1, "people are told once");
    assert_eq!(site.told(HOST, "is down").await.len(), 1, "people are told once");
    // The lost host comes back to the replica that is left, and stops what it owes.
    if frozen {
        site.freeze(0, false).await;
    } else {
        site.books_are_right().await;
        assert!(site.factory.simulator.boot_host(&site.hosts[0]));
    }
    site.await_status(0, "Up").await;
    testkit::wait_until(|| async { site.cloud.count("SELECT COUNT(*) FROM host_debts").await == 0 }, 60 * SECOND).await;
    site.books_are_right().await;
    fleet.end().await;
}

async fn opened() -> Fleet {
    let fleet = Fleet::open(2).await;
    fleet.site.running(1, true, 0).await;
    fleet.site.running(2, false, 0).await;
    fleet.site.running(3, true, 1).await; // its host reaches the pool, so it can see
    fleet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_dies_while_it_investigates() {
    let mut fleet = opened().await;
    // Whoever asks is kept waiting.
    fleet.site.freeze_and(0, true, Some(("InspectLease", 3000))).await;
    fleet.site.await_status(0, "Alert").await;
    fleet.kill_leader().await;
    is_restarted_once(fleet, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_dies_while_it_writes_vms_off() {
    let mut fleet = opened().await;
    fleet.hold("unprepare");
    assert!(fleet.site.factory.simulator.kill_host(&fleet.site.hosts[0]));
    fleet.await_held().await;
    fleet.kill_leader().await;
    is_restarted_once(fleet, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_dies_while_it_starts_vms_again() {
    let mut fleet = opened().await;
    fleet.hold("prepare");
    assert!(fleet.site.factory.simulator.kill_host(&fleet.site.hosts[0]));
    fleet.await_held().await;
    fleet.kill_leader().await;
    is_restarted_once(fleet, false).await;
}

/// How often a VM ended soon after its start is known to whoever leads next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_dies_while_a_vm_ends_after_every_start() {
    let mut fleet = Fleet::open(1).await;
    fleet.site.running(1, true, 0).await;
    for restart in 1..=5 {
        if restart == 3 {
            fleet.hold("prepare");
        }
        assert!(fleet.site.factory.simulator.power_off(&uuid(1)));
        if restart == 3 {
            fleet.await_held().await;
            fleet.kill_leader().await;
        }
        fleet.site.await_generation(1, restart + 1).await;
    }
    let site = &fleet.site;
    assert!(site.factory.simulator.power_off(&uuid(1)));
    site.await_told(VM, &uuid(1), "soon after each of 5 restarts. It stays Stopped").await;
    assert_eq!(site.standing(1).await, ("Stopped".to_owned(), None, 6));
    assert_eq!(site.told("VM.START", "HA started VM").await.len(), 5);
    assert_eq!(site.told(VM, &uuid(1)).await.len(), 2, "after the first time and after the last");
    site.books_are_right().await;
    fleet.end().await;
}
