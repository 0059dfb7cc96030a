//! What routers are told of a change, and routers that are stopped, started, rebooted, destroyed and made anew.

use super::world::{World, job};
use crate::support::{VmJob, What};
use contract::ApiError;
use contract::api::Success;
use contract_network as net;
use net::firewall_rules_client::FirewallRulesClient;
use net::load_balancer_rules_client::LoadBalancerRulesClient;
use net::networks_client::NetworksClient;
use net::routers_client::RoutersClient;
use std::time::Duration;
use store::Sql;

const LONG: Duration = Duration::from_secs(60);

impl World {
    async fn routers(&self) -> Vec<net::Router> {
        let message = net::ListRoutersRequest { list_all: Some(true), ..Default::default() };
        let mut client = RoutersClient::new(self.lab.channel());
        client.list(rpc::cx::request(&self.lab.admin, message)).await.unwrap().into_inner().router
    }

    async fn router(&self) -> net::Router {
        self.routers().await.remove(0)
    }

    async fn start(&self, id: &Option<String>) -> Result<net::Router, ApiError> {
        job!(self, RoutersClient.start(net::StartRouterRequest { id: id.clone(), ..Default::default() })).await
    }

    async fn stop(&self, id: &Option<String>, forced: Option<bool>) -> Result<net::Router, ApiError> {
        job!(self, RoutersClient.stop(net::StopRouterRequest { id: id.clone(), forced, ..Default::default() })).await
    }

    async fn reboot(&self, id: &Option<String>) -> Result<net::Router, ApiError> {
        job!(self, RoutersClient.reboot(net::RebootRouterRequest { id: id.clone(), ..Default::default() })).await
    }

    async fn destroy(&self, id: &Option<String>) -> Result<net::Router, ApiError> {
        job!(self, RoutersClient.destroy(net::DestroyRouterRequest { id: id.clone(), ..Default::default() })).await
    }

    async fn restart(&self, cleanup: bool) -> Result<Success, ApiError> {
        let id = Some(self.network.clone());
        let message = net::RestartNetworkRequest { id, cleanup: Some(cleanup), ..Default::default() };
        job!(self, NetworksClient.restart(message)).await
    }

    /// What hosts were told since the last question: base, and sections.
    fn told(&self) -> Vec<(i64, Vec<&'static str>)> {
        std::mem::take(&mut *self.lab.hosts.told.lock().unwrap())
    }

    async fn is_nowhere(&self) {
        testkit::wait_until(async || self.lab.hosts.all().is_empty(), LONG).await;
    }
}

