//! Every job of rules and addresses with rules, failed and killed at every point.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::prove::support::{Lab, VmJob, vm_uuid};
use super::{
    CreateRule, DeleteRule, DisableStaticNat, DisassociateIp, EnableStaticNat, Shown, UpdateForward, UpdateIp,
    UpdateRule,
};
use crate::rule::{self, Purpose, RuleState, Traffic};
use crate::store::ips;
use crate::store::rules::{self, Rule, Target};
use contract::ApiError;
use jobs::harness::{Scenario, Start, prove};
use jobs::{Accept, Job, Jobs};
use model::Owner;
use std::time::Duration;
use store::{Db, Sql};

/// Which job, on a network that runs with two machines. `held` has a forwarding rule with its firewall rule, `standing`
/// has static NAT with an IP forwarding rule and its firewall rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Create,
    CreateEgress,
    CreateIpForwarding,
    Delete,
    Update,
    Forward,
    Enable,
    Disable,
    UpdateIp,
    Disassociate,
    DisassociateStanding,
}

struct Proving(Which);

struct Made {
    lab: Lab,
    network: i64,
    guests: [String; 2],
    held: i64,
    standing: i64,
    limits: [String; 2],
    _dir: testkit::TestDb,
}

impl Made {
    fn owner(&self) -> Owner {
        Owner::caller(&self.lab.admin)
    }

    fn rule(&self, id: i64, purpose: Purpose, ip: Option<i64>, port: i64) -> Rule {
        Rule {
            id,
            uuid: format!("rule-{id}"),
            purpose,
            traffic: if ip.is_some() { Traffic::Ingress } else { Traffic::Egress },
            state: RuleState::Staged,
            ip_id: ip,
            network_id: self.network,
            protocol: "tcp".into(),
            start_port: Some(port),
            end_port: Some(port),
            icmp_type: None,
            icmp_code: None,
            cidrs: vec!["10.0.0.0/8".into()],
            dest_cidrs: Vec::new(),
            related_id: None,
            target: None,
            display: true,
            system: false,
            owner: self.owner(),
        }
    }

    fn forward(&self, id: i64, port: i64) -> Rule {
        let target = Target { vm_id: 1, ip: self.guests[0].clone(), start_port: 22, end_port: 22 };
        Rule { target: Some(target), ..self.rule(id, Purpose::PortForwarding, Some(self.held), port) }
    }

    fn opened(&self, id: i64, of: &Rule) -> Rule {
        rule::open_firewall(id, of, &[], &[]).map(|r| Rule { uuid: format!("rule-{id}"), ..r }).unwrap()
    }

    /// Rules that are in force.
    async fn place(&self, new: &[Rule]) {
        store::tx!(self.lab.db, "place", |tx| {
            rule::place(tx, self.network, true, new).await?;
            let ids: Vec<i64> = new.iter().map(|r| r.id).collect();
            rules::set_state(tx, &ids, &[RuleState::Staged], RuleState::Active).await?;
            Ok::<_, ApiError>(())
        })
        .await
        .unwrap();
    }

    async fn accept<J: Job>(&self, jobs: &Jobs, job: J, new: &[Rule]) -> Result<String, ApiError> {
        let ticket = jobs.ticket().await?;
        let uuid = ticket.uuid().to_owned();
        let accept = Accept {
            job,
            caller: self.lab.admin.clone(),
            command: None,
            owner: self.owner(),
            instance: None,
            claims: Vec::new(),
            custom_id: None,
            description: "proving".into(),
            entity_id: None,
        };
        store::tx!(self.lab.db, "accept", |tx| {
            rule::place(tx, self.network, true, new).await?;
            jobs.accept(tx, ticket.clone(), accept.clone()).await.map(drop)
        })
        .await?;
        Ok(uuid)
    }
}

impl Scenario for Proving {
    type World = Made;

