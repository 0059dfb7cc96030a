//! A container on such a host: libvirt's LXC on Debian's kernel and systemd, control groups of version 2, its root on NFS.

use crate::service;
use crate::site::{Guests, PATIENCE, Site, text};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use testkit::guest::talk;
use testkit::{Place, until_ok, wait_until};

const MEMORY_MIB: u64 = 96;
const MHZ: u64 = 700;
/// Where the agent mounts containers' roots.
const ROOTS: &str = "/var/lib/arcus/mnt/containers";
/// The kernel's accounting period of CPU limits, microseconds.
const PERIOD: u64 = 100_000;

/// One container, seen from the host and from outside.
struct Container {
    id: String,
    instance: String,
    ip: String,
    /// An address that is forwarded to its web page.
    public: String,
}

impl Container {
    /// What a shell script says within it: its process 1 runs what appears in `/do`.
    async fn inside(&self, site: &Site, script: &str) -> String {
        static SCRIPTS: AtomicU32 = AtomicU32::new(0);
        let at = format!("{ROOTS}/{}/do/{}", self.id, SCRIPTS.fetch_add(1, Ordering::Relaxed));
        site.host.write(&format!("{at}.aside"), script).await;
        site.host.run(&format!("mv {at}.aside {at}.sh")).await;
        site.host.until(&format!("cat {at}.out"), PATIENCE).await
    }

    /// Waits until its web page, asked for from outside, tells its address.
    async fn reached(&self, site: &Site) {
        let address = format!("{}:80", self.public).parse().unwrap();
        let page = || async {
            let said =
                talk(&Place::default(), address, b"GET /address HTTP/1.0\r\n\r\n", Duration::from_secs(20)).await;
            let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
            if said.trim_end().ends_with(&format!("\n{}", self.ip)) { Ok(()) } else { Err(said) }
        };
        until_ok(page, PATIENCE).await;
        site.done("its page is reached from outside");
    }

    /// The folder of systemd's scope, which holds all of its processes, for a shell script: there are backslashes in it.
    async fn scope(&self, site: &Site) -> String {
        let script = "helper=$(pidof libvirt_lxc) && first=$(pgrep -P $helper) && sed -n s/^0:://p /proc/$first/cgroup";
        let path = site.host.until(script, PATIENCE).await;
        let end = path.find(".scope").unwrap_or_else(|| panic!("systemd-machined knows it: {path}"));
        assert!(path.contains("machine-lxc"), "a scope of its own: {path}");
        format!("'/sys/fs/cgroup{}.scope'", &path[..end])
    }
}

/// What its scope lets a container use by the offering, in bytes and in microseconds of 100,000: whole percents of a processor.
async fn quotas(site: &Site) -> (String, String) {
    let host = site.first("listHosts", "host", &[("type", "Routing")]).await;
    let speed = host["cpuspeed"].as_u64().unwrap();
    assert!(speed > MHZ, "so that there is something to limit: {host}");
    ((MEMORY_MIB << 20).to_string(), format!("{} {PERIOD}", (MHZ * 100).div_ceil(speed) * PERIOD / 100))
}

/// Waits until its scope has the offering's limits.
async fn limited(site: &Site, container: &Container) {
    let (scope, (memory, cpu)) = (container.scope(site).await, quotas(site).await);
    let has = format!("cat {scope}/memory.max {scope}/cpu.max");
    site.host.until(&format!("test \"$({has})\" = '{memory}\n{cpu}'"), PATIENCE).await;
}

/// Memory and CPU as the offering says, by control groups of version 2: felt within, and not to be changed from there.
async fn limits(site: &Site, container: &Container) {
    assert_eq!(site.host.run("stat -f -c %T /sys/fs/cgroup").await, "cgroup2fs");
    let (scope, (memory, cpu)) = (container.scope(site).await, quotas(site).await);
    // Already when the VM is said to be Running.
    assert_eq!(site.host.run(&format!("cat {scope}/memory.max {scope}/cpu.max")).await, format!("{memory}\n{cpu}"));
    // Its part when all want to compute, of 10000 for all of the host.
    let host = site.first("listHosts", "host", &[("type", "Routing")]).await;
    let all = host["cpuspeed"].as_u64().unwrap() * host["cpunumber"].as_u64().unwrap();
    assert_eq!(site.host.run(&format!("cat {scope}/cpu.weight")).await, (MHZ * 10_000 / all).to_string());
    let total = container.inside(site, "awk '/MemTotal/{print $2}' /proc/meminfo").await;
    assert_eq!(total.trim(), (MEMORY_MIB << 10).to_string(), "it sees its own memory");

    // libvirt gives it a group within the scope. What its root does there changes nothing.
    let lift =
        "for f in $(find /sys/fs/cgroup -name memory.max -o -name cpu.max); do echo max >$f && echo \"$f\"; done";
    let lifted = container.inside(site, &format!("{{ {lift}; }} 2>/dev/null")).await;
    assert!(lifted.lines().all(|line| line.contains(".scope/libvirt/")), "{lifted}");
    // More than it may have is killed, within it.
    let said = container.inside(site, "dd if=/dev/zero of=/dev/null bs=200M count=1; echo ended $?").await;
    assert!(said.contains("ended 137"), "{said}");
    site.host.run(&format!("! grep -x 'oom_kill 0' {scope}/memory.events")).await;
    container.inside(site, "i=0; while [ $i -lt 2000 ]; do i=$((i + 1)); done").await;
    site.host.run(&format!("! grep -x 'nr_throttled 0' {scope}/cpu.stat")).await;
    site.host.run("systemctl daemon-reload").await;
    limited(site, container).await;
    site.done("memory and CPU are limited");
    container.reached(site).await;
}

