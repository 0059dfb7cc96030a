//! One cluster: a host, an NFS server, and the control plane outside.

use crate::control::{Control, binary};
use arcus::api_client::ApiClient;
use lab::{Image, Lab, Machine, Switch};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use testkit::{container, guest, until_ok, wait_until};

/// Everything here is emulated.
pub const PATIENCE: Duration = Duration::from_secs(900);
/// Where the unit is, from this file.
const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/systemd/arcus-agent.service");

/// What the host's guests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guests {
    /// QEMU's.
    Machines,
    /// libvirt's LXC.
    Containers,
}

impl Guests {
    /// The API's name of the hypervisor.
    pub fn hypervisor(self) -> &'static str {
        match self {
            Guests::Machines => "KVM",
            Guests::Containers => "LXC",
        }
    }

    /// The format of templates.
    fn format(self) -> &'static str {
        match self {
            Guests::Machines => "QCOW2",
            Guests::Containers => "TAR",
        }
    }

    /// The name that the web has for what becomes a template.
    fn file(self) -> &'static str {
        match self {
            Guests::Machines => "guest.qcow2",
            Guests::Containers => "root.tar",
        }
    }

    /// The name of a guest's process on the host.
    pub fn process(self) -> &'static str {
        match self {
            Guests::Machines => "qemu-system-x86_64",
            Guests::Containers => "libvirt_lxc",
        }
    }

    /// What this machine lacks to make a template.
    fn missing(self) -> Option<String> {
        match self {
            Guests::Machines => guest::missing(),
            Guests::Containers => container::missing(),
        }
    }

    /// What becomes a template.
    async fn image(self) -> PathBuf {
        match self {
            Guests::Machines => guest::image().await.qcow2,
            Guests::Containers => container::archive().await,
        }
    }
}

/// What tests use.
pub struct Site {
    // In this order: machines end before their control plane and their switch.
    pub host: Machine,
    pub nfs: Machine,
    pub control: Control,
    pub api: ApiClient,
    pub ids: BTreeMap<&'static str, String>,
    /// The first three bytes of the network: .5 the NFS server, .31 the host, .254 the control plane, .100 to .120 public addresses.
    pub base: String,
    pub guests: Guests,
    _lan: Switch,
    _data: tempfile::TempDir,
    lab: Lab,
}

/// A string of an answer.
#[track_caller]
pub fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

