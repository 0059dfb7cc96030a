//! Load balancing over the wire, on both databases, with a host that tells what it has.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use contract::ApiError;
use contract::api::{Caller, RoleType, Success};
use contract_agent::LoadBalancer;
use contract_network as net;
use futures::future::join_all;
use net::ip_addresses_client::IpAddressesClient;
use net::load_balancer_rules_client::LoadBalancerRulesClient;
use net::networks_client::NetworksClient;
use net::stickiness_policies_client::StickinessPoliciesClient;
use std::time::Duration;
use store::Sql;
use support::{Lab, VmJob, What, caller, vm_uuid};

/// An isolated network with machines 1, 2 and 3 on host 1, and an address beside its own.
struct World {
    lab: Lab,
    network: String,
    number: i64,
    ip: String,
    guests: Vec<String>,
}

/// Calls a command as somebody and runs its job to the end.
macro_rules! job {
    ($w:expr, $who:expr, $client:ident.$method:ident($message:expr)) => {
        async {
            match $client::new($w.lab.channel()).$method(rpc::cx::request($who, $message)).await {
                Ok(job) => $w.lab.end(job.into_inner()).await,
                Err(status) => Err(ApiError::from(status)),
            }
        }
    };
}

const TABLES: &[&str] = &["firewall_rules", "load_balancers", "lb_members", "lb_stickiness"];

impl World {
    async fn new(url: &str) -> World {
        let lab = Lab::new(url).await;
        lab.zone("100-1500", "192.168.0.60").await;
        let (number, network) = lab.isolated("10.1.1.1", "255.255.255.0").await;
        let mut guests = Vec::new();
        for vm in 1..=3 {
            lab.machine(vm, (2, 1, "/1/")).await;
            guests.push(lab.vm(VmJob::deploy(vm, number, Some(1))).await.unwrap().nics[0].ip4.clone());
        }
        let mut world = World { lab, network, number, ip: String::new(), guests };
        world.ip = world.acquire().await;
        world
    }

    async fn acquire(&self) -> String {
        let message = net::AssociateIpAddressRequest { network_id: Some(self.network.clone()), ..Default::default() };
        let ip: net::IpAddress = job!(self, &self.lab.admin, IpAddressesClient.associate(message)).await.unwrap();
        ip.id.unwrap()
    }

    fn rule(&self, port: i32) -> net::CreateLoadBalancerRuleRequest {
        net::CreateLoadBalancerRuleRequest {
            name: Some(format!("web{port}")),
            algorithm: Some("roundrobin".into()),
            public_ip_id: Some(self.ip.clone()),
            public_port: Some(port),
            private_port: Some(8080),
            ..Default::default()
        }
    }

    async fn create(
        &self,
        port: i32,
        change: impl FnOnce(&mut net::CreateLoadBalancerRuleRequest),
    ) -> Result<net::LoadBalancerRule, ApiError> {
        self.create_as(&self.lab.admin, port, change).await
    }

    async fn create_as(
        &self,
        who: &Caller,
        port: i32,
        change: impl FnOnce(&mut net::CreateLoadBalancerRuleRequest),
    ) -> Result<net::LoadBalancerRule, ApiError> {
        let mut message = self.rule(port);
        change(&mut message);
        job!(self, who, LoadBalancerRulesClient.create(message)).await
    }

    async fn update(
        &self,
        rule: &str,
        change: impl FnOnce(&mut net::UpdateLoadBalancerRuleRequest),
    ) -> Result<net::LoadBalancerRule, ApiError> {
        let mut message = net::UpdateLoadBalancerRuleRequest { id: Some(rule.into()), ..Default::default() };
        change(&mut message);
        job!(self, &self.lab.admin, LoadBalancerRulesClient.update(message)).await
    }

    async fn delete(&self, rule: &str) -> Result<Success, ApiError> {
        let message = net::DeleteLoadBalancerRuleRequest { id: Some(rule.into()), ..Default::default() };
        job!(self, &self.lab.admin, LoadBalancerRulesClient.delete(message)).await
    }

    async fn assign(&self, rule: &str, vms: &[i64]) -> Result<Success, ApiError> {
        let vms = vms.iter().map(|vm| vm_uuid(*vm)).collect();
        self.assign_with(rule, |m| m.virtual_machine_ids = vms).await
    }

