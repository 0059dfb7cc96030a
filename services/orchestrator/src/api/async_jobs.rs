//! Handlers of `arcus.infra.v1.AsyncJobs`.

use crate::{async_job, world::World};
use contract_infra::async_jobs_server::AsyncJobs;
use contract_infra::{AsyncJob, ListAsyncJobsRequest, ListAsyncJobsResponse, QueryAsyncJobResultRequest};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct AsyncJobsApi(pub World);

#[tonic::async_trait]
impl AsyncJobs for AsyncJobsApi {
    async fn query(&self, request: Request<QueryAsyncJobResultRequest>) -> Result<Response<AsyncJob>, Status> {
        let (cx, _) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(async_job::query(&self.0, &cx).await?))
    }

    async fn list(&self, request: Request<ListAsyncJobsRequest>) -> Result<Response<ListAsyncJobsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(async_job::list(&self.0, &cx, r).await?))
    }
}
