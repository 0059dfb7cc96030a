//! `arcus.storage.v1.Downloads`: internal, called by the gateway.

use crate::{Storage, downloads};
use contract_storage::downloads_server::Downloads;
use contract_storage::{DownloadPiece, ReadDownloadRequest};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Downloads for Storage {
    async fn read(&self, request: Request<ReadDownloadRequest>) -> Result<Response<DownloadPiece>, Status> {
        let (_, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(downloads::read(self, &req).await?))
    }
}
