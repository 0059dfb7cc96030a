//! The domain that a source offers, made fit for this host: bridges, files, CPU limits and our own facts are this host's, and
//! whatever the guest sees stays as it is.

use crate::kvm::guests::domain::{self, Described, Place};
use crate::kvm::guests::spec::Checked;
use crate::kvm::guests::xml::Element;
use contract::ApiError;
use std::collections::BTreeSet;

fn refused(what: impl std::fmt::Display) -> ApiError {
    ApiError::failed(format!("The host can't take the VM: {what}"))
}

/// A domain that waits, paused, for the guest's memory. `as_is`: the CPU isn't compared with the host's.
///
/// # Errors
/// 530: it isn't the VM that was ordered, or no guest for this host; the text says why.
pub(super) fn arriving(offer: &str, vm: &Checked, place: &Place<'_>, as_is: bool) -> Result<String, ApiError> {
    let unreadable = |e: String| refused(format!("the source's description can't be read: {e}"));
    let mut domain = Element::read(offer).map_err(unreadable)?;
    if Described::read(offer).map_err(unreadable)?.is_none() {
        return Err(refused("what the source offers is no VM of ours"));
    }
    for (name, ordered) in [("name", vm.name.clone()), ("uuid", vm.uuid.to_string())] {
        let offered = domain.get(name).map(|element| element.text.trim()).unwrap_or_default();
        if offered != ordered {
            return Err(refused(format!("its {name} is {offered:?}, not {ordered:?}")));
        }
    }
    let (here, there) = (place.acceleration.domain_type(), domain.attribute("type").unwrap_or_default());
    if here != there {
        let told = |kind: &str| if kind == "kvm" { "by its processor (kvm)" } else { "emulated (tcg)" };
        return Err(refused(format!("it runs {} where it is, and here guests run {}", told(there), told(here))));
    }
    domain.put(Element::new("metadata").child(domain::facts(vm, true)));
    domain.children.retain(|child| child.name != "cputune");
    domain.children.extend(place.cpu_limits.map(|groups| domain::cputune(vm, groups)));
    if as_is && let Some(cpu) = domain.get_mut("cpu") {
        cpu.set("check", "none");
    }
    let devices = domain.get_mut("devices").ok_or_else(|| refused("it has no devices"))?;
    plug_in(devices, vm, place)?;
    domain.write().map_err(refused)
}

