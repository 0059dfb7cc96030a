//! What the control plane does when a host falls silent or dies, and when a VM ends by itself.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod affinity;
#[path = "../common/mod.rs"]
mod common;
mod fakes;
mod fleet;
mod idle;
mod maintenance;
mod migrate;
mod planners;
mod replicas;
mod site;

use common::*;
use contract_compute::StopVirtualMachineRequest;
use contract_infra::{DeleteHostRequest, ListHostsRequest, UpdateHostRequest};
use fakes::Plugged;
use rpc::cx::request;
use site::{SMALL, Site, uuid};
use std::sync::atomic::Ordering;

const HOST: &str = "ALERT.COMPUTE.HOST";
const VM: &str = "ALERT.USERVM";

testkit::databases! {
    // covers: OPS-114, OPS-116
    async fn vms_of_a_dead_host_run_elsewhere_once(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        site.running(1, true, 0).await;
        site.running(2, false, 0).await;
        site.running(3, true, 1).await;
        let dead = site.host(0).await;
        assert!(site.factory.simulator.kill_host(&site.hosts[0]));
        site.await_status(0, "Down").await;
        let (_, host, generation) = site.await_restart(1).await;
        assert!(host.is_some_and(|h| h != dead));
        assert_eq!(generation, 2);
        site.await_state(2, "Stopped").await;
        assert_eq!(site.standing(3).await, ("Running".to_owned(), Some(site.host(1).await), 1), "its host lives");
        site.books_are_right().await;
        site.await_told(HOST, &site.hosts[0], "is down").await;
        site.await_told(VM, &uuid(2), "isn't started again: it is not HA-enabled").await;
        site.await_told("VM.START", &uuid(1), "HA started VM").await;
        assert!(site.told(VM, &uuid(1)).await.is_empty());
        assert_eq!(site.told(HOST, &site.hosts[0]).await.len(), 1, "people are told once");
        // It owes the stop of both, and takes nothing new before it has done that.
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM host_debts").await, 2);
        assert!(site.factory.simulator.boot_host(&site.hosts[0]));
        site.await_status(0, "Up").await;
        testkit::wait_until(|| async { site.cloud.count("SELECT COUNT(*) FROM host_debts").await == 0 }, 30 * SECOND).await;
        site.await_told(HOST, &site.hosts[0], "is connected again").await;
        site.books_are_right().await;
        assert_eq!(site.standing(1).await.2, 2);
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM vm_restarts").await, 0);
        testkit::eventually(|| async { site.start(2, Some(0)).await.ok() }).await;
        site.books_are_right().await;
        site.end().await;
    }

    // covers: OPS-117
    async fn vms_of_a_host_that_is_only_cut_off_are_left_alone(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, true, 0).await;
        site.running(2, false, 0).await;
        site.running(3, true, 1).await; // its host reaches the pool, so it can see
        site.set("alert.wait", "3").await;
        let host = Some(site.host(0).await);
        assert!(site.factory.simulator.silence_host(&site.hosts[0], true));
        site.await_told(HOST, &site.hosts[0], "lives but has not connected").await;
        assert_eq!(site.status(0).await, "Alert");
        let looks = "SELECT COALESCE(MAX(looks), 0) FROM host_absences";
        testkit::wait_until(|| async { site.cloud.count(looks).await >= 5 }, 60 * SECOND).await;
        for vm in [1, 2] {
            assert_eq!(site.standing(vm).await, ("Running".to_owned(), host, 1));
        }
        assert!(site.told(VM, "").await.is_empty());
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM vm_restarts").await, 0);
        assert!(site.factory.simulator.silence_host(&site.hosts[0], false));
        site.await_status(0, "Up").await;
        site.await_told(HOST, &site.hosts[0], "is connected again").await;
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM host_absences").await, 0);
        site.books_are_right().await;
        site.end().await;
    }

    // covers: OPS-118
    async fn nothing_is_restarted_when_nobody_can_tell(db: testkit::TestDb) {
        let site = Site::open(&db, 1).await; // no other host can look
        site.running(1, true, 0).await;
        site.running(2, false, 0).await;
        assert!(site.factory.simulator.silence_host(&site.hosts[0], true));
        site.await_told(HOST, &site.hosts[0], "nobody knows whether it lives").await;
        site.await_told(VM, &uuid(1), "isn't started elsewhere").await;
        assert_eq!(site.status(0).await, "Alert");
        let looks = "SELECT COALESCE(MAX(looks), 0) FROM host_absences";
        testkit::wait_until(|| async { site.cloud.count(looks).await >= 4 }, 60 * SECOND).await;
        assert_eq!(site.standing(1).await.0, "Running");
        assert_eq!(site.standing(2).await.0, "Running");
        assert_eq!((site.told(HOST, "").await.len(), site.told(VM, "").await.len()), (1, 1), "people are told once");
        site.end().await;
    }

    // covers: OPS-117
    async fn a_host_that_stood_still_finds_its_vms_gone(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, true, 0).await;
        site.running(2, false, 0).await;
        site.running(3, true, 1).await; // its host reaches the pool, so it can see
        site.freeze(0, true).await;
        site.await_told(HOST, &site.hosts[0], "it has renewed no lease").await;
        let (_, host, generation) = site.await_restart(1).await;
        assert_eq!((host, generation), (Some(site.host(1).await), 2));
        site.await_state(2, "Stopped").await;
        site.freeze(0, false).await;
        site.await_status(0, "Up").await;
        testkit::wait_until(|| async { site.cloud.count("SELECT COUNT(*) FROM host_debts").await == 0 }, 30 * SECOND).await;
        site.books_are_right().await;
        site.end().await;
    }

    // covers: OPS-113, OPS-114
    async fn vms_that_crash_are_started_again(db: testkit::TestDb) {
        let site = Site::open(&db, 1).await;
        site.running(1, true, 0).await;
        site.running(2, false, 0).await;
        assert!(site.factory.simulator.power_off(&uuid(1)));
        assert!(site.factory.simulator.power_off(&uuid(2)));
        assert_eq!(site.await_restart(1).await.1, Some(site.host(0).await));
        site.await_told(VM, &uuid(2), "isn't started again").await;
        assert_eq!(site.standing(2).await, ("Stopped".to_owned(), None, 1));
        assert!(site.told(VM, &uuid(1)).await.is_empty());
        site.books_are_right().await;
        // It can be switched off.
        site.set("ha.vm.restart.hostup", "false").await;
        assert!(site.factory.simulator.power_off(&uuid(1)));
        site.await_told(VM, &uuid(1), "isn't started again: that is switched off").await;
        assert_eq!(site.standing(1).await.0, "Stopped");
        site.end().await;
    }

    async fn a_vm_that_ends_after_every_start_is_given_up(db: testkit::TestDb) {
        let site = Site::open(&db, 1).await;
        site.running(1, true, 0).await;
        for restart in 1..=5 {
            assert!(site.factory.simulator.power_off(&uuid(1)));
            if restart >= 3 {
                // The pauses grow: 1, 2, 4 and 4 s.
                let pause = "SELECT COALESCE(MAX(not_before - created), 0) FROM vm_restarts";
                let wanted = (1 << (restart - 2).min(2)) * 1_000_000 - 100_000;
                testkit::wait_until(|| async { site.cloud.count(pause).await >= wanted }, 60 * SECOND).await;
            }
            site.await_generation(1, restart + 1).await;
        }
        assert!(site.factory.simulator.power_off(&uuid(1)));
        site.await_told(VM, &uuid(1), "soon after each of 5 restarts. It stays Stopped").await;
        assert_eq!(site.standing(1).await, ("Stopped".to_owned(), None, 6));
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM vm_restarts").await, 0);
        let told = site.told(VM, &uuid(1)).await;
        assert_eq!(told.len(), 2, "after the first time and after the last: {told:?}");
        assert!(told[0].contains("The next try is in 1 s"), "{}", told[0]);
        site.books_are_right().await;
        // Whoever starts it gives it all its tries again; so does having run for a while.
        site.start(1, None).await.unwrap();
        for generation in [8, 9, 10] {
            assert!(site.factory.simulator.power_off(&uuid(1)));
            site.await_generation(1, generation).await;
            let old = "UPDATE vm_recoveries SET started = 1";
            store::tx!(site.cloud.db, "well", |tx| tx.exec(old).await).await.unwrap();
        }
        assert_eq!(site.told(VM, &uuid(1)).await.len(), 2);
        assert_eq!(site.cloud.count("SELECT COALESCE(MAX(in_a_row), 0) FROM vm_recoveries WHERE in_a_row > 1").await, 0);
        site.end().await;
    }
}

