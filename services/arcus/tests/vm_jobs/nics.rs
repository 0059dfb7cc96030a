//! NICs that come, go and change, and how guests let people in: each job failed and killed at every step.

use crate::proved;
use crate::scenario::{Admin, Outcome, VmScenario};
use crate::template::{Ids, OFF, RUNNING, Template};
use contract_compute::virtual_machine_access_client::VirtualMachineAccessClient;
use contract_compute::virtual_machine_nics_client::VirtualMachineNicsClient;
use contract_compute::{
    AddNicToVirtualMachineRequest, RemoveNicFromVirtualMachineRequest, ResetSshKeyForVirtualMachineRequest,
    UpdateDefaultNicForVirtualMachineRequest,
};

fn add(vm: &'static str) -> impl Fn(&Ids) -> AddNicToVirtualMachineRequest {
    move |ids| AddNicToVirtualMachineRequest {
        virtual_machine_id: Some(ids.vm(vm)),
        network_id: Some(ids.third_network.clone()),
        ..Default::default()
    }
}

async fn adding(vm: &'static str, steps: &[&str]) {
    let scenario =
        VmScenario::new(Template::with_networks().await, Outcome::AsBefore, move |channel, ids, call: Admin| {
            let request = call.request(add(vm)(&ids));
            Box::pin(async move { VirtualMachineNicsClient::new(channel).add(request).await })
        });
    proved(scenario, steps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugging_a_nic_into_a_running_machine() {
    adding(RUNNING, &["name", "nic", "plug"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giving_a_stopped_machine_a_nic() {
    adding(OFF, &["name", "nic"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unplugging_a_nic() {
    // Once its address is gone, there is no way back.
    let scenario = VmScenario::new(Template::with_networks().await, Outcome::AnyStage, |channel, ids, call: Admin| {
        Box::pin(async move {
            let request = RemoveNicFromVirtualMachineRequest {
                virtual_machine_id: Some(ids.vm(RUNNING)),
                nic_id: Some(ids.second_nic),
                ..Default::default()
            };
            VirtualMachineNicsClient::new(channel).remove(call.request(request)).await
        })
    });
    proved(scenario, &["check", "unplug", "release"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_the_default_nic() {
    let scenario = VmScenario::new(Template::with_networks().await, Outcome::AsBefore, |channel, ids, call: Admin| {
        Box::pin(async move {
            let request = UpdateDefaultNicForVirtualMachineRequest {
                virtual_machine_id: Some(ids.vm(RUNNING)),
                nic_id: Some(ids.second_nic),
                ..Default::default()
            };
            VirtualMachineNicsClient::new(channel).update_default(call.request(request)).await
        })
    });
    proved(scenario, &["check", "default"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resetting_an_ssh_key() {
    let scenario = VmScenario::new(Template::with_networks().await, Outcome::AsBefore, |channel, ids, call: Admin| {
        Box::pin(async move {
            let request = ResetSshKeyForVirtualMachineRequest {
                id: Some(ids.vm(OFF)),
                key_pair: Some("k1".into()),
                ..Default::default()
            };
            VirtualMachineAccessClient::new(channel).reset_ssh_key(call.request(request)).await
        })
    });
    proved(scenario, &["routers", "former", "reset", "tell"]).await;
}