testkit::databases! {
    /// A rule's change brings the sections that it is in, and nothing else; what the host has then is what the whole is.
    async fn a_change_brings_its_sections(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        w.told();
        let opened = w.open(|r| r.start_port = Some(443)).await.unwrap();
        w.forward(|_| ()).await.unwrap();
        w.forward(|r| { r.public_port = Some(80); r.open_firewall = Some(true); }).await.unwrap();
        w.egress(|r| r.start_port = Some(22)).await.unwrap();
        let message = net::CreateLoadBalancerRuleRequest {
            public_ip_id: Some(w.ip.clone()),
            name: Some("balanced".into()),
            algorithm: Some("roundrobin".into()),
            public_port: Some(8443),
            private_port: Some(8443),
            open_firewall: Some(false),
            ..Default::default()
        };
        let _: net::LoadBalancerRule = job!(w, LoadBalancerRulesClient.create(message)).await.unwrap();
        let (other, _) = w.acquire().await;
        let message = net::DeleteFirewallRuleRequest { id: opened.id.clone(), ..Default::default() };
        let _: Success = job!(w, FirewallRulesClient.delete(message)).await.unwrap();
        w.release(&other).await.unwrap();
        let told = w.told();
        assert!(told.iter().all(|(base, _)| *base > 0), "{told:?}");
        let brought: Vec<Vec<&str>> = told.into_iter().map(|(_, sections)| sections).collect();
        assert_eq!(
            brought,
            [
                vec!["firewall"],
                vec!["nat"],
                vec!["nat", "firewall"],
                vec!["firewall"],
                vec!["firewall", "load_balancers"],
                vec!["interfaces"],
                vec!["firewall"],
                vec!["interfaces", "nat", "firewall", "load_balancers"],
            ]
        );
        let had = w.spec();
        let router = w.router().await;
        w.reboot(&router.id).await.unwrap();
        let whole = w.spec();
        assert_eq!(w.told().first().map(|(base, _)| *base), Some(0));
        assert_eq!((had.interfaces, had.nat, had.firewall, had.load_balancers), (whole.interfaces, whole.nat, whole.firewall, whole.load_balancers));
    }

    /// One section that a host can't apply doesn't hold up changes of the others.
    async fn a_broken_section_holds_up_nobody(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        w.lab.hosts.broken.lock().unwrap().insert("nat");
        let broken = w.forward(|_| ()).await.unwrap_err();
        assert!(broken.code == 530 && broken.text.contains("section nat: it is broken"), "{broken}");
        let (a, b) = tokio::join!(w.open(|r| r.start_port = Some(443)), w.egress(|r| r.start_port = Some(22)));
        assert_eq!((a.unwrap().state.as_deref(), b.unwrap().state.as_deref()), (Some("Active"), Some("Active")));
        assert_eq!(w.spec().firewall.unwrap().ingress.len(), 1);
    }

    /// A stopped router is on no host; rules are taken meanwhile, and are in force once it starts; machines start it.
    // covers: STO-201
    async fn a_router_stops_and_starts(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let kept = w.open(|r| r.start_port = Some(443)).await.unwrap();
        let router = w.router().await;
        assert_eq!((router.state.as_deref(), router.host_id.is_some()), (Some("Running"), true));
        assert_eq!(w.start(&router.id).await.unwrap().state.as_deref(), Some("Running"));
        let stopped = w.stop(&router.id, None).await.unwrap();
        assert_eq!((stopped.state.as_deref(), stopped.host_id, stopped.guest_ip_address), (Some("Stopped"), None, router.guest_ip_address.clone()));
        w.is_nowhere().await;
        assert_eq!(w.stop(&router.id, None).await.unwrap().state.as_deref(), Some("Stopped"));
        let error = w.reboot(&router.id).await.unwrap_err();
        assert!(error.code == 530 && error.text.contains("not in right state Stopped"), "{error}");
        let added = w.open(|r| r.start_port = Some(80)).await.unwrap();
        assert_eq!(added.state.as_deref(), Some("Active"));
        assert!(w.lab.hosts.all().is_empty());
        let started = w.start(&router.id).await.unwrap();
        assert_eq!((started.state.as_deref(), started.id.clone(), started.public_ip), (Some("Running"), router.id.clone(), router.public_ip));
        let ids: Vec<String> = w.spec().firewall.unwrap().ingress.into_iter().map(|r| r.id).collect();
        assert_eq!(ids, [kept.id.unwrap(), added.id.unwrap()]);
        w.reboot(&router.id).await.unwrap();
        assert_eq!(w.spec().firewall.unwrap().ingress.len(), 2);
        // A machine that starts needs its gateway.
        w.stop(&router.id, None).await.unwrap();
        let vm = VmJob::deploy(1, w.number, Some(1));
        w.lab.vm(vm.then(What::Stop)).await.unwrap();
        w.lab.vm(vm.then(What::Start)).await.unwrap();
        assert_eq!(w.router().await.state.as_deref(), Some("Running"));
        assert_eq!(w.lab.hosts.twice.load(std::sync::atomic::Ordering::SeqCst), 0);
        w.lab.audit().await;
    }

    /// A host that can't be told: only `forced` takes a router from it, and it drops its copy when it is back.
    // covers: OPS-207
    async fn a_router_of_a_silent_host_stops_by_force(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let router = w.router().await;
        w.lab.hosts.silent.lock().unwrap().insert(1);
        assert_eq!(w.stop(&router.id, None).await.unwrap_err().code, 534);
        assert_eq!(w.destroy(&router.id).await.unwrap_err().code, 534);
        assert_eq!(w.restart(true).await.unwrap_err().code, 534);
        assert_eq!(w.routers().await.len(), 1);
        let stopped = w.stop(&router.id, Some(true)).await.unwrap();
        assert_eq!(stopped.state.as_deref(), Some("Stopped"));
        assert_eq!(w.lab.hosts.all().len(), 1, "the host has it still");
        w.destroy(&router.id).await.unwrap();
        w.restart(false).await.unwrap();
        let new = w.router().await;
        assert!(new.id != router.id && new.state.as_deref() == Some("Running"));
        let old = router.id.clone().unwrap();
        w.lab.hosts.silent.lock().unwrap().clear();
        w.lab.replicas[0].node.coord.publish("placement", "host/1");
        testkit::wait_until(async || !w.lab.hosts.on(1).contains(&old), LONG).await;
        assert_eq!(w.lab.hosts.all().len(), 1);
    }

    /// A destroyed router is gone; a restart without cleanup, and a machine that starts, get the network a new one with all
    /// rules; a healthy one stays at a restart without cleanup, and is made anew by one with.
    // covers: STO-207, NET-233, OPS-208
    async fn a_destroyed_router_is_made_anew(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        w.open(|r| r.start_port = Some(443)).await.unwrap();
        w.forward(|_| ()).await.unwrap();
        let had = w.spec();
        let first = w.router().await;
        let destroyed = w.destroy(&first.id).await.unwrap();
        assert_eq!((destroyed.id, destroyed.state.as_deref()), (first.id.clone(), Some("Expunging")));
        w.is_nowhere().await;
        assert!(w.routers().await.is_empty());
        w.restart(false).await.unwrap();
        let second = w.router().await;
        assert!(second.id != first.id && second.public_ip == first.public_ip && second.guest_ip_address == first.guest_ip_address);
        assert_eq!((w.spec().nat, w.spec().firewall), (had.nat.clone(), had.firewall.clone()));
        w.restart(false).await.unwrap();
        assert_eq!(w.router().await.id, second.id, "a healthy one stays");
        w.restart(true).await.unwrap();
        let third = w.router().await;
        assert_ne!(third.id, second.id);
        assert_eq!((w.spec().nat, w.spec().firewall), (had.nat.clone(), had.firewall.clone()));
        w.destroy(&third.id).await.unwrap();
        let vm = VmJob::deploy(1, w.number, Some(1));
        w.lab.vm(vm.then(What::Stop)).await.unwrap();
        w.lab.vm(vm.then(What::Start)).await.unwrap();
        assert_eq!((w.spec().nat, w.spec().firewall), (had.nat, had.firewall));
        let state = w.lab.text(Sql::new("SELECT state FROM networks WHERE uuid = ?").bind(&w.network)).await;
        assert_eq!(state, "Implemented");
        assert_eq!(w.lab.hosts.all().len(), 1);
        w.lab.audit().await;
    }

    /// How fast interfaces may be comes from offerings, else from settings: a VM's default one by its service offering, its
    /// others and the router's by the network's.
    // covers: INST-211
    async fn rates_come_from_offerings(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let (other, _) = w.lab.isolated("10.9.0.1", "255.255.255.0").await;
        let router_rates = |w: &World| -> Vec<Option<u64>> {
            let list = w.spec().interfaces.unwrap().list;
            list.into_iter().map(|nic| nic.rate_mbps).collect()
        };
        // Both settings are 200 from the start.
        assert_eq!(router_rates(&w), [Some(200), Some(200)]);
        let vm = VmJob::deploy(1, w.number, Some(1));
        w.lab.vm(vm.then(What::Stop)).await.unwrap();
        let nics = w.lab.vm(vm.then(What::Start)).await.unwrap().nics;
        assert_eq!(nics.iter().map(|n| n.rate_mbps).collect::<Vec<_>>(), [Some(200)]);
        w.lab.write(Sql::new("UPDATE network_offerings SET network_rate = 10")).await;
        w.lab.write(Sql::new(
            "INSERT INTO service_offerings (id, uuid, name, name_lower, display_text, rate_mbps, offer_ha, limit_cpu_use, is_volatile, \
             storage_type, provisioning_type, is_system, default_use, customized, sort_key, created) VALUES \
             (1, 'so', 'so', 'so', 'so', 30, 0, 0, 0, 'shared', 'thin', 0, 0, 0, 0, 0)",
        ))
        .await;
        // A second interface, as a machine in two networks has.
        let sql = "UPDATE nics SET is_default = 0 WHERE vm_id = 2";
        w.lab.machine(2, (2, 1, "/1/")).await;
        let second = VmJob::deploy(2, other, Some(1));
        w.lab.vm(second.clone()).await.unwrap();
        w.lab.write(Sql::new(sql)).await;
        for (job, rate) in [(vm, 30), (second, 10)] {
            w.lab.vm(job.then(What::Stop)).await.unwrap();
            let nics = w.lab.vm(job.then(What::Start)).await.unwrap().nics;
            assert_eq!(nics.iter().map(|n| n.rate_mbps).collect::<Vec<_>>(), [Some(rate)]);
        }
        w.lab.write(Sql::new("UPDATE network_offerings SET network_rate = 0")).await;
        w.restart(true).await.unwrap();
        let network = w.number;
        let uuid = w.lab.text(Sql::new("SELECT uuid FROM routers WHERE live_network = ?").bind(network)).await;
        let (_, applied) = w.lab.hosts.router(&uuid).unwrap();
        assert!(applied.spec.interfaces.unwrap().list.iter().all(|nic| nic.rate_mbps.is_none()), "0 is no limit");
    }
}
