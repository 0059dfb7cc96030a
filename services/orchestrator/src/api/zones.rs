//! Handlers of `arcus.infra.v1.Zones`.

use crate::{world::World, zone};
use contract::api::Success;
use contract_infra::zones_server::Zones;
use contract_infra::{
    CreateZoneRequest, DeleteZoneRequest, ListZonesRequest, ListZonesResponse, UpdateZoneRequest, Zone,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct ZonesApi(pub World);

#[tonic::async_trait]
impl Zones for ZonesApi {
    async fn create(&self, request: Request<CreateZoneRequest>) -> Result<Response<Zone>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(zone::create(&self.0, &cx, r).await?))
    }

    async fn update(&self, request: Request<UpdateZoneRequest>) -> Result<Response<Zone>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(zone::update(&self.0, &cx, r).await?))
    }

    async fn delete(&self, request: Request<DeleteZoneRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(zone::delete(&self.0, &cx, r).await?))
    }

    async fn list(&self, request: Request<ListZonesRequest>) -> Result<Response<ListZonesResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(zone::list(&self.0, &cx, r).await?))
    }
}
