//! A guest on such a host: its disks on NFS, its network a VLAN.

use crate::service;
use crate::site::{Guests, PATIENCE, Site, text};
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

// covers: HOST-090, STO-003
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a lab: make test-lab"]
async fn a_debian_host_runs_guests_on_nfs_and_vlans() {
    let test = "a_debian_host_runs_guests_on_nfs_and_vlans";
    let Some(mut site) = Site::new(test, Guests::Machines).await else { return };
    service::install(&site).await;
    site.zone().await;
    let mounts = site.host.run("grep ' nfs4\\? ' /proc/mounts").await;
    assert!(mounts.contains(&format!("{}.5:/srv/primary", site.base)), "{mounts}");
    site.offers().await;
    site.nfs.run("find /srv/secondary -type f -exec cmp -s {} /opt/image \\; -print | grep .").await;

    // The tag, seen by somebody else at the switch.
    site.nfs.serve("capture", "tcpdump -lnne -i eth0 vlan and udp port 67").await;
    site.nfs.until("grep -q listening /var/log/capture.log", PATIENCE).await;
    let vm = site.deploy("first", site.id("offering")).await;
    let (id, instance) = (text(&vm, "/id"), text(&vm, "/instancename"));
    let ip = text(&vm, "/nic/0/ipaddress");
    let vlan = text(&vm, "/nic/0/broadcasturi").trim_start_matches("vlan://").to_owned();
    let ready = site.told(&instance, "ready").await;
    assert!(ready.contains(&ip), "{ready}");
    site.done("the guest has its address");
    let seen = site.nfs.until("grep BOOTP /var/log/capture.log", PATIENCE).await;
    assert!(seen.contains("802.1Q") && seen.contains(&format!("vlan {vlan},")), "{seen}");
    site.host.run(&format!("ip -d link show cloudbr0.{vlan} | grep 'vlan protocol 802.1Q id {vlan} '")).await;
    site.host.run(&format!("ip link show master brcloudbr0-{vlan} | grep cloudbr0.{vlan}@")).await;
    let other = if vlan == "199" { "198" } else { "199" };
    for tag in [vlan.as_str(), other] {
        site.nfs
            .run(&format!("ip link add link eth0 name eth0.{tag} type vlan id {tag}; ip link set eth0.{tag} up"))
            .await;
    }
    site.nfs.run(&format!("ip addr add 10.1.1.250/24 dev eth0.{vlan}")).await;
    site.nfs.until(&format!("ping -c 3 -W 20 {ip}"), PATIENCE).await;
    site.nfs
        .run(&format!("ip addr del 10.1.1.250/24 dev eth0.{vlan}; ip addr add 10.1.1.250/24 dev eth0.{other}"))
        .await;
    let lost = site.nfs.try_run(&format!("ping -c 2 -W 5 {ip}"), PATIENCE).await.unwrap();
    assert_ne!(lost.status, 0, "by another tag");

    // In from outside.
    let public = site.publish(&id, "2323").await;
    let guest = Guest::at(&Place::default(), format!("{public}:2323").parse().unwrap()).await;
    site.done("it is reached from outside");

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
    site.done("a volume went to secondary storage and came back");

    service::ends(&site).await;
    assert_eq!(guest.disk_sum(&device, 4).await, sum, "it works as before");

    // The server dies and comes back: whoever uses it waits, nobody fails.
    site.nfs.kill().await;
    site.nfs.boot().await;
    site.serve().await;
    wait_until(|| async { guest.answers().await }, PATIENCE).await;
    assert_eq!(guest.disk_sum(&device, 4).await, sum);
    site.up().await;
    site.done("the NFS server died and came back");

    // So does the host: the service starts by itself, mounts what it had, and guests start from their disks.
    site.host.kill().await;
    site.host.boot().await;
    site.up().await;
    let mounts = site.host.until("grep ' nfs4\\? ' /proc/mounts", PATIENCE).await;
    assert!(mounts.contains(":/srv/primary"), "{mounts}");
    site.is(&id, "Stopped").await;
    site.run("startVirtualMachine", &[("id", &id)]).await;
    wait_until(|| async { guest.answers().await }, PATIENCE).await;
    let disks: Vec<String> = guest.disks().await.into_iter().map(|(name, _)| name).collect();
    let device = format!("/dev/{}", disks.last().unwrap());
    assert_eq!(guest.disk_sum(&device, 4).await, sum, "{disks:?}");
    site.done("the host died and came back");

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
    site.done("nothing stays");
}
