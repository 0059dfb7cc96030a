//! Every job of load balancing, failed and killed at every point.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::balance::{
    Assign, Change, CreateBalancer, CreatePolicy, DeleteBalancer, DeletePolicy, Unassign, UpdateBalancer, UpdatePolicy,
};
use super::prove::support::{Lab, VmJob};
use crate::rule::{self, Purpose, RuleState, Traffic};
use crate::store::balancers::{self, Balancer, Says};
use crate::store::members::{self, Member};
use crate::store::rules::{self, Rule};
use crate::store::stickiness::{self, Policy};
use contract::ApiError;
use jobs::harness::{Scenario, Start, prove};
use jobs::{Accept, Job, Jobs};
use std::collections::BTreeMap;
use std::time::Duration;
use store::{Db, Sql, Tx};

/// Which job, on a network that runs with two VMs and a rule with the first one behind it and a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Create,
    Update,
    Delete,
    Assign,
    Unassign,
    Stick,
    Restick,
    Unstick,
}

struct Proving(Which);

struct Made {
    lab: Lab,
    network: i64,
    ip: i64,
    guests: Vec<Member>,
    _dir: testkit::TestDb,
}

const OLD: i64 = 900;
const NEW: i64 = 910;

fn balancer(made: &Made, id: i64, port: i64, state: RuleState) -> Balancer {
    let uuid = format!("00000000-0000-4000-9000-{id:012}");
    Balancer {
        rule: Rule {
            id,
            uuid: uuid.clone(),
            purpose: Purpose::LoadBalancing,
            traffic: Traffic::Ingress,
            state,
            ip_id: Some(made.ip),
            network_id: made.network,
            protocol: "tcp".into(),
            start_port: Some(port),
            end_port: Some(port),
            icmp_type: None,
            icmp_code: None,
            cidrs: Vec::new(),
            dest_cidrs: Vec::new(),
            related_id: None,
            target: None,
            display: true,
            system: false,
            owner: model::Owner::caller(&made.lab.admin),
        },
        says: Says {
            name: format!("rule{id}"),
            description: None,
            algorithm: "roundrobin".into(),
            protocol: None,
            display: true,
            uuid,
        },
        private_port: 8080,
        public_ip: (String::new(), String::new()),
        zone_id: 1,
    }
}

fn policy(made: &Made, rule: i64, state: &str) -> Policy {
    Policy {
        id: rule,
        uuid: format!("00000000-0000-4000-a000-{rule:012}"),
        rule_id: rule,
        name: "sticky".into(),
        description: None,
        method: "SourceBased".into(),
        params: BTreeMap::from([("expire".to_owned(), "5m".to_owned())]),
        state: state.to_owned(),
        display: true,
        owner: model::Owner::caller(&made.lab.admin),
    }
}

/// A rule with the firewall rule that lets clients in.
async fn write(tx: &mut Tx, b: &Balancer) -> Result<(), ApiError> {
    let opened = rule::open_firewall(b.rule.id + 1, &b.rule, &[], &[]);
    rules::insert(tx, &b.rule).await?;
    if let Some(opened) = opened {
        let state = if b.rule.state == RuleState::Staged { RuleState::Staged } else { RuleState::Active };
        rules::insert(tx, &Rule { state, ..opened }).await?;
    }
    Ok(balancers::insert(tx, b).await?)
}

