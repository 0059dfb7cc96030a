//! Handlers of `arcus.infra.v1.Placement`.

use crate::{pick, world::World};
use contract_infra::placement_server::Placement;
use contract_infra::{PickHostRequest, PickHostResponse};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct PlacementApi(pub World);

#[tonic::async_trait]
impl Placement for PlacementApi {
    async fn pick_host(&self, request: Request<PickHostRequest>) -> Result<Response<PickHostResponse>, Status> {
        let (_, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(pick::host(&self.0, r).await?))
    }
}
