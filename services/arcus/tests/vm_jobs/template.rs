//! A small zone, built once through the public API and copied for each run.

use arcus::api_client::ApiClient;
use arcus::stack::{Stack, StackOptions};
use arcus::zone;
use contract::secret::Secret;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Names of its machines, by what they are.
pub const RUNNING: &str = "t-first";
pub const OFF: &str = "off";
pub const GONE: &str = "gone";

/// What requests name.
#[derive(Clone, Debug)]
pub struct Ids {
    pub zone: String,
    pub template: String,
    pub offering: String,
    pub network: String,
    pub host: String,
    /// With more CPU and memory than `offering`.
    pub larger_offering: String,
    /// With less.
    pub smaller_offering: String,
    /// Of a template with networks: one in which `t-first` has its second NIC.
    pub second_network: String,
    /// That NIC.
    pub second_nic: String,
    /// A network in which nobody is.
    pub third_network: String,
    /// Of a template with a tenant: that account's network.
    pub tenant_network: String,
    /// Its domain.
    pub tenant_domain: String,
    /// Of a template with ISOs: the one in the drives of `t-first` and `off`.
    pub iso: String,
    /// Another one, which the pool has, too.
    pub other_iso: String,
    /// A disk offering.
    pub disk_offering: String,
    vms: BTreeMap<String, String>,
}

impl Ids {
    pub fn vm(&self, name: &str) -> String {
        self.vms[name].clone()
    }
}

pub struct Template {
    dir: TempDir,
    pub ids: Ids,
}

static SHARED: OnceCell<Template> = OnceCell::const_new();

impl Template {
    pub async fn shared() -> &'static Template {
        SHARED.get_or_init(Template::build).await
    }

    /// The same with two networks more, a second NIC of the running machine in one of them, and an SSH key.
    pub async fn with_networks() -> &'static Template {
        static ENRICHED: OnceCell<Template> = OnceCell::const_new();
        ENRICHED
            .get_or_init(|| async {
                let shared = Template::shared().await;
                let (dir, mut ids) = (shared.copy(), shared.ids.clone());
                let (stack, api) = open(dir.path()).await;
                more_networks(&api, &mut ids).await;
                stack.shut_down().await;
                Template { dir, ids }
            })
            .await
    }

    /// The same with two ISOs on the pool, of which one is in the drives of the running machine and of the one that is off.
    pub async fn with_isos() -> &'static Template {
        static ENRICHED: OnceCell<Template> = OnceCell::const_new();
        ENRICHED
            .get_or_init(|| async {
                let shared = Template::shared().await;
                let (dir, mut ids) = (shared.copy(), shared.ids.clone());
                let (stack, api) = open(dir.path()).await;
                isos(&api, &mut ids).await;
                stack.shut_down().await;
                Template { dir, ids }
            })
            .await
    }

    /// The same with another account, "tenant", which has a network, and with a machine that is in groups and has a tag.
    pub async fn with_tenant() -> &'static Template {
        static LET: OnceCell<Template> = OnceCell::const_new();
        LET.get_or_init(|| async {
            let shared = Template::shared().await;
            let (dir, mut ids) = (shared.copy(), shared.ids.clone());
            let (stack, api) = open(dir.path()).await;
            tenant(&api, &mut ids).await;
            stack.shut_down().await;
            Template { dir, ids }
        })
        .await
    }

    async fn build() -> Template {
        // `ARCUS_LOG=debug` shows what the services say; the guard of a process-wide subscriber may go.
        let quiet = telemetry::Options { filter: Some("error".into()), ..telemetry::Options::default() };
        std::mem::forget(telemetry::init(&quiet));
        let dir = testkit::temp_dir();
        let (stack, api) = open(dir.path()).await;
        zone::build(&api, "t", 2, |_| {}).await.unwrap();
        let mut ids = Ids {
            zone: first(&api, "listZones", "zone", &[]).await,
            template: first(&api, "listTemplates", "template", &[("templatefilter", "featured")]).await,
            offering: first(&api, "listServiceOfferings", "serviceoffering", &[("name", "Small Instance")]).await,
            network: first(&api, "listNetworks", "network", &[]).await,
            host: first(&api, "listHosts", "host", &[]).await,
            larger_offering: offering(&api, "larger", "2", "1000", "1024").await,
            smaller_offering: offering(&api, "smaller", "1", "250", "256").await,
            second_network: String::new(),
            second_nic: String::new(),
            third_network: String::new(),
            tenant_network: String::new(),
            tenant_domain: String::new(),
            iso: String::new(),
            other_iso: String::new(),
            disk_offering: String::new(),
            vms: BTreeMap::new(),
        };
        for name in [OFF, GONE] {
            let params = [
                ("zoneid", ids.zone.as_str()),
                ("templateid", &ids.template),
                ("serviceofferingid", &ids.offering),
                ("networkids", &ids.network),
                ("name", name),
            ];
            api.run("deployVirtualMachine", &params).await.unwrap();
        }
        let listed = api.call("listVirtualMachines", &[("listall", "true")]).await.unwrap();
        for vm in listed.get("virtualmachine").and_then(Value::as_array).unwrap() {
            let text = |key: &str| vm.get(key).and_then(Value::as_str).unwrap().to_owned();
            ids.vms.insert(text("name"), text("id"));
        }
        api.run("stopVirtualMachine", &[("id", &ids.vm(OFF))]).await.unwrap();
        api.run("destroyVirtualMachine", &[("id", &ids.vm(GONE))]).await.unwrap();
        stack.shut_down().await;
        Template { dir, ids }
    }

    /// A copy of its data folder.
    pub fn copy(&self) -> TempDir {
        let copy = testkit::temp_dir();
        copy_folder(self.dir.path(), copy.path());
        copy
    }
}

