//! `arcus.storage.v1.Disks`: internal, called by the jobs of VMs.

use crate::{Storage, disks};
use contract_storage::disks_server::Disks;
use contract_storage::{
    AllocateDisksRequest, AssignDisksRequest, AssignDisksResponse, DiscardRequest, DisksResponse, FitRequest,
    FitResponse, RenewRootRequest, VmDisksRequest,
};
use jobs::StepKey;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Disks for Storage {
    async fn allocate(&self, request: Request<AllocateDisksRequest>) -> Result<Response<DisksResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(disks::allocate(self, &cx.caller, &key, &req).await?))
    }

    async fn release(&self, request: Request<VmDisksRequest>) -> Result<Response<DisksResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(disks::release(self, &cx.caller, &key, &req).await?))
    }

    async fn prepare(&self, request: Request<VmDisksRequest>) -> Result<Response<DisksResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(disks::prepare(self, &cx.caller, &key, &req).await?))
    }

    async fn fit(&self, request: Request<FitRequest>) -> Result<Response<FitResponse>, Status> {
        let (_, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(FitResponse { cluster_ids: disks::fit(self, &req).await? }))
    }

    async fn renew(&self, request: Request<RenewRootRequest>) -> Result<Response<DisksResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (_, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(disks::renew(self, &key, &req).await?))
    }

    async fn unrenew(&self, request: Request<RenewRootRequest>) -> Result<Response<DisksResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(disks::unrenew(self, &cx.caller, &key, &req).await?))
    }

    async fn discard(&self, request: Request<DiscardRequest>) -> Result<Response<DisksResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(disks::discard(self, &cx.caller, &key, &req).await?))
    }

    async fn assign(&self, request: Request<AssignDisksRequest>) -> Result<Response<AssignDisksResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (_, req) = self.node.rpc.enter(request).await?;
        if key.is_undo() {
            disks::unassign(self, &key).await?;
            return Ok(Response::new(AssignDisksResponse::default()));
        }
        Ok(Response::new(disks::assign(self, &key, &req).await?))
    }

    async fn expunge(&self, request: Request<VmDisksRequest>) -> Result<Response<DisksResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(disks::expunge(self, &cx.caller, &key, &req).await?))
    }
}
