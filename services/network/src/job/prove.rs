//! Every job of this service, failed and killed at every point.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../tests/support/mod.rs"]
pub(super) mod support;

use super::{Action, AdminJob, AssociateIp, DeleteNetwork, DisassociateIp, RestartNetwork, UpdateNetwork, register};
use crate::network::change::Wish;
use crate::store::ips::{self, Taking};
use crate::world::World;
use contract::ApiError;
use jobs::harness::{Scenario, Start, prove};
use jobs::{Accept, Job, Jobs};
use node::Node;
use std::time::Duration;
use store::{Db, Sql};
use support::{Lab, VmJob, What};

/// Which job, on a network that runs with one VM (for Delete: without) and one address beside its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Admin,
    Update,
    Delete,
    Restart,
    Cleanup,
    Associate,
    Disassociate,
}

struct Proving(Which);

struct Made {
    lab: Lab,
    network: i64,
    free: i64,
    held: i64,
    /// Key of its reservation.
    limit: String,
    _dir: testkit::TestDb,
}

const FREE: &str = "SELECT MAX(id) FROM ip_addresses WHERE state = 'Free'";

async fn accept<J: Job>(made: &Made, jobs: &Jobs, job: J, taken: Option<&str>) -> Result<String, ApiError> {
    let ticket = jobs.ticket().await?;
    let uuid = ticket.uuid().to_owned();
    let owner = model::Owner::caller(&made.lab.admin);
    let accept = Accept {
        job,
        caller: made.lab.admin.clone(),
        command: None,
        owner: owner.clone(),
        instance: None,
        claims: Vec::new(),
        custom_id: None,
        description: "proving".into(),
        entity_id: None,
    };
    store::tx!(made.lab.db, "accept", |tx| {
        if let Some(holder) = taken {
            let network_id = made.network;
            let taking =
                Taking { owner: &owner, network_id, source_nat: false, state: "Allocating", display: true, holder };
            assert!(ips::take(tx, made.free, &taking).await?);
        }
        jobs.accept(tx, ticket.clone(), accept.clone()).await.map(drop)
    })
    .await?;
    Ok(uuid)
}

/// One more replica beside the lab's, with the faults of a scenario.
pub(super) fn replica(lab: &Lab, start: Start) -> Jobs {
    let node = Node { replica: start.replica.clone(), coord: start.coord.clone(), ..lab.replicas[0].node.clone() };
    let builder = Jobs::builder(start.db, start.coord, "proving", start.replica).faults(start.faults).pace(start.pace);
    let world = World::new(node, builder.handle());
    register(builder, &world).start(start.stop, &start.tasks)
}

impl Scenario for Proving {
    type World = Made;

    async fn world(&self) -> Made {
        let dir = testkit::TestDb::sqlite();
        let lab = Lab::new(dir.url()).await;
        lab.zone("100-1500", "192.168.0.9").await;
        let (network, _) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        let vm = VmJob::deploy(1, network, Some(1));
        lab.vm(vm.clone()).await.unwrap();
        if self.0 == Which::Delete {
            lab.vm(vm.then(What::Expunge)).await.unwrap();
        }
        // An address that the network has beside its own.
        let held = lab.number(FREE).await;
        lab.write(
            Sql::new(
                "UPDATE ip_addresses SET state = 'Allocated', network_id = ?, account_id = 2, domain_id = 1, domain_path = '/1/', \
                 holder = 'h' WHERE id = ?",
            )
            .bind(network)
            .bind(held),
        )
        .await;
        lab.write(Sql::new("UPDATE routers SET spec_generation = generation + 1, generation = generation + 1")).await;
        let free = lab.number(FREE).await;
        let uuid = lab.text(Sql::new("SELECT uuid FROM ip_addresses WHERE id = ?").bind(held)).await;
        let limit = ips::limit_key(&uuid, "h");
        lab.counts.0.lock().unwrap().held.insert(limit.clone(), (2, 1));
        let made = Made { lab, network, free, held, limit, _dir: dir };
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
        replica(&made.lab, start)
    }

