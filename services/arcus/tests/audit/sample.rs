//! A world with one of each, made through the public API, at rest.

use crate::template::{self, Template};
use arcus::api_client::ApiClient;
use arcus::stack::Stack;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use store::{Db, DbConfig, Sql};
use tempfile::TempDir;
use testkit::wait_until;
use tokio::sync::OnceCell;

static SAMPLE: OnceCell<TempDir> = OnceCell::const_new();

/// Its data folder.
pub async fn folder() -> &'static Path {
    SAMPLE
        .get_or_init(|| async {
            let dir = Template::shared().await.copy();
            let (stack, api) = template::open(dir.path()).await;
            enrich(&api).await;
            drained(&stack.node.db).await;
            stack.shut_down().await;
            dir
        })
        .await
        .path()
}

/// A database of its own with the same content.
pub async fn database() -> (Db, TempDir) {
    let copy = testkit::temp_dir();
    for entry in std::fs::read_dir(folder().await).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("arcus.db") {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    (open(copy.path()).await, copy)
}

async fn open(dir: &Path) -> Db {
    Db::connect(&DbConfig::new(format!("sqlite:{}", dir.join("arcus.db").display()))).await.unwrap()
}

/// Adds to the template what checks are about: tenants, volumes, addresses, tags, keys, a network that isn't in use.
pub async fn enrich(api: &ApiClient) {
    let zone = first(api, "listZones", "zone").await;
    let network = first(api, "listNetworks", "network").await;
    api.call("createDomain", &[("name", "sub")]).await.unwrap();
    api.call("createInstanceGroup", &[("name", "of-nobody-yet")]).await.unwrap();
    let tenant = [
        ("accounttype", "0"),
        ("email", "t@example.org"),
        ("firstname", "T"),
        ("lastname", "T"),
        ("username", "tenant"),
        ("password", "secret-word"),
    ];
    api.call("createAccount", &tenant).await.unwrap();
    let address = api.run("associateIpAddress", &[("networkid", &network)]).await.unwrap();
    let address =
        address.pointer("/ipaddress/id").and_then(Value::as_str).unwrap_or_else(|| panic!("{address}")).to_owned();
    let by_name = [("name", "DefaultIsolatedNetworkOfferingWithSourceNatService")];
    let offering = api.call("listNetworkOfferings", &by_name).await.unwrap();
    let offering = offering.pointer("/networkoffering/0/id").and_then(Value::as_str).unwrap();
    let second = [("zoneid", zone.as_str()), ("name", "second"), ("displaytext", "s"), ("networkofferingid", offering)];
    api.call("createNetwork", &second).await.unwrap();
    let offering = first(api, "listDiskOfferings", "diskoffering").await;
    let volume = [("zoneid", zone.as_str()), ("name", "data"), ("diskofferingid", offering.as_str())];
    api.run("createVolume", &volume).await.unwrap();
    api.call("createSSHKeyPair", &[("name", "key")]).await.unwrap();
    let vm = api.call("listVirtualMachines", &[("listall", "true"), ("state", "Running")]).await.unwrap();
    let vm = vm.pointer("/virtualmachine/0/id").and_then(Value::as_str).unwrap();
    let tags = [("resourcetype", "UserVm"), ("resourceids", vm), ("tags[0].key", "a"), ("tags[0].value", "b")];
    api.run("createTags", &tags).await.unwrap();
    let forward = [
        ("ipaddressid", address.as_str()),
        ("virtualmachineid", vm),
        ("protocol", "tcp"),
        ("publicport", "2222"),
        ("privateport", "22"),
    ];
    api.run("createPortForwardingRule", &forward).await.unwrap();
    api.run("createEgressFirewallRule", &[("networkid", &network), ("protocol", "all")]).await.unwrap();
    balance(api, &address, vm).await;
    share(api, &zone).await;
    // Groups whose members are stopped, and a host that is kept for a tenant.
    for (name, kind) in [("apart", "host anti-affinity"), ("near", "host affinity")] {
        api.run("createAffinityGroup", &[("name", name), ("type", kind)]).await.unwrap();
    }
    let hosts = api.call("listHosts", &[("type", "Routing")]).await.unwrap();
    let taken = api.call("listVirtualMachines", &[("id", vm)]).await.unwrap();
    let taken = taken.pointer("/virtualmachine/0/hostid").and_then(Value::as_str).unwrap().to_owned();
    let all = hosts.pointer("/host").and_then(Value::as_array).unwrap_or_else(|| panic!("{hosts}"));
    let host = all.iter().filter_map(|h| h.get("id").and_then(Value::as_str)).find(|id| *id != taken).unwrap();
    let domains = api.call("listDomains", &[("name", "sub"), ("listall", "true")]).await.unwrap();
    let domain = domains.pointer("/domain/0/id").and_then(Value::as_str).unwrap_or_else(|| panic!("{domains}"));
    api.run("dedicateHost", &[("hostid", host), ("domainid", domain)]).await.unwrap();
    let root = api.call("listVolumes", &[("virtualmachineid", vm), ("type", "ROOT")]).await.unwrap();
    let root = root.pointer("/volume/0/id").and_then(Value::as_str).unwrap_or_else(|| panic!("{root}"));
    api.run("createSnapshot", &[("volumeid", root), ("name", "sample")]).await.unwrap();
}

/// A template that was registered, came in, and is shared.
async fn share(api: &ApiClient, zone: &str) {
    let os_type = first(api, "listOsTypes", "ostype").await;
    let template = [
        ("name", "sample"),
        ("displaytext", "s"),
        ("format", "QCOW2"),
        ("hypervisor", "Simulator"),
        ("ostypeid", os_type.as_str()),
        ("url", "http://images.example/sample.qcow2?bytes=1000000&virtual=2000000&millis=1"),
        ("zoneid", zone),
    ];
    let made = api.call("registerTemplate", &template).await.unwrap();
    let id = made.pointer("/template/0/id").and_then(Value::as_str).unwrap_or_else(|| panic!("{made}"));
    wait_until(
        || async {
            let listed = api.call("listTemplates", &[("templatefilter", "all"), ("id", id)]).await.unwrap();
            listed.pointer("/template/0/isready") == Some(&Value::Bool(true))
        },
        Duration::from_secs(60),
    )
    .await;
    let shared = [("id", id), ("op", "add"), ("accounts", "tenant")];
    api.call("updateTemplatePermissions", &shared).await.unwrap();
}

/// A load balancing rule with a VM behind it and a stickiness policy.
async fn balance(api: &ApiClient, address: &str, vm: &str) {
    let rule = [
        ("publicipid", address),
        ("name", "web"),
        ("algorithm", "roundrobin"),
        ("publicport", "80"),
        ("privateport", "8080"),
    ];
    let made = api.run("createLoadBalancerRule", &rule).await.unwrap();
    let rule = made.pointer("/loadbalancer/id").and_then(Value::as_str).unwrap_or_else(|| panic!("{made}"));
    api.run("assignToLoadBalancerRule", &[("id", rule), ("virtualmachineids", vm)]).await.unwrap();
    let policy = [("lbruleid", rule), ("name", "sticky"), ("methodname", "SourceBased")];
    api.run("createLBStickinessPolicy", &policy).await.unwrap();
}

async fn first(api: &ApiClient, command: &str, key: &str) -> String {
    let answer = api.call(command, &[("listall", "true")]).await.unwrap();
    answer.pointer(&format!("/{key}/0/id")).and_then(Value::as_str).unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Waits until no job is under way and all facts have been taken.
pub async fn drained(db: &Db) {
    let sql = "SELECT (SELECT COUNT(*) FROM outbox WHERE seq IS NULL) + (SELECT COUNT(*) FROM outbox_cursors c, outbox_head h \
               WHERE c.seq < h.seq) + (SELECT COUNT(*) FROM jobs WHERE state NOT IN ('Done', 'Failed'))";
    wait_until(|| async { db.one(Sql::new(sql)).await.unwrap().at::<i64>(0).unwrap() == 0 }, Duration::from_secs(60))
        .await;
}

/// The whole system on MariaDB, with the same content.
pub async fn on_mariadb(url: &str) -> (Stack, ApiClient, TempDir) {
    use arcus::stack::StackOptions;
    let dir = testkit::temp_dir();
    let any = "127.0.0.1:0".parse().unwrap();
    let stack = Stack::start(StackOptions {
        data_dir: dir.path().to_owned(),
        database: Some(url.to_owned()),
        etcd: Vec::new(),
        api: any,
        grpc: any,
        agents: any,
        metrics: any,
        admin_password: contract::secret::Secret::new("password".to_owned()),
        limits: Default::default(),
    })
    .await
    .unwrap();
    let endpoint = format!("http://{}/client/api", stack.api);
    let api = ApiClient::new(&endpoint, &stack.keys.0, stack.keys.1.expose());
    arcus::zone::build(&api, "t", 2, |_| {}).await.unwrap();
    enrich(&api).await;
    (stack, api, dir)
}
