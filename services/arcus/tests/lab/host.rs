//! A guest on such a host: its disks on NFS, its network a VLAN.

use crate::service;
use crate::site::{PATIENCE, Site, text};
use std::time::Instant;
use testkit::Place;
use testkit::guest::Guest;
use testkit::wait_until;

const GIB: &str = "1";

/// Attaches a volume; gives the device that the guest finds.
async fn attach(site: &Site, guest: &Guest, vm: &str, volume: &str) -> String {
    let names = || async { guest.disks().await.into_iter().map(|(name, _)| name).collect::<Vec<_>>() };
    let before = names().await;
    site.run("attachVolume", &[("id", volume), ("virtualmachineid", vm)]).await;
    let new = async || names().await.into_iter().find(|name| !before.contains(name));
    wait_until(|| async { new().await.is_some() }, PATIENCE).await;
    format!("/dev/{}", new().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a lab: make test-lab"]
async fn a_debian_host_runs_guests_on_nfs_and_vlans() {
    let begun = Instant::now();
    let done = |what: &str| eprintln!("lab host: {:6.1} s: {what}", begun.elapsed().as_secs_f64());
    let Some(mut site) = Site::new("a_debian_host_runs_guests_on_nfs_and_vlans").await else { return };
    done("machines and control plane are up");
    service::install(&site).await;
    done("the agent is a service");
    site.zone().await;
    let mounts = site.host.run("grep ' nfs4\\? ' /proc/mounts").await;
    assert!(mounts.contains(&format!("{}.5:/srv/primary", site.base)), "{mounts}");
    site.offers().await;
    done("the template lies on NFS");

    // The tag, seen by somebody else at the switch.
    let net = site.first("listNetworks", "network", &[("id", site.id("net"))]).await;
    site.nfs.serve("capture", "tcpdump -lnne -i eth0 vlan and udp port 67").await;
    site.nfs.until("grep -q listening /var/log/capture.log", PATIENCE).await;
    let params = [
        ("zoneid", site.id("zone")),
        ("templateid", site.id("template")),
        ("serviceofferingid", site.id("offering")),
        ("networkids", site.id("net")),
        ("name", "first"),
    ];
    let vm = site.run("deployVirtualMachine", &params).await;
    assert_eq!(text(&vm, "/virtualmachine/state"), "Running", "{net}");
    let (id, instance) = (text(&vm, "/virtualmachine/id"), text(&vm, "/virtualmachine/instancename"));
    let ip = text(&vm, "/virtualmachine/nic/0/ipaddress");
    let vlan = text(&vm, "/virtualmachine/nic/0/broadcasturi").trim_start_matches("vlan://").to_owned();
    done("the VM is Running");
    let ready = site.told(&instance, "ready").await;
    assert!(ready.contains(&ip), "{ready}");
    done("the guest has its address");
    let seen = site.nfs.until("grep BOOTP /var/log/capture.log", PATIENCE).await;
    assert!(seen.contains("802.1Q") && seen.contains(&format!("vlan {vlan},")), "{seen}");
    let other = if vlan == "199" { "198" } else { "199" };
    for tag in [vlan.as_str(), other] {
        site.nfs
            .run(&format!("ip link add link eth0 name eth0.{tag} type vlan id {tag}; ip link set eth0.{tag} up"))
            .await;
    }
    site.nfs.run(&format!("ip addr add 10.1.1.250/24 dev eth0.{vlan}")).await;
    site.nfs.run(&format!("ping -c 3 -W 20 {ip}")).await;
    site.nfs
        .run(&format!("ip addr del 10.1.1.250/24 dev eth0.{vlan}; ip addr add 10.1.1.250/24 dev eth0.{other}"))
        .await;
    let lost = site.nfs.try_run(&format!("ping -c 2 -W 5 {ip}"), PATIENCE).await.unwrap();
    assert_ne!(lost.status, 0, "by another tag");

    // In from outside.
    let made = site.run("associateIpAddress", &[("networkid", site.id("net"))]).await;
    let (address, public) = (text(&made, "/ipaddress/id"), text(&made, "/ipaddress/ipaddress"));
    let params = [("ipaddressid", address.as_str()), ("protocol", "tcp"), ("startport", "1"), ("endport", "65535")];
    site.run("createFirewallRule", &params).await;
    let params = [
        ("ipaddressid", address.as_str()),
        ("virtualmachineid", id.as_str()),
        ("protocol", "tcp"),
        ("publicport", "2323"),
        ("privateport", "2323"),
        ("openfirewall", "false"),
    ];
    site.run("createPortForwardingRule", &params).await;
    let guest = Guest::at(&Place::default(), format!("{public}:2323").parse().unwrap()).await;
    done("it is reached from outside");

    // A volume, its snapshot on secondary storage, and a volume of that: all on NFS.
    let params = [("name", "one"), ("displaytext", "one"), ("disksize", GIB)];
    let offering = text(&site.run("createDiskOffering", &params).await, "/diskoffering/id");
    let params = [("zoneid", site.id("zone")), ("diskofferingid", offering.as_str()), ("name", "data")];
    let volume = text(&site.run("createVolume", &params).await, "/volume/id");
    let device = attach(&site, &guest, &id, &volume).await;
    let sum = guest.write_disk(&device, 4, "lab").await;
    let files = "find /srv/primary -maxdepth 1 -type f | grep -vc /template-";
    assert_eq!(site.nfs.run(files).await, "2", "the guest's root, and this volume");
    site.run("detachVolume", &[("id", &volume)]).await;
    let before = site.nfs.run("find /srv/secondary -type f | wc -l").await;
    let snapshot = text(&site.run("createSnapshot", &[("volumeid", &volume)]).await, "/snapshot/id");
    site.nfs.run(&format!("test $(find /srv/secondary -type f | wc -l) -gt {before}")).await;
    let params = [("snapshotid", snapshot.as_str()), ("name", "copy")];
    let copy = text(&site.run("createVolume", &params).await, "/volume/id");
    let device = attach(&site, &guest, &id, &copy).await;
    assert_eq!(guest.disk_sum(&device, 4).await, sum);
    done("a volume went to secondary storage and came back");

    service::ends(&site).await;
    assert_eq!(guest.disk_sum(&device, 4).await, sum, "it works as before");
    done("the agent was killed, restarted, stopped and started");

    // The server dies and comes back: whoever uses it waits, nobody fails.
    site.nfs.kill().await;
    site.nfs.boot().await;
    site.serve().await;
    wait_until(|| async { guest.answers().await }, PATIENCE).await;
    assert_eq!(guest.disk_sum(&device, 4).await, sum);
    site.up().await;
    done("the NFS server died and came back");

    // So does the host: the service starts by itself, mounts what it had, and guests start from their disks.
    site.host.kill().await;
    site.host.boot().await;
    site.up().await;
    let mounts = site.host.until("grep ' nfs4\\? ' /proc/mounts", PATIENCE).await;
    assert!(mounts.contains(":/srv/primary"), "{mounts}");
    let state = || async {
        let listed = site.api.call("listVirtualMachines", &[("id", id.as_str())]).await.unwrap();
        listed.pointer("/virtualmachine/0/state").and_then(|s| s.as_str()).unwrap_or("none").to_owned()
    };
    wait_until(|| async { state().await == "Stopped" }, PATIENCE).await;
    site.run("startVirtualMachine", &[("id", &id)]).await;
    wait_until(|| async { guest.answers().await }, PATIENCE).await;
    let disks: Vec<String> = guest.disks().await.into_iter().map(|(name, _)| name).collect();
    let device = format!("/dev/{}", disks.last().unwrap());
    assert_eq!(guest.disk_sum(&device, 4).await, sum, "{disks:?}");
    done("the host died and came back");

    site.run("destroyVirtualMachine", &[("id", &id), ("expunge", "true")]).await;
    for volume in [&volume, &copy] {
        let _ = site.api.run("detachVolume", &[("id", volume)]).await; // the first one is
        site.run("deleteVolume", &[("id", volume)]).await;
    }
    site.run("deleteNetwork", &[("id", site.id("net"))]).await;
    site.host
        .until("! ip -br link | grep -E 'vnet|cloudbr0[.-]|^rt' && ! pidof qemu-system-x86_64 dnsmasq", PATIENCE)
        .await;
    site.nfs.until("! ls /srv/primary | grep -v ^template-", PATIENCE).await;
    done("nothing stays");
}