/// The storage doesn't answer for longer than the lease lasts: the container stands still, and goes on when it answers again.
async fn held(site: &Site, container: &Container) {
    let scope = container.scope(site).await;
    // In memory: a process that waits for the storage stands still anyway.
    let counts = "(i=0; while :; do i=$((i + 1)); echo $i >/dev/count; sleep 1; done) >/dev/null 2>&1 &";
    container.inside(site, counts).await;
    let count = async || container.inside(site, "cat /dev/count").await.trim().parse::<u64>().ok();
    wait_until(|| async { count().await.is_some() }, PATIENCE).await;
    let runs = site.host.run("pidof libvirt_lxc").await;
    site.nfs.pause();
    site.host.until(&format!("grep -qx 1 {scope}/cgroup.freeze"), PATIENCE).await;
    site.host.until(&format!("grep -qx 'frozen 1' {scope}/cgroup.events"), PATIENCE).await;
    site.done("it stands still without its lease");
    site.nfs.resume();
    site.host.until(&format!("grep -qx 'frozen 0' {scope}/cgroup.events"), PATIENCE).await;
    let then = count().await;
    wait_until(|| async { count().await > then }, PATIENCE).await;
    assert_eq!(site.host.run("pidof libvirt_lxc").await, runs, "the same run");
    site.is(&container.id, "Running").await;
    site.done("it goes on with it");
}

// covers: HYP-049
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a lab: make test-lab"]
async fn a_debian_host_runs_containers_on_nfs_and_vlans() {
    let test = "a_debian_host_runs_containers_on_nfs_and_vlans";
    let Some(mut site) = Site::new(test, Guests::Containers).await else { return };
    service::install(&site).await;
    site.zone().await;
    site.offers().await;
    let (memory, mhz) = (MEMORY_MIB.to_string(), MHZ.to_string());
    let params = [
        ("name", "limited"),
        ("displaytext", "limited"),
        ("cpunumber", "1"),
        ("cpuspeed", mhz.as_str()),
        ("memory", memory.as_str()),
        ("limitcpuuse", "true"),
        ("offerha", "true"),
    ];
    let offering = text(&site.run("createServiceOffering", &params).await, "/serviceoffering/id");
    let vm = site.deploy("first", &offering).await;
    assert_eq!(text(&vm, "/hypervisor"), "LXC");
    let (id, instance) = (text(&vm, "/id"), text(&vm, "/instancename"));
    let public = site.publish(&id, "80").await;
    let container = Container { ip: text(&vm, "/nic/0/ipaddress"), id, instance, public };
    let list = site.host.run("virsh -c lxc:/// list").await;
    assert!(list.lines().any(|line| line.contains(&container.instance) && line.contains("running")), "{list}");
    container.reached(&site).await;
    let device = site.host.run("losetup -n -O BACK-FILE").await;
    assert!(device.contains("/var/lib/arcus/mnt/"), "its root is a file on NFS: {device}");
    limits(&site, &container).await;
    service::ends(&site).await;
    container.reached(&site).await;
    held(&site, &container).await;
    container.inside(&site, "echo kept >/root/file; sync").await;
    for (command, wanted) in
        [("rebootVirtualMachine", "Running"), ("stopVirtualMachine", "Stopped"), ("startVirtualMachine", "Running")]
    {
        site.run(command, &[("id", &container.id)]).await;
        assert_eq!(site.state(&container.id).await, wanted, "{command}");
        if wanted == "Stopped" {
            site.host.until(&format!("! pidof libvirt_lxc && ! grep {ROOTS}/ /proc/mounts"), PATIENCE).await;
        }
    }
    container.reached(&site).await;
    // What isn't synced before power is lost needn't be there after.
    assert_eq!(container.inside(&site, "wc -l </boots; cat /root/file; sync").await, "3\nkept");
    site.done("it reboots, stops and starts");

    // The host loses its power: the service comes back by itself, and so does what is highly available.
    site.host.kill().await;
    site.host.boot().await;
    site.up().await;
    site.done("the host died and came back");
    site.host.until(&format!("test $(wc -l <{ROOTS}/{}/boots) -eq 4", container.id), PATIENCE).await;
    site.is(&container.id, "Running").await;
    container.reached(&site).await;
    assert_eq!(container.inside(&site, "cat /root/file").await, "kept");
    limited(&site, &container).await;

    site.run("destroyVirtualMachine", &[("id", &container.id), ("expunge", "true")]).await;
    site.run("deleteNetwork", &[("id", site.id("net"))]).await;
    let gone = format!(
        "! ip -br link | grep -E 'vnet|veth|cloudbr0[.-]|^rt' && ! pidof libvirt_lxc dnsmasq && ! grep {ROOTS}/ /proc/mounts &&
         ! ls {ROOTS} | grep . && test -z \"$(losetup -a)\" && test -z \"$(virsh -c lxc:/// list --all --name)\" &&
         ! find /sys/fs/cgroup -type d -name '*lxc*' | grep . && ! ip netns | grep ."
    );
    site.host.until(&gone, PATIENCE).await;
    site.nfs.until("! ls /srv/primary | grep -v ^template-", PATIENCE).await;
    site.done("nothing stays");
}
