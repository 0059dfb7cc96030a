//! Handlers of `arcus.infra.v1.Clusters`.

use crate::{cluster, world::World};
use contract::api::Success;
use contract_infra::clusters_server::Clusters;
use contract_infra::{
    AddClusterRequest, Cluster, DeleteClusterRequest, ListClustersRequest, ListClustersResponse, UpdateClusterRequest,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct ClustersApi(pub World);

#[tonic::async_trait]
impl Clusters for ClustersApi {
    async fn add(&self, request: Request<AddClusterRequest>) -> Result<Response<ListClustersResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(cluster::add(&self.0, &cx, r).await?))
    }

    async fn update(&self, request: Request<UpdateClusterRequest>) -> Result<Response<Cluster>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(cluster::update(&self.0, &cx, r).await?))
    }

    async fn delete(&self, request: Request<DeleteClusterRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(cluster::delete(&self.0, &cx, r).await?))
    }

    async fn list(&self, request: Request<ListClustersRequest>) -> Result<Response<ListClustersResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(cluster::list(&self.0, &cx, r).await?))
    }
}
