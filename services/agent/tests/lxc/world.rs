//! A control plane with nothing but a hub, and hosts with libvirtd and an agent each, whose guests are containers.

use crate::common::{Replica, Running, SECOND, hear, insert_hosts, options, patient, vm as vm_of};
use arcus_agent::kvm::KvmOptions;
use arcus_agent::{Dial, Kind, Options};
use contract::ApiError;
use contract_agent::{
    Command, EnsureDisk, EnsurePool, FetchImage, ImageStore, Inventory, Outcome, PowerReason, PowerState, RebootVm,
    Report, StartVm, StopVm, TemplateSource, VmDisk, VmSpec, VmState, command, outcome,
};
use hub::HostEvent;
use libvirt::{Connection, DomainRef, DomainState};
use model::HostId;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::{HostOptions, Libvirtd, Place};
use tokio::sync::broadcast::Receiver;
use uuid::Uuid;

/// Long enough for a machine that is busy with other things.
const CALM: Duration = Duration::from_secs(20);
/// Of the tests that wait for its end.
pub const LEASE: Duration = Duration::from_millis(2500);
pub const MIB: u64 = 1 << 20;
/// Ids of containers begin here on the host.
pub const FIRST_ID: u32 = KvmOptions::CONTAINER_IDS.first;

pub struct Host {
    pub id: i64,
    pub uuid: String,
    pub libvirtd: Libvirtd,
    pub state: tempfile::TempDir,
    pub agent: Option<Running>,
}

/// Hosts that share a pool and a store with one template.
pub struct World {
    pub replica: Replica,
    pub hosts: Vec<Host>,
    pub events: Receiver<HostEvent>,
    pub pool: String,
    lease: Duration,
    namespace: Option<String>,
    folder: tempfile::TempDir,
    _db: testkit::TestDb,
}

