//! Hosts without VMs: whether they live is seen by their heartbeats on pools. And agents that stay outside.

use crate::HOST;
use crate::common::*;
use crate::site::Site;
use arcus_agent::Says;
use contract_agent::Mock;
use contract_agent::protocol::Spoken;
use contract_infra::ListHostsRequest;
use store::Sql;

testkit::databases! {
    // covers: OPS-117
    async fn a_host_without_vms_that_dies_is_down(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        site.mount(0).await;
        site.mount(1).await;
        site.await_heartbeat(1, 0).await;
        // All of it stands still, and nobody says that it is off.
        site.freeze(0, true).await;
        site.await_told(HOST, &site.hosts[0], "is down: its heartbeat on shared storage has stood still for").await;
        site.await_status(0, "Down").await;
        assert_eq!(site.told(HOST, &site.hosts[0]).await.len(), 1, "people are told once");
        // Of one that shares nothing nobody knows.
        assert!(site.factory.simulator.silence_host(&site.hosts[2], true));
        site.await_told(HOST, &site.hosts[2], "nobody knows whether it lives: it shares no pool").await;
        assert_eq!(site.status(2).await, "Alert");
        assert!(site.factory.simulator.silence_host(&site.hosts[2], false));
        site.await_status(2, "Up").await;
        site.freeze(0, false).await;
        site.await_status(0, "Up").await;
        site.await_told(HOST, &site.hosts[0], "is connected again").await;
        site.end().await;
    }

    // covers: OPS-117
    async fn a_host_without_vms_that_is_only_cut_off_is_left_alone(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.mount(0).await;
        site.mount(1).await;
        site.await_heartbeat(1, 0).await;
        site.set("alert.wait", "3").await;
        assert!(site.factory.simulator.silence_host(&site.hosts[0], true));
        site.await_told(HOST, &site.hosts[0], "lives but has not connected for a long time: it is alive by its storage").await;
        assert_eq!(site.status(0).await, "Alert");
        site.await_looks(5).await;
        assert_eq!(site.status(0).await, "Alert");
        assert_eq!(site.told(HOST, &site.hosts[0]).await.len(), 1, "people are told once");
        // From its storage, too: then it can't be told from a dead one.
        let cut = Mock { id: 1, host_uuid: Some(site.hosts[0].clone()), lease_unreachable: true, ..Mock::default() };
        site.mocks(vec![cut]).await;
        site.await_told(HOST, &site.hosts[0], "is down: its heartbeat").await;
        site.await_status(0, "Down").await;
        site.mocks(Vec::new()).await;
        assert!(site.factory.simulator.silence_host(&site.hosts[0], false));
        site.await_status(0, "Up").await;
        site.end().await;
    }

    // covers: OPS-118
    async fn a_heartbeat_says_nothing_of_a_host_with_vms(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.running(1, true, 0).await;
        site.mount(1).await;
        site.await_heartbeat(1, 0).await;
        // Its VM has no lease that others see, and the host shares a pool.
        site.add_pool(2, "local", "HOST").await;
        store::tx!(site.cloud.db, "local", |tx| tx.exec("UPDATE volumes SET pool_id = 2 WHERE vm_id = 1").await).await.unwrap();
        site.freeze(0, true).await;
        site.await_told(HOST, &site.hosts[0], "nobody knows whether it lives: none of its VMs has a lease").await;
        site.await_looks(4).await;
        assert_eq!(site.status(0).await, "Alert");
        assert_eq!(site.standing(1).await.0, "Running");
        site.freeze(0, false).await;
        site.await_status(0, "Up").await;
        site.end().await;
    }

    // covers: OPS-118
    async fn nobody_can_tell_when_no_host_that_shares_its_pools_is_up(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.mount(0).await;
        site.mount(1).await;
        site.await_heartbeat(1, 0).await;
        assert!(site.factory.simulator.silence_host(&site.hosts[0], true));
        assert!(site.factory.simulator.silence_host(&site.hosts[1], true));
        for host in &site.hosts {
            site.await_told(HOST, host, "no other host that is Up reaches a pool of it").await;
        }
        site.await_looks(4).await;
        assert_eq!((site.status(0).await, site.status(1).await), ("Alert".to_owned(), "Alert".to_owned()));
        site.end().await;
    }

    async fn an_agent_that_is_too_old_is_told_of(db: testkit::TestDb) {
        let mut site = Site::open(&db, 2).await;
        let version = |n: usize| { let site = &site; let id = Some(site.hosts[n].clone()); async move {
            site.shown(ListHostsRequest { id, ..ListHostsRequest::default() }).await[0].version().to_owned()
        } };
        let ours = version(0).await;
        assert_eq!(ours, Says::default().version);
        let old = Says { version: "0.0.1".into(), spoken: Spoken { newest: 1, oldest: 1 } };
        site.factory = site.factory.replaced(&site.cloud, old).await;
        site.await_told(HOST, "can't be managed", "upgrade the agent").await;
        let told = site.told(HOST, "can't be managed").await;
        let about = |host: &String| told[0].contains(&format!("Host {host} and 1 more can't be managed"));
        assert!(site.hosts.iter().any(about), "{told:?}");
        // Its hosts show what it is, and it tries again and again without people being told again.
        for n in 0..2 {
            let sql = Sql::new("SELECT version FROM hosts WHERE uuid = ? AND hub IS NULL").bind(&site.hosts[n]);
            assert_eq!(site.cloud.db.one(sql).await.unwrap().at::<String>(0).unwrap(), "0.0.1");
        }
        site.await_looks(2).await;
        assert_eq!(site.told(HOST, "can't be managed").await.len(), 1, "people are told once");
        site.factory = site.factory.replaced(&site.cloud, Says::default()).await;
        for n in 0..2 {
            site.await_status(n, "Up").await;
            let shown = || async {
                let id = Some(site.hosts[n].clone());
                site.shown(ListHostsRequest { id, ..ListHostsRequest::default() }).await[0].version() == ours
            };
            testkit::wait_until(shown, 30 * SECOND).await;
        }
        site.end().await;
    }
}
