//! The XML of domains, and what is read from it.

use super::flavour::Bus;
use super::spec::{Checked, Disk};
use super::xml::Element;
use crate::kvm::probe::Acceleration;
use crate::kvm::storage::DiskFile;
use contract_agent::VmNic;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The namespace of our own facts in a domain's metadata.
pub(super) const NAMESPACE: &str = "urn:arcus:vm:1";
/// What stands for it.
pub(super) const PREFIX: &str = "arcus";
/// Its element, with the prefix that it is always written with.
const FACTS: &str = "arcus:vm";
const NIC_FACTS: &str = "arcus:nic";
/// The volume that is a container's root: libvirt has no word for it.
pub(super) const ROOT_FACTS: &str = "arcus:root";
/// Its attribute of copies that wait.
const WAITS: &str = "waits";
/// libvirt keeps names of devices that begin so.
const OWN_ALIAS: &str = "ua-";
/// Our name of the CD drive: every machine has one, at the third place for IDE.
pub(super) const DRIVE: &str = "cd";
const DRIVE_TARGET: &str = "hdc";
/// The firmware looks there first, as 4.11 has it; an empty drive is passed over.
const DRIVE_ORDER: u32 = 1;
/// The kernel's accounting period of CPU limits, microseconds.
const PERIOD: u64 = 10_000;
/// Smallest part of a period that the kernel takes.
const LEAST_QUOTA: u64 = 1_000;
/// Longest period that the kernel takes.
const LONGEST_PERIOD: u64 = 1_000_000;
/// Greatest shares of control groups of version 1.
const MOST_SHARES: u64 = 262_144;
/// The same of version 2, where they are a weight.
const MOST_WEIGHT: u64 = 10_000;
/// The serial number of a disk that a guest reads has at most so many characters.
const SERIAL: usize = 20;
/// Where virtlogd keeps what guests say on their first serial line; it bounds the files.
pub(super) const CONSOLES: &str = "/var/log/libvirt/qemu";

/// What the host brings to a domain.
pub(super) struct Place<'p> {
    pub acceleration: &'p Acceleration,
    /// libvirt's name of a CPU; none: the host's.
    pub cpu_model: Option<&'p str>,
    /// Whether there are control groups for CPU time.
    pub cpu_limits: Option<CpuGroups>,
    /// Bridge and largest frame of each NIC.
    pub plugs: Vec<(String, Option<u32>)>,
    /// The file of each disk.
    pub files: Vec<DiskFile>,
    /// The file in the CD drive.
    pub cd: Option<PathBuf>,
}

/// The control groups of a host, and what all of its CPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuGroups {
    /// Version 2.
    pub unified: bool,
    pub host_mhz: u64,
    pub host_cpus: u64,
}

/// A domain.
pub(super) fn domain(vm: &Checked, place: &Place<'_>) -> Element {
    let kvm = *place.acceleration == Acceleration::Kvm;
    let mut domain = Element::new("domain")
        .with("type", place.acceleration.domain_type())
        .leaf("name", &vm.name)
        .leaf("uuid", vm.uuid)
        .child(Element::new("metadata").child(facts(vm, false)));
    if !vm.title.is_empty() {
        domain = domain.leaf("title", &vm.title);
    }
    domain
        .child(Element::new("memory").with("unit", "KiB").text(vm.memory_kib))
        .child(Element::new("currentMemory").with("unit", "KiB").text(vm.memory_kib))
        .child(Element::new("vcpu").with("placement", "static").text(vm.cpus))
        .children(place.cpu_limits.map(|groups| cputune(vm, groups)))
        .child(smbios(vm))
        .child(
            Element::new("os")
                .child(Element::new("type").with("arch", std::env::consts::ARCH).with("machine", "pc").text("hvm"))
                .child(Element::new("smbios").with("mode", "sysinfo")),
        )
        .child(features(vm, kvm))
        .child(cpu(vm, place.cpu_model, kvm))
        .child(clock(vm, kvm))
        .leaf("on_poweroff", "destroy")
        .leaf("on_reboot", "restart")
        .leaf("on_crash", "destroy")
        .child(devices(vm, place))
}

/// Our own facts of a VM. `waits`: it is a copy that waits for what moves here.
pub(super) fn facts(vm: &Checked, waits: bool) -> Element {
    let mut facts = Element::new(FACTS)
        .with("xmlns:arcus", NAMESPACE)
        .with("generation", vm.generation)
        .with("pool", &vm.pool)
        .with("spec", &vm.digest);
    if waits {
        facts.set(WAITS, "yes");
    }
    facts.children(vm.nics.iter().map(|nic| Element::new(NIC_FACTS).with("uri", &nic.broadcast_uri)))
}

