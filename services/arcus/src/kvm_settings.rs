//! `[agent.kvm]`: what a KVM host is set to.

use agent::kvm::KvmOptions;
use anyhow::{Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The table; what is left out is the agent's own default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KvmTable {
    /// libvirt's socket; none: the first of the usual ones that exists.
    pub libvirt_socket: Option<PathBuf>,
    /// Where NFS exports are mounted.
    pub mount_root: Option<PathBuf>,
    /// Where image tools put what they need for a while.
    pub work_dir: Option<PathBuf>,
    /// Largest virtual size of an image, GiB.
    pub max_virtual_gib: Option<u64>,
    /// The device of guest traffic: a bridge, or what VLANs and VXLANs are laid on.
    pub guest_device: Option<String>,
    /// The device of public traffic.
    pub public_device: Option<String>,
    /// Devices of traffic labels, by label.
    pub labels: BTreeMap<String, String>,
    /// The host's private address; none: that of the default route's device.
    pub private_ip: Option<String>,
    /// The address at which the memory of guests comes in that move here; none: `private_ip`.
    pub migration_address: Option<String>,
    /// Most that the sending of one guest takes, MiB a second; none: all that there is.
    pub migration_mib_per_s: Option<u64>,
    /// Longest standstill of a busy guest that is sent, ms. Absent: 1000.
    pub migration_max_downtime_ms: Option<u64>,
    /// Memory that guests don't get, MiB.
    pub reserved_memory_mib: Option<u64>,
    /// The CPU that guests see, by libvirt's names.
    pub cpu_model: Option<String>,
    /// Whether CPU shares and limits are set.
    pub cpu_limits: Option<bool>,
    /// Whether a shared mount point may be a folder that nothing is mounted on: for trials.
    pub allow_unmounted: bool,
    /// How long a guest may take to shut down when it is asked; then its power is cut.
    pub grace_seconds: Option<u64>,
}

impl KvmTable {
    /// What the agent is started with.
    ///
    /// # Errors
    /// The key whose value can't be.
    pub fn options(&self) -> Result<KvmOptions> {
        let usual = KvmOptions::default();
        let device = |key: &str, name: &Option<String>, usual: String| {
            let name = name.clone().unwrap_or(usual);
            check_device(key, &name).map(|()| name)
        };
        for (label, name) in &self.labels {
            check_device(&format!("labels.{label}"), name)?;
        }
        for (key, ip) in [("private_ip", &self.private_ip), ("migration_address", &self.migration_address)] {
            if let Some(ip) = ip {
                ensure!(ip.parse::<std::net::IpAddr>().is_ok(), "[agent.kvm] {key} = {ip:?} is no address");
            }
        }
        Ok(KvmOptions {
            libvirt_socket: self.libvirt_socket.clone(),
            mount_root: self.mount_root.clone().unwrap_or(usual.mount_root.clone()),
            work_dir: self.work_dir.clone(),
            max_virtual_bytes: self.max_virtual_gib.map_or(usual.max_virtual_bytes, |gib| gib.saturating_mul(1 << 30)),
            guest_device: device("guest_device", &self.guest_device, usual.guest_device.clone())?,
            public_device: device("public_device", &self.public_device, usual.public_device.clone())?,
            devices: self.labels.clone(),
            private_ip: self.private_ip.clone(),
            migration_address: self.migration_address.clone(),
            migration_mib_per_s: self.migration_mib_per_s,
            migration_max_downtime: self
                .migration_max_downtime_ms
                .map_or(usual.migration_max_downtime, Duration::from_millis),
            reserved_memory: self.reserved_memory_mib.map_or(usual.reserved_memory, |mib| mib.saturating_mul(1 << 20)),
            cpu_model: self.cpu_model.clone(),
            cpu_limits: self.cpu_limits.unwrap_or(usual.cpu_limits),
            allow_unmounted: self.allow_unmounted,
            grace: self.grace_seconds.map_or(usual.grace, Duration::from_secs),
            ..usual
        })
    }
}

/// A network device's name as the kernel takes it.
fn check_device(key: &str, name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    ensure!(
        (1..=15).contains(&name.len()) && name.chars().all(fine) && name != "." && name != "..",
        "[agent.kvm] {key} = {name:?} is no name of a network device"
    );
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that can't go on has failed
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_usual_and_nonsense_is_named() {
        let table: KvmTable =
            toml::from_str("guest_device = \"br0\"\nmax_virtual_gib = 10\n[labels]\nfast = \"eth7\"\n").unwrap();
        let options = table.options().unwrap();
        assert_eq!((options.guest_device.as_str(), options.public_device.as_str()), ("br0", "cloudbr0"));
        assert_eq!((options.max_virtual_bytes, options.devices["fast"].as_str()), (10 << 30, "eth7"));
        for (text, key) in [
            ("guest_device = \"a/b\"", "guest_device"),
            ("public_device = \"far-too-long-a-name\"", "public_device"),
            ("private_ip = \"here\"", "private_ip"),
            ("migration_address = \"there\"", "migration_address"),
            ("labels = { x = \"\" }", "labels.x"),
        ] {
            let error = toml::from_str::<KvmTable>(text).unwrap().options().unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
        assert!(toml::from_str::<KvmTable>("guest_devise = \"x\"").is_err());
    }
}
