//! Load balancing as clients see it, through the whole system.

use crate::dev::{Dev, deploy_params};
use serde_json::Value;
use std::collections::BTreeSet;

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

fn names(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().map(|i| text(i, "/name")).collect()
}

// covers: REL-304, REL-410, REL-484, REL-487
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_and_who_is_behind_them() {
    let dev = Dev::with_zone(2).await;
    let api = dev.api();
    let ids = dev.ids().await;
    let mut machines = Vec::new();
    for name in ["one", "two"] {
        let made = api.run("deployVirtualMachine", &deploy_params(&ids, name)).await.unwrap();
        machines.push((text(&made, "/virtualmachine/id"), text(&made, "/virtualmachine/nic/0/ipaddress")));
    }
    let address = text(&api.run("associateIpAddress", &[("networkid", &ids[3])]).await.unwrap(), "/ipaddress/id");
    let create = [
        ("publicipid", address.as_str()),
        ("name", "web"),
        ("algorithm", "roundrobin"),
        ("publicport", "80"),
        ("privateport", "8080"),
    ];
    let made = api.run("createLoadBalancerRule", &create).await.unwrap();
    let rule = text(&made, "/loadbalancer/id");
    let zone = text(&api.call("listZones", &[]).await.unwrap(), "/zone/0/name");
    assert_eq!(text(&made, "/loadbalancer/zonename"), zone);

    // Who is behind it, and who could be: both follow at once.
    let behind = async |applied: &str| {
        let asked = [("id", rule.as_str()), ("applied", applied)];
        let answer = api.call("listLoadBalancerRuleInstances", &asked).await.unwrap();
        let list = answer.get("loadbalancerruleinstance").cloned().unwrap_or_default();
        let count = answer.get("count").and_then(Value::as_u64).unwrap_or_default();
        let names = names(&list);
        assert_eq!(count, names.len() as u64, "{answer}");
        names
    };
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    let everybody = behind("false").await;
    assert!(everybody.is_superset(&set(&["one", "two"])) && behind("true").await.is_empty());
    let members = [("id", rule.as_str()), ("virtualmachineids", machines[0].0.as_str())];
    api.run("assignToLoadBalancerRule", &members).await.unwrap();
    assert_eq!(behind("true").await, set(&["one"]));
    assert!(!behind("false").await.contains("one") && behind("false").await.contains("two"));
    let map = [
        ("id", rule.as_str()),
        ("vmidipmap[0].vmid", machines[1].0.as_str()),
        ("vmidipmap[0].vmip", machines[1].1.as_str()),
    ];
    api.run("assignToLoadBalancerRule", &map).await.unwrap();
    assert_eq!(behind("true").await, set(&["one", "two"]));
    let asked = [("id", rule.as_str()), ("lbvmips", "true")];
    let with_addresses = api.call("listLoadBalancerRuleInstances", &asked).await.unwrap();
    let entries = with_addresses.get("lbrulevmidip").and_then(Value::as_array).cloned().unwrap_or_default();
    let told: BTreeSet<(String, String)> =
        entries.iter().map(|e| (text(e, "/loadbalancerruleinstance/id"), text(e, "/lbvmipaddresses/0"))).collect();
    assert_eq!(told, machines.iter().cloned().collect(), "{with_addresses}");
    let page = [("id", rule.as_str()), ("page", "2"), ("pagesize", "1")];
    let page = api.call("listLoadBalancerRuleInstances", &page).await.unwrap();
    assert_eq!((page.pointer("/count"), names(&page["loadbalancerruleinstance"]).len()), (Some(&Value::from(2)), 1));

    for change in [&[("algorithm", "source")][..], &[("protocol", "tcp-proxy")][..]] {
        let params: Vec<(&str, &str)> = [("id", rule.as_str())].iter().chain(change).copied().collect();
        let changed = api.run("updateLoadBalancerRule", &params).await.unwrap();
        assert_eq!(
            (text(&changed, "/loadbalancer/zonename"), text(&changed, &format!("/loadbalancer/{}", change[0].0))),
            (zone.clone(), change[0].1.to_owned())
        );
    }
    let tags = [
        ("resourcetype", "LoadBalancer"),
        ("resourceids", rule.as_str()),
        ("tags[0].key", "tier"),
        ("tags[0].value", "front"),
    ];
    api.run("createTags", &tags).await.unwrap();
    let tagged =
        api.call("listLoadBalancerRules", &[("tags[0].key", "tier"), ("tags[0].value", "front")]).await.unwrap();
    let listed = &tagged["loadbalancerrule"][0];
    assert_eq!(
        (text(listed, "/id"), text(listed, "/zonename"), text(listed, "/state"), text(listed, "/tags/0/value")),
        (rule.clone(), zone, "Active".into(), "front".into())
    );

    let policy = [
        ("lbruleid", rule.as_str()),
        ("name", "sticky"),
        ("methodname", "SourceBased"),
        ("param[0].name", "expire"),
        ("param[0].value", "5m"),
    ];
    let policy = api.run("createLBStickinessPolicy", &policy).await.unwrap();
    assert_eq!(text(&policy, "/stickinesspolicies/stickinesspolicy/0/params/expire"), "5m");
    let listed = api.call("listLBStickinessPolicies", &[("lbruleid", &rule)]).await.unwrap();
    assert_eq!(text(&listed, "/stickinesspolicies/0/stickinesspolicy/0/methodname"), "SourceBased");
    // What the network says that it can do.
    let networks = api.call("listNetworks", &[("id", &ids[3])]).await.unwrap();
    let services = networks.pointer("/network/0/service").and_then(Value::as_array).cloned().unwrap_or_default();
    let lb = services.iter().find(|s| text(s, "/name") == "Lb").unwrap();
    let capabilities = lb.get("capability").and_then(Value::as_array).unwrap();
    let value = |name: &str| text(capabilities.iter().find(|c| text(c, "/name") == name).unwrap(), "/value");
    assert_eq!(value("SupportedLbAlgorithms"), "roundrobin,leastconn,source");
    let methods: Value = serde_json::from_str(&value("SupportedStickinessMethods")).unwrap();
    let methods: BTreeSet<String> = methods.as_array().unwrap().iter().map(|m| text(m, "/methodname")).collect();
    assert_eq!(methods, set(&["AppCookie", "LbCookie", "SourceBased"]));

    // A machine that is expunged is nobody's member.
    api.run("destroyVirtualMachine", &[("id", &machines[0].0), ("expunge", "true")]).await.unwrap();
    assert_eq!(behind("true").await, set(&["two"]));
    let going = [("id", rule.as_str()), ("virtualmachineids", machines[1].0.as_str())];
    api.run("removeFromLoadBalancerRule", &going).await.unwrap();
    assert!(behind("true").await.is_empty());
    api.run("deleteLoadBalancerRule", &[("id", &rule)]).await.unwrap();
    let none = api.call("listLoadBalancerRules", &[("listall", "true")]).await.unwrap();
    assert!(none.get("loadbalancerrule").is_none(), "{none}");

    for (command, params) in [
        ("createLoadBalancerRule", &["openfirewall", "cidrlist"][..]),
        ("updateLoadBalancerRule", &["protocol", "algorithm"][..]),
        ("listLoadBalancerRules", &["virtualmachineid", "publicipid"][..]),
    ] {
        let listed = api.call("listApis", &[("name", command)]).await.unwrap();
        let of = |key: &str| names(listed.pointer(&format!("/api/0/{key}")).unwrap());
        assert!(of("response").contains("zonename"), "{command}");
        assert!(params.iter().all(|p| of("params").contains(*p)), "{command}");
    }
}
