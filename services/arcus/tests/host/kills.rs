//! The agent is killed while it works: what it was told is done once, or not at all.

use crate::control::Control;
use crate::traffic;
use crate::world::{Vm, World, text};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use testkit::guest::Guest;
use testkit::wait_until;

/// When the agent dies in the middle of a deployment.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// As soon as the VM is known to the control plane.
    Accepted,
    /// As soon as a new file lies on the pool.
    Disk,
    /// As soon as the first QEMU of it runs.
    Domain,
}

fn disks(world: &World) -> BTreeSet<String> {
    let entries = std::fs::read_dir(world.folder("primary")).unwrap().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

async fn known(world: &World, name: &str) -> Option<Value> {
    let listed = world.api.call("listVirtualMachines", &[("name", name), ("listall", "true")]).await.ok()?;
    listed.pointer("/virtualmachine/0").cloned()
}

/// A deployment in which the agent dies ends well, or is taken back; nothing is doubled, nothing stays.
pub async fn deploying(world: &mut World) {
    for (n, moment) in [Moment::Accepted, Moment::Disk, Moment::Domain].into_iter().enumerate() {
        let name = format!("killed{n}");
        let before = disks(world);
        let params: Vec<(String, String)> =
            world.deploy_params(&name).into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let (api, domains) = (world.control.api(), world.host().domains());
        let deploying = tokio::spawn(async move {
            let params: Vec<(&str, &str)> = params.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            api.run("deployVirtualMachine", &params).await
        });
        let come = || async {
            match moment {
                Moment::Accepted => known(world, &name).await.is_some(),
                Moment::Disk => disks(world) != before,
                Moment::Domain => world.host().domains().difference(&domains).next().is_some(),
            }
        };
        wait_until(come, Duration::from_secs(120)).await;
        world.machines[0].kill_agent().await;
        world.machines[0].start_agent();
        let ended = deploying.await.unwrap();
        let shown = known(world, &name).await.unwrap();
        let vm = Vm {
            id: text(&shown, "/id"),
            ip: shown.pointer("/nic/0/ipaddress").and_then(Value::as_str).unwrap_or_default().to_owned(),
            instance: text(&shown, "/instancename"),
        };
        match &ended {
            Ok(_) => {
                eprintln!("host test: killed when {moment:?}: it runs");
                assert_eq!((text(&shown, "/state").as_str(), world.host().copies(&vm.instance)), ("Running", 1));
                assert_eq!(disks(world).difference(&before).count(), 1, "one disk");
                world.booted(&vm, 1).await;
            }
            Err(error) => {
                eprintln!("host test: killed when {moment:?}: {error}");
                assert_eq!(text(&shown, "/state"), "Error");
                wait_until(|| async { world.host().copies(&vm.instance) == 0 }, Duration::from_secs(120)).await;
            }
        }
        world.run("destroyVirtualMachine", &[("id", &vm.id), ("expunge", "true")]).await;
        wait_until(|| async { disks(world) == before }, Duration::from_secs(120)).await;
        assert_eq!(world.host().copies(&vm.instance), 0);
        let states = world.api.call("listHosts", &[("type", "Routing")]).await.unwrap();
        assert_eq!(text(&states, "/host/0/state"), "Up");
    }
}

/// Calls a command, and kills the agent as soon as its job is at work; the job must end well with the agent that comes after.
async fn during(world: &mut World, command: &str, params: &[(&str, &str)]) -> Value {
    let (api, called) = (world.control.api(), command.to_owned());
    let owned: Vec<(String, String)> = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let working = tokio::spawn(async move {
        let params: Vec<(&str, &str)> = owned.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        api.run(&called, &params).await
    });
    let db = world.control.db().await;
    wait_until(|| async { working.is_finished() || Control::jobs(&db).await > 0 }, Duration::from_secs(120)).await;
    let early = !working.is_finished();
    world.machines[0].kill_agent().await;
    world.machines[0].start_agent();
    let ended = working.await.unwrap();
    eprintln!("host test: killed during {command}: {}", if early { "it was at work" } else { "it had ended" });
    ended.unwrap_or_else(|error| panic!("{command}: {error:#}"))
}

/// Whatever the agent is told to do while it dies, is done.
pub async fn working(world: &mut World, vm: &Vm, guest: &Guest) {
    let boots = world.boots(vm);
    let stopped = during(world, "stopVirtualMachine", &[("id", &vm.id)]).await;
    assert_eq!((text(&stopped, "/virtualmachine/state").as_str(), world.host().copies(&vm.instance)), ("Stopped", 0));
    let started = during(world, "startVirtualMachine", &[("id", &vm.id)]).await;
    assert_eq!((text(&started, "/virtualmachine/state").as_str(), world.host().copies(&vm.instance)), ("Running", 1));
    world.booted(vm, boots + 1).await;

    let (id, ip) = traffic::address(world).await;
    let params = [
        ("ipaddressid", id.as_str()),
        ("virtualmachineid", vm.id.as_str()),
        ("protocol", "tcp"),
        ("publicport", "7"),
        ("privateport", "7"),
        ("openfirewall", "false"),
    ];
    during(world, "createPortForwardingRule", &params).await;
    let params = [("ipaddressid", id.as_str()), ("protocol", "tcp"), ("startport", "7"), ("endport", "7")];
    let rule = text(&during(world, "createFirewallRule", &params).await, "/firewallrule/id");
    world.reached(&format!("{ip}:7")).await;
    during(world, "deleteFirewallRule", &[("id", &rule)]).await;
    assert!(!world.echoes(&format!("{ip}:7")).await);
    world.run("disassociateIpAddress", &[("id", &id)]).await;

    let before = guest.disks().await.len();
    let offering = world.first("listDiskOfferings", "diskoffering", &[("name", "one")]).await;
    let params = [("zoneid", world.id("zone")), ("diskofferingid", &text(&offering, "/id")), ("name", "killed")];
    let volume = text(&world.run("createVolume", &params).await, "/volume/id");
    let first = world.first("listVirtualMachines", "virtualmachine", &[("name", "first")]).await;
    during(world, "attachVolume", &[("id", &volume), ("virtualmachineid", &text(&first, "/id"))]).await;
    wait_until(|| async { guest.disks().await.len() == before + 1 }, Duration::from_secs(120)).await;
    during(world, "detachVolume", &[("id", &volume)]).await;
    wait_until(|| async { guest.disks().await.len() == before }, Duration::from_secs(120)).await;
    world.run("deleteVolume", &[("id", &volume)]).await;
}
