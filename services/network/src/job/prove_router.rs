//! The jobs of routers that go down and up, failed and killed at every point.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::prove::support::{Lab, VmJob};
use super::{Power, PowerRouter};
use contract::ApiError;
use contract_network::routers_client::RoutersClient;
use contract_network::{Router, StopRouterRequest};
use jobs::harness::{Scenario, Start, prove};
use jobs::{Accept, Jobs};
use std::time::Duration;
use store::{Db, Sql};

/// On the router of a network with one machine; Start: on one that was stopped before.
struct Proving(Power);

struct Made {
    lab: Lab,
    network: i64,
    router: i64,
    _dir: testkit::TestDb,
}

impl Scenario for Proving {
    type World = Made;

    async fn world(&self) -> Made {
        let dir = testkit::TestDb::sqlite();
        let lab = Lab::new(dir.url()).await;
        lab.zone("100-1500", "192.168.0.9").await;
        let (network, _) = lab.isolated("10.2.0.1", "255.255.255.0").await;
        lab.vm(VmJob::deploy(1, network, Some(1))).await.unwrap();
        let router = lab.number("SELECT id FROM routers").await;
        if self.0 == Power::Start {
            let id = Some(lab.text(Sql::new("SELECT uuid FROM routers")).await);
            let message = StopRouterRequest { id, ..StopRouterRequest::default() };
            let job = RoutersClient::new(lab.channel()).stop(rpc::cx::request(&lab.admin, message)).await.unwrap();
            lab.end::<Router>(job.into_inner()).await.unwrap();
        }
        let made = Made { lab, network, router, _dir: dir };
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
        let ticket = jobs.ticket().await?;
        let uuid = ticket.uuid().to_owned();
        let accept = Accept {
            job: PowerRouter { id: made.router, network: made.network, power: self.0 },
            caller: made.lab.admin.clone(),
            command: None,
            owner: model::Owner::caller(&made.lab.admin),
            instance: None,
            claims: Vec::new(),
            custom_id: None,
            description: "proving".into(),
            entity_id: None,
        };
        store::tx!(made.lab.db, "accept", |tx| jobs.accept(tx, ticket.clone(), accept.clone()).await.map(drop)).await?;
        Ok(uuid)
    }

    async fn look(&self, made: &Made) -> String {
        let lab = &made.lab;
        let rows = "SELECT id || ' ' || state || CASE WHEN host_id IS NULL THEN ' nowhere' ELSE ' somewhere' END || \
                    CASE WHEN removed IS NULL THEN '' ELSE ' removed' END FROM routers ORDER BY id";
        let mut told: Vec<String> =
            lab.db.all(Sql::new(rows)).await.unwrap().iter().map(|r| r.at(0).unwrap()).collect();
        told.push(lab.text(Sql::new("SELECT state FROM networks WHERE id = ?").bind(made.network)).await);
        for sql in ["SELECT COUNT(*) FROM nics WHERE removed IS NULL", "SELECT COUNT(*) FROM vnets"] {
            told.push(lab.number(sql).await.to_string());
        }
        told.extend(lab.hosts.all().iter().map(|(_, _, r)| format!("router with {} leases", r.leases.len())));
        told.join("\n")
    }

    async fn look_ended(&self, made: &Made) -> String {
        settle(made).await;
        self.look(made).await
    }

    fn may_fail_as(&self, before: &str, succeeded: &str, after: &str) -> bool {
        // One that runs by then is left running, whoever is told of a failure.
        after == before || (self.0 == Power::Start && after == succeeded)
    }
}

/// Lets the router and its host reach what is wanted of them.
async fn settle(made: &Made) {
    let lab = &made.lab;
    testkit::wait_until(
        async || {
            lab.replicas[0].node.coord.publish("placement", "host/1");
            let moving = "SELECT COUNT(*) FROM routers WHERE removed IS NULL AND (state IN ('Starting', 'Stopping') OR \
                          (state = 'Running' AND applied < generation))";
            lab.number(moving).await == 0 && lab.number("SELECT COUNT(*) FROM router_leftovers").await == 0
        },
        Duration::from_secs(60),
    )
    .await;
}

macro_rules! proofs {
    ($($name:ident: $power:expr, $steps:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let proof = prove(&Proving($power), &$steps).await.unwrap();
            assert!(proof.runs > 5, "{proof:?}");
        })*
    };
}
proofs! {
    starting_a_router: Power::Start, ["starting"];
    stopping_a_router: Power::Stop { forced: false }, ["stopping"];
    stopping_a_router_by_force: Power::Stop { forced: true }, ["stopping"];
    rebooting_a_router: Power::Reboot, ["stopping", "starting"];
    destroying_a_router: Power::Destroy, ["stopping"];
}
