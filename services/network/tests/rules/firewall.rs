//! Firewall and egress rules.

use super::world::{World, job};
use crate::support::{caller, vm_uuid};
use contract::ApiError;
use contract::api::{RoleType, Success};
use contract_network as net;
use net::egress_firewall_rules_client::EgressFirewallRulesClient;
use net::firewall_rules_client::FirewallRulesClient;
use net::static_nats_client::StaticNatsClient;
use store::Sql;

testkit::databases! {
    /// A rule opens a port range on the router, for some sources or for all, and closes it when it goes.
    // covers: NET-220
    async fn firewall_rules_open_ports(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let made = w.open(|r| { r.start_port = Some(33); r.end_port = Some(44); r.cidr_list = vec!["192.168.0.0/22".into(), "10.0.0.0/8".into()]; }).await.unwrap();
        // As 4.11 answers (tests/contract/golden/116).
        assert_eq!(
            made,
            net::FirewallRule {
                id: made.id.clone(),
                protocol: Some("tcp".into()),
                start_port: Some(33),
                end_port: Some(44),
                ip_address_id: Some(w.ip.clone()),
                network_id: Some(w.network.clone()),
                ip_address: Some(w.address.clone()),
                state: Some("Active".into()),
                cidr_list: Some("192.168.0.0/22,10.0.0.0/8".into()),
                for_display: Some(true),
                dest_cidr_list: Some(String::new()),
                ..Default::default()
            }
        );
        let on_host = w.spec().firewall.unwrap().ingress;
        assert_eq!(on_host.len(), 1);
        assert_eq!((on_host[0].public_ip.as_str(), on_host[0].start_port, on_host[0].end_port, on_host[0].cidrs.len()), (w.address.as_str(), Some(33), Some(44), 2));
        let one = w.open(|r| r.start_port = Some(22)).await.unwrap();
        assert_eq!((one.start_port, one.end_port, one.cidr_list.as_deref()), (Some(22), Some(22), Some("0.0.0.0/0")));
        let ping = w.open(|r| { r.protocol = Some("ICMP".into()); r.icmp_type = Some(8); r.icmp_code = Some(0); }).await.unwrap();
        assert_eq!((ping.protocol.as_deref(), ping.icmp_type, ping.icmp_code, ping.start_port), (Some("icmp"), Some(8), Some(0), None));
        let any = w.open(|r| r.protocol = Some("icmp".into())).await.unwrap();
        assert_eq!((any.icmp_type, any.icmp_code), (Some(-1), Some(-1)));
        let icmp: Vec<_> = w.spec().firewall.unwrap().ingress.iter().filter(|r| r.protocol == "icmp").map(|r| (r.icmp_type, r.icmp_code)).collect();
        assert_eq!(icmp, [(Some(8), Some(0)), (None, None)]);
        // The newest first.
        let all = w.listed(&w.lab.admin, true).await;
        assert_eq!(all.iter().map(|r| r.id.clone()).collect::<Vec<_>>(), [any.id.clone(), ping.id, one.id.clone(), made.id.clone()]);
        // What is in the way, and what isn't a rule.
        w.refused(537, "conflicts with rule", w.open(|r| { r.start_port = Some(40); r.end_port = Some(50); r.cidr_list = vec!["10.0.0.0/8".into()]; })).await;
        w.refused(537, "22-22", w.open(|r| { r.start_port = Some(20); r.end_port = Some(25); })).await;
        w.refused(431, "conflicts", w.open(|r| r.protocol = Some("icmp".into()))).await;
        w.refused(431, "icmp protocol only", w.open(|r| { r.start_port = Some(1); r.icmp_type = Some(8); })).await;
        w.refused(431, "when protocol is ICMP", w.open(|r| { r.protocol = Some("icmp".into()); r.start_port = Some(8); })).await;
        w.refused(431, "icmptype", w.open(|r| { r.protocol = Some("icmp".into()); r.icmp_type = Some(256); })).await;
        w.refused(431, "needs an icmptype", w.open(|r| { r.protocol = Some("icmp".into()); r.icmp_code = Some(1); })).await;
        w.refused(431, "Protocol gre", w.open(|r| r.protocol = Some("gre".into()))).await;
        w.refused(431, "Protocol all", w.open(|r| r.protocol = Some("all".into()))).await;
        w.refused(431, "Start port can't be bigger", w.open(|r| { r.start_port = Some(9); r.end_port = Some(8); })).await;
        w.refused(431, "invalid value: 0", w.open(|r| r.start_port = Some(0))).await;
        w.refused(431, "invalid value: 65536", w.open(|r| { r.start_port = Some(1); r.end_port = Some(65536); })).await;
        w.refused(431, "formatting error 10.0.0.0/33", w.open(|r| { r.start_port = Some(80); r.cidr_list = vec!["10.0.0.0/33".into()]; })).await;
        w.refused(431, "Invalid type", w.open(|r| { r.start_port = Some(80); r.r#type = Some("x".into()); })).await;
        w.refused(431, "ipaddressid", w.open(|r| r.ip_address_id = Some("nothing".into()))).await;
        let free = w.lab.text(Sql::new("SELECT uuid FROM ip_addresses WHERE state = 'Free' LIMIT 1")).await;
        w.refused(431, "not associated with any network", w.open(|r| r.ip_address_id = Some(free.clone()))).await;
        // How it is shown changes nothing on the router.
        let generation = w.lab.number("SELECT generation FROM routers").await;
        let uuid = "11111111-2222-4333-8444-555555555555".to_owned();
        let message = net::UpdateFirewallRuleRequest { id: one.id.clone(), for_display: Some(false), custom_id: Some(uuid.clone()), ..Default::default() };
        let changed: net::FirewallRule = job!(w, FirewallRulesClient.update(message)).await.unwrap();
        assert_eq!((changed.id.as_deref(), changed.for_display), (Some(uuid.as_str()), Some(false)));
        assert_eq!(w.lab.number("SELECT generation FROM routers").await, generation);
        let message = net::UpdateFirewallRuleRequest { id: made.id.clone(), custom_id: Some(uuid.clone()), ..Default::default() };
        assert_eq!(job!(w, FirewallRulesClient.update(message) ).await.map(|_: net::FirewallRule| ()).unwrap_err().code, 431);
        let message = net::UpdateFirewallRuleRequest { id: made.id.clone(), custom_id: Some("x".into()), ..Default::default() };
        w.refused(431, "customid", async { job!(w, FirewallRulesClient.update(message)).await.map(|_: net::FirewallRule| ()) }).await;
        for id in [made.id, Some(uuid), any.id] {
            let message = net::DeleteFirewallRuleRequest { id, ..Default::default() };
            let done: Success = job!(w, FirewallRulesClient.delete(message)).await.unwrap();
            assert!(done.success);
        }
        let left = w.spec().firewall.unwrap().ingress;
        assert_eq!(left.iter().map(|r| r.protocol.as_str()).collect::<Vec<_>>(), ["icmp"]);
        assert_eq!(w.listed(&w.lab.admin, true).await.len(), 1);
        w.lab.audit().await;
    }

    /// Egress rules are exceptions from the offering's policy, which the router has before any rule.
    // covers: NET-231, NET-228
    async fn egress_rules_are_exceptions(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let bare = w.spec().firewall.unwrap();
        assert!(!bare.egress_default_allow && bare.egress.is_empty(), "the policy is in force right after implement");
        let made = w.egress(|r| { r.start_port = Some(22); r.dest_cidr_list = vec!["8.8.0.0/16".into()]; }).await.unwrap();
        assert_eq!((made.cidr_list.as_deref(), made.dest_cidr_list.as_deref(), made.ip_address_id.as_deref()), (Some("10.1.1.0/24"), Some("8.8.0.0/16"), None));
        assert_eq!((made.network_id.as_deref(), made.state.as_deref()), (Some(w.network.as_str()), Some("Active")));
        let all = w.egress(|r| { r.protocol = Some("all".into()); r.cidr_list = vec!["10.1.1.128/25".into()]; }).await.unwrap();
        let on_host = w.spec().firewall.unwrap().egress;
        assert_eq!(on_host.iter().map(|r| (r.protocol.as_str(), r.start_port, r.dest_cidrs.len())).collect::<Vec<_>>(), [("tcp", Some(22), 1), ("all", None, 0)]);
        assert!(w.listed(&w.lab.admin, true).await.is_empty(), "they are no rules of an address");
        let message = net::ListEgressFirewallRulesRequest { network_id: Some(w.network.clone()), ..Default::default() };
        let listed = EgressFirewallRulesClient::new(w.lab.channel()).list(rpc::cx::request(&w.lab.admin, message)).await.unwrap().into_inner();
        assert_eq!(listed.firewall_rule, [all.clone(), made.clone()]);
        w.refused(537, "conflicts", w.egress(|r| { r.start_port = Some(1); r.end_port = Some(1000); r.dest_cidr_list = vec!["8.8.0.0/16".into()]; })).await;
        w.refused(537, "There is already a firewall rule specified", w.egress(|r| { r.protocol = Some("all".into()); r.cidr_list = vec!["10.1.1.128/25".into()]; })).await;
        w.refused(431, "not within the guest cidr", w.egress(|r| { r.start_port = Some(80); r.cidr_list = vec!["10.9.0.0/24".into()]; })).await;
        w.refused(431, "do not require ports", w.egress(|r| { r.protocol = Some("all".into()); r.start_port = Some(80); })).await;
        w.refused(431, "Destination cidrs", w.egress(|r| { r.start_port = Some(80); r.dest_cidr_list = vec!["x".into()]; })).await;
        w.refused(431, "networkid", w.egress(|r| r.network_id = Some("nothing".into()))).await;
        // Ids of one direction aren't those of the other.
        let message = net::DeleteFirewallRuleRequest { id: made.id.clone(), ..Default::default() };
        w.refused(431, "Unable to find", async { job!(w, FirewallRulesClient.delete(message)).await.map(|_: Success| ()) }).await;
        let message = net::UpdateEgressFirewallRuleRequest { id: made.id.clone(), for_display: Some(false), ..Default::default() };
        let changed: net::FirewallRule = job!(w, EgressFirewallRulesClient.update(message)).await.unwrap();
        assert_eq!((changed.id, changed.for_display), (made.id.clone(), Some(false)));
        for id in [made.id, all.id] {
            let message = net::DeleteEgressFirewallRuleRequest { id, ..Default::default() };
            job!(w, EgressFirewallRulesClient.delete(message)).await.map(|_: Success| ()).unwrap();
        }
        assert_eq!(w.spec().firewall.unwrap(), bare, "the policy alone is in force again");
    }

    // covers: NET-229
    async fn shared_networks_have_no_egress_rules(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let offering = w.lab.offering("DefaultSharedNetworkOffering").await;
        let shared = w.lab.create(net::CreateNetworkRequest {
            name: Some("shared".into()), display_text: Some("shared".into()), zone_id: Some("zone-1".into()), network_offering_id: Some(offering),
            gateway: Some("172.31.0.1".into()), netmask: Some("255.255.255.0".into()), start_ip: Some("172.31.0.10".into()), end_ip: Some("172.31.0.20".into()),
            vlan: Some("2000".into()), ..Default::default()
        }).await.unwrap();
        w.refused(431, "not supported for Shared networks", w.egress(|r| { r.network_id = shared.id.clone(); r.start_port = Some(1); })).await;
    }

    /// Rules are their owner's: others neither see nor touch them.
    async fn rules_have_owners(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let mine = w.open(|r| r.start_port = Some(80)).await.unwrap();
        let system = w.open(|r| { r.start_port = Some(81); r.r#type = Some("system".into()); }).await.unwrap();
        let stranger = caller(5, RoleType::User, 2, "/1/2/");
        let above = caller(7, RoleType::DomainAdmin, 1, "/1/");
        assert!(w.listed(&stranger, true).await.is_empty());
        assert_eq!(w.listed(&above, true).await.len(), 2);
        let mut firewall = FirewallRulesClient::new(w.lab.channel());
        let message = net::CreateFirewallRuleRequest { ip_address_id: Some(w.ip.clone()), protocol: Some("tcp".into()), start_port: Some(1), ..Default::default() };
        assert_eq!(ApiError::from(firewall.create(rpc::cx::request(&stranger, message)).await.unwrap_err()).code, 531);
        let message = net::DeleteFirewallRuleRequest { id: mine.id.clone(), ..Default::default() };
        assert_eq!(ApiError::from(firewall.delete(rpc::cx::request(&stranger, message)).await.unwrap_err()).code, 531);
        let message = net::UpdateFirewallRuleRequest { id: mine.id.clone(), ..Default::default() };
        assert_eq!(ApiError::from(firewall.update(rpc::cx::request(&stranger, message)).await.unwrap_err()).code, 531);
        let message = net::DeleteFirewallRuleRequest { id: system.id.clone(), ..Default::default() };
        assert_eq!(ApiError::from(firewall.delete(rpc::cx::request(&above, message)).await.unwrap_err()).code, 431);
        let mut egress = EgressFirewallRulesClient::new(w.lab.channel());
        let message = net::CreateEgressFirewallRuleRequest { network_id: Some(w.network.clone()), protocol: Some("all".into()), ..Default::default() };
        assert_eq!(ApiError::from(egress.create(rpc::cx::request(&stranger, message)).await.unwrap_err()).code, 531);
        let mut nat = StaticNatsClient::new(w.lab.channel());
        let message = net::EnableStaticNatRequest { ip_address_id: Some(w.ip.clone()), virtual_machine_id: Some(vm_uuid(1)), ..Default::default() };
        assert_eq!(ApiError::from(nat.enable(rpc::cx::request(&stranger, message)).await.unwrap_err()).code, 531);
        // Hidden ones are for root admins.
        let message = net::UpdateFirewallRuleRequest { id: mine.id.clone(), for_display: Some(false), ..Default::default() };
        job!(w, FirewallRulesClient.update(message)).await.map(|_: net::FirewallRule| ()).unwrap();
        assert_eq!((w.listed(&above, true).await.len(), w.listed(&w.lab.admin, true).await.len()), (1, 2));
    }

    /// A network without a service refuses its rules.
    async fn services_are_asked_for(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        w.lab.write(Sql::new("UPDATE network_offerings SET services = REPLACE(REPLACE(REPLACE(services, '\"PortForwarding\"', '\"X\"'), '\"Firewall\"', '\"Y\"'), '\"StaticNat\"', '\"Z\"')")).await;
        w.refused(431, "Service PortForwarding is not supported", w.forward(|_| ())).await;
        w.refused(431, "Service Firewall is not supported", w.open(|r| r.start_port = Some(1))).await;
        w.refused(431, "StaticNat service is not supported", w.enable(|_| ())).await;
        w.refused(431, "Service Firewall is not supported", w.egress(|r| r.start_port = Some(1))).await;
    }
}
