//! Which devices a guest's system can drive, by the names that 4.11 has for systems.

/// How disks are plugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bus {
    /// virtio-blk: `vda`.
    Virtio,
    /// virtio-scsi: `sda`.
    Scsi,
    /// IDE: `hda`; not while the guest runs.
    Ide,
}

impl Bus {
    /// libvirt's name.
    pub fn name(self) -> &'static str {
        match self {
            Bus::Virtio => "virtio",
            Bus::Scsi => "scsi",
            Bus::Ide => "ide",
        }
    }

    /// What the names of its disks begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Bus::Virtio => "vd",
            Bus::Scsi => "sd",
            Bus::Ide => "hd",
        }
    }

    /// By libvirt's name, or that of 4.11's details (`rootDiskController`).
    pub fn named(name: &str) -> Option<Bus> {
        match name.to_ascii_lowercase().as_str() {
            "virtio" => Some(Bus::Virtio),
            "scsi" => Some(Bus::Scsi),
            "ide" => Some(Bus::Ide),
            _ => None,
        }
    }
}

/// What a system can drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flavour {
    pub disks: Bus,
    /// libvirt's model of network cards.
    pub nics: &'static str,
    /// It has virtio's other devices too: entropy, balloon.
    pub virtio: bool,
    /// It keeps local time in its hardware clock, and likes Hyper-V's interfaces.
    pub windows: bool,
}

const VIRTIO: Flavour = Flavour { disks: Bus::Virtio, nics: "virtio", virtio: true, windows: false };
const PLAIN: Flavour = Flavour { disks: Bus::Ide, nics: "e1000", virtio: false, windows: false };

/// Systems without virtio's drivers, by the beginnings of their names in lower case. All others have them.
const WITHOUT_VIRTIO: &[&str] = &[
    "dos",
    "none",
    "other (",
    "os/2",
    "novell",
    "sun solaris",
    "sco ",
    "apple mac",
    "freebsd (",
    "open enterprise server",
    "asianux 3",
    // From before Linux 2.6.25, or before their makers took its drivers back to older kernels.
    "centos 4",
    "centos 5.0",
    "centos 5.1",
    "centos 5.2",
    "debian gnu/linux 4",
    "fedora 8",
    "oracle enterprise linux 5.0",
    "oracle enterprise linux 5.1",
    "oracle enterprise linux 5.2",
    "red hat enterprise linux 2",
    "red hat enterprise linux 3",
    "red hat enterprise linux 4",
    "red hat enterprise linux 5.0",
    "red hat enterprise linux 5.1",
    "red hat enterprise linux 5.2",
    "suse linux enterprise 8",
    "suse linux enterprise 9",
    "suse linux enterprise 10",
    "suse linux enterprise server 9",
    "suse linux enterprise server 10",
];

/// That of a system. Unknown ones are taken for modern ones.
pub(super) fn of(os_type: &str) -> Flavour {
    let name = os_type.trim().to_ascii_lowercase();
    if name == "windows pv" {
        return Flavour { windows: true, ..VIRTIO };
    }
    if name.starts_with("windows") || name.starts_with("microsoft") {
        return Flavour { windows: true, ..PLAIN };
    }
    if name.starts_with("other pv virtio-scsi") {
        return Flavour { disks: Bus::Scsi, ..VIRTIO };
    }
    if WITHOUT_VIRTIO.iter().any(|beginning| name.starts_with(beginning)) { PLAIN } else { VIRTIO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_get_what_they_can_drive() {
        for name in [
            "CentOS 7",
            "Ubuntu 16.04 (64-bit)",
            "Other PV (64-bit)",
            "Other Linux (64-bit)",
            "FreeBSD 10 (64-bit)",
            "CoreOS",
            "Debian GNU/Linux 8 (64-bit)",
            "CentOS 5.3 (64-bit)",
            "",
        ] {
            assert_eq!(of(name), VIRTIO, "{name}");
        }
        for name in
            ["Other (64-bit)", "None", "DOS", "CentOS 4.8 (32-bit)", "FreeBSD (32-bit)", "Sun Solaris 10(64-bit)"]
        {
            assert_eq!(of(name), PLAIN, "{name}");
        }
        assert_eq!(of("Windows 10 (64-bit)"), Flavour { windows: true, ..PLAIN });
        assert_eq!(of("Windows PV"), Flavour { windows: true, ..VIRTIO });
        assert_eq!(of("Other PV Virtio-SCSI (64-bit)").disks, Bus::Scsi);
    }
}
