//! Affinity groups and dedicated hosts, through the whole system.

use crate::dev::{Dev, deploy_params};
use arcus::api_client::ApiClient;
use serde_json::Value;
use std::collections::BTreeSet;

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

fn texts(value: &Value, list: &str, key: &str) -> Vec<String> {
    let all = value.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
    all.iter().map(|one| text(one, &format!("/{key}"))).collect()
}

/// Code and text of a refusal, at once or by the job.
pub async fn refusal(api: &ApiClient, command: &str, params: &[(&str, &str)]) -> (u64, String) {
    let inner = |body: &[u8]| -> Value {
        let body: Value = serde_json::from_slice(body).unwrap();
        body.as_object().unwrap().values().next().unwrap().clone()
    };
    let mut answer = inner(&api.raw(command, params).await.unwrap());
    if let Some(job) = answer.get("jobid").and_then(Value::as_str) {
        let ended = || async {
            let state = api.call("queryAsyncJobResult", &[("jobid", job)]).await.unwrap();
            (state.get("jobstatus").and_then(Value::as_i64) != Some(0)).then_some(state)
        };
        answer = testkit::eventually(ended).await.get("jobresult").cloned().unwrap_or_default();
    }
    let code =
        answer.get("errorcode").and_then(Value::as_u64).unwrap_or_else(|| panic!("{command} {params:?}: {answer}"));
    (code, text(&answer, "/errortext"))
}

async fn group(api: &ApiClient, name: &str, kind: &str) -> String {
    let made = api.run("createAffinityGroup", &[("name", name), ("type", kind)]).await.unwrap();
    assert_eq!(text(&made, "/affinitygroup/type"), kind);
    text(&made, "/affinitygroup/id")
}

// covers: VM-194, VM-196, VM-198, VM-199
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_groups() {
    let dev = Dev::with_zone(3).await;
    let (api, ids) = (dev.api(), dev.ids().await);
    let types = api.call("listAffinityGroupTypes", &[]).await.unwrap();
    assert_eq!(texts(&types, "affinityGroupType", "type"), ["host anti-affinity", "host affinity"]);
    for (params, code) in [
        ([("name", "x"), ("type", "rack affinity")], 431),
        ([("name", ""), ("type", "host affinity")], 431),
        ([("name", "x"), ("type", "")], 431),
    ] {
        assert_eq!(refusal(&api, "createAffinityGroup", &params).await.0, code, "{params:?}");
    }
    let apart = group(&api, "apart", "host anti-affinity").await;
    let again = [("name", "apart"), ("type", "host affinity")];
    assert_eq!(refusal(&api, "createAffinityGroup", &again).await.0, 431, "the name is taken");
    // Four at the same moment: as many run as there are hosts, each on its own.
    let deploy = |name: String| {
        let (api, ids, apart) = (&api, &ids, &apart);
        async move {
            let mut params = deploy_params(ids, &name);
            params.push(("affinitygroupids", apart));
            api.run("deployVirtualMachine", &params).await
        }
    };
    let answers = futures::future::join_all((0..4).map(|n| deploy(format!("apart-{n}")))).await;
    let (ran, failed): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let hosts: BTreeSet<String> = ran.iter().map(|a| text(a.as_ref().unwrap(), "/virtualmachine/hostid")).collect();
    assert_eq!((ran.len(), hosts.len()), (3, 3));
    let error = failed.into_iter().next().unwrap().unwrap_err();
    assert!(error.to_string().contains("with another machine of its affinity group"), "{error}");
    assert!(error.to_string().contains("affinity groups apart"), "{error}");
    assert_eq!(text(ran[0].as_ref().unwrap(), "/virtualmachine/affinitygroup/0/name"), "apart");
    let listed =
        api.call("listVirtualMachines", &[("affinitygroupid", apart.as_str()), ("state", "Running")]).await.unwrap();
    assert_eq!(texts(&listed, "virtualmachine", "id").len(), 3);
    // The other kind, by name, in both groups at once: with one of the three, never with two.
    group(&api, "near", "host affinity").await;
    for name in ["near-0", "near-1", "near-2"] {
        let mut params = deploy_params(&ids, name);
        params.push(("affinitygroupnames", "near"));
        api.run("deployVirtualMachine", &params).await.unwrap();
    }
    let near = api.call("listVirtualMachines", &[("keyword", "near-")]).await.unwrap();
    assert_eq!(texts(&near, "virtualmachine", "hostid").into_iter().collect::<BTreeSet<_>>().len(), 1);
    for (name, value) in [("affinitygroupnames", "nowhere"), ("affinitygroupids", "nonsense")] {
        let mut params = deploy_params(&ids, "none");
        params.push((name, value));
        assert_eq!(refusal(&api, "deployVirtualMachine", &params).await.0, 431, "{name}");
    }
    let mut both = deploy_params(&ids, "none");
    both.extend([("affinitygroupnames", "near"), ("affinitygroupids", apart.as_str())]);
    assert_eq!(refusal(&api, "deployVirtualMachine", &both).await.0, 431);
    // An expunged VM is in no group.
    let gone = text(ran[0].as_ref().unwrap(), "/virtualmachine/id");
    api.run("destroyVirtualMachine", &[("id", &gone), ("expunge", "true")]).await.unwrap();
    let shown = api.call("listAffinityGroups", &[("id", &apart)]).await.unwrap();
    let members = shown.pointer("/affinitygroup/0/virtualmachineIds").and_then(Value::as_array).unwrap().clone();
    assert!(!members.contains(&Value::String(gone)), "{members:?}");
    deploy("apart-4".into()).await.unwrap();
    dev.settle().await;
    dev.audit().await;
}