    async fn world(&self) -> Made {
        let dir = testkit::TestDb::sqlite();
        let lab = Lab::new(dir.url()).await;
        lab.zone("100-1500", "192.168.0.9").await;
        let (network, _) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        let mut guests = Vec::new();
        for vm in [1, 2] {
            lab.machine(vm, (2, 1, "/1/")).await;
            let job = VmJob { ip: Some(format!("10.2.0.{}", 10 + vm)), ..VmJob::deploy(vm, network, Some(1)) };
            guests.push(lab.vm(job).await.unwrap().nics[0].ip4.clone());
        }
        let mut given = Vec::new();
        for holder in ["h", "s"] {
            let ip = lab.number("SELECT MAX(id) FROM ip_addresses WHERE state = 'Free'").await;
            let sql = "UPDATE ip_addresses SET state = 'Allocated', network_id = ?, account_id = 2, domain_id = 1, \
                       domain_path = '/1/', holder = ? WHERE id = ?";
            lab.write(Sql::new(sql).bind(network).bind(holder).bind(ip)).await;
            let uuid = lab.text(Sql::new("SELECT uuid FROM ip_addresses WHERE id = ?").bind(ip)).await;
            let limit = ips::limit_key(&uuid, holder);
            lab.counts.0.lock().unwrap().held.insert(limit.clone(), (2, 1));
            given.push((ip, limit));
        }
        let made = Made {
            lab,
            network,
            guests: guests.try_into().unwrap(),
            held: given[0].0,
            standing: given[1].0,
            limits: [given[0].1.clone(), given[1].1.clone()],
            _dir: dir,
        };
        let forward = made.forward(901, 2222);
        made.place(&[forward.clone(), made.opened(902, &forward)]).await;
        if self.0 != Which::Enable {
            let sql = "UPDATE ip_addresses SET is_static_nat = 1, vm_id = 2, vm_ip = ? WHERE id = ?";
            made.lab.write(Sql::new(sql).bind(&made.guests[1]).bind(made.standing)).await;
            let ports = made.rule(903, Purpose::StaticNat, Some(made.standing), 80);
            made.place(&[ports.clone(), made.opened(904, &ports)]).await;
        }
        let raise = "UPDATE routers SET spec_generation = generation + 1, generation = generation + 1";
        made.lab.write(Sql::new(raise)).await;
        settle(&made).await;
        made
    }

