//! Rules that fail, and rules that go with what they were for.

use super::world::{World, job};
use crate::support::{VmJob, What};
use contract::api::Success;
use contract_network as net;
use net::firewall_rules_client::FirewallRulesClient;
use net::ip_addresses_client::IpAddressesClient;
use std::time::Duration;
use store::Sql;

testkit::databases! {
    /// What a host can't apply fails its job with the host's reason, and is taken back; the rest stays.
    async fn a_rule_that_fails_is_taken_back(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let kept = w.forward(|_| ()).await.unwrap();
        let before = w.spec();
        w.lab.hosts.broken.lock().unwrap().insert("nat");
        let error = w.forward(|r| { r.public_port = Some(80); r.open_firewall = Some(true); }).await.unwrap_err();
        assert!(error.code == 530 && error.text.contains("section nat: it is broken"), "{error}");
        let error = w.enable(|r| r.ip_address_id = Some(w.ip.clone())).await.unwrap_err();
        assert_eq!(error.code, 537);
        let (second, _) = w.acquire().await;
        let error = w.enable(|r| r.ip_address_id = Some(second.clone())).await.unwrap_err();
        assert!(error.code == 530 && error.text.contains("it is broken"), "{error}");
        let error = w.delete_forward(&kept.id).await.unwrap_err();
        assert_eq!(error.code, 530);
        // A firewall rule is another section's matter.
        let opened = w.open(|r| r.start_port = Some(443)).await.unwrap();
        w.lab.hosts.broken.lock().unwrap().clear();
        w.lab.hosts.broken.lock().unwrap().insert("firewall");
        assert_eq!(w.open(|r| r.start_port = Some(80)).await.unwrap_err().code, 530);
        let message = net::DeleteFirewallRuleRequest { id: opened.id.clone(), ..Default::default() };
        assert_eq!(job!(w, FirewallRulesClient.delete(message)).await.map(|_: Success| ()).unwrap_err().code, 530);
        w.lab.hosts.broken.lock().unwrap().clear();
        assert_eq!(w.forwards().await, [kept]);
        assert_eq!(w.listed(&w.lab.admin, true).await, [opened]);
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM ip_addresses WHERE is_static_nat <> 0").await, 0);
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM firewall_rules WHERE state <> 'Active'").await, 0);
        w.release(&second).await.unwrap();
        testkit::wait_until(async || w.spec().nat == before.nat, Duration::from_secs(10)).await;
        assert_eq!(w.spec().firewall.unwrap().ingress.len(), 1);
    }

    /// A silent host: the job fails in time, and the rule isn't there.
    async fn rules_need_their_host(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        w.lab.hosts.silent.lock().unwrap().insert(1);
        let error = w.open(|r| r.start_port = Some(80)).await.unwrap_err();
        assert_eq!(error.code, 534);
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM firewall_rules").await, 0);
        w.lab.hosts.silent.lock().unwrap().clear();
        w.open(|r| r.start_port = Some(80)).await.unwrap();
    }

    /// Rules of a network that isn't implemented are stored, and are in its router's first spec.
    async fn rules_wait_for_their_network(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let (number, network) = w.lab.isolated("10.6.0.1", "255.255.255.0").await;
        let rule = w.egress(|r| { r.network_id = Some(network.clone()); r.start_port = Some(22); }).await.unwrap();
        assert_eq!(rule.state.as_deref(), Some("Active"));
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM routers").await, 1);
        w.lab.vm(VmJob::deploy(9, number, Some(1))).await.unwrap();
        let told: Vec<_> = w.lab.hosts.all().into_iter().flat_map(|(_, _, r)| r.spec.firewall.unwrap().egress).map(|r| r.id).collect();
        assert_eq!(told, [rule.id.clone().unwrap()]);
        // And they go with it.
        w.lab.vm(VmJob::deploy(9, number, Some(1)).then(What::Expunge)).await.unwrap();
        let message = net::DeleteNetworkRequest { id: Some(network), ..Default::default() };
        use net::networks_client::NetworksClient;
        job!(w, NetworksClient.delete(message)).await.map(|_: Success| ()).unwrap();
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM firewall_rules").await, 0);
    }

    /// A machine that is expunged takes its port forwarding and its static NAT with it; one that stops keeps them.
    // covers: NET-224
    async fn rules_go_with_their_machine(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        for port in 0..20 {
            w.forward(|r| (r.public_port, r.open_firewall) = (Some(3000 + port), Some(port == 0))).await.unwrap();
        }
        let (second, _) = w.acquire().await;
        w.enable(|r| r.ip_address_id = Some(second.clone())).await.unwrap();
        w.open(|r| { r.ip_address_id = Some(second.clone()); r.start_port = Some(80); }).await.unwrap();
        let kept = w.open(|r| r.start_port = Some(443)).await.unwrap();
        let vm = VmJob::deploy(1, w.number, Some(1));
        w.lab.vm(vm.then(What::Stop)).await.unwrap();
        w.lab.vm(vm.then(What::Start)).await.unwrap();
        assert_eq!((w.forwards().await.len(), w.spec().nat.unwrap().forwards.len(), w.spec().nat.unwrap().static_nats.len()), (20, 20, 1));
        w.lab.vm(vm.then(What::Expunge)).await.unwrap();
        assert!(w.forwards().await.is_empty());
        assert_eq!(w.listed(&w.lab.admin, true).await, [kept], "the firewall rules for it are gone, too");
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM ip_addresses WHERE is_static_nat <> 0 OR vm_id IS NOT NULL").await, 0);
        testkit::wait_until(
            async || {
                let spec = w.spec();
                let nat = spec.nat.unwrap();
                nat.forwards.is_empty() && nat.static_nats.is_empty() && spec.firewall.unwrap().ingress.len() == 1
            },
            Duration::from_secs(10),
        )
        .await;
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM outbox WHERE topic = 'usage' AND kind = 'NET.RULEDELETE'").await, 20);
    }

    /// A released address takes its rules with it.
    // covers: NET-211, NET-212
    async fn rules_go_with_their_address(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        assert_eq!(w.address().await.state.as_deref(), Some("Allocated"));
        w.forward(|r| r.open_firewall = Some(true)).await.unwrap();
        let (second, _) = w.acquire().await;
        w.enable(|r| r.ip_address_id = Some(second.clone())).await.unwrap();
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM firewall_rules").await, 2);
        let snat = w.lab.text(Sql::new("SELECT uuid FROM ip_addresses WHERE is_source_nat <> 0")).await;
        w.refused(431, "source nat purposes", w.release(&snat)).await;
        w.release(&w.ip).await.unwrap();
        w.release(&second).await.unwrap();
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM firewall_rules").await, 0);
        let nat = w.spec().nat.unwrap();
        assert!(nat.forwards.is_empty() && nat.static_nats.is_empty() && w.spec().firewall.unwrap().ingress.is_empty());
        assert_eq!(w.spec().interfaces.unwrap().list[1].addresses.len(), 1);
        w.refused(431, "not associated with any network", w.open(|r| r.start_port = Some(1))).await;
        let state = w.lab.text(Sql::new("SELECT state FROM ip_addresses WHERE uuid = ?").bind(&w.ip)).await;
        assert_eq!(state, "Free");
        w.lab.audit().await;
        // It is anyone's again, and comes back without a trace of what it was.
        let free = w.lab.number("SELECT COUNT(*) FROM ip_addresses WHERE state = 'Free' AND is_static_nat = 0 AND vm_id IS NULL").await;
        assert_eq!(free, w.lab.number("SELECT COUNT(*) FROM ip_addresses WHERE state = 'Free'").await);
        let most = w.lab.counts.of(1);
        w.lab.counts.0.lock().unwrap().most.insert(1, most);
        let message = net::AssociateIpAddressRequest { network_id: Some(w.network.clone()), ..Default::default() };
        assert_eq!(job!(w, IpAddressesClient.associate(message)).await.map(|_: net::IpAddress| ()).unwrap_err().code, 535);
    }

    /// An address is shown as its administrator wishes.
    async fn an_address_is_changed(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let uuid = "aaaaaaaa-2222-4333-8444-555555555555".to_owned();
        let message = net::UpdateIpAddressRequest { id: Some(w.ip.clone()), for_display: Some(false), custom_id: Some(uuid.clone()), ..Default::default() };
        let ip: net::IpAddress = job!(w, IpAddressesClient.update(message)).await.unwrap();
        assert_eq!((ip.id, ip.for_display, ip.ip_address), (Some(uuid), Some(false), Some(w.address.clone())));
        w.refused(431, "does not exist", w.release(&w.ip)).await;
    }
}
