//! A zone of one cluster, with its host, its storage and its templates.

use crate::world::{World, text};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::guest::{self, GuestImage};
use testkit::{Process, wait_until};

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
        ("hypervisor", "KVM"),
    ];
    let cluster = text(&world.run("addCluster", &params).await, "/cluster/0/id");
    world.ids.extend([("zone", zone), ("pod", pod), ("cluster", cluster)]);
}

/// Adds the last machine as a host, as soon as its agent waits, and looks at how it is listed.
pub async fn host(world: &World) -> String {
    let machine = world.machines.last().unwrap();
    let url = format!("http://{}", machine.address);
    let params = [
        ("zoneid", world.id("zone")),
        ("podid", world.id("pod")),
        ("clusterid", world.id("cluster")),
        ("hypervisor", "KVM"),
        ("username", "root"),
        ("password", "unused"),
        ("url", url.as_str()),
    ];
    let begun = Instant::now();
    while let Err(error) = world.api.call("addHost", &params).await {
        // Its agent boots a tiny guest first.
        assert!(begun.elapsed() < Duration::from_secs(60), "{error:#}\n{}", machine.log_tail());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let listed = world.api.call("listHosts", &[("type", "Routing")]).await.unwrap();
    let hosts = listed.get("host").and_then(Value::as_array).unwrap();
    let host = hosts.iter().find(|h| h["ipaddress"] == machine.address.as_str()).unwrap();
    assert_eq!((text(host, "/state").as_str(), text(host, "/hypervisor").as_str()), ("Up", "KVM"));
    assert_eq!(text(host, "/name"), machine.name());
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    assert!(host["cpunumber"].as_u64().unwrap() >= cpus, "{host}");
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let memory: u64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    let told = host["memorytotal"].as_u64().unwrap();
    assert!(told <= memory * 1024 && told > memory * 1024 * 7 / 10, "{told} of {memory} KiB");
    let version = Command::new("qemu-system-x86_64").arg("--version").output().unwrap();
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let version = version.split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(text(host, "/hypervisorversion"), version, "{host}");
    text(host, "/id")
}

/// A pool that is a folder of all hosts, a store that is one, and an offering small enough for guests that are emulated.
pub async fn storage(world: &mut World) {
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
    let url = format!("file://{}", world.folder("secondary").display());
    world.run("addImageStore", &[("provider", "Directory"), ("zoneid", world.id("zone")), ("url", &url)]).await;
    world.run("updateZone", &[("id", world.id("zone")), ("allocationstate", "Enabled")]).await;
    let params =
        [("name", "tiny"), ("displaytext", "tiny"), ("cpunumber", "1"), ("cpuspeed", "500"), ("memory", "192")];
    let offering = text(&world.run("createServiceOffering", &params).await, "/serviceoffering/id");
    world.ids.insert("offering", offering);
}

/// The template of the guest image, from a server on the management network; and what is refused.
pub async fn templates(world: &mut World) {
    let networks = world.network.management();
    let setting = [("name", "secstorage.allowed.internal.sites"), ("value", networks.as_str())];
    world.run("updateConfiguration", &setting).await;
    let folder = world.folder("images");
    let GuestImage { qcow2, .. } = guest::image().await;
    std::fs::copy(&qcow2, folder.join("guest.qcow2")).unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd"], &folder.join("leak.qcow2"));
    let image = std::fs::read(&qcow2).unwrap();
    std::fs::write(folder.join("half.qcow2"), &image[..image.len() / 2]).unwrap();
    let address = format!("{}:8080", world.network.control());
    let server = ["busybox", "httpd", "-f", "-p", &address, "-h", &folder.display().to_string()].map(str::to_owned);
    let _server = Process::start(&server, &world.folder("images.log"), None);
    let url = |name: &str| format!("http://{address}/{name}");
    let sum = Command::new("sha256sum").arg(&qcow2).output().unwrap();
    let sum = String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap().to_owned();

    let good = register(world, "guest", &url("guest.qcow2"), &format!("{{SHA-256}}{sum}")).await;
    let wrong = register(world, "wrong", &url("guest.qcow2"), &format!("{{SHA-256}}{}", "0".repeat(64))).await;
    let leak = register(world, "leak", &url("leak.qcow2"), "").await;
    let half = register(world, "half", &url("half.qcow2"), "").await;
    let missing = register(world, "missing", &url("missing.qcow2"), "").await;
    wait_until(|| async { shown(world, &good).await["isready"] == true }, Duration::from_secs(60)).await;
    let ready = shown(world, &good).await;
    assert_eq!(
        (text(&ready, "/status").as_str(), &ready["passwordenabled"]),
        ("Download Complete", &Value::Bool(true))
    );
    assert_eq!(ready["physicalsize"].as_u64(), Some(image.len() as u64), "{ready}");
    for (id, why) in [(&wrong, "checksum"), (&leak, "backing"), (&half, ""), (&missing, "404")] {
        let failed = || async {
            let status = text(&shown(world, id).await, "/status");
            !status.is_empty() && !status.contains("% Downloaded") && !status.contains("ownload is")
        };
        wait_until(failed, Duration::from_secs(60)).await;
        let told = shown(world, id).await;
        eprintln!("host test: refused: {}", text(&told, "/status"));
        assert!(text(&told, "/status").contains(why) && told["isready"] == false, "{why}: {told}");
        world.run("deleteTemplate", &[("id", id)]).await;
    }
    world.ids.insert("template", good);
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
