//! Handlers of `arcus.compute.v1.InstanceGroups`.

use crate::{instance_group, world::World};
use contract::api::Success;
use contract_compute::instance_groups_server::InstanceGroups;
use contract_compute::{
    CreateInstanceGroupRequest, DeleteInstanceGroupRequest, InstanceGroup, ListInstanceGroupsRequest,
    ListInstanceGroupsResponse, UpdateInstanceGroupRequest,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct InstanceGroupsApi(pub World);

#[tonic::async_trait]
impl InstanceGroups for InstanceGroupsApi {
    async fn create(&self, request: Request<CreateInstanceGroupRequest>) -> Result<Response<InstanceGroup>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(instance_group::create(&self.0, &cx, r).await?))
    }

    async fn update(&self, request: Request<UpdateInstanceGroupRequest>) -> Result<Response<InstanceGroup>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(instance_group::update(&self.0, &cx, r).await?))
    }

    async fn delete(&self, request: Request<DeleteInstanceGroupRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(instance_group::delete(&self.0, &cx, r).await?))
    }

    async fn list(
        &self,
        request: Request<ListInstanceGroupsRequest>,
    ) -> Result<Response<ListInstanceGroupsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(instance_group::list(&self.0, &cx, r).await?))
    }
}
