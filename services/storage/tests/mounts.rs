//! Hosts that come up are told of the pools of their cluster and zone, again and again until they reach them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{World, ZONE, admin, exec, uuid};
use contract_storage::CreateStoragePoolRequest;
use contract_storage::storage_pools_client::StoragePoolsClient;
use rpc::cx::request;
use store::now_micros;

/// Adds a host, which has just connected, as the orchestrator does.
async fn joins(w: &World, id: i64, cluster: i64, hypervisor: &str) {
    let sql = format!(
        "INSERT INTO hosts (id, uuid, name, name_lower, guid, url, cluster_id, pod_id, zone_id, hypervisor, status, \
         resource_state, cpu_cores, cpu_mhz, memory, capabilities, tags, conn_epoch, created) VALUES ({id}, '{}', 'h{id}', \
         'h{id}', 'g{id}', 'http://sim/h{id}', {cluster}, 1, 1, '{hypervisor}', 'Up', 'Enabled', 64, 8000, 274877906944, '', '', \
         1, {})",
        uuid("host", id),
        now_micros()
    );
    exec(w.db(), &sql).await;
    w.node.coord.publish("placement", &format!("host/{id}"));
}

/// Pools that a host was told of.
async fn known(w: &World, host: i64) -> Vec<i64> {
    let sql = format!("SELECT pool_id FROM pool_hosts WHERE host_id = {host} ORDER BY pool_id");
    w.db().all(store::Sql::new(&sql)).await.unwrap().iter().map(|r| r.at(0).unwrap()).collect()
}

async fn knows(w: &World, host: i64, pools: &[i64]) {
    testkit::eventually(|| async { (known(w, host).await == pools).then_some(()) }).await;
}

testkit::databases! {
    async fn a_host_that_joins_is_told_of_its_pools(db: testkit::TestDb) {
        let w = World::new(db).await;
        let own = w.pool("own", 1, 100, "").await;
        let others = w.pool("others", 2, 100, "").await;
        let zone = |name: &str, hypervisor: &str| CreateStoragePoolRequest {
            name: Some(name.into()),
            zone_id: Some(ZONE.into()),
            scope: Some("zone".into()),
            hypervisor: Some(hypervisor.into()),
            url: Some(format!("nfs://10.0.0.2/{name}")),
            ..Default::default()
        };
        let mut api = StoragePoolsClient::new(w.node.peers.storage());
        api.create(request(&admin(), zone("all", "Any"))).await.unwrap();
        let all = w.count("SELECT id FROM storage_pools WHERE name = 'all'").await;
        // Of whichever clusters: all four know it, and the two of a cluster its own.
        knows(&w, 1, &[own, all]).await;
        knows(&w, 4, &[others, all]).await;

        joins(&w, 5, 1, "Simulator").await;
        knows(&w, 5, &[own, all]).await;
        assert_eq!(w.hosts.who("EnsurePool").iter().filter(|host| **host == 5).count(), 2);
        // What is for other hypervisors isn't for it, and what is new is told to all.
        joins(&w, 6, 2, "KVM").await;
        knows(&w, 6, &[others, all]).await;
        api.create(request(&admin(), zone("kvm", "KVM"))).await.unwrap();
        let kvm = w.count("SELECT id FROM storage_pools WHERE name = 'kvm'").await;
        knows(&w, 6, &[others, all, kvm]).await;
        assert_eq!(known(&w, 5).await, [own, all]);
    }

    async fn a_host_that_cannot_reach_a_pool_is_asked_again(db: testkit::TestDb) {
        let w = World::new(db).await;
        let own = w.pool("own", 1, 100, "").await;
        w.hosts.away(5, true);
        joins(&w, 5, 1, "Simulator").await;
        let asked = || w.hosts.who("EnsurePool").iter().filter(|host| **host == 5).count();
        testkit::eventually(|| async { (asked() > 0).then_some(()) }).await;
        assert_eq!(known(&w, 5).await, [] as [i64; 0]);
        // By itself, without any news.
        testkit::eventually(|| async { (asked() > 1).then_some(()) }).await;
        w.hosts.away(5, false);
        w.node.coord.publish("placement", "host/5");
        knows(&w, 5, &[own]).await;

        // One that isn't connected isn't asked; a pool that goes takes with it who knows it.
        exec(w.db(), "UPDATE hosts SET status = 'Disconnected' WHERE id = 5").await;
        exec(w.db(), "DELETE FROM pool_hosts WHERE host_id = 5").await;
        let before = asked();
        w.node.coord.publish("placement", "host/5");
        joins(&w, 6, 1, "Simulator").await;
        knows(&w, 6, &[own]).await;
        assert_eq!(asked(), before);
    }
}