/// The same without the namespace, which libvirt adds when metadata is set.
pub(super) fn plain_facts(described: &Described) -> Element {
    Element::new("vm")
        .with("generation", described.generation)
        .with("pool", &described.pool)
        .with("spec", &described.digest)
        .children(described.nics.iter().map(|nic| Element::new("nic").with("uri", &nic.broadcast_uri)))
}

pub(super) fn cputune(vm: &Checked, groups: CpuGroups) -> Element {
    let (cpus, mhz) = (u64::from(vm.cpus), u64::from(vm.cpu_mhz).max(1));
    let (host_mhz, host_cpus) = (groups.host_mhz.max(1), groups.host_cpus.max(1));
    let shares = match groups.unified {
        true => (cpus * mhz * MOST_WEIGHT / (host_mhz * host_cpus)).clamp(2, MOST_WEIGHT),
        false => (cpus * mhz).clamp(2, MOST_SHARES),
    };
    let mut tune = Element::new("cputune").leaf("shares", shares);
    if vm.limit_cpu && mhz < host_mhz {
        // Of each processor; a slow one is accounted for over a longer period.
        let quota = (PERIOD * mhz / host_mhz).max(LEAST_QUOTA);
        let period = (quota * host_mhz / mhz).min(LONGEST_PERIOD);
        tune = tune.leaf("period", period).leaf("quota", quota);
    }
    tune
}

/// By these names guests' cloud-init finds that it is to ask CloudStack's metadata service.
fn smbios(vm: &Checked) -> Element {
    let entry = |name: &str, text: &str| Element::new("entry").with("name", name).text(text);
    Element::new("sysinfo").with("type", "smbios").child(
        Element::new("system")
            .child(entry("manufacturer", "Apache Software Foundation"))
            .child(entry("product", "CloudStack KVM Hypervisor"))
            .child(entry("uuid", &vm.uuid.to_string())),
    )
}

fn features(vm: &Checked, kvm: bool) -> Element {
    let features =
        Element::new("features").child(Element::new("acpi")).child(Element::new("apic")).child(Element::new("pae"));
    if !(vm.flavour.windows && kvm) {
        return features;
    }
    let on = |name: &str| Element::new(name).with("state", "on");
    features.child(
        Element::new("hyperv").child(on("relaxed")).child(on("vapic")).child(on("spinlocks").with("retries", 8191)),
    )
}

fn cpu(vm: &Checked, model: Option<&str>, kvm: bool) -> Element {
    let topology = Element::new("topology").with("sockets", 1).with("cores", vm.cpus).with("threads", 1);
    let cpu = match model {
        Some(model) => Element::new("cpu")
            .with("mode", "custom")
            .with("match", "exact")
            .child(Element::new("model").with("fallback", "allow").text(model)),
        None if kvm => Element::new("cpu").with("mode", "host-model"),
        // An emulated CPU is the same everywhere.
        None => Element::new("cpu"),
    };
    cpu.child(topology)
}

fn clock(vm: &Checked, kvm: bool) -> Element {
    let timer = |name: &str| Element::new("timer").with("name", name);
    let clock = Element::new("clock")
        .with("offset", if vm.flavour.windows { "localtime" } else { "utc" })
        .child(timer("rtc").with("tickpolicy", "catchup"))
        .child(timer("pit").with("tickpolicy", "delay"))
        .child(timer("hpet").with("present", "no"));
    if vm.flavour.windows && kvm { clock.child(timer("hypervclock").with("present", "yes")) } else { clock }
}

