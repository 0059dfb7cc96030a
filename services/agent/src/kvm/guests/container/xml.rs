//! A VM as libvirt's XML for containers. It is read back as machines are ([`super::super::domain::Described`]).

use crate::kvm::guests::domain::{self, CpuGroups};
use crate::kvm::guests::spec::{Checked, Disk};
use crate::kvm::guests::xml::Element;
use contract::ApiError;
use images::Ids;
use std::path::Path;

/// What is process 1: the first that systems have.
const INIT: &str = "/sbin/init";
/// The kernel's accounting period of CPU limits, microseconds.
const PERIOD: u64 = 100_000;
/// Smallest part of a period that the kernel takes.
const LEAST_QUOTA: u64 = 1_000;

/// What the host brings to a container.
pub(super) struct Place<'p> {
    /// The folder that is its root.
    pub root: &'p Path,
    pub ids: Ids,
    /// Whether there are control groups for CPU time.
    pub cpu_limits: Option<CpuGroups>,
    /// Bridge and largest frame of each NIC.
    pub plugs: Vec<(String, Option<u32>)>,
}

/// The one disk of a container.
///
/// # Errors
/// 431: there is none, or more.
pub(super) fn root_of(vm: &Checked) -> Result<&Disk, ApiError> {
    match vm.disks.as_slice() {
        [root] if root.root => Ok(root),
        [] => Err(ApiError::unsupported("A container needs a ROOT disk that is made from a TAR template")),
        _ => Err(ApiError::unsupported("Containers have a ROOT disk and no others: detach the data disks")),
    }
}

/// A domain.
///
/// # Errors
/// As [`root_of`].
pub(super) fn domain(vm: &Checked, place: &Place<'_>) -> Result<Element, ApiError> {
    let root = Element::new(domain::ROOT_FACTS).with("volume", root_of(vm)?.volume);
    let mut domain = Element::new("domain")
        .with("type", "lxc")
        .leaf("name", &vm.name)
        .leaf("uuid", vm.uuid)
        .child(Element::new("metadata").child(domain::facts(vm, false).child(root)));
    if !vm.title.is_empty() {
        domain = domain.leaf("title", &vm.title);
    }
    let ids =
        |name: &str| Element::new(name).with("start", 0).with("target", place.ids.first).with("count", Ids::COUNT);
    Ok(domain
        .child(Element::new("memory").with("unit", "KiB").text(vm.memory_kib))
        .child(Element::new("currentMemory").with("unit", "KiB").text(vm.memory_kib))
        .child(Element::new("vcpu").with("placement", "static").text(vm.cpus))
        .children(place.cpu_limits.map(|groups| cputune(vm, groups)))
        .child(Element::new("os").leaf("type", "exe").leaf("init", INIT))
        .child(Element::new("idmap").child(ids("uid")).child(ids("gid")))
        // Without it a container without NICs would have the host's network.
        .child(Element::new("features").child(Element::new("privnet")))
        .leaf("on_poweroff", "destroy")
        .leaf("on_reboot", "restart")
        .leaf("on_crash", "destroy")
        .child(devices(vm, place)))
}

/// Shares as machines have them. The limit is of all processors together: a container sees all that the host has.
fn cputune(vm: &Checked, groups: CpuGroups) -> Element {
    let shares = domain::cputune(vm, groups).get("shares").cloned();
    let (cpus, mhz, host_mhz) = (u64::from(vm.cpus), u64::from(vm.cpu_mhz).max(1), groups.host_mhz.max(1));
    let each = if vm.limit_cpu && mhz < host_mhz { PERIOD * mhz / host_mhz } else { PERIOD };
    let tune = Element::new("cputune").children(shares);
    if cpus * each >= groups.host_cpus.max(1) * PERIOD {
        return tune;
    }
    tune.leaf("period", PERIOD).leaf("quota", (cpus * each).max(LEAST_QUOTA))
}

fn devices(vm: &Checked, place: &Place<'_>) -> Element {
    let root = Element::new("filesystem")
        .with("type", "mount")
        .with("accessmode", "passthrough")
        .child(Element::new("source").with("dir", place.root.display()))
        .child(Element::new("target").with("dir", "/"));
    let nics = vm.nics.iter().zip(&place.plugs);
    Element::new("devices")
        .child(root)
        .children(nics.map(|(nic, (bridge, mtu))| domain::interface(nic, vm.nic_model, bridge, *mtu, None)))
        .child(Element::new("console").with("type", "pty"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use crate::kvm::guests::domain::Described;
    use crate::kvm::guests::spec::tests::vm;

    fn place(groups: CpuGroups) -> Place<'static> {
        Place {
            root: Path::new("/mnt/<vm>"),
            ids: Ids { first: 70_000 },
            cpu_limits: Some(groups),
            plugs: vec![("breth1-77".into(), Some(1450))],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let groups = CpuGroups { unified: false, host_mhz: 2000, host_cpus: 4 };
        let mut spec = vm();
        let both = Checked::of(&spec).unwrap();
        assert_eq!(domain(&both, &place(groups)).unwrap_err().code, 431, "no data disks");
        spec.disks.retain(|disk| disk.root);
        let checked = Checked::of(&spec).unwrap();
        let xml = domain(&checked, &place(groups)).unwrap().write().unwrap();
        let read = Described::read(&xml).unwrap().unwrap();
        assert_eq!((read.generation, read.pool, read.digest), (4, checked.pool.clone(), checked.digest.clone()));
        assert_eq!((read.disks.len(), read.disks[0].volume), (1, checked.disks[0].volume));
        assert!(
            xml.contains("<uid start=\"0\" target=\"70000\" count=\"65536\"/>") && xml.contains("<privnet/>"),
            "{xml}"
        );
        assert!(xml.contains("dir=\"/mnt/&lt;vm&gt;\""), "{xml}");
        // Two of four processors.
        assert!(xml.contains("<period>100000</period><quota>200000</quota>"), "{xml}");
        let one = CpuGroups { host_cpus: 2, ..groups };
        assert_eq!(cputune(&checked, one).get("quota"), None, "all of the host's");
        spec.limit_cpu = true;
        let slow = cputune(&Checked::of(&spec).unwrap(), groups);
        assert_eq!(slow.get("quota").unwrap().text, "50000", "500 of 2000 MHz, twice");
    }
}
