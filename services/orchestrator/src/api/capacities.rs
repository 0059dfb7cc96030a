//! Handlers of `arcus.infra.v1.Capacities`.

use crate::{capacity, world::World};
use contract_infra::capacities_server::Capacities;
use contract_infra::{ListCapacityRequest, ListCapacityResponse};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct CapacitiesApi(pub World);

#[tonic::async_trait]
impl Capacities for CapacitiesApi {
    async fn list(&self, request: Request<ListCapacityRequest>) -> Result<Response<ListCapacityResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(capacity::list(&self.0, &cx, r).await?))
    }
}
