//! Handlers of `arcus.compute.v1.SshKeyPairs`.

use crate::{key_pair, world::World};
use contract::api::Success;
use contract_compute::ssh_key_pairs_server::SshKeyPairs;
use contract_compute::{
    CreateSshKeyPairRequest, CreatedSshKeyPair, DeleteSshKeyPairRequest, ListSshKeyPairsRequest,
    ListSshKeyPairsResponse, RegisterSshKeyPairRequest, SshKeyPair,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct SshKeyPairsApi(pub World);

#[tonic::async_trait]
impl SshKeyPairs for SshKeyPairsApi {
    async fn create(&self, request: Request<CreateSshKeyPairRequest>) -> Result<Response<CreatedSshKeyPair>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(key_pair::create(&self.0, &cx, r).await?))
    }

    async fn register(&self, request: Request<RegisterSshKeyPairRequest>) -> Result<Response<SshKeyPair>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(key_pair::register(&self.0, &cx, r).await?))
    }

    async fn delete(&self, request: Request<DeleteSshKeyPairRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(key_pair::delete(&self.0, &cx, r).await?))
    }

    async fn list(
        &self,
        request: Request<ListSshKeyPairsRequest>,
    ) -> Result<Response<ListSshKeyPairsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(key_pair::list(&self.0, &cx, r).await?))
    }
}
