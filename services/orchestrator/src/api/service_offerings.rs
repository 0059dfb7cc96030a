//! Handlers of `arcus.infra.v1.ServiceOfferings`.

use crate::{offering, world::World};
use contract::api::Success;
use contract_infra::service_offerings_server::ServiceOfferings;
use contract_infra::{
    CreateServiceOfferingRequest, DeleteServiceOfferingRequest, ListServiceOfferingsRequest,
    ListServiceOfferingsResponse, ServiceOffering, UpdateServiceOfferingRequest,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct ServiceOfferingsApi(pub World);

#[tonic::async_trait]
impl ServiceOfferings for ServiceOfferingsApi {
    async fn create(
        &self,
        request: Request<CreateServiceOfferingRequest>,
    ) -> Result<Response<ServiceOffering>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(offering::create(&self.0, &cx, r).await?))
    }

    async fn update(
        &self,
        request: Request<UpdateServiceOfferingRequest>,
    ) -> Result<Response<ServiceOffering>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(offering::update(&self.0, &cx, r).await?))
    }

    async fn delete(&self, request: Request<DeleteServiceOfferingRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(offering::delete(&self.0, &cx, r).await?))
    }

    async fn list(
        &self,
        request: Request<ListServiceOfferingsRequest>,
    ) -> Result<Response<ListServiceOfferingsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(offering::list(&self.0, &cx, r).await?))
    }
}
