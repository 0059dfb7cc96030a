//! A zone of one cluster, with its host, its storage and its templates.

use crate::machine::Machine;
use crate::world::{World, text};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use testkit::guest::{self, GuestImage};
use testkit::{Process, until_ok};

/// Makes zone, pod, cluster and public addresses.
pub async fn infrastructure(world: &mut World) {
    let control = world.network.control().to_string();
    let params = [
        ("name", "host"),
        ("networktype", "Advanced"),
        ("dns1", crate::network::OUTSIDE),
        ("internaldns1", control.as_str()),
        ("guestcidraddress", "10.1.1.0/24"),
    ];
    let zone = text(&world.run("createZone", &params).await, "/zone/id");
    let params = [
        ("zoneid", zone.as_str()),
        ("name", "physical"),
        ("vlan", "700-799"),
        ("isolationmethods", "VXLAN"),
        ("broadcastdomainrange", "Zone"),
    ];
    let physical = text(&world.run("createPhysicalNetwork", &params).await, "/physicalnetwork/id");
    for kind in ["Guest", "Management", "Public"] {
        world.run("addTrafficType", &[("physicalnetworkid", &physical), ("traffictype", kind)]).await;
    }
    world.run("updatePhysicalNetwork", &[("id", &physical), ("state", "Enabled")]).await;
    let by_name = [("physicalnetworkid", physical.as_str()), ("name", "VirtualRouter")];
    let provider = text(&world.first("listNetworkServiceProviders", "networkserviceprovider", &by_name).await, "/id");
    let element = world.first("listVirtualRouterElements", "virtualrouterelement", &[("nspid", &provider)]).await;
    world.run("configureVirtualRouterElement", &[("id", &text(&element, "/id")), ("enabled", "true")]).await;
    world.run("updateNetworkServiceProvider", &[("id", &provider), ("state", "Enabled")]).await;
    let (first, last) = world.network.pod();
    let params = [
        ("zoneid", zone.as_str()),
        ("name", "pod"),
        ("gateway", control.as_str()),
        ("netmask", "255.255.255.0"),
        ("startip", &first.to_string()),
        ("endip", &last.to_string()),
    ];
    let pod = text(&world.run("createPod", &params).await, "/pod/id");
    let params = [
        ("zoneid", zone.as_str()),
        ("vlan", "untagged"),
        ("gateway", crate::network::OUTSIDE),
        ("netmask", "255.255.255.0"),
        ("startip", "198.51.100.10"),
        ("endip", "198.51.100.50"),
        ("forvirtualnetwork", "true"),
    ];
    world.run("createVlanIpRange", &params).await;
    let params = [
        ("zoneid", zone.as_str()),
        ("podid", pod.as_str()),
        ("clustername", "cluster"),
        ("clustertype", "CloudManaged"),
        ("hypervisor", world.hypervisor),
    ];
    let cluster = text(&world.run("addCluster", &params).await, "/cluster/0/id");
    world.ids.extend([("zone", zone), ("pod", pod), ("cluster", cluster)]);
}

/// Adds a machine as a host, as soon as its agent waits, and looks at how it is listed.
pub async fn host(world: &World, machine: &Machine) -> String {
    let url = format!("http://{}", machine.address);
    let params = [
        ("zoneid", world.id("zone")),
        ("podid", world.id("pod")),
        ("clusterid", world.id("cluster")),
        ("hypervisor", world.hypervisor),
        ("username", "root"),
        ("password", "unused"),
        ("url", url.as_str()),
    ];
    // Its agent boots a tiny guest first.
    let add = || async {
        world.api.call("addHost", &params).await.map_err(|error| format!("{error:#}\n{}", machine.log_tail()))
    };
    until_ok(add, Duration::from_secs(120)).await;
    let listed = world.api.call("listHosts", &[("type", "Routing")]).await.unwrap();
    let hosts = listed.get("host").and_then(Value::as_array).unwrap();
    let host = hosts.iter().find(|h| h["ipaddress"] == machine.address.as_str()).unwrap();
    assert_eq!((text(host, "/state").as_str(), text(host, "/hypervisor").as_str()), ("Up", world.hypervisor));
    assert_eq!(text(host, "/name"), machine.name());
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    assert!(host["cpunumber"].as_u64().unwrap() >= cpus, "{host}");
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let memory: u64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    let told = host["memorytotal"].as_u64().unwrap();
    assert!(told <= memory * 1024 && told > memory * 1024 * 7 / 10, "{told} of {memory} KiB");
    if world.hypervisor == "LXC" {
        return text(host, "/id"); // the kernel's version is all there is
    }
    let version = Command::new("qemu-system-x86_64").arg("--version").output().unwrap();
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let version = version.split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(text(host, "/hypervisorversion"), version, "{host}");
    text(host, "/id")
}

/// A pool that is a folder of all hosts.
pub async fn pool(world: &World) {
    let url = format!("SharedMountPoint://localhost{}", world.folder("primary").display());
    let params = [
        ("zoneid", world.id("zone")),
        ("podid", world.id("pod")),
        ("clusterid", world.id("cluster")),
        ("name", "primary"),
        ("url", url.as_str()),
    ];
    let made = world.run("createStoragePool", &params).await;
    assert_eq!(text(&made, "/storagepool/state"), "Up", "{made}");
    assert!(made["storagepool"]["disksizetotal"].as_u64().unwrap() > 1 << 30, "{made}");
}

