//! Guests from their start to their end.

use crate::common::SECOND;
use crate::world::{DEAF, SECTOR, World, reboot, start, stop};
use contract_agent::{PowerReason, PowerState, SpawnHost, command};
use libvirt::{DefineFlags, DestroyFlags, DomainState, ShutdownFlags, XmlFlags};
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_starts_once_reboots_and_stops() {
    let Some(world) = World::start("a_guest_starts_once_reboots_and_stops", 1).await else { return };
    let spec = world.spec(SECTOR).await;
    let state = world.running(1, &spec).await;
    assert_eq!(state.instance_name, spec.instance_name);
    assert!(state.vnc.is_some_and(|socket| socket.ends_with(".sock")));
    let (domain, running) = world.domain(1, &spec.uuid).await.unwrap();
    assert_eq!((domain.name.as_str(), running), (spec.instance_name.as_str(), DomainState::RUNNING));
    let xml = world.libvirt(1).await.xml(&domain, XmlFlags::none()).await.unwrap();
    assert!(xml.contains("generation=\"1\"") && xml.contains("a &lt;guest&gt; &amp; "), "{xml}");
    assert_eq!(world.claims(&spec.uuid), ["1"]);

    // The same again is the same run.
    world.vm(1, start(&spec, true)).await;
    assert_eq!(world.domain(1, &spec.uuid).await.unwrap().0.id, domain.id);
    let report = world.inventory(1).await;
    assert_eq!((report.vms.len(), report.vms[0].power(), report.vms[0].generation), (1, PowerState::On, 1));

    // The guest hears the power button and begins anew, in the same run.
    world.vm(1, reboot(&spec)).await;
    world.await_boots(1, &spec.instance_name, 2).await;
    assert_eq!(world.domain(1, &spec.uuid).await.unwrap().0.id, domain.id);

    let stopped = world.vm(1, stop(&spec, false)).await;
    assert_eq!((stopped.power(), stopped.reason()), (PowerState::Off, PowerReason::Unspecified));
    assert_eq!((world.domain(1, &spec.uuid).await, world.processes(&spec.uuid)), (None, 0));
    assert_eq!(world.claims(&spec.uuid), ["1", "1.free"]);
    assert!(world.inventory(1).await.vms.is_empty());
    // Stopped is stopped, and what has come before can't come after.
    assert_eq!(world.vm(1, stop(&spec, true)).await.power(), PowerState::Off);
    let mut old = spec.clone();
    old.generation = 2;
    world.running(1, &old).await;
    let late = world.execute(1, start(&spec, true)).await.unwrap_err();
    assert!(late.is_transient(), "{late}");
    // A stop that means an earlier generation leaves it alone.
    assert_eq!(world.vm(1, stop(&spec, true)).await.power(), PowerState::On);
    world.vm(1, stop(&old, true)).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_does_not_listen_is_cut_off_after_its_grace() {
    let Some(world) = World::start("a_guest_that_does_not_listen_is_cut_off_after_its_grace", 1).await else { return };
    let spec = world.spec(DEAF).await;
    world.running(1, &spec).await;
    let begun = Instant::now();
    world.vm(1, reboot(&spec)).await;
    assert!(begun.elapsed() >= 6 * SECOND, "it has its grace");
    world.await_boots(1, &spec.instance_name, 2).await;
    let begun = Instant::now();
    world.vm(1, stop(&spec, false)).await;
    assert!(begun.elapsed() >= 6 * SECOND, "it has its grace");
    assert_eq!((world.domain(1, &spec.uuid).await, world.processes(&spec.uuid)), (None, 0));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_guests_do_by_themselves_is_told() {
    let Some(mut world) = World::start("what_guests_do_by_themselves_is_told", 1).await else { return };
    let mut spec = world.spec(SECTOR).await;
    world.running(1, &spec).await;
    let libvirt = world.libvirt(1).await;
    // As if somebody in the guest had shut it down.
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    libvirt.shutdown(&domain, ShutdownFlags::ACPI_POWER_BUTTON).await.unwrap();
    let told = world.await_news(1, &spec.uuid, PowerState::Off, PowerReason::Guest).await;
    assert_eq!(told.generation, 1);
    assert!(world.inventory(1).await.vms.is_empty());
    testkit::wait_until(|| async { world.claims(&spec.uuid).contains(&"1.free".to_owned()) }, 60 * SECOND).await;

    // QEMU crashes.
    spec.generation = 2;
    world.running(1, &spec).await;
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    let _ = libvirt.monitor_command(&domain, r#"{"execute":"quit"}"#).await;
    world.await_news(1, &spec.uuid, PowerState::Off, PowerReason::Guest).await;

    // Somebody destroys it behind the agent's back, or pauses it.
    spec.generation = 3;
    world.running(1, &spec).await;
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    libvirt.suspend(&domain).await.unwrap();
    world.await_news(1, &spec.uuid, PowerState::Paused, PowerReason::Unspecified).await;
    // The same start again means that it is to run.
    world.vm(1, start(&spec, true)).await;
    world.await_domain(1, &spec.uuid, Some(DomainState::RUNNING)).await;
    libvirt.destroy(&domain, DestroyFlags::none()).await.unwrap();
    world.await_news(1, &spec.uuid, PowerState::Off, PowerReason::Unspecified).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_finds_its_guests_again() {
    let Some(mut world) = World::start("a_killed_agent_finds_its_guests_again", 1).await else { return };
    let (spec, mut gone) = (world.spec(SECTOR).await, world.spec(SECTOR).await);
    world.running(1, &spec).await;
    world.running(1, &gone).await;
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    world.kill_agent(0).await;
    // While nobody looks one of them ends.
    let libvirt = world.libvirt(1).await;
    let (other, _) = world.domain(1, &gone.uuid).await.unwrap();
    libvirt.destroy(&other, DestroyFlags::none()).await.unwrap();
    world.start_agent(0).await;
    let report = world.inventory(1).await;
    let known: Vec<(&str, PowerState)> = report.vms.iter().map(|vm| (vm.uuid.as_str(), vm.power())).collect();
    assert_eq!(known, [(spec.uuid.as_str(), PowerState::On)]);
    assert_eq!(world.domain(1, &spec.uuid).await.unwrap(), (domain.clone(), DomainState::RUNNING));
    // What isn't there isn't claimed for long, and the same start is still the same run.
    testkit::wait_until(|| async { world.claims(&gone.uuid).contains(&"1.free".to_owned()) }, 60 * SECOND).await;
    world.vm(1, start(&spec, true)).await;
    assert_eq!(world.domain(1, &spec.uuid).await.unwrap().0.id, domain.id);
    gone.generation = 2;
    world.running(1, &gone).await;
    world.vm(1, stop(&gone, true)).await;
    world.vm(1, stop(&spec, false)).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_was_cut_off_anywhere_is_completed_or_undone() {
    let Some(mut world) = World::start("a_start_that_was_cut_off_anywhere_is_completed_or_undone", 1).await else {
        return;
    };
    let mut seen = Vec::new();
    for wait in [0, 20, 60, 150, 400, 800, 1500] {
        let spec = world.spec(SECTOR).await;
        // The hub hears nothing of the order any more when the agent dies.
        let order = world.replica.hub.clone();
        let body = start(&spec, true);
        let given = tokio::spawn(async move {
            let command = contract_agent::Command { body: Some(body) };
            order.execute(model::HostId(1), None, false, command, 60 * SECOND).await
        });
        let _ = tokio::time::timeout(std::time::Duration::from_millis(wait), std::future::pending::<()>()).await;
        world.kill_agent(0).await;
        let _ = given.await;
        let there = world.processes(&spec.uuid);
        world.start_agent(0).await;
        seen.push((wait, there));
        if wait % 40 == 0 {
            // The job's worker asks again.
            world.running(1, &spec).await;
            assert_eq!(world.processes(&spec.uuid), 1);
        }
        // Or takes it back.
        world.vm(1, stop(&spec, true)).await;
        assert_eq!((world.domain(1, &spec.uuid).await, world.processes(&spec.uuid)), (None, 0));
        testkit::wait_until(
            || async { world.claims(&spec.uuid).is_empty() || world.claims(&spec.uuid).contains(&"1.free".to_owned()) },
            30 * SECOND,
        )
        .await;
    }
    eprintln!("milliseconds before the kill, and guests that were there: {seen:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_orders_are_refused_and_leave_nothing() {
    let Some(world) = World::start("bad_orders_are_refused_and_leave_nothing", 1).await else { return };
    let spec = world.spec(SECTOR).await;
    let mut bad = spec.clone();
    bad.instance_name = "'/><x".into();
    assert_eq!(world.execute(1, start(&bad, true)).await.unwrap_err().code, 431);
    let mut bad = spec.clone();
    bad.disks[0].path = "../../etc/passwd".into();
    assert!(world.execute(1, start(&bad, true)).await.is_err());
    let mut bad = spec.clone();
    bad.disks[0].path = "missing".into();
    assert!(world.execute(1, start(&bad, true)).await.is_err());
    // QEMU itself refuses: the lease is given back.
    let mut bad = spec.clone();
    bad.memory_bytes = 1 << 46;
    let refused = world.execute(1, start(&bad, true)).await.unwrap_err();
    assert!(refused.full_text().contains("can't be started"), "{refused}");
    testkit::wait_until(|| async { world.claims(&spec.uuid) == ["1", "1.free"] }, 60 * SECOND).await;
    assert!(world.inventory(1).await.vms.is_empty());
    // A domain that isn't ours isn't touched, and takes no name from us.
    let foreign = format!(
        "<domain type='qemu'><name>{}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
         <os><type arch='x86_64' machine='pc'>hvm</type></os></domain>",
        spec.instance_name
    );
    let libvirt = world.libvirt(1).await;
    let domain = libvirt.define(&foreign, DefineFlags::none()).await.unwrap();
    assert!(world.execute(1, start(&spec, true)).await.is_err());
    libvirt.undefine(&domain, libvirt::UndefineFlags::none()).await.unwrap();
    world.running(1, &spec).await;

    let spawn = command::Body::SpawnHost(SpawnHost { host_uuid: "x".into(), ..SpawnHost::default() });
    assert_eq!(world.execute(1, spawn).await.unwrap_err().code, 431);
    let unknown = reboot(&bad);
    world.vm(1, stop(&spec, true)).await;
    assert_eq!(world.execute(1, unknown).await.unwrap_err().code, 530);
    world.end().await;
}
