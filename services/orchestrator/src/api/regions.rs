//! Handlers of `arcus.infra.v1.Regions`.

use crate::{region, world::World};
use contract::api::Success;
use contract_infra::regions_server::Regions;
use contract_infra::{
    AddRegionRequest, ListRegionsRequest, ListRegionsResponse, Region, RemoveRegionRequest, UpdateRegionRequest,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct RegionsApi(pub World);

#[tonic::async_trait]
impl Regions for RegionsApi {
    async fn add(&self, request: Request<AddRegionRequest>) -> Result<Response<Region>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(region::add(&self.0, &cx, r).await?))
    }

    async fn update(&self, request: Request<UpdateRegionRequest>) -> Result<Response<Region>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(region::update(&self.0, &cx, r).await?))
    }

    async fn remove(&self, request: Request<RemoveRegionRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(region::remove(&self.0, &cx, r).await?))
    }

    async fn list(&self, request: Request<ListRegionsRequest>) -> Result<Response<ListRegionsResponse>, Status> {
        let (_, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(region::list(&self.0, r).await?))
    }
}
