//! Handlers of `arcus.infra.v1.Hypervisors`.

use crate::{hypervisor, world::World};
use contract_infra::hypervisors_server::Hypervisors;
use contract_infra::{
    ListHypervisorCapabilitiesRequest, ListHypervisorCapabilitiesResponse, ListHypervisorsRequest,
    ListHypervisorsResponse,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct HypervisorsApi(pub World);

#[tonic::async_trait]
impl Hypervisors for HypervisorsApi {
    async fn list(
        &self,
        request: Request<ListHypervisorsRequest>,
    ) -> Result<Response<ListHypervisorsResponse>, Status> {
        let (cx, _) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(hypervisor::list(&self.0, &cx).await?))
    }

    async fn list_capabilities(
        &self,
        request: Request<ListHypervisorCapabilitiesRequest>,
    ) -> Result<Response<ListHypervisorCapabilitiesResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(hypervisor::list_capabilities(&self.0, &cx, r).await?))
    }
}
