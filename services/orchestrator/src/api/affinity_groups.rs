//! `arcus.compute.v1.AffinityGroups`.

use crate::affinity;
use crate::vm::VmWorld;
use contract::api::JobRef;
use contract_compute::affinity_groups_server::AffinityGroups;
use contract_compute::{
    CreateAffinityGroupRequest, DeleteAffinityGroupRequest, ListAffinityGroupTypesRequest,
    ListAffinityGroupTypesResponse, ListAffinityGroupsRequest, ListAffinityGroupsResponse,
    UpdateVmAffinityGroupRequest,
};
use tonic::{Request, Response, Status};

/// The service.
pub struct AffinityGroupsApi(pub VmWorld);

#[tonic::async_trait]
impl AffinityGroups for AffinityGroupsApi {
    async fn create(&self, request: Request<CreateAffinityGroupRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(affinity::create(&self.0, &cx, r).await?))
    }

    async fn delete(&self, request: Request<DeleteAffinityGroupRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(affinity::delete(&self.0, &cx, r).await?))
    }

    async fn list(
        &self,
        request: Request<ListAffinityGroupsRequest>,
    ) -> Result<Response<ListAffinityGroupsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(affinity::list(&self.0, &cx, r).await?))
    }

    async fn list_types(
        &self,
        request: Request<ListAffinityGroupTypesRequest>,
    ) -> Result<Response<ListAffinityGroupTypesResponse>, Status> {
        let (_, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(affinity::types(&self.0, r)?))
    }

    async fn update_virtual_machine(
        &self,
        request: Request<UpdateVmAffinityGroupRequest>,
    ) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(affinity::update_vm(&self.0, &cx, r).await?))
    }
}
