//! Containers from their start to their end.

use crate::common::SECOND;
use crate::world::{MIB, World, reboot, start, stop};
use contract_agent::{AttachDisk, DeleteDisk, PowerReason, PowerState, ResizeDisk, VmDisk, command};
use libvirt::{DestroyFlags, DomainState, XmlFlags};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_starts_once_reboots_and_stops() {
    let Some(world) = World::start("a_container_starts_once_reboots_and_stops", 1).await else { return };
    let spec = world.spec().await;
    let state = world.running(1, &spec, 1).await;
    assert_eq!((state.instance_name.as_str(), state.vnc), (spec.instance_name.as_str(), None));
    let (domain, running) = world.domain(1, &spec.uuid).await.unwrap();
    assert_eq!((domain.name.as_str(), running), (spec.instance_name.as_str(), DomainState::RUNNING));
    let xml = world.libvirt(1).await.xml(&domain, XmlFlags::none()).await.unwrap();
    for part in ["<domain type='lxc'", "generation=\"1\"", "a &lt;container&gt; &amp; ", "<idmap>", "<privnet/>"] {
        assert!(xml.contains(part), "{part} is missing in {xml}");
    }
    assert_eq!(world.claims(&spec.uuid), ["1"]);
    // The same again is the same run.
    world.vm(1, start(&spec, true)).await;
    assert_eq!(world.domain(1, &spec.uuid).await.unwrap().0.id, domain.id);
    let report = world.inventory(1).await;
    assert_eq!((report.vms.len(), report.vms[0].power(), report.vms[0].generation), (1, PowerState::On, 1));

    let rebooted = world.vm(1, reboot(&spec)).await;
    assert_eq!((rebooted.power(), rebooted.generation), (PowerState::On, 1));
    world.await_boots(1, &spec, 2).await;
    assert_ne!(world.domain(1, &spec.uuid).await.unwrap().0.id, domain.id);
    // Its process 1 was asked: what it had written is there.
    assert_eq!(world.inside(1, &spec, "echo kept >/root/file; wc -l </boots").await.trim(), "2");

    // What containers can't have is refused, and they go on.
    let attach = AttachDisk { vm_uuid: spec.uuid.clone(), disk: Some(VmDisk { root: false, ..spec.disks[0].clone() }) };
    assert_eq!(world.execute(1, command::Body::AttachDisk(attach)).await.unwrap_err().code, 431);
    let root = spec.disks[0].clone();
    let resize = |size| ResizeDisk {
        volume_uuid: root.volume_uuid.clone(),
        pool_uuid: root.pool_uuid.clone(),
        path: root.path.clone(),
        size,
        ..ResizeDisk::default()
    };
    assert_eq!(world.execute(1, command::Body::ResizeDisk(resize(128 * MIB))).await.unwrap_err().code, 431);
    let delete = DeleteDisk {
        volume_uuid: root.volume_uuid.clone(),
        pool_uuid: root.pool_uuid.clone(),
        path: root.path.clone(),
        ended_vm: None,
    };
    assert!(world.execute(1, command::Body::DeleteDisk(delete.clone())).await.is_err(), "it is in use");

    assert_eq!(world.vm(1, stop(&spec, false)).await.power(), PowerState::Off);
    world.assert_gone(1, &spec).await;
    assert_eq!(world.claims(&spec.uuid), ["1", "1.free"]);
    // At rest it grows, with the file system in it at the next start.
    world.execute(1, command::Body::ResizeDisk(resize(128 * MIB))).await.unwrap();
    let mut spec = spec;
    spec.generation = 2;
    world.running(1, &spec, 3).await;
    assert_eq!(world.inside(1, &spec, "cat /root/file").await, "kept\n");
    let blocks = world.inside(1, &spec, "df -k / | tail -n 1 | awk '{print $2}'").await;
    assert!(blocks.trim().parse::<u64>().unwrap() > 100 * 1024, "{blocks}");
    world.vm(1, stop(&spec, true)).await;
    world.assert_gone(1, &spec).await;
    world.execute(1, command::Body::DeleteDisk(delete)).await.unwrap();
    assert!(!world.pool_dir().join(&root.path).exists());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_containers_do_by_themselves_is_told() {
    let Some(mut world) = World::start("what_containers_do_by_themselves_is_told", 1).await else { return };
    let mut spec = world.spec().await;
    world.running(1, &spec, 1).await;
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    // It reboots by itself: another number, the same run.
    world.ask(1, &spec, "reboot -f");
    world.await_boots(1, &spec, 2).await;
    let known = || async {
        let report = world.inventory(1).await;
        report.vms.len() == 1 && report.vms[0].power() == PowerState::On
    };
    testkit::wait_until(known, 60 * SECOND).await;
    assert_ne!(world.domain(1, &spec.uuid).await.unwrap().0.id, domain.id);
    assert_eq!(world.claims(&spec.uuid), ["1"], "the lease was held all the time");
    assert_eq!(world.inside(1, &spec, "wc -l </boots").await.trim(), "2");
    // Its process 1 ends.
    world.ask(1, &spec, "kill -TERM 1");
    let told = world.await_news(1, &spec.uuid, PowerState::Off, PowerReason::Guest).await;
    assert_eq!(told.generation, 1);
    testkit::wait_until(|| async { world.claims(&spec.uuid).contains(&"1.free".to_owned()) }, 60 * SECOND).await;
    world.assert_gone(1, &spec).await;

    // libvirt's helper is killed.
    spec.generation = 2;
    world.running(1, &spec, 3).await;
    for pid in world.helpers(&spec) {
        assert!(std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    }
    world.await_news(1, &spec.uuid, PowerState::Off, PowerReason::Guest).await;
    testkit::wait_until(|| async { world.claims(&spec.uuid).contains(&"2.free".to_owned()) }, 60 * SECOND).await;
    world.assert_gone(1, &spec).await;

    // Somebody pauses it behind the agent's back, or destroys it.
    spec.generation = 3;
    world.running(1, &spec, 4).await;
    let libvirt = world.libvirt(1).await;
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    libvirt.suspend(&domain).await.unwrap();
    world.await_news(1, &spec.uuid, PowerState::Paused, PowerReason::Unspecified).await;
    world.vm(1, start(&spec, true)).await;
    world.await_domain(1, &spec.uuid, Some(DomainState::RUNNING)).await;
    libvirt.destroy(&domain, DestroyFlags::none()).await.unwrap();
    world.await_news(1, &spec.uuid, PowerState::Off, PowerReason::Unspecified).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_finds_its_containers_again() {
    let Some(mut world) = World::start("a_killed_agent_finds_its_containers_again", 1).await else { return };
    let (spec, mut gone) = (world.spec().await, world.spec().await);
    world.running(1, &spec, 1).await;
    world.running(1, &gone, 1).await;
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    world.kill_agent(0).await;
    // While nobody looks one of them ends.
    let libvirt = world.libvirt(1).await;
    let (other, _) = world.domain(1, &gone.uuid).await.unwrap();
    libvirt.destroy(&other, DestroyFlags::none()).await.unwrap();
    assert!(world.is_looped(&gone), "nobody was there to unmount it");
    world.start_agent(0).await;
    let report = world.inventory(1).await;
    let known: Vec<(&str, PowerState)> = report.vms.iter().map(|vm| (vm.uuid.as_str(), vm.power())).collect();
    assert_eq!(known, [(spec.uuid.as_str(), PowerState::On)]);
    assert_eq!(world.domain(1, &spec.uuid).await.unwrap(), (domain.clone(), DomainState::RUNNING));
    assert_eq!(world.inside(1, &spec, "wc -l </boots").await.trim(), "1", "it went on");
    // What isn't there isn't claimed or mounted for long, and the same start is still the same run.
    testkit::wait_until(|| async { world.claims(&gone.uuid).contains(&"1.free".to_owned()) }, 60 * SECOND).await;
    world.assert_gone(1, &gone).await;
    world.vm(1, start(&spec, true)).await;
    assert_eq!(world.domain(1, &spec.uuid).await.unwrap().0.id, domain.id);
    gone.generation = 2;
    world.running(1, &gone, 2).await;
    world.vm(1, stop(&gone, true)).await;
    world.vm(1, stop(&spec, false)).await;
    world.assert_gone(1, &spec).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_was_cut_off_anywhere_is_completed_or_undone() {
    let test = "a_start_that_was_cut_off_anywhere_is_completed_or_undone (LXC)";
    let Some(mut world) = World::start(test, 1).await else { return };
    for wait in [0, 30, 80, 150, 300, 800] {
        let spec = world.spec().await;
        let (order, body) = (world.replica.hub.clone(), start(&spec, true));
        let given = tokio::spawn(async move {
            let command = contract_agent::Command { body: Some(body) };
            order.execute(model::HostId(1), None, false, command, 60 * SECOND).await
        });
        let _ = tokio::time::timeout(std::time::Duration::from_millis(wait), std::future::pending::<()>()).await;
        world.kill_agent(0).await;
        let _ = given.await;
        world.start_agent(0).await;
        if wait % 100 != 0 || wait == 0 {
            // The job's worker asks again.
            world.running(1, &spec, 1).await;
            assert_eq!(world.helpers(&spec).len(), 1);
        }
        // Or takes it back.
        world.vm(1, stop(&spec, true)).await;
        world.assert_gone(1, &spec).await;
        let free = || async {
            let claims = world.claims(&spec.uuid);
            claims.is_empty() || claims.contains(&"1.free".to_owned())
        };
        testkit::wait_until(free, 60 * SECOND).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_orders_are_refused_and_leave_nothing() {
    let Some(world) = World::start("bad_orders_are_refused_and_leave_nothing (LXC)", 1).await else { return };
    let spec = world.spec().await;
    let mut bad = spec.clone();
    bad.disks.clear();
    assert_eq!(world.execute(1, start(&bad, true)).await.unwrap_err().code, 431);
    let mut bad = spec.clone();
    bad.disks.push(VmDisk {
        device_id: 1,
        root: false,
        volume_uuid: uuid::Uuid::new_v4().to_string(),
        ..spec.disks[0].clone()
    });
    assert_eq!(world.execute(1, start(&bad, true)).await.unwrap_err().code, 431);
    // No file system: the kernel refuses, and the lease is given back.
    let image = world.pool_dir().join(&spec.disks[0].path);
    let good = std::fs::read(&image).unwrap();
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let refused = world.execute(1, start(&spec, true)).await.unwrap_err();
    assert!(refused.full_text().contains("mount"), "{refused}");
    testkit::wait_until(|| async { world.claims(&spec.uuid) == ["1", "1.free"] }, 60 * SECOND).await;
    world.assert_gone(1, &spec).await;
    // No process 1: it ends as soon as it runs.
    std::fs::write(&image, good).unwrap();
    world.running(1, &spec, 1).await;
    world.inside(1, &spec, "mv /bin/init /bin/init.aside").await;
    world.vm(1, stop(&spec, true)).await;
    let mut spec = spec;
    spec.generation = 2;
    let refused = world.execute(1, start(&spec, true)).await;
    if let Ok(outcome) = &refused {
        // libvirt told too late: then it is news.
        eprintln!("{outcome:?}");
    }
    world.await_domain(1, &spec.uuid, None).await;
    testkit::wait_until(|| async { world.claims(&spec.uuid).contains(&"2.free".to_owned()) }, 60 * SECOND).await;
    world.assert_gone(1, &spec).await;
    assert!(world.inventory(1).await.vms.is_empty());
    world.end().await;
}
