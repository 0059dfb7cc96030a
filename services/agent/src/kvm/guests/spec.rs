//! What a VM is ordered to be, checked before anything is made of it.

use super::flavour::{self, Bus, Flavour};
use super::xml;
use crate::lease::lease_pool;
use aws_lc_rs::digest::{SHA256, digest};
use contract::ApiError;
use contract_agent::{VmCd, VmNic, VmSpec};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// libvirt and QEMU take longer names; files of them must fit, too.
const LONGEST_NAME: usize = 60;
/// Longest line for people.
const LONGEST_TITLE: usize = 200;
/// More processors than any machine type of QEMU takes.
const MOST_CPUS: u32 = 710;
/// Devices of one kind.
const MOST_DEVICES: u32 = 1 << 10;
/// A guest with less has no room for its firmware.
const LEAST_MEMORY: u64 = 1 << 20;
/// More than any machine has.
const MOST_MEMORY: u64 = 1 << 50;

/// A VM's specification, fit to be made a domain of.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub uuid: Uuid,
    pub name: String,
    /// A line for people.
    pub title: String,
    pub cpus: u32,
    pub cpu_mhz: u32,
    pub limit_cpu: bool,
    pub memory_kib: u64,
    pub flavour: Flavour,
    /// libvirt's model of network cards.
    pub nic_model: &'static str,
    /// By device number.
    pub nics: Vec<VmNic>,
    /// By device number.
    pub disks: Vec<Disk>,
    /// What lies in its CD drive.
    pub cd: Option<Cd>,
    pub generation: i64,
    /// The pool of its lease; empty: it has no disks.
    pub pool: String,
    /// Of all that a domain is made of but its disks and its CD, which come and go.
    pub digest: String,
}

/// An ISO to be put into a CD drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cd {
    pub iso: Uuid,
    pub pool: String,
}

impl Cd {
    /// Checks an order.
    ///
    /// # Errors
    /// 431 that says what is wrong.
    pub fn of(cd: &VmCd) -> Result<Cd, ApiError> {
        Ok(Cd { iso: uuid("ISO", &cd.iso_uuid)?, pool: uuid("pool", &cd.pool_uuid)?.to_string() })
    }
}

/// A disk to plug in.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub volume: Uuid,
    pub device_id: u32,
    pub pool: String,
    pub path: String,
    pub root: bool,
    pub bus: Bus,
    /// The device's name: `vda`.
    pub target: String,
}

fn refused(what: impl std::fmt::Display) -> ApiError {
    ApiError::param(format!("The host can't make a VM of this: {what}"))
}

/// A UUID in the one form in which it names things.
pub(super) fn uuid(what: &str, text: &str) -> Result<Uuid, ApiError> {
    let uuid = Uuid::parse_str(text).ok().filter(|uuid| uuid.to_string() == text);
    uuid.ok_or_else(|| refused(format!("{text:?} is no UUID of a {what}")))
}

/// A name that may be part of a file's.
fn name(text: &str) -> Result<String, ApiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let fits = begins && text.len() <= LONGEST_NAME && text.chars().all(plain);
    fits.then(|| text.to_owned()).ok_or_else(|| refused(format!("{text:?} is no name of an instance")))
}

/// Tenants choose it: what can't be shown is left out instead of refused.
fn title(text: &str) -> String {
    text.chars().filter(|c| xml::fits(*c) && !c.is_control()).take(LONGEST_TITLE).collect()
}

fn mac(text: &str) -> Result<(), ApiError> {
    let bytes: Vec<Option<u8>> = text
        .split(':')
        .map(|byte| {
            let digits = byte.len() == 2 && byte.bytes().all(|c| c.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(byte, 16).ok()).flatten()
        })
        .collect();
    // One of a group of stations is no station's.
    let fits = bytes.len() == 6 && bytes.iter().all(Option::is_some) && bytes[0].is_some_and(|first| first & 1 == 0);
    fits.then_some(()).ok_or_else(|| refused(format!("{text:?} is no MAC address")))
}

