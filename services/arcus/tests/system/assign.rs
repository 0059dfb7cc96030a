//! Machines that another account gets, through the whole system.

use crate::dev::deploy_params;
use crate::tenants::{Tenant, Tenants};
use arcus::api_client::ApiClient;
use serde_json::Value;
use std::time::Duration;
use testkit::wait_until;

const ASSIGN: &str = "assignVirtualMachine";

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

/// The number with which a request is refused, and why.
async fn refused(api: &ApiClient, params: &[(&str, &str)]) -> (i64, String) {
    let body: Value = serde_json::from_slice(&api.raw(ASSIGN, params).await.unwrap()).unwrap();
    let inner = body.as_object().and_then(|o| o.values().next()).cloned().unwrap_or_default();
    let code = inner.get("errorcode").and_then(Value::as_i64);
    (code.unwrap_or_else(|| panic!("{params:?} answered {body}")), text(&inner, "/errortext"))
}

/// What an account counts: machines, CPUs, memory, volumes, bytes.
async fn counted(t: &Tenants, of: &Tenant) -> Vec<i64> {
    let params = [("name", of.account.as_str()), ("domainid", &of.domain), ("listall", "true")];
    let found = t.admin.api.call("listAccounts", &params).await.unwrap();
    ["vmtotal", "cputotal", "memorytotal", "volumetotal", "primarystoragetotal"]
        .iter()
        .map(|name| {
            let said = found.pointer(&format!("/account/0/{name}")).unwrap_or_else(|| panic!("no {name} in {found}"));
            said.to_string().replace('"', "").parse().unwrap()
        })
        .collect()
}

