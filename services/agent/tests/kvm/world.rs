//! A control plane with nothing but a hub, and hosts with libvirtd, QEMU and an agent each.

use crate::common::{Replica, Running, SECOND, hear, insert_hosts, options, patient, vm as vm_of};
use arcus_agent::kvm::{Acceleration, KvmOptions};
use arcus_agent::{Dial, Kind, Options};
use contract::ApiError;
use contract_agent::{
    Command, EnsureDisk, EnsurePool, Inventory, Outcome, PowerReason, PowerState, RebootVm, Report, StartVm, StopVm,
    VmDisk, VmSpec, VmState, command, outcome,
};
use hub::HostEvent;
use libvirt::{Connection, DomainRef, DomainState};
use model::HostId;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::{HostOptions, Libvirtd, Place};
use tokio::sync::broadcast::Receiver;
use uuid::Uuid;

/// The lease time.
/// Long enough for a machine that is busy with other things.
const CALM: Duration = Duration::from_secs(20);
/// Of the tests that wait for its end.
pub const LEASE: Duration = Duration::from_millis(2500);
pub const MIB: u64 = 1 << 20;

/// A guest of one sector: says `@` on the serial line, and then answers the power button and lets go of PCI devices, as
/// systems do by ACPI (PIIX4's registers at 0x600, QEMU's PCI hotplug at 0xae00).
pub const SECTOR: &[u8] = &[
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, b'@', 0xee, // mov al, '@'; out dx, al
    0xba, 0x10, 0xae, // mov dx, 0xae10: bus selector
    0x66, 0x31, 0xc0, 0x66, 0xef, // xor eax, eax; out dx, eax
    0xba, 0x02, 0x06, // mov dx, 0x602: power management, enabled events
    0xb8, 0x00, 0x01, 0xef, // mov ax, 0x100; out dx, ax: power button
    // again:
    0xfb, 0xf4, // sti; hlt: until the next tick
    0xba, 0x04, 0xae, 0x66, 0xed, // mov dx, 0xae04; in eax, dx: devices to let go of
    0x66, 0x85, 0xc0, 0x74, 0x05, // test eax, eax; jz over
    0xba, 0x08, 0xae, 0x66, 0xef, // mov dx, 0xae08; out dx, eax: let go of them
    // over:
    0xba, 0x00, 0x06, 0xed, // mov dx, 0x600; in ax, dx: events
    0xa9, 0x00, 0x01, 0x74, 0xe6, // test ax, 0x100; jz again
    0xba, 0x04, 0x06, // mov dx, 0x604
    0xb8, 0x00, 0x20, 0xef, // mov ax, 0x2000; out dx, ax: off
    0xf4, 0xeb, 0xfd, // hlt
];

/// A guest that hears nothing.
pub const DEAF: &[u8] = &[0xba, 0xf8, 0x03, 0xb0, b'@', 0xee, 0xf4, 0xeb, 0xfd];

/// A host.
pub struct Host {
    pub id: i64,
    pub uuid: String,
    pub libvirtd: Libvirtd,
    pub state: tempfile::TempDir,
    pub agent: Option<Running>,
}

/// Hosts that share a pool.
pub struct World {
    pub replica: Replica,
    pub hosts: Vec<Host>,
    pub events: Receiver<HostEvent>,
    pub pool: String,
    /// Most that the sending of a guest takes, of agents that are started from now on.
    pub mib_per_s: Option<u64>,
    lease: Duration,
    namespace: Option<String>,
    folder: tempfile::TempDir,
    _db: testkit::TestDb,
}

impl World {
    /// None after saying that the test is skipped, and why.
    pub async fn start(test: &str, hosts: usize) -> Option<World> {
        World::with(test, hosts, CALM, None).await
    }

    /// The same with [`LEASE`].
    pub async fn with_short_leases(test: &str, hosts: usize) -> Option<World> {
        World::with(test, hosts, LEASE, None).await
    }

    /// The same with a host in a network namespace.
    pub async fn start_in(test: &str, namespace: &str) -> Option<World> {
        World::with(test, 1, CALM, Some(namespace)).await
    }

    async fn with(test: &str, hosts: usize, lease: Duration, namespace: Option<&str>) -> Option<World> {
        if !Libvirtd::available(test) {
            return None;
        }
        let db = testkit::TestDb::sqlite();
        let replica = Replica::start(&db, patient()).await;
        let events = replica.hub.subscribe();
        let pool = Uuid::new_v4().to_string();
        let folder = testkit::temp_dir();
        let namespace = namespace.map(str::to_owned);
        let mut world =
            World { replica, hosts: Vec::new(), events, pool, mib_per_s: None, lease, namespace, folder, _db: db };
        std::fs::create_dir(world.pool_dir()).unwrap();
        for id in 1..=i64::try_from(hosts).unwrap() {
            let uuid = Uuid::new_v4().to_string();
            insert_hosts(&world.replica.node.db, &[(id, uuid.clone(), uuid.clone())], "KVM").await;
            let state = testkit::temp_dir();
            std::fs::write(state.path().join("agent.uuid"), &uuid).unwrap();
            let place =
                world.namespace.as_ref().map_or_else(Place::default, |name| Place::namespace(name, "127.0.0.1"));
            let libvirtd = Libvirtd::start_with(&HostOptions { place, ..HostOptions::default() }).await;
            world.hosts.push(Host { id, uuid, libvirtd, state, agent: None });
            world.start_agent(usize::try_from(id - 1).unwrap()).await;
            world.ensure_pool(id).await;
        }
        Some(world)
    }

