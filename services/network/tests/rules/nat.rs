//! Port forwarding and static NAT.

use super::world::{World, job};
use crate::support::{VmJob, vm_uuid};
use contract::api::{Caller, JobRef, Success};
use contract_network as net;
use futures::future::join_all;
use net::ip_forwarding_rules_client::IpForwardingRulesClient;
use net::port_forwarding_rules_client::PortForwardingRulesClient;
use net::static_nats_client::StaticNatsClient;
use store::Sql;

testkit::databases! {
    /// Ports of an address are forwarded to a machine, whose firewall rule comes and goes with it.
    async fn ports_are_forwarded(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let made = w.forward(|_| ()).await.unwrap();
        // As 4.11 answers (tests/contract/golden/122).
        assert_eq!(
            made,
            net::PortForwardingRule {
                id: made.id.clone(),
                private_port: Some("22".into()),
                private_end_port: Some("22".into()),
                protocol: Some("tcp".into()),
                public_port: Some("2222".into()),
                public_end_port: Some("2222".into()),
                virtual_machine_id: Some(vm_uuid(1)),
                virtual_machine_name: Some("vm1".into()),
                virtual_machine_display_name: Some("Machine 1".into()),
                ip_address_id: Some(w.ip.clone()),
                ip_address: Some(w.address.clone()),
                state: Some("Active".into()),
                cidr_list: Some(String::new()),
                vm_guest_ip: Some(w.guest.clone()),
                network_id: Some(w.network.clone()),
                for_display: Some(true),
                ..Default::default()
            }
        );
        let on_host = w.spec().nat.unwrap().forwards;
        assert_eq!((on_host[0].public_ip.as_str(), on_host[0].public_start, on_host[0].guest_ip.as_str(), on_host[0].guest_start), (w.address.as_str(), 2222, w.guest.as_str(), 22));
        assert!(w.listed(&w.lab.admin, true).await.is_empty());
        // The same port of the other protocol; a range, with the firewall opened, by default and for some sources only.
        w.forward(|r| r.protocol = Some("udp".into())).await.unwrap();
        let range = w.forward(|r| {
            (r.public_port, r.public_end_port, r.private_port, r.private_end_port) = (Some(8000), Some(8010), Some(8000), Some(8010));
            r.open_firewall = None;
            r.cidr_list = vec!["10.0.0.0/8".into()];
        }).await.unwrap();
        let opened = w.listed(&w.lab.admin, true).await;
        assert_eq!(opened.iter().map(|r| (r.start_port, r.end_port, r.cidr_list.as_deref())).collect::<Vec<_>>(), [(Some(8000), Some(8010), Some("10.0.0.0/8"))]);
        assert_eq!((w.spec().firewall.unwrap().ingress.len(), w.spec().nat.unwrap().forwards.len()), (1, 3));
        // On the network's own address, too.
        let snat = w.lab.text(Sql::new("SELECT uuid FROM ip_addresses WHERE is_source_nat <> 0")).await;
        let own = w.forward(|r| r.ip_address_id = Some(snat.clone())).await.unwrap();
        // What is in the way, and what isn't a rule.
        w.refused(537, "conflicts with rule", w.forward(|_| ())).await;
        w.refused(537, "8000-8010", w.forward(|r| (r.public_port, r.private_port) = (Some(8005), Some(8005)))).await;
        w.refused(431, "equal sizes", w.forward(|r| r.public_end_port = Some(2230))).await;
        w.refused(431, "keeps its ports", w.forward(|r| (r.public_port, r.public_end_port, r.private_port, r.private_end_port) = (Some(100), Some(101), Some(200), Some(201)))).await;
        w.refused(431, "Protocol icmp", w.forward(|r| r.protocol = Some("icmp".into()))).await;
        w.refused(431, "invalid value: 70000", w.forward(|r| r.private_port = Some(70000))).await;
        w.refused(431, "not in the VM nic's network", w.forward(|r| { r.public_port = Some(9); r.vm_guest_ip = Some("10.1.1.250".into()); })).await;
        w.refused(431, "valid IPv4 address", w.forward(|r| { r.public_port = Some(9); r.vm_guest_ip = Some("x".into()); })).await;
        let (_, other) = w.lab.isolated("10.5.0.1", "255.255.255.0").await;
        w.refused(431, "different network", w.forward(|r| { r.public_port = Some(9); r.network_id = Some(other.clone()); })).await;
        w.lab.machine(2, (2, 1, "/1/")).await;
        w.refused(431, "doesn't belong to network", w.forward(|r| { r.public_port = Some(9); r.virtual_machine_id = Some(vm_uuid(2)); })).await;
        w.lab.machine(3, (5, 2, "/1/2/")).await;
        w.refused(431, "owner is not the same", w.forward(|r| { r.public_port = Some(9); r.virtual_machine_id = Some(vm_uuid(3)); })).await;
        w.lab.write(Sql::new("UPDATE vms SET state = 'Destroyed' WHERE id = 2")).await;
        w.refused(431, "Invalid user vm", w.forward(|r| { r.public_port = Some(9); r.virtual_machine_id = Some(vm_uuid(2)); })).await;
        // Elsewhere: another machine, another port.
        w.lab.machine(4, (2, 1, "/1/")).await;
        let fourth = w.lab.vm(VmJob::deploy(4, w.number, Some(1))).await.unwrap().nics[0].ip4.clone();
        let update = |change: &dyn Fn(&mut net::UpdatePortForwardingRuleRequest)| {
            let mut message = net::UpdatePortForwardingRuleRequest { id: made.id.clone(), ..Default::default() };
            change(&mut message);
            message
        };
        let message = update(&|m| { m.virtual_machine_id = Some(vm_uuid(4)); m.private_port = Some(2200); m.vm_guest_ip = Some(fourth.clone()); });
        let moved: net::PortForwardingRule = job!(w, PortForwardingRulesClient.update(message)).await.unwrap();
        assert_eq!((moved.vm_guest_ip.as_deref(), moved.private_port.as_deref(), moved.private_end_port.as_deref(), moved.state.as_deref()), (Some(fourth.as_str()), Some("2200"), Some("2200"), Some("Active")));
        let on_host = w.spec().nat.unwrap().forwards.into_iter().find(|f| Some(&f.id) == made.id.as_ref()).unwrap();
        assert_eq!((on_host.guest_ip, on_host.guest_start, on_host.guest_end), (fourth, 2200, 2200));
        let message = update(&|m| m.vm_guest_ip = Some("10.1.1.9".into()));
        w.refused(431, "along with virtualmachineid", async { job!(w, PortForwardingRulesClient.update(message)).await.map(|_: net::PortForwardingRule| ()) }).await;
        let message = net::UpdatePortForwardingRuleRequest { id: range.id.clone(), private_port: Some(1), ..Default::default() };
        w.refused(431, "port range", async { job!(w, PortForwardingRulesClient.update(message)).await.map(|_: net::PortForwardingRule| ()) }).await;
        // Its firewall rule goes with it.
        w.delete_forward(&range.id).await.unwrap();
        assert!(w.listed(&w.lab.admin, true).await.is_empty() && w.spec().firewall.unwrap().ingress.is_empty());
        w.delete_forward(&own.id).await.unwrap();
        w.delete_forward(&made.id).await.unwrap();
        w.refused(431, "does not exist", w.delete_forward(&made.id)).await;
        assert_eq!((w.forwards().await.len(), w.spec().nat.unwrap().forwards.len()), (1, 1));
        // Accounting was told of each.
        let told = async |kind: &str| w.lab.db.all(Sql::new("SELECT payload FROM outbox WHERE topic = 'usage' AND kind = ?").bind(kind)).await.unwrap().len();
        assert_eq!((told("NET.RULEADD").await, told("NET.RULEDELETE").await), (4, 3));
        w.lab.audit().await;
    }

    /// An address stands for one machine; rules of both kinds exclude each other.
    // covers: NET-214
    async fn an_address_stands_for_a_machine(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let snat = w.lab.text(Sql::new("SELECT uuid FROM ip_addresses WHERE is_source_nat <> 0")).await;
        w.refused(431, "sourceNat ip address", w.enable(|r| r.ip_address_id = Some(snat.clone()))).await;
        let forward = w.forward(|_| ()).await.unwrap();
        w.refused(537, "already has PortForwarding rules", w.enable(|_| ())).await;
        w.delete_forward(&forward.id).await.unwrap();
        w.refused(431, "not associated with any vm", w.disable()).await;
        assert!(w.enable(|r| r.vm_guest_ip = Some(w.guest.clone())).await.unwrap().success);
        let ip = w.address().await;
        assert_eq!(
            (ip.is_static_nat, ip.virtual_machine_id, ip.vm_ip_address.as_deref(), ip.virtual_machine_name.as_deref(), ip.virtual_machine_display_name.as_deref()),
            (Some(true), Some(vm_uuid(1)), Some(w.guest.as_str()), Some("vm1"), Some("Machine 1"))
        );
        let on_host = w.spec().nat.unwrap().static_nats;
        assert_eq!(on_host, [contract_agent::StaticNat { public_ip: w.address.clone(), guest_ip: w.guest.clone() }]);
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM outbox WHERE kind = 'STATICNAT.ENABLE'").await, 1);
        // Once a machine, once an address.
        assert_eq!(w.enable(|_| ()).await.unwrap_err().code, 431);
        let (second, _) = w.acquire().await;
        assert_eq!(w.enable(|r| r.ip_address_id = Some(second.clone())).await.unwrap_err().code, 431);
        w.lab.machine(2, (2, 1, "/1/")).await;
        w.lab.vm(VmJob::deploy(2, w.number, Some(1))).await.unwrap();
        assert_eq!(w.enable(|r| r.virtual_machine_id = Some(vm_uuid(2))).await.unwrap_err().code, 537);
        w.refused(431, "has static nat enabled", w.forward(|_| ())).await;
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM ip_addresses WHERE is_static_nat <> 0").await, 1);
        // Its ports, opened.
        let message = |start: i32, address: &str| net::CreateIpForwardingRuleRequest { ip_address_id: Some(address.into()), protocol: Some("tcp".into()), start_port: Some(start), end_port: Some(start + 5), ..Default::default() };
        let ports: net::IpForwardingRule = job!(w, IpForwardingRulesClient.create(message(80, &w.ip))).await.unwrap();
        assert_eq!((ports.start_port, ports.end_port, ports.state.as_deref(), ports.ip_address.as_deref(), ports.virtual_machine_id), (Some(80), Some(85), Some("Active"), Some(w.address.as_str()), Some(vm_uuid(1))));
        assert_eq!(w.spec().firewall.unwrap().ingress.iter().map(|r| (r.start_port, r.end_port)).collect::<Vec<_>>(), [(Some(80), Some(85))]);
        w.refused(537, "Can't do static nat", async { job!(w, IpForwardingRulesClient.create(message(80, &second))).await.map(|_: net::IpForwardingRule| ()) }).await;
        w.refused(537, "conflicts", async { job!(w, IpForwardingRulesClient.create(message(82, &w.ip))).await.map(|_: net::IpForwardingRule| ()) }).await;
        let more: net::IpForwardingRule = job!(w, IpForwardingRulesClient.create(message(443, &w.ip))).await.unwrap();
        let list = net::ListIpForwardingRulesRequest { virtual_machine_id: Some(vm_uuid(1)), ..Default::default() };
        let listed = IpForwardingRulesClient::new(w.lab.channel()).list(rpc::cx::request(&w.lab.admin, list)).await.unwrap().into_inner();
        assert_eq!((listed.count, listed.ip_forwarding_rule[1].id.clone()), (Some(2), ports.id.clone()));
        let message = net::DeleteIpForwardingRuleRequest { id: more.id, ..Default::default() };
        job!(w, IpForwardingRulesClient.delete(message)).await.map(|_: Success| ()).unwrap();
        assert_eq!(w.listed(&w.lab.admin, true).await.len(), 1);
        // All of it goes with the static NAT.
        assert!(w.disable().await.unwrap().success);
        assert_eq!((w.address().await.is_static_nat, w.address().await.virtual_machine_id), (Some(false), None));
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM firewall_rules").await, 0);
        assert!(w.spec().nat.unwrap().static_nats.is_empty() && w.spec().firewall.unwrap().ingress.is_empty());
        w.enable(|r| r.virtual_machine_id = Some(vm_uuid(2))).await.unwrap();
        w.lab.audit().await;
    }

    /// A machine in several networks: rules on another one than its default network are accepted, with a warning.
    // covers: NET-215, NET-225
    async fn networks_aside_are_warned_of(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let (other, _) = w.lab.isolated("10.7.0.1", "255.255.255.0").await;
        w.lab.machine(2, (2, 1, "/1/")).await;
        w.lab.vm(VmJob { networks: vec![other, w.number], ..VmJob::deploy(2, other, Some(1)) }).await.unwrap();
        let texts = async |kind: &str| -> Vec<String> {
            let sql = Sql::new("SELECT payload FROM outbox WHERE topic = 'event' AND kind = ?").bind(kind);
            w.lab.db.all(sql).await.unwrap().iter().map(|r| String::from_utf8(r.at::<Vec<u8>>(0).unwrap()).unwrap()).collect()
        };
        let rule = w.forward(|r| r.virtual_machine_id = Some(vm_uuid(2))).await.unwrap();
        assert!(texts("NET.RULEADD").await.iter().any(|t| t.contains("default route goes by another")));
        w.delete_forward(&rule.id).await.unwrap();
        w.enable(|r| r.virtual_machine_id = Some(vm_uuid(2))).await.unwrap();
        let told = texts("STATICNAT.ENABLE").await;
        assert!(told.len() == 1 && told[0].contains("Warn") && told[0].contains("default route"), "{told:?}");
        w.disable().await.unwrap();
        w.enable(|_| ()).await.unwrap();
        assert!(texts("STATICNAT.ENABLE").await[1].contains("Info"));
    }

    /// A network whose offering is without conserve mode gives an address one service.
    async fn without_conserve_mode_an_address_has_one_service(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        w.lab.write(Sql::new("UPDATE network_offerings SET conserve_mode = 0")).await;
        let snat = w.lab.text(Sql::new("SELECT uuid FROM ip_addresses WHERE is_source_nat <> 0")).await;
        w.refused(431, "already used as SourceNat", w.forward(|r| r.ip_address_id = Some(snat.clone()))).await;
        w.forward(|r| r.open_firewall = Some(true)).await.unwrap();
        w.open(|r| { r.ip_address_id = Some(snat.clone()); r.start_port = Some(1); }).await.unwrap();
    }

    /// Rivals for a port: one gets it. The same request twice is one rule.
    async fn one_of_many_gets_the_port(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let all = join_all((0..12).map(|_| w.forward(|_| ()))).await;
        assert_eq!(all.iter().filter(|r| r.is_ok()).count(), 1, "{all:?}");
        assert!(all.iter().filter_map(|r| r.as_ref().err()).all(|e| e.code == 537), "{all:?}");
        let different = join_all((0..12).map(|n| w.forward(move |r| r.public_port = Some(3000 + n)))).await;
        assert!(different.iter().all(Result::is_ok), "{different:?}");
        assert_eq!(w.spec().nat.unwrap().forwards.len(), 13);
        let same = Caller { idempotency_key: Some("once".into()), request_hash: vec![1], ..w.lab.admin.clone() };
        let message = net::CreatePortForwardingRuleRequest { public_port: Some(99), ..w.forwarding() };
        let mut client = PortForwardingRulesClient::new(w.lab.channel());
        let first: JobRef = client.create(rpc::cx::request(&same, message.clone())).await.unwrap().into_inner();
        w.lab.end::<net::PortForwardingRule>(first.clone()).await.unwrap();
        assert_eq!(client.create(rpc::cx::request(&same, message)).await.unwrap().into_inner(), first);
        let (second, _) = w.acquire().await;
        let same = Caller { idempotency_key: Some("nat".into()), ..same };
        let message = net::EnableStaticNatRequest { ip_address_id: Some(second), virtual_machine_id: Some(vm_uuid(1)), ..Default::default() };
        let mut nat = StaticNatsClient::new(w.lab.channel());
        for _ in 0..2 {
            assert!(nat.enable(rpc::cx::request(&same, message.clone())).await.unwrap().into_inner().success);
        }
    }
}