async fn listed(api: &ApiClient, command: &str, key: &str, params: &[(&str, &str)]) -> Vec<Value> {
    let found = api.call(command, params).await.unwrap();
    found.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

async fn shown(t: &Tenants, vm: &str) -> Value {
    listed(&t.admin.api, "listVirtualMachines", "virtualmachine", &[("id", vm), ("listall", "true")]).await.remove(0)
}

/// A machine of `of` that has run and is stopped, with a data disk, in a group, an affinity group and with a tag.
async fn machine(t: &Tenants, of: &Tenant, name: &str, ids: &[String; 4]) -> String {
    let network = listed(&of.api, "listNetworks", "network", &[]).await;
    let mut ids = ids.clone();
    ids[3] = text(&network[0], "/id");
    let disk = listed(&of.api, "listDiskOfferings", "diskoffering", &[("name", "Small")]).await;
    let disk = text(&disk[0], "/id");
    let affinity = text(&listed(&of.api, "listAffinityGroups", "affinitygroup", &[]).await[0], "/id");
    let mut params = deploy_params(&ids, name);
    params.extend([("diskofferingid", disk.as_str()), ("group", "movers"), ("affinitygroupids", affinity.as_str())]);
    let vm = text(&of.api.run("deployVirtualMachine", &params).await.unwrap(), "/virtualmachine/id");
    let tag = [("resourcetype", "UserVm"), ("resourceids", vm.as_str()), ("tags[0].key", "k"), ("tags[0].value", "v")];
    t.admin.api.run("createTags", &tag).await.unwrap();
    vm
}

// covers: IAM-039, IAM-040
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_goes_to_another_account() {
    let t = Tenants::settle_in().await;
    let (admin, first, second) = (&t.admin.api, &t.first, &t.second);
    let ids = t.dev.ids().await;
    let vm = machine(&t, first, "mover", &ids).await;
    let to = |account: &'static str| {
        let domain = if account == "firstuser" { &first.domain } else { &second.domain };
        vec![("virtualmachineid", vm.as_str()), ("account", account), ("domainid", domain.as_str())]
    };
    let (code, why) = refused(admin, &to("seconduser")).await;
    assert_eq!((code, why.contains("VM is Running")), (431, true), "{why}");
    first.api.run("stopVirtualMachine", &[("id", &vm)]).await.unwrap();
    refusals(&t, &vm, &to("seconduser"), &to("firstuser")).await;

    // Nothing has changed by all that.
    let before = shown(&t, &vm).await;
    assert_eq!(
        (text(&before, "/account"), text(&before, "/group"), text(&before, "/nic/0/networkname")),
        ("firstuser".into(), "movers".into(), "firstuser-network".into())
    );
    let (old, new) = (counted(&t, first).await, counted(&t, second).await);
    // Whole GiB, as accounts show them.
    let bytes: i64 = listed(admin, "listVolumes", "volume", &[("virtualmachineid", &vm), ("listall", "true")])
        .await
        .iter()
        .map(|v| v.pointer("/size").and_then(Value::as_i64).unwrap())
        .sum();

    let moved = admin.call(ASSIGN, &to("seconduser")).await.unwrap();
    let moved = moved.pointer("/virtualmachine").unwrap();
    assert_eq!(*moved, shown(&t, &vm).await, "the answer is what is listed");
    assert_eq!((text(moved, "/account"), text(moved, "/domainid")), ("seconduser".into(), second.domain.clone()));
    assert_eq!((text(moved, "/id"), text(moved, "/state")), (vm.clone(), "Stopped".into()));
    assert_eq!(text(moved, "/nic/0/networkname"), "seconduser-network", "its only isolated one");
    assert_eq!(moved.pointer("/nic").and_then(Value::as_array).unwrap().len(), 1);
    assert_ne!(moved.pointer("/nic/0/macaddress"), before.pointer("/nic/0/macaddress"));
    assert_eq!((moved.pointer("/group"), moved.pointer("/affinitygroup/0")), (None, None), "{moved}");
    assert_eq!(text(moved, "/tags/0/account"), "seconduser");
    let more = [1, number(moved, "/cpunumber"), number(moved, "/memory"), 2, bytes >> 30];
    let gained = |now: &[i64], before: &[i64]| now.iter().zip(before).map(|(n, b)| n - b).collect::<Vec<_>>();
    assert_eq!(gained(&counted(&t, second).await, &new), more);
    assert_eq!(gained(&old, &counted(&t, first).await), more);
    let volumes = listed(&second.api, "listVolumes", "volume", &[("virtualmachineid", &vm)]).await;
    assert_eq!(volumes.iter().map(|v| text(v, "/account")).collect::<Vec<_>>(), ["seconduser", "seconduser"]);
    // Its new owner has it, its former one doesn't.
    let named = [("name", "mover")];
    assert!(listed(&first.api, "listVirtualMachines", "virtualmachine", &named).await.is_empty());
    assert!(first.api.run("startVirtualMachine", &[("id", &vm)]).await.is_err());
    assert!(listed(&first.api, "listTags", "tag", &[("resourcetype", "UserVm")]).await.is_empty());
    let started = second.api.run("startVirtualMachine", &[("id", &vm)]).await.unwrap();
    assert_eq!(text(&started, "/virtualmachine/state"), "Running");
    let told = || async {
        let events = listed(admin, "listEvents", "event", &[("type", "VM.MOVE"), ("listall", "true")]).await;
        events.iter().any(|e| text(e, "/state") == "Completed" && text(e, "/account") == "seconduser")
    };
    wait_until(told, Duration::from_secs(60)).await;
    second.api.run("stopVirtualMachine", &[("id", &vm)]).await.unwrap();
    within_a_domain(&t, &vm).await;
    t.dev.settle().await;
    t.dev.audit().await;
}

fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

