//! Guests from their first boot to their end, and what they are told.

use crate::world::{Vm, World, text};
use base64::Engine as _;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};
use store::Sql;
use testkit::{until_ok, wait_until};

const SCRIPT: &str = "#!/bin/sh\necho it ran > /www/userdata\n";

fn sha256(bytes: &[u8]) -> String {
    use std::io::Write as _;
    let mut child = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    String::from_utf8_lossy(&output).split(' ').next().unwrap().to_owned()
}

/// Makes the network `net`.
pub async fn network(world: &mut World) {
    let name = [("name", "DefaultIsolatedNetworkOfferingWithSourceNatService")];
    let offering = world.first("listNetworkOfferings", "networkoffering", &name).await;
    let params = [
        ("zoneid", world.id("zone")),
        ("name", "net"),
        ("displaytext", "net"),
        ("networkofferingid", &text(&offering, "/id")),
    ];
    let net = text(&world.run("createNetwork", &params).await, "/network/id");
    world.ids.insert("net", net);
}

/// A first guest, with all that a user can give it.
// covers: NET-007, TPL-055, VM-278, VM-284, VM-286, VM-289, VM-290, VM-292, VM-293
pub async fn first(world: &World) -> Vm {
    let pair = world.run("createSSHKeyPair", &[("name", "key")]).await;
    let private = text(&pair, "/keypair/privatekey");
    assert!(private.contains("PRIVATE KEY"));
    std::fs::write(world.folder("key"), private).unwrap();
    let user_data = base64::engine::general_purpose::STANDARD.encode(SCRIPT);
    let mut refused = world.deploy_params("first");
    refused.push(("userdata", "not base64!"));
    assert_eq!(world.api.once("deployVirtualMachine", &refused).await.unwrap().status(), 431);
    let begun = Instant::now();
    let (vm, shown) = world.deploy("first", &[("userdata", &user_data), ("keypair", "key")]).await;
    let password = text(&shown, "/password");
    crate::timings::follow(world, "first", &vm, begun).await;
    let ready = world.told(&vm, "ready").await;
    assert_eq!((ready["ip"].as_str(), ready["hostname"].as_str()), (vm.ip.as_str(), "first"));
    let lease = world.told(&vm, "lease").await;
    let nic = &shown["nic"][0];
    let net = world.first("listNetworks", "network", &[("id", world.id("net"))]).await;
    let wanted = [
        ("ip", format!("{}/24", vm.ip)),
        ("mac", text(nic, "/macaddress")),
        ("router", text(nic, "/gateway")),
        ("server", text(nic, "/gateway")),
        ("dns", text(nic, "/gateway")),
        ("hostname", "first".to_owned()),
        ("domain", text(&net, "/networkdomain")),
    ];
    for (key, value) in wanted {
        assert_eq!(lease[key], value, "{key} of {lease:?}");
    }
    let told = world.told(&vm, "userdata-sha256").await;
    assert_eq!(told["userdata-sha256"], sha256(SCRIPT.as_bytes()));
    assert_eq!(world.told(&vm, "userdata-exit").await["userdata-exit"], "0");
    assert_eq!(world.told(&vm, "ssh-keys").await["ssh-keys"], "1");
    assert_eq!(world.told(&vm, "password-set").await["sha256"], sha256(password.as_bytes()));
    let meta = [
        ("instance-id", vm.id.as_str()),
        ("vm-id", &vm.id),
        ("local-ipv4", &vm.ip),
        ("local-hostname", "first"),
        ("service-offering", "tiny"),
        ("availability-zone", "host"),
        ("public-keys", "ssh-rsa"),
    ];
    for (key, value) in meta {
        assert_eq!(world.told(&vm, &format!("meta {key}")).await[key], value);
    }
    assert!(world.told(&vm, "meta cloud-identifier").await["cloud-identifier"].starts_with("CloudStack-{"));
    // Nobody but who deployed it is told the password, and nobody keeps it in the clear.
    let listed = world.first("listVirtualMachines", "virtualmachine", &[("id", &vm.id)]).await;
    assert!(listed.get("password").is_none(), "{listed}");
    vm
}

