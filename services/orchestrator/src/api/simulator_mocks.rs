//! Handlers of `arcus.infra.v1.SimulatorMocks`.

use crate::{mock, world::World};
use contract::api::Success;
use contract_infra::simulator_mocks_server::SimulatorMocks;
use contract_infra::{
    CleanupSimulatorMockRequest, ConfigureSimulatorRequest, QuerySimulatorMockRequest, SimulatorMock,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct SimulatorMocksApi(pub World);

#[tonic::async_trait]
impl SimulatorMocks for SimulatorMocksApi {
    async fn configure(&self, request: Request<ConfigureSimulatorRequest>) -> Result<Response<SimulatorMock>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(mock::configure(&self.0, &cx, r).await?))
    }

    async fn query(&self, request: Request<QuerySimulatorMockRequest>) -> Result<Response<SimulatorMock>, Status> {
        let (_, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(mock::query(&self.0, &r).await?))
    }

    async fn cleanup(&self, request: Request<CleanupSimulatorMockRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(mock::cleanup(&self.0, &cx, &r).await?))
    }
}