async fn tag(site: &Site, n: usize, tags: &[&str]) {
    let r = UpdateHostRequest {
        id: Some(site.hosts[n].clone()),
        host_tags: tags.iter().map(|t| (*t).to_owned()).collect(),
        ..UpdateHostRequest::default()
    };
    ok(site.cloud.hosts().update(request(&root(), r)).await).unwrap();
}

testkit::databases! {
    async fn a_host_that_is_deleted_by_force_keeps_no_nics(db: testkit::TestDb) {
        let site = Site::open(&db, 1).await;
        site.running(1, false, 0).await;
        assert!(site.network.plugged.lock().unwrap().contains(&1));
        let r = DeleteHostRequest { id: Some(site.hosts[0].clone()), forced: Some(true), ..DeleteHostRequest::default() };
        ok(site.cloud.hosts().delete(request(&root(), r)).await).unwrap();
        assert_eq!(site.standing(1).await, ("Stopped".to_owned(), None, 1));
        testkit::wait_until(|| async { site.network.plugged.lock().unwrap().is_empty() }, 60 * SECOND).await;
        site.end().await;
    }
}

async fn stop(site: &Site, vm: i64) {
    let r = StopVirtualMachineRequest { id: Some(uuid(vm)), ..StopVirtualMachineRequest::default() };
    let job = ok(site.cloud.vms().stop(request(&root(), r)).await).unwrap();
    assert_eq!(site.cloud.ended(&root(), &job.job_id).await.job_status, Some(1));
}

