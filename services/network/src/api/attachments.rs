//! Interfaces of VMs, as the orchestrator's jobs drive them.

use super::Api;
use crate::attachment;
use contract_network::attachments_server::Attachments;
use contract_network::{
    AllocateNicsRequest, CheckNicsResponse, DefaultNetworkRequest, DefaultNetworkResponse, MoveNicsRequest,
    NicsResponse, RemoveNicRequest, SetDefaultNicRequest, TellRequest, VmNicsRequest,
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
        let answer = attachment::allocate(&self.world, &cx.caller, key, &req).await?;
        Ok(Response::new(attachment::rated(&self.world, answer).await?))
    }

    async fn release(&self, request: Request<VmNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (_, req) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(attachment::release(&self.world, key, &req).await?))
    }

    async fn prepare(&self, request: Request<VmNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (cx, req) = self.world.node.rpc.enter(request).await?;
        let answer = attachment::prepare(&self.world, &cx.caller, key, &req).await?;
        Ok(Response::new(attachment::rated(&self.world, answer).await?))
    }

    async fn change_host(&self, request: Request<MoveNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (cx, req) = self.world.node.rpc.enter(request).await?;
        let answer = attachment::change_host(&self.world, &cx.caller, key, &req).await?;
        Ok(Response::new(attachment::rated(&self.world, answer).await?))
    }

    async fn unprepare(&self, request: Request<VmNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (_, req) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(attachment::unprepare(&self.world, key, &req).await?))
    }

    async fn remove(&self, request: Request<RemoveNicRequest>) -> Result<Response<NicsResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (_, req) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(attachment::remove(&self.world, key, &req).await?))
    }

    async fn exchange(&self, request: Request<AllocateNicsRequest>) -> Result<Response<NicsResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (cx, req) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(attachment::exchange(&self.world, &cx.caller, key, &req).await?))
    }

    async fn set_default(&self, request: Request<SetDefaultNicRequest>) -> Result<Response<NicsResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (_, req) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(attachment::set_default(&self.world, key, &req).await?))
    }

    async fn tell(&self, request: Request<TellRequest>) -> Result<Response<NicsResponse>, Status> {
        let (_, req) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(attachment::tell(&self.world, &req).await?))
    }

    async fn default_network(
        &self,
        request: Request<DefaultNetworkRequest>,
    ) -> Result<Response<DefaultNetworkResponse>, Status> {
        let (cx, req) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(attachment::default_network(&self.world, &cx.caller, &req).await?))
    }
}