async fn tenant(api: &ApiClient, ids: &mut Ids) {
    let text = |answer: &Value, pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
    let account = [
        ("accounttype", "0"),
        ("email", "t@example.org"),
        ("firstname", "T"),
        ("lastname", "T"),
        ("username", "tenant"),
        ("password", "secret-word"),
    ];
    let made = api.call("createAccount", &account).await.unwrap();
    ids.tenant_domain = text(&made, "/account/domainid");
    let known = api.call("listNetworks", &[("id", &ids.network)]).await.unwrap();
    let network = [
        ("zoneid", ids.zone.as_str()),
        ("networkofferingid", &text(&known, "/network/0/networkofferingid")),
        ("name", "of-tenant"),
        ("displaytext", "of-tenant"),
        ("account", "tenant"),
        ("domainid", &ids.tenant_domain),
    ];
    ids.tenant_network = text(&api.call("createNetwork", &network).await.unwrap(), "/network/id");
    let off = ids.vms[OFF].as_str();
    api.call("updateVirtualMachine", &[("id", off), ("group", "g")]).await.unwrap();
    let group = [("name", "apart"), ("type", "host anti-affinity")];
    let group = text(&api.run("createAffinityGroup", &group).await.unwrap(), "/affinitygroup/id");
    api.run("updateVMAffinityGroup", &[("id", off), ("affinitygroupids", &group)]).await.unwrap();
    let tag = [("resourcetype", "UserVm"), ("resourceids", off), ("tags[0].key", "k"), ("tags[0].value", "v")];
    api.run("createTags", &tag).await.unwrap();
}

