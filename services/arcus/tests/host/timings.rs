//! How long what takes, from the request to the guest's last program.

use crate::world::{Vm, World};
use std::collections::BTreeMap;
use std::time::Instant;

/// Waits until a guest that was asked for at `begun` is configured, and prints where the time went.
pub async fn follow(world: &World, name: &str, vm: &Vm, begun: Instant) {
    let of_guest = async |what: &str| {
        let told: BTreeMap<String, String> = world.told(vm, what).await;
        (begun.elapsed().as_secs_f64(), told["seconds"].parse::<f64>().unwrap())
    };
    // By its own clock, which begins with its kernel.
    let (seen, init) = of_guest("up").await;
    let (_, address) = of_guest("ready").await;
    let (all, configured) = of_guest("configured").await;
    let steps = world.control.deploy_steps(&vm.id).await;
    let running = steps.iter().find(|(step, _)| step == "ended").unwrap().1 as f64 / 1000.0;
    let steps: Vec<String> = steps.iter().map(|(step, at)| format!("{step} {at}")).collect();
    eprintln!(
        "host test: timings {name}: job {running:.1} s (in ms: {}); from Running to its kernel {:.1} s; kernel to init {init:.1} s; modules, disks and \
         DHCP {:.1} s; metadata, keys, user-data, password {:.1} s; in all {all:.1} s",
        steps.join(", "),
        (seen - init - running).max(0.0),
        address - init,
        configured - address,
    );
}
