//! A machine as Debian sets up hosts: systemd, libvirt's own services, AppArmor.

use lab::{Image, Lab};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a lab: make test-lab"]
async fn a_machine_of_systemd_has_debians_services() {
    let Some(lab) = Lab::with_packages("systemd", &Image::HYPERVISOR).await else { return };
    let lan = lab.switch("lan");
    let mut host = lab.machine("host").nic(&lan, "10.0.0.1/24").memory(1024).systemd().start().await;
    assert_eq!(host.run("cat /proc/1/comm").await, "systemd");
    assert_eq!(host.run("stat -f -c %T /sys/fs/cgroup").await, "cgroup2fs");
    // Its socket is there before the daemon, which starts when somebody calls.
    host.until("virsh -c qemu:///system version", Duration::from_secs(180)).await;
    host.until("systemctl is-active apparmor", Duration::from_secs(180)).await;
    let secured = host.run("virsh -c qemu:///system capabilities").await;
    assert!(secured.contains("<model>apparmor</model>"), "{secured}");
    host.run("virsh -c lxc:///system version").await;
    host.run("ip addr show eth0 | grep 10.0.0.1/24").await;
    let id = host.run("cat /etc/machine-id").await;
    host.power_off().await;
    host.boot().await;
    assert_eq!(host.run("cat /etc/machine-id").await, id);
}