fn devices(vm: &Checked, place: &Place<'_>) -> Element {
    let mut boot = DRIVE_ORDER;
    let mut next = || {
        boot += 1;
        boot
    };
    let mut devices = Element::new("devices");
    if vm.disks.iter().any(|disk| disk.bus == Bus::Scsi) {
        devices = devices.child(Element::new("controller").with("type", "scsi").with("model", "virtio-scsi"));
    }
    for (planned, file) in vm.disks.iter().zip(&place.files) {
        devices = devices.child(disk(planned, file, planned.root.then(&mut next)));
    }
    devices = devices.child(drive(place.cd.as_deref()));
    for (nic, (bridge, mtu)) in vm.nics.iter().zip(&place.plugs) {
        devices = devices.child(interface(nic, vm.nic_model, bridge, *mtu, nic.default_nic.then(&mut next)));
    }
    let log = format!("{CONSOLES}/{}-console.log", vm.name);
    devices = devices
        .child(
            Element::new("serial")
                .with("type", "pty")
                .child(Element::new("log").with("file", log).with("append", "on"))
                .child(Element::new("target").with("type", "isa-serial").with("port", 0)),
        )
        .child(
            Element::new("channel")
                .with("type", "unix")
                .child(Element::new("target").with("type", "virtio").with("name", "org.qemu.guest_agent.0")),
        )
        .child(Element::new("input").with("type", "tablet").with("bus", "usb"))
        // Only root reaches the socket, so it needs no password.
        .child(Element::new("graphics").with("type", "vnc").child(Element::new("listen").with("type", "socket")))
        .child(Element::new("video").child(Element::new("model").with("type", "vga")));
    if !vm.flavour.virtio {
        return devices.child(Element::new("memballoon").with("model", "none"));
    }
    devices.child(Element::new("memballoon").with("model", "virtio")).child(
        Element::new("rng")
            .with("model", "virtio")
            .child(Element::new("backend").with("model", "random").text("/dev/urandom")),
    )
}

fn alias(uuid: impl std::fmt::Display) -> Element {
    Element::new("alias").with("name", format!("{OWN_ALIAS}{uuid}"))
}

/// A disk.
pub(super) fn disk(disk: &Disk, file: &DiskFile, boot: Option<u32>) -> Element {
    let serial: String = disk.volume.simple().to_string().chars().take(SERIAL).collect();
    Element::new("disk")
        .with("type", "file")
        .with("device", "disk")
        .child(
            Element::new("driver")
                .with("name", "qemu")
                .with("type", file.format.name())
                // Through the host's cache, a write that the guest knows as done could be lost with the host.
                .with("cache", "none")
                .with("discard", "unmap"),
        )
        .child(Element::new("source").with("file", file.path.display()))
        .children(backing(&file.backing))
        .child(Element::new("target").with("dev", &disk.target).with("bus", disk.bus.name()))
        .leaf("serial", serial)
        .children(boot.map(|order| Element::new("boot").with("order", order)))
        .child(alias(disk.volume))
}

/// The CD drive, and what lies in it.
pub(super) fn drive(file: Option<&Path>) -> Element {
    Element::new("disk")
        .with("type", "file")
        .with("device", "cdrom")
        .children(medium(file))
        .child(Element::new("target").with("dev", DRIVE_TARGET).with("bus", Bus::Ide.name()))
        .child(Element::new("readonly"))
        .child(Element::new("boot").with("order", DRIVE_ORDER))
        .child(alias(DRIVE))
}

/// What of a CD drive depends on what lies in it. An empty one carries no cache mode (REL-172).
pub(super) fn medium(file: Option<&Path>) -> Vec<Element> {
    let format = if file.is_some() { images::Format::Qcow2 } else { images::Format::Raw };
    let driver = Element::new("driver").with("name", "qemu").with("type", format.name());
    std::iter::once(driver).chain(file.map(|file| Element::new("source").with("file", file.display()))).collect()
}

/// What a disk is based on. Said, not left to libvirt to find: AppArmor's helper, which lets a guest open its files and nothing else,
/// can't look into images in our folders.
fn backing(layers: &[(std::path::PathBuf, images::Format)]) -> Option<Element> {
    let ((path, format), below) = layers.split_first()?;
    let layer = Element::new("backingStore")
        .with("type", "file")
        .child(Element::new("format").with("type", format.name()))
        .child(Element::new("source").with("file", path.display()));
    Some(layer.child(backing(below).unwrap_or_else(|| Element::new("backingStore"))))
}

pub(super) fn interface(nic: &VmNic, model: &str, bridge: &str, mtu: Option<u32>, boot: Option<u32>) -> Element {
    Element::new("interface")
        .with("type", "bridge")
        .child(Element::new("mac").with("address", &nic.mac))
        .child(Element::new("source").with("bridge", bridge))
        .child(Element::new("model").with("type", model))
        .children(mtu.map(|bytes| Element::new("mtu").with("size", bytes)))
        .children(boot.map(|order| Element::new("boot").with("order", order)))
        .child(alias(&nic.uuid))
}

/// What a domain's XML says of a VM of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kvm) struct Described {
    pub generation: i64,
    pub pool: String,
    /// See [`Checked::digest`].
    pub digest: String,
    /// It waits for what moves here, and has no lease.
    pub waits: bool,
    pub nics: Vec<VmNic>,
    pub disks: Vec<Plugged>,
    /// Its CD drive; those that were started before there were any have none.
    pub drive: Option<Drive>,
    /// The socket of its screen, by the daemon's path.
    pub vnc: Option<String>,
}

