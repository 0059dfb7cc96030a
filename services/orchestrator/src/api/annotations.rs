//! Handlers of `arcus.infra.v1.Annotations`.

use crate::{annotation, world::World};
use contract_infra::annotations_server::Annotations;
use contract_infra::{
    AddAnnotationRequest, Annotation, ListAnnotationsRequest, ListAnnotationsResponse, RemoveAnnotationRequest,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct AnnotationsApi(pub World);

#[tonic::async_trait]
impl Annotations for AnnotationsApi {
    async fn add(&self, request: Request<AddAnnotationRequest>) -> Result<Response<Annotation>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(annotation::add(&self.0, &cx, r).await?))
    }

    async fn remove(&self, request: Request<RemoveAnnotationRequest>) -> Result<Response<Annotation>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(annotation::remove(&self.0, &cx, r).await?))
    }

    async fn list(
        &self,
        request: Request<ListAnnotationsRequest>,
    ) -> Result<Response<ListAnnotationsResponse>, Status> {
        let (_, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(annotation::list(&self.0, r).await?))
    }
}
