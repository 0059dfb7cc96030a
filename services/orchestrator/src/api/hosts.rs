//! Handlers of `arcus.infra.v1.Hosts`.

use crate::{host, world::World};
use contract::api::{JobRef, Success};
use contract_infra::hosts_server::Hosts;
use contract_infra::{
    AddHostRequest, CancelHostMaintenanceRequest, DeleteHostRequest, Host, ListHostTagsRequest, ListHostTagsResponse,
    ListHostsRequest, ListHostsResponse, PrepareHostForMaintenanceRequest, ReconnectHostRequest, UpdateHostRequest,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct HostsApi(pub World);

#[tonic::async_trait]
impl Hosts for HostsApi {
    async fn add(&self, request: Request<AddHostRequest>) -> Result<Response<ListHostsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(host::add(&self.0, &cx, r).await?))
    }

    async fn update(&self, request: Request<UpdateHostRequest>) -> Result<Response<Host>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(host::update(&self.0, &cx, r).await?))
    }

    async fn delete(&self, request: Request<DeleteHostRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(host::delete(&self.0, &cx, r).await?))
    }

    async fn list(&self, request: Request<ListHostsRequest>) -> Result<Response<ListHostsResponse>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(host::list(&self.0, &cx, r).await?))
    }

    async fn list_tags(&self, request: Request<ListHostTagsRequest>) -> Result<Response<ListHostTagsResponse>, Status> {
        let (_, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(host::list_tags(&self.0, r).await?))
    }

    async fn reconnect(&self, request: Request<ReconnectHostRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(host::reconnect::accept(&self.0, &cx, r).await?))
    }

    async fn prepare_for_maintenance(
        &self,
        request: Request<PrepareHostForMaintenanceRequest>,
    ) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(host::maintenance::prepare(&self.0, &cx, r).await?))
    }

    async fn cancel_maintenance(
        &self,
        request: Request<CancelHostMaintenanceRequest>,
    ) -> Result<Response<JobRef>, Status> {
        let (cx, r) = self.0.node.rpc.enter(request).await?;
        Ok(Response::new(host::maintenance::cancel(&self.0, &cx, r).await?))
    }
}