impl Site {
    /// `None` where the machine can't, after saying so.
    pub async fn new(test: &str, guests: Guests) -> Option<Site> {
        if let Some(why) = guests.missing() {
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("\n!!! SKIPPED: {test}: {why}\n").as_bytes());
            return None;
        }
        let lab = Lab::with_packages(test, &Image::HYPERVISOR).await?;
        let image = guests.image().await;
        let lan = lab.switch("lan");
        let base = lab.own_network();
        lan.join_here(&format!("{base}.254/24"));
        let data = tempfile::tempdir().unwrap();
        let host = lab.machine("host").nic(&lan, "").memory(1536).processors(2).systemd();
        let host = host.file(binary(), "/usr/local/bin/arcus").file(UNIT, "/opt/deploy/arcus-agent.service");
        let nfs = lab.machine("nfs").nic(&lan, &format!("{base}.5/24")).disk(4096).file(&image, "/opt/image");
        let folder = data.path().join("data");
        let control = Control::start(&folder, format!("{base}.254").parse().unwrap());
        let (host, nfs, control) = tokio::join!(host.start(), nfs.start(), control);
        let api = control.api();
        let ids = BTreeMap::new();
        let site = Site { host, nfs, control, api, ids, base, guests, _lan: lan, _data: data, lab };
        site.set_up().await;
        site.done("machines and control plane are up");
        Some(site)
    }

    /// Says how far the test has come.
    pub fn done(&self, what: &str) {
        self.lab.done(what);
    }

    /// The machines as the guide wants them, up to the agent's configuration.
    async fn set_up(&self) {
        let (host, base) = (&self.host, &self.base);
        // What netplan or /etc/network/interfaces would do, at each boot.
        let network = "[Unit]\nDefaultDependencies=no\nAfter=local-fs.target systemd-udevd.service\nBefore=network.target\n\n\
                       [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/opt/network\n\n[Install]\nWantedBy=sysinit.target\n";
        host.write("/etc/systemd/system/network.service", network).await;
        let script = format!(
            "#!/bin/sh\nset -e\nip link add cloudbr0 type bridge forward_delay 0\nip link set eth0 master cloudbr0 up\n\
             ip addr add {base}.31/24 dev cloudbr0\nip link set cloudbr0 up\nip route add default via {base}.254\n"
        );
        host.write("/opt/network", script).await;
        host.run("chmod 755 /opt/network; systemctl daemon-reload; systemctl enable --now network").await;
        let config = format!(
            "[common]\nlog = \"info,arcus_agent=debug\"\n\n[agent]\nendpoints = [\"{}\"]\ntoken_file = \"/etc/arcus/agent.token\"\n\
             hypervisor = \"{}\"\n\n[agent.kvm]\nguest_device = \"cloudbr0\"\npublic_device = \"cloudbr0\"\n\
             private_ip = \"{base}.31\"\nreserved_memory_mib = 256\ngrace_seconds = 100\n",
            self.control.agents,
            self.guests.hypervisor().to_lowercase()
        );
        host.run("mkdir -p /etc/arcus").await;
        host.write("/etc/arcus/arcus.toml", config).await;
        host.write("/etc/arcus/agent.token", self.control.token()).await;
        self.nfs
            .run("mkfs.ext4 -q /dev/vdb && mkdir -p /srv && echo /dev/vdb /srv ext4 defaults 0 0 >>/etc/fstab")
            .await;
        self.serve().await;
    }

    /// Files and images, after each boot of the server.
    pub async fn serve(&self) {
        self.nfs.run(&format!("mount /srv; mkdir -p /srv/www && cp /opt/image /srv/www/{}", self.guests.file())).await;
        self.nfs.run("/lab/serve-nfs /srv/primary /srv/secondary").await;
        self.nfs.serve("www", "busybox httpd -f -p 80 -h /srv/www").await;
    }

    /// The id of what a step made.
    #[track_caller]
    pub fn id(&self, name: &str) -> &str {
        self.ids.get(name).unwrap_or_else(|| panic!("no {name} was made"))
    }

    /// Calls a command, which must be answered well; waits for its job.
    pub async fn run(&self, command: &str, params: &[(&str, &str)]) -> Value {
        match self.api.run(command, params).await {
            Ok(answer) => answer,
            Err(error) => panic!("{error:#}\n{params:?}\n{}", self.logs().await),
        }
    }

    /// The first of a list.
    pub async fn first(&self, command: &str, key: &str, params: &[(&str, &str)]) -> Value {
        let answer = self.run(command, params).await;
        answer.pointer(&format!("/{key}/0")).cloned().unwrap_or_else(|| panic!("{command} lists nothing: {answer}"))
    }

    /// What agent and control plane said last.
    pub async fn logs(&self) -> String {
        let patience = Duration::from_secs(60);
        let agent = self.host.try_run("journalctl -q --no-pager -n 60 -o cat -u arcus-agent", patience).await;
        let agent = agent.map_or_else(|why| why, |output| output.stdout);
        format!("--- agent\n{agent}\n--- control plane\n{}", self.control.log_tail())
    }

    /// The state of the one host.
    pub async fn host_state(&self) -> String {
        let listed = self.api.call("listHosts", &[("type", "Routing")]).await.unwrap();
        listed.pointer("/host/0/state").and_then(Value::as_str).unwrap_or("none").to_owned()
    }

    /// Waits until the host is up.
    pub async fn up(&self) {
        wait_until(|| async { self.host_state().await == "Up" }, PATIENCE).await;
    }

    /// Waits until a guest has said something on its serial line.
    pub async fn told(&self, instance: &str, what: &str) -> String {
        let log = format!("/var/log/libvirt/qemu/{instance}-console.log");
        self.host.until(&format!("grep -a 'GUEST {what}' {log}"), PATIENCE).await
    }

    /// A zone with its host and its storage, all on NFS; guests' networks are VLANs.
    pub async fn zone(&mut self) {
        let (gateway, server) = (format!("{}.254", self.base), format!("{}.5", self.base));
        let params = [
            ("name", "lab"),
            ("networktype", "Advanced"),
            ("dns1", gateway.as_str()),
            ("internaldns1", gateway.as_str()),
            ("guestcidraddress", "10.1.1.0/24"),
        ];
        let zone = text(&self.run("createZone", &params).await, "/zone/id");
        let params =
            [("zoneid", zone.as_str()), ("name", "physical"), ("vlan", "100-199"), ("isolationmethods", "VLAN")];
        let physical = text(&self.run("createPhysicalNetwork", &params).await, "/physicalnetwork/id");
        for kind in ["Guest", "Management", "Public"] {
            self.run("addTrafficType", &[("physicalnetworkid", &physical), ("traffictype", kind)]).await;
        }
        self.run("updatePhysicalNetwork", &[("id", &physical), ("state", "Enabled")]).await;
        let by_name = [("physicalnetworkid", physical.as_str()), ("name", "VirtualRouter")];
        let provider =
            text(&self.first("listNetworkServiceProviders", "networkserviceprovider", &by_name).await, "/id");
        let of_it = [("nspid", provider.as_str())];
        let element = text(&self.first("listVirtualRouterElements", "virtualrouterelement", &of_it).await, "/id");
        self.run("configureVirtualRouterElement", &[("id", &element), ("enabled", "true")]).await;
        self.run("updateNetworkServiceProvider", &[("id", &provider), ("state", "Enabled")]).await;
        let (first, last) = (format!("{}.60", self.base), format!("{}.80", self.base));
        let params = [
            ("zoneid", zone.as_str()),
            ("name", "pod"),
            ("gateway", gateway.as_str()),
            ("netmask", "255.255.255.0"),
            ("startip", first.as_str()),
            ("endip", last.as_str()),
        ];
        let pod = text(&self.run("createPod", &params).await, "/pod/id");
        let (first, last) = (format!("{}.100", self.base), format!("{}.120", self.base));
        let params = [
            ("zoneid", zone.as_str()),
            ("vlan", "untagged"),
            ("gateway", gateway.as_str()),
            ("netmask", "255.255.255.0"),
            ("startip", first.as_str()),
            ("endip", last.as_str()),
            ("forvirtualnetwork", "true"),
        ];
        self.run("createVlanIpRange", &params).await;
        let params = [
            ("zoneid", zone.as_str()),
            ("podid", pod.as_str()),
            ("clustername", "cluster"),
            ("clustertype", "CloudManaged"),
            ("hypervisor", self.guests.hypervisor()),
        ];
        let cluster = text(&self.run("addCluster", &params).await, "/cluster/0/id");
        let url = format!("http://{}.31", self.base);
        let params = [
            ("zoneid", zone.as_str()),
            ("podid", pod.as_str()),
            ("clusterid", cluster.as_str()),
            ("hypervisor", self.guests.hypervisor()),
            ("username", "root"),
            ("password", "unused"),
            ("url", url.as_str()),
        ];
        let begun = Instant::now();
        let add = || async {
            let Err(error) = self.api.call("addHost", &params).await else { return Ok(()) };
            // To ask for the logs is work for the machine that is waited for.
            let logs = if begun.elapsed() > PATIENCE / 2 { self.logs().await } else { String::new() };
            Err(format!("{error:#}\n{logs}"))
        };
        until_ok(add, PATIENCE).await;
        let url = format!("nfs://{server}/srv/primary");
        let params = [
            ("zoneid", zone.as_str()),
            ("podid", pod.as_str()),
            ("clusterid", cluster.as_str()),
            ("name", "primary"),
            ("url", url.as_str()),
        ];
        let made = self.run("createStoragePool", &params).await;
        assert_eq!(text(&made, "/storagepool/state"), "Up", "{made}");
        let url = format!("nfs://{server}/srv/secondary");
        self.run("addImageStore", &[("provider", "NFS"), ("zoneid", &zone), ("url", &url)]).await;
        self.run("updateZone", &[("id", &zone), ("allocationstate", "Enabled")]).await;
        let params =
            [("name", "tiny"), ("displaytext", "tiny"), ("cpunumber", "1"), ("cpuspeed", "500"), ("memory", "192")];
        let offering = text(&self.run("createServiceOffering", &params).await, "/serviceoffering/id");
        self.ids.extend([("zone", zone), ("offering", offering)]);
        self.done("the host is added, its storage is on NFS");
    }

    /// A template of the image that the NFS server has on the web, and an isolated network.
    pub async fn offers(&mut self) {
        let inside = format!("{}.0/24", self.base);
        let setting = [("name", "secstorage.allowed.internal.sites"), ("value", inside.as_str())];
        self.run("updateConfiguration", &setting).await;
        let os = self.first("listOsTypes", "ostype", &[("description", "Debian GNU/Linux 8 (64-bit)")]).await;
        let (os, url) = (text(&os, "/id"), format!("http://{}.5/{}", self.base, self.guests.file()));
        let params = [
            ("name", "guest"),
            ("displaytext", "guest"),
            ("format", self.guests.format()),
            ("hypervisor", self.guests.hypervisor()),
            ("ostypeid", os.as_str()),
            ("zoneid", self.id("zone")),
            ("url", url.as_str()),
        ];
        let template = text(&self.run("registerTemplate", &params).await, "/template/0/id");
        let ready = || async {
            let params = [("templatefilter", "self"), ("id", template.as_str())];
            self.first("listTemplates", "template", &params).await["isready"] == true
        };
        wait_until(ready, PATIENCE).await;
        let name = [("name", "DefaultIsolatedNetworkOfferingWithSourceNatService")];
        let offering = text(&self.first("listNetworkOfferings", "networkoffering", &name).await, "/id");
        let params = [
            ("zoneid", self.id("zone")),
            ("name", "net"),
            ("displaytext", "net"),
            ("networkofferingid", offering.as_str()),
        ];
        let net = text(&self.run("createNetwork", &params).await, "/network/id");
        self.ids.extend([("template", template), ("net", net)]);
        self.done("the template lies on NFS");
    }

    /// Deploys a VM of an offering into the network; gives what the API shows of it.
    pub async fn deploy(&self, name: &str, offering: &str) -> Value {
        let params = [
            ("zoneid", self.id("zone")),
            ("templateid", self.id("template")),
            ("serviceofferingid", offering),
            ("networkids", self.id("net")),
            ("name", name),
        ];
        let vm = self.run("deployVirtualMachine", &params).await["virtualmachine"].clone();
        assert_eq!(text(&vm, "/state"), "Running", "{vm}");
        self.done("the VM is Running");
        vm
    }

    /// A VM's state.
    pub async fn state(&self, vm: &str) -> String {
        let listed = self.api.call("listVirtualMachines", &[("id", vm)]).await.unwrap();
        listed.pointer("/virtualmachine/0/state").and_then(Value::as_str).unwrap_or("none").to_owned()
    }

    /// Waits until a VM has a state.
    pub async fn is(&self, vm: &str, wanted: &str) {
        let look = || async {
            let state = self.state(vm).await;
            if state == wanted { Ok(()) } else { Err(state) }
        };
        until_ok(look, PATIENCE).await;
    }

    /// Lets everybody reach a port of a VM; gives the address.
    pub async fn publish(&self, vm: &str, port: &str) -> String {
        let made = self.run("associateIpAddress", &[("networkid", self.id("net"))]).await;
        let (address, public) = (text(&made, "/ipaddress/id"), text(&made, "/ipaddress/ipaddress"));
        let params = [("ipaddressid", address.as_str()), ("protocol", "tcp"), ("startport", "1"), ("endport", "65535")];
        self.run("createFirewallRule", &params).await;
        let params = [
            ("ipaddressid", address.as_str()),
            ("virtualmachineid", vm),
            ("protocol", "tcp"),
            ("publicport", port),
            ("privateport", port),
            ("openfirewall", "false"),
        ];
        self.run("createPortForwardingRule", &params).await;
        public
    }
}
