//! The jobs of templates, failed and killed at every point.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use arcus_storage::Storage;
use arcus_storage::tasks::{CopyTemplate, DeleteTemplate, ExtractImage};
use common::{SECOND_ZONE, World, ZONE, admin, uuid};
use contract::ApiError;
use contract_storage::image_stores_client::ImageStoresClient;
use contract_storage::templates_client::TemplatesClient;
use contract_storage::{AddSecondaryStorageRequest, RegisterTemplateRequest};
use jobs::harness::{Scenario, Start, prove};
use jobs::{Accept, Claim, Job, Jobs};
use node::Node;
use rpc::cx::request;
use store::{Db, Sql};

/// Which job, on template 200, which is ready in both zones (when it is copied, in zone 1 only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// Everywhere.
    Delete,
    /// In the second zone.
    Leave,
    /// To the second zone.
    Copy,
    /// Its URL is given; nothing else changes.
    Extract,
}

struct Proving(Which);

async fn accept<J: Job>(node: &Node, jobs: &Jobs, job: J) -> Result<String, ApiError> {
    let ticket = jobs.ticket().await?;
    let uuid = ticket.uuid().to_owned();
    let owner = model::Owner { account_id: 2, domain_id: 1, domain_path: "/1/".into() };
    let accept = Accept {
        job,
        caller: admin(),
        command: None,
        owner,
        instance: None,
        claims: vec![Claim::Exclusive("template/200".into())],
        custom_id: None,
        description: "proving".into(),
        entity_id: None,
    };
    store::tx!(node.db, "accept", |tx| jobs.accept(tx, ticket.clone(), accept.clone()).await.map(drop)).await?;
    Ok(uuid)
}

impl Scenario for Proving {
    type World = World;

    async fn world(&self) -> World {
        let w = World::new(testkit::TestDb::sqlite()).await;
        common::second_zone(w.db()).await;
        w.image_store().await;
        let mut stores = ImageStoresClient::new(w.node.peers.storage());
        let there = AddSecondaryStorageRequest { url: Some("nfs://h/s".into()), zone_id: Some(SECOND_ZONE.into()) };
        stores.add_secondary_storage(request(&admin(), there)).await.unwrap();
        let zones = if self.0 == Which::Copy { vec![ZONE.into()] } else { vec![ZONE.into(), SECOND_ZONE.into()] };
        let wanted = i64::try_from(zones.len()).unwrap();
        let order = RegisterTemplateRequest {
            name: Some("t".into()),
            display_text: Some("t".into()),
            format: Some("QCOW2".into()),
            hypervisor: Some("Simulator".into()),
            os_type_id: Some(uuid("os", 142)),
            url: Some("http://images.example/a.qcow2".into()),
            zone_ids: zones,
            ..Default::default()
        };
        TemplatesClient::new(w.node.peers.storage()).register(request(&admin(), order)).await.unwrap();
        let ready = "SELECT COUNT(*) FROM template_store_refs WHERE template_id = 200 AND state = 'Ready'";
        testkit::eventually(|| async { (w.count(ready).await == wanted).then_some(()) }).await;
        w
    }

    fn db<'w>(&self, world: &'w World) -> &'w Db {
        world.db()
    }

    fn service(&self) -> &'static str {
        "proving"
    }

    async fn start(&self, world: &World, start: Start) -> Jobs {
        // The duty that brings copies in is the world's: it and the job tell each other through the world's coordination.
        let node = Node { replica: start.replica.clone(), ..world.node.clone() };
        let builder =
            Jobs::builder(start.db, start.coord, "proving", start.replica).faults(start.faults).pace(start.pace);
        let (_storage, builder): (Storage, _) = common::engine(&node, builder);
        builder.start(start.stop, &start.tasks)
    }

    async fn submit(&self, world: &World, jobs: &Jobs) -> Result<String, ApiError> {
        let node = &world.node;
        let delete = |zone| DeleteTemplate { template: 200, zone, forced: false, iso: false };
        match self.0 {
            Which::Delete => accept(node, jobs, delete(None)).await,
            Which::Leave => accept(node, jobs, delete(Some(2))).await,
            Which::Extract => accept(node, jobs, ExtractImage { template: 200, zone: 1, iso: false }).await,
            Which::Copy => {
                let store_id = world.count("SELECT id FROM image_stores WHERE zone_id = 2").await;
                let path = format!("template/tmpl/2/200/{}.qcow2", model::new_uuid());
                let copy = serde_json::json!({ "store_id": store_id, "zone_id": 2, "path": path });
                let job = serde_json::json!({ "template": 200, "zones": [2], "copies": [copy], "iso": false });
                accept(node, jobs, serde_json::from_value::<CopyTemplate>(job).unwrap()).await
            }
        }
    }

    async fn look(&self, w: &World) -> String {
        let lives = w.count("SELECT COUNT(*) FROM templates WHERE id = 200 AND removed IS NULL").await == 1;
        let zones = "SELECT COUNT(*) FROM template_zones WHERE template_id = 200 AND removed IS NULL";
        let copies =
            "SELECT zone_id, state, held_bytes FROM template_store_refs WHERE template_id = 200 ORDER BY zone_id";
        let copies: Vec<(i64, String, i64)> = w
            .db()
            .all(Sql::new(copies))
            .await
            .unwrap()
            .iter()
            .map(|r| (r.at(0).unwrap(), r.at(1).unwrap(), r.at(2).unwrap()))
            .collect();
        // What a template that is gone counts identity gives back by itself.
        let uuid: String = w.db().one("SELECT uuid FROM templates WHERE id = 200".into()).await.unwrap().at(0).unwrap();
        let counted = |kind| w.limits.held(&format!("template:{uuid}"), kind).filter(|_| lives);
        format!("{lives} in {} zones, {copies:?}; counted {:?}", w.count(zones).await, [counted(4), counted(11)])
    }
}

async fn proven(which: Which, steps: &[&str]) {
    let proof = prove(&Proving(which), steps).await.unwrap_or_else(|e| panic!("{which:?}: {e}"));
    assert!(proof.runs > steps.len() * 2, "{proof:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting() {
    proven(Which::Delete, &["check"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_in_a_zone() {
    proven(Which::Leave, &["check", "limits"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copying() {
    proven(Which::Copy, &["copies", "wait"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extracting() {
    proven(Which::Extract, &[]).await;
}
