//! Deployment planners through the whole system, as the incumbent's smoke test of them does it.

use crate::dev::{Dev, deploy_params};
use arcus::api_client::ApiClient;
use serde_json::Value;

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

/// Code and text of a refusal.
async fn refusal(api: &ApiClient, command: &str, params: &[(&str, &str)]) -> (u64, String) {
    let body: Value = serde_json::from_slice(&api.raw(command, params).await.unwrap()).unwrap();
    let answer = body.as_object().unwrap().values().next().unwrap().clone();
    let code = answer.get("errorcode").and_then(Value::as_u64).unwrap_or_else(|| panic!("{command}: {answer}"));
    (code, text(&answer, "/errortext"))
}

fn offering_params(planner: &str) -> Vec<(&str, &str)> {
    let size = [("cpunumber", "1"), ("cpuspeed", "100"), ("memory", "128"), ("displaytext", "planned")];
    [("name", planner), ("deploymentplanner", planner)].into_iter().chain(size).collect()
}

/// The cluster or pod of the host of a VM that is deployed with these parameters.
async fn place(api: &ApiClient, params: &[(&str, &str)], key: &str) -> String {
    let vm = api.run("deployVirtualMachine", params).await.unwrap();
    assert_eq!(text(&vm, "/virtualmachine/state"), "Running");
    let host = text(&vm, "/virtualmachine/hostid");
    let hosts = api.call("listHosts", &[("id", &host), ("type", "Routing")]).await.unwrap();
    text(&hosts, &format!("/host/0/{key}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn varied_planners() {
    // More than a cluster has.
    let dev = Dev::with_zone(17).await;
    let (api, mut ids) = (dev.api(), dev.ids().await);
    let clusters = api.call("listClusters", &[]).await.unwrap();
    assert_eq!(clusters.get("count").and_then(Value::as_i64), Some(2), "{clusters}");
    let listed = api.call("listDeploymentPlanners", &[]).await.unwrap();
    let planners: Vec<String> =
        listed["deploymentPlanner"].as_array().unwrap().iter().map(|p| text(p, "/name")).collect();
    assert_eq!(listed.get("count").and_then(Value::as_u64), Some(planners.len() as u64));
    let mut offerings = std::collections::BTreeMap::new();
    for planner in &planners {
        let made = api.call("createServiceOffering", &offering_params(planner)).await.unwrap();
        assert_eq!(text(&made, "/serviceoffering/deploymentplanner"), *planner);
        offerings.insert(planner.clone(), text(&made, "/serviceoffering/id"));
    }
    let unknown = refusal(&api, "createServiceOffering", &offering_params("NoSuchPlanner")).await;
    assert!(unknown.0 == 431 && unknown.1.contains("listDeploymentPlanners"), "{unknown:?}");
    let mut places = std::collections::BTreeMap::new();
    for (planner, key) in [
        ("FirstFitPlanner", "clusterid"),
        ("UserDispersingPlanner", "clusterid"),
        ("UserConcentratedPodPlanner", "podid"),
        ("ImplicitDedicationPlanner", "id"),
    ] {
        ids[2] = offerings[planner].clone();
        let one = place(&api, &deploy_params(&ids, &format!("{planner}-1")), key).await;
        let two = place(&api, &deploy_params(&ids, &format!("{planner}-2")), key).await;
        places.insert(planner, (one, two));
    }
    let (one, two) = &places["UserConcentratedPodPlanner"];
    assert_eq!(one, two, "one pod");
    let (one, two) = &places["ImplicitDedicationPlanner"];
    assert_eq!(one, two, "one host for both");
    // Whoever is dispersed counts all VMs of the account: by now both clusters have the same number, give or take one.
    let mut counts = std::collections::BTreeMap::new();
    ids[2] = offerings["UserDispersingPlanner"].clone();
    for n in 0..8 {
        place(&api, &deploy_params(&ids, &format!("even-{n}")), "clusterid").await;
    }
    let vms = api.call("listVirtualMachines", &[("state", "Running")]).await.unwrap();
    for vm in vms["virtualmachine"].as_array().unwrap() {
        let host = text(vm, "/hostid");
        let hosts = api.call("listHosts", &[("id", &host), ("type", "Routing")]).await.unwrap();
        *counts.entry(text(&hosts, "/host/0/clusterid")).or_insert(0i64) += 1;
    }
    let counts: Vec<i64> = counts.into_values().collect();
    assert!(counts.len() == 2 && (counts[0] - counts[1]).abs() <= 1, "{counts:?}");
    // For one VM, by root admins: at the deployment and at a start.
    let mut chosen = deploy_params(&ids, "chosen");
    chosen.push(("deploymentplanner", "FirstFitPlanner"));
    let vm = text(&api.run("deployVirtualMachine", &chosen).await.unwrap(), "/virtualmachine/id");
    api.run("stopVirtualMachine", &[("id", &vm)]).await.unwrap();
    let none = ("deploymentplanner", "BareMetalPlanner");
    let refused = refusal(&api, "startVirtualMachine", &[("id", &vm), none]).await;
    assert!(refused.0 == 431 && refused.1.contains("planner by name BareMetalPlanner"), "{refused:?}");
    let mut params = deploy_params(&ids, "never");
    params.push(none);
    assert_eq!(refusal(&api, "deployVirtualMachine", &params).await.0, 431);
    api.run("startVirtualMachine", &[("id", &vm), ("deploymentplanner", "UserDispersingPlanner")]).await.unwrap();
    // What a deployment would decide now, and why: the clusters in order, with their hosts.
    let mut params = deploy_params(&ids, "asked");
    params.push(("deploymentplanner", "UserConcentratedPodPlanner"));
    let plan = dev.planned().call("deployVirtualMachine", &params).await.unwrap();
    let plan = if plan.get("plan").is_some() { plan["plan"].clone() } else { plan };
    assert_eq!(
        (text(&plan, "/planner").as_str(), &plan["feasible"]),
        ("UserConcentratedPodPlanner", &Value::Bool(true))
    );
    let seen = plan["clusters"].as_array().unwrap();
    let hosts = |key: &str| seen.iter().map(|c| c[key].as_i64().unwrap()).sum::<i64>();
    assert_eq!((seen.len(), hosts("hosts")), (2, 17), "{plan}");
    // One is kept by implicit dedication.
    assert_eq!(hosts("suitable"), 16, "{plan}");
    assert!(plan.to_string().contains("1 kept for one account by strict implicit dedication"), "{plan}");
    dev.settle().await;
    dev.audit().await;
}
