//! Handlers of `arcus.infra.v1.Pods`.

use crate::{pod, world::World};
use contract::api::Success;
use contract_infra::pods_server::Pods;
use contract_infra::{CreatePodRequest, DeletePodRequest, ListPodsRequest, ListPodsResponse, Pod, UpdatePodRequest};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct PodsApi(pub World);

#[tonic::async_trait]
impl Pods for PodsApi {
    async fn create(&self, request: Request<CreatePodRequest>) -> Result<Response<Pod>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(pod::create(&self.0, &cx, r).await?))
    }

    async fn update(&self, request: Request<UpdatePodRequest>) -> Result<Response<Pod>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(pod::update(&self.0, &cx, r).await?))
    }

    async fn delete(&self, request: Request<DeletePodRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(pod::delete(&self.0, &cx, r).await?))
    }

    async fn list(&self, request: Request<ListPodsRequest>) -> Result<Response<ListPodsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(pod::list(&self.0, &cx, r).await?))
    }
}