    async fn assign_with(
        &self,
        rule: &str,
        change: impl FnOnce(&mut net::AssignToLoadBalancerRuleRequest),
    ) -> Result<Success, ApiError> {
        let mut message = net::AssignToLoadBalancerRuleRequest { id: Some(rule.into()), ..Default::default() };
        change(&mut message);
        job!(self, &self.lab.admin, LoadBalancerRulesClient.assign(message)).await
    }

    async fn remove(&self, rule: &str, vms: &[i64]) -> Result<Success, ApiError> {
        let vms = vms.iter().map(|vm| vm_uuid(*vm)).collect();
        let message = net::RemoveFromLoadBalancerRuleRequest {
            id: Some(rule.into()),
            virtual_machine_ids: vms,
            ..Default::default()
        };
        job!(self, &self.lab.admin, LoadBalancerRulesClient.remove(message)).await
    }

    async fn list(
        &self,
        who: &Caller,
        change: impl FnOnce(&mut net::ListLoadBalancerRulesRequest),
    ) -> Result<Vec<net::LoadBalancerRule>, ApiError> {
        let mut message = net::ListLoadBalancerRulesRequest::default();
        change(&mut message);
        let mut client = LoadBalancerRulesClient::new(self.lab.channel());
        let answer = client.list(rpc::cx::request(who, message)).await?.into_inner();
        assert_eq!(answer.count, Some(i64::try_from(answer.load_balancer_rule.len()).unwrap()));
        Ok(answer.load_balancer_rule)
    }

    async fn one(&self, rule: &str) -> net::LoadBalancerRule {
        self.list(&self.lab.admin, |m| m.id = Some(rule.into())).await.unwrap().remove(0)
    }

    async fn stick(&self, rule: &str, method: &str, params: &[(&str, &str)]) -> Result<net::LbStickiness, ApiError> {
        let param = |(name, value): &(&str, &str)| net::StickinessParam {
            name: Some((*name).into()),
            value: Some((*value).into()),
        };
        let message = net::CreateLbStickinessPolicyRequest {
            lb_rule_id: Some(rule.into()),
            name: Some("sticky".into()),
            description: Some("comes back".into()),
            method_name: Some(method.into()),
            param: params.iter().map(param).collect(),
            ..Default::default()
        };
        job!(self, &self.lab.admin, StickinessPoliciesClient.create(message)).await
    }

    async fn unstick(&self, policy: &str) -> Result<Success, ApiError> {
        let message = net::DeleteLbStickinessPolicyRequest { id: Some(policy.into()), ..Default::default() };
        job!(self, &self.lab.admin, StickinessPoliciesClient.delete(message)).await
    }

    async fn policies(
        &self,
        change: impl FnOnce(&mut net::ListLbStickinessPoliciesRequest),
    ) -> Result<net::ListLbStickinessPoliciesResponse, ApiError> {
        let mut message = net::ListLbStickinessPoliciesRequest::default();
        change(&mut message);
        let mut client = StickinessPoliciesClient::new(self.lab.channel());
        Ok(client.list(rpc::cx::request(&self.lab.admin, message)).await?.into_inner())
    }

    /// What the host of the only router balances.
    fn balanced(&self) -> Vec<LoadBalancer> {
        self.lab.hosts.all()[0].2.spec.load_balancers.clone().unwrap_or_default().list
    }

    /// Ports that the host lets in.
    fn open(&self) -> Vec<u32> {
        let firewall = self.lab.hosts.all()[0].2.spec.firewall.clone().unwrap();
        firewall.ingress.iter().filter_map(|r| r.start_port).collect()
    }

    /// All that the service keeps of rules, without what every write changes.
    async fn rows(&self) -> String {
        let mut told = Vec::new();
        for sql in [
            "SELECT COUNT(*), COALESCE(SUM(id), 0), COALESCE(MAX(state), '') FROM firewall_rules",
            "SELECT COUNT(*), COALESCE(SUM(private_port), 0), COALESCE(MAX(algorithm), '') FROM load_balancers",
            "SELECT COUNT(*), COALESCE(SUM(id), 0), COALESCE(MAX(state), '') FROM lb_members",
            "SELECT COUNT(*), COALESCE(SUM(id), 0), COALESCE(MAX(params), '') FROM lb_stickiness",
        ] {
            let row = self.lab.db.one(Sql::new(sql)).await.unwrap();
            // A sum of whole numbers is a decimal to MariaDB.
            let count: i64 = row.at(0).unwrap();
            told.push(format!("{count} {}", row.at::<String>(2).unwrap()));
        }
        told.join("; ")
    }