    pub fn pool_dir(&self) -> PathBuf {
        self.folder.path().join("pool")
    }

    fn options(&self, host: &Host) -> Options {
        let dial = Dial::Channel(self.replica.net.channel("orchestrator"));
        Options {
            hypervisor: Kind::Kvm,
            lease: self.lease,
            kvm: KvmOptions {
                libvirt_socket: Some(host.libvirtd.socket()),
                libvirt_root: host.libvirtd.root(),
                mount_root: host.state.path().join("mnt"),
                acceleration: Some(Acceleration::Tcg { why: "tests".into() }),
                private_ip: Some("127.0.0.1".into()),
                network_namespace: self.namespace.clone(),
                migration_mib_per_s: self.mib_per_s,
                allow_unmounted: true,
                cpu_limits: false,
                grace: 6 * SECOND,
                ..KvmOptions::default()
            },
            ..options(host.state.path(), dial)
        }
    }

    /// Starts a host's agent, and waits until it is connected.
    pub async fn start_agent(&mut self, n: usize) {
        let options = self.options(&self.hosts[n]);
        self.hosts[n].agent = Some(Running::with(options));
        self.await_hosts().await;
    }

    /// Waits until all hosts that have an agent are connected.
    pub async fn await_hosts(&self) {
        let up = self.hosts.iter().filter(|host| host.agent.is_some());
        for host in up.clone() {
            self.replica.await_status(host.id, "Up").await;
        }
        self.replica.await_connected(up.count()).await;
    }

    /// The agent dies in the middle of whatever it does.
    pub async fn kill_agent(&mut self, n: usize) {
        self.hosts[n].agent.take().unwrap().kill().await;
        let id = self.hosts[n].id;
        testkit::wait_until(|| async { self.replica.status(id).await.0 != "Up" }, 60 * SECOND).await;
    }

    pub async fn execute(&self, host: i64, body: command::Body) -> Result<Outcome, ApiError> {
        self.replica.hub.execute(HostId(host), None, false, Command { body: Some(body) }, 60 * SECOND).await
    }

    pub async fn vm(&self, host: i64, body: command::Body) -> VmState {
        vm_of(self.execute(host, body).await.unwrap())
    }

    async fn ensure_pool(&self, host: i64) {
        let order = EnsurePool {
            pool_uuid: self.pool.clone(),
            kind: "SharedMountPoint".into(),
            path: self.pool_dir().display().to_string(),
            lease_millis: u32::try_from(self.lease.as_millis()).unwrap(),
            ..EnsurePool::default()
        };
        self.execute(host, command::Body::EnsurePool(order)).await.unwrap();
    }

    /// Makes a volume of 4 MiB.
    pub async fn volume(&self, device_id: u32) -> VmDisk {
        let uuid = Uuid::new_v4().to_string();
        let order = EnsureDisk {
            volume_uuid: uuid.clone(),
            pool_uuid: self.pool.clone(),
            path: uuid.clone(),
            size: 4 * MIB,
            format: "raw".into(),
            template: None,
        };
        self.execute(1, command::Body::EnsureDisk(order)).await.unwrap();
        VmDisk {
            volume_uuid: uuid.clone(),
            device_id,
            pool_uuid: self.pool.clone(),
            path: uuid,
            format: "raw".into(),
            size: 4 * MIB,
            root: device_id == 0,
        }
    }

    /// A VM with a root disk that begins with this program.
    pub async fn spec(&self, program: &[u8]) -> VmSpec {
        let root = self.volume(0).await;
        let mut sector = program.to_vec();
        sector.resize(510, 0);
        sector.extend_from_slice(&[0x55, 0xaa]);
        let file = std::fs::OpenOptions::new().write(true).open(self.pool_dir().join(&root.path)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &sector, 0).unwrap();
        let uuid = Uuid::new_v4();
        VmSpec {
            uuid: uuid.to_string(),
            instance_name: format!("i-2-{}-VM", &uuid.simple().to_string()[..6]),
            display_name: "a <guest> & \"more\"".into(),
            cpus: 1,
            cpu_mhz: 500,
            memory_bytes: 32 * MIB,
            os_type: "Other Linux (64-bit)".into(),
            disks: vec![root],
            generation: 1,
            ..VmSpec::default()
        }
    }

