//! The same request, sent again because its answer was lost.

use crate::dev::{Dev, deploy_params};
use serde_json::Value;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_sent_three_times_makes_one_machine() {
    let dev = Dev::with_zone(2).await;
    let (api, ids) = (dev.api(), dev.ids().await);
    let mut params = deploy_params(&ids, "once");
    params.push(("idempotencykey", "order-66"));
    // Two connections break at different moments before the answer comes.
    for patience in [0, 3] {
        let _ = tokio::time::timeout(Duration::from_millis(patience), api.call("deployVirtualMachine", &params)).await;
    }
    let done = api.run("deployVirtualMachine", &params).await.unwrap();
    let again = api.run("deployVirtualMachine", &params).await.unwrap();
    assert_eq!(done.pointer("/virtualmachine/id"), again.pointer("/virtualmachine/id"));
    let listed = api.call("listVirtualMachines", &[("name", "once"), ("listall", "true")]).await.unwrap();
    assert_eq!(listed.get("count").and_then(Value::as_i64), Some(1), "{listed}");
    // The key belongs to its request.
    let other: Vec<(&str, &str)> =
        params.iter().map(|(k, v)| if *k == "name" { (*k, "twice") } else { (*k, *v) }).collect();
    let refused = api.call("deployVirtualMachine", &other).await.unwrap_err().to_string();
    assert!(refused.contains("idempotency"), "{refused}");
    dev.settle().await;
    dev.audit().await;
}

/// A repeat comes when the first request has changed what its own checks look at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_after_the_effect_is_answered_as_the_first_was() {
    let dev = Dev::with_zone(2).await;
    let (api, ids) = (dev.api(), dev.ids().await);
    let vm = api.run("deployVirtualMachine", &deploy_params(&ids, "again")).await.unwrap();
    let vm = vm.pointer("/virtualmachine/id").and_then(Value::as_str).unwrap().to_owned();
    let custom = [("name", "any"), ("displaytext", "any"), ("customized", "true")];
    let offering = api.call("createDiskOffering", &custom).await.unwrap();
    let offering = offering.pointer("/diskoffering/id").and_then(Value::as_str).unwrap().to_owned();
    let disk = [("zoneid", ids[0].as_str()), ("diskofferingid", &offering), ("size", "1"), ("name", "disk")];
    let volume = api.run("createVolume", &disk).await.unwrap();
    let volume = volume.pointer("/volume/id").and_then(Value::as_str).unwrap().to_owned();
    let (id, on) = (("id", volume.as_str()), ("virtualmachineid", vm.as_str()));
    let requests: &[(&str, &[(&str, &str)])] = &[
        ("attachVolume", &[id, on, ("idempotencykey", "a")]),
        ("resizeVolume", &[id, ("size", "2"), ("idempotencykey", "b")]),
        ("detachVolume", &[id, ("idempotencykey", "c")]),
        ("deleteVolume", &[id, ("idempotencykey", "d")]),
        ("destroyVirtualMachine", &[("id", vm.as_str()), ("expunge", "true"), ("idempotencykey", "e")]),
    ];
    for (command, params) in requests {
        let first = api.run(command, params).await.unwrap();
        let accepted = api.call(command, params).await.unwrap();
        assert_eq!(api.call(command, params).await.unwrap(), accepted, "{command}");
        assert_eq!(api.run(command, params).await.unwrap(), first, "{command}");
    }
    dev.settle().await;
    dev.audit().await;
}
