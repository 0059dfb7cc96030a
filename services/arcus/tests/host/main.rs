//! The spine on real parts: a guest boots on a real hypervisor, gets its address from our router, and is reached from outside; all
//! of it through the query API. The host is a libvirtd with QEMU and `arcus agent`, in namespaces of their own.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod control;
mod guests;
mod kills;
mod machine;
mod network;
mod traffic;
mod volumes;
mod world;
mod zone;

use std::time::Instant;
use world::World;

// covers: TPL-029
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_lives_on_a_real_host() {
    let Some(mut world) = World::new("a_guest_lives_on_a_real_host").await else { return };
    let begun = Instant::now();
    let done = |what: &str| eprintln!("host test: {:6.1} s: {what}", begun.elapsed().as_secs_f64());
    zone::infrastructure(&mut world).await;
    zone::host(&world).await;
    let mut before = world.remains();
    done("the host is up");
    zone::storage(&mut world).await;
    zone::templates(&mut world).await;
    done("the template is ready, bad ones are refused");

    guests::network(&mut world).await;
    let (first, took) = guests::first(&world).await;
    done(&format!(
        "the first guest has what it was given ({:.1} s from the deploy to its programs)",
        took.as_secs_f64()
    ));
    let (_, ip) = traffic::forwarding(&world, &first).await;
    assert_eq!(traffic::log_in(&world, &ip), "first");
    done("it is reached as the rules say");
    let guest = traffic::shell(&world, &ip).await;
    traffic::egress(&world, &guest).await;
    traffic::static_nat(&world, &first).await;
    done("so are others by it");
    let begun = Instant::now();
    let (second, _) = world.deploy("second", &[]).await;
    world.told(&second, "configured").await;
    eprintln!(
        "host test: a second guest of the same template is configured after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    traffic::balancing(&world, [(&first, "first"), (&second, "second")]).await;
    done("two share an address");
    volumes::hot(&world, &first, &guest).await;
    done("disks come, go and grow");
    guests::life(&world, &first).await;
    done("it stops, starts and reboots");
    kills::deploying(&mut world).await;
    kills::working(&mut world, &second, &guest).await;
    done("the agent may die while it works");
    world.add_machine().await;
    let other = zone::host(&world).await;
    before.push(world.machines[1].remains());
    guests::elsewhere(&world, &first, &other, &format!("{ip}:1007")).await;
    done("it starts on another host");
    let (memory, steps) = (world.host().agent_memory(), world.control.deploy_steps(&first.id).await);
    guests::end(&world, &[&first, &second], &before).await;
    done("nothing stays");
    eprintln!("host test: the first deployment in milliseconds since it was asked for: {steps:?}");
    eprintln!("host test: the agent has {memory} KiB of memory");
}