    /// Starts a VM. On a machine so slow that its lease ends meanwhile it goes on as soon as that can be renewed.
    pub async fn started(&self, host: i64, spec: &VmSpec, take_over: bool) -> VmState {
        let mut state = self.vm(host, start(spec, take_over)).await;
        while state.reason() == PowerReason::LeaseUnreadable {
            state = self.vm(host, start(spec, take_over)).await;
        }
        assert_eq!((state.power(), state.generation), (PowerState::On, spec.generation));
        state
    }

    /// Starts a VM and waits until its program runs.
    pub async fn running(&self, host: i64, spec: &VmSpec) -> VmState {
        let state = self.started(host, spec, false).await;
        self.await_boots(host, &spec.instance_name, 1).await;
        state
    }

    /// What a guest has said on its serial line.
    pub fn console(&self, host: i64, name: &str) -> String {
        let libvirtd = &self.host(host).libvirtd;
        let log = libvirtd.root().join(format!("var/log/libvirt/qemu/{name}-console.log"));
        String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
    }

    /// Waits until a VM's program was begun so often.
    pub async fn await_boots(&self, host: i64, name: &str, boots: usize) {
        let count = || self.console(host, name).matches('@').count();
        testkit::wait_until(|| async { count() >= boots }, 60 * SECOND).await;
    }

    pub fn host(&self, id: i64) -> &Host {
        &self.hosts[usize::try_from(id - 1).unwrap()]
    }

    /// libvirt as somebody else on the host sees it.
    pub async fn libvirt(&self, host: i64) -> Connection {
        Connection::open(self.host(host).libvirtd.socket(), libvirt::Options::default()).await.unwrap()
    }

    /// What libvirt says that a VM does; `None` when it has none.
    pub async fn domain(&self, host: i64, vm: &str) -> Option<(DomainRef, DomainState)> {
        let libvirt = self.libvirt(host).await;
        let domain = libvirt.domain_by_uuid(Uuid::parse_str(vm).unwrap()).await.ok()?;
        let state = libvirt.state(&domain).await.ok()?.state;
        Some((domain, state))
    }

    pub async fn await_domain(&self, host: i64, vm: &str, wanted: Option<DomainState>) {
        let state = || async { self.domain(host, vm).await.map(|(_, state)| state) == wanted };
        testkit::wait_until(state, 60 * SECOND).await;
    }

    pub async fn inventory(&self, host: i64) -> Report {
        match self.execute(host, command::Body::Inventory(Inventory {})).await.unwrap().body {
            Some(outcome::Body::Inventory(report)) => report,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for what a host tells of a VM.
    pub async fn await_news(&mut self, host: i64, vm: &str, power: PowerState, reason: PowerReason) -> VmState {
        hear(&mut self.events, |event| match event {
            HostEvent::Vm { host: at, state } => {
                let wanted = state.uuid == vm && state.power() == power && state.reason() == reason;
                (at == HostId(host) && wanted).then_some(state)
            }
            _ => None,
        })
        .await
    }

    /// A VM's claims on the pool, by name.
    pub fn claims(&self, vm: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.lease_dir().join(vm))
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    pub fn lease_dir(&self) -> PathBuf {
        self.pool_dir().join(".arcus/leases/leases")
    }

    /// QEMU's processes of a VM, on whatever host.
    pub fn processes(&self, vm: &str) -> usize {
        pids(vm).len()
    }

    /// The QEMU of a VM crashes.
    pub fn crash(&self, vm: &str) {
        for pid in pids(vm) {
            let status = std::process::Command::new("kill").args(["-KILL", &pid]).status();
            assert!(status.is_ok_and(|status| status.success()));
        }
    }

    pub async fn end(mut self) {
        for host in &mut self.hosts {
            if let Some(agent) = host.agent.take() {
                agent.end().await.unwrap();
            }
        }
        self.replica.end().await;
    }
}

pub fn start(spec: &VmSpec, take_over: bool) -> command::Body {
    command::Body::StartVm(StartVm { vm: Some(spec.clone()), take_over })
}

pub fn stop(spec: &VmSpec, forced: bool) -> command::Body {
    command::Body::StopVm(StopVm { uuid: spec.uuid.clone(), forced, generation: spec.generation })
}

pub fn reboot(spec: &VmSpec) -> command::Body {
    command::Body::RebootVm(RebootVm { uuid: spec.uuid.clone() })
}

fn pids(vm: &str) -> Vec<String> {
    let of_vm = |pid: &String| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.any(|word| word == b"-uuid") && words.next() == Some(vm.as_bytes())
    };
    let names =
        std::fs::read_dir(Path::new("/proc")).unwrap().flatten().filter_map(|e| e.file_name().into_string().ok());
    names.filter(|name| name.bytes().all(|c| c.is_ascii_digit())).filter(of_vm).collect()
}