impl Checked {
    /// Checks an order.
    ///
    /// # Errors
    /// 431 that says what is wrong.
    pub fn of(spec: &VmSpec) -> Result<Checked, ApiError> {
        if !(1..=MOST_CPUS).contains(&spec.cpus) {
            return Err(refused(format!("{} processors", spec.cpus)));
        }
        if !(LEAST_MEMORY..=MOST_MEMORY).contains(&spec.memory_bytes) {
            return Err(refused(format!("{} bytes of memory", spec.memory_bytes)));
        }
        if spec.generation < 1 {
            return Err(refused(format!("generation {}", spec.generation)));
        }
        let details: BTreeMap<String, &str> =
            spec.details.iter().map(|(key, value)| (key.to_ascii_lowercase(), value.as_str())).collect();
        let mut flavour = flavour::of(&spec.os_type);
        let controller = |detail: &str| match details.get(detail) {
            None => Ok(None),
            Some(name) => Bus::named(name).map(Some).ok_or_else(|| refused(format!("disk controller {name:?}"))),
        };
        if let Some(bus) = controller("rootdiskcontroller")? {
            flavour.disks = bus;
        }
        let data = controller("datadiskcontroller")?.unwrap_or(flavour.disks);
        Ok(Checked {
            uuid: uuid("VM", &spec.uuid)?,
            name: name(&spec.instance_name)?,
            title: title(&spec.display_name),
            cpus: spec.cpus,
            cpu_mhz: spec.cpu_mhz,
            limit_cpu: spec.limit_cpu,
            memory_kib: spec.memory_bytes.div_ceil(1024),
            flavour,
            nic_model: nic_model(details.get("nicadapter").copied(), flavour)?,
            nics: nics(spec)?,
            disks: disks(spec, flavour, data)?,
            cd: spec.cd.as_ref().map(Cd::of).transpose()?,
            generation: spec.generation,
            pool: match lease_pool(spec) {
                "" => String::new(),
                pool => uuid("pool", pool)?.to_string(),
            },
            digest: digest_of(spec),
        })
    }
}

fn nic_model(wanted: Option<&str>, flavour: Flavour) -> Result<&'static str, ApiError> {
    let Some(wanted) = wanted else { return Ok(flavour.nics) };
    let known = ["virtio", "e1000", "rtl8139", "ne2k_pci", "pcnet", "vmxnet3", "e1000e"];
    let found = known.into_iter().find(|model| model.eq_ignore_ascii_case(wanted));
    found.ok_or_else(|| refused(format!("network card {wanted:?}")))
}

/// Checks what names a NIC.
pub(super) fn check_nic(nic: &VmNic) -> Result<(), ApiError> {
    uuid("NIC", &nic.uuid)?;
    mac(&nic.mac)
}

fn nics(spec: &VmSpec) -> Result<Vec<VmNic>, ApiError> {
    let mut nics = spec.nics.clone();
    let mut seen = BTreeSet::new();
    for nic in &nics {
        check_nic(nic)?;
        if !seen.insert(nic.device_id) || nic.device_id >= MOST_DEVICES {
            return Err(refused(format!("NIC number {}", nic.device_id)));
        }
    }
    nics.sort_by_key(|nic| nic.device_id);
    Ok(nics)
}