/// A CD drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kvm) struct Drive {
    /// What lies in it.
    pub file: Option<String>,
    /// The guest has opened it.
    pub open: bool,
}

/// A disk that is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kvm) struct Plugged {
    pub volume: Uuid,
    /// `vda`.
    pub target: String,
    pub bus: String,
    pub file: String,
}

impl Plugged {
    /// What libvirt calls it.
    pub fn alias(&self) -> String {
        format!("{OWN_ALIAS}{}", self.volume)
    }
}

impl Described {
    /// None: it isn't a VM of ours.
    ///
    /// # Errors
    /// It can't be read.
    pub fn read(xml: &str) -> Result<Option<Described>, String> {
        let domain = Element::read(xml)?;
        let Some(facts) = domain.at(&["metadata", FACTS]) else { return Ok(None) };
        if facts.attribute("xmlns:arcus") != Some(NAMESPACE) {
            return Ok(None);
        }
        let text = |name: &str| facts.attribute(name).unwrap_or_default().to_owned();
        let generation = text("generation");
        let generation = generation.parse().map_err(|_| format!("generation {generation:?} is no number"))?;
        let nic = |nic: &Element| VmNic {
            broadcast_uri: nic.attribute("uri").unwrap_or_default().to_owned(),
            ..VmNic::default()
        };
        let devices = domain.get("devices").ok_or("it has no devices")?;
        let graphics = devices.all("graphics").find(|graphics| graphics.attribute("type") == Some("vnc"));
        let socket = graphics
            .and_then(|graphics| graphics.attribute("socket").or_else(|| graphics.get("listen")?.attribute("socket")));
        Ok(Some(Described {
            generation,
            pool: text("pool"),
            digest: text("spec"),
            waits: facts.attribute(WAITS).is_some(),
            nics: facts.all(NIC_FACTS).map(nic).collect(),
            disks: devices.all("disk").filter_map(plugged).chain(facts.all(ROOT_FACTS).filter_map(root)).collect(),
            drive: devices.all("disk").find(|disk| own_name(disk) == Some(DRIVE)).map(cd),
            vnc: socket.map(str::to_owned),
        }))
    }

    /// One of its disks.
    pub fn disk(&self, volume: Uuid) -> Option<&Plugged> {
        self.disks.iter().find(|disk| disk.volume == volume)
    }
}

/// A container's root.
fn root(facts: &Element) -> Option<Plugged> {
    let volume = Uuid::parse_str(facts.attribute("volume")?).ok()?;
    Some(Plugged { volume, target: String::new(), bus: String::new(), file: String::new() })
}

fn cd(drive: &Element) -> Drive {
    let file = drive.get("source").and_then(|source| source.attribute("file"));
    let tray = drive.get("target").and_then(|target| target.attribute("tray"));
    Drive { file: file.map(str::to_owned), open: tray == Some("open") }
}

/// The UUID that a device of ours has its name of.
pub(super) fn own_name(device: &Element) -> Option<&str> {
    device.get("alias")?.attribute("name")?.strip_prefix(OWN_ALIAS)
}

