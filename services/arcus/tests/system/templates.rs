//! A template's life as clients see it, through the whole system, with simulated hosts that download.

use crate::dev::{Dev, deploy_params};
use arcus::api_client::ApiClient;
use serde_json::Value;
use std::time::Duration;
use testkit::wait_until;

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

async fn shown(api: &ApiClient, id: &str) -> Value {
    let listed = api.call("listTemplates", &[("templatefilter", "self"), ("id", id)]).await.unwrap();
    listed.pointer("/template/0").cloned().unwrap_or_default()
}

async fn register(api: &ApiClient, zone: &str, name: &str, url: &str) -> String {
    let os_types = api.call("listOsTypes", &[("pagesize", "1"), ("page", "1")]).await.unwrap();
    let params = [
        ("name", name),
        ("displaytext", name),
        ("format", "QCOW2"),
        ("hypervisor", "Simulator"),
        ("ostypeid", &text(&os_types, "/ostype/0/id")),
        ("zoneid", zone),
        ("url", url),
    ];
    text(&api.call("registerTemplate", &params).await.unwrap(), "/template/0/id")
}

// covers: TPL-083, TPL-084
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_template_is_deployed_and_deleted() {
    let mut dev = Dev::with_zone(2).await;
    let api = dev.api();
    let ids = dev.ids().await;
    // Half-way through its download everything is killed.
    let url = "http://images.example/a.qcow2?bytes=500000000&virtual=1073741824&millis=6000";
    let slow = register(&api, &ids[0], "slow", url).await;
    wait_until(
        || async { text(&shown(&api, &slow).await, "/status").ends_with("% Downloaded") },
        Duration::from_secs(30),
    )
    .await;
    let mut params = deploy_params(&ids, "early");
    params.iter_mut().filter(|(name, _)| *name == "templateid").for_each(|(_, value)| *value = slow.as_str());
    let early = api.run("deployVirtualMachine", &params).await.unwrap_err().to_string();
    assert!(early.contains("isn't ready in this zone"), "{early}");
    dev.kill();
    dev.restart().await;
    let api = dev.api();
    wait_until(|| async { shown(&api, &slow).await["isready"] == true }, Duration::from_secs(120)).await;
    let ready = shown(&api, &slow).await;
    assert_eq!((ready["status"].as_str(), ready["size"].as_i64()), (Some("Download Complete"), Some(1 << 30)));
    assert_eq!(ready["physicalsize"].as_i64(), Some(500_000_000));

    let mut params = deploy_params(&ids, "of-slow");
    params.iter_mut().filter(|(name, _)| *name == "templateid").for_each(|(_, value)| *value = slow.as_str());
    let vm = text(&api.run("deployVirtualMachine", &params).await.unwrap(), "/virtualmachine/id");
    let refused = api.run("deleteTemplate", &[("id", &slow)]).await.unwrap_err().to_string();
    assert!(refused.contains(&vm), "{refused}");
    api.run("deleteTemplate", &[("id", &slow), ("forced", "true")]).await.unwrap();
    api.run("stopVirtualMachine", &[("id", &vm)]).await.unwrap();
    let started = api.run("startVirtualMachine", &[("id", &vm)]).await.unwrap();
    assert_eq!(text(&started, "/virtualmachine/state"), "Running");
    let again = api.run("deployVirtualMachine", &params).await.unwrap_err().to_string();
    assert!(again.contains("templateid names has been removed"), "{again}");

    // What the host refuses is told, and can be deleted.
    let bad = register(&api, &ids[0], "bad", "http://images.example/b.qcow2?millis=1&refuse=it+is+no+image").await;
    wait_until(|| async { text(&shown(&api, &bad).await, "/status") == "it is no image" }, Duration::from_secs(30))
        .await;
    api.run("deleteTemplate", &[("id", &bad)]).await.unwrap();
    dev.settle().await;
    dev.audit().await;
}
