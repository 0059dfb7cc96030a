//! Handlers of `arcus.infra.v1.Configurations`.

use crate::{configuration, world::World};
use contract_infra::configurations_server::Configurations;
use contract_infra::{
    Capabilities, Configuration, ListCapabilitiesRequest, ListConfigurationsRequest, ListConfigurationsResponse,
    ListDeploymentPlannersRequest, ListDeploymentPlannersResponse, UpdateConfigurationRequest,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct ConfigurationsApi(pub World);

#[tonic::async_trait]
impl Configurations for ConfigurationsApi {
    async fn list_capabilities(
        &self,
        request: Request<ListCapabilitiesRequest>,
    ) -> Result<Response<Capabilities>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(configuration::capabilities(&self.0, &cx, r).await?))
    }

    async fn list(
        &self,
        request: Request<ListConfigurationsRequest>,
    ) -> Result<Response<ListConfigurationsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(configuration::list(&self.0, &cx, &r)?))
    }

    async fn list_planners(
        &self,
        request: Request<ListDeploymentPlannersRequest>,
    ) -> Result<Response<ListDeploymentPlannersResponse>, Status> {
        let (_, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(configuration::planners(&self.0, &r)?))
    }

    async fn update(&self, request: Request<UpdateConfigurationRequest>) -> Result<Response<Configuration>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(configuration::update(&self.0, &cx, r).await?))
    }
}
