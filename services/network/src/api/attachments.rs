//! Interfaces of VMs, as the orchestrator's jobs drive them.

use super::Api;
use crate::attachment;
use contract_network::attachments_server::Attachments;
use contract_network::{
    AllocateNicsRequest, CheckNicsResponse, DefaultNetworkRequest, DefaultNetworkResponse, NicsResponse, VmNicsRequest,
};
use jobs::StepKey;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Attachments for Api {
    async fn check(&self, request: Request<AllocateNicsRequest>) -> Result<Response<CheckNicsResponse>, Status> {
        let (_, req) = self.world.node.rpc.enter(request).await?;
        let nics = attachment::check(&self.world, &req).await?;
        Ok(Response::new(CheckNicsResponse { nics: i32::try_from(nics).unwrap_or_default() }))
    }

    async fn allocate(&self, request: Request<AllocateNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (cx, req) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(attachment::allocate(&self.world, &cx.caller, key, &req).await?))
    }

    async fn release(&self, request: Request<VmNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (_, req) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(attachment::release(&self.world, key, &req).await?))
    }

    async fn prepare(&self, request: Request<VmNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (cx, req) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(attachment::prepare(&self.world, &cx.caller, key, &req).await?))
    }

    async fn unprepare(&self, request: Request<VmNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (_, req) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(attachment::unprepare(&self.world, key, &req).await?))
    }

    async fn default_network(
        &self,
        request: Request<DefaultNetworkRequest>,
    ) -> Result<Response<DefaultNetworkResponse>, Status> {
        let (cx, req) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(attachment::default_network(&self.world, &cx.caller, &req).await?))
    }
}
