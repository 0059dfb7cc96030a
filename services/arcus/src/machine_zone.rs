//! The zone of `arcus dev --hypervisor kvm`: one pod, one cluster, this machine, storage on its own disk. Built through the public
//! API; each step looks whether its result is there already, so that a restart goes on where it was.

use crate::api_client::ApiClient;
use crate::dev_machine::{ADDRESS, Machine, name_server};
use crate::zone::{first, found_or, id, list, text};
use anyhow::{Context, Result};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long the agent may take to look at its machine (it boots a tiny guest) and to say hello.
const AGENT: Duration = Duration::from_secs(60);
/// Between attempts to add the host.
const AGAIN: Duration = Duration::from_millis(500);

/// Builds the zone; tells each step through `say`.
///
/// # Errors
/// The first step that fails, with the API's text.
pub async fn build(api: &ApiClient, name: &str, machine: &Machine, say: impl Fn(&str)) -> Result<()> {
    let dns = name_server();
    let find = |z: &Value| text(z, "name") == name;
    let zone = found_or(api, "listZones", "zone", &[("name", name)], find, || async {
        say("zone");
        let params = [
            ("name", name),
            ("networktype", "Advanced"),
            ("dns1", dns.as_str()),
            ("internaldns1", dns.as_str()),
            ("guestcidraddress", "10.1.1.0/24"),
        ];
        api.call("createZone", &params).await?.get("zone").cloned().context("createZone answered no zone")
    })
    .await?;
    let zone = id(&zone)?;
    let in_zone = [("zoneid", zone.as_str())];
    let guests = crate::zone::Guests { isolation: "VXLAN", range: "5000-5999" };
    crate::zone::physical_network(api, &zone, name, &guests, &say).await?;
    let pod_name = format!("{name}-pod");
    let find = |p: &Value| text(p, "name") == pod_name;
    let pod = found_or(api, "listPods", "pod", &in_zone, find, || async {
        say("pod");
        let range = [
            ("zoneid", zone.as_str()),
            ("name", pod_name.as_str()),
            ("gateway", ADDRESS),
            ("netmask", "255.255.255.0"),
            ("startip", "198.18.0.10"),
            ("endip", "198.18.0.99"),
        ];
        api.call("createPod", &range).await?.get("pod").cloned().context("createPod answered no pod")
    })
    .await?;
    let pod = id(&pod)?;
    let find = |r: &Value| text(r, "startip") == "198.18.1.10";
    found_or(api, "listVlanIpRanges", "vlaniprange", &in_zone, find, || async {
        say("public addresses 198.18.1.10 to 198.18.1.250");
        let range = [
            ("zoneid", zone.as_str()),
            ("vlan", "untagged"),
            ("gateway", "198.18.1.1"),
            ("netmask", "255.255.255.0"),
            ("startip", "198.18.1.10"),
            ("endip", "198.18.1.250"),
            ("forvirtualnetwork", "true"),
        ];
        api.call("createVlanIpRange", &range).await?.get("vlan").cloned().context("no range")
    })
    .await?;
    let cluster_name = format!("{name}-cluster");
    let find = |k: &Value| text(k, "name") == cluster_name;
    let cluster = found_or(api, "listClusters", "cluster", &[("podid", &pod)], find, || async {
        let params = [
            ("zoneid", zone.as_str()),
            ("podid", pod.as_str()),
            ("clustername", cluster_name.as_str()),
            ("clustertype", "CloudManaged"),
            ("hypervisor", "KVM"),
        ];
        first(api.call("addCluster", &params).await?.get("cluster"))
    })
    .await?;
    let cluster = id(&cluster)?;
    add_host(api, &zone, &pod, &cluster, &say).await?;
    let of_cluster = [("clusterid", cluster.as_str())];
    found_or(
        api,
        "listStoragePools",
        "storagepool",
        &of_cluster,
        |_| true,
        || async {
            say("primary storage");
            let url = format!("SharedMountPoint://localhost{}", machine.primary().display());
            let params = [
                ("zoneid", zone.as_str()),
                ("podid", pod.as_str()),
                ("clusterid", cluster.as_str()),
                ("name", "this-machine"),
                ("url", url.as_str()),
            ];
            api.call("createStoragePool", &params).await?.get("storagepool").cloned().context("no storage pool")
        },
    )
    .await?;
    found_or(
        api,
        "listImageStores",
        "imagestore",
        &in_zone,
        |_| true,
        || async {
            say("secondary storage");
            let url = format!("file://{}", machine.secondary().display());
            let store = [("provider", "Directory"), ("zoneid", zone.as_str()), ("url", url.as_str())];
            api.call("addImageStore", &store).await?.get("imagestore").cloned().context("no image store")
        },
    )
    .await?;
    api.call("updateZone", &[("id", &zone), ("allocationstate", "Enabled")]).await?;
    Ok(())
}

/// Adds this machine, as soon as its agent waits.
async fn add_host(api: &ApiClient, zone: &str, pod: &str, cluster: &str, say: &impl Fn(&str)) -> Result<()> {
    if !list(api, "listHosts", "host", &[("clusterid", cluster), ("type", "Routing")]).await?.is_empty() {
        return Ok(());
    }
    say("this machine as a host");
    let url = format!("http://{ADDRESS}");
    let params = [
        ("zoneid", zone),
        ("podid", pod),
        ("clusterid", cluster),
        ("hypervisor", "KVM"),
        ("clustertype", "CloudManaged"),
        ("username", "root"),
        ("password", "unused"),
        ("url", url.as_str()),
    ];
    let begun = Instant::now();
    loop {
        match api.call("addHost", &params).await {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > AGENT => return Err(error),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}
