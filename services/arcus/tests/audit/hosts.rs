//! Hosts that were tampered with behind the control plane's back are found out.

use crate::world::World;
use audit::{Auditor, GrpcReports, Outcome, Reports};
use contract_agent::PowerState;
use orchestrator::audit::HubReports;

const LOST: &str = "44444444-1111-4111-8111-111111111111";

async fn look(world: &World, reports: &dyn Reports) -> Outcome {
    Auditor::new(&world.node.db).ask(reports).at_rest().run().await.unwrap()
}

/// The checks that tell, each with the resource that it names.
async fn told(world: &World) -> Vec<(&'static str, String)> {
    let outcome = look(world, &HubReports(world.orchestrator.hub.clone())).await;
    assert_eq!((outcome.hosts, outcome.unanswered.as_slice()), (Some(2), [].as_slice()));
    outcome.violations.into_iter().map(|v| (v.check, v.resource)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hosts_run_is_compared_with_the_database() {
    let world = World::new().await;
    let hand = &world.simulator;
    assert_eq!(told(&world).await, vec![]);

    let vm = world.text("SELECT uuid FROM vms WHERE name = 't-first'").await;
    let own = world.text("SELECT h.uuid FROM vms v JOIN hosts h ON h.id = v.host_id WHERE v.name = 't-first'").await;
    let other = hand.hosts().into_iter().find(|h| *h != own).unwrap();
    let on = |host: &str, vm: &str| format!("host/{host}/vm/{vm}");

    // Twice; only elsewhere; unknown.
    assert!(hand.copy_vm(&vm, &other, &vm));
    assert_eq!(told(&world).await, vec![("host-vm-twice", on(&other, &vm))]);
    let by_grpc = look(&world, &GrpcReports::new(world.net.channel("orchestrator"))).await;
    assert_eq!(by_grpc.violations.first().map(|v| v.check), Some("host-vm-twice"), "the same over the orchestrator");
    assert!(hand.vanish_vm(&own, &vm));
    let gone = vec![("host-vm-elsewhere", on(&other, &vm)), ("host-vm-off", on(&own, &vm))];
    assert_eq!(told(&world).await, gone);
    assert!(hand.copy_vm(&vm, &own, &vm) && hand.vanish_vm(&other, &vm));
    assert_eq!(told(&world).await, vec![]);
    assert!(hand.copy_vm(&vm, &other, LOST));
    assert_eq!(told(&world).await, vec![("host-vm-unknown", on(&other, LOST))]);
    assert!(hand.vanish_vm(&other, LOST));

    // Powered on although it is off by the database.
    let off = world.text("SELECT uuid FROM vms WHERE name = 'off'").await;
    assert!(hand.copy_vm(&vm, &other, &off));
    assert_eq!(told(&world).await, vec![("host-vm-elsewhere", on(&other, &off))]);
    assert!(hand.vanish_vm(&other, &off));

    // Paused; another epoch.
    let generation = hand.vm(&vm).unwrap().spec.generation;
    assert!(hand.change_vm(&vm, PowerState::Paused, generation));
    assert_eq!(told(&world).await, vec![("host-vm-paused", on(&own, &vm))]);
    assert!(hand.change_vm(&vm, PowerState::On, generation + 5));
    assert_eq!(told(&world).await, vec![("host-vm-generation", on(&own, &vm))]);
    assert!(hand.change_vm(&vm, PowerState::On, generation));

    // Routers.
    let router = world.text("SELECT uuid FROM routers WHERE removed IS NULL").await;
    let at = hand.router(&router).unwrap().host;
    let on_router = |router: &str| format!("host/{at}/router/{router}");
    assert!(hand.vanish_router(&router, Some(LOST)));
    let changed = vec![("host-router-missing", on_router(&router)), ("host-router-unknown", on_router(LOST))];
    assert_eq!(told(&world).await, changed);
    assert!(hand.vanish_router(LOST, Some(&router)));
    assert!(hand.age_router(&router));
    assert_eq!(told(&world).await, vec![("host-router-generation", on_router(&router))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_on_pools_is_compared_with_the_volumes() {
    let world = World::new().await;
    let hand = &world.simulator;
    let sql = "SELECT o.uuid FROM volumes o JOIN vms v ON v.id = o.vm_id WHERE v.name = 'off' AND o.kind = 'ROOT'";
    let volume = world.text(sql).await;
    let pool = world.text("SELECT uuid FROM storage_pools").await;
    assert!(hand.vanish_disk(&volume, Some(LOST)));
    let found = [
        ("pool-disk-missing", format!("pool/{pool}/volume/{volume}")),
        ("pool-disk-unknown", format!("pool/{pool}/disk/{LOST}")),
    ];
    assert_eq!(told(&world).await, found);
    assert!(hand.vanish_disk(LOST, Some(&volume)));
    assert_eq!(told(&world).await, vec![]);
    assert!(hand.grow_disk(&volume));
    assert_eq!(told(&world).await, vec![("pool-disk-size", format!("pool/{pool}/volume/{volume}"))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_silent_is_no_violation() {
    let world = World::new().await;
    let host = world.simulator.hosts().remove(0);
    // It stays Up for a while, and doesn't answer.
    assert!(world.simulator.silence_host(&host, true));
    let outcome = look(&world, &HubReports(world.orchestrator.hub.clone())).await;
    assert!(!outcome.violations.iter().any(|v| v.check.starts_with("host-vm")), "{:?}", outcome.violations);
}
