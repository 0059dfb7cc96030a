//! Handlers of `arcus.infra.v1.AlertGeneration`.

use crate::{alert, world::World};
use contract::api::JobRef;
use contract_infra::GenerateAlertRequest;
use contract_infra::alert_generation_server::AlertGeneration;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct AlertGenerationApi(pub World);

#[tonic::async_trait]
impl AlertGeneration for AlertGenerationApi {
    async fn generate(&self, request: Request<GenerateAlertRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(alert::generate(&self.0, &cx, r).await?))
    }
}
