//! Snapshots of what a guest wrote, and what is made of them: the same bytes, told by checksums within guests.

use crate::volumes::{attach, detach};
use crate::world::{Vm, World, text};
use base64::Engine as _;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use testkit::guest::Guest;
use testkit::until_ok;

const MIB: u32 = 8;

/// Takes one; gives its id.
async fn take(world: &World, volume: &str) -> String {
    let made = world.run("createSnapshot", &[("volumeid", volume)]).await;
    assert_eq!(text(&made, "/snapshot/state"), "BackedUp", "{made}");
    assert_eq!(text(&made, "/snapshot/volumeid"), volume);
    text(&made, "/snapshot/id")
}

/// A volume made of a snapshot holds what the guest had written: `sum`.
async fn comes_back(world: &World, vm: &Vm, guest: &Guest, snapshot: &str, sum: &str) {
    let params = [("snapshotid", snapshot), ("name", "copy"), ("zoneid", world.id("zone"))];
    let made = world.run("createVolume", &params).await;
    assert_eq!(text(&made, "/volume/snapshotid"), snapshot);
    let copy = text(&made, "/volume/id");
    let device = attach(world, vm, &copy, guest).await;
    assert_eq!(guest.disk_sum(&device, MIB).await, sum);
    detach(world, &copy, &device, guest).await;
    world.run("deleteVolume", &[("id", &copy)]).await;
    world.run("deleteSnapshot", &[("id", snapshot)]).await;
    let left = world.api.call("listSnapshots", &[("id", snapshot)]).await.unwrap();
    assert!(left.pointer("/snapshot/0").is_none(), "{left}");
}

fn files(folder: &Path) -> BTreeSet<String> {
    let out = std::process::Command::new("find").arg(folder).args(["-type", "f"]).output().unwrap();
    let names = String::from_utf8_lossy(&out.stdout).into_owned();
    names.lines().filter(|name| !name.contains("/.arcus/")).map(str::to_owned).collect()
}

/// A data volume is snapshot while the guest has it, and when nobody has. `store` is where the secondary store's files lie.
// covers: STO-144
pub async fn data(world: &World, vm: &Vm, guest: &Guest, store: &Path) {
    let offering = world.first("listDiskOfferings", "diskoffering", &[("name", "one")]).await;
    let params = [("zoneid", world.id("zone")), ("diskofferingid", &text(&offering, "/id")), ("name", "seen twice")];
    let volume = text(&world.run("createVolume", &params).await, "/volume/id");
    let device = attach(world, vm, &volume, guest).await;
    let first = guest.write_disk(&device, MIB, "first").await;
    let (pool, stored) = (files(&world.folder("primary")), files(store));
    let running = take(world, &volume).await;
    assert_eq!(files(&world.folder("primary")), pool, "nothing stays beside the volume");
    assert_eq!(files(store).difference(&stored).count(), 1, "it is in the store");
    let second = guest.write_disk(&device, MIB, "second").await;
    assert_ne!(first, second);
    detach(world, &volume, &device, guest).await;
    let resting = take(world, &volume).await;
    world.run("deleteVolume", &[("id", &volume)]).await;
    comes_back(world, vm, guest, &running, &first).await;
    comes_back(world, vm, guest, &resting, &second).await;
    let gone = || async {
        let left = files(store);
        if left == stored { Ok(()) } else { Err(format!("{left:?}, there was {stored:?}")) }
    };
    until_ok(gone, Duration::from_secs(180)).await;
}

/// What the first boot of a VM made of the template tells.
const SCRIPT: &str =
    "#!/bin/sh\n. /etc/guest/functions\nsay \"mark sum=$(sha256sum /persist/mark | cut -d ' ' -f 1)\"\n";

