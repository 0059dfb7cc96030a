//! The spine on real parts: guests boot on a real hypervisor, get their addresses from our router, are reached from outside, and outlive
//! their hosts; all of it through the query API. A host is a libvirtd with QEMU and `arcus agent`, in namespaces of their own.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/browser.rs"]
mod chromium;
mod console;
mod containers;
mod control;
mod death;
mod guests;
mod kills;
mod machine;
mod migrate;
mod network;
mod snapshots;
mod stores;
mod timings;
mod traffic;
mod volumes;
mod watch;
mod world;
mod zone;

use std::time::Instant;
use world::World;

/// Tells the time of each step.
struct Clock(&'static str, Instant);

impl Clock {
    fn done(&self, what: &str) {
        eprintln!("host test: {} {:6.1} s: {what}", self.0, self.1.elapsed().as_secs_f64());
    }
}

// covers: TPL-029, VM-287
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_lives_on_a_real_host() {
    let Some(mut world) = World::new("a_guest_lives_on_a_real_host").await else { return };
    let clock = Clock("life", Instant::now());
    zone::infrastructure(&mut world).await;
    zone::host(&world, &world.machines[0]).await;
    let mut before = world.remains();
    clock.done("the host is up");
    zone::pool(&world).await;
    zone::folder_store(&world).await;
    zone::offerings(&mut world).await;
    zone::templates(&mut world).await;
    clock.done("the template is ready, bad ones are refused");

    guests::network(&mut world).await;
    let first = guests::first(&world).await;
    clock.done("the first guest has what it was given");
    let (_, ip) = traffic::forwarding(&world, &first).await;
    assert_eq!(traffic::log_in(&world, &ip), "first");
    clock.done("it is reached as the rules say");
    let guest = traffic::shell(&world, &ip).await;
    let begun = Instant::now();
    let (second, _) = world.deploy("second", &[]).await;
    // While the second boots.
    tokio::join!(timings::follow(&world, "second", &second, begun), async {
        traffic::egress(&world, &guest).await;
        traffic::static_nat(&world, &first).await;
    });
    clock.done("so are others by it");
    traffic::balancing(&world, [(&first, "first"), (&second, "second")]).await;
    clock.done("two share an address");
    console::shown(&world, &first, &guest, &second).await;
    clock.done("a browser shows its screen");
    volumes::hot(&world, &first, &guest).await;
    clock.done("disks come, go and grow");
    let (marked, third) = snapshots::root(&world, &first, &guest).await;
    clock.done("another is made of what it had");
    snapshots::outlived(&world, &marked, &third).await;
    guests::destroyed(&world, &third).await;
    snapshots::data(&world, &first, &guest, &world.folder("secondary")).await;
    clock.done("what it wrote comes back from snapshots");
    guests::life(&world, &first).await;
    clock.done("it stops, starts and reboots");
    kills::deploying(&mut world).await;
    kills::working(&mut world, &second, &guest).await;
    clock.done("the agent may die while it works");
    world.add_machine().await;
    let other = zone::host(&world, &world.machines[1]).await;
    before.push(world.machines[1].remains());
    guests::elsewhere(&world, &first, &other, &format!("{ip}:1007")).await;
    clock.done("it starts on another host");
    let memory = world.host().agent_memory();
    guests::end(&world, &[&first, &second], &before).await;
    snapshots::forget(&world, world.id("template"), &world.folder("secondary")).await;
    clock.done("nothing stays");
    eprintln!("host test: the agent has {memory} KiB of memory");
}

// covers: VM-158
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_outlive_their_hosts() {
    let Some(mut world) = World::new("guests_outlive_their_hosts").await else { return };
    let clock = Clock("death", Instant::now());
    death::hurry(&world).await;
    world.add_machine().await;
    zone::infrastructure(&mut world).await;
    let mut hosts = Vec::new();
    for machine in &world.machines {
        hosts.push(zone::host(&world, machine).await);
    }
    let before = world.remains();
    zone::pool(&world).await;
    zone::offerings(&mut world).await;
    let bucket = stores::Bucket::add(&world).await;
    bucket.template(&mut world).await;
    bucket.downloaded(&world).await;
    clock.done("two hosts are up, and a template is in a bucket");
    guests::network(&mut world).await;
    let pair = death::Pair::deploy(&world, &hosts).await;
    clock.done("two guests are up");
    volumes::offerings(&world).await;
    let guest = traffic::shell(&world, pair.address()).await;
    snapshots::data(&world, &pair.kept, &guest, &bucket.folder).await;
    clock.done("what one wrote comes back from the bucket");
    death::shut_down(&world, &pair, &guest).await;
    clock.done("a guest that shut itself down is back");
    death::without_agent(&mut world, &hosts, &pair).await;
    clock.done("nothing starts twice when an agent is away");
    death::rebooted(&mut world, &hosts, &pair).await;
    clock.done("a host is rebooted");
    death::dead(&mut world, &hosts, &pair, &before).await;
    clock.done("a host died");
    guests::end(&world, &[&pair.kept, &pair.plain], &before).await;
    snapshots::forget(&world, world.id("template"), &bucket.folder).await;
    clock.done("nothing stays");
}

// covers: TOPO-047, VM-244
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_moves_while_it_runs() {
    let Some(mut world) = World::new("a_guest_moves_while_it_runs").await else { return };
    let clock = Clock("move", Instant::now());
    world.add_machine().await;
    zone::infrastructure(&mut world).await;
    let mut hosts = Vec::new();
    for machine in &world.machines {
        hosts.push(zone::host(&world, machine).await);
    }
    let before = world.remains();
    zone::pool(&world).await;
    zone::folder_store(&world).await;
    zone::offerings(&mut world).await;
    zone::good_template(&mut world).await;
    guests::network(&mut world).await;
    let (vm, _) = world.deploy("moving", &[("hostid", &hosts[0])]).await;
    world.booted(&vm, 1).await;
    clock.done("a guest is up");
    let held = migrate::there_and_back(&world, &hosts, &vm).await;
    clock.done("it has moved there and back");
    migrate::killed(&mut world, &hosts, &vm, &held).await;
    held.end().await;
    clock.done("agents died while it moved");
    guests::end(&world, &[&vm], &before).await;
    clock.done("nothing stays");
}