fn disks(spec: &VmSpec, flavour: Flavour, data: Bus) -> Result<Vec<Disk>, ApiError> {
    let mut disks = Vec::new();
    let (mut seen, mut volumes) = (BTreeSet::new(), BTreeSet::new());
    for disk in &spec.disks {
        if !seen.insert(disk.device_id) || disk.device_id >= MOST_DEVICES {
            return Err(refused(format!("disk number {}", disk.device_id)));
        }
        let volume = uuid("volume", &disk.volume_uuid)?;
        if !volumes.insert(volume) {
            return Err(refused(format!("volume {volume} is plugged in twice")));
        }
        let bus = bus(if disk.root { flavour.disks } else { data }, disk.device_id);
        disks.push(Disk {
            volume,
            device_id: disk.device_id,
            pool: uuid("pool", &disk.pool_uuid)?.to_string(),
            path: disk.path.clone(),
            root: disk.root,
            bus,
            target: target(bus, disk.device_id),
        });
    }
    disks.sort_by_key(|disk| disk.device_id);
    Ok(disks)
}

/// There are four places for IDE, of which the third is the CD drive's.
fn bus(wanted: Bus, device_id: u32) -> Bus {
    match (wanted, device_id) {
        (Bus::Ide, 0 | 1 | 3) => Bus::Ide,
        (Bus::Ide, _) => Bus::Virtio,
        (bus, _) => bus,
    }
}

/// The name of a disk's device: `vda` … `vdz`, `vdaa` …
pub(super) fn target(bus: Bus, device_id: u32) -> String {
    let mut letters = Vec::new();
    let mut rest = device_id;
    loop {
        letters.push(char::from(b'a' + u8::try_from(rest % 26).unwrap_or(0)));
        rest /= 26;
        if rest == 0 {
            break;
        }
        rest -= 1;
    }
    let letters: String = letters.into_iter().rev().collect();
    format!("{}{letters}", bus.prefix())
}