/// Whether it can be done here; if not, it is said.
pub fn available(test: &str) -> bool {
    let Some(missing) = Libvirtd::missing_for_containers().or_else(testkit::container::missing) else { return true };
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "\n!!! SKIPPED: {test}: {missing}\n");
    false
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
        if !available(test) {
            return None;
        }
        let db = testkit::TestDb::sqlite();
        let replica = Replica::start(&db, patient()).await;
        let events = replica.hub.subscribe();
        let pool = Uuid::new_v4().to_string();
        let folder = testkit::temp_dir();
        let namespace = namespace.map(str::to_owned);
        let mut world = World { replica, hosts: Vec::new(), events, pool, lease, namespace, folder, _db: db };
        for name in ["pool", "store"] {
            std::fs::create_dir(world.folder.path().join(name)).unwrap();
        }
        std::fs::copy(testkit::container::archive().await, world.store_dir().join("root.tar")).unwrap();
        for id in 1..=i64::try_from(hosts).unwrap() {
            let uuid = Uuid::new_v4().to_string();
            insert_hosts(&world.replica.node.db, &[(id, uuid.clone(), uuid.clone())], "LXC").await;
            let state = testkit::temp_dir();
            std::fs::set_permissions(state.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
            std::fs::write(state.path().join("agent.uuid"), &uuid).unwrap();
            let place =
                world.namespace.as_ref().map_or_else(Place::default, |name| Place::namespace(name, "127.0.0.1"));
            let options = HostOptions { place, containers: true, ..HostOptions::default() };
            let libvirtd = Libvirtd::start_with(&options).await;
            world.hosts.push(Host { id, uuid, libvirtd, state, agent: None });
            world.start_agent(usize::try_from(id - 1).unwrap()).await;
            world.ensure_pool(id).await;
        }
        Some(world)
    }

    pub fn pool_dir(&self) -> PathBuf {
        self.folder.path().join("pool")
    }

    pub fn store_dir(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn options(&self, host: &Host) -> Options {
        let dial = Dial::Channel(self.replica.net.channel("orchestrator"));
        Options {
            hypervisor: Kind::Lxc,
            lease: self.lease,
            kvm: KvmOptions {
                libvirt_socket: Some(host.libvirtd.socket()),
                libvirt_root: host.libvirtd.root(),
                mount_root: host.state.path().join("mnt"),
                private_ip: Some("127.0.0.1".into()),
                network_namespace: self.namespace.clone(),
                allow_unmounted: true,
                grace: 6 * SECOND,
                ..KvmOptions::default()
            },
            ..options(host.state.path(), dial)
        }
    }

    pub async fn start_agent(&mut self, n: usize) {
        let options = self.options(&self.hosts[n]);
        self.hosts[n].agent = Some(Running::with(options));
        self.await_hosts().await;
    }

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
        self.replica.hub.execute(HostId(host), None, false, Command { body: Some(body) }, 90 * SECOND).await
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

    pub fn store(&self) -> ImageStore {
        ImageStore { url: format!("file://{}", self.store_dir().display()), ..ImageStore::default() }
    }

    /// The order for a root made of an archive of the store.
    pub fn root_order(&self, uuid: &str, archive: &str, size: u64) -> command::Body {
        command::Body::EnsureDisk(EnsureDisk {
            volume_uuid: uuid.to_owned(),
            pool_uuid: self.pool.clone(),
            path: uuid.to_owned(),
            size,
            format: "RAW".into(),
            template: Some(TemplateSource {
                template_uuid: "6b1f4a0e-0000-4000-8000-0000000000aa".into(),
                store_path: archive.to_owned(),
                format: "TAR".into(),
                store: Some(self.store()),
                ..TemplateSource::default()
            }),
        })
    }

    pub async fn fetch(&self, url: &str, path: &str) -> Result<Outcome, ApiError> {
        let order = FetchImage {
            url: url.to_owned(),
            store: Some(self.store()),
            path: path.to_owned(),
            format: "TAR".into(),
            report_after_millis: 60_000,
            internal_cidrs_allowed: vec!["127.0.0.0/8".into()],
            ..FetchImage::default()
        };
        self.execute(1, command::Body::FetchImage(order)).await
    }

    /// A VM with a root of its own.
    pub async fn spec(&self) -> VmSpec {
        let root = Uuid::new_v4().to_string();
        self.execute(1, self.root_order(&root, "root.tar", 96 * MIB)).await.unwrap();
        let uuid = Uuid::new_v4();
        VmSpec {
            uuid: uuid.to_string(),
            instance_name: format!("i-2-{}-VM", &uuid.simple().to_string()[..6]),
            display_name: "a <container> & \"more\"".into(),
            cpus: 1,
            cpu_mhz: 500,
            memory_bytes: 64 * MIB,
            disks: vec![VmDisk {
                volume_uuid: root.clone(),
                pool_uuid: self.pool.clone(),
                path: root,
                format: "raw".into(),
                size: 96 * MIB,
                root: true,
                ..VmDisk::default()
            }],
            generation: 1,
            ..VmSpec::default()
        }
    }

    /// Starts a VM. On a machine so slow that its lease ends meanwhile it goes on as soon as that can be renewed.
    pub async fn started(&self, host: i64, spec: &VmSpec, take_over: bool) -> VmState {
        let started = || async {
            match self.execute(host, start(spec, take_over)).await {
                Ok(outcome) => Some(vm_of(outcome)).filter(|state| state.power() == PowerState::On),
                Err(error) if error.full_text().contains("lease ended") => None,
                Err(error) => panic!("{error}"),
            }
        };
        let state = testkit::eventually(started).await;
        assert_eq!(state.generation, spec.generation);
        state
    }

    /// Starts a VM and waits until its process 1 has begun for the `boots`th time.
    pub async fn running(&self, host: i64, spec: &VmSpec, boots: usize) -> VmState {
        let state = self.started(host, spec, false).await;
        self.await_boots(host, spec, boots).await;
        state
    }

    pub async fn await_boots(&self, host: i64, spec: &VmSpec, boots: usize) {
        let root = self.root(host, spec);
        let begun = || async {
            let count = std::fs::read_to_string(root.join("boots")).unwrap_or_default().lines().count();
            if count >= boots {
                return Ok(());
            }
            let scripts: Vec<_> =
                std::fs::read_dir(root.join("do")).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
            let known = self.inventory(host).await.vms;
            Err(format!("{count} of {boots}; {scripts:?}; {:?}; {known:?}", self.domain(host, &spec.uuid).await))
        };
        testkit::until_ok(begun, 60 * SECOND).await;
    }

    /// A container's root, as the host sees it.
    pub fn root(&self, host: i64, spec: &VmSpec) -> PathBuf {
        let host = self.host(host);
        let at = host.state.path().join("mnt/containers").join(&spec.uuid);
        host.libvirtd.root().join(at.strip_prefix("/").unwrap())
    }

    /// What a shell script says within a container.
    pub async fn inside(&self, host: i64, spec: &VmSpec, script: &str) -> String {
        let output = self.ask(host, spec, script);
        testkit::wait_until(|| async { output.exists() }, 60 * SECOND).await;
        std::fs::read_to_string(output).unwrap()
    }

    /// Has a container run a shell script; gives where its words will be once it has ended.
    pub fn ask(&self, host: i64, spec: &VmSpec, script: &str) -> PathBuf {
        let name = Uuid::new_v4().simple().to_string();
        let folder = self.root(host, spec).join("do");
        // Aside first: process 1 runs whatever it finds, half of it, too.
        std::fs::write(folder.join("aside"), script).unwrap();
        std::fs::rename(folder.join("aside"), folder.join(format!("{name}.sh"))).unwrap();
        folder.join(format!("{name}.out"))
    }

    pub fn host(&self, id: i64) -> &Host {
        &self.hosts[usize::try_from(id - 1).unwrap()]
    }

    /// libvirt as somebody else on the host sees it.
    pub async fn libvirt(&self, host: i64) -> Connection {
        let options = libvirt::Options { uri: "lxc:///system".into(), ..libvirt::Options::default() };
        Connection::open(self.host(host).libvirtd.socket(), options).await.unwrap()
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

    /// libvirt's helpers of a VM, on whatever host.
    pub fn helpers(&self, spec: &VmSpec) -> Vec<u32> {
        let of_vm = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.windows(2).any(|pair| pair == [b"--name", spec.instance_name.as_bytes()])
        };
        let names = std::fs::read_dir("/proc").unwrap().flatten();
        names.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(of_vm).collect()
    }

    /// Whether any loop device has a VM's root.
    pub fn is_looped(&self, spec: &VmSpec) -> bool {
        let image = self.pool_dir().join(&spec.disks[0].path);
        std::fs::read_dir("/sys/block").unwrap().flatten().any(|device| {
            let file = std::fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            Path::new(file.trim_end()) == image
        })
    }

    /// Nothing of a VM is left on any host.
    pub async fn assert_gone(&self, host: i64, spec: &VmSpec) {
        assert_eq!(self.domain(host, &spec.uuid).await, None);
        testkit::wait_until(|| async { self.helpers(spec).is_empty() && !self.is_looped(spec) }, 60 * SECOND).await;
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

/// Serves bytes over HTTP for as long as the test runs; gives the URL.
pub async fn serve(bytes: Vec<u8>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/root.tar", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&bytes).await;
            });
        }
    });
    url
}

impl World {
    fn groups(&self, spec: &VmSpec) -> String {
        let helper = self.helpers(spec)[0];
        std::fs::read_to_string(format!("/proc/{helper}/cgroup")).unwrap()
    }

    /// A container's control group, where they are of version 2.
    pub fn group(&self, spec: &VmSpec) -> Option<String> {
        let groups = self.groups(spec);
        groups.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| path.contains("lxc")).map(str::to_owned)
    }

    /// The same of version 1.
    pub fn old_group(&self, spec: &VmSpec, controller: &str) -> String {
        let groups = self.groups(spec);
        let found = groups.lines().find_map(|line| line.split_once(&format!(":{controller}:")));
        found.unwrap_or_else(|| panic!("{controller} in {groups}")).1.to_owned()
    }
}