/// A store that is a folder of all hosts.
pub async fn folder_store(world: &World) {
    let url = format!("file://{}", world.folder("secondary").display());
    world.run("addImageStore", &[("provider", "Directory"), ("zoneid", world.id("zone")), ("url", &url)]).await;
}

/// An offering small enough for guests that are emulated, the same for highly available ones; the zone is open.
pub async fn offerings(world: &mut World) {
    world.run("updateZone", &[("id", world.id("zone")), ("allocationstate", "Enabled")]).await;
    for (name, key, ha) in [("tiny", "offering", "false"), ("kept", "kept", "true")] {
        let size = [("cpunumber", "1"), ("cpuspeed", "500"), ("memory", "192"), ("offerha", ha)];
        let params: Vec<_> = [("name", name), ("displaytext", name)].into_iter().chain(size).collect();
        let offering = text(&world.run("createServiceOffering", &params).await, "/serviceoffering/id");
        world.ids.insert(key, offering);
    }
}

/// A server on the management network with the guest's image and others, and where it is.
async fn images(world: &World) -> (Process, String) {
    let networks = world.network.management();
    let setting = [("name", "secstorage.allowed.internal.sites"), ("value", networks.as_str())];
    world.run("updateConfiguration", &setting).await;
    let folder = world.folder("images");
    let GuestImage { qcow2, .. } = guest::image().await;
    std::fs::copy(&qcow2, folder.join("guest.qcow2")).unwrap();
    let address = format!("{}:8080", world.network.control());
    let server = ["busybox", "httpd", "-f", "-p", &address, "-h", &folder.display().to_string()].map(str::to_owned);
    (Process::start(&server, &world.folder("images.log"), None), format!("http://{address}"))
}

/// The template of the guest image, downloaded and ready; gives the image's size in bytes.
pub async fn good_template(world: &mut World) -> u64 {
    let (_server, at) = images(world).await;
    good(world, &at).await
}

async fn good(world: &mut World, at: &str) -> u64 {
    let qcow2 = world.folder("images").join("guest.qcow2");
    let sum = Command::new("sha256sum").arg(&qcow2).output().unwrap();
    let sum = String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap().to_owned();
    let good = register(world, "guest", &format!("{at}/guest.qcow2"), &format!("{{SHA-256}}{sum}")).await;
    let ready = || async {
        let told = shown(world, &good).await;
        // Its row was read a moment before what lies in stores.
        if told["isready"] == true && told["physicalsize"].is_u64() { Ok(told) } else { Err(told.to_string()) }
    };
    let ready = until_ok(ready, Duration::from_secs(120)).await;
    assert_eq!(
        (text(&ready, "/status").as_str(), &ready["passwordenabled"]),
        ("Download Complete", &Value::Bool(true))
    );
    let size = qcow2.metadata().unwrap().len();
    assert_eq!(ready["physicalsize"].as_u64(), Some(size), "{ready}");
    world.ids.insert("template", good);
    size
}

/// The same beside images that are refused, with the reason.
pub async fn templates(world: &mut World) {
    let (_server, at) = images(world).await;
    let folder = world.folder("images");
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd"], &folder.join("leak.qcow2"));
    let image = std::fs::read(folder.join("guest.qcow2")).unwrap();
    std::fs::write(folder.join("half.qcow2"), &image[..image.len() / 2]).unwrap();
    let url = |name: &str| format!("{at}/{name}.qcow2");
    let wrong = register(world, "wrong", &url("guest"), &format!("{{SHA-256}}{}", "0".repeat(64))).await;
    let leak = register(world, "leak", &url("leak"), "").await;
    let half = register(world, "half", &url("half"), "").await;
    let missing = register(world, "missing", &url("missing"), "").await;
    good(world, &at).await;
    for (id, why) in [(&wrong, "checksum"), (&leak, "backing"), (&half, ""), (&missing, "404")] {
        let failed = || async {
            let told = shown(world, id).await;
            let status = text(&told, "/status");
            let over = !status.is_empty() && !status.contains("% Downloaded") && !status.contains("ownload is");
            if over { Ok(told) } else { Err(status) }
        };
        let told = until_ok(failed, Duration::from_secs(120)).await;
        eprintln!("host test: refused: {}", text(&told, "/status"));
        assert!(text(&told, "/status").contains(why) && told["isready"] == false, "{why}: {told}");
        world.run("deleteTemplate", &[("id", id)]).await;
    }
}

async fn register(world: &World, name: &str, url: &str, checksum: &str) -> String {
    let os = world.first("listOsTypes", "ostype", &[("description", "Debian GNU/Linux 8 (64-bit)")]).await;
    let os = text(&os, "/id");
    let mut params = vec![
        ("name", name),
        ("displaytext", name),
        ("format", "QCOW2"),
        ("hypervisor", "KVM"),
        ("ostypeid", os.as_str()),
        ("zoneid", world.id("zone")),
        ("url", url),
        ("passwordenabled", "true"),
    ];
    if !checksum.is_empty() {
        params.push(("checksum", checksum));
    }
    text(&world.run("registerTemplate", &params).await, "/template/0/id")
}

async fn shown(world: &World, id: &str) -> Value {
    world.first("listTemplates", "template", &[("templatefilter", "self"), ("id", id)]).await
}

fn qemu_img(args: &[&str], file: &Path) {
    let output = Command::new("qemu-img").args(args).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
