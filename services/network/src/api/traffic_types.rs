//! Traffic types.

use super::physical_networks::found;
use super::{Api, given, keyword};
use crate::job::{self, Action, AdminJob, Order};
use crate::present;
use crate::store::traffic::{self, Traffic};
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_network::traffic_types_server::TrafficTypes;
use contract_network::{
    AddTrafficTypeRequest, DeleteTrafficTypeRequest, ListTrafficTypesRequest, ListTrafficTypesResponse,
    UpdateTrafficTypeRequest,
};
use jobs::Claim;
use tonic::{Request, Response, Status};

/// Kinds that an administrator may place.
const KINDS: &[&str] = &["Guest", "Management", "Public", "Storage"];

#[tonic::async_trait]
impl TrafficTypes for Api {
    async fn add(&self, request: Request<AddTrafficTypeRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let physical = found(world, cx.refs.need("physicalnetworkid")?).await?;
        let word = given(&req.traffic_type).unwrap_or_default();
        let kind = KINDS
            .iter()
            .find(|k| k.eq_ignore_ascii_case(&word))
            .ok_or_else(|| ApiError::param(format!("Invalid traffic type {word}: give one of {}", KINDS.join(", "))))?;
        let row = Traffic {
            id: db.next_id("traffic_types").await.map_err(ApiError::from)?,
            uuid: model::new_uuid(),
            physical_network_id: physical.id,
            zone_id: physical.zone_id,
            kind: (*kind).to_owned(),
            labels: [
                given(&req.xen_network_label),
                given(&req.kvm_network_label),
                given(&req.vmware_network_label),
                given(&req.hyperv_network_label),
                given(&req.ovm3_network_label),
            ],
            vlan: given(&req.vlan),
            isolation_method: given(&req.isolation_method),
        };
        let order = order(
            &cx.caller,
            AddTrafficTypeRequest::COMMAND,
            &row,
            "Adding physical network traffic type",
            &req.custom_job_id,
            true,
        );
        let ticket = world.jobs.ticket().await?;
        let accept = order.of(AdminJob { action: Action::AddTraffic { id: row.id } });
        let answer = jobs::mutate!(world.node.db, cx.caller, "add-traffic-type", |tx| {
            match traffic::insert(tx, &row).await {
                Err(store::Error::Unique { .. }) if row.kind == "Guest" => {
                    return Err(ApiError::failed(format!("This physical network already supports the traffic type: {}", row.kind)));
                }
                Err(store::Error::Unique { .. }) => {
                    return Err(ApiError::failed(format!(
                        "Fail to add the traffic type to physical network because Zone already has a physical network with this \
                         traffic type: {}",
                        row.kind
                    )));
                }
                other => other?,
            }
            world.jobs.accept(tx, ticket.clone(), accept.clone()).await
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn update(&self, request: Request<UpdateTrafficTypeRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let row = self.traffic(cx.refs.need("id")?).await?;
        // An empty label means none, so it must be told from an absent one.
        let labels = [
            req.xen_network_label.clone(),
            req.kvm_network_label.clone(),
            req.vmware_network_label.clone(),
            req.hyperv_network_label.clone(),
            req.ovm3_network_label.clone(),
        ];
        let order = order(
            &cx.caller,
            UpdateTrafficTypeRequest::COMMAND,
            &row,
            "Updating Traffic Type",
            &req.custom_job_id,
            false,
        );
        let action = Action::UpdateTraffic { id: row.id, labels };
        Ok(Response::new(job::accept(world, order, AdminJob { action }).await?))
    }

    async fn delete(&self, request: Request<DeleteTrafficTypeRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let row = self.traffic(cx.refs.need("id")?).await?;
        let order = order(
            &cx.caller,
            DeleteTrafficTypeRequest::COMMAND,
            &row,
            "Deleting Traffic Type",
            &req.custom_job_id,
            false,
        );
        let action = Action::DeleteTraffic { id: row.id };
        Ok(Response::new(job::accept(world, order, AdminJob { action }).await?))
    }

    async fn list(
        &self,
        request: Request<ListTrafficTypesRequest>,
    ) -> Result<Response<ListTrafficTypesResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let physical: i64 = cx.refs.need("physicalnetworkid")?;
        let page = world.page(req.page, req.page_size)?;
        let word = keyword(&req.keyword);
        let (rows, count) =
            traffic::list(&world.node.db, physical, word.as_deref(), &page).await.map_err(ApiError::from)?;
        let traffic_type = present::traffics(&world.node.db, &rows).await.map_err(ApiError::from)?;
        Ok(Response::new(ListTrafficTypesResponse { count: Some(count), traffic_type }))
    }
}

impl Api {
    async fn traffic(&self, id: i64) -> Result<Traffic, ApiError> {
        let found = traffic::one(&self.world.node.db, id).await?;
        found.ok_or_else(|| ApiError::param("the traffic type has been removed".to_owned()))
    }
}

fn order<'a>(
    caller: &'a contract::api::Caller,
    command: Option<&'static contract::CommandInfo>,
    row: &Traffic,
    verb: &str,
    custom_id: &Option<String>,
    created: bool,
) -> Order<'a> {
    Order {
        command,
        caller,
        owner: None,
        instance: Some(("TrafficType", row.uuid.clone())),
        claims: vec![Claim::Exclusive(format!("physical-network/{}", row.physical_network_id))],
        custom_id: custom_id.clone(),
        description: format!("{verb}: {}", row.uuid),
        entity_id: created.then(|| row.uuid.clone()),
    }
}