// covers: IAM-064, IAM-080, REL-056, REL-113
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedicated_places() {
    let dev = Dev::with_zone(3).await;
    let (api, ids) = (dev.api(), dev.ids().await);
    let hosts = texts(&api.call("listHosts", &[("type", "Routing")]).await.unwrap(), "host", "id");
    let pod = text(&api.call("listPods", &[]).await.unwrap(), "/pod/0/id");
    let cluster = text(&api.call("listClusters", &[]).await.unwrap(), "/cluster/0/id");
    let running = api.call("listVirtualMachines", &[("listall", "true"), ("state", "Running")]).await.unwrap();
    for vm in texts(&running, "virtualmachine", "id") {
        api.run("destroyVirtualMachine", &[("id", &vm), ("expunge", "true")]).await.unwrap();
    }
    let mut domains: Vec<String> = Vec::new();
    for (name, parent) in [("d1", None), ("d11", Some(0)), ("d2", None)] {
        let mut params = vec![("name", name)];
        let parent: Option<String> = parent.map(|n: usize| domains[n].clone());
        if let Some(parent) = &parent {
            params.push(("parentdomainid", parent));
        }
        domains.push(text(&api.call("createDomain", &params).await.unwrap(), "/domain/id"));
    }
    let [d1, d11, d2] = [&domains[0], &domains[1], &domains[2]];
    let account = [
        ("accounttype", "0"),
        ("email", "x@example.org"),
        ("firstname", "X"),
        ("lastname", "X"),
        ("username", "xavier"),
        ("password", "secret-word"),
        ("domainid", d11),
    ];
    let made = api.call("createAccount", &account).await.unwrap();
    let account = text(&made, "/account/id");
    let denied = |command: &'static str, params: Vec<(&'static str, String)>, word: &'static str| {
        let api = &api;
        async move {
            let params: Vec<(&str, &str)> = params.iter().map(|(k, v)| (*k, v.as_str())).collect();
            let (code, text) = refusal(api, command, &params).await;
            assert!(code == 530 && text.contains(word), "{command} {params:?}: {code} {text}");
        }
    };
    // A cluster for a domain; inside of it a host for an account below, and nothing for anybody else.
    api.run("dedicateCluster", &[("clusterid", &cluster), ("domainid", d1)]).await.unwrap();
    let of = |id: &String, domain: &String| vec![("hostid", id.clone()), ("domainid", domain.clone())];
    denied("dedicateCluster", vec![("clusterid", cluster.clone()), ("domainid", d2.clone())], "already dedicated")
        .await;
    denied("dedicateHost", of(&hosts[0], d2), "already dedicated to another").await;
    denied("dedicateHost", of(&hosts[0], d1), "already dedicated to another").await;
    api.run("dedicateHost", &[("hostid", &hosts[0]), ("domainid", d11), ("account", "xavier")]).await.unwrap();
    denied("dedicatePod", vec![("podid", pod.clone()), ("domainid", d2.clone())], "dedicated to different").await;
    // Those of d1 are merged into a wider one of the same owner; what is for somebody below it stays.
    api.run("dedicatePod", &[("podid", &pod), ("domainid", d1)]).await.unwrap();
    let clusters = api.call("listDedicatedClusters", &[]).await.unwrap();
    assert!(texts(&clusters, "dedicatedcluster", "id").is_empty(), "{clusters}");
    let pods = api.call("listDedicatedPods", &[("domainid", d1)]).await.unwrap();
    assert_eq!(text(&pods, "/dedicatedpod/0/podid"), pod);
    let kept = api.call("listDedicatedHosts", &[("domainid", d11), ("account", "xavier")]).await.unwrap();
    assert_eq!(
        (text(&kept, "/dedicatedhost/0/hostid"), text(&kept, "/dedicatedhost/0/accountid")),
        (hosts[0].clone(), account)
    );
    let groups = api.call("listAffinityGroups", &[("listall", "true"), ("type", "ExplicitDedication")]).await.unwrap();
    let mut names = texts(&groups, "affinitygroup", "name");
    names.sort();
    assert_eq!(names, ["DedicatedGrp-domain-d1", "DedicatedGrp-xavier"]);
    let owners: BTreeSet<String> = texts(&groups, "affinitygroup", "domain").into_iter().collect();
    assert_eq!(owners, ["d1".to_owned(), "d11".to_owned()].into(), "they belong to whom it is for");
    // Nothing is left for those without a group.
    let (code, why) = refusal(&api, "deployVirtualMachine", &deploy_params(&ids, "nowhere")).await;
    assert!(code == 533 && why.contains("3 dedicated to others"), "{code} {why}");
    let mine = [("name", "mine"), ("type", "ExplicitDedication")];
    assert_eq!(refusal(&api, "createAffinityGroup", &mine).await.0, 531);
    // Two rows, one a page.
    api.run("dedicateHost", &[("hostid", &hosts[1]), ("domainid", d11)]).await.unwrap();
    for (page, rows) in [("1", 1), ("2", 1), ("3", 0)] {
        let listed = api.call("listDedicatedHosts", &[("page", page), ("pagesize", "1")]).await.unwrap();
        assert_eq!(texts(&listed, "dedicatedhost", "id").len(), rows, "page {page}");
    }
    api.run("releaseDedicatedPod", &[("podid", &pod)]).await.unwrap();
    assert_eq!(refusal(&api, "releaseDedicatedPod", &[("podid", &pod)]).await.0, 431);
    testkit::eventually(|| async { api.run("deployVirtualMachine", &deploy_params(&ids, "third")).await.ok() }).await;
    denied("dedicateHost", of(&hosts[2], d2), "running instances of another domain").await;
    // The domain goes, and what was kept for it is free.
    api.run("deleteDomain", &[("id", d1), ("cleanup", "true")]).await.unwrap();
    let empty = || async {
        let listed = api.call("listDedicatedHosts", &[]).await.unwrap();
        let groups = api.call("listAffinityGroups", &[("listall", "true")]).await.unwrap();
        texts(&listed, "dedicatedhost", "id").is_empty() && texts(&groups, "affinitygroup", "id").is_empty()
    };
    testkit::wait_until(empty, std::time::Duration::from_secs(90)).await;
    dev.settle().await;
    dev.audit().await;
}