    async fn nothing_left(&self) {
        for table in TABLES {
            assert_eq!(self.lab.number(&format!("SELECT COUNT(*) FROM {table}")).await, 0, "{table}");
        }
    }

    async fn until_balanced(&self, members: &[usize]) {
        let wanted: Vec<usize> = members.to_vec();
        testkit::wait_until(
            async || self.balanced().iter().map(|b| b.members.len()).collect::<Vec<_>>() == wanted,
            Duration::from_secs(20),
        )
        .await;
    }
}

fn id(rule: &net::LoadBalancerRule) -> String {
    rule.id.clone().unwrap()
}

testkit::databases! {
    /// From the first command to the last, as the router's host sees it.
    async fn a_rule_lives_and_goes(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let made = w.create(80, |m| {
            m.description = Some("The Web".into());
            m.cidr_list = vec!["10.0.0.0/8".into(), "192.168.0.0/16".into()];
        }).await.unwrap();
        let rule = id(&made);
        // As recorded of CloudStack: Add while nobody is behind it, numbers as texts, no protocol that wasn't said.
        assert_eq!(
            (made.name.as_deref(), made.public_port.as_deref(), made.private_port.as_deref(), made.algorithm.as_deref(), made.state.as_deref(), made.protocol.as_deref()),
            (Some("web80"), Some("80"), Some("8080"), Some("roundrobin"), Some("Add"), None)
        );
        assert_eq!((made.network_id.as_deref(), made.zone_id.as_deref(), made.zone_name.is_some()), (Some(w.network.as_str()), Some("zone-1"), true));
        assert_eq!((made.public_ip_id.as_deref(), made.cidr_list.as_deref()), (Some(w.ip.as_str()), Some("10.0.0.0/8,192.168.0.0/16")));
        assert_eq!((made.for_display, made.account.is_some(), made.domain.as_deref()), (Some(true), true, Some("ROOT")));
        // The port is opened, and nobody listens yet.
        assert_eq!((w.open(), w.balanced()), (vec![80], Vec::new()));

        w.assign(&rule, &[1, 2]).await.unwrap();
        let balanced = w.balanced();
        let b = &balanced[0];
        assert_eq!((b.id.as_str(), b.public_port, b.private_port, b.algorithm.as_str(), b.protocol.as_str()), (rule.as_str(), 80, 8080, "roundrobin", "tcp"));
        assert_eq!(b.members, w.guests[..2]);
        assert_eq!(b.cidrs.len(), 2);
        assert_eq!(w.one(&rule).await.state.as_deref(), Some("Active"));
        let entry = net::VmIpParam { vm_id: Some(vm_uuid(3)), vm_ip: Some(w.guests[2].clone()) };
        w.assign_with(&rule, |m| m.vm_id_ip_map = vec![entry]).await.unwrap();
        assert_eq!(w.balanced()[0].members, w.guests);

        let changed = w.update(&rule, |m| {
            m.name = Some("renamed".into());
            m.algorithm = Some("LeastConn".into());
            m.protocol = Some("tcp-proxy".into());
            m.description = Some("other".into());
            m.for_display = Some(false);
        }).await.unwrap();
        assert_eq!((changed.name.as_deref(), changed.algorithm.as_deref(), changed.protocol.as_deref(), changed.for_display), (Some("renamed"), Some("leastconn"), Some("tcp-proxy"), Some(false)));
        assert_eq!((w.balanced()[0].algorithm.as_str(), w.balanced()[0].protocol.as_str()), ("leastconn", "tcp-proxy"));
        let custom = "11111111-2222-4333-8444-555555555555";
        w.update(&rule, |m| m.custom_id = Some(custom.into())).await.unwrap();
        assert_eq!(w.balanced()[0].id, custom);
        let rule = custom.to_owned();

        let stuck = w.stick(&rule, "appcookie", &[("cookie-name", "JSESSIONID"), ("holdtime", "2h"), ("request-learn", "")]).await.unwrap();
        assert_eq!(stuck.lb_rule_id.as_deref(), Some(rule.as_str()));
        let policy = &stuck.stickiness_policy[0];
        assert_eq!((policy.name.as_deref(), policy.method_name.as_deref(), policy.description.as_deref()), (Some("sticky"), Some("AppCookie"), Some("comes back")));
        assert_eq!(policy.params["request-learn"], "true");
        let told = w.balanced()[0].stickiness.clone().unwrap();
        assert_eq!((told.method.as_str(), told.params["cookie-name"].as_str(), told.params.len()), ("AppCookie", "JSESSIONID", 3));
        assert_eq!(w.stick(&rule, "SourceBased", &[]).await.unwrap_err().code, 431, "one a rule");
        let policy = policy.id.clone().unwrap();
        let message = net::UpdateLbStickinessPolicyRequest { id: Some(policy.clone()), for_display: Some(false), ..Default::default() };
        let shown: net::LbStickiness = job!(w, &w.lab.admin, StickinessPoliciesClient.update(message)).await.unwrap();
        assert_eq!(shown.stickiness_policy[0].for_display, Some(false));
        for named in [w.policies(|m| m.id = Some(policy.clone())).await.unwrap(), w.policies(|m| m.lb_rule_id = Some(rule.clone())).await.unwrap()] {
            assert_eq!((named.count, named.stickiness_policies[0].stickiness_policy.len()), (Some(1), 1));
        }
        assert_eq!(w.policies(|_| ()).await.unwrap_err().code, 431);
        assert!(w.policies(|m| { m.lb_rule_id = Some(rule.clone()); m.for_display = Some(true); }).await.unwrap().stickiness_policies[0].stickiness_policy.is_empty());
        w.unstick(&policy).await.unwrap();
        assert!(w.balanced()[0].stickiness.is_none());
        assert_eq!(w.policies(|m| m.id = Some(policy.clone())).await.unwrap_err().code, 431);

        w.remove(&rule, &[1, 2]).await.unwrap();
        assert_eq!(w.balanced()[0].members, w.guests[2..]);
        w.remove(&rule, &[3]).await.unwrap();
        assert_eq!((w.balanced(), w.one(&rule).await.state.as_deref()), (Vec::new(), Some("Add")));
        w.assign(&rule, &[1]).await.unwrap();
        w.stick(&rule, "LbCookie", &[]).await.unwrap();
        w.delete(&rule).await.unwrap();
        assert_eq!((w.balanced(), w.open()), (Vec::new(), Vec::new()));
        w.nothing_left().await;
        assert_eq!(w.delete(&rule).await.unwrap_err().code, 431);
        for kind in ["LB.CREATE", "LB.DELETE"] {
            testkit::wait_until(async || w.lab.number(&format!("SELECT COUNT(*) FROM outbox WHERE kind = '{kind}'")).await > 0, Duration::from_secs(5)).await;
        }
    }

    /// Several rules on an address, the source NAT address too; ports are taken once, whatever for.
    async fn an_address_has_several_rules(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let web = id(&w.create(80, |_| ()).await.unwrap());
        let tls = id(&w.create(443, |m| m.open_firewall = Some(false)).await.unwrap());
        assert_eq!(w.open(), [80]);
        assert_eq!(w.create(80, |_| ()).await.unwrap_err().code, 537);
        let source_nat = w.lab.text(Sql::new("SELECT uuid FROM ip_addresses WHERE is_source_nat = 1")).await;
        let own = id(&w.create(80, |m| m.public_ip_id = Some(source_nat.clone())).await.unwrap());
        for (rule, vm) in [(&web, 1), (&tls, 2), (&own, 3)] {
            w.assign(rule, &[vm]).await.unwrap();
        }
        let mut ports: Vec<u32> = w.balanced().iter().map(|b| b.public_port).collect();
        ports.sort_unstable();
        assert_eq!(ports, [80, 80, 443]);
        // An offering that gives an address one service: what goes out by it isn't balanced.
        w.lab.write(Sql::new("UPDATE network_offerings SET conserve_mode = 0")).await;
        assert_eq!(w.create(81, |m| m.public_ip_id = Some(source_nat.clone())).await.unwrap_err().code, 431);
        w.create(81, |_| ()).await.unwrap();
        // Many at once for one port: one has it.
        let rivals = join_all((0..6).map(|_| w.create(9000, |_| ()))).await;
        let lost: Vec<u16> = rivals.iter().filter_map(|r| r.as_ref().err()).map(|e| e.code).collect();
        assert_eq!(lost, [537; 5]);

        let by = async |change: &dyn Fn(&mut net::ListLoadBalancerRulesRequest)| {
            w.list(&w.lab.admin, |m| change(m)).await.unwrap().len()
        };
        assert_eq!(by(&|_| ()).await, 5);
        assert_eq!(by(&|m| m.public_ip_id = Some(w.ip.clone())).await, 4);
        assert_eq!(by(&|m| m.virtual_machine_id = Some(vm_uuid(2))).await, 1);
        assert_eq!(by(&|m| m.name = Some("web443".into())).await, 1);
        assert_eq!(by(&|m| m.keyword = Some("WEB8".into())).await, 3);
        assert_eq!(by(&|m| m.zone_id = Some("zone-1".into())).await, 5);
        assert_eq!(by(&|m| m.network_id = Some(w.network.clone())).await, 5);
        assert_eq!(by(&|m| m.for_display = Some(false)).await, 0);
        let stranger = caller(7, RoleType::User, 4, "/1/4/");
        assert!(w.list(&stranger, |_| ()).await.unwrap().is_empty());
        assert!(w.list(&stranger, |m| m.id = Some(web.clone())).await.unwrap().is_empty());
    }

    /// What can't be is refused, and leaves no trace.
    // covers: NET-171
    async fn bad_input_changes_nothing(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let rule = id(&w.create(80, |_| ()).await.unwrap());
        w.assign(&rule, &[1]).await.unwrap();
        let free = w.lab.text(Sql::new("SELECT uuid FROM ip_addresses WHERE state = 'Free' ORDER BY id DESC LIMIT 1")).await;
        // Machines that can't be behind it: of another account, in another network, without a network, going.
        w.lab.machine(4, (5, 2, "/1/2/")).await;
        let (other, _) = w.lab.isolated("10.2.0.1", "255.255.255.0").await;
        w.lab.machine(5, (2, 1, "/1/")).await;
        w.lab.vm(VmJob::deploy(5, other, Some(1))).await.unwrap();
        w.lab.machine(6, (2, 1, "/1/")).await;
        w.lab.machine(7, (2, 1, "/1/")).await;
        w.lab.vm(VmJob::deploy(7, w.number, Some(1))).await.unwrap();
        w.lab.write(Sql::new("UPDATE vms SET state = 'Destroyed' WHERE id = 7")).await;
        w.lab.vm(VmJob { account: (5, 2, "/1/2/".into()), ..VmJob::deploy(4, w.number, Some(1)) }).await.unwrap_err();
        let before = (w.rows().await, w.balanced());

        type Change = fn(&mut net::CreateLoadBalancerRuleRequest);
        let bad: &[Change] = &[
            |m| m.algorithm = Some("foo".into()),
            |m| m.algorithm = None,
            |m| m.name = None,
            |m| m.name = Some(String::new()),
            |m| m.public_port = Some(0),
            |m| m.public_port = Some(65536),
            |m| m.private_port = Some(-1),
            |m| m.private_port = None,
            |m| m.protocol = Some("udp".into()),
            |m| m.protocol = Some("ssl".into()),
            |m| m.cidr_list = vec!["10.0.0.0/33".into()],
            |m| m.cidr_list = vec!["everywhere".into()],
            |m| m.public_ip_id = Some("11111111-2222-4333-8444-555555555555".into()),
            |m| m.public_ip_id = None,
            |m| m.description = Some("x".repeat(4097)),
        ];
        for (i, change) in bad.iter().enumerate() {
            assert_eq!(w.create(81, change).await.unwrap_err().code, 431, "bad input {i}");
        }
        let elsewhere = w.lab.text(Sql::new("SELECT uuid FROM networks WHERE id = ?").bind(other)).await;
        for change in [
            net::CreateLoadBalancerRuleRequest { public_ip_id: None, network_id: Some(elsewhere.clone()), ..w.rule(81) },
            net::CreateLoadBalancerRuleRequest { public_ip_id: None, zone_id: Some("zone-1".into()), ..w.rule(81) },
            net::CreateLoadBalancerRuleRequest { network_id: Some(elsewhere.clone()), ..w.rule(81) },
            net::CreateLoadBalancerRuleRequest { public_ip_id: Some(free.clone()), ..w.rule(81) },
        ] {
            assert_eq!(w.create(81, |m| *m = change).await.unwrap_err().code, 431);
        }
        let stranger = caller(7, RoleType::User, 4, "/1/4/");
        assert_eq!(w.create_as(&stranger, 81, |_| ()).await.unwrap_err().code, 531);

        for (vm, code) in [(1, 431), (4, 431), (5, 431), (6, 431), (7, 431)] {
            assert_eq!(w.assign(&rule, &[2, vm]).await.unwrap_err().code, code, "machine {vm}");
        }
        let foreign = w.assign(&rule, &[4]).await.unwrap_err();
        assert!(foreign.text.contains("different accounts"), "{}", foreign.text);
        assert_eq!(w.assign(&rule, &[]).await.unwrap_err().code, 431);
        let entry = |vm: Option<String>, ip: &str| net::VmIpParam { vm_id: vm, vm_ip: Some(ip.into()) };
        for map in [entry(None, "10.1.1.9"), entry(Some(vm_uuid(2)), "10.1.1.250"), entry(Some(vm_uuid(1)), &w.guests[0])] {
            assert_eq!(w.assign_with(&rule, |m| m.vm_id_ip_map = vec![map]).await.unwrap_err().code, 431);
        }
        let message = net::AssignToLoadBalancerRuleRequest { id: Some(rule.clone()), virtual_machine_ids: vec![vm_uuid(2)], ..Default::default() };
        let refused: Result<Success, ApiError> = job!(w, &stranger, LoadBalancerRulesClient.assign(message)).await;
        assert_eq!(refused.unwrap_err().code, 531);
        assert_eq!(w.remove(&rule, &[2]).await.unwrap_err().code, 431);
        assert_eq!(w.remove(&rule, &[]).await.unwrap_err().code, 431);

        assert_eq!(w.update(&rule, |m| m.algorithm = Some("foo".into())).await.unwrap_err().code, 431);
        assert_eq!(w.update(&rule, |m| m.protocol = Some("udp".into())).await.unwrap_err().code, 431);
        assert_eq!(w.update(&rule, |m| m.custom_id = Some("not-a-uuid".into())).await.unwrap_err().code, 431);
        assert_eq!(w.update("11111111-2222-4333-8444-555555555555", |_| ()).await.unwrap_err().code, 431);

        for (method, params) in [
            ("Sticky", &[][..]),
            ("LbCookie", &[("tablesize", "200k")][..]),
            ("SourceBased", &[("expire", "soon")][..]),
            ("AppCookie", &[("length", "long")][..]),
            ("LbCookie", &[("cookie-name", "a b")][..]),
        ] {
            assert_eq!(w.stick(&rule, method, params).await.unwrap_err().code, 431, "{method} {params:?}");
        }
        assert_eq!((w.rows().await, w.balanced()), before);
    }

    /// A router that can't do it fails the job with its reason, and the change is taken back.
    async fn what_the_router_cannot_do_is_taken_back(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let rule = id(&w.create(80, |_| ()).await.unwrap());
        w.assign(&rule, &[1]).await.unwrap();
        let policy = w.stick(&rule, "SourceBased", &[]).await.unwrap().stickiness_policy[0].id.clone().unwrap();
        let before = (w.rows().await, w.one(&rule).await, w.balanced(), w.open());
        w.lab.hosts.broken.lock().unwrap().insert("load_balancers");
        let mut errors = vec![
            w.create(81, |_| ()).await.unwrap_err(),
            w.assign(&rule, &[2]).await.unwrap_err(),
            w.remove(&rule, &[1]).await.unwrap_err(),
            w.update(&rule, |m| m.algorithm = Some("source".into())).await.unwrap_err(),
            w.unstick(&policy).await.unwrap_err(),
            w.delete(&rule).await.unwrap_err(),
        ];
        let other = w.lab.hosts.broken.lock().unwrap().remove("load_balancers");
        assert!(other);
        // The last undo raised the generation: the router has all of it again once it can.
        w.lab.write(Sql::new("UPDATE routers SET spec_generation = generation + 1, generation = generation + 1")).await;
        w.update(&rule, |m| m.protocol = Some("tcp".into())).await.unwrap();
        w.update(&rule, |m| m.algorithm = Some("roundrobin".into())).await.unwrap();
        for error in errors.drain(..) {
            assert!(error.code == 530 && error.full_text().contains("it is broken"), "{error:?}");
        }
        let after = net::LoadBalancerRule { protocol: None, ..w.one(&rule).await };
        assert_eq!((w.rows().await, after, w.balanced(), w.open()), before);
    }

    /// A machine that goes leaves all rules with its interface; one that only stops stays.
    async fn a_machine_that_goes_leaves_its_rules(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let web = id(&w.create(80, |_| ()).await.unwrap());
        let tls = id(&w.create(443, |_| ()).await.unwrap());
        w.assign(&web, &[1, 2]).await.unwrap();
        w.assign(&tls, &[1]).await.unwrap();
        let one = VmJob::deploy(1, w.number, Some(1));
        w.lab.vm(one.then(What::Stop)).await.unwrap();
        assert_eq!(w.balanced().len(), 2);
        w.lab.vm(one.then(What::Expunge)).await.unwrap();
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM lb_members").await, 1);
        assert_eq!((w.one(&web).await.state.as_deref(), w.one(&tls).await.state.as_deref()), (Some("Active"), Some("Add")));
        w.until_balanced(&[1]).await;
        assert_eq!(w.balanced()[0].members, w.guests[1..2]);
        // Put behind a rule and expunged at the same time: whichever comes first, nothing is left of it.
        let two = VmJob::deploy(2, w.number, Some(1));
        let both = futures::join!(w.assign(&tls, &[2]), w.lab.vm(two.then(What::Expunge)));
        both.1.unwrap();
        if let Err(error) = both.0 {
            assert_eq!(error.code, 431, "{error:?}");
        }
        assert_eq!(w.lab.number("SELECT COUNT(*) FROM lb_members").await, 0);
        w.until_balanced(&[]).await;
        for rule in [&web, &tls] {
            assert_eq!(w.one(rule).await.state.as_deref(), Some("Add"));
        }
    }

    /// Rules go with their address and with their network, and are there again after the router was made anew.
    async fn rules_go_with_what_they_are_of(db: testkit::TestDb) {
        let w = World::new(db.url()).await;
        let first = id(&w.create(80, |_| ()).await.unwrap());
        w.assign(&first, &[1, 2]).await.unwrap();
        w.stick(&first, "SourceBased", &[]).await.unwrap();
        let second = w.acquire().await;
        let other = id(&w.create(80, |m| m.public_ip_id = Some(second.clone())).await.unwrap());
        w.assign(&other, &[3]).await.unwrap();
        let restart = net::RestartNetworkRequest { id: Some(w.network.clone()), cleanup: Some(true), ..Default::default() };
        let _: Success = job!(w, &w.lab.admin, NetworksClient.restart(restart)).await.unwrap();
        w.until_balanced(&[2, 1]).await;

        let release = net::DisassociateIpAddressRequest { id: Some(second), ..Default::default() };
        let _: Success = job!(w, &w.lab.admin, IpAddressesClient.disassociate(release)).await.unwrap();
        assert_eq!(w.balanced().len(), 1);
        assert!(w.list(&w.lab.admin, |m| m.id = Some(other.clone())).await.is_err());
        for vm in 1..=3 {
            w.lab.vm(VmJob::deploy(vm, w.number, Some(1)).then(What::Expunge)).await.unwrap();
        }
        let delete = net::DeleteNetworkRequest { id: Some(w.network.clone()), ..Default::default() };
        let _: Success = job!(w, &w.lab.admin, NetworksClient.delete(delete)).await.unwrap();
        w.nothing_left().await;
        w.lab.audit().await;
    }
}