fn plugged(disk: &Element) -> Option<Plugged> {
    let target = disk.get("target")?;
    Some(Plugged {
        volume: Uuid::parse_str(own_name(disk)?).ok()?,
        target: target.attribute("dev")?.to_owned(),
        bus: target.attribute("bus").unwrap_or_default().to_owned(),
        file: disk.get("source")?.attribute("file").unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::super::spec::tests::vm;
    use super::*;
    use images::Format;

    fn place(acceleration: &Acceleration) -> Place<'_> {
        let file = |name: &str| DiskFile {
            path: format!("/pool/<{name}>").into(),
            format: Format::Qcow2,
            backing: Vec::new(),
        };
        Place {
            acceleration,
            cpu_model: None,
            cpu_limits: Some(CpuGroups { unified: false, host_mhz: 2000, host_cpus: 4 }),
            plugs: vec![("breth1-77".into(), Some(1450))],
            files: vec![file("root"), file("data")],
            cd: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let checked = Checked::of(&vm()).unwrap();
        let xml = domain(&checked, &place(&Acceleration::Kvm)).write().unwrap();
        let read = Described::read(&xml).unwrap().unwrap();
        assert_eq!((read.generation, read.pool, read.digest), (4, checked.pool, checked.digest));
        assert_eq!(read.nics[0].broadcast_uri, "vlan://77");
        let disk = &read.disks[0];
        assert_eq!((disk.target.as_str(), disk.file.as_str()), ("vda", "/pool/<root>"));
        assert_eq!(disk.alias(), "ua-6b1f4a0e-0000-4000-8000-0000000000d0");
        assert!(xml.contains("<title>&lt;web&gt; &amp; co</title>"), "{xml}");
        assert!(xml.contains("<mtu size=\"1450\"/>") && !xml.contains("bandwidth"), "rates are `rates.rs`'s");
        assert!(xml.contains("<domain type=\"kvm\">") && xml.contains("host-model"));
        assert_eq!(Described::read("<domain><metadata/><devices/></domain>").unwrap(), None);
        let foreign = "<domain><metadata><arcus:vm xmlns:arcus='x'/></metadata><devices/></domain>";
        assert_eq!(Described::read(foreign).unwrap(), None);
    }

    // covers: REL-172
    #[test]
    fn a_cd_drive_is_there_and_comes_first() {
        let checked = Checked::of(&vm()).unwrap();
        let empty = place(&Acceleration::Kvm);
        let xml = domain(&checked, &empty).write().unwrap();
        let read = Described::read(&xml).unwrap().unwrap();
        assert_eq!(read.drive, Some(Drive { file: None, open: false }));
        assert_eq!(read.disks.len(), 2, "it is no volume: {xml}");
        assert!(!drive(None).write().unwrap().contains("cache"));
        let full = Place { cd: Some("/pool/template-<x>".into()), ..empty };
        let xml = domain(&checked, &full).write().unwrap();
        let read = Described::read(&xml).unwrap().unwrap();
        assert_eq!(read.drive, Some(Drive { file: Some("/pool/template-<x>".into()), open: false }));
        let devices = Element::read(&xml).unwrap().get("devices").unwrap().clone();
        let order = |device: &Element| device.get("boot")?.attribute("order").map(str::to_owned);
        let first = devices.children.iter().find(|device| order(device).as_deref() == Some("1")).unwrap();
        assert!(first.attribute("device") == Some("cdrom") && first.get("readonly").is_some(), "{xml}");
        assert_eq!(devices.children.iter().filter_map(order).count(), 3, "drive, root and NIC");
        let opened = xml.replace("dev=\"hdc\"", "dev=\"hdc\" tray=\"open\"");
        assert!(Described::read(&opened).unwrap().unwrap().drive.unwrap().open);
    }

    #[test]
    fn a_disk_names_all_that_it_is_based_on() {
        let backing = vec![("/pool/over".into(), Format::Qcow2), ("/pool/base".into(), Format::Raw)];
        let file = DiskFile { path: "/pool/root".into(), format: Format::Qcow2, backing };
        let xml = disk(&Checked::of(&vm()).unwrap().disks[0], &file, None).write().unwrap();
        let flat: String = xml.split_whitespace().collect();
        let chain = "<backingStoretype=\"file\"><formattype=\"qcow2\"/><sourcefile=\"/pool/over\"/><backingStoretype=\"file\">\
                     <formattype=\"raw\"/><sourcefile=\"/pool/base\"/><backingStore/></backingStore></backingStore>";
        assert!(flat.contains(chain), "{xml}");
        assert!(
            !disk(&Checked::of(&vm()).unwrap().disks[0], &DiskFile { backing: Vec::new(), ..file }, None)
                .write()
                .unwrap()
                .contains("backingStore")
        );
    }

    #[test]
    fn limits_follow_the_host() {
        let mut vm = vm();
        vm.limit_cpu = true;
        let groups = CpuGroups { unified: false, host_mhz: 2000, host_cpus: 4 };
        let texts = |vm: &contract_agent::VmSpec, groups| {
            let tune = cputune(&Checked::of(vm).unwrap(), groups);
            ["shares", "period", "quota"].map(|name| tune.get(name).map(|e| e.text.clone()).unwrap_or_default())
        };
        assert_eq!(texts(&vm, groups), ["1000", "10000", "2500"]);
        assert_eq!(texts(&vm, CpuGroups { unified: true, ..groups })[0], "1250");
        vm.cpu_mhz = 50;
        assert_eq!(texts(&vm, groups), ["100", "40000", "1000"]);
        vm.cpu_mhz = 3000;
        assert_eq!(texts(&vm, groups), ["6000", "", ""]);
    }
}
