//! What lies in CD drives: each job failed and killed at every step. Each look compares the drive of a machine that runs with
//! what the books say.

use crate::proved;
use crate::scenario::{Admin, Outcome, VmScenario};
use crate::template::{Ids, OFF, RUNNING, Template};
use contract_compute::virtual_machine_isos_client::VirtualMachineIsosClient;
use contract_compute::virtual_machines_client::VirtualMachinesClient;
use contract_compute::{AttachIsoRequest, DeployVirtualMachineRequest, DetachIsoRequest, StartVirtualMachineRequest};
use jobs::harness::prove;

async fn attaching(vm: &'static str, iso: fn(&Ids) -> String, steps: &[&str]) {
    let scenario = VmScenario::new(Template::with_isos().await, Outcome::AsBefore, move |channel, ids, call: Admin| {
        Box::pin(async move {
            let request =
                AttachIsoRequest { id: Some(iso(&ids)), virtual_machine_id: Some(ids.vm(vm)), ..Default::default() };
            VirtualMachineIsosClient::new(channel).attach(call.request(request)).await
        })
    });
    proved(scenario, steps).await;
}

/// In the place of another one, which a failure puts back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attaching_an_iso_to_a_running_machine() {
    attaching(RUNNING, |ids| ids.other_iso.clone(), &["wish", "disks", "drive"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attaching_an_iso_to_a_stopped_machine() {
    attaching(OFF, |ids| ids.other_iso.clone(), &["wish"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detaching_an_iso_from_a_running_machine() {
    let scenario = VmScenario::new(Template::with_isos().await, Outcome::AsBefore, |channel, ids, call: Admin| {
        Box::pin(async move {
            let request = DetachIsoRequest { virtual_machine_id: Some(ids.vm(RUNNING)), ..Default::default() };
            VirtualMachineIsosClient::new(channel).detach(call.request(request)).await
        })
    });
    proved(scenario, &["wish", "disks", "drive"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starting_with_an_iso() {
    let scenario = VmScenario::new(Template::with_isos().await, Outcome::AsBefore, |channel, ids, call: Admin| {
        Box::pin(async move {
            let request = StartVirtualMachineRequest { id: Some(ids.vm(OFF)), ..Default::default() };
            VirtualMachinesClient::new(channel).start(call.request(request)).await
        })
    });
    proved(scenario, &["place", "nics", "disks", "boot"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deploying_from_an_iso() {
    let template = Template::with_isos().await;
    let scenario = VmScenario::new(template, Outcome::AsBeforeAndError, |channel, ids, call: Admin| {
        Box::pin(async move {
            let request = DeployVirtualMachineRequest {
                zone_id: Some(ids.zone),
                service_offering_id: Some(ids.offering),
                template_id: Some(ids.iso),
                disk_offering_id: Some(ids.disk_offering),
                hypervisor: Some("Simulator".into()),
                network_ids: vec![ids.network],
                name: Some("new".into()),
                ..Default::default()
            };
            VirtualMachinesClient::new(channel).deploy(call.request(request)).await
        })
    });
    proved(scenario, &["place", "nics", "disks", "boot"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrating_with_an_iso() {
    let scenario = crate::migrate::Migrating(Template::with_isos().await);
    let proof = prove(&scenario, &["place", "disks", "prepare", "move", "boot"]).await;
    let proof = proof.unwrap_or_else(|why| panic!("{why}"));
    println!("{} runs over {} points", proof.runs, proof.points.len());
}