/// Every card and every disk must be the ordered ones: no other, and none less.
fn plug_in(devices: &mut Element, vm: &Checked, place: &Place<'_>) -> Result<(), ApiError> {
    let mut found = BTreeSet::new();
    for device in &mut devices.children {
        let name = domain::own_name(device).unwrap_or_default().to_owned();
        match device.name.as_str() {
            "interface" => {
                let mut plugs = vm.nics.iter().zip(&place.plugs);
                let Some((_, (bridge, mtu))) = plugs.find(|(nic, _)| nic.uuid == name) else {
                    return Err(refused(format!("it has network card {name:?}, which wasn't ordered")));
                };
                device.put(Element::new("source").with("bridge", bridge));
                device.children.retain(|child| child.name != "mtu" && child.name != "target");
                device.children.extend(mtu.map(|bytes| Element::new("mtu").with("size", bytes)));
            }
            // What is ordered lies in it, as the guest has it.
            "disk" if name == domain::DRIVE => {
                device.children.retain(|child| !["driver", "source", "backingStore"].contains(&child.name.as_str()));
                drop(device.children.splice(0..0, domain::medium(place.cd.as_deref())));
            }
            "disk" => {
                let mut files = vm.disks.iter().zip(&place.files);
                let Some((_, file)) = files.find(|(disk, _)| disk.volume.to_string() == name) else {
                    return Err(refused(format!("it has volume {name:?}, which wasn't ordered")));
                };
                let format = device.get("driver").and_then(|driver| driver.attribute("type")).unwrap_or_default();
                if format != file.format.name() {
                    let here = file.format.name();
                    return Err(refused(format!("volume {name} is {format:?} where it runs, and {here:?} here")));
                }
                let source = device.get_mut("source").ok_or_else(|| refused(format!("volume {name} has no file")))?;
                source.set("file", file.path.display());
            }
            _ => continue,
        }
        found.insert(name);
    }
    if vm.cd.is_some() && !found.contains(domain::DRIVE) {
        return Err(refused("it has no CD drive, and a CD was ordered: stop it and start it to have one"));
    }
    let ordered = vm.nics.iter().map(|nic| nic.uuid.clone()).chain(vm.disks.iter().map(|disk| disk.volume.to_string()));
    match ordered.into_iter().find(|device| !found.contains(device)) {
        Some(missing) => Err(refused(format!("it doesn't have device {missing}, which was ordered"))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use crate::kvm::guests::domain::CpuGroups;
    use crate::kvm::guests::spec::tests::vm;
    use crate::kvm::probe::Acceleration;
    use crate::kvm::storage::DiskFile;
    use images::Format;

    fn place<'p>(acceleration: &'p Acceleration, bridge: &str, folder: &str) -> Place<'p> {
        let file = |name: &str| DiskFile {
            path: format!("{folder}/{name}").into(),
            format: Format::Qcow2,
            backing: Vec::new(),
        };
        Place {
            acceleration,
            cpu_model: None,
            cpu_limits: Some(CpuGroups { unified: true, host_mhz: 2000, host_cpus: 4 }),
            plugs: vec![(bridge.into(), Some(1450))],
            files: vec![file("root"), file("data")],
            cd: None,
        }
    }

    #[test]
    fn what_is_the_hosts_is_this_hosts_and_the_rest_stays() {
        let mut spec = vm();
        let offered = Checked::of(&spec).unwrap();
        let offer = domain::domain(&offered, &place(&Acceleration::Kvm, "brthere", "/there")).write().unwrap();
        spec.generation += 1;
        let ordered = Checked::of(&spec).unwrap();
        let here = place(&Acceleration::Kvm, "brhere", "/here");
        let with_cd = Place { cd: Some("/there/iso".into()), ..place(&Acceleration::Kvm, "brthere", "/there") };
        let loaded = domain::domain(&offered, &with_cd).write().unwrap();
        let there = |xml: &str| Described::read(xml).unwrap().unwrap().drive.unwrap().file;
        let with_cd = Place { cd: Some("/here/iso".into()), ..place(&Acceleration::Kvm, "brhere", "/here") };
        assert_eq!(there(&arriving(&loaded, &ordered, &with_cd, true).unwrap()).as_deref(), Some("/here/iso"));
        assert_eq!(there(&arriving(&loaded, &ordered, &here, true).unwrap()), None);
        let xml = arriving(&offer, &ordered, &here, true).unwrap();
        let described = Described::read(&xml).unwrap().unwrap();
        assert!(described.waits);
        assert_eq!((described.generation, &described.digest), (ordered.generation, &ordered.digest));
        assert_eq!(described.disks[0].file, "/here/root");
        assert!(xml.contains("brhere") && !xml.contains("there\"") && xml.contains("check=\"none\""), "{xml}");
        assert!(!arriving(&offer, &ordered, &here, false).unwrap().contains("check=\"none\""));
        // Nothing that the guest sees has changed.
        let seen = |xml: &str| {
            let mut devices = Element::read(xml).unwrap().get("devices").unwrap().clone();
            for device in &mut devices.children {
                device.children.retain(|child| child.name != "source" && child.name != "mtu");
            }
            devices
        };
        assert_eq!(seen(&xml), seen(&offer));
    }

    #[test]
    fn what_was_not_ordered_is_refused() {
        let spec = vm();
        let checked = Checked::of(&spec).unwrap();
        let (kvm, tcg) = (Acceleration::Kvm, Acceleration::Tcg { why: "tests".into() });
        let offer = domain::domain(&checked, &place(&kvm, "br", "/pool")).write().unwrap();
        let text =
            |vm: &Checked, place: &Place<'_>| arriving(&offer, vm, place, false).unwrap_err().full_text().to_owned();
        let differs = text(&checked, &place(&tcg, "br", "/pool"));
        assert!(differs.contains("kvm") && differs.contains("tcg"), "{differs}");
        let mut less = checked.clone();
        less.disks.pop();
        assert!(text(&less, &place(&kvm, "br", "/pool")).contains("wasn't ordered"));
        let mut more = checked.clone();
        more.disks.push(domain_disk(&checked));
        assert!(text(&more, &place(&kvm, "br", "/pool")).contains("doesn't have device"));
        let mut other = checked.clone();
        other.name = "i-2-4-VM".into();
        assert!(text(&other, &place(&kvm, "br", "/pool")).contains("its name is"));
        assert!(arriving("<domain", &checked, &place(&kvm, "br", "/pool"), false).is_err());
    }

    fn domain_disk(vm: &Checked) -> crate::kvm::guests::spec::Disk {
        let mut disk = vm.disks[0].clone();
        disk.volume = uuid::Uuid::from_u128(7);
        disk
    }
}
