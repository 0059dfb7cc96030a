//! A snapshot's life as clients see it, through the whole system, with simulated hosts that copy.

use crate::dev::{Dev, deploy_params};
use serde_json::Value;
use std::time::Duration;
use testkit::wait_until;

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_taken_through_a_kill_and_used() {
    let mut dev = Dev::with_zone(2).await;
    let api = dev.api();
    let ids = dev.ids().await;
    let vm = text(&api.run("deployVirtualMachine", &deploy_params(&ids, "first")).await.unwrap(), "/virtualmachine/id");
    let root = api.call("listVolumes", &[("virtualmachineid", &vm), ("type", "ROOT")]).await.unwrap();
    let (root, size) = (text(&root, "/volume/0/id"), root.pointer("/volume/0/size").and_then(Value::as_i64));
    let begun = api.call("createSnapshot", &[("volumeid", &root), ("name", "s")]).await.unwrap();
    let snapshot = text(&begun, "/id");
    dev.kill();
    dev.restart().await;
    let api = dev.api();
    let shown = || async { api.call("listSnapshots", &[("id", &snapshot)]).await.unwrap() };
    wait_until(
        || async { shown().await.pointer("/snapshot/0/state").and_then(Value::as_str) == Some("BackedUp") },
        Duration::from_secs(120),
    )
    .await;
    let there = shown().await;
    assert_eq!(there.pointer("/snapshot/0/virtualsize").and_then(Value::as_i64), size);
    assert_eq!(text(&there, "/snapshot/0/volumetype"), "ROOT");
    text(&there, "/snapshot/0/osdisplayname");

    // A volume of it, at once in the machine; a template of it, and a machine of that.
    let volume = [("snapshotid", snapshot.as_str()), ("virtualmachineid", vm.as_str()), ("name", "copy")];
    let volume = api.run("createVolume", &volume).await.unwrap();
    assert_eq!((text(&volume, "/volume/type"), text(&volume, "/volume/virtualmachineid")), ("DATADISK".into(), vm));
    assert_eq!(text(&volume, "/volume/snapshotid"), snapshot);
    let os_type = text(&api.call("listOsTypes", &[("page", "1"), ("pagesize", "1")]).await.unwrap(), "/ostype/0/id");
    let template =
        [("snapshotid", snapshot.as_str()), ("name", "t"), ("displaytext", "t"), ("ostypeid", os_type.as_str())];
    let template = text(&api.run("createTemplate", &template).await.unwrap(), "/template/id");
    let mut params = deploy_params(&ids, "of-snapshot");
    params.iter_mut().filter(|(name, _)| *name == "templateid").for_each(|(_, value)| *value = template.as_str());
    let second = api.run("deployVirtualMachine", &params).await.unwrap();
    assert_eq!(text(&second, "/virtualmachine/state"), "Running");

    api.run("deleteSnapshot", &[("id", &snapshot)]).await.unwrap();
    assert!(shown().await.pointer("/snapshot/0").is_none());
    dev.settle().await;
    dev.audit().await;
}
