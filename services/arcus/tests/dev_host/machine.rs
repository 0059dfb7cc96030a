//! As far as the machine itself goes: a real agent on a real libvirtd becomes a host, within this process.

use crate::namespace::Namespace;
use arcus::api_client::ApiClient;
use arcus::dev_machine::{Machine, Site};
use arcus::machine_zone;
use arcus::stack::{Stack, StackOptions};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

async fn stack(dir: &Path) -> (Stack, ApiClient) {
    let any = "127.0.0.1:0".parse().unwrap();
    let options = StackOptions {
        data_dir: dir.to_owned(),
        database: None,
        etcd: Vec::new(),
        api: any,
        grpc: any,
        agents: any,
        metrics: any,
        admin_password: contract::secret::Secret::new("password".to_owned()),
        limits: Default::default(),
    };
    let stack = Stack::start(options).await.unwrap();
    let endpoint = format!("http://{}/client/api", stack.api);
    let api = ApiClient::new(&endpoint, &stack.keys.0, stack.keys.1.expose());
    (stack, api)
}

async fn hosts(api: &ApiClient) -> Vec<Value> {
    let listed = api.call("listHosts", &[("type", "Routing")]).await.unwrap();
    listed.get("host").and_then(Value::as_array).cloned().unwrap_or_default()
}

struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), contract::ApiError>>,
}

fn run(stack: &Stack, machine: &Machine) -> Running {
    let stop = CancellationToken::new();
    let options = machine.agent(agent::Dial::Channel(stack.net.channel("orchestrator")));
    Running { task: tokio::spawn(agent::run(options, stop.clone())), stop }
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_becomes_a_host_and_stops_being_one() {
    if !testkit::Libvirtd::available("this_machine_becomes_a_host_and_stops_being_one") {
        return;
    }
    let libvirtd = testkit::Libvirtd::start().await;
    let namespace = Namespace::new();
    let dir = tempfile::Builder::new().prefix("dm").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let site = Site {
        dir: dir.path().join("m"),
        namespace: Some(namespace.0.clone()),
        libvirt_socket: Some(libvirtd.socket()),
    };
    let machine = Machine::prepare(site.clone()).await.unwrap();
    let (stack, api) = stack(&dir.path().join("data")).await;
    let agent = run(&stack, &machine);
    machine_zone::build(&api, "dev", &machine, |_| {}).await.unwrap();
    // A restart in the middle goes on where it was.
    machine_zone::build(&api, "dev", &machine, |_| {}).await.unwrap();
    let there = hosts(&api).await;
    let text = |host: &Value, key: &str| host.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    assert_eq!(there.len(), 1);
    let host = &there[0];
    assert_eq!((text(host, "state").as_str(), text(host, "hypervisor").as_str()), ("Up", "KVM"));
    assert_eq!((text(host, "name").as_str(), text(host, "ipaddress").as_str()), (libvirtd.name(), "198.18.0.1"));
    assert!(host["cpunumber"].as_i64().unwrap() > 0 && host["memorytotal"].as_i64().unwrap() > 1 << 27, "{host}");
    let uuid = text(host, "id");

    // The agent is stopped and started: the same host.
    agent.stop.cancel();
    agent.task.await.unwrap().unwrap();
    let state = async |wanted: &str| {
        testkit::wait_until(
            || async { hosts(&api).await.iter().any(|h| text(h, "state") == wanted) },
            Duration::from_secs(30),
        )
        .await;
    };
    state("Disconnected").await;
    let agent = run(&stack, &machine);
    state("Up").await;
    assert_eq!(text(&hosts(&api).await[0], "id"), uuid);

    // Deleted: the agent forgets who it is and ends. Started anew, it is another one, and may be added again.
    api.call("updateHost", &[("id", &uuid), ("allocationstate", "Disable")]).await.unwrap();
    api.call("deleteHost", &[("id", &uuid)]).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), agent.task).await.unwrap().unwrap().unwrap_err();
    assert!(ended.full_text().contains("deleted"), "{}", ended.full_text());
    assert!(!site.dir.join("agent/agent.uuid").exists());
    let agent = run(&stack, &machine);
    machine_zone::build(&api, "dev", &machine, |_| {}).await.unwrap();
    let again = hosts(&api).await;
    assert!(again.len() == 1 && text(&again[0], "id") != uuid && text(&again[0], "state") == "Up", "{again:?}");

    agent.stop.cancel();
    agent.task.await.unwrap().unwrap();
    stack.shut_down().await;
    assert!(namespace.addresses().contains("198.18.1.1/24"));
    machine.leave().unwrap();
    assert!(!namespace.addresses().contains("198.18"), "nothing stays on the machine's network");
    Machine::reset(&site).unwrap();
    assert!(!site.dir.exists());
}