/// The root disk of a running guest becomes a template, and another VM of that has what the guest had written; gives both. A volume of that
/// snapshot is a data disk whose files can be read.
// covers: STO-145, STO-146, TPL-032
pub async fn root(world: &World, vm: &Vm, guest: &Guest) -> (String, Vm) {
    let boots = world.boots(vm);
    let write = "head -c 100000 /dev/urandom >/persist/mark\nsync\nsha256sum /persist/mark | cut -d ' ' -f 1";
    let sum = guest.run(write).await;
    let disk = world.first("listVolumes", "volume", &[("virtualmachineid", &vm.id), ("type", "ROOT")]).await;
    let snapshot = take(world, &text(&disk, "/id")).await;
    let os = world.first("listOsTypes", "ostype", &[("description", "Debian GNU/Linux 8 (64-bit)")]).await;
    let os = text(&os, "/id");
    let params = [("snapshotid", snapshot.as_str()), ("name", "mark"), ("displaytext", "mark"), ("ostypeid", &os)];
    let made = world.run("createTemplate", &params).await;
    assert_eq!(made.pointer("/template/isready"), Some(&true.into()), "{made}");
    let template = text(&made, "/template/id");
    let params = [("snapshotid", snapshot.as_str()), ("name", "old root"), ("zoneid", world.id("zone"))];
    let made = world.run("createVolume", &params).await;
    assert_eq!(text(&made, "/volume/type"), "DATADISK");
    let volume = text(&made, "/volume/id");
    let device = attach(world, vm, &volume, guest).await;
    let read = format!(
        "mkdir /run/old\nmount -t ext4 -o ro {device}2 /run/old\nsha256sum /run/old/mark | cut -d ' ' -f 1\numount /run/old"
    );
    assert_eq!(guest.run(&read).await, sum);
    detach(world, &volume, &device, guest).await;
    world.run("deleteVolume", &[("id", &volume)]).await;
    // What is made of a snapshot doesn't need it.
    world.run("deleteSnapshot", &[("id", &snapshot)]).await;
    let script = base64::engine::general_purpose::STANDARD.encode(SCRIPT);
    let (copy, _) = world.deploy("third", &[("templateid", &template), ("userdata", &script)]).await;
    assert_eq!(world.told(&copy, "mark").await["sum"], sum);
    assert_eq!((world.state(vm).await.as_str(), world.boots(vm)), ("Running", boots), "it ran throughout");
    (template, copy)
}

/// A template in use goes only by force; its VM lives on, and no other is made of it.
// covers: TPL-083, TPL-084
pub async fn outlived(world: &World, template: &str, vm: &Vm) {
    let refused = world.api.run("deleteTemplate", &[("id", template)]).await.unwrap_err().to_string();
    assert!(refused.contains("third") || refused.contains(&vm.id), "it names the VM: {refused}");
    world.run("deleteTemplate", &[("id", template), ("forced", "true")]).await;
    let mut params = world.deploy_params("fourth");
    params.iter_mut().filter(|(key, _)| *key == "templateid").for_each(|(_, value)| *value = template);
    assert_eq!(world.api.once("deployVirtualMachine", &params).await.unwrap().status(), 431);
    assert_eq!(world.state(vm).await, "Running");
    let boots = world.boots(vm);
    world.run("stopVirtualMachine", &[("id", &vm.id), ("forced", "true")]).await;
    world.run("startVirtualMachine", &[("id", &vm.id)]).await;
    world.booted(vm, boots + 1).await;
}

/// A template that no VM needs goes, with its image in the store. Its copy on the pool goes when nobody has needed that for a day.
pub async fn forget(world: &World, template: &str, store: &Path) {
    world.run("deleteTemplate", &[("id", template)]).await;
    let listed = world.api.call("listTemplates", &[("templatefilter", "self"), ("id", template)]).await.unwrap();
    assert!(listed.pointer("/template/0").is_none(), "{listed}");
    let empty = || async {
        let left = files(store);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    };
    until_ok(empty, Duration::from_secs(300)).await;
}