impl Made {
    /// Accepts a job in one commit with what its handler writes.
    async fn accept<J: Job>(
        &self,
        jobs: &Jobs,
        job: J,
        new: &[Balancer],
        policies: &[Policy],
    ) -> Result<String, ApiError> {
        let ticket = jobs.ticket().await?;
        let uuid = ticket.uuid().to_owned();
        let accept = Accept {
            job,
            caller: self.lab.admin.clone(),
            command: None,
            owner: model::Owner::caller(&self.lab.admin),
            instance: None,
            claims: Vec::new(),
            custom_id: None,
            description: "proving".into(),
            entity_id: None,
        };
        store::tx!(self.lab.db, "accept", |tx| {
            for balancer in new {
                write(tx, balancer).await?;
            }
            for policy in policies {
                stickiness::insert(tx, policy).await?;
            }
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
        for vm in [1, 2] {
            lab.machine(vm, (2, 1, "/1/")).await;
            let ip = Some(format!("10.2.0.{}", 10 + vm));
            lab.vm(VmJob { ip, ..VmJob::deploy(vm, network, Some(1)) }).await.unwrap();
        }
        let ip = lab.number("SELECT id FROM ip_addresses WHERE is_source_nat = 1").await;
        let mut made = Made { lab, network, ip, guests: Vec::new(), _dir: dir };
        let nics =
            made.lab.db.all(Sql::new("SELECT id, vm_id, ip FROM nics WHERE vm_id IS NOT NULL ORDER BY vm_id")).await;
        for (n, row) in (1i64..).zip(nics.unwrap()) {
            let (nic_id, vm_id, ip) = (row.at(0).unwrap(), row.at(1).unwrap(), row.at(2).unwrap());
            made.guests.push(Member { id: n, rule_id: OLD, vm_id, nic_id, ip });
        }
        let old = balancer(&made, OLD, 80, RuleState::Active);
        store::tx!(made.lab.db, "old", |tx| {
            write(tx, &old).await?;
            members::insert(tx, &made.guests[..1]).await?;
            members::set_state(tx, &[1], &[members::ADD], members::ACTIVE).await?;
            if self.0 != Which::Stick {
                stickiness::insert(tx, &policy(&made, OLD, stickiness::ACTIVE)).await?;
            }
            Ok::<_, ApiError>(())
        })
        .await
        .unwrap();
        made.lab
            .write(Sql::new("UPDATE routers SET spec_generation = generation + 1, generation = generation + 1"))
            .await;
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
        match self.0 {
            Which::Create => {
                let new = balancer(made, NEW, 443, RuleState::Staged);
                made.accept(jobs, CreateBalancer { id: NEW, network }, &[new], &[]).await
            }
            Which::Update => {
                let change =
                    Change { name: Some("other".into()), algorithm: Some("source".into()), ..Change::default() };
                made.accept(jobs, UpdateBalancer { id: OLD, network, change }, &[], &[]).await
            }
            Which::Delete => made.accept(jobs, DeleteBalancer { id: OLD, network }, &[], &[]).await,
            Which::Assign => {
                let members = made.guests[1..].to_vec();
                made.accept(jobs, Assign { rule: OLD, network, members }, &[], &[]).await
            }
            Which::Unassign => made.accept(jobs, Unassign { rule: OLD, network, members: vec![1] }, &[], &[]).await,
            Which::Stick => {
                let new = policy(made, OLD, stickiness::STAGED);
                made.accept(jobs, CreatePolicy { id: OLD, rule: OLD, network }, &[], &[new]).await
            }
            Which::Restick => {
                made.accept(jobs, UpdatePolicy { id: OLD, display: Some(false), uuid: None }, &[], &[]).await
            }
            Which::Unstick => made.accept(jobs, DeletePolicy { id: OLD, network }, &[], &[]).await,
        }
    }

    async fn look(&self, made: &Made) -> String {
        let lab = &made.lab;
        let mut told = Vec::new();
        for sql in [
            "SELECT COALESCE(GROUP_CONCAT(x, ' '), '') FROM (SELECT purpose || state || id AS x FROM firewall_rules ORDER BY id) t",
            "SELECT COALESCE(GROUP_CONCAT(x, ' '), '') FROM (SELECT name || algorithm || rule_id AS x FROM load_balancers ORDER BY rule_id) t",
            "SELECT COALESCE(GROUP_CONCAT(x, ' '), '') FROM (SELECT ip || state AS x FROM lb_members ORDER BY id) t",
            "SELECT COALESCE(GROUP_CONCAT(x, ' '), '') FROM (SELECT name || state || display AS x FROM lb_stickiness ORDER BY id) t",
        ] {
            told.push(lab.text(Sql::new(sql)).await);
        }
        for (_, _, router) in lab.hosts.all() {
            for b in router.spec.load_balancers.unwrap_or_default().list {
                let stickiness = b.stickiness.map(|s| s.method).unwrap_or_default();
                told.push(format!("{} {} {} {stickiness}", b.public_port, b.algorithm, b.members.join(",")));
            }
            let open = router.spec.firewall.unwrap_or_default().ingress;
            told.push(open.iter().filter_map(|r| r.start_port).map(|p| p.to_string()).collect::<Vec<_>>().join(","));
        }
        told.join("; ")
    }

    async fn look_ended(&self, made: &Made) -> String {
        settle(made).await;
        self.look(made).await
    }
}

/// Lets the router reach what is wanted of it.
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
    creating_a_balancer: Create ["apply"];
    changing_a_balancer: Update ["change"];
    deleting_a_balancer: Delete ["revoke"];
    putting_a_vm_behind: Assign ["assign"];
    taking_a_vm_out: Unassign ["revoke"];
    creating_a_policy: Stick ["apply"];
    changing_a_policy: Restick [];
    deleting_a_policy: Unstick ["revoke"];
}