// covers: IAM-066
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dedicated_zone() {
    let dev = Dev::with_zone(1).await;
    let (api, ids) = (dev.api(), dev.ids().await);
    let running = api.call("listVirtualMachines", &[("listall", "true"), ("state", "Running")]).await.unwrap();
    for vm in texts(&running, "virtualmachine", "id") {
        api.run("destroyVirtualMachine", &[("id", &vm), ("expunge", "true")]).await.unwrap();
    }
    let mut users = Vec::new();
    for name in ["in", "out"] {
        let domain = text(&api.call("createDomain", &[("name", name)]).await.unwrap(), "/domain/id");
        let account = [
            ("accounttype", "0"),
            ("email", "x@example.org"),
            ("firstname", "X"),
            ("lastname", "X"),
            ("username", name),
            ("password", "secret-word"),
            ("domainid", domain.as_str()),
        ];
        let made = api.call("createAccount", &account).await.unwrap();
        let keys = api.call("registerUserKeys", &[("id", &text(&made, "/account/user/0/id"))]).await.unwrap();
        let user = dev.api_as(&text(&keys, "/userkeys/apikey"), &text(&keys, "/userkeys/secretkey"));
        users.push((user, domain));
    }
    let [(insider, domain), (outsider, _)] = &users[..] else { panic!("two users") };
    api.run("dedicateZone", &[("zoneid", &ids[0]), ("domainid", domain)]).await.unwrap();
    let zones = |of: &'static str| {
        let user = if of == "in" { insider } else { outsider };
        async move { texts(&user.call("listZones", &[]).await.unwrap(), "zone", "id") }
    };
    assert_eq!(zones("in").await, [ids[0].clone()]);
    assert!(zones("out").await.is_empty());
    // Without networkids: each has a network of its own made.
    let params: Vec<_> = deploy_params(&ids, "machine").into_iter().filter(|(k, _)| *k != "networkids").collect();
    assert_eq!(refusal(outsider, "deployVirtualMachine", &params).await.0, 531);
    // The zone is theirs: with the group and without it.
    insider.run("deployVirtualMachine", &params).await.unwrap();
    let groups = insider.call("listAffinityGroups", &[("type", "ExplicitDedication")]).await.unwrap();
    let group = text(&groups, "/affinitygroup/0/id");
    let mut with: Vec<_> = params.iter().filter(|(k, _)| *k != "name").copied().collect();
    with.extend([("name", "another"), ("affinitygroupids", group.as_str())]);
    insider.run("deployVirtualMachine", &with).await.unwrap();
    let foreign: Vec<_> =
        with.iter().filter(|(k, _)| *k != "zoneid").copied().chain([("zoneid", ids[0].as_str())]).collect();
    assert_eq!(refusal(outsider, "deployVirtualMachine", &foreign).await.0, 531);
    assert_eq!(refusal(insider, "deleteAffinityGroup", &[("id", &group)]).await.0, 531);
    api.run("releaseDedicatedZone", &[("zoneid", &ids[0])]).await.unwrap();
    assert_eq!(zones("out").await, [ids[0].clone()]);
    outsider.run("deployVirtualMachine", &params).await.unwrap();
    dev.settle().await;
    dev.audit().await;
}
