//! Every job of virtual machines, failed and killed at every step and every undo, against the real services and the
//! simulator: what is left must be as before, or as after.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod affinity;
mod assign;
mod budget;
mod changes;
mod failover;
mod isos;
mod maintenance;
mod migrate;
mod nics;
mod scenario;
mod template;
mod world;

use contract::api::TagParam;
use contract_compute::virtual_machines_client::VirtualMachinesClient;
use contract_compute::{
    DeployVirtualMachineRequest, DestroyVirtualMachineRequest, ExpungeVirtualMachineRequest,
    RebootVirtualMachineRequest, StartVirtualMachineRequest, StopVirtualMachineRequest,
};
use contract_infra::hosts_client::HostsClient;
use contract_infra::tags_client::TagsClient;
use contract_infra::{CreateTagsRequest, ReconnectHostRequest};
use jobs::harness::prove;
use scenario::{Outcome, PowerLoss, VmScenario};
use template::{GONE, OFF, RUNNING, Template};

async fn proved(scenario: VmScenario, steps: &[&str]) {
    let proof = prove(&scenario, steps).await.unwrap_or_else(|why| panic!("{why}"));
    println!("{} runs over {} points", proof.runs, proof.points.len());
}

async fn deploy(start: bool, steps: &[&str]) {
    let template = Template::shared().await;
    let scenario = VmScenario::new(template, Outcome::AsBeforeAndError, move |channel, ids, call| {
        Box::pin(async move {
            let mut client = VirtualMachinesClient::new(channel);
            let request = DeployVirtualMachineRequest {
                zone_id: Some(ids.zone),
                service_offering_id: Some(ids.offering),
                template_id: Some(ids.template),
                network_ids: vec![ids.network],
                name: Some("new".into()),
                start_vm: Some(start),
                ..Default::default()
            };
            client.deploy(call.request(request)).await
        })
    });
    proved(scenario, steps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deploying() {
    deploy(true, &["place", "nics", "disks", "boot"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deploying_without_start() {
    deploy(false, &["nics", "disks"]).await;
}

macro_rules! on_vm {
    ($(#[$meta:meta])* $name:ident, $vm:expr, $outcome:expr, $steps:expr, |$client:ident, $id:ident| $request:expr, $method:ident) => {
        $(#[$meta])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let template = Template::shared().await;
            let scenario = VmScenario::new(template, $outcome, |channel, ids, call| {
                Box::pin(async move {
                    let mut $client = VirtualMachinesClient::new(channel);
                    let $id = Some(ids.vm($vm));
                    $client.$method(call.request($request)).await
                })
            });
            proved(scenario, $steps).await;
        }
    };
}

on_vm!(
    starting,
    OFF,
    Outcome::AsBefore,
    &["place", "nics", "disks", "boot"],
    |client, id| StartVirtualMachineRequest { id, ..Default::default() },
    start
);
on_vm!(
    stopping,
    RUNNING,
    Outcome::AsBeforeOrStopped,
    &["stopping", "stop", "unplug"],
    |client, id| StopVirtualMachineRequest { id, ..Default::default() },
    stop
);
on_vm!(
    rebooting,
    RUNNING,
    Outcome::AsBefore,
    &["check", "reboot"],
    |client, id| RebootVirtualMachineRequest { id, ..Default::default() },
    reboot
);
on_vm!(
    destroying,
    RUNNING,
    Outcome::AnyStage,
    &["stopping", "stop", "unplug", "destroyed", "limits"],
    |client, id| DestroyVirtualMachineRequest { id, ..Default::default() },
    destroy
);
on_vm!(
    /// Beyond the point of no return a failure leaves the machine Destroyed, and the sweep ends it.
    destroying_and_expunging, RUNNING, Outcome::Forward(RUNNING),
    &["stopping", "stop", "unplug", "destroyed", "limits", "nics", "disks"], |client, id| DestroyVirtualMachineRequest { id, expunge: Some(true), ..Default::default() }, destroy
);
on_vm!(
    expunging,
    GONE,
    Outcome::Forward(GONE),
    &["expunging", "nics", "disks"],
    |client, id| ExpungeVirtualMachineRequest { id, ..Default::default() },
    expunge
);

/// Tags are a job for 4.11's sake: one commit and nothing to undo.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tagging() {
    let template = Template::shared().await;
    let scenario = VmScenario::new(template, Outcome::AsBefore, |channel, ids, call| {
        Box::pin(async move {
            let request = CreateTagsRequest {
                tags: vec![TagParam { key: Some("tier".into()), value: Some("web".into()) }],
                resource_type: Some("UserVm".into()),
                resource_ids: vec![ids.vm(RUNNING)],
                ..Default::default()
            };
            TagsClient::new(channel).create(call.request(request)).await
        })
    });
    proved(scenario, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnecting_a_host() {
    let template = Template::shared().await;
    let scenario = VmScenario::new(template, Outcome::AsBefore, |channel, ids, call| {
        Box::pin(async move {
            let request = ReconnectHostRequest { id: Some(ids.host), ..Default::default() };
            HostsClient::new(channel).reconnect(call.request(request)).await
        })
    });
    proved(scenario, &[]).await;
}

async fn maintaining(over: bool, steps: &[&str]) {
    let scenario = maintenance::Maintaining { template: Template::shared().await, over };
    let proof = prove(&scenario, steps).await.unwrap_or_else(|why| panic!("{why}"));
    println!("{} runs over {} points", proof.runs, proof.points.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preparing_a_host_for_maintenance() {
    maintaining(false, &["prepare", "wait"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_the_maintenance_of_a_host() {
    maintaining(true, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_ended_by_itself() {
    let proof = prove(&PowerLoss(Template::shared().await), &["unplug"]).await.unwrap_or_else(|why| panic!("{why}"));
    println!("{} runs over {} points", proof.runs, proof.points.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_on_a_host_that_is_away() {
    let scenario = failover::StopAway(Template::shared().await);
    let proof = prove(&scenario, &["stopping", "owe", "unplug"]).await.unwrap_or_else(|why| panic!("{why}"));
    println!("{} runs over {} points", proof.runs, proof.points.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrating() {
    let scenario = migrate::Migrating(Template::shared().await);
    let steps =
        ["place", "nics", "disks", "begin", "prepare", "agreed", "perform", "finish", "move", "confirm", "boot"];
    let proof = prove(&scenario, &steps).await.unwrap_or_else(|why| panic!("{why}"));
    println!("{} runs over {} points", proof.runs, proof.points.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_whose_host_died() {
    let scenario = failover::HostDeath(Template::shared().await);
    let proof = prove(&scenario, &["settle", "unplug"]).await.unwrap_or_else(|why| panic!("{why}"));
    println!("{} runs over {} points", proof.runs, proof.points.len());
}

// covers: OPS-113
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_started_again() {
    let scenario = failover::Failover(Template::shared().await);
    let steps = ["place", "nics", "disks", "boot"];
    let proof = prove(&scenario, &steps).await.unwrap_or_else(|why| panic!("{why}"));
    println!("{} runs over {} points", proof.runs, proof.points.len());
}