/// Each thing for which it is refused.
async fn refusals(t: &Tenants, vm: &str, to: &[(&str, &str)], back: &[(&str, &str)]) {
    let (admin, first, second) = (&t.admin.api, &t.first, &t.second);
    let said = async |params: &[(&str, &str)], expected: i64, words: &str| {
        let (code, why) = refused(admin, params).await;
        assert!(code == expected && why.contains(words), "{code} {why}");
    };
    said(back, 431, "same as the old account").await;
    // Who may not: the owner himself, and the administrator of the other domain.
    assert!([401, 431, 432].contains(&refused(&first.api, to).await.0), "as without a session");
    assert_eq!(refused(&t.domain_admin.api, to).await.0, 531);

    // Rules that lead to it.
    let network = text(&listed(&first.api, "listNetworks", "network", &[]).await[0], "/id");
    let address = first.api.run("associateIpAddress", &[("networkid", &network)]).await.unwrap();
    let address = text(&address, "/ipaddress/id");
    let rule = [
        ("ipaddressid", address.as_str()),
        ("protocol", "tcp"),
        ("publicport", "22"),
        ("privateport", "22"),
        ("virtualmachineid", vm),
    ];
    let rule = first.api.run("createPortForwardingRule", &rule).await.unwrap();
    said(to, 431, "Remove the Port forwarding rules").await;
    let rule = text(&rule, "/portforwardingrule/id");
    first.api.run("deletePortForwardingRule", &[("id", &rule)]).await.unwrap();
    first.api.call("enableStaticNat", &[("ipaddressid", &address), ("virtualmachineid", vm)]).await.unwrap();
    said(to, 431, "one to one nat").await;
    first.api.run("disableStaticNat", &[("ipaddressid", &address)]).await.unwrap();
    let balancer = text(&listed(&first.api, "listLoadBalancerRules", "loadbalancerrule", &[]).await[0], "/id");
    let member = [("id", balancer.as_str()), ("virtualmachineids", vm)];
    first.api.run("assignToLoadBalancerRule", &member).await.unwrap();
    said(to, 431, "load balancing rules").await;
    first.api.run("removeFromLoadBalancerRule", &member).await.unwrap();

    // Snapshots of its disks.
    let disks = listed(&first.api, "listVolumes", "volume", &[("virtualmachineid", vm), ("type", "ROOT")]).await;
    let snapshot = first.api.run("createSnapshot", &[("volumeid", &text(&disks[0], "/id"))]).await.unwrap();
    said(to, 431, "Snapshots exists for volume").await;
    first.api.run("deleteSnapshot", &[("id", &text(&snapshot, "/snapshot/id"))]).await.unwrap();

    // What the new owner may not use.
    said(&[to, &[("networkids", network.as_str())]].concat(), 531, "may not use the network").await;
    let template = text(&shown(t, vm).await, "/templateid");
    let public = async |is: &str| {
        admin.call("updateTemplatePermissions", &[("id", template.as_str()), ("ispublic", is)]).await.unwrap();
    };
    public("false").await;
    said(to, 531, "template").await;
    public("true").await;

    // A limit, and an account that is disabled.
    let have = counted(t, second).await[0].to_string();
    let limit = async |max: &str| {
        let whose = [("account", second.account.as_str()), ("domainid", &second.domain)];
        let params = [&whose[..], &[("resourcetype", "0"), ("max", max)]].concat();
        admin.call("updateResourceLimit", &params).await.unwrap();
    };
    limit(&have).await;
    said(to, 535, "Maximum number of resources of type 'user_vm'").await;
    limit("-1").await;
    let whose = [("account", second.account.as_str()), ("domainid", &second.domain), ("lock", "true")];
    admin.run("disableAccount", &whose).await.unwrap();
    said(to, 431, "disabled").await;
    admin.call("enableAccount", &whose[..2]).await.unwrap();
}

/// An administrator of the domain moves it to an account of a domain below, which has no network yet; and not out of the domain.
async fn within_a_domain(t: &Tenants, vm: &str) {
    let (admin, second) = (&t.admin.api, &t.second);
    let below = [("name", "below"), ("parentdomainid", second.domain.as_str())];
    let below = text(&admin.call("createDomain", &below).await.unwrap(), "/domain/id");
    let account = [
        ("accounttype", "0"),
        ("username", "deep"),
        ("password", "x1x1x1x1"),
        ("firstname", "D"),
        ("lastname", "P"),
        ("email", "deep@example.org"),
        ("domainid", below.as_str()),
    ];
    admin.call("createAccount", &account).await.unwrap();
    let to = |account: &'static str, domain: &str| {
        [("virtualmachineid", vm.to_owned()), ("account", account.to_owned()), ("domainid", domain.to_owned())]
    };
    let out = to("firstuser", &t.first.domain);
    let out: Vec<(&str, &str)> = out.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(refused(&t.domain_admin.api, &out).await.0, 531);
    let down = to("deep", &below);
    let down: Vec<(&str, &str)> = down.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let moved = t.domain_admin.api.call(ASSIGN, &down).await.unwrap();
    assert_eq!(text(&moved, "/virtualmachine/account"), "deep");
    assert_eq!(text(&moved, "/virtualmachine/nic/0/networkname"), "deep-network", "made for it");
    assert_eq!(moved.pointer("/virtualmachine/instancename"), None, "not for administrators of domains");
    let started = admin.run("startVirtualMachine", &[("id", vm)]).await.unwrap();
    assert_eq!(text(&started, "/virtualmachine/state"), "Running");
}