async fn disable(site: &Site, n: usize) {
    let r = UpdateHostRequest {
        id: Some(site.hosts[n].clone()),
        allocation_state: Some("Disable".into()),
        ..UpdateHostRequest::default()
    };
    ok(site.cloud.hosts().update(request(&root(), r)).await).unwrap();
}

testkit::databases! {
    // covers: OPS-122, OPS-127
    async fn hosts_can_be_kept_for_restarts(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        let answer = site.set("ha.tag", "ha_host").await;
        assert!(answer.description().contains("no host carries the tag ha_host"), "{}", answer.description());
        site.await_told(HOST, "ha.tag", "no host carries the tag ha_host").await;
        tag(&site, 2, &["ssd", "ha_host"]).await;
        tag(&site, 1, &["xha_host"]).await;
        assert!(!site.set("ha.tag", "ha_host").await.description().contains("no host carries"));
        let listed = |ha| ListHostsRequest { ha_host: Some(ha), ..ListHostsRequest::default() };
        let kept = site.shown(listed(true)).await;
        assert_eq!((kept.len(), kept[0].id(), kept[0].ha_host()), (1, site.hosts[2].as_str(), true));
        assert!(site.shown(listed(false)).await.iter().all(|h| !h.ha_host()));
        assert_eq!(site.shown(listed(false)).await.len(), 2);
        site.running(1, true, 0).await;
        site.running(2, true, 0).await;
        // Ordinary starts never go there, even when all else is full.
        disable(&site, 1).await;
        disable(&site, 0).await;
        site.vm(3, true).await;
        let refused = testkit::eventually(|| async { site.start(3, None).await.err() }).await;
        assert!(refused.full_text().contains("kept for restarts after failures"), "{}", refused.full_text());
        assert!(site.factory.simulator.kill_host(&site.hosts[0]));
        for vm in [1, 2] {
            assert_eq!(site.await_restart(vm).await.1, Some(site.host(2).await));
        }
        site.books_are_right().await;
        site.end().await;
    }

    // covers: OPS-123, OPS-125
    async fn hosts_that_are_kept_are_the_only_ones_for_restarts(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let network = fakes::serve(&cloud.node, &cloud.net, &Plugged::default());
        let mut site = Site::on(cloud, network, 1, SMALL).await;
        site.add_host(1, "cpucore=4&cpuspeed=500&memory=274877906944").await;
        site.add_host(2, "cpucore=2&cpuspeed=500&memory=274877906944").await;
        site.set("ha.tag", "ha_host").await;
        tag(&site, 2, &["ha_host"]).await;
        for vm in 1..=3 {
            site.running(vm, true, 0).await;
        }
        for vm in 4..=7 {
            site.running(vm, true, 1).await;
        }
        // All others are full, and the kept one is empty.
        site.vm(8, true).await;
        let refused = testkit::eventually(|| async { site.start(8, None).await.err() }).await;
        assert!(refused.full_text().contains("kept for restarts after failures"), "{}", refused.full_text());
        assert!(site.factory.simulator.vm(&uuid(8)).is_none());
        // Now the other one has room, but only the kept one takes what the dead one ran: two of three.
        stop(&site, 4).await;
        stop(&site, 5).await;
        assert!(site.factory.simulator.kill_host(&site.hosts[0]));
        site.await_told(VM, "", "could not be started again").await;
        let on = |n| { let site = &site; async move {
            let sql = format!("SELECT COUNT(*) FROM vms WHERE id <= 3 AND state = 'Running' AND host_id = {}", site.host(n).await);
            site.cloud.count(&sql).await
        } };
        testkit::wait_until(|| async { on(2).await == 2 }, 60 * SECOND).await;
        site.await_told(VM, "", "it stays Stopped").await;
        assert_eq!((on(1).await, on(2).await), (0, 2));
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM vms WHERE id <= 3 AND state = 'Stopped'").await, 1);
        site.books_are_right().await;
        site.end().await;
    }

    // covers: OPS-158
    async fn the_rest_of_a_cluster_takes_all_when_it_has_spare_room(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let network = fakes::serve(&cloud.node, &cloud.net, &Plugged::default());
        let site = Site::on(cloud, network, 3, SMALL).await;
        // Three hosts for three VMs each may run six of them, to survive the loss of one.
        for vm in 1..=6 {
            site.running(vm, true, usize::try_from(vm - 1).unwrap() % 3).await;
        }
        assert!(site.factory.simulator.kill_host(&site.hosts[0]));
        for vm in [1, 4] {
            site.await_restart(vm).await;
        }
        let full = "SELECT COUNT(*) FROM host_capacity WHERE vms = 3";
        assert_eq!(site.cloud.count(full).await, 2);
        site.books_are_right().await;
        site.end().await;
    }

    // covers: OPS-119
    async fn vms_on_iscsi_are_started_again_too(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        store::tx!(site.cloud.db, "iscsi", |tx| tx.exec("UPDATE storage_pools SET pool_type = 'IscsiLUN'").await).await.unwrap();
        site.running(1, true, 0).await;
        site.running(2, true, 1).await; // its host reaches the pool, so it can see
        assert!(site.factory.simulator.kill_host(&site.hosts[0]));
        assert_eq!(site.await_restart(1).await.1, Some(site.host(1).await));
        site.books_are_right().await;
        site.end().await;
    }

    // covers: OPS-126
    async fn a_tag_that_no_host_carries_keeps_vms_stopped(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, true, 0).await;
        site.set("ha.tag", "nowhere").await;
        assert!(site.factory.simulator.kill_host(&site.hosts[0]));
        site.await_told(VM, &uuid(1), "could not be started again").await;
        site.await_state(1, "Stopped").await;
        // The last try is told too, and then it stays as it is.
        site.await_told(VM, &uuid(1), "it stays Stopped").await;
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM vm_restarts").await, 0);
        site.books_are_right().await;
        site.end().await;
    }

    // covers: OPS-115
    async fn restarts_stay_in_the_zone(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, true, 0).await;
        disable(&site, 1).await;
        let other = site.cloud.zone("Y", 17).await;
        site.cloud.add_host(&other, 7).await.unwrap();
        assert!(site.factory.simulator.kill_host(&site.hosts[0]));
        site.await_told(VM, &uuid(1), "could not be started again").await;
        assert_eq!(site.standing(1).await.0, "Stopped");
        let elsewhere = "SELECT COUNT(*) FROM host_capacity k JOIN zones z ON z.id = k.zone_id WHERE z.name = 'Y' AND k.vms > 0";
        assert_eq!(site.cloud.count(elsewhere).await, 0);
        site.end().await;
    }

    // covers: OPS-116
    async fn the_same_cluster_comes_first(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        let other = site.cloud.add_cluster(site.place.zone.id(), site.place.pod.id(), "C1").await.unwrap();
        let place = Place { zone: site.place.zone.clone(), pod: site.place.pod.clone(), cluster: other };
        for n in 20..26 {
            site.cloud.add_host(&place, n).await.unwrap();
        }
        for vm in 1..=4 {
            site.running(vm, true, 0).await;
        }
        assert!(site.factory.simulator.kill_host(&site.hosts[0]));
        for vm in 1..=4 {
            assert_eq!(site.await_restart(vm).await.1, Some(site.host(1).await));
        }
        // When the cluster has no host left, its pod has.
        assert!(site.factory.simulator.kill_host(&site.hosts[1]));
        testkit::wait_until(|| async { site.standing(1).await.2 >= 3 && site.standing(1).await.0 == "Running" }, 60 * SECOND).await;
        let host = site.standing(1).await.1.unwrap();
        assert!(host != site.host(0).await && host != site.host(1).await);
        site.end().await;
    }

    // covers: OPS-120
    async fn vms_on_local_storage_wait_for_their_host(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, true, 0).await;
        store::tx!(site.cloud.db, "local", |tx| tx.exec("UPDATE storage_pools SET scope = 'HOST'").await).await.unwrap();
        assert!(site.factory.simulator.kill_host(&site.hosts[0]));
        site.await_told(VM, &uuid(1), "only when that host is back").await;
        assert_eq!(site.standing(1).await.0, "Stopped");
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM jobs WHERE kind = 'vm.ha'").await, 0);
        assert!(site.factory.simulator.boot_host(&site.hosts[0]));
        assert_eq!(site.await_restart(1).await.1, Some(site.host(0).await));
        site.books_are_right().await;
        site.end().await;
    }

    // covers: OPS-118
    async fn failed_restarts_are_tried_again(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, true, 0).await;
        site.network.broken.store(true, Ordering::SeqCst);
        assert!(site.factory.simulator.kill_host(&site.hosts[0]));
        site.await_told(VM, &uuid(1), "tried again in 1 s").await;
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM vm_capacity").await, 0);
        site.network.broken.store(false, Ordering::SeqCst);
        assert_eq!(site.await_restart(1).await.1, Some(site.host(1).await));
        site.books_are_right().await;
        site.end().await;
    }
}
