//! Jobs of affinity groups and dedications: one commit each, and nothing to undo but what was there when they were accepted.

use crate::proved;
use crate::scenario::{Outcome, VmScenario};
use crate::template::Template;
use contract_compute::CreateAffinityGroupRequest;
use contract_compute::affinity_groups_client::AffinityGroupsClient;
use contract_infra::DedicateHostRequest;
use contract_infra::dedications_client::DedicationsClient;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating_a_group() {
    let scenario = VmScenario::new(Template::shared().await, Outcome::AsBefore, |channel, _, call| {
        Box::pin(async move {
            let request = CreateAffinityGroupRequest {
                name: Some("group".into()),
                r#type: Some("host anti-affinity".into()),
                ..Default::default()
            };
            AffinityGroupsClient::new(channel).create(call.request(request)).await
        })
    });
    proved(scenario, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedicating_a_host() {
    let scenario = VmScenario::new(Template::shared().await, Outcome::AsBefore, |channel, ids, call| {
        Box::pin(async move {
            let request =
                DedicateHostRequest { host_id: Some(ids.host), domain_id: Some("1".into()), ..Default::default() };
            DedicationsClient::new(channel).dedicate_host(call.request(request)).await
        })
    });
    proved(scenario, &[]).await;
}
