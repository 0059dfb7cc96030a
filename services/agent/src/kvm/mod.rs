//! One real host: guests by libvirt with QEMU, disks as files, networks as bridges and routers in namespaces.
//!
//! | module | what |
//! |---|---|
//! | [`driver`] | orders to the machine, and what it says of itself |
//! | [`guests`] | domains: their XML, life, devices, and what libvirt tells of them |
//! | [`leases`] | who may run which VM, and what becomes of those that may not |
//! | [`storage`] | pools, disks, images |
//! | [`network`] | bridges and routers |
//! | [`facts`], [`probe`], [`preflight`] | what the machine is, can, and lacks |
//!
//! What runs is known from libvirt: every domain carries its VM's generation in its metadata. The state file adds only
//! what libvirt can't know: the highest generation of each VM, pools, and what orders gave. Guests outlive the agent and
//! libvirt's daemon.

mod driver;
mod facts;
mod guests;
mod leases;
mod network;
pub mod preflight;
mod probe;
mod storage;

pub(crate) use driver::Kvm;
pub use probe::Acceleration;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What a KVM host is set to.
#[derive(Clone, Debug)]
pub struct KvmOptions {
    /// The daemon's socket. None: the first of libvirt's usual ones that exists.
    pub libvirt_socket: Option<PathBuf>,
    /// The file system that the daemon's paths mean, as this process sees it. `/` but for daemons in a mount namespace.
    pub libvirt_root: PathBuf,
    /// Below it pools and secondary stores are mounted.
    pub mount_root: PathBuf,
    /// Where image tools put what they need for a while. None: within the state folder.
    pub work_dir: Option<PathBuf>,
    /// Largest virtual size of an image, bytes.
    pub max_virtual_bytes: u64,
    /// The device (a bridge, or what VLANs are laid on) of guest traffic.
    pub guest_device: String,
    /// The device of public traffic.
    pub public_device: String,
    /// Devices of traffic labels, by label.
    pub devices: BTreeMap<String, String>,
    /// The network namespace that bridges are in. None: this process'.
    pub network_namespace: Option<String>,
    /// The host's address that the control plane shows. None: that of the route to the control plane.
    pub private_ip: Option<String>,
    /// The address at which the memory of guests comes in that move here. None: the one that the control plane shows. The port
    /// is chosen by libvirt, from the range of its `qemu.conf`.
    pub migration_address: Option<String>,
    /// Most that the sending of one guest takes, MiB a second. None: all that there is.
    pub migration_mib_per_s: Option<u64>,
    /// Longest standstill at the end of the sending of a busy guest. It begins with QEMU's 300 ms, and is reached step by step.
    pub migration_max_downtime: Duration,
    /// Memory that guests don't get, bytes.
    pub reserved_memory: u64,
    /// Guests are containers, by libvirt's driver for LXC: `arcus agent --hypervisor lxc`.
    pub containers: bool,
    /// How guests run. None: found out.
    pub acceleration: Option<Acceleration>,
    /// Whether a shared mount point may be a folder that nothing is mounted on: for trials.
    pub allow_unmounted: bool,
    /// The CPU that guests see, by libvirt's names. None: this host's model, which migrates between hosts of one kind.
    pub cpu_model: Option<String>,
    /// Whether CPU shares and limits are set: needs cgroups' CPU controller.
    pub cpu_limits: bool,
    /// How long a guest may take to shut down, or to reboot, when it is asked; then its power is cut.
    pub grace: Duration,
}

impl KvmOptions {
    /// The ids that containers' own stand for, on every host: they are written into the images of their roots. Above those that
    /// distributions give to users and to systemd's containers.
    pub const CONTAINER_IDS: images::Ids = images::Ids { first: 0x7000_0000 };
}

impl Default for KvmOptions {
    fn default() -> KvmOptions {
        KvmOptions {
            libvirt_socket: None,
            libvirt_root: "/".into(),
            mount_root: "/var/lib/arcus/mnt".into(),
            work_dir: None,
            max_virtual_bytes: 16 << 40,
            guest_device: "cloudbr0".into(),
            public_device: "cloudbr0".into(),
            devices: BTreeMap::new(),
            network_namespace: None,
            private_ip: None,
            migration_address: None,
            migration_mib_per_s: None,
            migration_max_downtime: Duration::from_secs(1),
            reserved_memory: 1 << 30,
            containers: false,
            acceleration: None,
            allow_unmounted: false,
            cpu_model: None,
            cpu_limits: true,
            grace: Duration::from_secs(45),
        }
    }
}