    fn db<'w>(&self, made: &'w Made) -> &'w Db {
        &made.lab.db
    }

    fn service(&self) -> &'static str {
        "proving"
    }

    async fn start(&self, made: &Made, start: Start) -> Jobs {
        super::prove::replica(&made.lab, start)
    }

    async fn submit(&self, made: &Made, jobs: &Jobs) -> Result<String, ApiError> {
        let network = made.network;
        let create = |related, shown| CreateRule { id: 911, related, network, zone: 1, shown };
        let uuid = Some("11111111-2222-4333-8444-555555555555".to_owned());
        match self.0 {
            Which::Create => {
                let rule = made.forward(911, 3333);
                let opened = made.opened(912, &rule);
                made.accept(jobs, create(Some(912), Shown::PortForwarding), &[rule, opened]).await
            }
            Which::CreateEgress => {
                let rule = made.rule(911, Purpose::Firewall, None, 22);
                made.accept(jobs, create(None, Shown::Firewall), &[rule]).await
            }
            Which::CreateIpForwarding => {
                let rule = made.rule(911, Purpose::StaticNat, Some(made.standing), 443);
                let opened = made.opened(912, &rule);
                made.accept(jobs, create(Some(912), Shown::IpForwarding), &[rule, opened]).await
            }
            Which::Delete => {
                made.accept(jobs, DeleteRule { id: 901, network, zone: 1, shown: Shown::PortForwarding }, &[]).await
            }
            Which::Update => made.accept(jobs, UpdateRule { id: 902, display: Some(false), uuid }, &[]).await,
            Which::Forward => {
                let machine = Some((2, made.guests[1].clone()));
                let job = UpdateForward {
                    id: 901,
                    network,
                    zone: 1,
                    machine,
                    ports: Some((23, 23)),
                    display: Some(false),
                    uuid,
                };
                made.accept(jobs, job, &[]).await
            }
            Which::Enable => {
                let job = EnableStaticNat {
                    ip: made.standing,
                    network,
                    vm: 2,
                    vm_ip: made.guests[1].clone(),
                    owner: made.owner(),
                    text: "proving".into(),
                    aside: false,
                };
                made.accept(jobs, job, &[]).await
            }
            Which::Disable => made.accept(jobs, DisableStaticNat { ip: made.standing, network, zone: 1 }, &[]).await,
            Which::UpdateIp => made.accept(jobs, UpdateIp { id: made.held, display: Some(false), uuid }, &[]).await,
            Which::Disassociate => {
                let limit = Some(made.limits[0].clone());
                made.accept(jobs, DisassociateIp { id: made.held, network, limit }, &[]).await
            }
            Which::DisassociateStanding => {
                let limit = Some(made.limits[1].clone());
                made.accept(jobs, DisassociateIp { id: made.standing, network, limit }, &[]).await
            }
        }
    }

    async fn look(&self, made: &Made) -> String {
        let lab = &made.lab;
        let rules = "SELECT id || ' ' || purpose || ' ' || state || ' ' || COALESCE(vm_ip, '-') || ':' || COALESCE(vm_start_port, 0) || \
                     ' ' || display || ' ' || uuid FROM firewall_rules ORDER BY id";
        let mut told: Vec<String> =
            lab.db.all(Sql::new(rules)).await.unwrap().iter().map(|r| r.at(0).unwrap()).collect();
        let addresses = "SELECT holder || ' ' || state || ' ' || is_static_nat || ' ' || COALESCE(vm_ip, '-') || ' ' || display || ' ' || \
                         CASE WHEN uuid LIKE '11111111-%' THEN 'ours' ELSE 'its own' END FROM ip_addresses WHERE state <> 'Free' AND is_source_nat = 0 ORDER BY holder";
        told.extend(lab.db.all(Sql::new(addresses)).await.unwrap().iter().map(|r| r.at::<String>(0).unwrap()));
        for (_, _, router) in lab.hosts.all() {
            let (nat, firewall) = (router.spec.nat.unwrap(), router.spec.firewall.unwrap());
            told.extend(nat.forwards.iter().map(|f| format!("forward {} {}", f.public_start, f.guest_ip)));
            told.extend(nat.static_nats.iter().map(|s| format!("static {}", s.guest_ip)));
            let ports =
                |rules: &[contract_agent::FirewallRule]| rules.iter().filter_map(|r| r.start_port).collect::<Vec<_>>();
            told.push(format!("open {:?}, out {:?}", ports(&firewall.ingress), ports(&firewall.egress)));
        }
        told.push(format!("{} addresses counted", lab.counts.of(1)));
        told.join("\n")
    }

    async fn look_ended(&self, made: &Made) -> String {
        settle(made).await;
        self.look(made).await
    }

    fn may_fail_as(&self, before: &str, succeeded: &str, after: &str) -> bool {
        match self.0 {
            // Once the address is free there is no way back, whoever is told of a failure.
            Which::Disassociate | Which::DisassociateStanding => after == before || after == succeeded,
            _ => after == before,
        }
    }
}

/// Lets the router and its host reach what is wanted of them.
async fn settle(made: &Made) {
    let lab = &made.lab;
    testkit::wait_until(
        async || {
            lab.replicas[0].node.coord.publish("placement", "host/1");
            lab.number(
                "SELECT COUNT(*) FROM routers WHERE removed IS NULL AND (applied < generation OR state <> 'Running')",
            )
            .await
                == 0
                && i64::try_from(lab.counts.of(1)).unwrap()
                    == lab.number("SELECT COUNT(*) FROM ip_addresses WHERE state = 'Allocated'").await
        },
        Duration::from_secs(20),
    )
    .await;
}