    async fn submit(&self, made: &Made, jobs: &Jobs) -> Result<String, ApiError> {
        let id = made.network;
        match self.0 {
            Which::Admin => {
                let physical = made.lab.number("SELECT id FROM physical_networks").await;
                let vlan = Some("100-1600".to_owned());
                let action =
                    Action::UpdatePhysical { id: physical, state: None, vlan, speed: Some("10G".into()), tags: None };
                accept(made, jobs, AdminJob { action }, None).await
            }
            Which::Update => {
                let wish =
                    Wish { name: Some("other".into()), network_domain: Some("corp.example".into()), ..Wish::default() };
                accept(made, jobs, UpdateNetwork { id, wish, offering: None }, None).await
            }
            Which::Delete => accept(made, jobs, DeleteNetwork { id }, None).await,
            Which::Restart => accept(made, jobs, RestartNetwork { id, cleanup: false }, None).await,
            Which::Cleanup => accept(made, jobs, RestartNetwork { id, cleanup: true }, None).await,
            Which::Associate => {
                let limit = "ip:proving".to_owned();
                made.lab.counts.0.lock().unwrap().held.insert(limit.clone(), (2, 1));
                accept(made, jobs, AssociateIp { id: made.free, network: id, limit }, Some("proving")).await
            }
            Which::Disassociate => {
                accept(made, jobs, DisassociateIp { id: made.held, network: id, limit: Some(made.limit.clone()) }, None)
                    .await
            }
        }
    }

    async fn look(&self, made: &Made) -> String {
        let lab = &made.lab;
        let mut told = Vec::new();
        for sql in [
            "SELECT COUNT(*) FROM networks WHERE is_system = 0 AND removed IS NULL AND name = 'other'",
            "SELECT COUNT(*) FROM networks WHERE is_system = 0 AND removed IS NULL AND state = 'Implemented'",
            "SELECT COUNT(*) FROM physical_networks WHERE speed = '10G'",
            "SELECT COUNT(*) FROM ip_addresses WHERE state = 'Allocated'",
            "SELECT COUNT(*) FROM ip_addresses WHERE state IN ('Allocating', 'Releasing')",
            "SELECT COUNT(*) FROM nics WHERE removed IS NULL",
            "SELECT COUNT(*) FROM routers WHERE removed IS NULL AND state = 'Running'",
            "SELECT COUNT(*) FROM vnets",
        ] {
            told.push(lab.number(sql).await.to_string());
        }
        let hosts: Vec<String> = lab
            .hosts
            .all()
            .iter()
            .map(|(_, _, r)| {
                let addresses: usize = r.spec.interfaces.iter().flat_map(|i| &i.list).map(|i| i.addresses.len()).sum();
                let domain = r.spec.dhcp.as_ref().map(|d| d.domain.clone()).unwrap_or_default();
                format!("router with {} leases, {addresses} addresses, domain {domain}", r.leases.len())
            })
            .collect();
        format!(
            "{}; {}; {} networks counted, {} addresses",
            told.join(" "),
            hosts.join(", "),
            lab.counts.of(6),
            lab.counts.of(1)
        )
    }

    async fn look_ended(&self, made: &Made) -> String {
        settle(made).await;
        self.look(made).await
    }

    fn may_fail_as(&self, before: &str, succeeded: &str, after: &str) -> bool {
        match self.0 {
            // Their last step is the point of no return: what is written stays, whoever is told of a failure.
            Which::Update | Which::Delete | Which::Disassociate => after == before || after == succeeded,
            _ => after == before,
        }
    }
}

/// Lets routers and hosts reach what is wanted of them.
async fn settle(made: &Made) {
    let lab = &made.lab;
    testkit::wait_until(
        async || {
            for id in lab
                .db
                .all(Sql::new("SELECT id FROM routers WHERE removed IS NULL AND applied < generation"))
                .await
                .unwrap()
            {
                lab.replicas[0].node.coord.publish("placement", "host/1");
                lab.replicas[0].node.coord.publish("placement", "host/2");
                let _: i64 = id.at(0).unwrap();
            }
            lab.number(
                "SELECT COUNT(*) FROM routers WHERE removed IS NULL AND (applied < generation OR state <> 'Running')",
            )
            .await
                == 0
                && left(lab).await
                && i64::try_from(lab.counts.of(1)).unwrap()
                    == lab.number("SELECT COUNT(*) FROM ip_addresses WHERE state = 'Allocated'").await
        },
        Duration::from_secs(20),
    )
    .await;
}

/// Whether hosts have dropped what is gone.
async fn left(lab: &Lab) -> bool {
    if lab.number("SELECT COUNT(*) FROM router_leftovers").await == 0 {
        return true;
    }
    lab.replicas[0].node.coord.publish("placement", "host/1");
    false
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
    changing_a_physical_network: Admin ["finish"];
    changing_a_network: Update ["update"];
    deleting_a_network: Delete ["destroy"];
    restarting_a_network: Restart ["restart"];
    restarting_a_network_anew: Cleanup ["stopping", "restart"];
    acquiring_an_address: Associate ["associate"];
    releasing_an_address: Disassociate ["release", "free"];
}
