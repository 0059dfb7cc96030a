//! A host whose guests are containers: from its agent to a web page in a container, through the query API.

use crate::world::{World, text};
use crate::{Clock, guests, zone};
use std::time::{Duration, Instant};
use testkit::{Process, until_ok, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);

/// Serves archives on the management network; gives where.
async fn server(world: &World) -> (Process, String) {
    let networks = world.network.management();
    let setting = [("name", "secstorage.allowed.internal.sites"), ("value", networks.as_str())];
    world.run("updateConfiguration", &setting).await;
    let folder = world.folder("images");
    std::fs::copy(testkit::container::archive().await, folder.join("root.tar")).unwrap();
    // GNU tar strips nothing when it is told not to.
    let hostile = folder.join("hostile.tar");
    let made = std::process::Command::new("tar").args(["-P", "-cf"]).arg(&hostile).arg("/etc/passwd").status().unwrap();
    let packed = std::process::Command::new("gzip").arg("-k").arg(folder.join("root.tar")).status().unwrap();
    assert!(made.success() && packed.success());
    let address = format!("{}:8080", world.network.control());
    let server = ["busybox", "httpd", "-f", "-p", &address, "-h", &folder.display().to_string()].map(str::to_owned);
    (Process::start(&server, &world.folder("images.log"), None), format!("http://{address}"))
}

async fn register(world: &World, name: &str, url: &str) -> String {
    let os = world.first("listOsTypes", "ostype", &[("description", "Debian GNU/Linux 8 (64-bit)")]).await;
    let params = [
        ("name", name),
        ("displaytext", name),
        ("format", "TAR"),
        ("hypervisor", "LXC"),
        ("ostypeid", &text(&os, "/id")),
        ("zoneid", world.id("zone")),
        ("url", url),
    ];
    text(&world.run("registerTemplate", &params).await, "/template/0/id")
}

// covers: HYP-049
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_a_vm() {
    let Some(mut world) = World::containers("a_container_is_a_vm").await else { return };
    let clock = Clock("containers", Instant::now());
    zone::infrastructure(&mut world).await;
    zone::host(&world, &world.machines[0]).await;
    let before = world.remains();
    clock.done("the host is up");
    zone::pool(&world).await;
    zone::folder_store(&world).await;
    zone::offerings(&mut world).await;
    let (_server, at) = server(&world).await;
    let (good, bad) = (
        register(&world, "packed", &format!("{at}/root.tar.gz")).await,
        register(&world, "hostile", &format!("{at}/hostile.tar")).await,
    );
    let shown =
        async |id: &str| world.first("listTemplates", "template", &[("templatefilter", "self"), ("id", id)]).await;
    let ready = || async {
        let told = shown(&good).await;
        if told["isready"] == true { Ok(told) } else { Err(told.to_string()) }
    };
    let told = until_ok(ready, PATIENCE).await;
    assert_eq!((text(&told, "/format").as_str(), text(&told, "/hypervisor").as_str()), ("TAR", "LXC"));
    let refused = || async {
        let told = shown(&bad).await;
        let status = text(&told, "/status");
        if status.contains("absolute") && told["isready"] == false { Ok(()) } else { Err(status) }
    };
    until_ok(refused, PATIENCE).await;
    world.run("deleteTemplate", &[("id", &bad)]).await;
    world.ids.insert("template", good);
    clock.done("the template is ready, a hostile one is refused");

    guests::network(&mut world).await;
    let (vm, shown) = world.deploy("first", &[]).await;
    assert_eq!(text(&shown, "/hypervisor"), "LXC");
    clock.done("the VM is Running");
    let list = world.host().run("virsh", &["-c", "lxc:///", "list"]);
    assert!(list.lines().any(|line| line.contains(&vm.instance) && line.contains("running")), "{list}");
    let made = world.run("associateIpAddress", &[("networkid", world.id("net"))]).await;
    let (address, public) = (text(&made, "/ipaddress/id"), text(&made, "/ipaddress/ipaddress"));
    let params = [("ipaddressid", address.as_str()), ("protocol", "tcp"), ("startport", "80"), ("endport", "80")];
    world.run("createFirewallRule", &params).await;
    let params = [
        ("ipaddressid", address.as_str()),
        ("virtualmachineid", vm.id.as_str()),
        ("protocol", "tcp"),
        ("publicport", "80"),
        ("privateport", "80"),
        ("openfirewall", "false"),
    ];
    world.run("createPortForwardingRule", &params).await;
    let page = || async {
        let url = format!("http://{public}/address");
        let mut command = world.network.outside_command("curl");
        let output = command.args(["-s", "-S", "-m", "5", &url]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if said == vm.ip { Ok(()) } else { Err(format!("{said:?} {}", String::from_utf8_lossy(&output.stderr))) }
    };
    until_ok(page, PATIENCE).await;
    clock.done("it has its address, and is reached from outside");

    for command in ["rebootVirtualMachine", "stopVirtualMachine", "startVirtualMachine"] {
        world.run(command, &[("id", &vm.id)]).await;
        let wanted = if command == "stopVirtualMachine" { "Stopped" } else { "Running" };
        assert_eq!(world.state(&vm).await, wanted, "{command}");
    }
    until_ok(page, PATIENCE).await;
    world.machines[0].kill_agent().await;
    until_ok(page, PATIENCE).await;
    world.machines[0].start_agent();
    let up = || async { world.first("listHosts", "host", &[("type", "Routing")]).await["state"] == "Up" };
    wait_until(up, PATIENCE).await;
    assert_eq!(world.state(&vm).await, "Running");
    clock.done("it reboots, stops, starts, and outlives the agent");

    world.run("destroyVirtualMachine", &[("id", &vm.id), ("expunge", "true")]).await;
    world.run("deleteNetwork", &[("id", world.id("net"))]).await;
    wait_until(|| async { world.remains() == before }, PATIENCE).await;
    let left: Vec<_> = std::fs::read_dir(world.folder("primary")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.as_encoded_bytes().starts_with(b".arcus")), "{left:?}");
    clock.done("nothing stays");
}
