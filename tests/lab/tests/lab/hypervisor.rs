//! A machine as a host of VMs, which its KVM runs on the emulated processor.

use lab::{Image, Lab};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a lab: make test-lab"]
async fn a_machine_runs_vms_of_libvirt() {
    let Some(lab) = Lab::with_packages("hypervisor", &Image::HYPERVISOR).await else { return };
    let guest = testkit::guest::image().await;
    let host =
        lab.machine("host").memory(1024).file(&guest.kernel, "/opt/vmlinuz").file(&guest.initramfs, "/opt/initramfs");
    let host = host.start().await;
    host.run("/lab/serve-libvirt").await;
    let domain = format!(
        "<domain type='kvm'><name>vm</name><memory unit='MiB'>192</memory>
           <os><type arch='x86_64' machine='pc'>hvm</type>
             <kernel>/opt/vmlinuz</kernel><initrd>/opt/initramfs</initrd><cmdline>{}</cmdline></os>
           <features><acpi/></features>
           <devices><serial type='file'><source path='/run/vm.console'/></serial></devices>
         </domain>",
        guest.cmdline
    );
    host.write("/root/vm.xml", domain).await;
    host.run("virsh -c qemu:///system define /root/vm.xml && virsh -c qemu:///system start vm").await;
    host.until("grep 'GUEST up' /run/vm.console", Duration::from_secs(400)).await;
    assert_eq!(host.run("virsh -c qemu:///system domstate vm | head -1").await, "running");
}