macro_rules! proofs {
    ($($name:ident: $which:ident $steps:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let proof = prove(&Proving(Which::$which), &$steps).await.unwrap();
            assert!(proof.runs > 5, "{proof:?}");
        })*
    };
}
proofs! {
    forwarding_a_port: Create ["want"];
    making_an_egress_rule: CreateEgress ["want"];
    opening_a_port_of_a_machine: CreateIpForwarding ["want"];
    deleting_a_rule: Delete ["revoke"];
    changing_how_a_rule_is_shown: Update ["finish"];
    forwarding_to_another_machine: Forward ["target"];
    making_an_address_stand_for_a_machine: Enable ["enable"];
    making_it_stand_for_nobody: Disable ["disable"];
    changing_how_an_address_is_shown: UpdateIp ["finish"];
    releasing_an_address_with_forwarding: Disassociate ["release", "free"];
    releasing_an_address_with_static_nat: DisassociateStanding ["release", "free"];
}

/// A machine that goes while a job on its rules runs: nothing of it stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_goes_meanwhile_leaves_nothing() {
    use super::prove::support::What;
    for (which, broken) in [(Which::Disable, "nat"), (Which::Forward, "nat"), (Which::Delete, "nat")] {
        let proving = Proving(which);
        let made = proving.world().await;
        let start = Start {
            db: made.lab.db.clone(),
            coord: made.lab.replicas[0].node.coord.clone(),
            replica: "meanwhile".into(),
            faults: std::sync::Arc::default(),
            pace: jobs::Pace::default(),
            stop: made.lab.replicas[0].node.stop.clone(),
            tasks: made.lab.replicas[0].node.tasks.clone(),
        };
        let jobs = proving.start(&made, start).await;
        // The host doesn't answer until the machine is gone, and then can't: the job is undone after its end.
        made.lab.hosts.silent.lock().unwrap().insert(1);
        let uuid = proving.submit(&made, &jobs).await.unwrap();
        let changed = match which {
            Which::Disable => "SELECT COUNT(*) FROM ip_addresses WHERE is_static_nat <> 0",
            Which::Forward => "SELECT COUNT(*) FROM firewall_rules WHERE id = 901 AND state = 'Active'",
            _ => "SELECT COUNT(*) FROM firewall_rules WHERE id = 901 AND state <> 'Revoke'",
        };
        testkit::wait_until(async || made.lab.number(changed).await == 0, Duration::from_secs(10)).await;
        let vm = if which == Which::Disable { 2 } else { 1 };
        made.lab.vm(VmJob::deploy(vm, made.network, Some(1)).then(What::Expunge)).await.unwrap();
        assert_eq!(made.lab.text(Sql::new("SELECT uuid FROM vms WHERE id = ?").bind(vm)).await, vm_uuid(vm));
        made.lab.hosts.broken.lock().unwrap().insert(broken);
        made.lab.hosts.silent.lock().unwrap().clear();
        let end = tokio::time::timeout(Duration::from_secs(60), jobs.end_of(&uuid)).await.unwrap().unwrap();
        assert!(end.output::<contract::api::Success>().is_err() || which == Which::Delete, "{which:?}");
        made.lab.hosts.broken.lock().unwrap().clear();
        let left = format!("SELECT COUNT(*) FROM firewall_rules WHERE vm_id = {vm}");
        assert_eq!(made.lab.number(&left).await, 0, "{which:?}");
        let standing = format!("SELECT COUNT(*) FROM ip_addresses WHERE vm_id = {vm}");
        assert_eq!(made.lab.number(&standing).await, 0, "{which:?}");
        assert_eq!(
            made.lab.number("SELECT COUNT(*) FROM firewall_rules WHERE state <> 'Active'").await,
            0,
            "{which:?}"
        );
    }
}