/// Secrets aren't part of it: they don't reach the domain.
fn digest_of(spec: &VmSpec) -> String {
    let details: BTreeMap<&String, &String> = spec.details.iter().collect();
    let plain = VmSpec {
        disks: Vec::new(),
        cd: None,
        details: Default::default(),
        user_data: None,
        ssh_public_key: None,
        ..spec.clone()
    };
    let mut bytes = plain.encode_to_vec();
    for (key, value) in details {
        for text in [key, value] {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    digest(&SHA256, &bytes).as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
pub(super) mod tests {
    use super::*;
    use contract_agent::VmDisk;

    pub fn vm() -> VmSpec {
        VmSpec {
            uuid: "6b1f4a0e-0000-4000-8000-000000000001".into(),
            instance_name: "i-2-3-VM".into(),
            display_name: "<web> & \u{1b}co".into(),
            cpus: 2,
            cpu_mhz: 500,
            memory_bytes: 64 << 20,
            os_type: "CentOS 7".into(),
            nics: vec![VmNic {
                uuid: "6b1f4a0e-0000-4000-8000-00000000000a".into(),
                mac: "02:00:4c:00:00:01".into(),
                broadcast_uri: "vlan://77".into(),
                default_nic: true,
                rate_mbps: 200,
                ..VmNic::default()
            }],
            disks: vec![
                VmDisk {
                    volume_uuid: "6b1f4a0e-0000-4000-8000-0000000000d1".into(),
                    device_id: 1,
                    pool_uuid: "6b1f4a0e-0000-4000-8000-0000000000ff".into(),
                    path: "data".into(),
                    ..VmDisk::default()
                },
                VmDisk {
                    volume_uuid: "6b1f4a0e-0000-4000-8000-0000000000d0".into(),
                    pool_uuid: "6b1f4a0e-0000-4000-8000-0000000000ff".into(),
                    path: "root".into(),
                    root: true,
                    ..VmDisk::default()
                },
            ],
            generation: 4,
            ..VmSpec::default()
        }
    }

    #[test]
    fn orders_are_checked() {
        let checked = Checked::of(&vm()).unwrap();
        assert_eq!(checked.title, "<web> & co");
        let targets: Vec<&str> = checked.disks.iter().map(|disk| disk.target.as_str()).collect();
        assert_eq!(targets, ["vda", "vdb"]);
        assert_eq!(checked.pool, "6b1f4a0e-0000-4000-8000-0000000000ff");
        let bad: &[fn(&mut VmSpec)] = &[
            |vm| vm.uuid = "6B1F4A0E-0000-4000-8000-000000000001".into(),
            |vm| vm.uuid = "x".into(),
            |vm| vm.instance_name = "../x".into(),
            |vm| vm.instance_name = "a b".into(),
            |vm| vm.instance_name = "a".repeat(61),
            |vm| vm.instance_name = String::new(),
            |vm| vm.cpus = 0,
            |vm| vm.cpus = 100_000,
            |vm| vm.memory_bytes = 0,
            |vm| vm.memory_bytes = u64::MAX,
            |vm| vm.generation = 0,
            |vm| vm.nics[0].mac = "02:00:4c:00:00".into(),
            |vm| vm.nics[0].mac = "+2:00:4c:00:00:01".into(),
            |vm| vm.nics[0].mac = "03:00:4c:00:00:01".into(),
            |vm| vm.nics[0].uuid = "'/>".into(),
            |vm| vm.disks[0].device_id = 0,
            |vm| vm.disks[0].volume_uuid = vm.disks[1].volume_uuid.clone(),
            |vm| vm.disks[1].pool_uuid = "..".into(),
            |vm| drop(vm.details.insert("rootDiskController".into(), "floppy".into())),
            |vm| drop(vm.details.insert("nicAdapter".into(), "'x".into())),
            |vm| vm.cd = Some(VmCd { iso_uuid: "../x".into(), pool_uuid: vm.disks[1].pool_uuid.clone() }),
            |vm| vm.cd = Some(VmCd { iso_uuid: vm.uuid.clone(), pool_uuid: String::new() }),
        ];
        for (n, change) in bad.iter().enumerate() {
            let mut vm = vm();
            change(&mut vm);
            assert_eq!(Checked::of(&vm).unwrap_err().code, 431, "number {n}");
        }
    }

    #[test]
    fn old_systems_get_old_devices() {
        let mut vm = vm();
        vm.os_type = "Other (64-bit)".into();
        vm.disks[0].device_id = 2;
        let checked = Checked::of(&vm).unwrap();
        let targets: Vec<&str> = checked.disks.iter().map(|disk| disk.target.as_str()).collect();
        assert_eq!((targets, checked.nic_model), (vec!["hda", "vdc"], "e1000"));
        vm.details.insert("rootDiskController".into(), "scsi".into());
        vm.details.insert("nicAdapter".into(), "Virtio".into());
        let checked = Checked::of(&vm).unwrap();
        assert_eq!((checked.disks[0].target.as_str(), checked.nic_model), ("sda", "virtio"));
    }

    #[test]
    fn names_of_devices_go_on_after_z() {
        let named: Vec<String> = [0, 25, 26, 27, 701, 702].map(|n| target(Bus::Virtio, n)).to_vec();
        assert_eq!(named, ["vda", "vdz", "vdaa", "vdab", "vdzz", "vdaaa"]);
    }

    #[test]
    fn the_digest_tells_specifications_apart_but_not_their_disks_and_secrets() {
        let first = Checked::of(&vm()).unwrap().digest;
        let mut other = vm();
        other.disks.pop();
        other.user_data = Some("c2VjcmV0".into());
        other.cd = Some(VmCd { iso_uuid: other.uuid.clone(), pool_uuid: other.disks[0].pool_uuid.clone() });
        for n in 0..20 {
            other.details.insert(format!("k{n}"), "v".into());
        }
        let detailed = Checked::of(&other).unwrap().digest;
        assert_ne!(first, detailed);
        assert_eq!(Checked::of(&other.clone()).unwrap().digest, detailed);
        other.details.clear();
        assert_eq!(Checked::of(&other).unwrap().digest, first);
        other.cpus = 3;
        assert_ne!(Checked::of(&other).unwrap().digest, first);
    }
}
