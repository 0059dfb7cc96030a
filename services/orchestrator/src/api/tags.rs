//! Handlers of `arcus.infra.v1.Tags`.

use crate::{tag, world::World};
use contract::api::JobRef;
use contract_infra::tags_server::Tags;
use contract_infra::{CreateTagsRequest, DeleteTagsRequest, ListTagsRequest, ListTagsResponse};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct TagsApi(pub World);

#[tonic::async_trait]
impl Tags for TagsApi {
    async fn create(&self, request: Request<CreateTagsRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(tag::create(&self.0, &cx, r).await?))
    }

    async fn delete(&self, request: Request<DeleteTagsRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(tag::delete(&self.0, &cx, r).await?))
    }

    async fn list(&self, request: Request<ListTagsRequest>) -> Result<Response<ListTagsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(tag::list(&self.0, &cx, r).await?))
    }
}
