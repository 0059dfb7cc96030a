//! Guests from their first boot to their end, and what they are told.

use crate::world::{Vm, World, text};
use base64::Engine as _;
use std::process::Command;
use std::time::{Duration, Instant};

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

/// A first guest, with all that a user can give it; gives how long it took until the guest ran programs.
pub async fn first(world: &World) -> (Vm, Duration) {
    let pair = world.run("createSSHKeyPair", &[("name", "key")]).await;
    let private = text(&pair, "/keypair/privatekey");
    assert!(private.contains("PRIVATE KEY"));
    std::fs::write(world.folder("key"), private).unwrap();
    let user_data = base64::engine::general_purpose::STANDARD.encode(SCRIPT);
    let begun = Instant::now();
    let (vm, shown) = world.deploy("first", &[("userdata", &user_data), ("keypair", "key")]).await;
    let running = begun.elapsed();
    let password = text(&shown, "/password");
    let ready = world.told(&vm, "ready").await;
    let took = begun.elapsed();
    assert_eq!((ready["ip"].as_str(), ready["hostname"].as_str()), (vm.ip.as_str(), "first"));
    eprintln!(
        "host test: Running after {:.1} s, the guest's own clock: init at {} s, address at {} s",
        running.as_secs_f64(),
        world.told(&vm, "up").await["seconds"],
        ready["seconds"]
    );
    world.told(&vm, "configured").await;
    let lease = world.told(&vm, "lease").await;
    assert_eq!((lease["router"].as_str(), lease["server"].as_str()), ("10.1.1.1", "10.1.1.1"), "{lease:?}");
    let told = world.told(&vm, "userdata-sha256").await;
    assert_eq!(told["userdata-sha256"], sha256(SCRIPT.as_bytes()));
    assert_eq!(world.told(&vm, "userdata-exit").await["userdata-exit"], "0");
    assert_eq!(world.told(&vm, "ssh-keys").await["ssh-keys"], "1");
    assert_eq!(world.told(&vm, "password-set").await["sha256"], sha256(password.as_bytes()));
    assert_eq!(world.told(&vm, "meta instance-id").await["instance-id"], vm.id);
    // Nobody but who deployed it is told the password, and nobody keeps it in the clear.
    let listed = world.first("listVirtualMachines", "virtualmachine", &[("id", &vm.id)]).await;
    assert!(listed.get("password").is_none(), "{listed}");
    (vm, took)
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
    let passwords = world.host().console(&vm.instance).matches("GUEST password-set ").count();
    assert_eq!(passwords, 1);
}

/// Stopped here and started on the other host: the same disk, the same address, reached by the same router.
pub async fn elsewhere(world: &World, vm: &Vm, host: &str, echo: &str) {
    let boots = world.boots(vm);
    world.run("stopVirtualMachine", &[("id", &vm.id)]).await;
    let started = world.run("startVirtualMachine", &[("id", &vm.id), ("hostid", host)]).await;
    assert_eq!(text(&started, "/virtualmachine/hostid"), host);
    assert_eq!(text(&started, "/virtualmachine/nic/0/ipaddress"), vm.ip);
    world.booted(vm, boots + 1).await;
    let copies: Vec<usize> = world.machines.iter().map(|m| m.copies(&vm.instance)).collect();
    assert_eq!(copies, [0, 1]);
    assert!(world.echoes(echo).await, "through the router on the first host");
}

/// Everything goes: nothing of guests or routers stays on the host.
pub async fn end(world: &World, vms: &[&Vm], before: &[Vec<String>]) {
    for vm in vms {
        world.run("destroyVirtualMachine", &[("id", &vm.id), ("expunge", "true")]).await;
        assert_eq!(world.state(vm).await, "none");
    }
    world.run("deleteNetwork", &[("id", world.id("net"))]).await;
    let begun = Instant::now();
    while world.remains() != before {
        let left = world.remains();
        assert!(begun.elapsed() < Duration::from_secs(60), "there is {left:#?}\n--- there was {before:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let disks = std::fs::read_dir(world.folder("primary")).unwrap().flatten();
    let disks: Vec<String> = disks.map(|d| d.file_name().to_string_lossy().into_owned()).collect();
    assert!(disks.iter().all(|name| name.starts_with("template-") || name == ".arcus"), "{disks:?}");
    // What a killed agent was writing lies aside, hidden, and goes later.
    let notes = std::fs::read_dir(world.folder("primary").join(".arcus/disks")).unwrap().flatten();
    let notes = notes.map(|n| n.file_name().to_string_lossy().into_owned());
    let notes: Vec<String> = notes.filter(|name| !name.starts_with('.')).collect();
    assert!(notes.is_empty(), "notes of volumes: {notes:?}");
    world.control.settle().await;
    world.control.audit().await;
}
