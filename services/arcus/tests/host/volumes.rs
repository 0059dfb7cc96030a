//! Disks that come, go and grow while the guest runs.

use crate::world::{Vm, World, text};
use std::collections::BTreeMap;
use std::time::Duration;
use testkit::guest::Guest;
use testkit::{until_ok, wait_until};

const GIB: u64 = 1 << 30;

async fn disks(guest: &Guest) -> BTreeMap<String, u64> {
    guest.disks().await.into_iter().collect()
}

/// Attaches a volume to a running guest; gives the device that the guest finds.
pub async fn attach(world: &World, vm: &Vm, volume: &str, guest: &Guest) -> String {
    let before = disks(guest).await;
    world.run("attachVolume", &[("id", volume), ("virtualmachineid", &vm.id)]).await;
    let new = || async {
        let now = disks(guest).await;
        now.keys().find(|name| !before.contains_key(*name)).cloned().ok_or(format!("{now:?}"))
    };
    let name = until_ok(new, Duration::from_secs(120)).await;
    format!("/dev/{name}")
}

/// Detaches it from the running guest, which sees it go.
pub async fn detach(world: &World, volume: &str, device: &str, guest: &Guest) {
    world.run("detachVolume", &[("id", volume)]).await;
    let name = device.trim_start_matches("/dev/");
    wait_until(|| async { !disks(guest).await.contains_key(name) }, Duration::from_secs(120)).await;
}

/// Disk offerings of one and of two GiB.
pub async fn offerings(world: &World) -> Vec<String> {
    let mut offerings = Vec::new();
    for (name, size) in [("one", "1"), ("two", "2")] {
        let params = [("name", name), ("displaytext", name), ("disksize", size)];
        offerings.push(text(&world.run("createDiskOffering", &params).await, "/diskoffering/id"));
    }
    offerings
}

/// A volume that keeps what the guest wrote, wherever it is plugged in.
// covers: STO-041
pub async fn hot(world: &World, vm: &Vm, guest: &Guest) {
    let offerings = offerings(world).await;
    let params = [("zoneid", world.id("zone")), ("diskofferingid", &offerings[0]), ("name", "data")];
    let volume = text(&world.run("createVolume", &params).await, "/volume/id");
    let device = attach(world, vm, &volume, guest).await;
    let name = device.trim_start_matches("/dev/").to_owned();
    assert_eq!(disks(guest).await[&name], GIB);
    let sum = guest.write_disk(&device, 16, "seed").await;
    detach(world, &volume, &device, guest).await;
    let device = attach(world, vm, &volume, guest).await;
    assert_eq!(guest.disk_sum(&device, 16).await, sum, "what was written is there");
    world.run("resizeVolume", &[("id", &volume), ("diskofferingid", &offerings[1])]).await;
    let name = device.trim_start_matches("/dev/").to_owned();
    wait_until(|| async { disks(guest).await[&name] == 2 * GIB }, Duration::from_secs(120)).await;
    assert_eq!(guest.disk_sum(&device, 16).await, sum);
    detach(world, &volume, &device, guest).await;
    world.run("deleteVolume", &[("id", &volume)]).await;
}
