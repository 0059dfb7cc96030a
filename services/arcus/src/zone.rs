//! `arcus dev --zone NAME --hosts N`: an advanced zone of simulated hosts with a first VM, built through the public API.
//! Each step looks whether its result is there already, so that a restart, even in the middle, goes on where it was.

use crate::api_client::ApiClient;
use anyhow::{Context, Result};
use serde_json::Value;
use std::future::Future;

/// Hosts of a cluster.
const HOSTS_A_CLUSTER: usize = 16;
const HOST: &str = "cpucore=64&cpuspeed=8000&memory=274877906944";

/// Builds the zone; tells each step through `say`.
///
/// # Errors
/// The first step that fails, with the API's text.
pub async fn build(api: &ApiClient, name: &str, hosts: usize, say: impl Fn(&str)) -> Result<()> {
    let zone = found_or(
        api,
        "listZones",
        "zone",
        &[("name", name)],
        |z| text(z, "name") == name,
        || async {
            say("zone");
            let params = [
                ("name", name),
                ("networktype", "Advanced"),
                ("dns1", "192.0.2.53"),
                ("internaldns1", "192.0.2.53"),
                ("guestcidraddress", "10.1.1.0/24"),
            ];
            api.call("createZone", &params).await?.get("zone").cloned().context("createZone answered no zone")
        },
    )
    .await?;
    let zone = id(&zone)?;
    let in_zone = [("zoneid", zone.as_str())];
    physical_network(api, &zone, name, &Guests { isolation: "VLAN", range: "100-1500" }, &say).await?;
    let pod_name = format!("{name}-pod");
    let pod = found_or(
        api,
        "listPods",
        "pod",
        &in_zone,
        |p| text(p, "name") == pod_name,
        || async {
            say("pod");
            let range = [
                ("zoneid", zone.as_str()),
                ("name", pod_name.as_str()),
                ("gateway", "172.16.0.1"),
                ("netmask", "255.255.0.0"),
                ("startip", "172.16.0.2"),
                ("endip", "172.16.255.254"),
            ];
            api.call("createPod", &range).await?.get("pod").cloned().context("createPod answered no pod")
        },
    )
    .await?;
    let pod = id(&pod)?;
    found_or(
        api,
        "listVlanIpRanges",
        "vlaniprange",
        &in_zone,
        |r| text(r, "startip") == "192.168.0.2",
        || async {
            say("public addresses");
            let range = [
                ("zoneid", zone.as_str()),
                ("vlan", "50"),
                ("gateway", "192.168.0.1"),
                ("netmask", "255.255.240.0"),
                ("startip", "192.168.0.2"),
                ("endip", "192.168.9.254"),
                ("forvirtualnetwork", "true"),
            ];
            api.call("createVlanIpRange", &range).await?.get("vlan").cloned().context("no range")
        },
    )
    .await?;
    clusters(api, &zone, &pod, name, hosts, &say).await?;
    found_or(
        api,
        "listImageStores",
        "imagestore",
        &in_zone,
        |_| true,
        || async {
            say("secondary storage");
            let store = [("provider", "NFS"), ("zoneid", zone.as_str()), ("url", "nfs://192.0.2.10/export/secondary")];
            api.call("addImageStore", &store).await?.get("imagestore").cloned().context("no image store")
        },
    )
    .await?;
    api.call("updateZone", &[("id", &zone), ("allocationstate", "Enabled")]).await?;
    first_vm(api, &zone, name, &say).await
}

/// How guests' networks are kept apart.
pub(crate) struct Guests<'a> {
    pub isolation: &'a str,
    pub range: &'a str,
}

pub(crate) async fn physical_network(
    api: &ApiClient,
    zone: &str,
    name: &str,
    guests: &Guests<'_>,
    say: &impl Fn(&str),
) -> Result<()> {
    let in_zone = [("zoneid", zone)];
    let network_name = format!("{name}-physical");
    let find = |n: &Value| text(n, "name") == network_name;
    let physical = found_or(api, "listPhysicalNetworks", "physicalnetwork", &in_zone, find, || async {
        say("physical network");
        let params = [
            ("zoneid", zone),
            ("name", network_name.as_str()),
            ("vlan", guests.range),
            ("isolationmethods", guests.isolation),
            ("broadcastdomainrange", "Zone"),
        ];
        api.run("createPhysicalNetwork", &params).await?.get("physicalnetwork").cloned().context("no physical network")
    })
    .await?;
    let physical = id(&physical)?;
    let of_it = [("physicalnetworkid", physical.as_str())];
    let types = list(api, "listTrafficTypes", "traffictype", &of_it).await?;
    for kind in ["Guest", "Management", "Public"] {
        if !types.iter().any(|t| text(t, "traffictype") == kind) {
            api.run("addTrafficType", &[("physicalnetworkid", &physical), ("traffictype", kind)]).await?;
        }
    }
    api.run("updatePhysicalNetwork", &[("id", &physical), ("state", "Enabled")]).await?;
    for provider in list(api, "listNetworkServiceProviders", "networkserviceprovider", &of_it).await? {
        let (provider_id, provider_name) = (id(&provider)?, text(&provider, "name"));
        if provider_name != "VirtualRouter" || text(&provider, "state") == "Enabled" {
            continue;
        }
        say("virtual router provider");
        for element in
            list(api, "listVirtualRouterElements", "virtualrouterelement", &[("nspid", &provider_id)]).await?
        {
            api.run("configureVirtualRouterElement", &[("id", &id(&element)?), ("enabled", "true")]).await?;
        }
        api.run("updateNetworkServiceProvider", &[("id", &provider_id), ("state", "Enabled")]).await?;
    }
    Ok(())
}