/// Stopped by its power button and by force, started, rebooted: each time it is what it was.
pub async fn life(world: &World, vm: &Vm) {
    let stopping = || world.host().console(&vm.instance).matches("GUEST stopping").count();
    let boots = world.boots(vm);
    let stopped = world.run("stopVirtualMachine", &[("id", &vm.id)]).await;
    assert_eq!(text(&stopped, "/virtualmachine/state"), "Stopped");
    assert_eq!(stopping(), 1, "it was asked");
    assert!(!world.host().remains().iter().any(|r| r == &format!("run/libvirt/qemu/{}.xml", vm.instance)));
    let started = world.run("startVirtualMachine", &[("id", &vm.id)]).await;
    assert_eq!(text(&started, "/virtualmachine/state"), "Running");
    assert_eq!(text(&started, "/virtualmachine/nic/0/ipaddress"), vm.ip);
    world.booted(vm, boots + 1).await;
    world.run("rebootVirtualMachine", &[("id", &vm.id)]).await;
    world.booted(vm, boots + 2).await;
    assert_eq!(stopping(), 2, "it was asked to reboot");
    world.run("stopVirtualMachine", &[("id", &vm.id), ("forced", "true")]).await;
    assert_eq!(stopping(), 2, "its power was cut");
    world.run("startVirtualMachine", &[("id", &vm.id)]).await;
    world.booted(vm, boots + 3).await;
    // What its disk keeps: it had its password at the first boot, and isn't given it again.
    assert_eq!(passwords(world, vm), 1);
    // Nor by a router that is made anew and knows nothing.
    password_noted(world, vm).await;
    world.run("restartNetwork", &[("id", world.id("net")), ("cleanup", "true")]).await;
    world.run("rebootVirtualMachine", &[("id", &vm.id)]).await;
    world.booted(vm, boots + 4).await;
    assert_eq!(passwords(world, vm), 1);
    // One that is reset is another.
    world.run("stopVirtualMachine", &[("id", &vm.id), ("forced", "true")]).await;
    world.run("resetPasswordForVirtualMachine", &[("id", &vm.id)]).await;
    world.run("startVirtualMachine", &[("id", &vm.id)]).await;
    world.booted(vm, boots + 5).await;
    assert_eq!(passwords(world, vm), 2);
}

/// How many passwords a guest has taken.
pub fn passwords(world: &World, vm: &Vm) -> usize {
    world.machines.iter().map(|m| m.console(&vm.instance).matches("GUEST password-set ").count()).sum()
}

/// Waits until the books know that a guest took its password.
pub async fn password_noted(world: &World, vm: &Vm) {
    let db = world.control.db().await;
    let known = || async {
        let sql = Sql::new("SELECT password_taken FROM vms WHERE uuid = ?").bind(&vm.id);
        db.one(sql).await.unwrap().at::<Option<String>>(0).unwrap().is_some()
    };
    wait_until(known, Duration::from_secs(120)).await;
}

/// Stopped here and started on the other host: the same disk, the same address, reached through the router on the first.
pub async fn elsewhere(world: &World, vm: &Vm, host: &str, echo: &str) {
    let boots = world.boots(vm);
    world.run("stopVirtualMachine", &[("id", &vm.id)]).await;
    let started = world.run("startVirtualMachine", &[("id", &vm.id), ("hostid", host)]).await;
    assert_eq!(text(&started, "/virtualmachine/hostid"), host);
    assert_eq!(text(&started, "/virtualmachine/nic/0/ipaddress"), vm.ip);
    world.booted(vm, boots + 1).await;
    let copies: Vec<usize> = world.machines.iter().map(|m| m.copies(&vm.instance)).collect();
    assert_eq!(copies, [0, 1]);
    world.reached(echo).await;
}

/// A running guest that is destroyed has its power cut, and is Destroyed until it is expunged.
// covers: VM-253
pub async fn destroyed(world: &World, vm: &Vm) {
    world.run("destroyVirtualMachine", &[("id", &vm.id)]).await;
    assert_eq!((world.state(vm).await.as_str(), world.host().copies(&vm.instance)), ("Destroyed", 0));
    assert!(!world.host().console(&vm.instance).contains("GUEST stopping"), "it isn't asked");
    world.run("expungeVirtualMachine", &[("id", &vm.id)]).await;
    assert_eq!(world.state(vm).await, "none");
}

/// Everything goes: nothing of guests or routers stays on the hosts.
pub async fn end(world: &World, vms: &[&Vm], before: &[Vec<String>]) {
    for vm in vms {
        world.run("destroyVirtualMachine", &[("id", &vm.id), ("expunge", "true")]).await;
        assert_eq!(world.state(vm).await, "none");
    }
    world.run("deleteNetwork", &[("id", world.id("net"))]).await;
    let clean = || async {
        let left = world.remains();
        if left == before { Ok(()) } else { Err(format!("there is {left:#?}\n--- there was {before:#?}")) }
    };
    until_ok(clean, Duration::from_secs(120)).await;
    let disks = std::fs::read_dir(world.folder("primary")).unwrap().flatten();
    let disks: Vec<String> = disks.map(|d| d.file_name().to_string_lossy().into_owned()).collect();
    assert!(disks.iter().all(|name| name.starts_with("template-") || name == ".arcus"), "{disks:?}");
    // What a killed agent was writing lies aside, hidden, and goes later.
    let notes = std::fs::read_dir(world.folder("primary").join(".arcus/disks")).unwrap().flatten();
    let notes = notes.map(|n| n.file_name().to_string_lossy().into_owned());
    let notes: Vec<String> = notes.filter(|name| !name.starts_with('.')).collect();
    assert!(notes.is_empty(), "notes of volumes: {notes:?}");
    for vm in vms {
        let leases = world.folder("primary").join(".arcus/leases/leases").join(&vm.id);
        let gone = || async {
            let claims = std::fs::read_dir(&leases).into_iter().flatten().flatten();
            let claims: BTreeSet<String> = claims.map(|c| c.file_name().to_string_lossy().into_owned()).collect();
            if leases.exists() { Err(format!("leases of {}: {claims:?}", vm.instance)) } else { Ok(()) }
        };
        until_ok(gone, Duration::from_secs(120)).await;
    }
    world.control.settle().await;
    world.control.audit().await;
}