async fn more_networks(api: &ApiClient, ids: &mut Ids) {
    let text = |answer: &Value, pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
    let known = api.call("listNetworks", &[("id", &ids.network)]).await.unwrap();
    let offering = text(&known, "/network/0/networkofferingid");
    let mut made = Vec::new();
    for name in ["second", "third"] {
        let params =
            [("zoneid", ids.zone.as_str()), ("networkofferingid", &offering), ("name", name), ("displaytext", name)];
        made.push(text(&api.call("createNetwork", &params).await.unwrap(), "/network/id"));
    }
    (ids.third_network, ids.second_network) = (made.pop().unwrap(), made.pop().unwrap());
    let add = [("virtualmachineid", ids.vms[RUNNING].as_str()), ("networkid", &ids.second_network)];
    let changed = api.run("addNicToVirtualMachine", &add).await.unwrap();
    let nics = changed.pointer("/virtualmachine/nic").and_then(Value::as_array).unwrap();
    let added = nics.iter().find(|nic| text(nic, "/networkid") == ids.second_network).unwrap();
    ids.second_nic = text(added, "/id");
    // The third one is implemented, too: that it stays so when a NIC's job fails is no remainder.
    let passing = [("virtualmachineid", ids.vms[RUNNING].as_str()), ("networkid", &ids.third_network)];
    let changed = api.run("addNicToVirtualMachine", &passing).await.unwrap();
    let nics = changed.pointer("/virtualmachine/nic").and_then(Value::as_array).unwrap();
    let passing = text(nics.iter().find(|nic| text(nic, "/networkid") == ids.third_network).unwrap(), "/id");
    let remove = [("virtualmachineid", ids.vms[RUNNING].as_str()), ("nicid", &passing)];
    api.run("removeNicFromVirtualMachine", &remove).await.unwrap();
    api.call("createSSHKeyPair", &[("name", "k1")]).await.unwrap();
}

async fn isos(api: &ApiClient, ids: &mut Ids) {
    let os_type = first(api, "listOsTypes", "ostype", &[("pagesize", "1"), ("page", "1")]).await;
    ids.disk_offering = first(api, "listDiskOfferings", "diskoffering", &[("name", "Small")]).await;
    for (name, slot) in [("install", &mut ids.iso), ("tools", &mut ids.other_iso)] {
        let url = format!("http://images.example/{name}.iso?bytes=1048576&millis=1");
        let params = [
            ("name", name),
            ("displaytext", name),
            ("url", url.as_str()),
            ("zoneid", &ids.zone),
            ("ostypeid", &os_type),
            ("bootable", "true"),
        ];
        let made = api.call("registerIso", &params).await.unwrap();
        *slot = made.pointer("/iso/0/id").and_then(Value::as_str).unwrap().to_owned();
        let ready = || async {
            let listed = api.call("listIsos", &[("isofilter", "self"), ("id", slot)]).await.unwrap();
            listed.pointer("/iso/0/isready").and_then(Value::as_bool) == Some(true)
        };
        testkit::wait_until(ready, std::time::Duration::from_secs(60)).await;
    }
    // Both lie on the pool then: that they stay there when a job fails is no remainder.
    for (vm, iso) in [(RUNNING, &ids.other_iso), (RUNNING, &ids.iso), (OFF, &ids.iso)] {
        api.run("attachIso", &[("virtualmachineid", ids.vms[vm].as_str()), ("id", iso)]).await.unwrap();
    }
}

async fn offering(api: &ApiClient, name: &str, cpus: &str, mhz: &str, mib: &str) -> String {
    let params = [("name", name), ("displaytext", name), ("cpunumber", cpus), ("cpuspeed", mhz), ("memory", mib)];
    let made = api.call("createServiceOffering", &params).await.unwrap();
    made.pointer("/serviceoffering/id").and_then(Value::as_str).unwrap().to_owned()
}

/// The whole system on a data folder, with a client.
pub async fn open(dir: &Path) -> (Stack, ApiClient) {
    let any = "127.0.0.1:0".parse().unwrap();
    let options = StackOptions {
        data_dir: dir.to_owned(),
        database: None,
        etcd: Vec::new(),
        api: any,
        grpc: any,
        agents: any,
        metrics: any,
        admin_password: Secret::new("password".to_owned()),
        limits: Default::default(),
    };
    let stack = Stack::start(options).await.unwrap();
    let endpoint = format!("http://{}/client/api", stack.api);
    let api = ApiClient::new(&endpoint, &stack.keys.0, stack.keys.1.expose());
    (stack, api)
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

async fn first(api: &ApiClient, command: &str, key: &str, params: &[(&str, &str)]) -> String {
    let answer = api.call(command, params).await.unwrap();
    answer.pointer(&format!("/{key}/0/id")).and_then(Value::as_str).unwrap().to_owned()
}
