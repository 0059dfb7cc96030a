//! Handlers of the metrics commands: the plain lists, with figures. The messages have the plain ones' fields under the same
//! numbers (a test holds that), so that one is read as the other.

use super::virtual_machines;
use crate::world::World;
use crate::{cluster, host, metrics, zone};
use contract_compute::virtual_machine_metrics_server::VirtualMachineMetrics;
use contract_compute::{ListVirtualMachinesMetricsRequest, ListVirtualMachinesMetricsResponse};
use contract_infra::infrastructure_metrics_server::InfrastructureMetrics;
use contract_infra::{
    Infrastructure, ListClustersMetricsRequest, ListClustersMetricsResponse, ListHostsMetricsRequest,
    ListHostsMetricsResponse, ListInfrastructureRequest, ListZonesMetricsRequest, ListZonesMetricsResponse,
};
use prost::Message;
use tonic::{Request, Response, Status};

/// Figures of the infrastructure.
#[derive(Debug)]
pub struct InfrastructureMetricsApi(pub World);

/// Figures of virtual machines.
pub struct VirtualMachineMetricsApi(pub virtual_machines::Api);

/// The same message under another name.
fn read_as<A: Message, B: Message + Default>(message: &A) -> Result<B, Status> {
    B::decode(message.encode_to_vec().as_slice()).map_err(|e| Status::internal(format!("unlike messages: {e}")))
}

#[tonic::async_trait]
impl InfrastructureMetrics for InfrastructureMetricsApi {
    async fn infrastructure(
        &self,
        request: Request<ListInfrastructureRequest>,
    ) -> Result<Response<Infrastructure>, Status> {
        self.0.node.rpc.enter(request).await?;
        Ok(Response::new(metrics::infrastructure(&self.0).await?))
    }

    async fn zones(
        &self,
        request: Request<ListZonesMetricsRequest>,
    ) -> Result<Response<ListZonesMetricsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let listed = zone::list(&self.0, &cx, read_as(&r)?).await?;
        let mut answer: ListZonesMetricsResponse = read_as(&listed)?;
        metrics::zones(&self.0, &mut answer.zone).await?;
        Ok(Response::new(answer))
    }

    async fn clusters(
        &self,
        request: Request<ListClustersMetricsRequest>,
    ) -> Result<Response<ListClustersMetricsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let listed = cluster::list(&self.0, &cx, read_as(&r)?).await?;
        let mut answer: ListClustersMetricsResponse = read_as(&listed)?;
        metrics::clusters(&self.0, &mut answer.cluster).await?;
        Ok(Response::new(answer))
    }

    async fn hosts(
        &self,
        request: Request<ListHostsMetricsRequest>,
    ) -> Result<Response<ListHostsMetricsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        let listed = host::list(&self.0, &cx, read_as(&r)?).await?;
        let mut answer: ListHostsMetricsResponse = read_as(&listed)?;
        metrics::hosts(&self.0, &mut answer.host).await?;
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl VirtualMachineMetrics for VirtualMachineMetricsApi {
    async fn list(
        &self,
        request: Request<ListVirtualMachinesMetricsRequest>,
    ) -> Result<Response<ListVirtualMachinesMetricsResponse>, Status> {
        let (cx, r) = self.0.world.node.rpc.enter(request).await?;
        let listed = self.0.listed(&cx, read_as(&r)?).await?;
        let mut answer: ListVirtualMachinesMetricsResponse = read_as(&listed)?;
        metrics::virtual_machines(&mut answer.virtual_machine);
        Ok(Response::new(answer))
    }
}