async fn clusters(api: &ApiClient, zone: &str, pod: &str, name: &str, hosts: usize, say: &impl Fn(&str)) -> Result<()> {
    for c in 0..hosts.div_ceil(HOSTS_A_CLUSTER).max(1) {
        let cluster_name = format!("{name}-cluster{c}");
        let in_pod = [("podid", pod)];
        let find = |k: &Value| text(k, "name") == cluster_name;
        let cluster = found_or(api, "listClusters", "cluster", &in_pod, find, || async {
            let params = [
                ("zoneid", zone),
                ("podid", pod),
                ("clustername", cluster_name.as_str()),
                ("clustertype", "CloudManaged"),
                ("hypervisor", "Simulator"),
            ];
            first(api.call("addCluster", &params).await?.get("cluster"))
        })
        .await?;
        let cluster = id(&cluster)?;
        let have = list(api, "listHosts", "host", &[("clusterid", &cluster), ("type", "Routing")]).await?.len();
        let wanted = hosts.saturating_sub(c * HOSTS_A_CLUSTER).min(HOSTS_A_CLUSTER);
        if have < wanted {
            say(&format!("{} hosts in {cluster_name}", wanted - have));
        }
        for h in have..wanted {
            let url = format!("http://sim/{name}-c{c}/h{h}/{HOST}");
            let params = [
                ("zoneid", zone),
                ("podid", pod),
                ("clusterid", cluster.as_str()),
                ("hypervisor", "Simulator"),
                ("clustertype", "CloudManaged"),
                ("username", "root"),
                ("password", "password"),
                ("url", url.as_str()),
            ];
            api.call("addHost", &params).await?;
        }
        let pool_name = format!("{name}-primary{c}");
        let of_cluster = [("clusterid", cluster.as_str())];
        found_or(
            api,
            "listStoragePools",
            "storagepool",
            &of_cluster,
            |p| text(p, "name") == pool_name,
            || async {
                say("primary storage");
                let url = format!("nfs://192.0.2.10/export/{pool_name}");
                let params = [
                    ("zoneid", zone),
                    ("podid", pod),
                    ("clusterid", cluster.as_str()),
                    ("name", pool_name.as_str()),
                    ("url", url.as_str()),
                ];
                api.call("createStoragePool", &params).await?.get("storagepool").cloned().context("no storage pool")
            },
        )
        .await?;
    }
    Ok(())
}

async fn first_vm(api: &ApiClient, zone: &str, name: &str, say: &impl Fn(&str)) -> Result<()> {
    let vm_name = format!("{name}-first");
    let all = [("zoneid", zone), ("listall", "true"), ("name", vm_name.as_str())];
    if list(api, "listVirtualMachines", "virtualmachine", &all).await?.iter().any(|v| text(v, "name") == vm_name) {
        return Ok(());
    }
    let templates = list(api, "listTemplates", "template", &[("templatefilter", "featured"), ("zoneid", zone)]).await?;
    let template = templates.iter().find(|t| t.get("isready") == Some(&Value::Bool(true)));
    let template = id(template.context("no template is ready")?)?;
    let offerings = list(api, "listServiceOfferings", "serviceoffering", &[("name", "Small Instance")]).await?;
    let offering = id(offerings.first().context("no service offering")?)?;
    let network_name = format!("{name}-network");
    let find = |n: &Value| text(n, "name") == network_name;
    let network = found_or(api, "listNetworks", "network", &[("zoneid", zone)], find, || async {
        say("isolated network");
        let by_name = [("name", "DefaultIsolatedNetworkOfferingWithSourceNatService")];
        let offerings = list(api, "listNetworkOfferings", "networkoffering", &by_name).await?;
        let offering = id(offerings.first().context("no network offering")?)?;
        let params = [
            ("zoneid", zone),
            ("name", network_name.as_str()),
            ("displaytext", network_name.as_str()),
            ("networkofferingid", offering.as_str()),
        ];
        api.call("createNetwork", &params).await?.get("network").cloned().context("no network")
    })
    .await?;
    say("first virtual machine");
    let params = [
        ("zoneid", zone),
        ("templateid", template.as_str()),
        ("serviceofferingid", offering.as_str()),
        ("networkids", &id(&network)?),
        ("name", vm_name.as_str()),
    ];
    let done = api.run("deployVirtualMachine", &params).await?;
    let vm = done.get("virtualmachine").cloned().unwrap_or_default();
    let address = vm.pointer("/nic/0/ipaddress").and_then(Value::as_str).unwrap_or("?").to_owned();
    say(&format!("{vm_name} is {} at {address}", text(&vm, "state")));
    Ok(())
}

pub(crate) async fn list(api: &ApiClient, command: &str, key: &str, params: &[(&str, &str)]) -> Result<Vec<Value>> {
    let answer = api.call(command, params).await?;
    Ok(answer.get(key).and_then(Value::as_array).cloned().unwrap_or_default())
}

pub(crate) async fn found_or<F, Fut>(
    api: &ApiClient,
    command: &str,
    key: &str,
    params: &[(&str, &str)],
    is_it: impl Fn(&Value) -> bool,
    make: F,
) -> Result<Value>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<Value>>,
{
    match list(api, command, key, params).await?.into_iter().find(is_it) {
        Some(found) => Ok(found),
        None => make().await,
    }
}

pub(crate) fn first(items: Option<&Value>) -> Result<Value> {
    let item = items.and_then(Value::as_array).and_then(|a| a.first()).or(items);
    item.cloned().context("an empty answer")
}

pub(crate) fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

pub(crate) fn id(value: &Value) -> Result<String> {
    value.get("id").and_then(Value::as_str).map(str::to_owned).context("an answer without an id")
}
