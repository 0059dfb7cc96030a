//! Handlers of `arcus.infra.v1.OsTypes`.

use crate::{os_type, world::World};
use contract_infra::os_types_server::OsTypes;
use contract_infra::{ListOsCategoriesRequest, ListOsCategoriesResponse, ListOsTypesRequest, ListOsTypesResponse};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct OsTypesApi(pub World);

#[tonic::async_trait]
impl OsTypes for OsTypesApi {
    async fn list(&self, request: Request<ListOsTypesRequest>) -> Result<Response<ListOsTypesResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(os_type::list(&self.0, &cx, r).await?))
    }

    async fn list_categories(
        &self,
        request: Request<ListOsCategoriesRequest>,
    ) -> Result<Response<ListOsCategoriesResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(os_type::list_categories(&self.0, &cx, r).await?))
    }
}
