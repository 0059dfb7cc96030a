//! Many deploys at once into one isolated network.

use crate::dev::{Dev, deploy_params};
use arcus::api_client::ApiClient;
use futures::future::join_all;
use std::collections::HashSet;

/// An isolated network with room for thousands.
async fn wide_network(api: &ApiClient, zone: &str) -> String {
    let by_name = [("name", "DefaultIsolatedNetworkOfferingWithSourceNatService")];
    let offerings = api.call("listNetworkOfferings", &by_name).await.unwrap();
    let offering = offerings.pointer("/networkoffering/0/id").unwrap().as_str().unwrap();
    let params = [
        ("zoneid", zone),
        ("name", "wide"),
        ("displaytext", "wide"),
        ("networkofferingid", offering),
        ("gateway", "10.2.0.1"),
        ("netmask", "255.255.224.0"),
    ];
    let made = api.call("createNetwork", &params).await.unwrap();
    made.pointer("/network/id").unwrap().as_str().unwrap().to_owned()
}

/// No failure, no address twice, and the books agree.
async fn deploys_at_once(n: usize, hosts: usize) {
    let dev = Dev::with_zone(hosts).await;
    let (api, mut ids) = (dev.api(), dev.ids().await);
    ids[3] = wide_network(&api, &ids[0]).await;
    let names: Vec<String> = (0..n).map(|i| format!("vm-{i}")).collect();
    let deploys = names.iter().map(|name| {
        let (api, params) = (&api, deploy_params(&ids, name));
        async move { api.run("deployVirtualMachine", &params).await }
    });
    let mut addresses = HashSet::new();
    for done in join_all(deploys).await {
        let done = done.unwrap();
        assert_eq!(done.pointer("/virtualmachine/state").unwrap(), "Running");
        let address = done.pointer("/virtualmachine/nic/0/ipaddress").unwrap().as_str().unwrap().to_owned();
        assert!(addresses.insert(address.clone()), "{address} was given twice");
    }
    dev.settle().await;
    dev.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty() {
    deploys_at_once(30, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred() {
    deploys_at_once(200, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand() {
    deploys_at_once(1000, 32).await;
}
