//! NICs of running guests.

use crate::networks::{Namespace, run};
use crate::world::{DEAF, SECTOR, World, stop};
use contract_agent::{PlugNic, UnplugNic, VmNic, VmSpec, command};
use libvirt::XmlFlags;
use testkit::Libvirtd;

fn nic(n: u8) -> VmNic {
    VmNic {
        uuid: format!("6b1f4a0e-0000-4000-8000-0000000000a{n}"),
        device_id: n.into(),
        mac: format!("02:00:4c:00:00:0{n}"),
        broadcast_uri: "vlan://untagged".into(),
        default_nic: n == 0,
        ..VmNic::default()
    }
}

fn plug(spec: &VmSpec, nic: &VmNic, generation: i64) -> command::Body {
    command::Body::PlugNic(PlugNic { vm_uuid: spec.uuid.clone(), nic: Some(nic.clone()), generation })
}

fn unplug(spec: &VmSpec, nic: &VmNic, generation: i64) -> command::Body {
    command::Body::UnplugNic(UnplugNic {
        vm_uuid: spec.uuid.clone(),
        nic_uuid: nic.uuid.clone(),
        generation,
        broadcast_uri: nic.broadcast_uri.clone(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nics_come_and_go_while_the_guest_runs() {
    let test = "nics_come_and_go_while_the_guest_runs";
    if !Libvirtd::available(test) {
        return;
    }
    let namespace = Namespace::new("plug");
    let Some(mut world) = World::start_in(test, &namespace.0).await else { return };
    let mut spec = world.spec(SECTOR).await;
    spec.nics.push(nic(0));
    let (more, generation) = (nic(1), spec.generation);
    assert!(world.execute(1, plug(&spec, &more, generation)).await.is_err(), "it doesn't run yet");
    world.execute(1, unplug(&spec, &more, generation)).await.unwrap();
    world.running(1, &spec).await;
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    let xml = || async { world.libvirt(1).await.xml(&domain, XmlFlags::none()).await.unwrap() };
    let ports = || run(&["-n", &namespace.0, "-o", "link", "show", "master", "cloudbr0"]).lines().count();
    for _ in 0..2 {
        world.execute(1, plug(&spec, &more, generation)).await.unwrap();
        let now = xml().await;
        assert_eq!((now.matches("<interface ").count(), ports()), (2, 2), "{now}");
        assert!(now.contains(&more.mac) && now.contains(&format!("ua-{}", more.uuid)), "{now}");
        assert_eq!(now.matches("<arcus:nic ").count(), 2, "both are noted: {now}");
    }
    assert!(world.execute(1, plug(&spec, &nic(2), generation + 1)).await.is_err(), "another run of it");
    world.execute(1, unplug(&spec, &more, generation + 1)).await.unwrap();
    assert_eq!(ports(), 2, "an order for another run does nothing");

    // An agent that comes back knows it.
    world.kill_agent(0).await;
    world.start_agent(0).await;
    for _ in 0..2 {
        world.execute(1, unplug(&spec, &more, generation)).await.unwrap();
        let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
        let now = world.libvirt(1).await.xml(&domain, XmlFlags::none()).await.unwrap();
        assert!(now.matches("<interface ").count() == 1 && !now.contains(&more.uuid), "{now}");
        assert_eq!((now.matches("<arcus:nic ").count(), ports()), (1, 1), "{now}");
    }
    world.execute(1, plug(&spec, &more, generation)).await.unwrap();
    world.vm(1, stop(&spec, true)).await;
    assert_eq!(ports(), 0, "with the guest go all of them");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_keeps_a_nic_keeps_it() {
    let test = "a_guest_that_keeps_a_nic_keeps_it";
    if !Libvirtd::available(test) {
        return;
    }
    let namespace = Namespace::new("keep");
    let Some(world) = World::start_in(test, &namespace.0).await else { return };
    let spec = world.spec(DEAF).await;
    world.running(1, &spec).await;
    world.execute(1, plug(&spec, &nic(0), spec.generation)).await.unwrap();
    let order = unplug(&spec, &nic(0), spec.generation);
    let asked = tokio::time::timeout(crate::common::SECOND * 12, world.execute(1, order)).await;
    assert!(asked.is_err(), "it isn't answered before the guest had its time: {asked:?}");
    world.vm(1, stop(&spec, true)).await;
    world.end().await;
}
